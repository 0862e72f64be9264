"""Reptile as a Torch learner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..inner_loop import rate_of_step, replace_gradient, share_of_tasks
from ..tasks._batch import TaskBatch
from ._gradient_learner import GradientLearner


class Reptile(GradientLearner):
    """Moves initial parameters towards where training on each task leads.

    In training mode the inner loop descends on all rows of an episode, support and
    query, and the meta-gradient is the way from there back to the start, averaged
    over the tasks [1]_. It is divided by the sum of the rates, so that it is the
    average gradient on that way and the outer learning rate means what it does for
    other learners; the step of the paper is the outer learning rate over that sum.
    No derivative of the inner loop is taken.

    What `episode` returns is nevertheless the few-shot prediction: of the query rows
    after adapting to the support rows alone. The outer loss is thus the one that
    other learners minimise, but here it is only for the record.

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
    inner_lr : float or sequence of float, default=0.1
        One rate, or one for each step (the last is repeated).
    inner_steps : int, default=5
        Number of steps in training mode.
    adapt_steps : int, default=None
        Number of steps in evaluation mode; None takes `inner_steps`.
    proximal : float, default=0.0
        Strength of a quadratic pull to the initial parameters in the inner loop.
    transductive : bool, default=False
        Whether query rows are normalised by their own statistics.
    strategy : {"auto", "batched", "vmap", "loop"}, default="auto"
        How the backbone is evaluated, see `TaskForward`.

    References
    ----------
    .. [1] Nichol, Achiam and Schulman. "On first-order meta-learning algorithms",
       arXiv:1803.02999, 2018.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        *,
        n_classes: int | None = None,
        task: str = "classification",
        inner_lr: float | Sequence[float] = 0.1,
        inner_steps: int = 5,
        adapt_steps: int | None = None,
        proximal: float = 0.0,
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

    def episode(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Query predictions that carry Reptile's gradient in training mode."""
        if not self.training:
            return super().episode(support, query)
        rows = support if query.y is None else _all_rows(support, query)
        problem = self.problem(rows)
        with torch.no_grad():
            output = self.predict(self.adapt(support), query)
            final = self.descend(problem, self.inner_steps)
            # A task that diverged here must not seem fine to the outer loop.
            output = output + _nan_where_not_finite(final, output)
        start = {k: p for k, p in problem.initial.items() if p.requires_grad}
        scale = share_of_tasks() / (support.n_tasks * self._way())
        ways = [scale * (start[k].detach() - final[k]) for k in start]
        return replace_gradient(output, list(start.values()), ways)

    def _way(self) -> float:
        """Sum of the rates of all steps."""
        rates = (rate_of_step(self._fixed_rates, i) for i in range(self.inner_steps))
        return math.fsum(rate for rate in rates if isinstance(rate, float))


def _all_rows(support: TaskBatch, query: TaskBatch) -> TaskBatch:
    """Support and query rows of each task as one batch."""
    assert support.y is not None and query.y is not None
    mask = None
    if support.mask is not None or query.mask is not None:
        mask = torch.cat([_is_real(support), _is_real(query)], 1)
    return replace(
        support,
        X=torch.cat([support.X, query.X], 1),
        y=torch.cat([support.y, query.y], 1),
        mask=mask,
    )


def _is_real(batch: TaskBatch) -> Tensor:
    if batch.mask is not None:
        return batch.mask
    return torch.ones(batch.X.shape[:2], dtype=torch.bool, device=batch.X.device)


def _nan_where_not_finite(tensors: dict[str, Tensor], like: Tensor) -> Tensor:
    """NaN for tasks with a tensor that is not finite, else zero."""
    sums = torch.stack([t.flatten(1).sum(1) for t in tensors.values()]).sum(0)
    return (0 * sums).view(-1, *(1,) * (like.ndim - 1)).to(like.dtype)
