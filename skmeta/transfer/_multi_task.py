"""Joint training as estimators: one body, and a head for each task."""

from __future__ import annotations

from ..base import MetaClassifierMixin, MetaRegressorMixin
from ._base import FineTuneMetaEstimator


class MultiTaskClassifier(MetaClassifierMixin, FineTuneMetaEstimator):
    """Joint training: one body for all tasks, and a head for each of them.

    A network learns all training tasks at once; each has a head of its own, which tells
    its classes apart and no others. A new task gets a head fitted to its rows on the
    common features, or trains everything from there. The body is that of FedRep [2]_,
    which trains bodies and heads in turn where here they are trained together.

    Known tasks get heads in the same way, from their rows. Where all tasks share their
    classes, heads start from the mean of the training heads, which also predicts for
    tasks of which no row is known.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of rows of a step, ``module__*`` go to the
        backbone, ``train_split`` splits rows.
    adapted : {"head", "all"}, default="head"
        What a task trains: a head on frozen features, or the body as well.
    inner_lr : float, default=0.1
        Rate of the first of these steps; halved for a task whenever a step would raise
        its loss.
    adapt_steps : int, default=20
        Gradient steps on the support rows.
    proximal : float, default=0.01
        Strength of a quadratic pull back to the pre-trained weights (L2-SP [1]_).
    n_shots : int, default=5
        Support rows per class of a new task in `score`.
    label_space : {"auto", "shared", "per_task"}, default="auto"
        Whether a label means the same in every task (churn yes or no) or exists only
        inside its task (characters of an alphabet). "auto" takes labels as shared
        when the median task has at least half of all classes.
    support : {"random", "first"}, default="random"
        Which rows of a task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and batches.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Shared classes, or the classes of all tasks known so far.
    label_space_ : {"shared", "per_task"}
        What `label_space` came to.
    states_ : TaskStates
        Support and state of every known task.
    learner_ : FineTune
        The trained Torch module, frozen.
    net_ : skorch.NeuralNet
        The net that trained it.
    history_ : skorch.History
        Losses and seconds of every epoch.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    TransferClassifier : One head for all tasks in pre-training.
    RidgeHeadClassifier : Features that are trained for heads fitted to few rows.

    References
    ----------
    .. [1] Li, Grandvalet and Davoine. "Explicit inductive bias for transfer learning
       with convolutional networks", ICML 2018.
    .. [2] Collins, Hassani, Mokhtari and Shakkottai. "Exploiting shared
       representations for personalized federated learning", ICML 2021.

    Examples
    --------
    >>> from skmeta import MultiTaskClassifier
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> meta = MultiTaskClassifier(random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        **FineTuneMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
    }

    _heads_per_task = True

    def __init__(
        self,
        estimator=None,
        *,
        adapted="head",
        inner_lr=0.1,
        adapt_steps=20,
        proximal=0.01,
        n_shots=5,
        label_space="auto",
        support="random",
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.adapted = adapted
        self.inner_lr = inner_lr
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        self.n_shots = n_shots
        self.label_space = label_space
        self.support = support
        self.group_column = group_column
        self.random_state = random_state


class MultiTaskRegressor(MetaRegressorMixin, FineTuneMetaEstimator):
    """Joint training: one body for all tasks, and a head for each of them.

    A network learns all training tasks at once, each with a head of its own. A new
    task gets a head fitted to its rows on the common features, or trains everything
    from there. The body is that of FedRep [2]_, which trains bodies and heads in turn
    where here they are trained together.

    Known tasks get heads in the same way, from their rows. Heads start from the mean
    of the training heads, which also predicts for tasks of which no row is known.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of rows of a step, ``module__*`` go to the
        backbone, ``train_split`` splits rows.
    adapted : {"head", "all"}, default="head"
        What a task trains: a head on frozen features, or the body as well.
    inner_lr : float, default=0.1
        Rate of the first of these steps; halved for a task whenever a step would raise
        its loss.
    adapt_steps : int, default=20
        Gradient steps on the support rows.
    proximal : float, default=0.01
        Strength of a quadratic pull back to the pre-trained weights (L2-SP [1]_).
    n_shots : int, default=5
        Support rows of a new task in `score`.
    support : {"random", "first"}, default="random"
        Which rows of a task are support in `score`: a random draw, or the first in
        row order, as the history of a new user would be.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights and batches.

    Attributes
    ----------
    states_ : TaskStates
        Support and state of every known task.
    learner_ : FineTune
        The trained Torch module, frozen.
    net_ : skorch.NeuralNet
        The net that trained it.
    history_ : skorch.History
        Losses and seconds of every epoch.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    TransferRegressor : One head for all tasks in pre-training.
    RidgeHeadRegressor : Features that are trained for heads fitted to few rows.

    References
    ----------
    .. [1] Li, Grandvalet and Davoine. "Explicit inductive bias for transfer learning
       with convolutional networks", ICML 2018.
    .. [2] Collins, Hassani, Mokhtari and Shakkottai. "Exploiting shared
       representations for personalized federated learning", ICML 2021.

    Examples
    --------
    >>> from skmeta import MultiTaskRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> meta = MultiTaskRegressor(random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        **FineTuneMetaEstimator._parameter_constraints,
    }

    _heads_per_task = True

    def __init__(
        self,
        estimator=None,
        *,
        adapted="head",
        inner_lr=0.1,
        adapt_steps=20,
        proximal=0.01,
        n_shots=5,
        support="random",
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.adapted = adapted
        self.inner_lr = inner_lr
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column
        self.random_state = random_state
