"""Two ways to evaluate a function of one task for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import vmap

from ..tasks._batch import TaskBatch

#: Features ``(n_tasks, n_rows, n_features)`` and batch-norm statistics by name.
Evaluated = tuple[Tensor, dict[str, Tensor]]
#: The same for one task: parameters, rows, which are real, statistics, record.
TaskFunction = Callable[
    [Mapping[str, Tensor], Tensor, Tensor | None, Mapping[str, Tensor], bool], Evaluated
]


def vmap_over_tasks(
    task: TaskFunction,
    fast: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    batch: TaskBatch,
    statistics: Mapping[str, Tensor],
    record: bool,
) -> Evaluated:
    """All tasks in one pass; padding takes part and is masked where it matters."""
    batched = vmap(
        lambda own, X, is_real, moments: task(
            {**shared, **own}, X, is_real, moments, record
        ),
        in_dims=(0, 0, None if batch.mask is None else 0, 0),
        randomness="different",
    )
    return batched(dict(fast), _filled(batch), batch.mask, dict(statistics))


def loop_over_tasks(
    task: TaskFunction,
    fast: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    batch: TaskBatch,
    statistics: Mapping[str, Tensor],
    record: bool,
) -> Evaluated:
    """Task after task, each with its real rows only."""
    columns = {name: tensor.unbind() for name, tensor in fast.items()}
    given = {name: tensor.unbind() for name, tensor in statistics.items()}
    features, moments = [], []
    for t in range(batch.n_tasks):
        own = {name: column[t] for name, column in columns.items()}
        mine = {name: column[t] for name, column in given.items()}
        mask = None if batch.mask is None else batch.mask[t]
        out, found = _one_task(task, {**shared, **own}, batch.X[t], mask, mine, record)
        features.append(out)
        moments.append(found)
    names = moments[0] if moments else {}
    return (
        torch.stack(features),
        {name: torch.stack([found[name] for found in moments]) for name in names},
    )


def _one_task(
    task: TaskFunction,
    parameters: Mapping[str, Tensor],
    X: Tensor,
    mask: Tensor | None,
    statistics: Mapping[str, Tensor],
    record: bool,
) -> Evaluated:
    if mask is None or bool(mask.all()):
        return task(parameters, X, None, statistics, record)
    if not bool(mask.any()):
        # Something has to go through the module, if only to learn its width.
        return task(parameters, X, mask, statistics, record)
    out, found = task(parameters, X[mask], None, statistics, record)
    padded = out.new_zeros(len(X), out.shape[1])
    return padded.masked_scatter(mask.unsqueeze(-1), out), found


def _filled(batch: TaskBatch) -> Tensor:
    """Rows with padding replaced by the first row of the task.

    Some modules are not differentiable at a row of zeros (a norm, say), and NaN times
    zero weight is NaN.
    """
    if batch.mask is None:
        return batch.X
    mask = batch.mask.view(*batch.mask.shape, *(1,) * (batch.X.ndim - 2))
    return torch.where(mask, batch.X, batch.X[:, :1])
