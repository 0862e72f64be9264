"""Linear regression whose weights have a prior that is learned over tasks."""

from __future__ import annotations

import operator
from dataclasses import replace

import numpy as np

from ..base import MetaEstimator, ProbabilisticRegressorMixin
from ..exceptions import DivergenceError
from ..tasks._table import join_tables, row_positions
from ._base import HierarchicalMixin
from ._gaussian import posterior, predict, training_posterior
from ._misfit import with_misfit
from ._prior import SHOTS, fit_prior
from ._serial import accumulate_serial
from ._statistics import accumulate, concatenate


class HierarchicalRegressor(
    ProbabilisticRegressorMixin, HierarchicalMixin, MetaEstimator
):
    """Linear model of every task, with weights that share a learned prior.

    Fitting learns how the weights of tasks are distributed: their mean, their
    covariance, the noise. Adapting to a new task is the exact Gaussian posterior from
    its rows, however few; without any row the prediction is that of the pooled model.
    This is a linear mixed model with random intercept and slopes [1]_ that needs no
    refit for a new group, also known as empirical Bayes. Recommended first for tables.

    No scaling is needed: features and target are standardised inside. More than 64
    features are replaced by their principal components and a pooled ridge prediction.

    Parameters
    ----------
    base_estimator : estimator, default=None
        Any scikit-learn regressor, such as a boosting model, fitted on the rows of all
        tasks. Its out-of-fold prediction (folds over tasks) becomes one more feature,
        so that the linear model of a task corrects it.
    covariance : {"auto", "none", "intercept", "diagonal", "low_rank", "full"}, \
            default="auto"
        How weights may differ between tasks: not at all, in the intercept (a random
        intercept), each on its own (random intercept and slopes), along a few
        directions, or freely. "auto" takes the simplest that predicts the later rows
        of held-out training tasks from their first 2, 5 and 20 as well as any, by
        cross-validation over tasks in row order. It also decides how much a support
        row counts: less where the rows of a task resemble each other.
    task_features : array-like of str or int, default=None
        Names or positions of the columns that describe the task, such as the size of a
        store: one value in all rows of a task. Positions do not count `group_column`.
        They move what is expected of every slope of a new task [3]_, and not only of
        its level, so that a prediction without any row is already personal.
    neighbors : int, default=None
        Size of the neighborhoods of training tasks that a new task may be in, for tasks
        that form clusters [4]_. Its first rows tell in which, or in none. How often new
        tasks are in one is learned: where tasks do not cluster nothing changes. None
        knows tasks by the mean and covariance of their weights alone.
    recency : float, default=None
        Half-life of support rows, for tasks that drift: a row counts half for every
        `recency` rows of its task after it, in the order they come in. None lets all
        count the same. Across tasks it is learned how they differ at their last rows.
    cv : int, default=5
        Folds over tasks for the predictions of `base_estimator`.
    n_shots : int, default=5
        Support rows of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a new task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be. With "first" and
        ``covariance="auto"`` fit also learns how the errors of consecutive rows are
        related [2]_, and adapting then depends on the order of the rows.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    prior_ : Prior
        What was learned: mean and covariance of the weights of a new task, in the
        coordinates of standardised features and target; the variance of the noise;
        how much a support row counts; the correlation of consecutive errors.
    neighborhoods_ : Neighborhoods
        Of the training tasks, in latent coordinates in which the prior is standard
        normal, and how often new tasks are in one; None without `neighbors`.
    base_estimator_ : estimator
        Fitted on all rows; None without `base_estimator`.
    states_ : TaskStates
        Support and posterior of every known task.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    RidgeHeadRegressor : The same idea on features learned by a network.

    References
    ----------
    .. [1] Laird and Ware. "Random-effects models for longitudinal data", Biometrics
       38, 1982.
    .. [2] Diggle. "An approach to the analysis of repeated measurements", Biometrics
       44, 1988.
    .. [3] Raudenbush and Bryk. "A hierarchical model for studying school effects",
       Sociology of Education 59, 1986.
    .. [4] West. "Approximating posterior distributions by mixtures", Journal of the
       Royal Statistical Society B 55, 1993.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> meta = HierarchicalRegressor().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = meta.adapt(X[:5], y[:5]).predict(X[5:], return_std=True)
    >>> mean.shape, std.shape
    ((15,), (15,))
    """

    _parameter_constraints: dict = dict(HierarchicalMixin._parameter_constraints)

    def __init__(
        self,
        base_estimator=None,
        *,
        covariance="auto",
        task_features=None,
        neighbors=None,
        recency=None,
        cv=5,
        n_shots=5,
        support="random",
        group_column=None,
    ):
        self.base_estimator = base_estimator
        self.covariance = covariance
        self.task_features = task_features
        self.neighbors = neighbors
        self.recency = recency
        self.cv = cv
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    def _meta_fit(self, table, *, resume):
        if not resume:
            # A random draw has no order that could be remembered.
            self._ordered = self.support == "first" and self.covariance == "auto"
            rows = self._encoded(table, self._learn_design(table))
            summary = training = self._counted(rows, training=True)
            self._early = self._first_rows(rows)
        else:
            rows = self._encoded(table, self._design_rows(table))
            summary = self._counted(rows, training=False)
            training = self._with_known(summary)
            new = set(rows.ids)
            kept = [i for i, t in enumerate(self._early.ids) if t not in new]
            early = [self._early.take(kept), self._first_rows(rows)]
            self._early = join_tables(early)
        center = self._pooled_center()
        early = self._early_rows(training.ids)
        self.prior_ = fit_prior(
            self._adapted_to(training),
            self.covariance,
            early=[self._statistics(rows) for rows in early],
            recent=[self._statistics(rows, self._decay) for rows in early]
            if self._decay < 1
            else (),
            whole=training.rows,
            n_base=self._n_base,
            n_products=self._design.n_products,
            center=None if center is None else center[0],
        )
        self._training = training
        self.neighborhoods_ = self._learn_neighborhoods()
        return summary

    def _forget_training(self, ids):
        super()._forget_training(ids)
        kept = [i for i, task in enumerate(self._early.ids) if task not in ids]
        self._early = self._early.take(kept)

    def _summarize(self, table):
        rows = self._encoded(table, self._design_rows(table))
        return self._counted(rows, training=False)

    def _encoded(self, table, features):
        return replace(table, X=features, y=self._design.encode(table.y))

    def _counted(self, rows, training):
        recent = None if self._decay == 1 else self._statistics(rows, self._decay)
        return self._supports(rows, self._statistics(rows), training, recent)

    def _statistics(self, rows, decay=1.0):
        count = accumulate_serial if self._ordered else accumulate
        return count(rows.X, rows.y, rows.codes, rows.n_tasks, rows.weight, decay)

    @staticmethod
    def _first_rows(rows):
        """Rows of every task that the choice of a structure looks at first."""
        early = row_positions(rows.codes) < max(SHOTS)
        return rows.take_rows(np.flatnonzero(early))

    def _early_rows(self, ids):
        """First few rows of the training tasks, for every number of them."""
        if self.covariance != "auto":
            return []
        place = {task: i for i, task in enumerate(self._early.ids)}
        rows = self._early.take([place[task] for task in ids])
        position = row_positions(rows.codes)
        return [rows.take_rows(np.flatnonzero(position < n)) for n in SHOTS]

    _combine_rows = staticmethod(operator.add)
    _join_rows = staticmethod(concatenate)

    def _prior_summary(self, ids):
        rows = self._no_rows(ids)
        return self._counted(replace(rows, y=np.zeros(0)), training=False)

    def _posterior(self, support):
        try:
            return posterior(self.prior_, self._adapted_to(support))
        except np.linalg.LinAlgError as error:
            task = support.ids[0] if len(support.ids) == 1 else None
            which = "" if task is None else f" to task {task!r}"
            raise DivergenceError(
                f"Adapting{which} diverged ({error}): rows are of another scale than "
                "those that fit has seen. Scale the features."
            ) from error

    def _training_posterior(self, support):
        return training_posterior(self.prior_, self._adapted_to(support))

    @staticmethod
    def _adapted_to(support):
        return support.rows if support.recent is None else support.recent

    def _forward(self, state, table, return_std=False):
        features = self._design_rows(table)
        output = predict(self.prior_, state, features, table.codes, return_std)
        if return_std:
            return self._design.decode(*output)
        return self._design.decode(output)

    def _pool_posterior(self, support, table):
        latent = self._design_rows(table) @ self.prior_.factor
        chol = self._solve(support)["chol"]
        # The variance of the noise is the unit.
        latent, noise = with_misfit(np.linalg.solve(chol[0], latent.T).T)
        return latent[None], noise[None], np.ones((1, len(table.X)))
