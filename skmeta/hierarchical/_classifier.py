"""Logistic regression whose weights have a prior that is learned over tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.utils._param_validation import StrOptions

from ..base import MetaClassifierMixin, MetaEstimator
from ..tasks._sampler import split_support
from ..tasks._table import append_rows, join_tables
from ._base import HierarchicalMixin
from ._laplace import (
    logistic_posterior,
    predict_logits,
    predict_proba,
    probabilities,
    training_logistic_posterior,
)
from ._laplace_prior import fit_logistic_prior
from ._statistics import aged
from ._trust import ROBUST, learn_share, trusted


class HierarchicalClassifier(MetaClassifierMixin, HierarchicalMixin, MetaEstimator):
    """Logistic model of every task, with weights that share a learned prior.

    Classes mean the same in every task. Fitting learns how the weights of tasks are
    distributed; adapting to a new task is Newton's method on its few rows and the
    prior, with a Gaussian approximation of the posterior (Laplace), so that
    probabilities stay honest with few rows and for classes that a task has not shown
    yet. Without any row the prediction is that of the pooled model [1]_.

    No scaling is needed: features are standardised inside. More than 64 features are
    replaced by their principal components and a pooled ridge prediction. More than two
    classes share a softmax.

    Parameters
    ----------
    base_estimator : estimator, default=None
        Any scikit-learn classifier, such as a boosting model, fitted on the rows of all
        tasks. Its out-of-fold prediction (folds over tasks) becomes one more feature,
        so that the linear model of a task corrects it.
    covariance : {"auto", "none", "intercept", "diagonal", "low_rank", "full"}, \
            default="auto"
        How weights may differ between tasks: not at all, in the intercept (a random
        intercept), each on its own (random intercept and slopes), along a few
        directions, or freely. "auto" takes what predicts the later rows of held-out
        training tasks best from their earlier ones, by cross-validation over tasks.
    task_features : array-like of str or int, default=None
        Names or positions of the columns that describe the task, such as the age of a
        patient: one value in all rows of a task. Positions do not count
        `group_column`. They move what is expected of every slope of a new task [3]_,
        and not only of its level, so that a prediction without any row is already
        personal.
    neighbors : int, default=None
        Size of the neighborhoods of training tasks that a new task may be in, for tasks
        that form clusters [4]_. Its first rows tell in which, or in none. How often new
        tasks are in one is learned: where tasks do not cluster nothing changes. None
        knows tasks by the mean and covariance of their weights alone.
    recency : float, default=None
        Half-life of support rows, for tasks that drift: a row counts half for every
        `recency` rows of its task after it, in the order they come in. None lets all
        count the same. What is learned across tasks is learned from all rows alike.
    cv : int, default=5
        Folds over tasks for the predictions of `base_estimator`.
    sample_weighting : {"uniform", "robust", "learned"}, default="uniform"
        How far the labels of support rows are believed. "uniform" takes them as they
        are. The others expect that some of them are random, and count each row by the
        probability that its label is not [2]_: "robust" expects two in five, which with
        two classes is one wrong label in five; "learned" what predicts later rows of
        the training tasks best from their earlier ones. Each task finds its own share,
        of which the expected one counts as 5 rows.
    n_shots : int, default=5
        Support rows per class of a new task in `score`, and for "learned".
    support : {"random", "first"}, default="random"
        Which rows of a new task are support, in `score` too: a random draw, or the
        first in row order, as the history of a new user would be. With "first" and
        ``covariance="auto"`` it is learned how far class frequencies of first rows
        foretell those of later ones: where activities or moods come in stretches, they
        do not [5]_.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    prior_ : LogisticPrior
        What was learned: mean and covariance of the weights of a new task, in the
        coordinates of standardised features.
    base_estimator_ : estimator
        Fitted on all rows; None without `base_estimator`.
    neighborhoods_ : Neighborhoods
        Of the training tasks, in latent coordinates in which the prior is standard
        normal, and how often new tasks are in one; None without `neighbors`.
    random_share_ : float
        Share of labels of a new task that are expected to be random.
    states_ : TaskStates
        Support and posterior of every known task.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    ProtoNetClassifier : Also for labels that exist only inside their task.

    References
    ----------
    .. [1] Breslow and Clayton. "Approximate inference in generalized linear mixed
       models", Journal of the American Statistical Association 88, 1993.
    .. [2] Lawrence and Schoelkopf. "Estimating a kernel Fisher discriminant in the
       presence of label noise", ICML 2001.
    .. [3] Raudenbush and Bryk. "A hierarchical model for studying school effects",
       Sociology of Education 59, 1986.
    .. [4] West. "Approximating posterior distributions by mixtures", Journal of the
       Royal Statistical Society B 55, 1993.
    .. [5] Prentice and Pyke. "Logistic disease incidence models and case-control
       studies", Biometrika 66, 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta import HierarchicalClassifier
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> meta = HierarchicalClassifier().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:5], y[:5]).predict_proba(X[5:]).shape
    (15, 2)
    """

    _parameter_constraints: dict = {
        **HierarchicalMixin._parameter_constraints,
        "sample_weighting": [StrOptions({"uniform", "robust", "learned"})],
    }

    def __init__(
        self,
        base_estimator=None,
        *,
        covariance="auto",
        task_features=None,
        neighbors=None,
        recency=None,
        cv=5,
        sample_weighting="uniform",
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
        self.sample_weighting = sample_weighting
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column

    #: Classes are those of the prior, so they mean the same in every task.
    label_space = "shared"

    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._learn_classes(table, classes)
        summary = self._summarize(table) if resume else self._learn_support(table)
        training = self._with_known(summary) if resume else summary
        self.prior_ = fit_logistic_prior(
            *self._arrays(training),
            self.covariance,
            n_base=self._n_base,
            n_products=self._design.n_products,
            decay=self._decay,
            center=self._pooled_center(),
            ordered=self.support == "first",
        )
        self._training = training
        self.random_share_ = self._share_of_random(training.rows)
        self.neighborhoods_ = self._learn_neighborhoods()
        return summary

    def _share_of_random(self, rows):
        """What share of labels in a new task is expected to be random."""
        if self.sample_weighting != "learned":
            return ROBUST if self.sample_weighting == "robust" else 0.0
        parts = split_support(rows, rows.y, self.n_shots, support=self.support)
        kept = np.flatnonzero(parts[1].counts > 0)
        parts = [part.take(kept) for part in parts]
        parts[0] = replace(parts[0], weight=self._aged(parts[0]))
        return learn_share(self.prior_, *parts, len(self.classes_))

    def _learn_support(self, table):
        table = self._encode(table)
        table = replace(table, X=self._learn_design(table, self.classes_))
        return self._supports(table, table, training=True)

    def _summarize(self, table):
        table = self._encode(table)
        table = replace(table, X=self._design_rows(table, self.classes_))
        return self._supports(table, table, training=False)

    _combine_rows = staticmethod(append_rows)
    _join_rows = staticmethod(join_tables)

    def _prior_summary(self, ids):
        table = self._no_rows(ids)
        return self._supports(table, table, training=False)

    def _posterior(self, support):
        task, weight = self._arrays(support), self._aged(support.rows)
        weight, _ = trusted(self.prior_, *task, weight, share=self.random_share_)
        return logistic_posterior(self.prior_, *task, weight)

    def _training_posterior(self, support):
        weight = self._aged(support.rows)
        return training_logistic_posterior(self.prior_, *self._arrays(support), weight)

    def _aged(self, rows):
        """Weights of support rows by how many came after."""
        return aged(rows.codes, rows.weight, self._decay)

    def _arrays(self, support):
        rows = support.rows
        return rows.X, rows.y, rows.codes, rows.n_tasks, len(self.classes_)

    def _forward(self, state, table):
        features = self._design_rows(table, self.classes_)
        return predict_proba(self.prior_, state, features, table.codes)

    def _to_proba(self, output):
        return output

    def _pool_posterior(self, support, table):
        state, features = self._solve(support), self._design_rows(table, self.classes_)
        codes = np.zeros(len(features), dtype=np.intp)
        logits = predict_logits(self.prior_, state, features, codes)[0]
        latent = (features @ self.prior_.factor).T
        latent = np.linalg.solve(state["chol"][0], latent[None]).swapaxes(1, 2)
        p = probabilities(logits).T
        slope = np.maximum(p * (1 - p), 1e-12)
        return latent, 1 / (self.prior_.row_weight * slope), slope**2
