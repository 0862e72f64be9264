"""Whole meta-batches for skorch, in place of a loader of items."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from ..tasks._batch import TaskBatch
from ..tasks._sampler import EpisodeSampler
from ._episode import as_inputs

#: Meta-batches of an epoch at the least: skorch spends a millisecond per epoch.
_MIN_STEPS = 5
#: Validation meta-batches are keyed apart from those of training.
_VALID_STEPS = 2**40


class EpisodeDataset(Dataset):
    """Tasks to draw episodes from; its length is what a validation split divides.

    Parameters
    ----------
    sampler : EpisodeSampler
        Draws the meta-batches.
    n_episodes : int or None
        Episodes of an epoch. None shows about as many rows as there are.
    step : int, default=0
        Number of the first training meta-batch.
    task_sampler : object with ``start`` and ``draw``, default=None
        Draws the tasks of training, see `skmeta.task_sampling`. None draws all of them
        about equally often.
    """

    def __init__(
        self,
        sampler: EpisodeSampler,
        n_episodes: int | None,
        step: int = 0,
        task_sampler=None,
    ):
        self.sampler = sampler
        self.n_episodes = n_episodes
        self.step = step
        self.task_sampler = task_sampler
        self.units = sampler.units
        #: Those that a validation split keeps, once there is one.
        self.held_out: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index):
        return int(self.units[index])

    def n_batches(self, units, batch_size: int) -> int:
        """Meta-batches of an epoch over the given units."""
        if self.n_episodes is not None:
            return max(1, math.ceil(self.n_episodes / batch_size))
        n_rows = len(self.sampler.table.X) * len(units) / len(self.units)
        per_batch = self.sampler.rows_per_episode * batch_size
        return max(_MIN_STEPS, math.ceil(n_rows / per_batch))


class EpisodeLoader:
    """Iterator of skorch that gives whole meta-batches.

    Parameters
    ----------
    dataset : EpisodeDataset or Subset of it
        Tasks to draw from.
    batch_size : int
        Tasks of a meta-batch.
    training : bool, default=True
        False gives the same meta-batches in every epoch.
    augment : callable, default=None
        Maps ``(support, query)`` to new ones. Here rather than in the episode, because
        it may change the targets that the criterion compares with.
    device : str or torch.device, default=None
        Where it does so.
    """

    def __init__(
        self,
        dataset,
        batch_size: int,
        training: bool = True,
        augment=None,
        device=None,
    ):
        self.dataset, self.units = units_of(dataset)
        n_units = len(self.units)
        self.batch_size = batch_size if batch_size > 0 else n_units
        self.training = training
        if not training:
            self.dataset.held_out = self.units
        self.augment = augment
        self.device = device
        if training and self.dataset.task_sampler is not None:
            ids = self.dataset.sampler.table.ids
            self.dataset.task_sampler.start([ids[unit] for unit in self.units])
            self._stream = self._chosen()
        else:
            self._stream = self._from(self.dataset.step)

    def _from(self, step: int):
        """Meta-batches from a step on; drawn when the first one is asked for."""
        return self.dataset.sampler.stream(step, self.units, self.batch_size)

    def _chosen(self):
        """Meta-batches of tasks that the task sampler draws."""
        dataset = self.dataset
        while True:
            rng = np.random.default_rng([dataset.sampler.seed, dataset.step, 1])
            dataset.drawn = dataset.task_sampler.draw(rng, self.batch_size)
            yield dataset.sampler.episodes(dataset.step, self.units[dataset.drawn])

    def __len__(self) -> int:
        return self.dataset.n_batches(self.units, self.batch_size)

    def __iter__(self):
        stream = self._stream if self.training else self._from(_VALID_STEPS)
        for support, query in islice(stream, len(self)):
            self.dataset.step += self.training
            if not self.training:
                # Scores of an epoch join the predictions of all its meta-batches.
                support, query = self._widened(support), self._widened(query)
            if self.augment is not None:
                support, query = self.augment(
                    support.to(self.device), query.to(self.device)
                )
            yield inputs_of(support, query)

    def _widened(self, batch: TaskBatch) -> TaskBatch:
        """With as many classes as any meta-batch may have."""
        missing = self.dataset.sampler.max_classes - (batch.n_classes or 0)
        if batch.n_classes is None or missing == 0:
            return batch
        exists = batch.class_mask
        if exists is None:
            exists = batch.X.new_ones(batch.n_tasks, batch.n_classes, dtype=torch.bool)
        return replace(
            batch,
            n_classes=batch.n_classes + missing,
            class_mask=nn.functional.pad(exists, (0, missing)),
        )


def inputs_of(support: TaskBatch, query: TaskBatch):
    """What `Episode` takes, and the targets of its predictions."""
    assert query.y is not None
    y = query.y.flatten() if query.mask is None else query.y[query.mask]
    return {"support": as_inputs(support), "query": as_inputs(query)}, y


def units_of(dataset):
    """The `EpisodeDataset` under a split, and which of its tasks it holds."""
    units = np.arange(len(dataset))
    while isinstance(dataset, Subset):
        units = np.asarray(dataset.indices)[units]
        dataset = dataset.dataset
    return dataset, dataset.units[units]
