"""What an augmentation is: a function of the support and the query of a meta-batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from sklearn.base import BaseEstimator
from torch import Tensor

from ..tasks._batch import TaskBatch

_PARTS = ("both", "support", "query")


class Augmentation(BaseEstimator, ABC):
    """Changes episodes before a training step; never what is predicted later.

    Runs on whole tensors, on the device of the net, with numbers drawn from Torch's
    random state, which follows the ``random_state`` of the estimator. Parameters can be
    searched: ``augment__std`` in the grid of an estimator with
    ``augment=GaussianNoise()``.

    Subclasses implement ``augment``, which maps one `TaskBatch` to another.

    Parameters
    ----------
    part : {"both", "support", "query"}, default="both"
        Rows to change.
    """

    def __init__(self, part: str = "both"):
        self.part = part

    @abstractmethod
    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Change the rows of one side of an episode."""

    def __call__(
        self, support: TaskBatch, query: TaskBatch
    ) -> tuple[TaskBatch, TaskBatch]:
        """Change support rows, query rows or both.

        Parameters
        ----------
        support, query : TaskBatch
            The two sides of a meta-batch.

        Returns
        -------
        support, query : TaskBatch
            New ones; what was given is not edited.
        """
        if self.part not in _PARTS:
            raise ValueError(f"part must be one of {_PARTS}; got {self.part!r}.")
        if self.part != "query":
            support = self.augment(support)
        if self.part != "support":
            query = self.augment(query)
        return support, query


class Compose(BaseEstimator):
    """Several augmentations, one after the other.

    Parameters
    ----------
    steps : sequence of callable
        Each maps ``(support, query)`` to new ones.

    Examples
    --------
    >>> from skmeta.augmentation import Compose, GaussianNoise, RandomCrop
    >>> Compose([RandomCrop(padding=2), GaussianNoise(0.05)])
    Compose(steps=[RandomCrop(padding=2), GaussianNoise(std=0.05)])
    """

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, support, query):
        """Apply all steps to the support and the query of a meta-batch."""
        for step in self.steps:
            support, query = step(support, query)
        return support, query


def with_rows(batch: TaskBatch, X: Tensor) -> TaskBatch:
    """The batch with other rows; those of padding stay zero."""
    if batch.mask is not None:
        X = X.masked_fill(~batch.mask.view(*batch.mask.shape, *[1] * (X.ndim - 2)), 0)
    return replace(batch, X=X)


def each(value: Tensor, X: Tensor) -> Tensor:
    """A number for every row, shaped to be combined with rows ``X``."""
    return value.view(*value.shape, *[1] * (X.ndim - value.ndim))
