"""A meta-learner as an ordinary estimator: fitting it is adapting."""

from __future__ import annotations

import copy

from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    RegressorMixin,
    _fit_context,
    clone,
    is_classifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from .base import MetaEstimator, TaskStates
from .tasks import drop_group_column


def freeze(estimator, **adapt_params):
    """Turn a fitted meta-learner into an ordinary estimator whose ``fit`` adapts.

    Parameters
    ----------
    estimator : fitted meta-learner, or fitted Pipeline or search that ends in one
        What was learned across tasks. It is kept as it is, also by `clone`.
    **adapt_params : dict
        Parameters of the meta-learner to use while adapting, as ``adapt_steps=20``.

    Returns
    -------
    AdaptedClassifier or AdaptedRegressor
        Not yet adapted.

    Raises
    ------
    NotFittedError
        If `estimator` has not been fitted.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from skmeta import HierarchicalRegressor, freeze
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> meta = HierarchicalRegressor().fit(tasks[:-1])
    >>> few = freeze(meta)
    >>> X, y = tasks[-1]
    >>> len(cross_val_score(few, X, y))
    5
    """
    check_is_fitted(estimator)
    meta = unwrap(estimator)[1]
    check_is_fitted(meta)
    wrapper = AdaptedClassifier if is_classifier(meta) else AdaptedRegressor
    return wrapper(FrozenEstimator(estimator), adapt_params=adapt_params or None)


def unwrap(estimator):
    """Preprocessing steps and the meta-learner behind them."""
    if isinstance(estimator, FrozenEstimator):
        return unwrap(estimator.estimator)
    if isinstance(estimator, BaseSearchCV):
        return unwrap(getattr(estimator, "best_estimator_", estimator.estimator))
    if isinstance(estimator, Pipeline):
        steps, meta = unwrap(estimator[-1])
        return [estimator[:-1], *steps] if len(estimator) > 1 else steps, meta
    if not isinstance(estimator, MetaEstimator):
        raise TypeError(
            "estimator must be a meta-learner of skmeta, or a Pipeline or search that "
            f"ends in one; got {estimator!r}."
        )
    return [], estimator


def _meta_has(method):
    def check(self):
        inner = getattr(self, "estimator_", self.estimator)
        while isinstance(inner, FrozenEstimator):
            inner = inner.estimator
        return hasattr(inner, method)

    return check


class _Adapted(MetaEstimatorMixin, BaseEstimator):
    """Fit is adapt, partial_fit is partial_adapt, predict is predict."""

    _parameter_constraints: dict = {
        "estimator": "no_validation",
        "adapt_params": [dict, None],
    }

    def __init__(self, estimator, *, adapt_params=None):
        self.estimator = estimator
        self.adapt_params = adapt_params

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Adapt to one task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Support rows of the task.
        y : array-like of shape (n_samples,)
            Their targets.

        Returns
        -------
        self : object
            The adapted estimator.
        """
        X, y = self._validate(X, y, reset=True)
        self._steps, meta = self._learned(X, y)
        if isinstance(self.estimator, FrozenEstimator):
            meta.states_ = TaskStates()
            meta.adapt(self._transform(X), y)
        self.estimator_ = meta
        return self._remember()

    @_fit_context(prefer_skip_nested_validation=False)
    def _partial_fit(self, X, y):
        first = not hasattr(self, "estimator_")
        if first:
            return self.fit(X, y)
        X, y = self._validate(X, y, reset=False)
        meta = copy.copy(self.estimator_)
        self.estimator_ = meta.partial_adapt(self._transform(X), y)
        return self._remember()

    def predict(self, X):
        """Predict rows of the task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictions.
        """
        X = self._inputs(X)
        return self.estimator_.predict(X)

    def _inputs(self, X):
        check_is_fitted(self)
        options = {"skip_check_array": True} if self._frames else {"allow_nd": True}
        return self._transform(validate_data(self, X, reset=False, **options))

    def _validate(self, X, y, reset):
        """Names and numbers of columns; cells are checked by what comes first.

        Frames go on as frames to what selects or checks columns by name.
        """
        self._frames = self._takes_frames()
        if self._frames:
            return validate_data(self, X, y, reset=reset, skip_check_array=True)
        return validate_data(
            self,
            X,
            y,
            reset=reset,
            allow_nd=True,
            y_numeric=not is_classifier(self),
        )

    def _takes_frames(self):
        try:
            steps, meta = unwrap(self.estimator)
        except TypeError:
            return False
        by_name = hasattr(meta, "feature_names_in_") or meta.group_column is not None
        return bool(steps) or by_name

    def _learned(self, X, y):
        """Fitted steps and an independent copy of the meta-learner.

        One that is not frozen is meta-trained here, on the one task there is.
        """
        if isinstance(self.estimator, FrozenEstimator):
            steps, meta = unwrap(self.estimator)
            check_is_fitted(meta)
        else:
            unwrap(self.estimator)
            steps, meta = unwrap(clone(self.estimator).fit(X, y))
        meta = copy.copy(meta)
        self._set_adapt_params(meta)
        # The rows are one task, so a column of task ids is ignored.
        self._ids = meta.group_column, meta.n_features_in_
        meta.group_column = None
        return steps, meta

    def _set_adapt_params(self, meta):
        params = self.adapt_params or {}
        nested = [name for name in params if "__" in name]
        if nested:  # would change what the frozen meta-learner shares
            raise ValueError(
                f"adapt_params are parameters of {type(meta).__name__} itself; got "
                f"{nested[0]!r}, which belongs to one of its components."
            )
        meta.set_params(**params)

    def _transform(self, X):
        for step in self._steps:
            X = step.transform(X)
        return drop_group_column(X, *self._ids)

    def _remember(self):
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")


class AdaptedClassifier(ClassifierMixin, _Adapted):
    """Classifier whose `fit` adapts a meta-learner to one task.

    Usually made by `freeze`.

    Parameters
    ----------
    estimator : meta-learner, Pipeline or search
        Fitted and in a `sklearn.frozen.FrozenEstimator`: it stays as it is, and `fit`
        adapts a copy. One that is not frozen is meta-trained anew by `fit`, on the
        rows of the one task, which is seldom wanted.
    adapt_params : dict, default=None
        Parameters of the meta-learner to use while adapting.

    Attributes
    ----------
    estimator_ : meta-learner
        The adapted copy.
    classes_ : ndarray of shape (n_classes,)
        Classes of the task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    freeze : Freeze a fitted meta-learner.

    Examples
    --------
    >>> from skmeta import ProtoNetClassifier, freeze
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = ProtoNetClassifier(n_ways=3, random_state=0)
    >>> few = freeze(meta.fit(digits.X_train, digits.y_train))
    >>> few.fit(digits.X_test[:50], digits.y_test[:50]).classes_
    array([6, 7, 8, 9])
    """

    def partial_fit(self, X, y, classes=None):
        """Go on adapting with more rows of the task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            More support rows.
        y : array-like of shape (n_samples,)
            Their labels, new ones included where labels are per task.
        classes : array-like, default=None
            Not needed; there for compatibility with scikit-learn.

        Returns
        -------
        self : object
            The adapted estimator.
        """
        return self._partial_fit(X, y)

    @available_if(_meta_has("predict_proba"))
    def predict_proba(self, X):
        """Predict class probabilities of rows of the task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        X = self._inputs(X)
        return self.estimator_.predict_proba(X)

    def _remember(self):
        self.classes_ = self.estimator_.classes_
        return self


class AdaptedRegressor(RegressorMixin, _Adapted):
    """Regressor whose `fit` adapts a meta-learner to one task.

    Usually made by `freeze`.

    Parameters
    ----------
    estimator : meta-learner, Pipeline or search
        Fitted and in a `sklearn.frozen.FrozenEstimator`: it stays as it is, and `fit`
        adapts a copy. One that is not frozen is meta-trained anew by `fit`, on the
        rows of the one task, which is seldom wanted.
    adapt_params : dict, default=None
        Parameters of the meta-learner to use while adapting.

    Attributes
    ----------
    estimator_ : meta-learner
        The adapted copy.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    freeze : Freeze a fitted meta-learner.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor, freeze
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> few = freeze(HierarchicalRegressor().fit(tasks[:-1]))
    >>> X, y = tasks[-1]
    >>> few.fit(X[:5], y[:5]).predict(X[5:]).shape
    (15,)
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = getattr(self.estimator, "__sklearn_tags__", None)
        inner = inner and inner().regressor_tags
        if inner is not None:
            tags.regressor_tags.poor_score = inner.poor_score
        return tags

    def partial_fit(self, X, y):
        """Go on adapting with more rows of the task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            More support rows.
        y : array-like of shape (n_samples,)
            Their targets.

        Returns
        -------
        self : object
            The adapted estimator.
        """
        return self._partial_fit(X, y)

    def predict(self, X, return_std=False):
        """Predict rows of the task.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        return_std : bool, default=False
            Whether to return standard deviations too, where the meta-learner is
            probabilistic.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictive means.
        std : ndarray of shape (n_samples,)
            Predictive standard deviations. Only with `return_std`.
        """
        X = self._inputs(X)
        options = {"return_std": True} if return_std else {}
        return self.estimator_.predict(X, **options)
