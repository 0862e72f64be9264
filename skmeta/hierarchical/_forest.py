"""Random forests whose leaves have a prior that is learned over tasks."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.utils import get_tags
from sklearn.utils._param_validation import Interval

from ..base import MetaClassifierMixin, MetaEstimator, MetaRegressorMixin
from ..base._kept_rows import KeptRowsMixin
from ..base._weights import WeightedSupportMixin
from ._leaves import (
    STRENGTHS,
    Leaves,
    find,
    learn_strengths,
    single_precision_scale,
)

#: Sums of so large numbers are still in the range of single precision.
_LARGEST = 1e30


class HierarchicalForestMixin(WeightedSupportMixin, KeptRowsMixin):
    """A forest of all tasks, and what the rows of a task say of the leaves they reach.

    The state of a task is what its leaves are above the forest, the leaves that no row
    of it has reached left out.
    """

    _parameter_constraints: dict = {
        "cv": [Interval(Integral, 2, None, closed="left")],
        **KeptRowsMixin._parameter_constraints,
    }

    def __init__(
        self,
        estimator=None,
        *,
        cv=5,
        n_shots=5,
        support="random",
        group_column=None,
    ):
        self.estimator = estimator
        self.cv = cv
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    def _learn_leaves(self, table, y, classes=None, levels=(np.inf,)):
        """Fit the forest on all rows and the strengths on held-out tasks."""
        forest = self._default_forest if self.estimator is None else self.estimator
        self._scale = single_precision_scale(table.X)
        table = replace(table, X=self._scaled(table.X))

        def fit(rows=slice(None)):
            return Leaves.of(clone(forest).fit(table.X[rows], y[rows]), classes)

        self.leaf_strength_, strength = learn_strengths(
            fit,
            table,
            self._targets(table),
            cv=self.cv,
            support=self.support,
            levels=levels,
        )
        leaves = fit()
        self.estimator_, self._leaves = leaves.forest, leaves
        return strength

    def _scaled(self, X):
        """Rows as the trees see them, who compute in single precision."""
        with np.errstate(over="ignore"):
            return np.clip(X * self._scale, -_LARGEST, _LARGEST)

    def _reached(self, X):
        return self._leaves.reached(self._scaled(X))

    def _solve(self, rows):
        leaves = self._leaves
        evidence = leaves.evidence(
            self._reached(rows.X),
            self._targets(rows),
            rows.codes,
            rows.n_tasks,
            rows.weight,
        )
        level = evidence.levels(self._level_strength)
        tasks, reached = np.divmod(evidence.keys, len(leaves.values))
        above = evidence.total - evidence.count[:, None] * level[tasks]
        above /= (evidence.count + self.leaf_strength_)[:, None]
        bounds = np.searchsorted(tasks, np.arange(1, rows.n_tasks))
        return {
            "level": level,
            "leaves": _split(reached, bounds),
            "above": _split(above, bounds),
        }

    def _forward(self, state, table):
        leaves, reached = self._leaves, self._reached(self._flat(table))
        output = leaves.pooled(reached) + state["level"][table.codes]
        counts = [len(part) for part in state["leaves"]]
        if not sum(counts):
            return output
        known = np.concatenate(list(state["leaves"]))[:, None]
        keys = leaves.keys(known, np.repeat(np.arange(len(counts)), counts)).ravel()
        above = np.concatenate(list(state["above"])) / len(leaves.roots)
        wanted = leaves.keys(reached, table.codes)
        for column in wanted.T:
            place, hit = find(keys, column)
            output[hit] += above[place[hit]]
        return output

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        forest = self._default_forest if self.estimator is None else self.estimator
        tags.input_tags.allow_nan = get_tags(forest).input_tags.allow_nan
        return tags


def _split(values, bounds):
    """Parts between bounds, as an array of arrays."""
    parts = np.split(values, bounds)
    out = np.empty(len(parts), dtype=object)
    for i, part in enumerate(parts):
        out[i] = part
    return out


class HierarchicalForestClassifier(
    HierarchicalForestMixin, MetaClassifierMixin, MetaEstimator
):
    """Random forest in whose leaves every task has class frequencies of its own.

    Classes mean the same in every task. A forest is fitted on the rows of all tasks.
    The frequencies of a task in a leaf have a Dirichlet prior around those that the
    forest found there; rows of the task that fall into the leaf are counted on top, so
    that adapting is counting, and no tree is grown again [1]_, [2]_. How many rows the
    prior is worth is learned: it is what predicts the later rows of held-out training
    tasks best from their first ones. A leaf that no row of the task has reached, and a
    task without rows, are predicted by the forest.

    Unlike the level and slopes of `HierarchicalClassifier`, what a row tells stays near
    that row: rows of one class say nothing of regions in which others live. That helps
    where the first rows of a task are all of a few classes.

    Parameters
    ----------
    estimator : RandomForestClassifier or ExtraTreesClassifier, default=None
        The forest. None is ``RandomForestClassifier(random_state=0)``. Missing values
        are allowed where the forest allows them.
    cv : int, default=5
        Folds over tasks, for learning how firm leaves are.
    n_shots : int, default=5
        Support rows per class of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support, in `score` too: a random draw, or the
        first in row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    estimator_ : estimator
        The forest, fitted on all training rows.
    leaf_strength_ : float
        Rows of a task in a leaf that weigh as much as what the forest says there:
        0.1 where tasks differ widely, 1000 where they turned out to be alike.
    states_ : TaskStates
        Rows of every known task, and what its leaves are above the forest.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    HierarchicalClassifier : Logistic models; a forest may be its `base_estimator`.
    HierarchicalForestRegressor : For numbers.

    Notes
    -----
    Prediction of a tree: ``(strength * p + n) / (strength + n.sum())``, with the
    frequencies ``p`` of all rows and the counts ``n`` of rows of the task in the leaf;
    the forest is the mean of its trees. Rows of training tasks are in both.

    References
    ----------
    .. [1] Saffari, Leistner, Santner, Godec and Bischof. "On-line random forests",
       ICCV Workshops 2009.
    .. [2] Segev, Harel, Mannor, Crammer and El-Yaniv. "Learn on source, refine on
       target: a model transfer learning framework with random forests", IEEE
       Transactions on Pattern Analysis and Machine Intelligence 39, 2017.

    Examples
    --------
    >>> from skmeta import HierarchicalForestClassifier
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(30, 20, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> meta = HierarchicalForestClassifier().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict_proba(X[10:]).shape
    (10, 2)
    """

    _parameter_constraints: dict = {
        "estimator": [RandomForestClassifier, ExtraTreesClassifier, None],
        **HierarchicalForestMixin._parameter_constraints,
    }

    #: Frequencies are those of all tasks, so classes mean the same in every task.
    label_space = "shared"

    _default_forest = RandomForestClassifier(random_state=0)
    _level_strength = np.inf

    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._learn_classes(table, classes)
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        self._learn_leaves(training, self.classes_[training.y], self.classes_)
        return rows

    def _targets(self, rows):
        return np.eye(len(self.classes_))[rows.y]

    def _to_proba(self, output):
        return output


class HierarchicalForestRegressor(
    HierarchicalForestMixin, MetaRegressorMixin, MetaEstimator
):
    """Random forest in whose leaves every task has means of its own.

    A forest is fitted on the rows of all tasks. A task is a level above it, and in each
    leaf a mean above that; both have normal priors around zero, so that means of few
    rows are shrunk [1]_, and adapting is summing: no tree is grown again [2]_. How many
    rows the priors are worth is learned: it is what predicts the later rows of held-out
    training tasks best from their first ones. A leaf that no row of the task has
    reached is predicted by the forest and the level, a task without rows by the forest.

    Parameters
    ----------
    estimator : RandomForestRegressor or ExtraTreesRegressor, default=None
        The forest. None is ``RandomForestRegressor(random_state=0)``. Missing values
        are allowed where the forest allows them.
    cv : int, default=5
        Folds over tasks, for learning how firm leaves are.
    n_shots : int, default=5
        Support rows of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support, in `score` too: a random draw, or the
        first in row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    estimator_ : estimator
        The forest, fitted on all training rows.
    leaf_strength_ : float
        Rows of a task in a leaf that weigh as much as what the forest says there:
        0.1 where tasks differ widely, 1000 where they turned out to be alike.
    level_strength_ : float
        Rows of a task whose mean error weighs as much as that there is none.
    states_ : TaskStates
        Rows of every known task, and what its leaves are above the forest.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    HierarchicalRegressor : Linear models, with intervals; a forest may be its
        `base_estimator`.
    HierarchicalForestClassifier : For classes.

    References
    ----------
    .. [1] Robinson. "That BLUP is a good thing: the estimation of random effects",
       Statistical Science 6, 1991.
    .. [2] Segev, Harel, Mannor, Crammer and El-Yaniv. "Learn on source, refine on
       target: a model transfer learning framework with random forests", IEEE
       Transactions on Pattern Analysis and Machine Intelligence 39, 2017.

    Examples
    --------
    >>> from skmeta import HierarchicalForestRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(30, 20, random_state=0)
    >>> meta = HierarchicalForestRegressor().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        "estimator": [RandomForestRegressor, ExtraTreesRegressor, None],
        **HierarchicalForestMixin._parameter_constraints,
    }

    _default_forest = RandomForestRegressor(random_state=0)

    @property
    def _level_strength(self):
        return self.level_strength_

    def _meta_fit(self, table, *, resume):
        rows = self._summarize(table)
        training = self._training_rows(rows, resume)
        self.level_strength_ = self._learn_leaves(
            training, training.y, levels=STRENGTHS
        )
        return rows

    def _targets(self, rows):
        return rows.y[:, None].astype(float)

    def _forward(self, state, table):
        return super()._forward(state, table)[:, 0]
