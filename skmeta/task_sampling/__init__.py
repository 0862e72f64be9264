"""Which tasks to train on, learned from what helps held-out tasks (experimental)."""

from ._alignment import GradientAlignmentSampler
from ._base import TaskSampler
from ._exp3 import Exp3Sampler

__all__ = ["Exp3Sampler", "GradientAlignmentSampler", "TaskSampler"]
