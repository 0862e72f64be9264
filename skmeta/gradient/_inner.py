"""What estimators with an inner loop of gradient steps have in common."""

from __future__ import annotations

import copy
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ._steps import best_steps, nearest_steps, shots_of

#: Constraints of the parameter.
ADAPT_STEPS = [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"}), None]
#: Steps of `adapt` by default where `fit` saw a single task: ordinary training.
_SINGLE_TASK_STEPS = 100


class InnerLoopMixin:
    """Hands the parameters of the inner loop to the learner."""

    def _start(self, table, classes):
        super()._start(table, classes)
        alone = table.n_tasks == 1
        if alone and self._is_classifier and self.label_space_ == "per_task":
            # Episodes of a pool choose between its classes, if there are more.
            alone = len(np.unique(table.y)) <= np.min(self.n_ways)
        self._adapt_steps = _SINGLE_TASK_STEPS if alone else self.inner_steps

    def _calibrate(self, learner, dataset, before):
        super()._calibrate(learner, dataset, before)
        self.adapt_steps_ = None
        if self.adapt_steps != "auto" or self._adapt_steps != self.inner_steps:
            return
        units = dataset.units if dataset.held_out is None else dataset.held_out
        sampler = dataset.sampler
        self.adapt_steps_ = best_steps(learner, sampler, units, self._to_device)

    def _inner_loop(self):
        return {
            "inner_lr": self._rates(),
            "inner_steps": self.inner_steps,
            "adapt_steps": self._adapt_steps if self._is_open() else self.adapt_steps,
        }

    def _is_open(self):
        """Whether the number of steps in `adapt` is left to `fit`."""
        return self.adapt_steps is None or isinstance(self.adapt_steps, str)

    def _steps(self, batch):
        """Steps of each task, set after fit by `set_params` or `freeze`, perhaps."""
        table = getattr(self, "adapt_steps_", None)
        if self.adapt_steps == "auto" and table:
            return nearest_steps(table, shots_of(batch))
        if self.adapt_steps == "auto" and self._adapt_steps == self.inner_steps:
            raise ValueError(
                "adapt_steps='auto' is learned in fit; fit with it, or pass a number."
            )
        steps = self._adapt_steps if self._is_open() else self.adapt_steps
        return np.full(batch.n_tasks, steps)

    def _rates(self):
        if isinstance(self.inner_lr, (str, Real)):
            return self.inner_lr
        rates = [float(rate) for rate in np.ravel(self.inner_lr)]
        if not rates or min(rates) <= 0:
            raise ValueError(
                f"inner_lr must hold positive step sizes; got {self.inner_lr!r}."
            )
        return rates

    def _adapt_batch(self, batch):
        steps = self._steps(batch)
        learner = copy.copy(self.learner_)
        parts, places = [], []
        for learner.adapt_steps in map(int, np.unique(steps)):
            tasks = torch.from_numpy(np.flatnonzero(steps == learner.adapt_steps))
            parts.append(learner.adapt(batch.take(tasks)))
            places.append(tasks)
        if len(parts) == 1:
            return parts[0]
        back = torch.cat(places).argsort()
        return {
            name: torch.cat([part[name] for part in parts])[back] for name in parts[0]
        }
