"""Conditional neural processes as estimators."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval
from torch import nn

from ..base import DensityRegressorMixin, NeuralMetaEstimator
from ..modules import MLP
from ._conv_learner import ConvCNP
from ._neural_process_learner import CNP, AttentiveNP, HideSupport

COUNT = [Interval(Integral, 1, None, closed="left")]


class NeuralProcessMixin(DensityRegressorMixin):
    """Learns what to predict without support from tasks whose support is hidden."""

    @property
    def _episode_augment(self):
        return HideSupport(self.augment)


class CNPRegressor(NeuralProcessMixin, NeuralMetaEstimator):
    """Conditional neural process (CNP): a task is the mean code of its rows.

    An encoder turns each support row and its target into a code; the mean of the
    codes is all that is kept of a task, and a decoder predicts a mean and a standard
    deviation from it for each query row [1]_. Encoder and decoder maximise the
    likelihood of query rows of training tasks. Adapting is one forward pass, linear in
    the number of rows, and neither solves nor descends on anything.

    One mean for a whole task cannot remember every row, so a CNP underfits: it does not
    pass through the support rows. `AttentiveNPRegressor` and `ConvCNPRegressor` mend
    that. One training task in sixteen is shown without support, so that the prediction
    for tasks of which no row is known is learned too.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        backbone, ``train_split`` splits tasks. A squared error as its criterion gives
        way to the likelihood; any other criterion gets mean and standard deviation of
        each query row, ``(n_rows, 2)``.
    width : int, default=64
        Width of the code of a task, and of the layers of encoder and decoder.
    n_shots : int or (int, int), default=5
        Support rows of a training episode, and of `score`; a pair is a range to draw
        from, which teaches how to predict from few rows as well as from many.
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
    learner_ : CNP
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
    AttentiveNPRegressor : A code for each query row, by attention to the support rows.
    ConvCNPRegressor : One feature and tasks that are shifted copies of each other.
    DeepKernelRegressor : Exact inference instead of a learned one.

    References
    ----------
    .. [1] Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende and
       Eslami. "Conditional neural processes", ICML 2018.

    Examples
    --------
    Learn what sine waves have in common, then one more from ten points of it.

    >>> from skmeta import CNPRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(200, random_state=0)
    >>> meta = CNPRegressor(n_shots=(3, 10), random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = meta.adapt(X[:10], y[:10]).predict(X[10:], return_std=True)
    >>> mean.shape, std.shape
    ((10,), (10,))
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "width": COUNT,
    }

    def __init__(
        self,
        estimator=None,
        *,
        width=64,
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
        self.width = width
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
        return CNP(backbone, n_features, self.width)


class AttentiveNPRegressor(NeuralProcessMixin, NeuralMetaEstimator):
    """Attentive neural process (ANP), its deterministic path.

    Like `CNPRegressor`, but a query row has a code of its own: attention with several
    heads weighs the codes of the support rows by how well their features match [1]_.
    That lets the prediction pass through the support rows. Adapting is linear in the
    number of support rows, predicting costs their number for each query row.

    The paper adds a latent variable for the task, which makes samples of functions
    coherent. It changes neither mean nor deviation of a row and needs a bound on the
    likelihood, so it is left out here, as is attention among support rows.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        backbone, ``train_split`` splits tasks. A squared error as its criterion gives
        way to the likelihood; any other criterion gets mean and standard deviation of
        each query row, ``(n_rows, 2)``.
    width : int, default=64
        Width of the code of a task, and of the layers of encoder and decoder.
    n_heads : int, default=8
        Heads of the attention; must divide `width`.
    n_shots : int or (int, int), default=5
        Support rows of a training episode, and of `score`; a pair is a range to draw
        from, which teaches how to predict from few rows as well as from many.
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
    learner_ : AttentiveNP
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
    CNPRegressor : One code for all query rows, at less cost.
    ConvCNPRegressor : One feature and tasks that are shifted copies of each other.

    References
    ----------
    .. [1] Kim, Mnih, Schwarz, Garnelo, Eslami, Rosenbaum, Vinyals and Teh. "Attentive
       neural processes", ICLR 2019.

    Examples
    --------
    Learn what sine waves have in common, then one more from ten points of it.

    >>> from skmeta import AttentiveNPRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(200, random_state=0)
    >>> meta = AttentiveNPRegressor(n_shots=(3, 10), random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = meta.adapt(X[:10], y[:10]).predict(X[10:], return_std=True)
    >>> mean.shape, std.shape
    ((10,), (10,))
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "width": COUNT,
        "n_heads": COUNT,
    }

    def __init__(
        self,
        estimator=None,
        *,
        width=64,
        n_heads=8,
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
        self.width = width
        self.n_heads = n_heads
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
        if self.width % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} must be a divisor of width={self.width}."
            )
        return AttentiveNP(backbone, n_features, self.width, self.n_heads)


class ConvCNPRegressor(NeuralProcessMixin, NeuralMetaEstimator):
    """Convolutional conditional neural process (ConvCNP) along a line.

    For functions of one feature, as time or place, whose tasks look alike wherever
    they are on it. Support rows are put on a grid, a convolutional network fills in the
    rest, and predictions are read off between grid points [1]_. It is equivariant to
    translations: when all rows of a task move by a grid step, so do its predictions.
    It therefore extrapolates to places where no training row was, and predicts a
    constant where no support row is near.

    Rows with several features are placed on a line by a learned linear projection,
    which suits tasks that vary along one direction only; `AttentiveNPRegressor`
    has no such limit.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Module that gives the position of a row on the line, in units of the features,
        or the net that trains it. None takes a single feature as it is, and a linear
        projection of several. All parameters of a net keep their meaning:
        ``batch_size`` is the number of tasks of a step, ``module__*`` go to the
        module, ``train_split`` splits tasks. A squared error as its criterion gives
        way to the likelihood; any other criterion gets mean and standard deviation of
        each query row, ``(n_rows, 2)``.
    width : int, default=16
        Channels of the convolutional network.
    n_layers : int, default=4
        Layers of the network, whose reach doubles with each: ``2 * (2 ** n_layers -
        1)`` grid points to either side.
    resolution : float, default=16
        Grid points for each standard deviation of the feature in the training rows (of
        several features, the root mean square of their deviations). Rows closer than a
        grid step are not told apart.
    n_shots : int or (int, int), default=5
        Support rows of a training episode, and of `score`; a pair is a range to draw
        from, which teaches how to predict from few rows as well as from many.
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
    learner_ : ConvCNP
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
    AttentiveNPRegressor : Any number of features.
    DeepKernelRegressor : A stationary kernel is equivariant too.

    References
    ----------
    .. [1] Gordon, Bruinsma, Foong, Requeima, Dubois and Turner. "Convolutional
       conditional neural processes", ICLR 2020.

    Examples
    --------
    Learn what sine waves have in common, then one more from ten points of it.

    >>> from skmeta import ConvCNPRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(200, random_state=0)
    >>> meta = ConvCNPRegressor(n_shots=(3, 10), random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> mean, std = meta.adapt(X[:10], y[:10]).predict(X[10:], return_std=True)
    >>> mean.shape, std.shape
    ((10,), (10,))
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "width": COUNT,
        "n_layers": COUNT,
        "resolution": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        width=16,
        n_layers=4,
        resolution=16,
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
        self.width = width
        self.n_layers = n_layers
        self.resolution = resolution
        self.n_shots = n_shots
        self.n_queries = n_queries
        self.n_episodes = n_episodes
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Of the ten features of scikit-learn's check, a line can show only one.
        tags.regressor_tags.poor_score = True
        return tags

    @staticmethod
    def _default_backbone(feature_shape):
        if np.prod(feature_shape) == 1:
            return nn.Flatten, {}
        return MLP, {"hidden": (1,), "activation": nn.Identity}

    def _start(self, table, classes):
        super()._start(table, classes)
        rows = table.X.reshape(len(table.X), -1)
        self._spread = float(np.sqrt(rows.var(axis=0).mean())) or 1.0

    def _build_learner(self, backbone, n_features):
        if n_features != 1:
            raise ValueError(
                "ConvCNPRegressor places rows on a line, so its backbone must give one "
                f"number for each row; it gives {n_features}. estimator=None takes the "
                "feature itself, or a linear projection of several."
            )
        spacing = self._spread / self.resolution
        return ConvCNP(backbone, spacing, self.width, self.n_layers)
