"""An ordinary scikit-learn model for each task."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone


def fit_each(estimator, table, y, tasks):
    """A fitted clone for each of the tasks, or its error; None for all others."""
    models = np.full(table.n_tasks, None, dtype=object)
    for t in tasks:
        rows = slice(table.offsets[t], table.offsets[t + 1])
        try:
            models[t] = clone(estimator).fit(table.X[rows], y[rows])
        except Exception as error:
            what = f"be fitted on the {table.counts[t]} rows of"
            models[t] = _named(error, what, table.ids[t])
    return models


def predict_each(predict, models, table):
    """Yield the rows of each task that has a model, and what it predicts for them.

    Rows of the table are flat; `predict` gets the position of the task, its model and
    its rows.
    """
    for t, model in enumerate(models):
        if model is None:
            continue
        refuse_errors([model])
        rows = slice(table.offsets[t], table.offsets[t + 1])
        try:
            part = predict(t, model, table.X[rows])
        except Exception as error:
            raise _named(error, "predict", table.ids[t]) from error
        yield rows, part


def refuse_errors(models):
    """Raise what fitting raised: at once by `adapt`, else where the task is asked for.

    So a training task that is too small does no harm to others.
    """
    for model in models:
        if isinstance(model, Exception):
            raise model


def class_probabilities(model, X, classes):
    """Probabilities in the order of `classes`; 0 for one that the model has not seen.

    A model without probabilities is certain of what it predicts.
    """
    proba = np.zeros((len(X), len(classes)))
    if hasattr(model, "predict_proba"):
        proba[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(X)
    else:
        proba[np.arange(len(X)), np.searchsorted(classes, model.predict(X))] = 1
    return proba


def _named(error, what, task):
    """An error that says for which task the user's estimator raised it."""
    which = "the task" if task is None else f"task {task!r}"
    named = ValueError(
        f"The estimator cannot {what} {which}: {error}\n"
        "Pass more rows, or an estimator that works with few."
    )
    named.__cause__ = error.with_traceback(None)
    return named
