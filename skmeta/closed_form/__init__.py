"""Learners whose head is solved exactly inside each episode."""

from ._deep_kernel import DeepKernelClassifier, DeepKernelRegressor
from ._deep_kernel_learner import DeepKernel, DeepKernelClassification
from ._ridge import RidgeHeadClassifier, RidgeHeadRegressor
from ._ridge_learner import RidgeHead

__all__ = [
    "DeepKernel",
    "DeepKernelClassification",
    "DeepKernelClassifier",
    "DeepKernelRegressor",
    "RidgeHead",
    "RidgeHeadClassifier",
    "RidgeHeadRegressor",
]
