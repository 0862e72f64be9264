"""Conditional neural processes as Torch learners."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..outer_loop import DensityLearner, TaskState
from ..outer_loop._density import positive
from ..tasks._batch import TaskBatch

#: Smallest deviation that is predicted, where targets have one of about 1.
MIN_STD = 1e-3


class CNP(DensityLearner):
    """Conditional neural process: the mean code of the support rows, decoded [1]_.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features, for the encoder as for the decoder.
    n_features : int
        Number of features.
    width : int, default=64
        Width of the code and of the layers of encoder and decoder.

    References
    ----------
    .. [1] Garnelo et al. "Conditional neural processes", ICML 2018.
    """

    def __init__(self, backbone: nn.Module, n_features: int, width: int = 64):
        super().__init__(backbone)
        self.encoder = _layers(n_features + 1, width, width)
        self.decoder = _layers(n_features + width, width, 2)

    def adapt(self, support: TaskBatch) -> TaskState:
        """The code ``(n_tasks, width)``, which is zero without rows."""
        codes = self.encode(support, self.embed(support))
        n_rows = support.weights.to(codes.dtype).sum(dim=1, keepdim=True)
        return {"code": codes.sum(dim=1) / n_rows.clamp(min=1)}

    def density(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Mean and deviation of a new observation: ``(n_tasks, n_rows, 2)``."""
        features = self.embed(query)
        code = state["code"].unsqueeze(1).expand(-1, features.shape[1], -1)
        return self.decode(features, code)

    def encode(self, support: TaskBatch, features: Tensor) -> Tensor:
        """A code of each row and its target, zero for padding."""
        assert support.y is not None
        codes = self.encoder(torch.cat([features, support.y.unsqueeze(-1)], dim=-1))
        return codes * support.weights.to(codes.dtype).unsqueeze(-1)

    def decode(self, features: Tensor, code: Tensor) -> Tensor:
        """Mean and deviation from features and a code for each row."""
        mean, raw = self.decoder(torch.cat([features, code], dim=-1)).unbind(-1)
        return torch.stack([mean, positive(raw, MIN_STD)], dim=-1)


class AttentiveNP(CNP):
    """Attentive neural process, the deterministic path: each row has its own code [1]_.

    The code of a query row is what multi-head attention to the support rows finds:
    queries and keys come from features, values are the codes of support rows.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features, for attention, encoder and decoder.
    n_features : int
        Number of features.
    width : int, default=64
        Width of the code and of the layers of encoder and decoder.
    n_heads : int, default=8
        Heads of the attention, a divisor of `width`.

    References
    ----------
    .. [1] Kim et al. "Attentive neural processes", ICLR 2019.
    """

    def __init__(
        self, backbone: nn.Module, n_features: int, width: int = 64, n_heads: int = 8
    ):
        super().__init__(backbone, n_features, width)
        self.n_heads = n_heads
        self.to_query = nn.Linear(n_features, width)
        self.to_key = nn.Linear(n_features, width)
        self.to_value = nn.Linear(width, width)
        # Without a bias, no support rows give a code of zero.
        self.to_code = nn.Linear(width, width, bias=False)

    def adapt(self, support: TaskBatch) -> TaskState:
        """Keys and values ``(n_tasks, n_rows, width)``, and which rows are real."""
        features = self.embed(support)
        values = self.to_value(self.encode(support, features))
        return {
            "keys": self.to_key(features),
            "values": values,
            "present": support.weights.to(values.dtype),
        }

    def density(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Mean and deviation of a new observation: ``(n_tasks, n_rows, 2)``."""
        features = self.embed(query)
        queries = self._heads(self.to_query(features))
        keys, values = self._heads(state["keys"]), self._heads(state["values"])
        scores = queries @ keys.mT / keys.shape[-1] ** 0.5
        absent = state["present"][:, None, None] == 0
        # Masked by a finite number: a softmax over -inf alone is NaN.
        share = scores.masked_fill(absent, -1e9).softmax(-1).masked_fill(absent, 0)
        code = self.to_code((share @ values).transpose(1, 2).flatten(2))
        return self.decode(features, code)

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def _layers(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, n_out),
    )


class HideSupport:
    """Shows some training tasks without support, to learn what is predicted then.

    Parameters
    ----------
    augment : callable or None
        What the user does to episodes, done first.
    share : float, default=1/16
        Probability that a task is shown so.
    """

    def __init__(self, augment=None, share: float = 1 / 16):
        self.augment = augment
        self.share = share

    def __call__(
        self, support: TaskBatch, query: TaskBatch
    ) -> tuple[TaskBatch, TaskBatch]:
        """Support with fewer real rows, and the query as it is."""
        if self.augment is not None:
            support, query = self.augment(support, query)
        n_tasks, n_rows = support.X.shape[:2]
        shown = torch.rand(n_tasks, 1, device=support.X.device) >= self.share
        if bool(shown.all()):
            return support, query
        mask = shown.expand(n_tasks, n_rows)
        mask = mask if support.mask is None else mask & support.mask
        return replace(support, mask=mask), query
