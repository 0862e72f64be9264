"""What conformal intervals and sets share: scores of held-out tasks, calibrated."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from threadpoolctl import threadpool_limits

from ..base import (
    Block,
    MetaEstimator,
    NeuralMetaEstimator,
    ProbabilisticRegressorMixin,
    TaskStates,
)
from ..exceptions import warn_caller
from ._episodes import episodes, task_folds


@dataclass(frozen=True, eq=False)
class ScoreDistribution:
    """Conformity scores of tasks, each task with a total weight of one.

    Parameters
    ----------
    values : ndarray of shape (n_scores,)
        Scores of all tasks, ascending.
    codes : ndarray of shape (n_scores,)
        Which of the tasks each of them is of.
    """

    values: np.ndarray
    codes: np.ndarray
    _known: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of_tasks(cls, values, codes):
        """Scores of the rows of tasks in any order."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.unique(codes, return_inverse=True)[1][order])

    def __add__(self, other):
        """Scores of all tasks, those of `other` being different ones."""
        values = np.append(self.values, other.values)
        return self.of_tasks(values, np.append(self.codes, other.codes + self.n_tasks))

    @property
    def n_tasks(self):
        return int(self.codes.max()) + 1

    def quantile(self, level, correction):
        """Score that holds for this share of the rows of a new task, on average."""
        if (level, correction) not in self._known:
            self._known[level, correction] = self._quantile(level, correction)
        return self._known[level, correction]

    def _quantile(self, level, correction):
        n_tasks, mass = self.n_tasks, 1 / np.bincount(self.codes)[self.codes]
        needed = level * (n_tasks + 1) * (1 - 1e-9)
        if needed > n_tasks:
            return np.inf
        total = np.cumsum(mass)
        if correction == "hcp" or n_tasks == 1:
            last = len(total) - 1
            return float(self.values[min(np.searchsorted(total, needed), last)])
        total -= mass / 2
        among_others = (total - self._within_task()) / (n_tasks - 1)
        order = np.argsort(among_others, kind="stable")
        reached = np.cumsum(mass[order]) - mass[order] / 2
        # Rows of a task may be alike, and a task is all or nothing then. Averages over
        # the mass of one task lie between two tasks, where a quantile of rows cannot.
        window = np.linspace(-0.5, 0.5, 11)
        wanted = level * n_tasks + window
        place = np.interp(wanted, reached, among_others[order]).mean() * n_tasks
        place = np.interp(place + window, total, np.arange(len(total)))
        return float(self._at(place).mean())

    def _within_task(self):
        """Share of the scores of its own task below each score, half of itself too."""
        order = np.argsort(self.codes, kind="stable")
        sizes = np.bincount(self.codes)
        rank = np.empty(len(order))
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return (rank + 0.5) / sizes[self.codes]

    def _at(self, place):
        """Scores at positions between two others."""
        low = self.values[np.floor(place).astype(int)]
        step = self.values[np.ceil(place).astype(int)]
        # The difference of two infinite scores is none.
        step = np.subtract(step, low, out=np.zeros(len(low)), where=step > low)
        return low + np.where(place % 1, place % 1 * step, 0.0)


@dataclass(frozen=True)
class CountedSupport:
    """What the inner estimator keeps of tasks, and their numbers of support rows."""

    inner: Any
    counts: np.ndarray

    @property
    def ids(self):
        return self.inner.ids

    @property
    def y(self):
        return self.inner.y

    @property
    def labels(self):
        return self.inner.labels

    def take(self, tasks):
        """The tasks at the given positions."""
        return CountedSupport(self.inner.take(tasks), self.counts[np.asarray(tasks)])


class Conformal(MetaEstimator):
    """A meta-learner around a meta-learner, which it calibrates over tasks.

    Subclasses give the scores of rows whose target is known: ``_conformity``.
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["adapt", "partial_adapt"]), None],
        "confidence_level": [Interval(Real, 0, 1, closed="neither"), "array-like"],
        "shots": ["array-like", Interval(Integral, 0, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "support": [StrOptions({"random", "first"})],
        "correction": [StrOptions({"leave_one_out", "hcp"})],
        "cv": [Interval(Integral, 2, None, closed="left"), HasMethods("split"), list],
        "group_column": [str, Integral, None],
        "random_state": ["random_state"],
    }

    @property
    def n_shots(self):
        """Support rows of a new task in `score`, as the inner estimator has it."""
        return self._unfitted.n_shots

    @property
    def _unfitted(self):
        return self._default() if self.estimator is None else self.estimator

    @property
    def _levels(self):
        levels = np.atleast_1d(np.asarray(self.confidence_level, dtype=float))
        if (
            levels.ndim != 1
            or not len(levels)
            or not np.all((0 < levels) & (levels < 1))
        ):
            raise ValueError(
                "confidence_level must be one or more numbers between 0 and 1, got "
                f"{self.confidence_level!r}."
            )
        return levels

    # -------------------------------------------------------------------- calibration
    def _meta_fit(self, table, *, resume, **options):
        _ = self._levels  # refused before anything is trained
        if resume:
            inner, found = self._learn_more(table, options)
        else:
            self._check_inner()
            inner = self._train(self._new_inner(), table, options)
            plan = self._plan(inner)
            found = self._cross_fit(inner, table, plan)
            self.shots_ = np.array(plan.shots)
        inner.states_, states = TaskStates(), inner.states_
        self.estimator_, self.score_distributions_ = inner, found
        return CountedSupport(states, table.counts)

    def _forget_training(self, ids):
        inner = copy.copy(self.estimator_)
        inner._forget_training(ids)
        self.estimator_ = inner

    def _check_inner(self):
        inner = self._unfitted
        if not isinstance(inner, MetaEstimator) or (
            inner._is_classifier != self._is_classifier
        ):
            kind = "classifier" if self._is_classifier else "regressor"
            raise TypeError(
                f"{type(self).__name__} needs a meta-learner of skmeta that is a "
                f"{kind}, got {inner!r}. Preprocessing goes in front of the whole: "
                f"make_pipeline(scaler, {type(self).__name__}(...))."
            )
        if inner.group_column is not None:
            raise ValueError(
                f"Name the group_column ({inner.group_column!r}) in "
                f"{type(self).__name__}, which reads the rows, not in its estimator."
            )

    def _new_inner(self, **params):
        """Not yet trained, but told of the columns that were read."""
        inner = clone(self._unfitted).set_params(**params)
        inner._validate_params()
        for name in ("n_features_in_", "feature_names_in_", "_feature_shape"):
            if hasattr(self, name):
                setattr(inner, name, getattr(self, name))
        return inner

    @staticmethod
    def _train(inner, table, options, resume=False):
        """Train and leave the summary of these tasks, as yet unsolved, in `states_`."""
        n_threads = None if isinstance(inner, NeuralMetaEstimator) else 1
        with threadpool_limits(n_threads, user_api="blas"):
            inner.states_ = inner._meta_fit(table, resume=resume, **options)
        return inner

    def _plan(self, inner):
        shots = np.atleast_1d(self.shots)
        if inner._prior_summary([None]) is None:
            shots = shots[shots > 0]
        per_class = self._is_classifier and inner.label_space_ == "per_task"
        return episodes(
            shots,
            self.n_draws,
            self.support,
            per_class,
            self.random_state,
            inner,
            None,
        )

    def _cross_fit(self, inner, table, plan):
        """Scores of every task by learners that have not seen it, for each shot."""
        found = [None] * len(plan.shots)
        if table.n_tasks < 3:
            return found
        cv = self.cv
        if isinstance(cv, Integral):
            cv = min(cv, table.n_tasks)
        params, options = {}, {}
        if self._is_classifier:
            options["classes"] = table.labels
            if "label_space" in inner.get_params(deep=False):
                params["label_space"] = inner.label_space_
        for train, test in task_folds(cv, table.n_tasks, plan.seed):
            part = table.take(train)
            fold = self._train(self._new_inner(**params), part, options)
            found = _merged(found, self._held_out(fold, table.take(test), plan))
        return found

    def _held_out(self, fitted, table, plan):
        """Scores of tasks that `fitted` has not seen, for each shot."""
        n_labels = 1
        if plan.per_class:
            pairs = np.unique(np.stack([table.codes, _codes(table.y)]), axis=1)
            n_labels = np.bincount(pairs[0])
        parts = [[] for _ in plan.shots]
        for i, _, mask in plan.masks(table):
            support = table.take_rows(np.flatnonzero(mask))
            # Small tasks say nothing of numbers of rows that they do not have.
            large = np.flatnonzero(
                (support.counts >= plan.shots[i] * n_labels)
                & (support.counts < table.counts)
            )
            if len(large):
                query = table.take_rows(np.flatnonzero(~mask)).take(large)
                model = self._adapted(fitted, support.take(large))
                parts[i].append((self._conformity(model, query), large[query.codes]))
        return [
            ScoreDistribution.of_tasks(*map(np.concatenate, zip(*part, strict=True)))
            if part
            else None
            for part in parts
        ]

    @staticmethod
    def _adapted(fitted, support):
        model = copy.copy(fitted)
        model.states_ = TaskStates()
        if support.counts.any():
            model._take_up(Block(model._summarize(support)))
        return model

    def _learn_more(self, table, options):
        """Judge new tasks by what was known, then learn from them."""
        new = np.array([task not in self.states_ for task in table.ids])
        found = self.score_distributions_
        if new.any():
            plan = self._plan(self.estimator_)
            if not np.array_equal(plan.shots, self.shots_):
                raise ValueError(
                    f"shots was {self.shots_.tolist()} in fit and is now "
                    f"{list(plan.shots)}; it cannot change between calls."
                )
            part = table.take(np.flatnonzero(new))
            found = _merged(found, self._held_out(self.estimator_, part, plan))
        inner = copy.copy(self.estimator_)
        blocks = {id(b): Block(b.support.inner) for b in self.states_.blocks}
        inner.states_ = TaskStates(
            {t: (blocks[id(b)], i) for t, (b, i) in self.states_._index.items()}
        )
        return self._train(inner, table, options, resume=True), found

    def _quantiles(self, state):
        """Quantile of the scores for each task of a state, ``(n_tasks, n_levels)``."""
        sizes = np.asarray(state["n_support"], dtype=float)
        if "n_labels" in state:
            sizes = sizes / state["n_labels"]
        levels = self._levels
        quantiles = np.full((len(sizes), len(levels)), np.inf)
        known = [i for i, part in enumerate(self.score_distributions_) if part]
        if known:
            shots = np.log1p(self.shots_[known])
            for j, level in enumerate(levels):
                column = np.array(
                    [
                        self.score_distributions_[i].quantile(level, self.correction)
                        for i in known
                    ]
                )
                finite = np.isfinite(column)
                if finite.any():
                    quantiles[:, j] = np.interp(
                        np.log1p(sizes), shots[finite], column[finite], left=np.inf
                    )
        return quantiles

    def _warn_infinite(self, quantiles, what):
        infinite = ~np.isfinite(quantiles).all(axis=0)
        if not infinite.any():
            return
        level = self._levels[infinite][0]
        counts = [part.n_tasks if part else 0 for part in self.score_distributions_]
        have = dict(zip(self.shots_.tolist(), counts, strict=True))
        needed = int(np.ceil(level / (1 - level) - 1e-9))
        warn_caller(
            f"{what} of confidence_level={level:g} for some rows: that level needs at "
            f"least {needed} calibration tasks for a number of support rows that the "
            f"task of the row has, and there are (support rows: tasks) {have}. Fit "
            "with more tasks, lower confidence_level, or put smaller numbers in shots.",
            UserWarning,
        )

    # -------------------------------------------------- what the inner estimator does
    def _summarize(self, table):
        return CountedSupport(self.estimator_._summarize(table), table.counts)

    def _combine(self, first, second):
        inner = self.estimator_._combine(first.inner, second.inner)
        return CountedSupport(inner, first.counts + second.counts)

    def _join(self, supports):
        inner = self.estimator_._join([support.inner for support in supports])
        counts = np.concatenate([support.counts for support in supports])
        return CountedSupport(inner, counts)

    def _solve(self, support):
        return {**self.estimator_._solve(support.inner), "n_support": support.counts}

    def _forward(self, state, table, **options):
        if options and not isinstance(self.estimator_, ProbabilisticRegressorMixin):
            raise ValueError(
                f"return_std=True needs a probabilistic estimator, and "
                f"{type(self.estimator_).__name__} is none; predict_interval works."
            )
        return self.estimator_._forward(inner_state(state), table, **options)

    def _prior_summary(self, ids):
        inner = self.estimator_._prior_summary(ids)
        if inner is None:
            return None
        return CountedSupport(inner, np.zeros(len(ids), dtype=int))

    def _pool_posterior(self, support, table):
        return self.estimator_._pool_posterior(support and support.inner, table)

    def _check_support(self, support):
        self.estimator_._check_support(support.inner)

    def _check_state(self, state, ids):
        self.estimator_._check_state(inner_state(state), ids)

    def _keeps_state(self, support):
        return self.estimator_._keeps_state(support.inner)


def inner_state(state):
    return {name: values for name, values in state.items() if name != "n_support"}


def _codes(y):
    return np.unique(y, return_inverse=True)[1]


def _merged(first, second):
    """Distributions of both, shot by shot, where there are any."""
    return [a + b if a and b else a or b for a, b in zip(first, second, strict=True)]
