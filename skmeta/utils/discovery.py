"""Lists of what skmeta has, for tests and documentation."""

from __future__ import annotations

import inspect

from sklearn.base import BaseEstimator, is_classifier, is_regressor


def all_estimators(type_filter=None):
    """All public meta-learners.

    Parameters
    ----------
    type_filter : {"classifier", "regressor", "wrapper", "transformer"}, default=None
        Only classifiers, regressors, those that wrap another estimator, or those that
        transform tasks.

    Returns
    -------
    list of (name, class) tuples
        Sorted by name. Without a filter, meta-learners only: classifiers and
        regressors that need no other estimator.

    Examples
    --------
    >>> from skmeta.utils.discovery import all_estimators
    >>> [name for name, _ in all_estimators("wrapper")]
    ['AdaptedClassifier', 'AdaptedRegressor']
    """
    import skmeta
    from skmeta.base import MetaEstimator

    found = []
    for name in sorted(skmeta.__all__):
        item = getattr(skmeta, name)
        if not (inspect.isclass(item) and issubclass(item, BaseEstimator)):
            continue
        if type_filter in _kinds(item, issubclass(item, MetaEstimator)):
            found.append((name, item))
    return found


def _kinds(item, is_meta_learner):
    if not is_meta_learner:
        return {"transformer"} if hasattr(item, "transform") else {"wrapper"}
    instance = item()
    kinds = {None}
    if is_classifier(instance):
        kinds.add("classifier")
    if is_regressor(instance):
        kinds.add("regressor")
    return kinds
