"""The public contract: verbs, task states, and what classifiers and regressors add."""

from ._base import MetaEstimator
from ._density import DensityRegressorMixin
from ._mixins import (
    MetaClassifierMixin,
    MetaRegressorMixin,
    ProbabilisticRegressorMixin,
)
from ._neural import NeuralMetaEstimator
from ._states import Block, TaskStates

__all__ = [
    "Block",
    "DensityRegressorMixin",
    "MetaClassifierMixin",
    "MetaEstimator",
    "MetaRegressorMixin",
    "NeuralMetaEstimator",
    "ProbabilisticRegressorMixin",
    "TaskStates",
]
