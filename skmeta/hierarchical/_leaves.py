"""Leaves of a forest, whose values differ from task to task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tasks._sampler import support_mask
from ..tasks._table import sum_by_code, table_from_codes
from ._out_of_fold import folds

#: Numbers of rows of a held-out task from which its others are predicted.
SHOTS = (1, 2, 5, 10, 20)
#: Candidates; the first of those that are equally good is taken, so the firmest.
STRENGTHS = np.geomspace(1000.0, 0.1, 17)
#: More held-out tasks than this in a fold tell little more.
_MAX_TASKS = 60
#: Numbers held at a time.
_CHUNK = 2**22


@dataclass(frozen=True)
class Leaves:
    """A fitted forest whose nodes are numbered from tree to tree.

    Parameters
    ----------
    forest : estimator
        Fitted forest of scikit-learn.
    roots : ndarray of shape (n_trees,)
        Number of the root of each tree.
    values : ndarray of shape (n_nodes, n_outputs)
        Mean target of each node, or frequencies of the classes.
    """

    forest: Any
    roots: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, forest, classes=None):
        """Leaves of a fitted forest, which may not have seen all of the classes."""
        trees = [tree.tree_ for tree in forest.estimators_]
        values = np.concatenate([tree.value[:, 0] for tree in trees])
        if classes is not None:
            shares = values / values.sum(axis=1, keepdims=True)
            values = np.zeros((len(shares), len(classes)))
            values[:, np.searchsorted(classes, forest.classes_)] = shares
        counts = [tree.node_count for tree in trees]
        return cls(forest, np.cumsum(counts) - counts, values)

    def reached(self, X):
        """Leaf of each row in each tree: (n_rows, n_trees)."""
        if not len(X):
            return np.zeros((0, len(self.roots)), dtype=np.intp)
        return self.forest.apply(X) + self.roots

    def pooled(self, reached):
        """What the forest predicts for rows, whatever their task."""
        out = np.zeros((len(reached), self.values.shape[1]))
        for leaf in reached.T:
            out += self.values[leaf]
        return out / reached.shape[1]

    def keys(self, reached, codes):
        """A number for each pair of a task and a leaf, ascending in both."""
        return codes[:, None] * len(self.values) + reached

    def evidence(self, reached, Y, codes, n_tasks, weight=None):
        """What rows of tasks say of the leaves that they reach.

        Parameters
        ----------
        reached : ndarray of shape (n_rows, n_trees)
            Leaves of the rows.
        Y : ndarray of shape (n_rows, n_outputs)
            Targets, or indicators of the classes.
        codes : ndarray of shape (n_rows,)
            Task of each row.
        n_tasks : int
            Number of tasks.
        weight : ndarray of shape (n_rows,), default=None
            How often each row counts.

        Returns
        -------
        Evidence
        """
        weight = np.ones(len(Y)) if weight is None else weight
        keys, place = np.unique(self.keys(reached, codes), return_inverse=True)
        place = place.reshape(reached.shape)
        count, total = np.zeros(len(keys)), np.zeros((len(keys), Y.shape[1]))
        for leaf, pair in zip(reached.T, place.T, strict=True):
            np.add.at(count, pair, weight)
            np.add.at(total, pair, weight[:, None] * (Y - self.values[leaf]))
        n_rows = np.bincount(codes, weight, n_tasks)
        above = weight[:, None] * (Y - self.pooled(reached))
        return Evidence(keys, count, total, n_rows, sum_by_code(above, codes, n_tasks))


@dataclass(frozen=True)
class Evidence:
    """Sums over rows of tasks, by task and by the leaves that they reach.

    Parameters
    ----------
    keys : ndarray of shape (n_pairs,)
        Pairs of a task and a leaf with at least one row, ascending.
    count : ndarray of shape (n_pairs,)
        Rows of each pair.
    total : ndarray of shape (n_pairs, n_outputs)
        Sum of what these rows are above the value of the leaf.
    n_rows : ndarray of shape (n_tasks,)
        Rows of each task.
    miss : ndarray of shape (n_tasks, n_outputs)
        Sum of what the rows of a task are above the prediction of the forest.
    """

    keys: np.ndarray
    count: np.ndarray
    total: np.ndarray
    n_rows: np.ndarray
    miss: np.ndarray

    def levels(self, strength):
        """What all rows of each task are expected to be above the forest."""
        return self.miss / (self.n_rows + strength)[:, None]

    def find(self, keys):
        """Count and total of each of these pairs; 0 for those without rows."""
        place, hit = find(self.keys, keys)
        return self.count[place] * hit, self.total[place] * hit[..., None]


def single_precision_scale(X):
    """Powers of two that bring columns into the range of single precision.

    Trees see the same order of the same numbers. Columns that are in its middle stay as
    they are.
    """
    largest = np.fmax.reduce(np.abs(X), axis=0, initial=0.0)
    exponent = np.clip(np.frexp(largest)[1], -1000, 1000)
    return np.where(np.abs(exponent) > 64, 0.5 ** exponent.astype(float), 1.0)


def find(keys, wanted):
    """Where each wanted key stands among ascending ones, and whether it is there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


def learn_strengths(fit, table, Y, *, cv, support, levels):
    """How firm the forest should be for its predictions of held-out tasks to be best.

    The forest is fitted on other tasks, a task then shows a few rows, and its other
    rows are predicted. Squared errors, which for classes are Brier scores, are averaged
    over tasks and over numbers of rows.

    Parameters
    ----------
    fit : callable
        Positions of rows to the `Leaves` of a forest that is fitted on them.
    table : TaskTable
        Rows of all training tasks.
    Y : ndarray of shape (n_rows, n_outputs)
        Their targets, or indicators of their classes.
    cv : int
        Folds over tasks.
    support : {"random", "first"}
        Which rows of a task are seen first.
    levels : sequence of float
        Candidates for the strength of the level, the firmest first.

    Returns
    -------
    leaf : float
        Rows of a task in a leaf that weigh as much as the value of the leaf.
    level : float
        Rows of a task whose mean error weighs as much as there being none.
    """
    losses = np.zeros((len(STRENGTHS), len(levels)))
    for train, test in folds(table.codes, cv):
        leaves = fit(train)
        tasks = np.unique(table.codes[test])
        chosen = np.random.default_rng(0).permutation(tasks)[:_MAX_TASKS]
        test = test[np.isin(table.codes[test], chosen)]
        codes = np.unique(table.codes[test], return_inverse=True)[1]
        reached = leaves.reached(table.X[test])
        task_rows = table_from_codes(reached, Y[test], codes, np.sort(chosen))
        for n_shots in SHOTS:
            losses += _losses(leaves, task_rows, n_shots, support, levels)
    leaf, level = np.unravel_index(losses.argmin(), losses.shape)
    return float(STRENGTHS[leaf]), float(levels[level])


def _losses(leaves, tasks, n_shots, support, levels):
    """Sum over tasks of their mean loss, for each strength of leaves and of levels."""
    shown = support_mask(tasks.codes, None, n_shots, support=support)
    shown, asked = (tasks.take_rows(np.flatnonzero(rows)) for rows in (shown, ~shown))
    losses = np.zeros((len(STRENGTHS), len(levels)))
    if not len(shown.X):
        return losses
    evidence = leaves.evidence(shown.X, shown.y, shown.codes, tasks.n_tasks)
    offsets = [evidence.levels(level) for level in levels]
    share = 1 / asked.counts[asked.codes]
    step = max(1, _CHUNK // (asked.X.shape[1] * asked.y.shape[1]))
    for start in range(0, len(asked.X), step):
        rows = slice(start, start + step)
        reached, codes = asked.X[rows], asked.codes[rows]
        count, total = evidence.find(leaves.keys(reached, codes))
        miss = asked.y[rows] - leaves.pooled(reached)
        for i, leaf in enumerate(STRENGTHS):
            by = 1 / (count + leaf)
            left = miss - np.einsum("qt,qtk->qk", by, total) / reached.shape[1]
            # What a leaf says is above the level, so that it takes the level back.
            share_of_level = 1 - (by * count).mean(axis=1, keepdims=True)
            for j, offset in enumerate(offsets):
                error = left - share_of_level * offset[codes]
                losses[i, j] += share[rows] @ np.square(error).sum(axis=1)
    return losses
