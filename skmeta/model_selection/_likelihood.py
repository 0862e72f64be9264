"""How likely the targets of a task are, row after row, and with its rows exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm, t
from sklearn.base import is_classifier

from ..base import ProbabilisticRegressorMixin
from ._rows import HeldOut

#: Rows that are held at once while targets are exchanged.
_MAX_ROWS = 100_000
#: What is left for classes that a learner holds impossible, and the degrees of freedom
#: of targets that have nothing to do with their features.
_DOUBT, _FREEDOM = 0.02, 4


@dataclass(frozen=True)
class Unrelated:
    """Targets that have nothing to do with their features: those of all tasks.

    Parameters
    ----------
    center, spread : float
        Mean and standard deviation of numbers.
    labels : ndarray of shape (n_labels,) or None
        Classes; None for numbers, and where they belong to their task.
    shares : ndarray of shape (n_labels,) or None
        Their frequencies.
    """

    center: float = 0.0
    spread: float = 1.0
    labels: Any = None
    shares: Any = None

    @classmethod
    def of(cls, y, classifier, per_task):
        """As the targets of all training tasks are."""
        if per_task:
            return cls()
        if classifier:
            labels, counts = np.unique(y, return_counts=True)
            return cls(labels=labels, shares=counts / counts.sum())
        return cls(float(np.mean(y)), max(float(np.std(y)), 1e-12))

    def losses(self, y, codes, classifier):
        """Minus the logarithm of the density or probability of every row."""
        if not classifier:
            z = (y - self.center) / self.spread
            return np.log(self.spread) - t.logpdf(z, _FREEDOM)
        if self.labels is not None:
            share = (y[:, None] == self.labels) @ self.shares
            return _doubtful(share, len(self.labels))
        pairs = np.unique(
            np.stack([codes, np.unique(y, return_inverse=True)[1]]), axis=1
        )
        return np.log(np.bincount(pairs[0], minlength=codes.max() + 1))[codes]


def blocks(n_rows):
    """Bounds of blocks of rows, each predicted from all before it: 0, 1, 2, 4, 8..."""
    low, high = 0, 1
    while low < n_rows:
        yield low, min(high, n_rows)
        low, high = high, 2 * high


def squared_errors(held_out: HeldOut, rank, used):
    """Sum of the squared errors and number of rows of every block."""
    found = []
    for low, high in blocks(rank[used].max() + 1):
        X, y, codes = held_out.take(used & (rank >= low) & (rank < high))
        meta = held_out.adapted(used & (rank < low))
        error = 0.0
        if low or has_prior(meta):
            error = np.square(y - meta.predict(X, groups=codes)).sum()
        found.append((error, len(y)))
    return np.array(found)


def log_ratios(held_out: HeldOut, used, rank, unrelated, scales, n_permutations, rng):
    """By how much two other explanations of the targets are more likely.

    Parameters
    ----------
    held_out : HeldOut
        Tasks that the estimator has not seen.
    used : bool ndarray of shape (n_rows,)
        Rows that are judged.
    rank : ndarray of shape (n_rows,)
        Place of each row in its task; of each class, where classes belong to tasks.
    unrelated : Unrelated
        The second explanation.
    scales : ndarray of shape (n_blocks,) or None
        Errors of a learner that states no standard deviation.
    n_permutations : int
        Exchanges of the rows of every task.
    rng : Generator
        Draws them.

    Returns
    -------
    ndarray of shape (n_tasks, 2)
        Logarithms of likelihood ratios: that the targets belong to other rows of the
        task, and that they have nothing to do with its features.
    """
    n_tasks, n_copies = held_out.rows.n_tasks, n_permutations + 1
    index = np.flatnonzero(used)
    codes, y = held_out.rows.codes[index], held_out.rows.y[index]
    classifier = is_classifier(held_out.meta)
    total = np.empty((n_copies, n_tasks))
    step = max(_MAX_ROWS // len(index), 1)
    for first in range(0, n_copies, step):
        # The first copy is the task as it is.
        order = [
            index if copy == 0 else _exchanged(index, codes, rng)
            for copy in range(first, min(first + step, n_copies))
        ]
        n = len(order)
        number = (codes + n_tasks * np.arange(n)[:, None]).ravel()
        pairs = held_out.paired(np.concatenate(order), np.tile(index, n), number)
        losses = _row_losses(pairs, np.tile(rank[index], n), scales)
        sums = np.bincount(number, losses, minlength=n * n_tasks)
        total[first : first + n] = sums.reshape(n, n_tasks)
    other = np.where(
        (rank[index] > 0) | has_prior(held_out.meta),
        unrelated.losses(y, codes, classifier),
        0.0,
    )
    exchanged = logsumexp(-total[1:], axis=0) - np.log(n_permutations)
    nothing = -np.bincount(codes, other, minlength=n_tasks)
    return np.column_stack([total[0] + exchanged, total[0] + nothing])


def _exchanged(index, codes, rng):
    """The rows in a random order within their tasks."""
    found = np.empty_like(index)
    found[np.argsort(codes, kind="stable")] = index[
        np.lexsort((rng.random(len(index)), codes))
    ]
    return found


def _row_losses(held_out, rank, scales):
    """Minus the log-likelihood of every row, given those of the blocks before its own.

    Zero where there is nothing to predict from.
    """
    losses = np.zeros(len(rank))
    for b, (low, high) in enumerate(blocks(rank.max() + 1)):
        query = (rank >= low) & (rank < high)
        if low or has_prior(held_out.meta):
            meta = held_out.adapted(rank < low)
            scale = None if scales is None else scales[b]
            losses[query] = _losses(meta, *held_out.take(query), scale)
    return losses


def _losses(meta, X, y, codes, scale):
    if is_classifier(meta):
        proba = meta.predict_proba(X, groups=codes)
        found = (proba * (y[:, None] == meta.classes_)).sum(axis=1)
        return _doubtful(found, proba.shape[1])
    if scale is None:
        return -norm.logpdf(y, *meta.predict(X, groups=codes, return_std=True))
    return -norm.logpdf(y, meta.predict(X, groups=codes), scale)


def _doubtful(proba, n_classes):
    """Minus the logarithm of a probability that is never quite zero."""
    return -np.log((1 - _DOUBT) * proba + _DOUBT / n_classes)


def needs_scales(meta):
    """Whether a learner predicts numbers and does not say how far off they are."""
    return not is_classifier(meta) and not isinstance(meta, ProbabilisticRegressorMixin)


def has_prior(meta):
    return meta._prior_summary([None]) is not None
