"""The public verbs, written once for every meta-learner."""

from __future__ import annotations

import copy
from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils.validation import check_is_fitted

from ..exceptions import NotAdaptedError
from ..tasks import read_rows, read_tasks
from ..tasks._sampler import split_support
from ..tasks._table import ranges
from ._states import Block, TaskStates
from ._weights import weighted

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:
        """scikit-learn has no callbacks yet; progress is then skorch's alone."""


class MetaEstimator(CallbackSupportMixin, BaseEstimator):
    """Base class of all meta-learners: ``fit`` over tasks, ``adapt`` to one.

    A family implements the hooks ``_meta_fit``, ``_summarize``, ``_combine``,
    ``_join``, ``_solve`` and ``_forward``; nothing else in the library
    knows how it learns.
    """

    #: Whether support rows matter at all; only a pooled baseline says no.
    _adapts = True

    # One array of task ids reaches splitters and estimator alike once routing is on.
    __metadata_request__fit = {"groups": True}
    __metadata_request__partial_fit = {"groups": True}
    __metadata_request__predict = {"groups": True}
    __metadata_request__score = {"groups": True}

    # ------------------------------------------------------------------ public verbs
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, groups=None):
        """Learn across tasks.

        Parameters
        ----------
        X : list of (X, y) tuples, one per task, or array-like of shape \
                (n_samples, n_features)
            A collection of tasks, or the rows of all tasks.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it (and without `group_column`) the rows are
            one task.

        Returns
        -------
        self : object
            Fitted estimator, ready to predict for every task it has seen.
        """
        with self._all_or_nothing():
            table = self._read(X, y, groups, reset=True)
            summary = self._meta_fit(table, resume=False)
            self.states_ = TaskStates().updated(Block(summary))
            self._update_classes()
        return self

    def _partial_fit(self, X, y, groups, **options):
        self._validate_params()
        with self._all_or_nothing():
            resume = hasattr(self, "states_")
            table = self._read(X, y, groups, reset=not resume)
            if resume and table.listed:
                table = self._numbered_on(table)
            summary = self._meta_fit(table, resume=resume, **options)
            states = self.states_.unsolved() if resume else TaskStates()
            self.states_ = states.updated(self._extended(summary, states), self._join)
            self._update_classes()
        return self

    def adapt(self, X, y=None, groups=None):
        """Specialise to new tasks, afresh from what `fit` has learned.

        What `fit` learned is not changed, and other tasks keep their states.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Support rows of one task, or of many.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it (and without `group_column`) the rows are
            one task, which `predict` then uses for rows without an id.

        Returns
        -------
        self : object
            The estimator, adapted.
        """
        return self._adapt(X, y, groups)

    def partial_adapt(self, X, y=None, groups=None):
        """Go on adapting tasks with more rows; unknown tasks are adapted afresh.

        ``adapt(A)`` then ``partial_adapt(B)`` is ``adapt`` on the rows of both.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Further support rows.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        self : object
            The estimator, adapted.
        """
        return self._adapt(X, y, groups, afresh=False)

    def forget(self, groups=None):
        """Drop all that is kept of tasks: their rows and their states.

        A task that came by `adapt` is then as if it had never come. What `fit` has
        learned across tasks stays as it is, also from tasks that are forgotten, but a
        later `partial_fit` no longer learns from their rows.

        Parameters
        ----------
        groups : array-like of task ids, default=None
            Tasks to forget; an id may come more than once. None forgets the task that
            was adapted without an id.

        Returns
        -------
        self : object
            The estimator, without these tasks.
        """
        check_is_fitted(self)
        ids = [None] if groups is None else np.asarray(groups).ravel().tolist()
        unknown = [task for task in ids if task not in self.states_]
        if unknown:
            raise ValueError(
                f"groups has a task that is not known: {unknown[0]!r}. There is "
                "nothing of it to forget."
            )
        with self._all_or_nothing():
            self.states_ = self.states_.without(ids)
            self._forget_training(set(ids))
            self._update_classes()
        return self

    def _adapt(self, X, y, groups, sample_weight=None, afresh=True):
        check_is_fitted(self)
        with self._all_or_nothing():
            table = self._read(X, y, groups, reset=False)
            if sample_weight is not None:
                table = weighted(table, sample_weight)
            summary = self._summarize(table)
            block = Block(summary) if afresh else self._extended(summary, self.states_)
            self._take_up(block)
        return self

    # -------------------------------------------------------------- hooks of a family
    @abstractmethod
    def _meta_fit(self, table, *, resume):
        """Learn what is shared by all tasks; return the summary of these tasks."""

    def _forget_training(self, ids):
        """Drop what is kept of tasks for `partial_fit`."""
        training = getattr(self, "_training", None)
        if training is not None:
            kept = [i for i, task in enumerate(training.ids) if task not in ids]
            self._training = training.take(kept)

    def _with_training(self, summary):
        """Summary of all training tasks, those of this one grown or added."""
        known = self._extended(summary, self.states_).support
        new = set(known.ids)
        kept = [i for i, task in enumerate(self._training.ids) if task not in new]
        return self._join([self._training.take(kept), known])

    def _check_support(self, summary):
        """Refuse support rows from which a task cannot be learned."""

    def _check_state(self, state, ids):
        """Refuse states of the given tasks that are not finite."""

    def _summarize(self, table):
        """What is kept of support rows: everything that `_solve` needs."""
        return self._encode(table)

    @abstractmethod
    def _combine(self, first, second):
        """Summary of the rows of both, task by task."""

    @abstractmethod
    def _join(self, summaries):
        """Summaries of different tasks, one after the other."""

    @abstractmethod
    def _solve(self, summary):
        """States of all tasks of a summary, a dict of arrays stacked over tasks."""

    @abstractmethod
    def _forward(self, state, table):
        """Output for rows by task; ``state`` is stacked in the order of the table."""

    @abstractmethod
    def _prior_summary(self, ids):
        """Summary of tasks of which no row is known, or None without a prior."""

    def _pool_posterior(self, support, table):
        """What labels of the rows of one task would tell, where states are Gaussian.

        None, or latent rows, noise and weights as `ask` explains them.
        """
        return None

    # ------------------------------------------------------------------ task states
    @contextmanager
    def _all_or_nothing(self):
        """An error leaves the estimator as it was: attributes are only ever rebound."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _take_up(self, block):
        self._check_support(block.support)
        if self._keeps_state(block.support):
            block.state = self._solve(block.support)
            self._check_state(block.state, block.ids)
        self.states_ = self.states_.updated(block, self._join)
        self._update_classes()

    def _extended(self, summary, states):
        """Block of these tasks with the rows that were known of them before."""
        known = [i for i, task in enumerate(summary.ids) if task in states]
        if not known:
            return Block(summary)
        old = states.supports([summary.ids[i] for i in known], self._join)
        both = self._combine(old, summary.take(known))
        new = [i for i, task in enumerate(summary.ids) if task not in states]
        return Block(self._join([both, summary.take(new)]) if new else both)

    def _read(self, X, y, groups, *, reset):
        return read_tasks(
            self,
            X,
            y,
            groups,
            reset=reset,
            group_column=self.group_column,
            classifier=self._is_classifier,
        )

    def _read_scored(self, X, y, groups):
        """Rows to be judged: of known tasks, or to adapt to and be judged on."""
        return self._read(X, y, groups, reset=False)

    def _read_queries(self, X, groups):
        return read_rows(self, X, groups, group_column=self.group_column)

    def _numbered_on(self, table):
        """More tasks of a list are new ones: they count on from those known."""
        known = [task for task in self.states_ if isinstance(task, int)]
        first = max(known, default=-1) + 1
        return replace(table, ids=list(range(first, first + table.n_tasks)))

    def _read_rows(self, X, groups):
        check_is_fitted(self)
        table = self._read_queries(X, groups)
        if table.ids == [None] and None not in self.states_ and len(self.states_) == 1:
            table.ids[0] = next(iter(self.states_))
        return table

    def _outputs(self, table, **options):
        """Yield ``(rows of the table, state, output)`` until every row is done."""
        known = np.array([task in self.states_ for task in table.ids], dtype=bool)
        positions = np.flatnonzero(known)
        ids = [table.ids[i] for i in positions]
        for block, inside, places in self.states_.by_block(ids):
            state = self._state(block, inside)
            yield self._output(state, table, positions[places], options)
        new = np.flatnonzero(~known)
        if len(new):
            state = self._solve(self._prior([table.ids[i] for i in new]))
            yield self._output(state, table, new, options)

    def _output(self, state, table, tasks, options):
        rows = ranges(table.offsets[tasks], table.counts[tasks])
        return rows, state, self._forward(state, table.take(tasks), **options)

    def _state(self, block, inside):
        """States at the given positions, solved at first use and kept if not large."""
        if block.state is None and self._keeps_state(block.support):
            block.state = self._solve(block.support)
        if block.state is None:
            return self._solve(block.support.take(inside))
        if np.array_equal(inside, np.arange(len(block.ids))):
            return block.state
        return {name: values[inside] for name, values in block.state.items()}

    def _keeps_state(self, support):
        """Whether the states of all these tasks may be held in memory."""
        return True

    def _prior(self, ids):
        summary = self._prior_summary(ids)
        if summary is None:
            which = "" if ids == [None] else f" {ids[0]!r}"
            raise NotAdaptedError(
                f"This {type(self).__name__} has not been adapted to the task{which} "
                "of these rows, and labels that exist only inside a task have no "
                "prior. Call adapt with a few labelled rows of it first, or pass the "
                "groups of tasks that are known."
            )
        return summary

    def _scored_as_known(self, table):
        """Which tasks of a table are those of the same id that are known.

        A list gives no identity, and a label that its task does not have shows that
        the rows belong to another.
        """
        known = np.array([task in self.states_ for task in table.ids], dtype=bool)
        if table.listed:
            known[:] = False
        elif self._is_classifier and self.label_space_ == "per_task":
            for i in np.flatnonzero(known):
                block, place = self.states_[table.ids[i]]
                old, new = block.support.take([place]).y, table.take([i]).y
                known[i] = np.isin(new, old).all()
        return known

    def _few_shot(self, table):
        """A copy adapted to the support rows of new tasks, and their query rows."""
        n_shots = int(np.max(self.n_shots))
        labels = None
        if self._is_classifier:
            labels = np.unique(table.y, return_inverse=True)[1]
        support, query = split_support(
            table, labels, n_shots, support=self._support_rule
        )
        kept = np.flatnonzero(query.counts > 0)
        if len(kept) == 0:
            raise ValueError(
                f"No new task has rows left to be judged after n_shots={n_shots} "
                "support rows per class or task; pass larger tasks."
            )
        support, query = support.take(kept), query.take(kept)
        model = copy.copy(self)
        model.states_ = TaskStates()
        seen = np.flatnonzero(support.counts > 0)
        if len(seen):
            model._take_up(Block(model._summarize(support.take(seen))))
        return model, query

    @property
    def _support_rule(self):
        return getattr(self, "support", "random")

    def __copy__(self):
        """Shares what `fit` learned; adapting either leaves the other as it is."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def _update_classes(self):
        """Classifiers keep `classes_` in step with the tasks they know."""
