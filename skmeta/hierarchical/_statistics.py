"""Sufficient statistics of many linear-Gaussian tasks, stacked on a task axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

# Floats in one padded block: small enough for the cache, large enough that the Python
# loop over blocks does not show.
_BLOCK_SIZE = 2**19


@dataclass(frozen=True)
class Statistics:
    """What a Gaussian linear model needs to know of the rows of each task.

    Statistics of disjoint rows add up, so ``a + b`` is the streaming update: the
    posterior of a sum is the posterior of the union of the rows, those of `b` being the
    later ones.

    Parameters
    ----------
    gram : ndarray of shape (n_tasks, n_features, n_features)
        Sum of the outer products of the feature rows.
    cross : ndarray of shape (n_tasks, n_features)
        Sum of feature rows times target.
    energy : ndarray of shape (n_tasks,)
        Sum of squared targets.
    count : ndarray of shape (n_tasks,)
        Number of rows (sum of weights).
    decay : float, default=1.0
        What a row counts less, by this factor, for each row of its task after it; all
        four arrays are of rows that count so.
    """

    gram: np.ndarray
    cross: np.ndarray
    energy: np.ndarray
    count: np.ndarray
    decay: float = field(default=1.0, kw_only=True)

    @property
    def fields(self) -> tuple[np.ndarray, ...]:
        """The four arrays, uncopied."""
        return self.gram, self.cross, self.energy, self.count

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.count)

    @property
    def n_features(self) -> int:
        """Number of features, the intercept among them."""
        return self.cross.shape[1]

    def __add__(self, other: Statistics) -> Statistics:
        """Statistics of the union of the rows, task by task."""
        kept = other.kept_before()
        return Statistics(
            kept[:, None, None] * self.gram + other.gram,
            kept[:, None] * self.cross + other.cross,
            kept * self.energy + other.energy,
            kept * self.count + other.count,
            decay=self.decay,
        )

    def kept_before(self) -> np.ndarray:
        """Factor by which rows count less that came before all of these.

        For n rows it is ``decay ** n``, and their count is a geometric sum.
        """
        return np.maximum(1 - (1 - self.decay) * self.count, 0)

    def __sub__(self, other: Statistics) -> Statistics:
        """Statistics of the rows that are not in `other`; both without decay."""
        return Statistics(
            self.gram - other.gram,
            self.cross - other.cross,
            self.energy - other.energy,
            self.count - other.count,
        )

    def take(self, tasks) -> Self:
        """Statistics of some tasks: a slice, an index array or a mask."""
        return type(self)(*(part[tasks] for part in self.fields), decay=self.decay)

    def shifted(self, weights: np.ndarray) -> Statistics:
        """Statistics of what is left of the target after ``features @ weights``."""
        explained = self.gram @ weights
        energy = self.energy - (2 * self.cross - explained) @ weights
        return replace(self, cross=self.cross - explained, energy=energy)

    def task_level(self) -> np.ndarray:
        """Which columns vary, but within no task, as the age of a patient does."""
        count = np.maximum(self.count, 1)[:, None]
        squares = np.diagonal(self.gram, axis1=1, axis2=2)
        within = (squares - self.gram[:, 0] ** 2 / count).sum(0)
        # The constant is the first column: it does not vary at all.
        overall = squares.sum(0) - self.gram[:, 0].sum(0) ** 2 / count.sum()
        return (overall > 0) & (within <= 1e-8 * squares.sum(0))


def empty_statistics(n_tasks: int, n_features: int) -> Statistics:
    """Statistics of tasks of which nothing was seen."""
    return Statistics(
        np.zeros((n_tasks, n_features, n_features)),
        np.zeros((n_tasks, n_features)),
        np.zeros(n_tasks),
        np.zeros(n_tasks),
    )


def concatenate(parts: list[Statistics]) -> Statistics:
    """Statistics of the tasks of all parts, one after the other."""
    fields = zip(*(part.fields for part in parts), strict=True)
    joined = (np.concatenate(arrays) for arrays in fields)
    return type(parts[0])(*joined, decay=parts[0].decay)


def padded_blocks(
    codes: np.ndarray, n_tasks: int, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Group long-format rows into padded blocks of tasks of similar size.

    Parameters
    ----------
    codes : ndarray of shape (n_rows,)
        Task of every row, in ``range(n_tasks)`` and in any order.
    n_tasks : int
        Number of tasks.
    width : int
        Floats per row that the caller will hold, which bounds the size of a block.

    Yields
    ------
    tasks : ndarray of shape (n_block,)
        Tasks of the block; tasks without rows never appear.
    rows : ndarray of shape (n_block, n_padded)
        Row numbers; padding repeats a valid row.
    mask : ndarray of shape (n_block, n_padded)
        True for real rows.
    """
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=n_tasks)
    starts = np.cumsum(sizes) - sizes
    by_size = np.argsort(sizes, kind="stable")
    by_size = by_size[sizes[by_size] > 0]
    begin = 0
    while begin < len(by_size):
        # Sizes ascend: at most half of a block is padding, whatever the spread.
        smallest = sizes[by_size[begin]]
        similar = np.searchsorted(sizes[by_size], 2 * smallest + 4, side="right")
        limit = max(1, _BLOCK_SIZE // (width * int(sizes[by_size[similar - 1]])))
        tasks = np.sort(by_size[begin : min(similar, begin + limit)])
        begin += len(tasks)
        steps = np.arange(sizes[tasks].max())
        mask = steps < sizes[tasks, None]
        position = starts[tasks, None] + np.where(mask, steps, 0)
        yield tasks, order[position], mask


def accumulate(
    features: np.ndarray,
    y: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    weights: np.ndarray | None = None,
    decay: float = 1.0,
) -> Statistics:
    """Statistics of rows in long format, all tasks at once.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        Design rows, the constant feature among them.
    y : ndarray of shape (n_rows,)
        Targets.
    codes : ndarray of shape (n_rows,)
        Task of every row, in ``range(n_tasks)`` and in any order.
    n_tasks : int
        Number of tasks; those without rows get zeros.
    weights : ndarray of shape (n_rows,), default=None
        Weight of every row: the inverse of its noise relative to the others.
    decay : float, default=1.0
        What a row counts less for each row of its task after it.

    Returns
    -------
    Statistics
        One entry per task.
    """
    weights = aged(codes, weights, decay)
    joined = np.column_stack([features, y])
    total = outer_sums(joined, joined, codes, n_tasks, weights)
    count = np.bincount(codes, weights, minlength=n_tasks).astype(float)
    every = total[:, :-1, :-1], total[:, :-1, -1], total[:, -1, -1], count
    return Statistics(*every, decay=decay)


def aged(codes, weights, decay):
    """Weights of rows that count less by a factor for each row of their task after.

    Parameters
    ----------
    codes : ndarray of shape (n_rows,)
        Task of every row; rows of one task are in the order of time.
    weights : ndarray of shape (n_rows,) or None
        How often each row comes, one time after the other; None is once.
    decay : float
        The factor.

    Returns
    -------
    ndarray of shape (n_rows,), or None where every row counts once
    """
    if decay == 1:
        return weights
    weights = np.ones(len(codes)) if weights is None else weights
    return decay ** later_rows(codes, weights) * repeated(weights, decay)


def later_rows(codes, weights) -> np.ndarray:
    """Sum of the weights of the rows of the same task that come after each row."""
    order = np.argsort(codes, kind="stable")
    total = np.cumsum(weights[order])
    last = np.cumsum(np.bincount(codes)) - 1
    later = np.empty(len(codes))
    later[order] = total[last[codes[order]]] - total
    return later


def repeated(times, decay):
    """What a row counts that comes so many times, one after the other."""
    if decay == 1:
        return times
    return np.expm1(times * np.log(decay)) / (decay - 1)


def outer_sums(left, right, codes, n_tasks, weights=None) -> np.ndarray:
    """Sum over the rows of each task of ``weight * outer(left, right)``."""
    total = np.zeros((n_tasks, left.shape[1], right.shape[1]))
    for tasks, rows, mask in padded_blocks(codes, n_tasks, left.shape[1]):
        weight = mask.astype(float) if weights is None else mask * weights[rows]
        block = left[rows]
        other = block if right is left else right[rows]
        weighted = block * weight[..., None]
        total[tasks] = np.matmul(weighted.swapaxes(1, 2), other)
    return total
