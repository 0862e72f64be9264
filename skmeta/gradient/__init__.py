"""Learners that adapt by gradient descent."""

from ._cavia import CAVIAClassifier, CAVIARegressor
from ._cavia_learner import CAVIA
from ._implicit import ImplicitMAMLClassifier, ImplicitMAMLRegressor
from ._implicit_learner import ImplicitMAML
from ._maml import MAMLClassifier, MAMLRegressor
from ._maml_learner import MAML
from ._reptile import ReptileClassifier, ReptileRegressor
from ._reptile_learner import Reptile

__all__ = [
    "CAVIA",
    "CAVIAClassifier",
    "CAVIARegressor",
    "ImplicitMAML",
    "ImplicitMAMLClassifier",
    "ImplicitMAMLRegressor",
    "MAML",
    "MAMLClassifier",
    "MAMLRegressor",
    "Reptile",
    "ReptileClassifier",
    "ReptileRegressor",
]
