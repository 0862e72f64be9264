"""Learners of tables whose columns differ from task to task."""

from ._heterogeneous import HeterogeneousClassifier, HeterogeneousRegressor
from ._heterogeneous_learner import ColumnSet
from ._in_context import InContextClassifier, InContextRegressor
from ._in_context_learner import RowAndColumnTransformer
from ._self_made import SelfMadeTasks

__all__ = [
    "ColumnSet",
    "HeterogeneousClassifier",
    "HeterogeneousRegressor",
    "InContextClassifier",
    "InContextRegressor",
    "RowAndColumnTransformer",
    "SelfMadeTasks",
]
