"""Meta-learning by gradient descent as estimators."""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

from ..base import MetaClassifierMixin, MetaRegressorMixin, NeuralMetaEstimator
from ..base._neural import COUNT
from ._inner import ADAPT_STEPS, InnerLoopMixin
from ._maml_learner import MAML


class MAMLClassifier(InnerLoopMixin, MetaClassifierMixin, NeuralMetaEstimator):
    """Model-agnostic meta-learning: an initialisation that few gradient steps adapt.

    The outer loop differentiates through the inner one: it looks for weights of the
    backbone and its head from which a few steps of gradient descent on the support
    rows lead to a good model of the query rows [1]_. Adapting to a new task is those
    few steps.

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
    inner_lr : float, sequence of float, {"learned", "per_layer", "curvature", \
            "alfa"}, default=0.1
        Step size of the inner loop: one for all steps, or one per step (the last one
        is repeated). A name has it learned together with the initial weights, from
        0.1 on: "learned" one for each number of each parameter (Meta-SGD [2]_),
        "per_layer" one for each layer's weight or bias and step (MAML++ [6]_),
        "curvature" matrices that turn the gradient (Meta-Curvature [7]_), "alfa" a
        small net that sets step size and weight decay from what it sees of the task
        (ALFA [8]_).
    inner_steps : int, default=5
        Gradient steps on the support rows while training.
    adapt_steps : int or "auto", default=None
        Gradient steps of `adapt`. None takes `inner_steps`; where `fit` saw a single
        task, so that there is no initialisation to profit from, 100. "auto" takes what
        `fit` found to work on tasks with as many support rows, perhaps none.
    first_order : bool or int, default=False
        Leave out second derivatives: cheaper, often as good. A number leaves them out
        in that many first steps of training (MAML++ [6]_).
    multi_step_loss : int, default=0
        First steps of training in which the query loss after every inner step counts,
        equally to begin with, and then ever more the last (MAML++ [6]_). Of the
        earlier ones it is the mean cross-entropy, or squared error, whatever the
        criterion of the net.
    adapted : {"all", "head", "body"}, default="all"
        Which parameters the inner loop changes: all (MAML), the linear head (ANIL
        [4]_) or the backbone (BOIL [5]_).
    head_init : {"shared", "prototype"}, default="shared"
        Where labels are per task, the head starts the same for every class (at zero:
        what classes share cancels in the softmax), or from the class means of the
        support rows (Proto-MAML [3]_; always so with ``adapted="body"``, which a head
        that does not tell classes apart would give no gradient). Both take any number
        of classes, in any order. Has no effect on shared labels.
    proximal : float, default=0.0
        Strength of a quadratic pull towards the initial weights in the inner loop, so
        that many steps on few rows do not go astray.
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
    learner_ : MAML
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
    ReptileClassifier : Without derivatives of the inner loop.

    References
    ----------
    .. [1] Finn, Abbeel and Levine. "Model-agnostic meta-learning for fast adaptation
       of deep networks", ICML 2017.
    .. [2] Li, Zhou, Chen and Li. "Meta-SGD: learning to learn quickly for few-shot
       learning", arXiv:1707.09835, 2017.
    .. [3] Triantafillou et al. "Meta-Dataset: a dataset of datasets for learning to
       learn from few examples", ICLR 2020.
    .. [4] Raghu, Raghu, Bengio and Vinyals. "Rapid learning or feature reuse? Towards
       understanding the effectiveness of MAML", ICLR 2020.
    .. [5] Oh, Yoo, Kim and Yun. "BOIL: towards representation change for few-shot
       learning", ICLR 2021.
    .. [6] Antoniou, Edwards and Storkey. "How to train your MAML", ICLR 2019.
    .. [7] Park and Oliva. "Meta-curvature", NeurIPS 2019.
    .. [8] Baik, Choi, Choi, Kim and Lee. "Meta-learning with adaptive
       hyperparameters", NeurIPS 2020.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import MAMLClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = MAMLClassifier(n_ways=3, random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.6
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
        "inner_lr": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"learned", "per_layer", "curvature", "alfa"}),
            "array-like",
        ],
        "inner_steps": [Interval(Integral, 1, None, closed="left")],
        "adapt_steps": ADAPT_STEPS,
        "first_order": ["boolean", Interval(Integral, 0, None, closed="left")],
        "multi_step_loss": [Interval(Integral, 0, None, closed="left")],
        "adapted": [StrOptions({"all", "head", "body"})],
        "head_init": [StrOptions({"shared", "prototype"})],
        "proximal": [Interval(Real, 0, None, closed="left")],
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
        inner_steps=5,
        adapt_steps=None,
        first_order=False,
        multi_step_loss=0,
        adapted="all",
        head_init="shared",
        proximal=0.0,
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
        self.first_order = first_order
        self.multi_step_loss = multi_step_loss
        self.adapted = adapted
        self.head_init = head_init
        self.proximal = proximal
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
        return MAML(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="classification",
            **self._inner_loop(),
            first_order=self.first_order,
            multi_step_loss=self.multi_step_loss,
            adapt=self.adapted,
            head_init=self.head_init,
            proximal=self.proximal,
            transductive=self.transductive,
        )


class MAMLRegressor(InnerLoopMixin, MetaRegressorMixin, NeuralMetaEstimator):
    """Model-agnostic meta-learning: an initialisation that few gradient steps adapt.

    The outer loop differentiates through the inner one: it looks for weights of the
    backbone and its head from which a few steps of gradient descent on the support
    rows lead to a good model of the query rows [1]_. Adapting to a new task is those
    few steps.

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
    inner_lr : float, sequence of float, {"learned", "per_layer", "curvature", \
            "alfa"}, default=0.03
        Step size of the inner loop: one for all steps, or one per step (the last one
        is repeated). A name has it learned together with the initial weights, from
        0.1 on: "learned" one for each number of each parameter (Meta-SGD [2]_),
        "per_layer" one for each layer's weight or bias and step (MAML++ [5]_),
        "curvature" matrices that turn the gradient (Meta-Curvature [6]_), "alfa" a
        small net that sets step size and weight decay from what it sees of the task
        (ALFA [7]_).
    inner_steps : int, default=5
        Gradient steps on the support rows while training.
    adapt_steps : int or "auto", default=None
        Gradient steps of `adapt`. None takes `inner_steps`; where `fit` saw a single
        task, so that there is no initialisation to profit from, 100. "auto" takes what
        `fit` found to work on tasks with as many support rows, perhaps none.
    first_order : bool or int, default=False
        Leave out second derivatives: cheaper, often as good. A number leaves them out
        in that many first steps of training (MAML++ [5]_).
    multi_step_loss : int, default=0
        First steps of training in which the query loss after every inner step counts,
        equally to begin with, and then ever more the last (MAML++ [5]_). Of the
        earlier ones it is the mean cross-entropy, or squared error, whatever the
        criterion of the net.
    adapted : {"all", "head", "body"}, default="all"
        Which parameters the inner loop changes: all (MAML), the linear head (ANIL
        [3]_) or the backbone (BOIL [4]_).
    proximal : float, default=0.0
        Strength of a quadratic pull towards the initial weights in the inner loop, so
        that many steps on few rows do not go astray.
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
    learner_ : MAML
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
    RidgeHeadRegressor : A head that is solved exactly, often far better.

    References
    ----------
    .. [1] Finn, Abbeel and Levine. "Model-agnostic meta-learning for fast adaptation
       of deep networks", ICML 2017.
    .. [2] Li, Zhou, Chen and Li. "Meta-SGD: learning to learn quickly for few-shot
       learning", arXiv:1707.09835, 2017.
    .. [3] Raghu, Raghu, Bengio and Vinyals. "Rapid learning or feature reuse? Towards
       understanding the effectiveness of MAML", ICLR 2020.
    .. [4] Oh, Yoo, Kim and Yun. "BOIL: towards representation change for few-shot
       learning", ICLR 2021.
    .. [5] Antoniou, Edwards and Storkey. "How to train your MAML", ICLR 2019.
    .. [6] Park and Oliva. "Meta-curvature", NeurIPS 2019.
    .. [7] Baik, Choi, Choi, Kim and Lee. "Meta-learning with adaptive
       hyperparameters", NeurIPS 2020.

    Examples
    --------
    >>> from skmeta import MAMLRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks = make_sinusoid_tasks(100, random_state=0)
    >>> meta = MAMLRegressor(n_shots=10, n_queries=10, random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        "inner_lr": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"learned", "per_layer", "curvature", "alfa"}),
            "array-like",
        ],
        "inner_steps": [Interval(Integral, 1, None, closed="left")],
        "adapt_steps": ADAPT_STEPS,
        "first_order": ["boolean", Interval(Integral, 0, None, closed="left")],
        "multi_step_loss": [Interval(Integral, 0, None, closed="left")],
        "adapted": [StrOptions({"all", "head", "body"})],
        "proximal": [Interval(Real, 0, None, closed="left")],
        "transductive": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        inner_lr=0.03,
        inner_steps=5,
        adapt_steps=None,
        first_order=False,
        multi_step_loss=0,
        adapted="all",
        proximal=0.0,
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
        self.first_order = first_order
        self.multi_step_loss = multi_step_loss
        self.adapted = adapted
        self.proximal = proximal
        self.transductive = transductive
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return MAML(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="regression",
            **self._inner_loop(),
            first_order=self.first_order,
            multi_step_loss=self.multi_step_loss,
            adapt=self.adapted,
            proximal=self.proximal,
            transductive=self.transductive,
        )
