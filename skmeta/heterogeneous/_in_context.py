"""In-context learners: a transformer that is shown the support rows."""

from __future__ import annotations

from numbers import Integral

from sklearn.utils._param_validation import Interval

from ..base import MetaClassifierMixin
from ..base._neural import COUNT
from ..base._states import MAX_STATE_BYTES
from ._base import TableMetaEstimator
from ._in_common import TableClassifierMixin, TableRegressorMixin
from ._in_context_learner import RowAndColumnTransformer


class _InContext(TableMetaEstimator):
    """What both in-context learners share."""

    _cell_width = 2
    # A step costs ten times that of a perceptron; smaller batches teach as much.
    _net_settings = {"batch_size": 4, "max_epochs": 10, "lr": 3e-3}

    _parameter_constraints: dict = {
        **TableMetaEstimator._parameter_constraints,
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
    }

    def _build_learner(self, backbone, n_features):
        options = {}
        if self._is_classifier:
            options["n_classes"] = self._n_shared_classes
            options["class_balanced"] = self.class_balanced
        return RowAndColumnTransformer(
            backbone,
            n_features,
            self.n_layers,
            self.n_heads,
            classifier=self._is_classifier,
            n_names=self._n_names,
            **options,
        )

    def _cells(self, table):
        return (1 + table.X.shape[1]) * self.learner_.width * 4

    def _keeps_state(self, support):
        n_cells = len(support.X) * (1 + support.X.shape[1])
        n_numbers = n_cells * self.learner_.width * (1 + self.n_layers)
        return n_numbers * 8 <= MAX_STATE_BYTES


class InContextClassifier(TableClassifierMixin, _InContext):
    """A small transformer that reads the support rows and labels the query rows.

    It corrects a mixture of linear and kernel ridge regressions on the support rows,
    weighed by how well each tells rows that are left out; what suits how many rows and
    columns is learned over tasks. Cells attend to the other columns of their row, and
    to the support rows of their column; in the end a query row takes the votes of the
    support rows that it is like, column by column. What classification *is* has been
    learned over many tasks, in the manner of TabPFN [1]_, but on tasks of your own and
    on ones made of unlabelled tables [2]_ (`SelfMadeTasks`). Adapting is one forward
    pass and eight linear systems. Query rows do not see each other.

    Where labels mean the same in all tasks, the votes start from a logistic regression
    of all training rows on the columns that are known by name, where a column that a
    task lacks counts as average.

    Columns are matched by name where they have names, and by position in arrays that
    are all of one width; all others are unknown, and told apart only by what their
    support rows say. A new task may lack columns or bring new ones, and NaN is a
    missing value. In long format, a column that is all NaN in a task is one it does not
    have.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it: maps cells ``(n_cells, 2)``, a value and
        whether there is one, to as many features as the transformer is wide, a multiple
        of `n_heads`. None is an `MLP` of one layer of 32. All parameters of a net keep
        their meaning: ``batch_size`` is the number of tasks of a step, ``module__*`` go
        to the backbone, ``train_split`` splits tasks. Without a net of your own it
        takes 4 tasks a step and 10 epochs.
    n_layers : int, default=2
        Layers of the transformer.
    n_heads : int, default=4
        Heads of its attention.
    use_names : bool, default=True
        Learn a vector for each column that has a name (or, in arrays that are all of
        one width, a position), and what it says of shared classes in all tasks, so that
        it is known wherever it comes again. False treats all columns as unknown: then
        their order changes no prediction.
    n_ways : int or (int, int), default=5
        Classes of a training episode, where labels are per task; a pair is a range to
        draw from. `adapt` takes any number of classes.
    n_shots : int or (int, int), default=5
        Support rows per class of a training episode, and of `score`; a pair is a range
        to draw from.
    n_queries : int or (int, int), default=15
        Query rows per class of a training episode.
    n_episodes : int, default=None
        Episodes of an epoch. None shows about as many rows as there are, in at least
        5 steps.
    label_space : {"auto", "shared", "per_task"}, default="auto"
        Whether a label means the same in every task (churn yes or no) or exists only
        inside its task (classes of another table). "auto" takes labels as shared when
        the median task has at least half of all classes.
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
    learner_ : RowAndColumnTransformer
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
        Number of columns seen during fit, in any task.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of all tasks of fit, where `X` has names that are all
        strings.

    See Also
    --------
    InContextRegressor : The same for numbers.
    HeterogeneousClassifier : Pooled descriptions and a closed-form head; faster.
    SelfMadeTasks : Tasks from tables without labels.

    References
    ----------
    .. [1] Hollmann et al. "Accurate predictions on small data with a tabular foundation
       model", Nature 2025.
    .. [2] Nam et al. "STUNT: few-shot tabular learning with self-generated tasks from
       unlabeled tables", ICLR 2023.

    Examples
    --------
    Pairs of the lengths and widths of iris, each pair a task; then all four at once.

    >>> import pandas as pd
    >>> from sklearn.datasets import load_iris
    >>> from skmeta import InContextClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> tasks = [(X.iloc[::2, [j, (j + 1) % 4]], y[::2]) for j in range(4)]
    >>> meta = InContextClassifier(random_state=0).fit(tasks)
    >>> meta = meta.adapt(X[1::10], y[1::10])
    >>> bool((meta.predict(X[3::10]) == y[3::10]).mean() > 0.8)
    True
    """

    _parameter_constraints: dict = {
        **_InContext._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_layers=2,
        n_heads=4,
        use_names=True,
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
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.use_names = use_names
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


class InContextRegressor(TableRegressorMixin, _InContext):
    """A small transformer that reads the support rows and completes the query rows.

    It corrects a mixture of linear and kernel ridge regressions on the support rows,
    weighed by how well each tells rows that are left out; what suits how many rows and
    columns is learned over tasks. Cells attend to the other columns of their row, and
    to the support rows of their column; in the end a query row takes the mean of the
    support rows that it is like, column by column. What regression *is* has been
    learned over many tasks, in the manner of TabPFN [1]_, but on tasks of your own and
    on ones made of unlabelled tables [2]_ (`SelfMadeTasks`). Adapting is one forward
    pass and eight linear systems. Query rows do not see each other.

    All of it starts from a ridge regression of all training rows on the columns that
    are known by name, where a column that a task lacks counts as average; what that
    leaves is brought to the level and spread of the support rows.

    Columns are matched by name where they have names, and by position in arrays that
    are all of one width; all others are unknown, and told apart only by what their
    support rows say. A new task may lack columns or bring new ones, and NaN is a
    missing value. In long format, a column that is all NaN in a task is one it does not
    have.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it: maps cells ``(n_cells, 2)``, a value and
        whether there is one, to as many features as the transformer is wide, a multiple
        of `n_heads`. None is an `MLP` of one layer of 32. All parameters of a net keep
        their meaning: ``batch_size`` is the number of tasks of a step, ``module__*`` go
        to the backbone, ``train_split`` splits tasks. Without a net of your own it
        takes 4 tasks a step and 10 epochs.
    n_layers : int, default=2
        Layers of the transformer.
    n_heads : int, default=4
        Heads of its attention.
    use_names : bool, default=True
        Learn a vector for each column that has a name (or, in arrays that are all of
        one width, a position), and the slope that tasks have in common there, so that
        it is known wherever it comes again. False treats all columns as unknown: then
        their order changes no prediction.
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
    learner_ : RowAndColumnTransformer
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
        Number of columns seen during fit, in any task.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of all tasks of fit, where `X` has names that are all
        strings.

    See Also
    --------
    HeterogeneousRegressor : Pooled descriptions and a closed-form head; faster.
    SelfMadeTasks : Tasks from tables without labels.

    References
    ----------
    .. [1] Hollmann et al. "Accurate predictions on small data with a tabular foundation
       model", Nature 2025.
    .. [2] Nam et al. "STUNT: few-shot tabular learning with self-generated tasks from
       unlabeled tables", ICLR 2023.

    Examples
    --------
    A column that training has not seen arrives with the new task.

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmeta import InContextRegressor
    >>> rng = np.random.default_rng(0)
    >>> def task(names):
    ...     X = pd.DataFrame(rng.normal(size=(40, len(names))), columns=names)
    ...     return X, X.to_numpy() @ rng.normal(size=len(names))
    >>> tasks = [task(list(names)) for names in ("ab", "bc", "ac", "abc") * 2]
    >>> meta = InContextRegressor(n_shots=(5, 9), random_state=0).fit(tasks)
    >>> X, y = task(["a", "new"])
    >>> meta.adapt(X[:20], y[:20]).predict(X[20:]).shape
    (20,)
    """

    def __init__(
        self,
        estimator=None,
        *,
        n_layers=2,
        n_heads=4,
        use_names=True,
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
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.use_names = use_names
        self.n_shots = n_shots
        self.n_queries = n_queries
        self.n_episodes = n_episodes
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state
