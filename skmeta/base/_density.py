"""Regressors whose learner predicts a Gaussian for every row."""

from __future__ import annotations

import numpy as np

from ..outer_loop import GaussianLikelihood
from ._mixins import ProbabilisticRegressorMixin


class DensityRegressorMixin(ProbabilisticRegressorMixin):
    """Trains by the likelihood of query rows and predicts with a deviation.

    Stands left of `NeuralMetaEstimator`, whose learner is a `DensityLearner`.
    """

    #: Also in place of a net's squared error: that knows of no deviation.
    _criterion = GaussianLikelihood

    def _query(self, state, batch, return_std=False):
        density = self.learner_.density(state, batch)
        return density if return_std else density[..., 0]

    def _finish(self, output, return_std=False):
        if not return_std:
            return output * self._y_scale + self._y_mean
        mean, std = np.moveaxis(output, -1, 0)
        return mean * self._y_scale + self._y_mean, std * self._y_scale
