"""What estimators with an inner loop of gradient steps have in common."""

from __future__ import annotations

import copy
from numbers import Real

import numpy as np

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

    def _inner_loop(self):
        return {
            "inner_lr": self._rates(),
            "inner_steps": self.inner_steps,
            "adapt_steps": self._steps(),
        }

    def _steps(self):
        return self._adapt_steps if self.adapt_steps is None else self.adapt_steps

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
        learner = self.learner_
        # Set after fit by `set_params` or `freeze(meta, adapt_steps=...)`.
        if learner.adapt_steps != self._steps():
            learner = copy.copy(learner)
            learner.adapt_steps = self._steps()
        return learner.adapt(batch)
