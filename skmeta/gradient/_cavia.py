"""Context adaptation as estimators."""

from __future__ import annotations

from numbers import Integral, Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ..base import MetaClassifierMixin, MetaRegressorMixin, NeuralMetaEstimator
from ..base._neural import COUNT
from ..modules import MLP
from ._cavia_learner import CAVIA, widen
from ._inner import ADAPT_STEPS, InnerLoopMixin


class ContextMixin:
    """The backbone sees a context beside each row."""

    @staticmethod
    def _default_backbone(shape):
        # That for images has batch norm.
        return MLP, {}

    def _as_input(self, X):
        return widen(X.double()[None], torch.zeros(1, self.n_context))[0]


class CAVIAClassifier(
    ContextMixin, InnerLoopMixin, MetaClassifierMixin, NeuralMetaEstimator
):
    """CAVIA: gradient steps on a few numbers that the backbone sees beside each row.

    All weights are shared by the tasks. What a few steps of gradient descent on the
    support rows change is a context, zero at first, that is appended to every row; the
    outer loop differentiates through those steps [1]_. Few rows can hardly overfit so
    few numbers, and a state is as small as they are, so that those of a large fleet
    are kept rather than computed anew.

    Where labels are per task, the head are the class means of features under a context
    of zero, and the steps move the features away from there.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds an `MLP`. It gets rows with
        `n_context` more columns, images with as many more channels, and must not
        have batch norm, which would take out what all rows of a task share. All
        parameters of a net keep their meaning: ``batch_size`` is the number of tasks
        of a step, ``module__*`` go to the backbone, ``train_split`` splits tasks.
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
    n_context : int, default=5
        Numbers in the context.
    inner_lr : float, sequence of float, {"learned", "per_layer", "curvature", \
            "alfa"}, default=1.0
        Step size of the inner loop, as in `MAMLClassifier`.
    inner_steps : int, default=2
        Gradient steps on the support rows while training.
    adapt_steps : int or "auto", default=None
        Gradient steps of `adapt`. None takes `inner_steps`; where `fit` saw a single
        task, so that there is no initialisation to profit from, 100. "auto" takes what
        `fit` found to work on tasks with as many support rows, perhaps none.
    first_order : bool, default=False
        Leave out second derivatives.
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
    learner_ : CAVIA
        The trained Torch module, frozen.
    net_ : skorch.NeuralNet
        The net that trained it.
    history_ : skorch.History
        Losses and seconds of every epoch.
    adapt_steps_ : dict of float to int or None
        Steps for each number of support rows (per class), where `adapt_steps` is
        "auto": those that worked on the validation tasks, if there are, else on the
        training tasks.
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
    MAMLClassifier : Adapts the weights.

    References
    ----------
    .. [1] Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson. "Fast context adaptation
       via meta-learning", ICML 2019.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import CAVIAClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = CAVIAClassifier(n_ways=3, random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.6
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
        "n_context": [Interval(Integral, 1, None, closed="left")],
        "inner_lr": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"learned", "per_layer", "curvature", "alfa"}),
            "array-like",
        ],
        "inner_steps": [Interval(Integral, 1, None, closed="left")],
        "adapt_steps": ADAPT_STEPS,
        "first_order": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_ways=5,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        n_context=5,
        inner_lr=1.0,
        inner_steps=2,
        adapt_steps=None,
        first_order=False,
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
        self.n_context = n_context
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.first_order = first_order
        self.label_space = label_space
        self.class_balanced = class_balanced
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return CAVIA(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="classification",
            n_context=self.n_context,
            **self._inner_loop(),
            first_order=self.first_order,
        )


class CAVIARegressor(
    ContextMixin, InnerLoopMixin, MetaRegressorMixin, NeuralMetaEstimator
):
    """CAVIA: gradient steps on a few numbers that the backbone sees beside each row.

    All weights are shared by the tasks. What a few steps of gradient descent on the
    support rows change is a context, zero at first, that is appended to every row; the
    outer loop differentiates through those steps [1]_. Few rows can hardly overfit so
    few numbers, and a state is as small as they are, so that those of a large fleet
    are kept rather than computed anew.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds an `MLP`. It gets rows with
        `n_context` more columns, images with as many more channels, and must not
        have batch norm, which would take out what all rows of a task share. All
        parameters of a net keep their meaning: ``batch_size`` is the number of tasks
        of a step, ``module__*`` go to the backbone, ``train_split`` splits tasks.
    n_shots : int or (int, int), default=5
        Support rows of a training episode, and of `score`; a pair is a range to draw
        from.
    n_queries : int or (int, int), default=15
        Query rows of a training episode.
    n_episodes : int, default=None
        Episodes of an epoch. None shows about as many rows as there are, in at least
        5 steps.
    n_context : int, default=5
        Numbers in the context.
    inner_lr : float, sequence of float, {"learned", "per_layer", "curvature", \
            "alfa"}, default=1.0
        Step size of the inner loop, as in `MAMLRegressor`.
    inner_steps : int, default=2
        Gradient steps on the support rows while training.
    adapt_steps : int or "auto", default=None
        Gradient steps of `adapt`. None takes `inner_steps`; where `fit` saw a single
        task, so that there is no initialisation to profit from, 100. "auto" takes what
        `fit` found to work on tasks with as many support rows, perhaps none.
    first_order : bool, default=False
        Leave out second derivatives.
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
    learner_ : CAVIA
        The trained Torch module, frozen.
    net_ : skorch.NeuralNet
        The net that trained it.
    history_ : skorch.History
        Losses and seconds of every epoch.
    adapt_steps_ : dict of float to int or None
        Steps for each number of support rows (per class), where `adapt_steps` is
        "auto": those that worked on the validation tasks, if there are, else on the
        training tasks.
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
    MAMLRegressor : Adapts the weights.

    References
    ----------
    .. [1] Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson. "Fast context adaptation
       via meta-learning", ICML 2019.

    Examples
    --------
    >>> from skmeta import CAVIARegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(100, random_state=0)
    >>> meta = CAVIARegressor(n_shots=10, n_queries=10, random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "n_context": [Interval(Integral, 1, None, closed="left")],
        "inner_lr": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"learned", "per_layer", "curvature", "alfa"}),
            "array-like",
        ],
        "inner_steps": [Interval(Integral, 1, None, closed="left")],
        "adapt_steps": ADAPT_STEPS,
        "first_order": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        n_context=5,
        inner_lr=1.0,
        inner_steps=2,
        adapt_steps=None,
        first_order=False,
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
        self.n_context = n_context
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.first_order = first_order
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return CAVIA(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="regression",
            n_context=self.n_context,
            **self._inner_loop(),
            first_order=self.first_order,
        )
