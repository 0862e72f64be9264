"""Context adaptation as a Torch learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..inner_loop import ModuleLoss, objective_of
from ..outer_loop import TaskState
from ..tasks._batch import TaskBatch
from ._gradient_learner import HEAD, GradientLearner, InnerProblem
from ._maml_learner import prototype_head

CONTEXT = "context"


class CAVIA(GradientLearner):
    """Adapts a few numbers that the backbone sees beside each row.

    All weights are shared by the tasks; what gradient steps on the support rows
    change is a context, zero at first, that is appended to the input [1]_. What has
    to be kept of a task is the context alone.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows that `widen` has widened to features. Without batch norm: the
        context is the same for all rows of a task, so that normalising by the task
        would take it out again.
    n_features : int
        Number of features.
    n_classes : int, default=None
        Size of a label space that all tasks share. None for regression and for labels
        that exist only inside their task, whose head are class means: a head that
        does not tell classes apart gives the context no gradient.
    task : {"classification", "regression"}, default="classification"
        Regression has one output.
    n_context : int, default=5
        Numbers in the context.
    inner_lr : float, sequence of float or str, default=1.0
        As in `MAML`.
    inner_steps : int, default=2
        Number of steps in training mode.
    adapt_steps : int, default=None
        Number of steps in evaluation mode; None takes `inner_steps`.
    first_order : bool, default=False
        Take inner gradients as constants.
    strategy : {"auto", "batched", "vmap", "loop"}, default="auto"
        How the backbone is evaluated, see `TaskForward`.

    References
    ----------
    .. [1] Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson. "Fast context adaptation
       via meta-learning", ICML 2019.
    """

    #: A state is as small as the context.
    closed_form = True

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        *,
        n_classes: int | None = None,
        task: str = "classification",
        n_context: int = 5,
        inner_lr: float | Sequence[float] | str = 1.0,
        inner_steps: int = 2,
        adapt_steps: int | None = None,
        first_order: bool = False,
        strategy: str = "auto",
    ):
        self.n_context = n_context
        super().__init__(
            backbone,
            n_features,
            n_classes=n_classes,
            task=task,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            adapt_steps=adapt_steps,
            adapt="body",
            strategy=strategy,
        )
        self.first_order = first_order
        if self._forward.has_statistics:
            raise ValueError(
                "The backbone has batch norm, which takes out what is the same for "
                "all rows of a task, and with it the context. Use one without, such "
                "as MLP."
            )

    def problem(self, support: TaskBatch) -> InnerProblem:
        """What the inner loop of some tasks does."""
        like = next(self.parameters(), support.X)
        start = like.new_zeros(support.n_tasks, self.n_context)
        if self.head is not None:
            head = self.initial_head(support)
        else:
            head = prototype_head(self._features(start, support), support)
        objective = objective_of(support, like.dtype)

        def loss(fast: dict[str, Tensor]) -> Tensor:
            return objective(HEAD(self._features(fast[CONTEXT], support), head))

        return InnerProblem(ModuleLoss(loss), {CONTEXT: start}, head, {})

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""
        X = widen(query.X, state[CONTEXT])
        return super().predict(state, replace(query, X=X))

    def _features(self, context: Tensor, batch: TaskBatch) -> Tensor:
        return self._forward({}, replace(batch, X=widen(batch.X, context)))

    def _adaptable(self) -> dict[str, Tensor]:
        return {CONTEXT: torch.zeros(self.n_context)}


def widen(X: Tensor, context: Tensor) -> Tensor:
    """Rows with the context of their task as more columns, or channels of images.

    Parameters
    ----------
    X : Tensor of shape (n_tasks, n_rows, *row)
        Numbers: vectors, or images with or without an axis of channels.
    context : Tensor of shape (n_tasks, n_context)
        Numbers of each task.

    Returns
    -------
    Tensor of shape (n_tasks, n_rows, n_columns + n_context, ...)
    """
    if not X.is_floating_point():
        raise ValueError(f"A context is appended to numbers; the rows are {X.dtype}.")
    if X.ndim == 4:
        X = X.unsqueeze(2)
    shape = (*context.shape[:1], 1, -1, *(1,) * (X.ndim - 3))
    more = context.view(shape).expand(*X.shape[:2], -1, *X.shape[3:])
    return torch.cat([X, more.to(X.dtype)], 2)
