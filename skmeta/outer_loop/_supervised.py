"""Supervised pre-training: ordinary batches of rows, under one head or one per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ..tasks._table import TaskTable
from ._episode import EpisodeFactory
from ._learner import Learner

#: Steps of an epoch at the least, see `EpisodeDataset`.
_MIN_STEPS = 5
#: Logit of a class that the task of a row does not have: its probability vanishes.
_MISSING = -100.0


@dataclass(frozen=True)
class Heads:
    """Shape of the heads that rows are pre-trained under.

    Parameters
    ----------
    n_heads : int
        One for all tasks, or one for each.
    n_outputs : int
        Outputs of a head.
    kind : {"linear", "cosine"}, default="linear"
        Cosine heads have no bias; their outputs are scaled cosines.
    is_classifier : bool, default=True
        Whether outputs are logits; else there is one output, a mean.
    exists : bool ndarray of shape (n_heads, n_outputs), default=None
        Which outputs a head has; None means all.
    """

    n_heads: int
    n_outputs: int
    kind: str = "linear"
    is_classifier: bool = True
    exists: Any = None


class Supervised(nn.Module):
    """Predicts rows by the backbone of a learner and heads of its own.

    Parameters
    ----------
    learner : Learner
        Whose backbone is trained.
    n_features : int
        Number of features.
    heads : Heads
        Shape of the heads.
    """

    exists: Tensor | None

    def __init__(self, learner: Learner, n_features: int, heads: Heads):
        super().__init__()
        self.learner = learner
        self.n_features = n_features
        self.n_diverged = 0
        if heads.kind == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.start(heads)

    def start(self, heads: Heads) -> None:
        """Begin with new heads, as for other tasks."""
        self.heads = heads
        bound = self.n_features**-0.5
        like = next(self.learner.backbone.parameters(), torch.empty(0))
        shape = (heads.n_heads, heads.n_outputs)
        weight = torch.empty(*shape, self.n_features).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight.to(like.device))
        self.bias: nn.Parameter | None = None
        if heads.kind == "linear":
            self.bias = nn.Parameter(torch.zeros(shape, device=like.device))
        exists = None
        if heads.exists is not None:
            exists = torch.from_numpy(heads.exists).to(like.device)
        self.register_buffer("exists", exists)

    def forward(self, X: Tensor, head: Tensor) -> Tensor:
        """Logits ``(n_rows, n_outputs)`` or means ``(n_rows,)`` under each row's head.

        Parameters
        ----------
        X : Tensor of shape (n_rows, *features)
            Rows.
        head : int64 Tensor of shape (n_rows,)
            Which head it is.
        """
        out = self._outputs(self.learner.backbone(X).flatten(1), head)
        if not self.heads.is_classifier:
            return out.squeeze(-1)
        if self.exists is None:
            return out
        return out.masked_fill(~self.exists[head], _MISSING)

    def _outputs(self, features: Tensor, head: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if self.bias is None:
            features = self.log_scale.exp() * nn.functional.normalize(features, dim=-1)
            weight = nn.functional.normalize(weight, dim=-1)
        if len(weight) == 1:
            bias = None if self.bias is None else self.bias[0]
            return nn.functional.linear(features, weight[0], bias)
        out = (weight[head] @ features.unsqueeze(-1)).squeeze(-1)
        return out if self.bias is None else out + self.bias[head]


class SupervisedFactory(EpisodeFactory):
    """Builds `Supervised` where skorch asks for a module."""

    def __init__(self, backbone, build_learner: Callable, sample: Tensor, heads):
        super().__init__(backbone, build_learner, sample, None)
        self.heads = heads

    def _wrapped(self, learner: Learner, n_features: int) -> nn.Module:
        return Supervised(learner, n_features, self.heads())


@dataclass
class RowSampler:
    """Batches of rows.

    Parameters
    ----------
    table : TaskTable
        Training rows; `y` holds the output of the head that is the class of a row, or
        its target.
    head : int64 ndarray of shape (n_rows,)
        Head of each row.
    seed : int
        Together with the number of the step it determines an epoch.
    dtype : torch.dtype or None, default=torch.float32
        Type of the rows handed out; None keeps that of the table.
    """

    table: TaskTable
    head: np.ndarray
    seed: int
    dtype: torch.dtype | None = torch.float32

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs of `Supervised`, and targets."""
        X, y = (
            torch.from_numpy(self.table.X[rows]),
            torch.from_numpy(self.table.y[rows]),
        )
        inputs = {"X": X.to(self.dtype), "head": torch.from_numpy(self.head[rows])}
        return inputs, y.to(self.dtype) if y.is_floating_point() else y


class RowDataset(Dataset):
    """Rows to train on; its length is what a validation split divides.

    Parameters
    ----------
    sampler : RowSampler
        Gives the batches.
    step : int, default=0
        Number of the first batch.
    """

    def __init__(self, sampler: RowSampler, step: int = 0):
        self.sampler = sampler
        self.step = step

    def __len__(self) -> int:
        return len(self.sampler.table.X)

    def __getitem__(self, index):
        return int(index)


class RowLoader:
    """Iterator of skorch over batches of rows, each of them one index operation.

    Parameters
    ----------
    dataset : RowDataset or Subset of it
        Rows.
    batch_size : int
        Rows of a batch.
    training : bool, default=True
        False gives every row once, in order.
    """

    def __init__(self, dataset, batch_size: int, training: bool = True):
        rows = np.arange(len(dataset))
        while isinstance(dataset, Subset):
            rows = np.asarray(dataset.indices)[rows]
            dataset = dataset.dataset
        self.dataset = dataset
        self.rows = rows
        self.batch_size = min(batch_size, len(rows)) if batch_size > 0 else len(rows)
        self.training = training

    def __len__(self) -> int:
        n_steps = math.ceil(len(self.rows) / self.batch_size)
        return max(_MIN_STEPS, n_steps) if self.training else n_steps

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        sampler = self.dataset.sampler
        if not self.training:
            for rows in np.array_split(self.rows, len(self)):
                yield sampler.batch(rows)
            return
        rng = np.random.default_rng([sampler.seed, self.dataset.step])
        # Batches of equal size: one row left over would have no variance to normalise.
        n_rows = len(self) * self.batch_size
        passes = range(math.ceil(n_rows / len(self.rows)))
        order = np.concatenate([rng.permutation(self.rows) for _ in passes])
        for rows in order[:n_rows].reshape(len(self), self.batch_size):
            self.dataset.step += 1
            yield sampler.batch(rows)
