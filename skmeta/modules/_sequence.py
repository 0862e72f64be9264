"""Backbones for series: several channels over time, each row of its own length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


def _as_series(X: Tensor) -> Tensor:
    """Rows ``(n, length, channels)``; a plain table is a series of one channel."""
    return X.unsqueeze(-1) if X.ndim == 2 else X


def real_steps(X: Tensor) -> Tensor:
    """True up to the last step that is not zero in all channels, ``(n, length)``.

    A row of zeros throughout is real in its first step, so that every row has one.
    """
    known = (X != 0).any(dim=-1)
    known = torch.cat([torch.ones_like(known[:, :1]), known[:, 1:]], dim=1)
    return known.flip(1).cummax(dim=1).values.flip(1)


class _Pooling(nn.Module):
    """One vector of the real steps of a series."""

    def __init__(self, kind: str, width: int):
        super().__init__()
        if kind not in ("last", "mean", "max", "attention"):
            raise ValueError(
                f"pooling must be 'last', 'mean', 'max' or 'attention'; got {kind!r}."
            )
        self.kind = kind
        if kind == "attention":
            self.score = nn.Linear(width, 1)

    def forward(self, H: Tensor, is_real: Tensor) -> Tensor:
        real = is_real.unsqueeze(-1)
        if self.kind == "last":
            last = is_real.sum(dim=1) - 1
            return H.take_along_dim(last[:, None, None], dim=1).squeeze(1)
        if self.kind == "max":
            return H.masked_fill(~real, -torch.inf).amax(dim=1)
        if self.kind == "mean":
            return (H * real).sum(dim=1) / real.sum(dim=1)
        weights = self.score(H).masked_fill(~real, -torch.inf).softmax(dim=1)
        return (weights * H).sum(dim=1)


class Recurrent(nn.Module):
    """Recurrent network over series, after a linear layer that fits their channels.

    Series that end early are filled up with zeros: steps after the last one that is
    not zero in every channel are padding and do not change the result. The number of
    channels is inferred from the first batch.

    Parameters
    ----------
    hidden : int, default=64
        Width of the state.
    cell : {"gru", "lstm", "rnn"}, default="gru"
        Kind of recurrence [1]_ [2]_.
    n_layers : int, default=1
        Recurrent layers on top of each other.
    bidirectional : bool, default=False
        Whether to read series backwards as well; doubles the number of features.
    pooling : {"last", "mean", "max", "attention"}, default="last"
        What becomes of the states of all steps: the last one (backwards: the first),
        their mean, their maximum, or a mean with learned weights.

    References
    ----------
    .. [1] Cho et al. "Learning phrase representations using RNN encoder-decoder for
       statistical machine translation", EMNLP 2014.
    .. [2] Hochreiter and Schmidhuber. "Long short-term memory", Neural Computation,
       1997.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import Recurrent
    >>> Recurrent(hidden=16, cell="lstm")(torch.ones(5, 20, 3)).shape
    torch.Size([5, 16])
    """

    def __init__(
        self,
        hidden: int = 64,
        cell: str = "gru",
        n_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
    ):
        super().__init__()
        if cell not in _CELLS:
            raise ValueError(f"cell must be one of {sorted(_CELLS)}; got {cell!r}.")
        self.project = nn.LazyLinear(hidden)
        directions = 2 if bidirectional else 1
        self.forwards = nn.ModuleList(
            _CELLS[cell](hidden * (directions if i else 1), hidden, batch_first=True)
            for i in range(n_layers)
        )
        self.backwards = nn.ModuleList(
            _CELLS[cell](hidden * (directions if i else 1), hidden, batch_first=True)
            for i in range(n_layers if bidirectional else 0)
        )
        self.pooling = _Pooling(pooling, hidden * directions)

    def forward(self, X: Tensor, is_real: Tensor | None = None) -> Tensor:
        """Features of series ``(n, length, channels)`` or ``(n, length)``."""
        X = _as_series(X)
        is_real = real_steps(X) if is_real is None else is_real
        turned = _turned(is_real)
        H = self.project(X)
        for i, layer in enumerate(self.forwards):
            ahead = layer(H)[0]
            if not self.backwards:
                H = ahead
                continue
            # The real steps in reverse: padding stays behind them and is never read.
            reverse = H.take_along_dim(turned, dim=1)
            back = self.backwards[i](reverse)[0].take_along_dim(turned, dim=1)
            H = torch.cat([ahead, back], dim=-1)
        if self.pooling.kind != "last" or not self.backwards:
            return self.pooling(H, is_real)
        half = H.shape[-1] // 2
        return torch.cat([self.pooling(H[..., :half], is_real), H[:, 0, half:]], -1)


def _turned(is_real: Tensor) -> Tensor:
    """Index that reverses the real steps and leaves padding where it is."""
    place = torch.arange(is_real.shape[1], device=is_real.device)
    reverse = is_real.sum(dim=1, keepdim=True) - 1 - place
    return torch.where(is_real, reverse, place).unsqueeze(-1)


class TemporalConv(nn.Module):
    """Dilated causal convolutions over series, with residual connections.

    Each block sees twice as far back as the one before it [1]_. A step depends on what
    came before it alone, so padding behind a series changes nothing; see `Recurrent`
    for what counts as padding. The number of channels is inferred from the first
    batch.

    Parameters
    ----------
    width : int, default=64
        Filters of each block, and number of features.
    n_blocks : int, default=3
        Blocks; the last step sees ``1 + 2 (kernel_size - 1) (2**n_blocks - 1)``
        steps.
    kernel_size : int, default=3
        Steps of a filter.
    dropout : float, default=0.0
        Probability of zeroing a value after each convolution.
    pooling : {"last", "mean", "max", "attention"}, default="max"
        What becomes of all steps, as in `Recurrent`.

    References
    ----------
    .. [1] Bai, Kolter and Koltun. "An empirical evaluation of generic convolutional
       and recurrent networks for sequence modeling", arXiv:1803.01271, 2018.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import TemporalConv
    >>> TemporalConv(width=16)(torch.ones(5, 20, 3)).shape
    torch.Size([5, 16])
    """

    def __init__(
        self,
        width: int = 64,
        n_blocks: int = 3,
        kernel_size: int = 3,
        dropout: float = 0.0,
        pooling: str = "max",
    ):
        super().__init__()
        self.project = nn.LazyLinear(width)
        self.blocks = nn.ModuleList(
            _CausalBlock(width, kernel_size, 2**i, dropout) for i in range(n_blocks)
        )
        self.pooling = _Pooling(pooling, width)

    def forward(self, X: Tensor) -> Tensor:
        """Features of series ``(n, length, channels)`` or ``(n, length)``."""
        X = _as_series(X)
        H = self.project(X).mT
        for block in self.blocks:
            H = block(H)
        return self.pooling(H.mT, real_steps(X))


class _CausalBlock(nn.Module):
    def __init__(self, width: int, kernel_size: int, dilation: int, dropout: float):
        super().__init__()
        self.reach = (kernel_size - 1) * dilation
        self.first = nn.Conv1d(width, width, kernel_size, dilation=dilation)
        self.second = nn.Conv1d(width, width, kernel_size, dilation=dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, H: Tensor) -> Tensor:
        out = H
        for convolve in (self.first, self.second):
            past = nn.functional.pad(out, (self.reach, 0))
            out = self.dropout(convolve(past).relu())
        return H + out
