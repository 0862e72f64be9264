"""Matching networks as an estimator."""

from __future__ import annotations

from sklearn.utils._param_validation import StrOptions

from ..base import MetaClassifierMixin, NeuralMetaEstimator
from ..base._neural import COUNT
from ._matching_learner import MatchingNet


class MatchingNetClassifier(MetaClassifierMixin, NeuralMetaEstimator):
    """Matching network: the support rows vote, similar ones with more weight.

    A backbone is trained over many episodes such that, in its output, attention to
    the support rows of an episode finds the class of a query row [1]_. Where a class
    is no single cloud, its rows say more than their mean; with one row per class it is
    a prototypical network with cosines. The state of a task grows with its rows.

    Where all tasks share their classes, each class also has a learned prior row,
    which votes in every task and predicts for those of which no row is known. The
    full-context embeddings of the paper, which depend on the order of the support
    rows, are left out.

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
    metric : {"cosine", "euclidean"}, default="cosine"
        Attention by cosines with a learned scale, as published, or by negative squared
        distances, which usually take less training.
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
    learner_ : MatchingNet
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
    ProtoNetClassifier : Class means instead of all rows.

    References
    ----------
    .. [1] Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra. "Matching networks
       for one shot learning", NeurIPS 2016.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import MatchingNetClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = MatchingNetClassifier(n_ways=3, metric="euclidean", random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.7
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "metric": [StrOptions({"cosine", "euclidean"})],
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
        metric="cosine",
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
        self.metric = metric
        self.label_space = label_space
        self.class_balanced = class_balanced
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return MatchingNet(backbone, n_features, self._n_shared_classes, self.metric)
