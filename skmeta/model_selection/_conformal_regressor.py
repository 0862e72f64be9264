"""Intervals of calibrated coverage for tasks that were not seen."""

from __future__ import annotations

import numpy as np
from sklearn.utils._param_validation import StrOptions

from ..base import ProbabilisticRegressorMixin
from ..hierarchical import HierarchicalRegressor
from ._conformal import Conformal


class ConformalRegressor(ProbabilisticRegressorMixin, Conformal):
    """Prediction intervals that cover a new task as often as they say.

    Wraps any regressor of this library. Fitting it holds out tasks in turn, adapts to
    a few rows of each, and notes how far the predictions of its other rows were off, in
    units of the predictive standard deviation where there is one. An interval for a
    new task is as wide as was needed for the given share of held-out tasks that had as
    many support rows.

    What is exchangeable are tasks, not rows: each task has the same weight, however
    many rows it has, and so has the new one [1]_, [2]_. So coverage is that of a random
    row of a random new task. It is not that of every single task: some are covered
    more often, some less. What can be proved is for a learner that has not seen the
    calibration tasks; here, as with every cross-conformal method, the learner used in
    the end has seen them all, and coverage holds closely in practice.

    Parameters
    ----------
    estimator : meta-learner, default=None
        Any regressor of this library; None takes a `HierarchicalRegressor`.
        Preprocessing goes in front: ``make_pipeline(scaler, ConformalRegressor())``.
    confidence_level : float or array-like of float, default=0.9
        Share of rows that intervals should cover. It may be changed after fit.
    conformity_score : {"auto", "normalized", "absolute"}, default="auto"
        Whether residuals are divided by the predictive standard deviation, so that the
        width depends on the row, or not. "auto" does where there is one.
    shots : array-like of int, default=(0, 1, 2, 5, 10, 20, 50)
        Numbers of support rows to calibrate for. A task is given the quantile for the
        support rows that it has, interpolated in the logarithm of one plus their
        number; above the largest number, that of the largest.
    n_draws : int, default=5
        Random supports of each held-out task.
    support : {"random", "first"}, default="random"
        Which rows of held-out tasks are support, also in `score`: random draws, or the
        first in row order (then there is one draw), as a new user's history would be.
    correction : {"leave_one_out", "hcp"}, default="leave_one_out"
        How the quantile allows for there being few tasks. "leave_one_out" asks which
        quantile of all other tasks covers each held-out task in turn, and takes the one
        that covers them as often as wanted, smoothed over the mass of one task: no
        proof, and in simulations an excess of less than two points from nine tasks on.
        "hcp" is hierarchical conformal prediction [2]_, which lets the new task be
        covered not at all: its guarantee costs up to ``1 / (n_tasks + 1)`` of excess
        coverage.
    cv : int, splitter or list of (train, test), default=5
        Folds over tasks. The estimator is trained once for each, and on all tasks.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and draws.

    Attributes
    ----------
    estimator_ : meta-learner
        Fitted on all tasks; what is known of each task is in `states_`.
    shots_ : ndarray
        Numbers of support rows that were calibrated for.
    score_distributions_ : list of ScoreDistribution or None
        Conformity scores for each of them; None where no task had enough rows.
    states_ : TaskStates
        Support and state of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    ConformalClassifier : Sets of classes.

    Notes
    -----
    A level of 0.9 needs nine tasks, 0.95 nineteen: with fewer no finite interval is
    sure to cover, so intervals are infinite, with a warning. Means can be predicted all
    the same. `partial_fit` judges new tasks before it learns from them.

    References
    ----------
    .. [1] Dunn, Wasserman and Ramdas. "Distribution-free prediction sets for two-layer
       hierarchical models", Journal of the American Statistical Association 118, 2022.
    .. [2] Lee, Barber and Willett. "Distribution-free inference with hierarchical
       data", arXiv:2306.06342, 2023.

    Examples
    --------
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import ConformalRegressor
    >>> tasks = make_regression_tasks(60, 20, random_state=0)
    >>> meta = ConformalRegressor(confidence_level=[0.5, 0.9]).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, intervals = meta.adapt(X[:5], y[:5]).predict_interval(X[5:])
    >>> mean.shape, intervals.shape
    ((15,), (15, 2, 2))

    The second level gives the wider intervals, more rows of the task narrower ones.

    >>> width = intervals[:, 1] - intervals[:, 0]
    >>> bool((width[:, 1] > width[:, 0]).all())
    True
    >>> _, fewer = meta.adapt(X[:1], y[:1]).predict_interval(X[5:])
    >>> bool((fewer[:, 1] - fewer[:, 0]).mean() > width.mean())
    True
    """

    _parameter_constraints: dict = {
        **Conformal._parameter_constraints,
        "conformity_score": [StrOptions({"auto", "normalized", "absolute"})],
    }

    _default = HierarchicalRegressor

    def __init__(
        self,
        estimator=None,
        *,
        confidence_level=0.9,
        conformity_score="auto",
        shots=(0, 1, 2, 5, 10, 20, 50),
        n_draws=5,
        support="random",
        correction="leave_one_out",
        cv=5,
        group_column=None,
        random_state=0,
    ):
        self.estimator = estimator
        self.confidence_level = confidence_level
        self.conformity_score = conformity_score
        self.shots = shots
        self.n_draws = n_draws
        self.support = support
        self.correction = correction
        self.cv = cv
        self.group_column = group_column
        self.random_state = random_state

    def predict_interval(self, X, groups=None):
        """Predict the target of each row, and intervals around it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row, as for `predict`. Rows of an unknown task get the
            interval for tasks without support rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictions, as by `predict`.
        intervals : ndarray of shape (n_samples, 2, n_levels)
            Lower and upper ends for each confidence level.
        """
        table = self._read_rows(X, groups)
        n_levels = len(self._levels)
        mean = np.empty(len(table.X))
        half = np.empty((len(mean), n_levels))
        for rows, state, output in self._outputs(table, **self._options):
            center, scale = _center_and_scale(output, self._options)
            mean[rows] = center
            task = np.unique(table.codes[rows], return_inverse=True)[1]
            half[rows] = self._quantiles(state)[task] * np.reshape(scale, (-1, 1))
        self._warn_infinite(half, "Intervals are infinite")
        ends = np.stack([mean[:, None] - half, mean[:, None] + half], axis=1)
        return table.restore(mean), table.restore(ends)

    @property
    def _options(self):
        """How predictions are asked for."""
        probabilistic = isinstance(self._unfitted, ProbabilisticRegressorMixin)
        if self.conformity_score == "auto":
            return {"return_std": True} if probabilistic else {}
        if self.conformity_score == "absolute":
            return {}
        if not probabilistic:
            raise ValueError(
                "conformity_score='normalized' needs a regressor that predicts "
                f"standard deviations, and {type(self._unfitted).__name__} does not."
            )
        return {"return_std": True}

    def _conformity(self, model, query):
        score = np.empty(len(query.X))
        for rows, _, output in model._outputs(query, **self._options):
            center, scale = _center_and_scale(output, self._options)
            score[rows] = np.abs(query.y[rows] - center) / scale
        return score


def _center_and_scale(output, options):
    if not options:
        return output, np.ones(len(output))
    return output[0], np.maximum(output[1], np.finfo(float).tiny)
