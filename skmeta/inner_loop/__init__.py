"""Inner loop: gradient descent on the support rows of many tasks at once."""

from ._chunks import in_chunks, share_of_tasks
from ._curves import Curve, as_stack
from ._forward import TaskForward
from ._layers import Affine, takes_vectors
from ._norm import EpisodicBatchNorm, without_running_statistics
from ._objective import CrossEntropy, SquaredError, objective_of
from ._replace import replace_gradient
from ._sgd import Rates, rate_of_step, sgd
from ._stack_sgd import stack_sgd

__all__ = [
    "Affine",
    "CrossEntropy",
    "Curve",
    "EpisodicBatchNorm",
    "Rates",
    "SquaredError",
    "TaskForward",
    "as_stack",
    "in_chunks",
    "objective_of",
    "rate_of_step",
    "replace_gradient",
    "sgd",
    "share_of_tasks",
    "stack_sgd",
    "takes_vectors",
    "without_running_statistics",
]
