"""Pre-train on all tasks, fine-tune on each: what people do without meta-learning."""

from ._multi_task import MultiTaskClassifier, MultiTaskRegressor
from ._transfer import TransferClassifier, TransferRegressor
from ._transfer_learner import FineTune

__all__ = [
    "FineTune",
    "MultiTaskClassifier",
    "MultiTaskRegressor",
    "TransferClassifier",
    "TransferRegressor",
]
