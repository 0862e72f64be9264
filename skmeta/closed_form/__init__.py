"""Learners whose head is solved exactly inside each episode."""

from ._ridge import RidgeHeadClassifier, RidgeHeadRegressor
from ._ridge_learner import RidgeHead

__all__ = ["RidgeHead", "RidgeHeadClassifier", "RidgeHeadRegressor"]
