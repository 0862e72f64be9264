"""Learners of tables with columns of their own, with a closed-form head."""

from __future__ import annotations

from numbers import Integral

from sklearn.utils._param_validation import Interval

from ..base import MetaClassifierMixin
from ..base._neural import COUNT
from ._base import TableMetaEstimator
from ._heterogeneous_learner import ColumnSet
from ._in_common import TableClassifierMixin, TableRegressorMixin


class HeterogeneousClassifier(TableClassifierMixin, TableMetaEstimator):
    """Classifier of tables whose columns differ from task to task.

    A few labelled rows are read by a mixture of linear and kernel ridge regressions,
    weighed by how well each tells rows that are left out; what suits how many rows and
    columns is learned over many tasks. A network corrects the mixture: a column is
    described by its values and labels in the support rows, pooled over rows, a row by
    its cells, each seen beside the description of its column, pooled over columns, and
    neither order matters [1]_. Its head is ridge regression to one-hot labels, on that
    description and on the cells themselves, weighted by how much a column seems to
    tell. Adapting is two passes and a dozen linear systems.

    Where labels mean the same in all tasks, the network starts from a logistic
    regression of all training rows on the columns that are known by name, where a
    column that a task lacks counts as average.

    Columns are matched by name where they have names, and by position in arrays that
    are all of one width; all others are unknown, and told apart only by what their
    support rows say. A new task may lack columns or bring new ones, and NaN is a
    missing value. In long format, a column that is all NaN in a task is one it does not
    have.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it: maps cells ``(n_cells, 1 + width)``, a
        value and the code of its column, to features. None is an `MLP` of one layer.
        All parameters of a net keep their meaning: ``batch_size`` is the number of
        tasks of a step, ``module__*`` go to the backbone, ``train_split`` splits tasks.
    width : int, default=32
        Width of the code of a column.
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
    learner_ : ColumnSet
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
    InContextClassifier : A transformer that attends to rows and columns.
    HeterogeneousRegressor : The same for numbers.

    References
    ----------
    .. [1] Iwata and Kumagai. "Meta-learning from tasks with heterogeneous attribute
       spaces", NeurIPS 2020.

    Examples
    --------
    Petals and sepals of iris, each length and width a task; then all four at once.

    >>> import pandas as pd
    >>> from sklearn.datasets import load_iris
    >>> from skmeta import HeterogeneousClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> tasks = [(X.iloc[::2, [j]], y[::2]) for j in range(4)]
    >>> meta = HeterogeneousClassifier(random_state=0).fit(tasks)
    >>> meta = meta.adapt(X[1::10], y[1::10])
    >>> bool((meta.predict(X[3::10]) == y[3::10]).mean() > 0.8)
    True
    """

    _parameter_constraints: dict = {
        **TableMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "class_balanced": ["boolean"],
        "width": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        width=32,
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
        self.width = width
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

    @property
    def _cell_width(self):
        return 1 + self.width

    def _cells(self, table):
        return max(table.X.shape[1], 1) * max(self.width, 32)

    def _build_learner(self, backbone, n_features):
        return ColumnSet(
            backbone,
            n_features,
            self.width,
            self._n_shared_classes,
            classifier=True,
            n_names=self._n_names,
            class_balanced=self.class_balanced,
        )


class HeterogeneousRegressor(TableRegressorMixin, TableMetaEstimator):
    """Regressor on tables whose columns differ from task to task.

    A few rows with targets are read by a mixture of linear and kernel ridge
    regressions, weighed by how well each tells rows that are left out; what suits how
    many rows and columns is learned over many tasks. Averaged with it is what a network
    says: a column is described by its values and targets in the support rows, pooled
    over rows, a row by its cells, each seen beside the description of its column,
    pooled over columns, and neither order matters [1]_. Its head is ridge regression
    too, on that description and on the cells themselves, weighted by how much a column
    seems to tell. All of it starts from a ridge regression of all training rows on the
    columns that are known by name, where a column that a task lacks counts as average;
    what that leaves is brought to the level and spread of the support rows.

    Columns are matched by name where they have names, and by position in arrays that
    are all of one width; all others are unknown, and told apart only by what their
    support rows say. A new task may lack columns or bring new ones, and NaN is a
    missing value. In long format, a column that is all NaN in a task is one it does not
    have.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it: maps cells ``(n_cells, 1 + width)``, a
        value and the code of its column, to features. None is an `MLP` of one layer.
        All parameters of a net keep their meaning: ``batch_size`` is the number of
        tasks of a step, ``module__*`` go to the backbone, ``train_split`` splits tasks.
    width : int, default=32
        Width of the code of a column.
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
    learner_ : ColumnSet
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
    InContextRegressor : A transformer that attends to rows and columns.
    HeterogeneousClassifier : The same for classes.

    References
    ----------
    .. [1] Iwata and Kumagai. "Meta-learning from tasks with heterogeneous attribute
       spaces", NeurIPS 2020.

    Examples
    --------
    A column that training has not seen arrives with the new task.

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmeta import HeterogeneousRegressor
    >>> rng = np.random.default_rng(0)
    >>> def task(names):
    ...     X = pd.DataFrame(rng.normal(size=(40, len(names))), columns=names)
    ...     return X, X.to_numpy() @ rng.normal(size=len(names))
    >>> tasks = [task(list(names)) for names in ("ab", "bc", "ac", "abc") * 3]
    >>> meta = HeterogeneousRegressor(n_shots=(5, 20), random_state=0).fit(tasks)
    >>> X, y = task(["a", "new"])
    >>> meta.adapt(X[:20], y[:20]).predict(X[20:]).shape
    (20,)
    """

    _parameter_constraints: dict = {
        **TableMetaEstimator._parameter_constraints,
        "width": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        width=32,
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
        self.width = width
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

    @property
    def _cell_width(self):
        return 1 + self.width

    def _cells(self, table):
        return max(table.X.shape[1], 1) * max(self.width, 32)

    def _build_learner(self, backbone, n_features):
        return ColumnSet(
            backbone,
            n_features,
            self.width,
            n_names=self._n_names,
        )
