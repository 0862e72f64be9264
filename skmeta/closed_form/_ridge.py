"""Closed-form heads on learned features as estimators."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from ..base import (
    MetaClassifierMixin,
    NeuralMetaEstimator,
    ProbabilisticRegressorMixin,
)
from ..base._neural import COUNT
from ..base._weights import WeightedSupportMixin
from ..tasks._pack import to_batch
from ._ridge_learner import RidgeHead


class RidgePoolMixin:
    """How much labels tell of a ridge solution, which does not depend on them."""

    def _pool_posterior(self, support, table):
        pool, learner = self._ridge_features(table), self.learner_
        precision = float(learner.alpha) * np.eye(pool.shape[1])
        if support is not None and len(support.X):
            known = self._ridge_features(support)
            precision += known.T @ known
        latent = np.linalg.solve(np.linalg.cholesky(precision), pool.T).T
        return latent[None], np.ones((1, len(pool))), np.ones((1, len(pool)))

    def _ridge_features(self, table):
        batch = self._to_device(to_batch(table.with_y(None)))
        with torch.no_grad():
            features = self.learner_._features(batch)[0]
            if batch.sample_weight is not None:
                features = batch.sample_weight[0].sqrt().unsqueeze(-1) * features
            return features.cpu().numpy().astype(float)


#: Episodes to estimate the noise from: meta-batches, and a key apart from training.
_CALIBRATION_STEPS = 10
_CALIBRATION_KEY = 2**41


class RidgeHeadClassifier(
    WeightedSupportMixin, MetaClassifierMixin, RidgePoolMixin, NeuralMetaEstimator
):
    """Ridge regression on learned features, solved exactly for each task.

    A backbone is trained over many episodes such that ridge regression on its
    features, fitted to one-hot labels of a few support rows, classifies query rows
    well. Adapting to a new task is solving one small linear system; the
    regularisation and the scale of the logits are learned with the backbone [1]_.

    Where all tasks share their classes, the weights are shrunk towards learned prior
    weights, which also predict for tasks of which no row is known.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        backbone, ``train_split`` splits tasks.
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
    learner_ : RidgeHead
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
    ProtoNetClassifier : Class means instead of a linear head.

    References
    ----------
    .. [1] Bertinetto, Henriques, Torr and Vedaldi. "Meta-learning with differentiable
       closed-form solvers", ICLR 2019.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import RidgeHeadClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = RidgeHeadClassifier(n_ways=3, random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.7
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
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
        return RidgeHead(backbone, n_features, self._n_shared_classes, classifier=True)


class RidgeHeadRegressor(
    WeightedSupportMixin,
    ProbabilisticRegressorMixin,
    RidgePoolMixin,
    NeuralMetaEstimator,
):
    """Bayesian linear regression on learned features, exact for each task.

    A backbone is trained over many episodes such that a linear model on its features,
    fitted to a few support rows, predicts query rows well [1]_. The weights of a task
    have a Gaussian prior with learned mean, so adapting is exact inference, the prior
    mean predicts for tasks of which no row is known, and predictions come with a
    standard deviation. That is ALPaCA [2]_, but for the outer loss: the squared error
    of query rows instead of their likelihood, and the noise estimated afterwards.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        backbone, ``train_split`` splits tasks.
    n_shots : int or (int, int), default=5
        Support rows of a training episode, and of `score`; a pair is a range to draw
        from.
    n_queries : int or (int, int), default=15
        Query rows of a training episode.
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
    learner_ : RidgeHead
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
    HierarchicalRegressor : The same idea on the features as they are; no network.

    References
    ----------
    .. [1] Bertinetto, Henriques, Torr and Vedaldi. "Meta-learning with differentiable
       closed-form solvers", ICLR 2019.
    .. [2] Harrison, Sharma and Pavone. "Meta-learning priors for efficient online
       Bayesian regression", WAFR 2018.

    Examples
    --------
    Learn what sine waves have in common, then one more from ten points of it.

    >>> from skmeta import RidgeHeadRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(200, random_state=0)
    >>> meta = RidgeHeadRegressor(n_shots=10, n_queries=10, random_state=0)
    >>> meta = meta.fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = meta.adapt(X[:10], y[:10]).predict(X[10:], return_std=True)
    >>> mean.shape, std.shape
    ((10,), (10,))
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
    }

    def __init__(
        self,
        estimator=None,
        *,
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
        return RidgeHead(backbone, n_features)

    def _calibrate(self, learner, dataset, before):
        """Estimate the noise from the residuals of query rows of training episodes.

        The squared loss leaves it undetermined: the mean depends only on the ratio of
        noise and prior variance.
        """
        squares = []
        with torch.no_grad():
            drawn = dataset.sampler.stream(_CALIBRATION_KEY, dataset.units, 64)
            for support, query in islice(drawn, _CALIBRATION_STEPS):
                support, query = self._to_device(support), self._to_device(query)
                state = learner.adapt(support)
                error = (learner.predict(state, query) - query.y).square()
                scaled = error / (1 + learner.leverage(state, query))
                squares.append(
                    scaled.flatten() if query.mask is None else scaled[query.mask]
                )
            # Tasks that diverge tell nothing about the noise.
            squares = torch.cat(squares)
            learner.noise.copy_(squares[squares.isfinite()].mean())

    def _query(self, state, batch, return_std=False):
        mean = self.learner_.predict(state, batch)
        if not return_std:
            return mean
        variance = self.learner_.noise * (1 + self.learner_.leverage(state, batch))
        return torch.stack([mean, variance.sqrt()], dim=-1)

    def _finish(self, output, return_std=False):
        if not return_std:
            return super()._finish(output)
        return super()._finish(output[:, 0]), output[:, 1] * self._y_scale
