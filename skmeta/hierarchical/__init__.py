"""Closed-form models with a learned prior over tasks; no network."""

from ._classifier import HierarchicalClassifier
from ._forest import HierarchicalForestClassifier, HierarchicalForestRegressor
from ._regressor import HierarchicalRegressor

__all__ = [
    "HierarchicalClassifier",
    "HierarchicalForestClassifier",
    "HierarchicalForestRegressor",
    "HierarchicalRegressor",
]
