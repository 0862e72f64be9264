"""Prototypes in two spaces as an estimator."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..base import MetaClassifierMixin, NeuralMetaEstimator
from ..base._neural import COUNT
from ..base._weights import WeightedSupportMixin
from ..outer_loop import EpisodeDataset, row_dtype, seeded
from ._dual_learner import Centred, DualProtoNet, TfIdf
from ._dual_mixture import learn_mixture

#: Share of the tasks (of the classes of a pool) that the weights are learned on.
_HELD_OUT = 0.3
#: Episodes to learn them from: meta-batches of 16, and a key apart from training.
_N_BATCHES, _KEY = 20, 2**42


class DualProtoNetClassifier(
    WeightedSupportMixin, MetaClassifierMixin, NeuralMetaEstimator
):
    """Nearest class mean in a learned embedding and in the rows as they are.

    A prototypical network [1]_ learns what tells the training classes apart, and may
    miss what tells new ones apart: a word that no training text had, say. The rows as
    they are miss nothing and know nothing. This learner adds up the logits of both,
    with weights for each number of shots that are learned on tasks, or classes, held
    out from the training of a first network; a second one is then trained on all.
    `partial_fit` needs no first network: it judges on what is new before training on
    it, and what was learned of words, features and weights goes on being learned.

    Rows of token ids are compared by TF-IDF: cosines to the mean term weights of a
    class, where n-grams that tokens bring along are terms as well (``n_grams`` of
    `TokenSequences`). All other rows are compared by cosines of standardised features.

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
    refine : int, default=0
        Steps of soft k-means in `predict` that let the query rows of a task join its
        class means in both spaces [2]_, with the probabilities that both give together.
        A prediction then depends on the other rows of its task that are predicted with
        it; with 0 it does not. Training takes no such steps.
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
    learner_ : DualProtoNet
        The trained Torch module, frozen; its ``mixture`` holds the weights.
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
    ProtoNetClassifier : The embedding alone, in half the time.

    References
    ----------
    .. [1] Snell, Swersky and Zemel. "Prototypical networks for few-shot learning",
       NeurIPS 2017.
    .. [2] Ren et al. "Meta-learning for semi-supervised few-shot classification",
       ICLR 2018.

    Examples
    --------
    Meta-train on six digits, then learn the other four from five images each.

    >>> from skmeta import DualProtoNetClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = DualProtoNetClassifier(n_ways=3, random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.8
    True
    """

    _parameter_constraints: dict = {
        **NeuralMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "n_ways": COUNT,
        "refine": [Interval(Integral, 0, None, closed="left")],
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
        refine=0,
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
        self.refine = refine
        self.label_space = label_space
        self.class_balanced = class_balanced
        self.support = support
        self.augment = augment
        self.task_sampler = task_sampler
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        no_ids = torch.empty(0, dtype=torch.int64)
        embeds = row_dtype(no_ids, backbone.modules()) is None
        # Integers are token ids only to a backbone that embeds them.
        if embeds and self._n_ids is not None:
            raw = TfIdf(self._n_ids)
        else:
            raw = Centred(int(np.prod(self._feature_shape)))
        return DualProtoNet(
            backbone, n_features, raw, self._n_shared_classes, self.refine
        )

    def _train(self, dataset, resume):
        X = dataset.sampler.table.X
        if not resume:
            self._n_ids = int(X.max()) + 1 if X.dtype.kind in "iu" else None
        super()._train(dataset, resume)

    def _meta_fit(self, table, *, resume, classes=None):
        self._unseen = self._unseen_units(table) if resume else None
        return super()._meta_fit(table, resume=resume, classes=classes)

    def _unseen_units(self, table):
        """Which tasks, or classes of a pool, no training has shown before."""
        unseen = np.array([task not in self.states_ for task in table.ids])
        if self.label_space_ == "shared" or table.n_tasks > 1:
            return unseen
        labels = np.unique(table.y)
        if unseen[0]:
            return np.ones(len(labels), dtype=bool)
        block, place = self.states_[table.ids[0]]
        return ~np.isin(labels, block.support.take([place]).y)

    def _calibrate(self, learner, dataset, before):
        table = dataset.sampler.table
        learner.learn_raw(torch.from_numpy(table.X), torch.from_numpy(table.y))
        first, units = self._judge(dataset, before)
        if first is not None:
            first.raw = learner.raw
            if first.shared:
                first.raw_prior = learner.raw_prior
            episodes = list(self._held_out(first, dataset.sampler, units))
            if episodes:  # none where all of them diverged
                learn_mixture(learner, episodes, len(units))
        # In the precision of the net, which a pickled estimator is rebuilt from.
        for learned in learner.buffers():
            learned.copy_(learned.float())

    def _judge(self, dataset, before):
        """A learner, and tasks (classes of a pool) that its embedding has not seen.

        Going on with training, that is the learner as it was, and what is new.
        """
        if before is not None:
            units = dataset.units[self._unseen[dataset.units]]
            return (copy.deepcopy(before), units) if len(units) > 1 else (None, None)
        units = np.random.default_rng(self._seed).permutation(dataset.units)
        n_held_out = round(_HELD_OUT * len(units))
        if n_held_out < 2 or len(units) - n_held_out < 2:
            return None, None
        rest = EpisodeDataset(dataset.sampler, self.n_episodes)
        rest.units = units[n_held_out:]
        net = self._make_net(torch.from_numpy(rest.sampler.table.X[:2]))
        with seeded(self._seed + 1, net.device):
            net.initialize()
            net.partial_fit(rest, y=None)
        return self._frozen_learner(net.module_.learner), units[:n_held_out]

    def _held_out(self, learner, sampler, units):
        """Logits of both spaces on episodes of held-out tasks, by number of shots."""
        most = int(np.max(self.n_shots))
        sampler = replace(sampler, n_shots=(1, max(most, 5)))
        for support, query in islice(sampler.stream(_KEY, units, 16), _N_BATCHES):
            support, query = self._to_device(support), self._to_device(query)
            with torch.no_grad():
                state = learner.adapt(support)
                learned, raw = learner.parts(learner.represent(query), state)
            targets = query.y
            if query.mask is not None:
                targets = targets.masked_fill(~query.mask, -1)
            finite = (learned < torch.inf).flatten(1).all(dim=1)
            if finite.any():
                parts = learned, raw, state["log_shots"], targets
                yield tuple(part[finite] for part in parts)

    def _cells(self, table):
        return max(super()._cells(table), self.learner_.raw.width)
