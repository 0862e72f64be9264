"""Pre-training, then gradient steps on the support rows of a task."""

from __future__ import annotations

import copy
from numbers import Integral, Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ..base._supervised import SupervisedMetaEstimator
from ._transfer_learner import FineTune


class FineTuneMetaEstimator(SupervisedMetaEstimator):
    """Builds a `FineTune` whose prior head is that of pre-training.

    With a head for each training task it is their mean.
    """

    _parameter_constraints: dict = {
        **SupervisedMetaEstimator._parameter_constraints,
        "adapted": [StrOptions({"head", "all"})],
        "inner_lr": [Interval(Real, 0, None, closed="neither")],
        "adapt_steps": [Interval(Integral, 0, None, closed="left")],
        "proximal": [Interval(Real, 0, None, closed="left")],
    }

    @property
    def _inner_loop(self):
        names = ("adapted", "inner_lr", "adapt_steps", "proximal")
        return {name: getattr(self, name) for name in names}

    def _build_learner(self, backbone, n_features):
        return FineTune(
            backbone,
            n_features,
            n_classes=self._n_shared_classes,
            task="classification" if self._is_classifier else "regression",
            head=self._head_kind,
            **self._inner_loop,
        )

    def _calibrate(self, learner, dataset, before):
        module = self.net_.module_
        with torch.no_grad():
            if module.bias is None:
                learner.log_scale.copy_(module.log_scale)
            if learner.weight is not None:
                learner.weight.copy_(module.weight.mean(dim=0))
            if learner.bias is not None and module.bias is not None:
                learner.bias.copy_(module.bias.mean(dim=0))

    def _adapt_batch(self, batch):
        learner = self.learner_
        changed = {
            name: value
            for name, value in self._inner_loop.items()
            if getattr(learner, name) != value
        }
        # Set after fit by `set_params` or `freeze(meta, adapt_steps=...)`.
        if changed:
            learner = copy.copy(learner)
            vars(learner).update(changed)
        return learner.adapt(batch)
