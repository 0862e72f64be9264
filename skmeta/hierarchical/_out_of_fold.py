"""Predictions of an ordinary estimator for tasks it was not fitted on."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils import _safe_indexing

# Log-odds beyond this say no more than "certain", and would dominate a linear model.
_CLIP = 6.0


def out_of_fold_predictions(
    base_estimator, X, y, groups, cv=5, *, is_classifier=False, classes=None
):
    """Pooled predictions of every row by a model that never saw the row's task.

    As a feature of a hierarchical model they give it a random intercept and slope, so
    that the pooled model is personalised; in-sample predictions would be trusted far
    too much.

    Parameters
    ----------
    base_estimator : estimator
        Any scikit-learn regressor or classifier; it is cloned.
    X : array-like of shape (n_samples, ...)
        Rows.
    y : ndarray of shape (n_samples,)
        Targets or labels.
    groups : ndarray of shape (n_samples,)
        Task of every row. With a single task the folds are over rows.
    cv : int, default=5
        Number of folds over tasks, at most the number of tasks.
    is_classifier : bool, default=False
        Whether to predict log-odds instead of targets.
    classes : ndarray of shape (n_classes,), default=None
        All classes, in order; from `y` where not given.

    Returns
    -------
    features : ndarray of shape (n_samples, n_columns)
        One column for a regressor or two classes, else one per class.
    fitted : estimator
        Clone fitted on all rows, to be given to `pooled_features` for new ones.
    """
    y, groups = np.asarray(y), np.asarray(groups)
    if is_classifier and classes is None:
        classes = np.unique(y)
    features = None
    for train, test in folds(groups, cv):
        model = clone(base_estimator).fit(_safe_indexing(X, train), y[train])
        part = pooled_features(model, _safe_indexing(X, test), classes)
        if features is None:
            features = np.empty((len(y), part.shape[1]))
        features[test] = part
    return features, clone(base_estimator).fit(X, y)


def folds(groups, cv):
    """Folds over tasks, or over shuffled rows where there is a single task."""
    n_tasks = len(np.unique(groups))
    if n_tasks > 1:
        splitter = GroupKFold(min(cv, n_tasks))
        return splitter.split(groups, groups=groups)
    n_splits = max(2, min(cv, len(groups)))
    if len(groups) < 2:
        return [(np.array([0]), np.array([0]))]
    return KFold(n_splits, shuffle=True, random_state=0).split(groups)


def pooled_features(model, X, classes=None) -> np.ndarray:
    """Feature columns that a fitted pooled model gives to rows.

    Parameters
    ----------
    model : estimator
        Fitted regressor or classifier.
    X : array-like of shape (n_samples, ...)
        Rows.
    classes : ndarray of shape (n_classes,), default=None
        All classes of a classification problem; None for regression.

    Returns
    -------
    ndarray of shape (n_samples, n_columns)
        Predictions; or log-odds of the second of two classes; or the logarithm of the
        probability of each of more. All are clipped. A class that the model has not
        seen gets the lowest value.
    """
    if classes is None:
        return np.asarray(model.predict(X), dtype=float).reshape(-1, 1)
    scores = np.full((_n_rows(X), len(classes)), -_CLIP)
    link = logit if len(classes) == 2 else np.log
    scores[:, np.searchsorted(classes, model.classes_)] = _scores(model, X, link)
    return np.clip(scores[:, 1:] if len(classes) == 2 else scores, -_CLIP, _CLIP)


def _n_rows(X) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _scores(model, X, link) -> np.ndarray:
    """Linked probabilities, or decision values where there are no probabilities."""
    if len(model.classes_) == 1:
        return np.full((_n_rows(X), 1), _CLIP)
    if hasattr(model, "predict_proba"):
        return link(np.clip(model.predict_proba(X), expit(-_CLIP), expit(_CLIP)))
    scores = np.asarray(model.decision_function(X), dtype=float)
    return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores
