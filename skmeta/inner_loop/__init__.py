"""Inner loop: gradient descent on the support rows of many tasks at once."""

from ._chunks import in_chunks, share_of_rows, share_of_tasks
from ._curves import Curve, as_stack
from ._forward import TaskForward
from ._implicit import descent, implicit, minimise
from ._layers import Affine, takes_vectors
from ._losses import Gradients, InnerLoss, ModuleLoss, StackLoss
from ._norm import EpisodicBatchNorm, without_running_statistics
from ._objective import CrossEntropy, SquaredError, objective_of
from ._replace import add_loss, replace_gradient
from ._sgd import Rate, Rates, path, rate_of_step, sgd
from ._stack_sgd import descend, stack_sgd

__all__ = [
    "Affine",
    "CrossEntropy",
    "Curve",
    "EpisodicBatchNorm",
    "Gradients",
    "InnerLoss",
    "ModuleLoss",
    "Rate",
    "Rates",
    "SquaredError",
    "StackLoss",
    "TaskForward",
    "add_loss",
    "as_stack",
    "descend",
    "descent",
    "implicit",
    "in_chunks",
    "minimise",
    "objective_of",
    "path",
    "rate_of_step",
    "replace_gradient",
    "sgd",
    "share_of_rows",
    "share_of_tasks",
    "stack_sgd",
    "takes_vectors",
    "without_running_statistics",
]
