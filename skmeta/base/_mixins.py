"""What classifiers and regressors add to the verbs."""

from __future__ import annotations

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ..tasks._sampler import encode_classes
from ..tasks._table import join_labels


class FewShotScoreMixin:
    """The default score. Left of sklearn's mixins, whose own would win otherwise."""

    def score(self, X, y=None, groups=None, sample_weight=None):
        """Score on rows of known tasks, and few-shot score on tasks not seen before.

        Rows of tasks that were fitted or adapted are predicted as they are. Every
        other task, and every task of a list, is split once: `n_shots` support rows
        (per class, for classifiers) to adapt on, the rest to be judged. Every task
        counts the same.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks or rows to judge.
        y : array-like of shape (n_samples,), default=None
            True targets; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row within its task, those of a list one after the other.

        Returns
        -------
        score : float
            Mean accuracy over tasks, or the coefficient of determination with tasks
            of equal weight.
        """
        check_is_fitted(self)
        table = self._read_scored(X, y, groups)
        weight = _check_sample_weight(sample_weight, table.X, ensure_non_negative=True)
        known = self._scored_as_known(table)
        judged = [(self, table.take(np.flatnonzero(known)))]
        new = table.take(np.flatnonzero(~known))
        if new.n_tasks:
            judged.append(self._few_shot(new))
        return self._mean_score(
            [
                (part, model._predict_table(part), _within_task(weight, part))
                for model, part in judged
                if part.n_tasks
            ]
        )


def _within_task(weight, table):
    """Weights of rows that sum to 1 in each task, unless all of them are 0 there."""
    weight = weight[table.order]
    total = np.add.reduceat(weight, table.offsets[:-1])
    return weight / np.where(total > 0, total, 1)[table.codes]


def _weights(parts):
    weight = np.concatenate([weight for _, _, weight in parts])
    if not weight.any():
        raise ValueError("sample_weight is 0 for every row that is to be judged.")
    return weight


class MetaClassifierMixin(FewShotScoreMixin, ClassifierMixin):
    """Predictions of classes, with labels that are shared or live in their task.

    Stands left of `MetaEstimator` among the bases of a classifier.
    """

    __metadata_request__predict_proba = {"groups": True}

    _is_classifier = True

    _label_constraints: dict = {
        "label_space": [StrOptions({"auto", "shared", "per_task"})]
    }

    def partial_fit(self, X, y=None, groups=None, classes=None):
        """Go on learning across tasks with more tasks.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            More tasks, or more rows of known ones.
        y : array-like of shape (n_samples,), default=None
            Labels of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.
        classes : array-like of shape (n_classes,), default=None
            All classes of a shared label space. Needed in the first call only, and
            only if some class comes later.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        return self._partial_fit(X, y, groups, classes=classes)

    def predict(self, X, groups=None):
        """Predict the class of each row by the state of its task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it, rows belong to the task that was adapted
            without an id, or else to the only task known.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predicted labels.
        """
        table = self._read_rows(X, groups)
        return table.restore(self._predict_table(table))

    def predict_proba(self, X, groups=None):
        """Predict the probability of each class by the state of its task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`; 0 for a class that does not exist in
            the task of the row.
        """
        table = self._read_rows(X, groups)
        proba = np.zeros((len(table.X), len(self.classes_)))
        for rows, state, output in self._outputs(table):
            columns = self._columns(state)[self._task_of(table, rows)]
            real = columns >= 0
            values = self._to_proba(output)
            row = np.broadcast_to(rows[:, None], real.shape)
            proba[row[real], columns[real]] = values[:, : real.shape[1]][real]
        return table.restore(proba)

    def _predict_table(self, table):
        y = np.empty(len(table.X), dtype=self.classes_.dtype)
        for rows, state, output in self._outputs(table):
            columns = self._columns(state)[self._task_of(table, rows)]
            best = output.argmax(axis=1)
            y[rows] = self.classes_[columns[np.arange(len(rows)), best]]
        return y

    @staticmethod
    def _task_of(table, rows):
        """Place of each row's task among the tasks of these rows."""
        return (
            np.unique(table.codes[rows], return_inverse=True)[1] if len(rows) else rows
        )

    def _to_proba(self, output):
        """Probabilities from logits."""
        shifted = np.exp(output - output.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def _mean_score(self, parts):
        """Mean accuracy over tasks."""
        join_labels([self.classes_, *(table.y for table, *_ in parts)])
        hit = np.concatenate([predicted == table.y for table, predicted, _ in parts])
        return float(np.average(hit, weights=_weights(parts)))

    # ------------------------------------------------------------------- label spaces
    def _decide_label_space(self, table, classes=None):
        """Set `label_space_`, and `classes_` where labels mean the same everywhere."""
        labels = np.unique(table.y)
        if classes is not None:
            unknown = np.setdiff1d(labels, classes)
            if len(unknown):
                raise ValueError(f"y contains labels not in classes: {unknown[:5]!r}.")
            labels = np.unique(classes)
        space = self.label_space
        if space == "auto":
            space = self._guess_label_space(table, len(labels))
        self.label_space_ = space
        if space == "shared":
            self.classes_ = labels

    def _learn_classes(self, table, classes=None):
        """Classes and what they mean, from the first training tasks."""
        self._decide_label_space(table, classes)
        shared = self.label_space_ == "shared"
        if len(self.classes_ if shared else table.labels) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in the "
                f"data, but the data contains only one class: {table.y[0]!r}."
            )

    def _guess_label_space(self, table, n_labels):
        """Shared when the median task has at least half of all classes."""
        if table.n_tasks == 1:
            return "per_task"
        offsets = encode_classes(table.codes, table.y)[2]
        return "shared" if np.median(np.diff(offsets)) * 2 >= n_labels else "per_task"

    def _encode(self, table):
        """Codes of shared classes; labels that live in their task stay as they are."""
        if self.label_space_ == "per_task":
            return table
        codes = np.searchsorted(self.classes_, table.y)
        codes = np.minimum(codes, len(self.classes_) - 1)
        unseen = self.classes_[codes] != table.y
        if unseen.any():
            row = int(unseen.argmax())
            task = table.ids[table.codes[row]]
            which = "" if task is None else f" in task {task!r}"
            label = table.y[row : row + 1].tolist()[0]
            raise ValueError(
                f"y contains a label that fit has not seen: {label!r}{which}. The "
                f"known classes are {self.classes_[:10].tolist()}; use "
                "label_space='per_task' where classes belong to their task."
            )
        return table.with_y(codes)

    def _check_support(self, summary):
        if self.label_space_ == "shared":
            return
        n_labels = np.diff(encode_classes(summary.codes, summary.y)[2])
        if n_labels.min() < 2:
            task = summary.ids[int(n_labels.argmin())]
            which = "" if task is None else f" of task {task!r}"
            raise ValueError(
                f"The support rows{which} contain only one class; a task whose labels "
                "are its own needs rows of at least 2 classes."
            )

    def _columns(self, state):
        """Column of `classes_` for each output: (n_tasks, width), -1 for padding."""
        labels = state.get("labels")
        if labels is None:
            n_tasks = len(next(iter(state.values())))
            return np.broadcast_to(
                np.arange(len(self.classes_)), (n_tasks, len(self.classes_))
            )
        columns = np.searchsorted(self.classes_, labels)
        width = np.arange(labels.shape[1]) < state["n_labels"][:, None]
        return np.where(width, columns, -1)

    def _update_classes(self):
        if self.label_space_ == "per_task" and len(self.states_):
            self.classes_ = np.unique(
                join_labels([b.support.labels for b in self.states_.blocks])
            )


class MetaRegressorMixin(FewShotScoreMixin, RegressorMixin):
    """Predictions of a number. Stands left of `MetaEstimator` among the bases."""

    _is_classifier = False

    def partial_fit(self, X, y=None, groups=None):
        """Go on learning across tasks with more tasks.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            More tasks, or more rows of known ones.
        y : array-like of shape (n_samples,), default=None
            Targets of the rows; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        return self._partial_fit(X, y, groups)

    def predict(self, X, groups=None):
        """Predict the target of each row by the state of its task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it, rows belong to the task that was adapted
            without an id, or else to the only task known. Rows of an unknown task
            get the prediction of the prior.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predicted targets.
        """
        table = self._read_rows(X, groups)
        return table.restore(self._predict_table(table))

    def _predict_table(self, table):
        y = np.empty(len(table.X))
        for rows, _, output in self._outputs(table):
            y[rows] = output
        return y

    def _encode(self, table):
        return table

    def _mean_score(self, parts):
        """R2 in which every task weighs the same, whatever its number of rows."""
        y = np.concatenate([table.y for table, _, _ in parts])
        error = np.concatenate([predicted for _, predicted, _ in parts]) - y
        weight = _weights(parts)
        center = np.average(y, weights=weight)
        spread = np.average((y - center) ** 2, weights=weight)
        residual = np.average(error**2, weights=weight)
        if spread == 0:
            return 1.0 if residual == 0 else 0.0
        return float(1 - residual / spread)


class ProbabilisticRegressorMixin(MetaRegressorMixin):
    """Regressors whose state is a posterior: predictions come with an uncertainty."""

    def predict(self, X, groups=None, return_std=False):
        """Predict the target of each row by the posterior of its task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. Without it, rows belong to the task that was adapted
            without an id, or else to the only task known. Rows of an unknown task
            get the prediction of the prior.
        return_std : bool, default=False
            Whether to return the standard deviation of a new observation as well.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictive means.
        std : ndarray of shape (n_samples,)
            Predictive standard deviations, noise included. Only with `return_std`.
        """
        table = self._read_rows(X, groups)
        if not return_std:
            return table.restore(self._predict_table(table))
        values = np.empty((len(table.X), 2))
        for rows, _, output in self._outputs(table, return_std=True):
            values[rows] = np.column_stack(output)
        values = table.restore(values)
        return values[:, 0], values[:, 1]
