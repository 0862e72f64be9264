"""Learners that adapt by gradient descent."""

from ._maml import MAMLClassifier, MAMLRegressor
from ._maml_learner import MAML
from ._reptile import ReptileClassifier, ReptileRegressor
from ._reptile_learner import Reptile

__all__ = [
    "MAML",
    "MAMLClassifier",
    "MAMLRegressor",
    "Reptile",
    "ReptileClassifier",
    "ReptileRegressor",
]
