"""Nets and tasks that are small enough for hundreds of fits."""

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet
from torch import nn

from skmeta import (
    HierarchicalClassifier,
    HierarchicalRegressor,
    MAMLClassifier,
    MAMLRegressor,
    ProtoNetClassifier,
    ReptileRegressor,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
)
from skmeta.modules import MLP


def tiny_net(module=MLP, criterion=nn.CrossEntropyLoss, **params):
    """A net that trains for a few milliseconds."""
    defaults = {
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 2,
        "batch_size": 4,
        "train_split": None,
        "verbose": 0,
    }
    if module is MLP:
        defaults["module__hidden"] = (8,)
    return NeuralNet(module, criterion, **{**defaults, **params})


def tiny(estimator, *args, criterion=None, net=(), **params):
    """A meta-learner around a tiny net, seeded."""
    if criterion is None:
        is_classifier = "n_ways" in estimator().get_params()
        criterion = nn.CrossEntropyLoss if is_classifier else nn.MSELoss
    defaults = {"n_shots": 2, "n_queries": 3, "n_episodes": 8, "random_state": 0}
    net = tiny_net(*args, criterion=criterion, **dict(net))
    return estimator(net, **{**defaults, **params})


def seeded(estimator, **params):
    """Default construction; wrappers cannot be seeded from outside by the checks."""
    if "random_state" in estimator().get_params():
        params["random_state"] = 0
    return estimator(**params)


def shortened(estimator):
    """An estimator that sees few episodes, if it sees any."""
    if "n_episodes" not in estimator.get_params():
        return estimator
    return clone(estimator).set_params(n_episodes=2)


def classification_tasks(n_tasks=8, n_rows=12, n_features=3, seed=0):
    """Two classes apart along a direction that the tasks nearly share."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        w = np.ones(n_features) + 0.5 * rng.normal(size=n_features)
        X = rng.normal(size=(n_rows, n_features))
        tasks.append((X, (X @ w > np.median(X @ w)).astype(int)))
    return tasks


def regression_tasks(n_tasks=8, n_rows=12, n_features=3, seed=0):
    """Linear targets with slopes and an offset of the task."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        w = np.ones(n_features) + 0.5 * rng.normal(size=n_features)
        X = rng.normal(size=(n_rows, n_features))
        noise = 0.1 * rng.normal(size=n_rows)
        tasks.append((X, X @ w + rng.normal() + noise))
    return tasks


def long_format(tasks):
    """Rows, targets and the position of the task of each row."""
    X = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    return X, y, np.repeat(np.arange(len(tasks)), [len(y) for _, y in tasks])


#: One of each kind of learner.
META = {
    "protonet": lambda: tiny(ProtoNetClassifier),
    "protonet-per-task": lambda: tiny(ProtoNetClassifier, label_space="per_task"),
    "ridge-classifier": lambda: tiny(RidgeHeadClassifier),
    "ridge": lambda: tiny(RidgeHeadRegressor),
    "maml-classifier": lambda: tiny(MAMLClassifier),
    "maml": lambda: tiny(MAMLRegressor),
    "reptile": lambda: tiny(ReptileRegressor),
    "hierarchical-classifier": HierarchicalClassifier,
    "hierarchical": HierarchicalRegressor,
}
