"""Any scikit-learn model as the head of a task, on frozen features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..base._each_task import (
    class_probabilities,
    fit_each,
    predict_each,
    refuse_errors,
)


class SklearnHeadMixin:
    """Fits `head` to the features of each task, where it is an estimator.

    A task that shows fewer than two classes, or no row, is predicted by the
    pre-trained head where there is one.
    """

    @property
    def _head_kind(self):
        return self.head if isinstance(self.head, str) else "linear"

    def _start(self, table, classes):
        if self.adapted == "all" and not isinstance(self.head, str):
            raise ValueError(
                "adapted='all' trains the body and a head by gradient steps, so head "
                f"must be named; got {self.head!r}. With adapted='head' it is fitted "
                "on frozen features."
            )
        super()._start(table, classes)

    def _solve(self, table):
        if isinstance(self.head, str):
            return super()._solve(table)
        labels = self._task_labels(table)
        enough = table.counts > 0
        if self._is_classifier:
            codes = np.unique(table.y, return_inverse=True)[1]
            pairs = np.unique(np.stack([table.codes, codes]), axis=1)
            enough = np.bincount(pairs[0], minlength=table.n_tasks) > 1
        else:
            table = self._targets(table)
        rows = replace(table, X=self._row_features(table))
        models = fit_each(self.head, rows, table.y, np.flatnonzero(enough))
        return {**labels, "model": models}

    def _check_state(self, state, ids):
        if "model" not in state:
            super()._check_state(state, ids)
        else:
            refuse_errors(state["model"])

    def _forward(self, state, table, **options):
        if "model" not in state:
            return super()._forward(state, table, **options)
        rows = replace(table, X=self._row_features(table))
        output = self._without_model(state, rows)

        def predict(t, model, X):
            if not self._is_classifier:
                return model.predict(X)
            known = np.arange(output.shape[1])
            if "labels" in state:
                known = state["labels"][t, : state["n_labels"][t]]
            return class_probabilities(model, X, known)

        for where, part in predict_each(predict, state["model"], rows):
            if self._is_classifier:
                with np.errstate(divide="ignore"):  # the logit of no chance is -inf
                    output[where, : part.shape[1]] = np.log(part)
            else:
                output[where] = part
        return self._finish(output)

    def _without_model(self, state, rows):
        """Output of the pre-trained head, or of no knowledge."""
        if "labels" in state:
            exists = np.arange(state["labels"].shape[1]) < state["n_labels"][:, None]
            return np.where(exists, 0.0, -np.inf)[rows.codes]
        weight, bias = (
            tensor.cpu().numpy().astype(float)
            for tensor in (self.learner_.weight, self.learner_.bias)
        )
        output = rows.X @ weight.T + bias
        return output if self._is_classifier else output[:, 0]
