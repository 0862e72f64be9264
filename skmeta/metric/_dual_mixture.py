"""How much each of two spaces is to be trusted: four numbers, learned on tasks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._dual_learner import DualProtoNet

#: Logits in either space, logarithm of the number of shots, and true classes (-1 for
#: padding) of a meta-batch of episodes.
Judged = tuple[Tensor, Tensor, Tensor, Tensor]


def learn_mixture(learner: DualProtoNet, episodes: list[Judged], n_units: int) -> None:
    """Update the weights of a learner by episodes of tasks new to its embedding.

    Laplace's approximation: before and after, what is known of the weights is a normal
    distribution. So what few tasks cannot tell stays as it was, and more tasks add to
    what is known.

    Parameters
    ----------
    learner : DualProtoNet
        Its ``mixture``, ``mixture_precision`` and ``n_judged`` are changed.
    episodes : list of (learned, raw, log_shots, targets)
        As `DualProtoNet.parts` gives logits.
    n_units : int
        Number of tasks, or classes of a pool, that the episodes were drawn from. Each
        weighs the same, whenever it came.
    """
    start, precision = learner.mixture.clone(), learner.mixture_precision.clone()
    before = float(learner.n_judged)
    share = n_units / before if before else 1.0

    def data_loss(mixture):
        return share * sum(_loss(mixture, *episode) for episode in episodes)

    def loss(mixture):
        moved = mixture - start
        return moved @ precision @ moved / 2 + data_loss(mixture)

    with torch.enable_grad():
        found = _minimise(loss, start)
        curvature = torch.autograd.functional.hessian(data_loss, found)
    values, vectors = torch.linalg.eigh(curvature)
    precision = precision + (vectors * values.clamp(min=0)) @ vectors.T
    learner.mixture.copy_(found)
    learner.mixture_precision.copy_(precision)
    learner.n_judged += n_units


def _loss(mixture, learned, raw, log_shots, targets):
    """Cross-entropy of the episodes, each counting about as one observation."""
    missing = learned == -torch.inf
    # Not what is masked, or the gradient of the weights would be NaN.
    logits = DualProtoNet.mix(learned.masked_fill(missing, 0), raw, log_shots, mixture)
    logits = logits.masked_fill(missing, -torch.inf).transpose(1, 2)
    total = nn.functional.cross_entropy(
        logits, targets, ignore_index=-1, reduction="sum"
    )
    return total / (targets >= 0).sum(dim=1).clamp(min=1).max()


def _minimise(loss, start):
    """Minimum of a smooth function of a few numbers, by L-BFGS."""
    at = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([at], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(at)
        value.backward()
        return value

    optimizer.step(closure)
    found = at.detach()
    return found if found.isfinite().all() else start
