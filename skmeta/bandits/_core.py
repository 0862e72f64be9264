"""Weights of every arm of a task: from logged rows to states, values and choices."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace

import numpy as np
from scipy.special import expit
from sklearn.utils.validation import check_is_fitted

from ..base import MetaEstimator
from ..hierarchical._base import TaskSupport
from ..hierarchical._design import fit_design
from ..hierarchical._gaussian import posterior
from ..hierarchical._laplace import LogisticPrior, logistic_posterior
from ..hierarchical._prior import Prior, symmetric_root
from ..hierarchical._statistics import (
    Statistics,
    accumulate,
    concatenate,
    empty_statistics,
)
from ..tasks import read_rows, read_tasks
from ..tasks._table import append_rows, join_tables, table_from_codes
from ._choice import TaskWeights, best_shares, draw_values, largest
from ._learn import learn_prior
from ._log import is_log, stacked


class ArmModel(MetaEstimator):
    """The hooks of `MetaEstimator` for tasks whose rows are pulls of arms.

    A row in a table is a context and, as its last column, the position of its arm. A
    task has a weight vector of every arm; all of them are jointly normal a priori.
    """

    # -------------------------------------------------------------------- data in
    def _logged(self, X, action, reward, groups, *, reset):
        """Table of contexts and rewards; actions and propensities as they came."""
        propensity, listed = None, is_log(X)
        if listed:
            if action is not None or reward is not None or groups is not None:
                raise ValueError(
                    "X is a list of logged tasks, which carries its own actions, "
                    "rewards and task ids; pass none of them."
                )
            X, action, reward, groups, propensity = stacked(X)
        if action is None or reward is None:
            raise ValueError(
                f"{type(self).__name__} needs the action and the reward of every row, "
                "or a list of tuples (X, action, reward), one per task."
            )
        table = read_tasks(
            self, X, reward, groups, reset=reset, group_column=self.group_column
        )
        action = np.asarray(action)
        if action.shape != (len(table.X),):
            raise ValueError(
                f"action should have one entry for each of the {len(table.X)} rows; "
                f"got shape {action.shape}."
            )
        return replace(table, listed=listed), action, propensity

    def _with_arms(self, table, action):
        """The same rows with the position of their arm as the last column."""
        order = np.argsort(self._all_arms, kind="stable")
        place = np.searchsorted(self._all_arms, action, sorter=order)
        codes = order[np.minimum(place, len(order) - 1)]
        unknown = self._all_arms[codes] != action
        if unknown.any():
            arm = action[int(unknown.argmax())]
            raise ValueError(
                f"action contains an arm that is not known: {arm!r}. The known arms "
                f"are {self._all_arms.tolist()}; use add_arm for a new one."
            )
        flat = table.X.reshape(len(table.X), -1).astype(np.float64)
        return replace(table, X=np.column_stack([flat, codes[table.order]]))

    def _decide_binary(self, reward):
        zero_or_one = np.isin(reward, (0, 1)).all()
        if self.reward_type == "binary" and not zero_or_one:
            raise ValueError("reward_type='binary' needs rewards of 0 and 1.")
        if self.reward_type == "auto":
            return bool(zero_or_one and len(np.unique(reward)) == 2)
        return self.reward_type == "binary"

    def _read_support(self, X, action, reward, groups):
        table, action, _ = self._logged(X, action, reward, groups, reset=False)
        if self.binary_ and not np.isin(table.y, (0, 1)).all():
            raise ValueError("Rewards were 0 and 1 in fit, and others are given now.")
        return self._summarize(self._with_arms(table, action))

    def _read_rows(self, X, groups):
        check_is_fitted(self)
        table = read_rows(self, X, groups, group_column=self.group_column)
        flat = table.X.reshape(len(table.X), -1).astype(np.float64)
        return replace(table, X=self._design.features(flat))

    # ----------------------------------------------------- hooks of `MetaEstimator`
    def _meta_fit(self, table, *, resume):
        classes = np.arange(2) if self.binary_ else None
        self._design, features = fit_design(
            table.X[:, :-1], table.y, table.codes, classes=classes
        )
        self.prior_ = learn_prior(
            features,
            table.X[:, -1].astype(int),
            self._encoded(table.y),
            table.codes,
            len(self._all_arms),
            table.n_tasks,
            n_directions=self.n_directions,
            binary=self.binary_,
        )
        self._set_prior()
        return self._summarize(table)

    def _set_prior(self):
        """The prior as the hierarchical models have it."""
        prior = self.prior_
        mean, factor = prior.mean.ravel(), symmetric_root(prior.covariance, 1e-8)
        ridge = np.ones(len(mean))
        if self.binary_:
            kind, mean, rest = LogisticPrior, mean[None], ()
        else:
            kind, rest = Prior, (prior.noise,)
        self._prior_core = kind(mean, factor, factor, *rest, ridge, "low_rank", 0.0, 0)

    def _encoded(self, reward):
        return reward if self.binary_ else self._design.encode(reward)

    def _summarize(self, table):
        """Statistics of continuous rewards, or the rows of binary ones."""
        features = self._design.features(table.X[:, :-1])
        arms = table.X[:, -1].astype(int)
        if self.binary_:
            rows = replace(table, X=np.column_stack([features, arms]))
            rows = rows.with_y(table.y.astype(int))
        else:
            rows = accumulate(
                self._wide(features, arms),
                self._encoded(table.y),
                table.codes,
                table.n_tasks,
            )
        return TaskSupport(table.ids, rows, np.zeros(table.n_tasks, dtype=bool))

    def _wide(self, features, arms):
        """Rows over the weights of all arms: zero but for their own."""
        wide = np.zeros((len(arms), len(self._all_arms), features.shape[1]))
        wide[np.arange(len(arms)), arms] = features
        return wide.reshape(len(arms), wide.shape[1] * wide.shape[2])

    def _combine(self, first, second):
        combine = append_rows if self.binary_ else operator.add
        rows = combine(first.rows, second.rows)
        return TaskSupport(first.ids, rows, np.zeros(len(first.ids), dtype=bool))

    def _join(self, supports):
        join = join_tables if self.binary_ else concatenate
        ids = [task for support in supports for task in support.ids]
        rows = join([support.rows for support in supports])
        return TaskSupport(ids, rows, np.zeros(len(ids), dtype=bool))

    def _prior_summary(self, ids):
        n_features = self._design.n_features
        if self.binary_:
            X, none = np.zeros((0, n_features + 1)), np.zeros(0, dtype=np.intp)
            rows = table_from_codes(X, none, none, ids)
        else:
            rows = empty_statistics(len(ids), n_features * len(self._all_arms))
        return TaskSupport(ids, rows, np.zeros(len(ids), dtype=bool))

    def _solve(self, support):
        rows = support.rows
        if not self.binary_:
            return posterior(self._prior_core, rows)
        wide = self._wide(rows.X[:, :-1], rows.X[:, -1].astype(int))
        return logistic_posterior(
            self._prior_core, wide, rows.y, rows.codes, rows.n_tasks, 2
        )

    def _forward(self, state, table, what, policy=None):
        out = np.zeros((len(table.X), len(self._all_arms)))
        for task in range(table.n_tasks):
            rows = slice(table.offsets[task], table.offsets[task + 1])
            out[rows] = self._of_task(state, task, table.X[rows], what, policy)
        return out

    # ---------------------------------------------------------------- choosing arms
    @property
    def _active(self):
        return np.isin(self._all_arms, self.arms_)

    def _values(self, table, what, **options):
        values = np.empty((len(table.X), len(self._all_arms)))
        for rows, _, output in self._outputs(table, what=what, **options):
            values[rows] = output
        return values

    def _of_task(self, state, task, features, what, policy):
        noise = 1.0 if self.binary_ else self.prior_.noise
        n_arms = len(self._all_arms)
        weights = TaskWeights(
            state["mean"][task],
            self._prior_core.factor,
            state["chol"][task].reshape(2 * state["chol"].shape[-1:]),
            noise,
            n_arms,
        )
        if what == "reward":
            return self._expected(weights, features)
        if what == "std":
            scale = 1.0 if self.binary_ else self._design.target_scale
            return scale * weights.stds(features)
        if policy == "greedy":
            return largest(self._expected(weights, features), self._active)
        if policy == "ucb":
            bound = weights.means(features) + self.alpha * weights.stds(features)
            return largest(bound, self._active)
        if what == "choice":
            return largest(draw_values(weights, features, self._rng), self._active)
        return best_shares(
            weights, features, self._active, self.n_draws, self._draw_seed
        )

    def _expected(self, weights, features):
        mean = weights.means(features)
        if not self.binary_:
            return self._design.decode(mean)
        variance = np.square(weights.stds(features))
        return expit(mean / np.sqrt(1 + np.pi / 8 * variance))

    def __copy__(self):
        new = super().__copy__()
        if hasattr(self, "_rng"):
            new._rng = copy.deepcopy(self._rng)
        return new

    # ---------------------------------------------------------------------- new arms
    def _widened(self, states):
        """Known tasks with room for one more arm."""
        fresh = states.unsolved()
        if self.binary_:
            return fresh
        for block in fresh.blocks:
            old = block.support
            block.support = replace(
                old, rows=_padded(old.rows, self._design.n_features)
            )
        return fresh


def _padded(statistics, n):
    return Statistics(
        np.pad(statistics.gram, [(0, 0), (0, n), (0, n)]),
        np.pad(statistics.cross, [(0, 0), (0, n)]),
        statistics.energy,
        statistics.count,
    )
