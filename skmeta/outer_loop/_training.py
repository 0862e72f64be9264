"""Hands a clone of the user's net to skorch, with the episode as its module."""

from __future__ import annotations

from contextlib import contextmanager
from threading import RLock

import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.dataset import ValidSplit
from torch import nn

from ._density import GaussianLikelihood
from ._loader import EpisodeLoader


def as_net(estimator, default, criterion, batch_size=16) -> NeuralNet:
    """An uninitialised net from what the user gave as `estimator`.

    Parameters
    ----------
    estimator : None, nn.Module (class or instance) or skorch NeuralNet
        A net is cloned, a module gets a net with skmeta's default settings.
    default : (type of nn.Module, dict)
        Backbone and its parameters where `estimator` is None.
    criterion : type of nn.Module
        Outer loss where `estimator` is no net. `GaussianLikelihood` also takes the
        place of a net's squared error, which would leave the deviation undetermined.
    batch_size : int, default=16
        Tasks, or rows, of a step where `estimator` is no net.

    Returns
    -------
    NeuralNet
        Not yet initialised; its module is the user's backbone.
    """
    if isinstance(estimator, NeuralNet):
        net = clone(estimator)
        if criterion is GaussianLikelihood and net.criterion is nn.MSELoss:
            net.set_params(criterion=criterion)
        return net
    module, params = default if estimator is None else (estimator, {})
    is_module = isinstance(module, nn.Module) or (
        isinstance(module, type) and issubclass(module, nn.Module)
    )
    if not is_module:
        raise TypeError(
            "estimator must be None, a torch nn.Module (class or instance) or a skorch "
            f"NeuralNet; got {estimator!r}."
        )
    return NeuralNet(
        clone(module, safe=False) if isinstance(module, nn.Module) else module,
        criterion=criterion,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=20,
        batch_size=batch_size,
        train_split=None,
        verbose=0,
        **{f"module__{name}": value for name, value in params.items()},
    )


class TaskSplit(ValidSplit):
    """Splits tasks: without strata, since labels are those of rows.

    Fewer tasks than an episode needs on either side are not split.
    """

    def __call__(self, dataset, y=None, groups=None):
        """Training and validation tasks, or None for the latter."""
        folds = self.cv if isinstance(self.cv, int) else 2
        if len(dataset) < 2 * folds:
            return dataset, None
        return super().__call__(dataset, y, groups)


def episodic(
    net: NeuralNet, factory, n_classes=None, loader=EpisodeLoader, augment=None
) -> NeuralNet:
    """Let `net` train what `factory` builds, everything else unchanged.

    Parameters
    ----------
    net : NeuralNet
        Not initialised; changed in place.
    factory : EpisodeFactory
        Its new module.
    n_classes : int, default=None
        Number of outputs of the module; None for regression.
    loader : class, default=EpisodeLoader
        Iterator over meta-batches, or over batches of rows.
    augment : callable, default=None
        Maps ``(support, query)`` to new ones before each training step.

    Returns
    -------
    net : NeuralNet
    """
    changes = {
        "module": factory,
        "iterator_train": loader,
        "iterator_valid": loader,
        "iterator_valid__training": False,
    }
    if augment is not None:
        changes["iterator_train__augment"] = augment
        changes["iterator_train__device"] = net.device
    split = net.train_split
    if isinstance(split, ValidSplit):
        changes["train_split"] = TaskSplit(split.cv, random_state=split.random_state)
    if net.criterion is nn.NLLLoss:  # learners give logits, not log-probabilities
        changes["criterion"] = nn.CrossEntropyLoss
    if getattr(net, "classes", 0) is None and n_classes is not None:
        # A NeuralNetClassifier scores every epoch, and cannot infer them from y here.
        changes["classes"] = list(range(n_classes))
    return net.set_params(**changes)


#: Torch has one random state for all threads: nets train in turn, or none of them
#: would be reproducible.
_RANDOM_STATE = RLock()


@contextmanager
def seeded(seed: int, device="cpu"):
    """Torch's random numbers follow `seed` inside and are untouched outside."""
    device = torch.device(device)
    devices = [device.index or 0] if device.type == "cuda" else []
    with _RANDOM_STATE, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
