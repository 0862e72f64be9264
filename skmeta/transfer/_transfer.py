"""Transfer learning as estimators: pre-train on all tasks, fine-tune on each."""

from __future__ import annotations

from sklearn.utils._param_validation import HasMethods, StrOptions

from ..base import MetaClassifierMixin, MetaRegressorMixin
from ._base import FineTuneMetaEstimator
from ._sklearn_head import SklearnHeadMixin


class TransferClassifier(MetaClassifierMixin, SklearnHeadMixin, FineTuneMetaEstimator):
    """Transfer learning: pre-train on the rows of all tasks, fine-tune on each.

    A network learns the classes of all training tasks at once, as any classifier does.
    A new task then trains a head on its features, or everything, from there. It is
    what most people do today, and with good features often hard to beat [2]_; an
    episodic learner should be compared with it.

    Where all tasks share their classes, a task starts from the pre-trained head, which
    also predicts for tasks of which no row is known. Where labels exist only inside
    their task, the network learns all pairs of task and class, and a new task gets a
    head of its own.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of rows of a step, ``module__*`` go to the
        backbone, ``train_split`` splits rows.
    head : {"linear", "cosine"} or estimator, default="linear"
        Head of a task: linear; cosines with a learned scale, in pre-training too
        (Baseline++ [2]_); or any scikit-learn classifier, cloned for each task and
        fitted on frozen features. The latter has no use for `adapted`, `inner_lr`,
        `adapt_steps` and `proximal`.
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
    MultiTaskClassifier : A head for each task already in pre-training.
    SimpleShotClassifier : The same training, then class means.
    MAMLClassifier : Learns a start that is good for fine-tuning.

    References
    ----------
    .. [1] Li, Grandvalet and Davoine. "Explicit inductive bias for transfer learning
       with convolutional networks", ICML 2018.
    .. [2] Chen, Liu, Kira, Wang and Huang. "A closer look at few-shot
       classification", ICLR 2019.

    Examples
    --------
    Train on six digits, then learn the other four from five images each.

    >>> from skmeta import TransferClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = TransferClassifier(random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.6
    True
    """

    _parameter_constraints: dict = {
        **FineTuneMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "head": [StrOptions({"linear", "cosine"}), HasMethods(["fit", "predict"])],
    }

    def __init__(
        self,
        estimator=None,
        *,
        head="linear",
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
        self.head = head
        self.adapted = adapted
        self.inner_lr = inner_lr
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        self.n_shots = n_shots
        self.label_space = label_space
        self.support = support
        self.group_column = group_column
        self.random_state = random_state


class TransferRegressor(MetaRegressorMixin, SklearnHeadMixin, FineTuneMetaEstimator):
    """Transfer learning: pre-train on the rows of all tasks, fine-tune on each.

    A network learns the rows of all training tasks at once, as one pooled model. A new
    task then trains its head, or everything, from there. A task of which no row is
    known is predicted by the pooled model.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images. All parameters of a net keep their meaning:
        ``batch_size`` is the number of rows of a step, ``module__*`` go to the
        backbone, ``train_split`` splits rows.
    head : {"linear"} or estimator, default="linear"
        Head of a task: linear, or any scikit-learn regressor, cloned for each task and
        fitted on frozen features and standardised targets. The latter has no use for
        `adapted`, `inner_lr`, `adapt_steps` and `proximal`.
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
    MultiTaskRegressor : A head for each task already in pre-training.
    RidgeHeadRegressor : Features that are trained for heads fitted to few rows.

    References
    ----------
    .. [1] Li, Grandvalet and Davoine. "Explicit inductive bias for transfer learning
       with convolutional networks", ICML 2018.

    Examples
    --------
    >>> from skmeta import TransferRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks = make_regression_tasks(50, 20, random_state=0)
    >>> meta = TransferRegressor(random_state=0).fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> meta.adapt(X[:10], y[:10]).predict(X[10:]).shape
    (10,)
    """

    _parameter_constraints: dict = {
        **FineTuneMetaEstimator._parameter_constraints,
        "head": [StrOptions({"linear"}), HasMethods(["fit", "predict"])],
    }

    def __init__(
        self,
        estimator=None,
        *,
        head="linear",
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
        self.head = head
        self.adapted = adapted
        self.inner_lr = inner_lr
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        self.n_shots = n_shots
        self.support = support
        self.group_column = group_column
        self.random_state = random_state
