"""Implicit MAML as estimators."""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval

from ..base import MetaClassifierMixin, MetaRegressorMixin, NeuralMetaEstimator
from ..base._neural import COUNT
from ._implicit_learner import ImplicitMAML
from ._inner import ADAPT_STEPS, InnerLoopMixin


class ImplicitMAMLClassifier(InnerLoopMixin, MetaClassifierMixin, NeuralMetaEstimator):
    """Implicit MAML: an initialisation near which every task has a good model.

    The inner loop minimises the loss of the support rows plus a quadratic pull towards
    the initial weights. How that minimum moves with them follows from the implicit
    function theorem, so the meta-gradient needs the end of the inner loop only, and
    conjugate gradients to solve a linear system [1]_: memory does not grow with the
    number of inner steps. The meta-gradient is that of the minimum; too few inner
    steps, which stop short of it, make it inexact.

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
    inner_lr : float, default=0.1
        Step size of the inner loop. It is halved for a task whenever a step would
        raise its loss, so that the inner loop does not diverge.
    inner_steps : int, default=10
        Gradient steps on the support rows while training.
    adapt_steps : int or "auto", default=None
        Gradient steps of `adapt`. None takes `inner_steps`; where `fit` saw a single
        task, so that there is no initialisation to profit from, 100. "auto" takes what
        `fit` found to work on tasks with as many support rows, perhaps none.
    proximal : float, default=0.5
        Strength of the quadratic pull towards the initial weights.
    cg_steps : int, default=5
        Steps of conjugate gradients, each a product with the Hessian. With none the
        meta-gradient is of first order.
    transductive : bool, default=False
        Whether batch norm takes the statistics of the query rows themselves. By
        default it takes those of the support rows, so that a prediction does not
        depend on which other rows are predicted with it.
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
    learner_ : ImplicitMAML
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
    MAMLClassifier : Differentiates through the inner loop.

    References
    ----------
    .. [1] Rajeswaran, Finn, Kakade and Levine. "Meta-learning with implicit
       gradients", NeurIPS 2019.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import ImplicitMAMLClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = ImplicitMAMLClassifier(n_ways=3, n_episodes=16, random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.5
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
        "inner_lr": [Interval(Real, 0, None, closed="neither")],
        "inner_steps": [Interval(Integral, 1, None, closed="left")],
        "adapt_steps": ADAPT_STEPS,
        "proximal": [Interval(Real, 0, None, closed="neither")],
        "cg_steps": [Interval(Integral, 0, None, closed="left")],
        "transductive": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_ways=5,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        inner_lr=0.1,
        inner_steps=10,
        adapt_steps=None,
        proximal=0.5,
        cg_steps=5,
        transductive=False,
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
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        self.cg_steps = cg_steps
        self.transductive = transductive
        self.label_space = label_space
        self.class_balanced = class_balanced
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return ImplicitMAML(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="classification",
            **self._inner_loop(),
            proximal=self.proximal,
            cg_steps=self.cg_steps,
            transductive=self.transductive,
        )


class ImplicitMAMLRegressor(InnerLoopMixin, MetaRegressorMixin, NeuralMetaEstimator):
    """Implicit MAML: an initialisation near which every task has a good model.

    The inner loop minimises the loss of the support rows plus a quadratic pull towards
    the initial weights. How that minimum moves with them follows from the implicit
    function theorem, so the meta-gradient needs the end of the inner loop only, and
    conjugate gradients to solve a linear system [1]_: memory does not grow with the
    number of inner steps. The meta-gradient is that of the minimum; too few inner
    steps, which stop short of it, make it inexact.

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
    inner_lr : float, default=0.1
        Step size of the inner loop. It is halved for a task whenever a step would
        raise its loss, so that the inner loop does not diverge.
    inner_steps : int, default=10
        Gradient steps on the support rows while training.
    adapt_steps : int or "auto", default=None
        Gradient steps of `adapt`. None takes `inner_steps`; where `fit` saw a single
        task, so that there is no initialisation to profit from, 100. "auto" takes what
        `fit` found to work on tasks with as many support rows, perhaps none.
    proximal : float, default=0.5
        Strength of the quadratic pull towards the initial weights.
    cg_steps : int, default=5
        Steps of conjugate gradients, each a product with the Hessian. With none the
        meta-gradient is of first order.
    transductive : bool, default=False
        Whether batch norm takes the statistics of the query rows themselves. By
        default it takes those of the support rows, so that a prediction does not
        depend on which other rows are predicted with it.
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
    learner_ : ImplicitMAML
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
    MAMLRegressor : Differentiates through the inner loop.

    References
    ----------
    .. [1] Rajeswaran, Finn, Kakade and Levine. "Meta-learning with implicit
       gradients", NeurIPS 2019.

    Examples
    --------
    >>> from skmeta import ImplicitMAMLRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(100, random_state=0)
    >>> meta = ImplicitMAMLRegressor(n_episodes=16, random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "inner_lr": [Interval(Real, 0, None, closed="neither")],
        "inner_steps": [Interval(Integral, 1, None, closed="left")],
        "adapt_steps": ADAPT_STEPS,
        "proximal": [Interval(Real, 0, None, closed="neither")],
        "cg_steps": [Interval(Integral, 0, None, closed="left")],
        "transductive": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        inner_lr=0.1,
        inner_steps=10,
        adapt_steps=None,
        proximal=0.5,
        cg_steps=5,
        transductive=False,
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
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        self.cg_steps = cg_steps
        self.transductive = transductive
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return ImplicitMAML(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="regression",
            **self._inner_loop(),
            proximal=self.proximal,
            cg_steps=self.cg_steps,
            transductive=self.transductive,
        )
