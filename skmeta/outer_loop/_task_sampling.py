"""Lets a task sampler see every training step: who was drawn, and what it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from ..tasks._batch import TaskBatch
from ._loader import inputs_of, units_of

#: Validation episodes are keyed apart from those that skorch scores after an epoch.
_REWARD_STEPS = 2**41
#: How far ahead and behind losses are compared, relative to the norm of the weights.
_LENGTH = 1e-3


class Trial:
    """A training step, as a task sampler sees it.

    Parameters
    ----------
    net : NeuralNet
        In training.
    tasks : int ndarray of shape (n_drawn,)
        Position of each task of the meta-batch among the training tasks.
    batch : (dict, Tensor)
        The meta-batch, inputs and targets.
    episodes : (TaskBatch, TaskBatch)
        Support and query of episodes of validation tasks, twice as many as there are
        tasks in a meta-batch.
    """

    def __init__(self, net: NeuralNet, tasks, batch, episodes):
        self.tasks = tasks
        self._net = net
        self._batch = batch
        self._episodes = episodes
        self._parameters = [p for p in net.module_.parameters() if p.requires_grad]

    def validation_loss(self) -> float:
        """Outer loss of the validation episodes."""
        with torch.no_grad():
            return float(self._loss(inputs_of(*self._episodes)))

    def alignment(self) -> tuple[np.ndarray, float]:
        """How much losses fall on the way that the validation tasks want to go.

        The way is the meta-gradient of one half of the validation episodes. The fall of
        a loss along it is the inner product with the meta-gradient of that loss, found
        from losses on both sides of the weights.

        Returns
        -------
        falls : ndarray of shape (n_drawn,)
            Of the loss of each task of the meta-batch.
        own : float
            Of the outer loss of the other half of the validation episodes.
        """
        half = self._episodes[0].n_tasks // 2
        first, second = (
            inputs_of(*(side.take(part) for side in self._episodes))
            for part in (slice(half), slice(half, None))
        )
        direction = self._direction(first)
        losses = []
        for sign in (1, -1):  # against the gradient, the loss falls
            with torch.no_grad(), self._moved(direction, sign):
                own = self._loss(second)
                losses.append(torch.cat([self._task_losses(self._batch), own[None]]))
        *falls, own = ((losses[0] - losses[1]) / 2).tolist()
        return np.array(falls), own

    def _direction(self, batch) -> list[Tensor]:
        """Gradient of the outer loss, scaled to the length of the difference."""
        with torch.enable_grad():
            loss = self._loss(batch)
            found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        gradient = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self._parameters, found, strict=True)
        ]
        scale = _LENGTH * _norm(self._parameters) / _norm(gradient)
        return [scale * g for g in gradient]

    @contextmanager
    def _moved(self, direction: list[Tensor], sign: int):
        """Weights elsewhere for a while."""
        before = [p.detach().clone() for p in self._parameters]
        try:
            torch._foreach_add_(self._parameters, direction, alpha=sign)
            yield
        finally:
            torch._foreach_copy_(self._parameters, before)

    def _loss(self, batch) -> Tensor:
        """Query loss of a meta-batch by the criterion of the net."""
        inputs, y = batch
        return self._net.get_loss(self._output(inputs), y, training=False)

    def _task_losses(self, batch) -> Tensor:
        """That of each episode: ``(n_tasks,)``."""
        inputs, y = batch
        mask = inputs["query"].get("mask")
        n_tasks, n_rows = inputs["query"]["X"].shape[:2]
        sizes = [n_rows] * n_tasks if mask is None else mask.sum(1).tolist()
        output = self._output(inputs)
        parts = zip(output.split(sizes), y.split(sizes), strict=True)
        return torch.stack([self._net.get_loss(o, t, training=False) for o, t in parts])

    def _output(self, inputs) -> Tensor:
        """Predictions as `adapt` leads to them, hence in evaluation mode.

        skorch sets that of training before its step.
        """
        self._net.module_.eval()
        return self._net.infer(inputs)


class TaskSampling(Callback):
    """Shows the steps of a net to the task sampler of its episodes."""

    episodes: Iterator[tuple[TaskBatch, TaskBatch]] | None = None

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Find the validation tasks."""
        if self.episodes is not None:
            return
        if dataset_valid is None:
            raise ValueError(
                "task_sampler learns from validation tasks, but there are none. Pass a "
                "net whose train_split divides tasks, such as skorch.NeuralNet(..., "
                "train_split=skorch.dataset.ValidSplit(5)); ValidSplit(PredefinedSplit("
                "fold)) names those that are like the tasks to come."
            )
        self.dataset, tasks = units_of(dataset_train)
        n_tasks = net.batch_size if net.batch_size > 0 else len(tasks)
        step, units = _REWARD_STEPS + self.dataset.step, units_of(dataset_valid)[1]
        self.episodes = self.dataset.sampler.stream(step, units, 2 * n_tasks)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Show what is about to be learned."""
        if not training or self.episodes is None:
            return
        self.trial = Trial(net, self.dataset.drawn, batch, next(self.episodes))
        self.dataset.task_sampler.before_step(self.trial)

    def on_batch_end(self, net, training=False, **kwargs):
        """Show what it has changed."""
        if training:
            self.dataset.task_sampler.after_step(self.trial)


@contextmanager
def rewarded(net: NeuralNet, task_sampler):
    """Let the task sampler learn from the steps of a net; None changes nothing."""
    if task_sampler is None:
        yield
        return
    bridge = ("task_sampler", TaskSampling())
    net.callbacks_.append(bridge)
    try:
        yield
    finally:
        net.callbacks_.remove(bridge)


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.detach().norm() for t in tensors]).norm()
