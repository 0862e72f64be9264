"""Backbones for text: rows of token ids, 0 for padding.

Where tokens bring the ids of their n-grams along, ``(n, length, 1 + n_parts)``, the
tokens alone are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ._sequence import Recurrent, real_steps


class TokenEmbedding(nn.Module):
    """Vectors of token ids; rows that are vectors already pass through.

    Parameters
    ----------
    embedding : int, array of shape (n_tokens, width) or None
        Number of tokens, or their initial vectors. None where rows are vectors.
    width : int
        Width of the vectors where they start at random.
    frozen : bool
        Whether the vectors stay as they are.
    """

    def __init__(self, embedding, width: int = 64, frozen: bool = False):
        super().__init__()
        self.table: nn.Embedding | None = None
        if embedding is None:
            return
        if np.ndim(embedding) == 0:
            vectors = torch.randn(int(embedding), width) * width**-0.5
        else:
            vectors = torch.as_tensor(np.array(embedding), dtype=torch.float32)
        vectors[0] = 0
        self.table = nn.Embedding.from_pretrained(vectors, frozen, padding_idx=0)

    def forward(self, X: Tensor) -> Tensor:
        """Vectors ``(n, length, width)``; zeros for padding."""
        if self.table is None:
            return X
        ids = X.long() if X.ndim == 2 else X[..., 0].long()
        # New words may have ids of their own above the vocabulary.
        return self.table(torch.where(ids < self.table.num_embeddings, ids, 1))


class TextCNN(nn.Module):
    """Filters over a few neighbouring words, each with its maximum over the text.

    The convolutional network for sentences of Kim [1]_. Padding never counts.

    Parameters
    ----------
    embedding : int, array of shape (n_tokens, width) or None, default=None
        Number of tokens, for vectors that start at random, or their initial vectors,
        such as ``Word2VecEmbedding(...).fit(texts).vectors_``. None where rows are
        series of vectors already, ``(n, length, width)``.
    width : int, default=64
        Width of the vectors where they start at random.
    n_filters : int, default=64
        Filters of each size.
    sizes : sequence of int, default=(1, 2, 3)
        Sizes of the filters, in words.
    frozen : bool, default=False
        Whether the vectors stay as they are. Otherwise the outer loop tunes them, and
        gradient learners adapt them to each task as they do all weights.
    dropout : float, default=0.0
        Probability of zeroing a value of the word vectors.

    References
    ----------
    .. [1] Kim. "Convolutional neural networks for sentence classification",
       EMNLP 2014.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import TextCNN
    >>> ids = torch.tensor([[2, 3, 4, 0, 0], [4, 4, 2, 5, 1]])
    >>> TextCNN(embedding=6, n_filters=8)(ids).shape
    torch.Size([2, 24])
    """

    def __init__(
        self,
        embedding=None,
        width: int = 64,
        n_filters: int = 64,
        sizes: Sequence[int] = (1, 2, 3),
        frozen: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embed = TokenEmbedding(embedding, width, frozen)
        self.sizes = tuple(sizes)
        self.filters = nn.ModuleList(
            nn.LazyConv1d(n_filters, size) for size in self.sizes
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, X: Tensor) -> Tensor:
        """Features of token ids ``(n, length)``."""
        vectors = self.embed(X)
        is_real = real_tokens(X)
        words = self.dropout(vectors).mT
        maxima = []
        for size, convolve in zip(self.sizes, self.filters, strict=True):
            before = (size - 1) // 2
            padded = nn.functional.pad(words, (before, size - 1 - before))
            found = convolve(padded).masked_fill(~is_real.unsqueeze(1), -torch.inf)
            maxima.append(found.amax(dim=2).relu())
        return torch.cat(maxima, dim=1)


class TextRNN(nn.Module):
    """Word vectors read by a recurrent network.

    Parameters
    ----------
    embedding, width, frozen, dropout
        As in `TextCNN`.
    hidden : int, default=64
        Width of the state.
    cell : {"gru", "lstm", "rnn"}, default="gru"
        Kind of recurrence.
    bidirectional : bool, default=True
        Whether to read texts backwards as well.
    pooling : {"last", "mean", "max", "attention"}, default="attention"
        What becomes of the states of all words, as in `Recurrent`; attention [1]_ is a
        mean with learned weights.

    References
    ----------
    .. [1] Yang et al. "Hierarchical attention networks for document classification",
       NAACL 2016.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import TextRNN
    >>> ids = torch.tensor([[2, 3, 4, 0, 0], [4, 4, 2, 5, 1]])
    >>> TextRNN(embedding=6, hidden=8)(ids).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        embedding=None,
        width: int = 64,
        hidden: int = 64,
        cell: str = "gru",
        bidirectional: bool = True,
        pooling: str = "attention",
        frozen: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embed = TokenEmbedding(embedding, width, frozen)
        self.dropout = nn.Dropout(dropout)
        self.read = Recurrent(
            hidden, cell, bidirectional=bidirectional, pooling=pooling
        )

    def forward(self, X: Tensor) -> Tensor:
        """Features of token ids ``(n, length)``."""
        return self.read(self.dropout(self.embed(X)), real_tokens(X))


class BagOfEmbeddings(nn.Module):
    """Mean of the word vectors, whatever their order.

    Parameters
    ----------
    embedding, width, frozen, dropout
        As in `TextCNN`.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import BagOfEmbeddings
    >>> ids = torch.tensor([[2, 3, 4, 0, 0], [4, 4, 2, 5, 1]])
    >>> BagOfEmbeddings(embedding=6, width=8)(ids).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        embedding=None,
        width: int = 64,
        frozen: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embed = TokenEmbedding(embedding, width, frozen)
        self.dropout = nn.Dropout(dropout)

    def forward(self, X: Tensor) -> Tensor:
        """Features of token ids ``(n, length)``."""
        real = real_tokens(X).unsqueeze(-1)
        return (self.dropout(self.embed(X)) * real).sum(dim=1) / real.sum(dim=1)


def real_tokens(X: Tensor) -> Tensor:
    """True for what is not padding behind the text; the first place always is."""
    return real_steps(X.unsqueeze(-1) if X.ndim == 2 else X)
