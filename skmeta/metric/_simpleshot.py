"""SimpleShot as an estimator."""

from __future__ import annotations

from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from ..base import MetaClassifierMixin
from ..base._supervised import SupervisedMetaEstimator
from ._simpleshot_learner import SimpleShot


class SimpleShotClassifier(MetaClassifierMixin, SupervisedMetaEstimator):
    """SimpleShot: the nearest class mean of centred, normalised features.

    A backbone is trained to tell the classes of all tasks apart, as any network is;
    episodes play no part. Its features, minus their mean over the training rows and
    scaled to unit length, are compared with the class means of a new task [1]_. What
    episodes add to that is what an episodic learner is worth.

    Where all tasks share their classes, the mean of a class over all training rows
    counts as one more support row: it stands in for a class that the support rows
    lack, and predicts for tasks of which no row is known.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet, default=None
        Backbone, or the net that trains it. None builds one from the data: an `MLP`
        for tables, a `Conv4` for images; without `pretrain` it takes the rows as they
        are. All parameters of a net keep their meaning: ``batch_size`` is the number
        of rows of a step, ``module__*`` go to the backbone, ``train_split`` splits
        rows.
    pretrain : bool, default=True
        Whether the backbone is trained. False is for one that comes trained, and for
        plain class means of rows that have been scaled.
    refine : int, default=0
        Steps of soft k-means that let the query rows of a task join its class means
        [2]_. A prediction then depends on the other rows of its task that are
        predicted with it; with 0 it does not.
    n_shots : int, default=5
        Support rows per class of a new task in `score`.
    label_space : {"auto", "shared", "per_task"}, default="auto"
        Whether a label means the same in every task (churn yes or no) or exists only
        inside its task (characters of an alphabet). "auto" takes labels as shared
        when the median task has at least half of all classes. The backbone is trained
        on shared classes, or on all pairs of task and class.
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
    learner_ : SimpleShot
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
    ProtoNetClassifier : Class means in an embedding that episodes have trained.
    TransferClassifier : The same training, then a head fitted to each task.

    Notes
    -----
    Probabilities come from distances at a fixed scale and are not calibrated.

    References
    ----------
    .. [1] Wang, Chao, Weinberger and van der Maaten. "SimpleShot: revisiting
       nearest-neighbor classification for few-shot learning", arXiv:1911.04623, 2019.
    .. [2] Ren et al. "Meta-learning for semi-supervised few-shot classification",
       ICLR 2018.

    Examples
    --------
    Train on six digits, then learn the other four from five images each.

    >>> from skmeta import SimpleShotClassifier
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks(flatten=True)
    >>> meta = SimpleShotClassifier(random_state=0)
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.7
    True
    """

    _parameter_constraints: dict = {
        **SupervisedMetaEstimator._parameter_constraints,
        **MetaClassifierMixin._label_constraints,
        "pretrain": ["boolean"],
        "refine": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        pretrain=True,
        refine=0,
        n_shots=5,
        label_space="auto",
        support="random",
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.pretrain = pretrain
        self.refine = refine
        self.n_shots = n_shots
        self.label_space = label_space
        self.support = support
        self.group_column = group_column
        self.random_state = random_state

    def _default_backbone(self, shape):
        return super()._default_backbone(shape) if self.pretrain else (nn.Identity, {})

    def _trainable(self, net, sample):
        net = super()._trainable(net, sample)
        return net if self.pretrain else net.set_params(max_epochs=0)

    def _build_learner(self, backbone, n_features):
        return SimpleShot(backbone, n_features, self._n_shared_classes, self.refine)

    def _calibrate(self, learner, dataset, before):
        table = dataset.sampler.table
        features = torch.from_numpy(self._row_features(table)).to(learner.mean)
        learner.see(features, torch.from_numpy(table.y).to(features.device))
        # In the precision of the net, which a pickled estimator is rebuilt from.
        for tensor in (learner.mean, *([learner.prior] if learner.shared else [])):
            tensor.copy_(tensor.float())
