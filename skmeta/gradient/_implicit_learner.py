"""Implicit MAML as a Torch learner."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..inner_loop import descent, implicit, minimise
from ._gradient_learner import GradientLearner, InnerProblem


class ImplicitMAML(GradientLearner):
    """Learns initial parameters near which there are good models of the tasks.

    The inner loop minimises the loss of the support rows plus a quadratic pull to the
    initial parameters. Where that minimum lies depends on them by the implicit
    function theorem, so that the meta-gradient needs the end of the inner loop only:
    conjugate gradients solve it from Hessian-vector products [1]_. It is exact at the
    minimum, and its memory does not grow with the number of steps.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features. Its batch norms become episodic, in a copy that shares
        the parameters; parameters that need no gradient are not adapted.
    n_features : int
        Number of features.
    n_classes : int, default=None
        Size of a label space that all tasks share; None for regression and for labels
        that exist only inside their task.
    task : {"classification", "regression"}, default="classification"
        Regression has one output.
    inner_lr : float, default=0.1
        Rate of the first step; a step that would raise the loss of a task is not
        taken, and halves it.
    inner_steps : int, default=10
        Number of steps in training mode.
    adapt_steps : int, default=None
        Number of steps in evaluation mode; None takes `inner_steps`.
    proximal : float, default=0.5
        Strength of the pull.
    cg_steps : int, default=5
        Steps of conjugate gradients; with none the meta-gradient is of first order.
    transductive : bool, default=False
        Whether query rows are normalised by their own statistics.
    strategy : {"auto", "batched", "vmap", "loop"}, default="auto"
        How the backbone is evaluated, see `TaskForward`.

    References
    ----------
    .. [1] Rajeswaran, Finn, Kakade and Levine. "Meta-learning with implicit
       gradients", NeurIPS 2019.
    """

    inner_lr: float

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        *,
        n_classes: int | None = None,
        task: str = "classification",
        inner_lr: float = 0.1,
        inner_steps: int = 10,
        adapt_steps: int | None = None,
        proximal: float = 0.5,
        cg_steps: int = 5,
        transductive: bool = False,
        strategy: str = "auto",
    ):
        super().__init__(
            backbone,
            n_features,
            n_classes=n_classes,
            task=task,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            adapt_steps=adapt_steps,
            proximal=proximal,
            transductive=transductive,
            strategy=strategy,
        )
        self.cg_steps = cg_steps

    def descend(self, problem: InnerProblem, n_steps: int) -> dict[str, Tensor]:
        """Adapted parameters, as a function of the initial ones."""
        minimum = minimise(
            problem.loss, problem.initial, self.inner_lr, n_steps, self.proximal
        )
        if not torch.is_grad_enabled():
            return minimum
        return implicit(
            problem.loss, problem.initial, minimum, self.proximal, self.cg_steps
        )

    def path(self, problem: InnerProblem, n_steps: int) -> Iterator[dict[str, Tensor]]:
        """Adapted parameters at the start and after every step, without a graph."""
        return descent(
            problem.loss, problem.initial, self.inner_lr, n_steps, self.proximal
        )
