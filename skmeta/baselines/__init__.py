"""What people use today, with the verbs of a meta-learner: models to compare with."""

from ._local import LocalClassifier, LocalRegressor
from ._mixed_model import MixedModelRegressor
from ._pooled import PooledClassifier, PooledRegressor
from ._shrunk_offset import ShrunkOffsetRegressor
from ._task_encoded import TaskEncodedClassifier, TaskEncodedRegressor

__all__ = [
    "LocalClassifier",
    "LocalRegressor",
    "MixedModelRegressor",
    "PooledClassifier",
    "PooledRegressor",
    "ShrunkOffsetRegressor",
    "TaskEncodedClassifier",
    "TaskEncodedRegressor",
]
