"""Learners that amortise inference: from support rows to predictions in one pass."""

from ._conv_learner import ConvCNP
from ._neural_process import (
    AttentiveNPRegressor,
    CNPRegressor,
    ConvCNPRegressor,
)
from ._neural_process_learner import CNP, AttentiveNP

__all__ = [
    "AttentiveNP",
    "AttentiveNPRegressor",
    "CNP",
    "CNPRegressor",
    "ConvCNP",
    "ConvCNPRegressor",
]
