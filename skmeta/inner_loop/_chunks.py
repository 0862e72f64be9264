"""Meta-gradients of many tasks in the memory of a few."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from ..tasks._batch import TaskBatch

Episodes = Callable[[TaskBatch, TaskBatch], Tensor]

_shares: ContextVar[tuple[float, float]] = ContextVar("shares", default=(1.0, 1.0))


def share_of_tasks() -> float:
    """Share of the meta-batch that is being evaluated, below 1 inside `in_chunks`.

    For learners that set the gradient of a meta-batch themselves.
    """
    return _shares.get()[0]


def share_of_rows() -> float:
    """The same for the query rows, of which tasks may have different numbers."""
    return _shares.get()[1]


def in_chunks(
    function: Episodes,
    support: TaskBatch,
    query: TaskBatch,
    parameters: Sequence[Tensor],
    chunk_size: int,
) -> Tensor:
    """Evaluate ``function(support, query)`` for a few tasks at a time.

    No graph is kept: each chunk is computed once more, with the same random numbers,
    when its gradient is asked for. Values and gradients are those of the whole
    meta-batch; memory is that of one chunk, time that of one more forward pass.

    Parameters
    ----------
    function : callable
        Maps support and query rows to a tensor with a leading axis of tasks.
    support, query : TaskBatch
        Rows, which get no gradient.
    parameters : sequence of Tensor
        What `function` is differentiated with respect to.
    chunk_size : int
        Number of tasks in a chunk.

    Returns
    -------
    Tensor of shape (n_tasks, ...)
    """
    return _InChunks.apply(function, support, query, chunk_size, *parameters)


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        function: Episodes,
        support: TaskBatch,
        query: TaskBatch,
        chunk_size: int,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.call = function, support, query, chunk_size
        ctx.save_for_backward(*parameters)
        ctx.seeds, outputs = [], []
        for chunk in _chunks(support.n_tasks, chunk_size):
            ctx.seeds.append(_random_state(support.X.device))
            with _evaluating(chunk, query):
                outputs.append(function(support.take(chunk), query.take(chunk)))
        return torch.cat(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        function, support, query, chunk_size = ctx.call
        parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(parameters)
        chunks = _chunks(support.n_tasks, chunk_size)
        for chunk, seed in zip(chunks, ctx.seeds, strict=True):
            with _replayed(seed), _evaluating(chunk, query):
                output = function(support.take(chunk), query.take(chunk))
            if not output.requires_grad:
                continue
            found = torch.autograd.grad(
                output, parameters, gradient[chunk], allow_unused=True
            )
            for i, part in enumerate(found):
                if part is not None:
                    totals[i] = part if totals[i] is None else totals[i] + part
        return None, None, None, None, *totals


def _chunks(n_tasks: int, size: int) -> Iterator[slice]:
    for start in range(0, n_tasks, size):
        yield slice(start, min(start + size, n_tasks))


@contextmanager
def _evaluating(chunk: slice, query: TaskBatch) -> Iterator[None]:
    tasks = rows = (chunk.stop - chunk.start) / query.n_tasks
    if query.mask is not None:
        rows = int(query.mask[chunk].sum()) / max(1, int(query.mask.sum()))
    token = _shares.set((share_of_tasks() * tasks, share_of_rows() * rows))
    try:
        yield
    finally:
        _shares.reset(token)


RandomState = tuple[torch.device, Tensor, Tensor | None]


def _random_state(device: torch.device) -> RandomState:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return device, torch.get_rng_state(), cuda


@contextmanager
def _replayed(state: RandomState) -> Iterator[None]:
    """A graph is built inside, from the random numbers of the first time."""
    device, cpu, cuda = state
    devices = [] if cuda is None else [device]
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        yield
