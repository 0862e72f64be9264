"""Lists of what skmeta has, for tests and documentation."""

from __future__ import annotations

import inspect

from sklearn.base import BaseEstimator, is_classifier, is_regressor


def all_estimators(type_filter=None):
    """All public meta-learners, those of `skmeta.baselines` included.

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
    import skmeta.baselines
    from skmeta.base import MetaEstimator

    modules = (skmeta, skmeta.baselines)
    public = {name: getattr(m, name) for m in modules for name in m.__all__}
    found = []
    for name, item in sorted(public.items()):
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
