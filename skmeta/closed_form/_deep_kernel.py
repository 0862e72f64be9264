"""Gaussian processes on learned features as estimators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions

from ..base import DensityRegressorMixin, MetaClassifierMixin, NeuralMetaEstimator
from ..base._neural import COUNT
from ..base._states import MAX_STATE_BYTES
from ..tasks._pack import to_batch
from ._deep_kernel_learner import DeepKernel, DeepKernelClassification

KERNELS = [StrOptions({"rbf", "matern", "linear"})]


class GaussianProcessMixin:
    """What states that grow with the square of the support have in common."""

    def _cells(self, table):
        return max(super()._cells(table), int(table.counts.max(initial=0)))

    def _keeps_state(self, support):
        n_rows = int(support.counts.max(initial=0))
        return support.n_tasks * n_rows**2 * 8 <= MAX_STATE_BYTES

    def _pool_posterior(self, support, table):
        """The covariance of the pool, which does not depend on labels."""
        if support is None:  # nothing but the prior is known
            support = table.take_rows(np.arange(0))
        learner = self.learner_
        known = self._to_device(to_batch(support.with_y(None)))
        pool = self._to_device(to_batch(table.with_y(None)))
        with torch.no_grad():
            covariance = learner.posterior_covariance(learner.inform(known), pool)
        values, vectors = np.linalg.eigh(covariance.cpu().numpy().astype(float))
        latent = vectors * np.sqrt(values.clip(min=0))[:, None]
        noise = np.full((1, len(table.X)), float(learner.noise))
        return latent, noise, np.ones_like(noise)


class DeepKernelClassifier(
    MetaClassifierMixin, GaussianProcessMixin, NeuralMetaEstimator
):
    """Deep kernel transfer (DKT): a Gaussian process on learned features.

    The labels 1 and -1 of each class against the rest are regressed by a Gaussian
    process whose kernel compares learned features [1]_. Its posterior is exact, for
    any number of classes, and the probabilities are those of Bayes' rule given that
    exactly one class is right: rows far from all support rows are undecided.

    Backbone and kernel are trained by the criterion of the net (cross-entropy) on
    query rows. The paper takes the marginal likelihood of the labels as numbers
    instead, and puts a sigmoid on the means.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        backbone, ``train_split`` splits tasks.
    kernel : {"rbf", "matern", "linear"}, default="rbf"
        Kernel of the features: squared exponential, Matern with smoothness 5/2, or
        inner product. Its length scale (of the linear kernel, its offset), its
        variance and the noise are learned.
    n_ways : int or (int, int), default=5
        Classes of a training episode, where labels are per task; a pair is a range to
        draw from. `adapt` takes any number of classes.
    n_shots : int or (int, int), default=5
        Support rows per class of a training episode, and of `score`.
    n_queries : int or (int, int), default=15
        Query rows per class of a training episode.
    n_episodes : int, default=None
        Episodes of an epoch. None shows about as many rows as there are, in at least
        5 steps.
    label_space : {"auto", "shared", "per_task"}, default="auto"
        Whether a label means the same in every task (churn yes or no) or exists only
        inside its task (characters of an alphabet). "auto" takes labels as shared
        when the median task has at least half of all classes.
    class_balanced : bool, default=True
        Draw episodes with as many rows of each class; False draws as many in all, and
        classes as frequent as they are in the task.
    support : {"random", "first"}, default="random"
        Which rows of a task are support in training and in `score`: a random draw, or
        the first in row order, as the history of a new user would be.
    augment : callable, default=None
        Maps ``(support, query)``, two `TaskBatch`, to new ones before a training step.
    task_sampler : TaskSampler, default=None
        Experimental: draws training tasks by how they help the validation tasks of the
        net, such as `skmeta.task_sampling.GradientAlignmentSampler`. None draws all
        of them about equally often.
    chunk_size : int, default=None
        Tasks of a step whose graph is in memory at a time; the gradient is the same.
        None holds all of them.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and episodes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Shared classes, or the classes of all tasks known so far.
    label_space_ : {"shared", "per_task"}
        What `label_space` came to.
    states_ : TaskStates
        Support and state of every known task.
    learner_ : DeepKernelClassification
        The trained Torch module, frozen.
    net_ : skorch.NeuralNet
        The net that trained it.
    history_ : skorch.History
        Losses and seconds of every epoch.
    n_diverged_ : int
        Training episodes that were left out because they were not finite.
    task_sampler_ : TaskSampler or None
        What it has learned of the training tasks.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    RidgeHeadClassifier : The linear kernel without a variance, at linear cost.

    References
    ----------
    .. [1] Patacchiola, Turner, Crowley, O'Boyle and Storkey. "Bayesian meta-learning
       for the few-shot setting via deep kernels", NeurIPS 2020.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import DeepKernelClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = DeepKernelClassifier(n_ways=3, random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.6
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "kernel": KERNELS,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        kernel="rbf",
        n_ways=5,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        label_space="auto",
        class_balanced=True,
        support="random",
        augment=None,
        task_sampler=None,
        chunk_size=None,
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.kernel = kernel
        self.n_ways = n_ways
        self.n_shots = n_shots
        self.n_queries = n_queries
        self.n_episodes = n_episodes
        self.label_space = label_space
        self.class_balanced = class_balanced
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return DeepKernelClassification(backbone, self.kernel, self._n_shared_classes)


class DeepKernelRegressor(
    DensityRegressorMixin, GaussianProcessMixin, NeuralMetaEstimator
):
    """Deep kernel transfer (DKT): a Gaussian process on learned features.

    All tasks share a kernel, which compares the features of a backbone. Backbone and
    kernel maximise the marginal likelihood of whole training tasks [1]_. Adapting is
    exact inference, so a standard deviation grows where a task has no rows, and a
    task of which no row is known is predicted by the learned prior mean.

    Adapting to ``n`` rows takes time in ``n`` cubed and memory in ``n`` squared.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        backbone, ``train_split`` splits tasks. A squared error as its criterion gives
        way to the likelihood; any other criterion gets mean and standard deviation of
        each row, given the rows before it, ``(n_rows, 2)``.
    kernel : {"rbf", "matern", "linear"}, default="rbf"
        Kernel of the features: squared exponential, Matern with smoothness 5/2, or
        inner product. Its length scale (of the linear kernel, its offset), its
        variance and the noise are learned.
    n_shots : int or (int, int), default=5
        Support rows of `score`, and as many more rows of a training episode; a pair is
        a range to draw from.
    n_queries : int or (int, int), default=15
        Rows of a training episode besides those. The likelihood is of all of them
        together.
    n_episodes : int, default=None
        Episodes of an epoch. None shows about as many rows as there are, in at least
        5 steps.
    support : {"random", "first"}, default="random"
        Which rows of a task are support in training and in `score`: a random draw, or
        the first in row order, as the history of a new user would be.
    augment : callable, default=None
        Maps ``(support, query)``, two `TaskBatch`, to new ones before a training step.
    task_sampler : TaskSampler, default=None
        Experimental: draws training tasks by how they help the validation tasks of the
        net, such as `skmeta.task_sampling.GradientAlignmentSampler`. None draws all
        of them about equally often.
    chunk_size : int, default=None
        Tasks of a step whose graph is in memory at a time; the gradient is the same.
        None holds all of them.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and episodes.

    Attributes
    ----------
    states_ : TaskStates
        Support and state of every known task.
    learner_ : DeepKernel
        The trained Torch module, frozen.
    net_ : skorch.NeuralNet
        The net that trained it.
    history_ : skorch.History
        Losses and seconds of every epoch.
    n_diverged_ : int
        Training episodes that were left out because they were not finite.
    task_sampler_ : TaskSampler or None
        What it has learned of the training tasks.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    RidgeHeadRegressor : Bayesian linear regression on learned features, at linear cost.
    CNPRegressor : The posterior is learned too, at linear cost.

    References
    ----------
    .. [1] Patacchiola, Turner, Crowley, O'Boyle and Storkey. "Bayesian meta-learning
       for the few-shot setting via deep kernels", NeurIPS 2020.

    Examples
    --------
    Learn what sine waves have in common, then one more from ten points of it.

    >>> from skmeta import DeepKernelRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(200, random_state=0)
    >>> meta = DeepKernelRegressor(random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = meta.adapt(X[:10], y[:10]).predict(X[10:], return_std=True)
    >>> mean.shape, std.shape
    ((10,), (10,))
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "kernel": KERNELS,
    }

    def __init__(
        self,
        estimator=None,
        *,
        kernel="rbf",
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        support="random",
        augment=None,
        task_sampler=None,
        chunk_size=None,
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.kernel = kernel
        self.n_shots = n_shots
        self.n_queries = n_queries
        self.n_episodes = n_episodes
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return DeepKernel(backbone, self.kernel)

    def _sampler(self, table):
        # The marginal likelihood is that of all rows: none of them is only given.
        sampler = super()._sampler(table)
        low, high = (np.min(self.n_shots), np.max(self.n_shots))
        n_rows = (low + np.min(self.n_queries), high + np.max(self.n_queries))
        return replace(sampler, n_shots=0, n_queries=n_rows)
