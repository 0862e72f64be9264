"""What both learners of tables know of columns: which there are, and on what scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import TaskState
from ..tasks._batch import TaskBatch

#: Standardised values beyond it are cut: the scale of a few rows is a rough one.
FARTHEST = 10.0
#: A column whose spread is smaller than this share of its size is constant.
CONSTANT = 1e-6
#: Logit of what must not be chosen; a softmax over -inf alone is NaN.
NEVER = -1e9
#: How often the name of a column is hidden in training, so that new ones do no harm.
HIDDEN = 0.3


def columns_of(support: TaskBatch) -> TaskState:
    """Columns of each task, with mean and deviation of their support rows.

    Only those that vary within the support: a constant tells nothing, and one without
    values is not there. They come first, so that a task of few columns among many
    costs little.

    Returns
    -------
    dict of Tensor, each of shape (n_tasks, n_columns)
        ``columns``, positions in the wide table; ``present``, 1 for real columns and
        0 for padding; ``center`` and ``scale``.
    """
    X, known = _values(support)
    count = known.sum(dim=1).clamp(min=1)
    center = (X * known).sum(dim=1) / count
    deviation = ((X - center.unsqueeze(1)) * known).square().sum(dim=1) / count
    scale = deviation.sqrt()
    present = scale > CONSTANT * center.abs()
    width = max(int(present.sum(dim=1).max()), 1) if present.shape[1] else 0
    order = present.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    order = order[:, :width]
    present = present.gather(1, order)
    return {
        "columns": order.to(X.dtype),
        "present": present.to(X.dtype),
        "center": center.gather(1, order),
        "scale": torch.where(present, scale.gather(1, order), 1.0),
    }


def cells_of(state: TaskState, batch: TaskBatch) -> tuple[Tensor, Tensor]:
    """Standardised cells of the columns of each task, and which of them have a value.

    Both are ``(n_tasks, n_rows, n_columns)``; cells without a value are zero.
    """
    X, known = _values(batch)
    columns = state["columns"].long().unsqueeze(1).expand(-1, X.shape[1], -1)
    X, known = X.gather(2, columns), known.gather(2, columns)
    known = known * state["present"].unsqueeze(1)
    cells = (X - state["center"].unsqueeze(1)) / state["scale"].unsqueeze(1)
    return cells.clamp(-FARTHEST, FARTHEST) * known, known


def _values(batch: TaskBatch) -> tuple[Tensor, Tensor]:
    """Values, zero where there is none, and 1 where there is one."""
    known = batch.X.isfinite()
    if batch.mask is not None:
        known = known & batch.mask.unsqueeze(-1)
    return torch.where(known, batch.X, 0.0), known.to(batch.X.dtype)


def named_share(state: TaskState, n_names: int) -> Tensor:
    """Share of the columns of each task that are known by name, ``(n_tasks,)``."""
    known = state["present"] * (state["columns"] < n_names)
    if n_names and "named" in state:
        places = state["columns"].long().clamp(max=n_names - 1)
        known = known * state["named"].gather(1, places)
    return known.sum(dim=1) / state["present"].sum(dim=1).clamp(min=1)


def class_frequency(counts: Tensor, support: TaskBatch) -> Tensor:
    """Logarithms of how frequent classes are, by counts ``(n_tasks, n, n_classes)``.

    One row of each class is added to its count, which may be zero.
    """
    counts = counts + 1
    if support.class_mask is not None:
        counts = counts * support.class_mask.unsqueeze(1)
    return (counts / counts.sum(dim=-1, keepdim=True)).clamp(min=1e-9).log()


def class_likelihood(logits: Tensor, members: Tensor, support: TaskBatch) -> Tensor:
    """Log-likelihood ``(n_tasks, n_experts)`` of the classes of left-out rows.

    Parameters
    ----------
    logits : Tensor of shape (n_tasks, n_experts, n_rows, n_classes)
        What each expert says of a row without having seen it.
    members : Tensor of shape (n_tasks, n_rows, n_classes)
        One-hot classes, zero for padding.
    support : TaskBatch
        The rows.
    """
    if support.class_mask is not None:
        logits = logits.masked_fill(~support.class_mask[:, None, None], NEVER)
    # Without its only row, nothing is known of a class.
    told = members * (members.sum(dim=1, keepdim=True) > 1)
    return (logits.log_softmax(dim=-1) * told.unsqueeze(1)).sum(dim=(2, 3))


def even_share(support: TaskBatch) -> Tensor | float:
    """Target of a class where all are equally likely, for as many as there are."""
    assert support.n_classes is not None
    if support.class_mask is None:
        return 1 / support.n_classes
    n_classes = support.class_mask.sum(dim=1).to(support.X.dtype)
    return (1 / n_classes)[:, None, None]


class Names(nn.Module):
    """A learned vector for each column that means the same in all tasks.

    Parameters
    ----------
    n_names : int
        Such columns: the first of the wide table. Any other has the vector zero.
    width : int
        Length of the vectors.
    """

    def __init__(self, n_names: int, width: int):
        super().__init__()
        self.n_names = n_names
        self.vectors = nn.Parameter(torch.zeros(n_names, width))

    def forward(self, columns: Tensor) -> Tensor:
        """Vectors ``(n_tasks, n_columns, width)`` of the columns at these positions."""
        if self.n_names == 0:
            return self.vectors.new_zeros(*columns.shape, self.vectors.shape[1])
        known = columns < self.n_names
        if self.training:
            known = known & (torch.rand_like(columns) >= HIDDEN)
        vectors = self.vectors[columns.long().clamp(max=self.n_names - 1)]
        return vectors * known.unsqueeze(-1).to(vectors.dtype)


class NamedSlopes(nn.Module):
    """What a linear model of all training tasks says of a row, by columns with a name.

    A column that a row lacks counts as average, and so does one without a name. The
    outer loop does not train it.

    Parameters
    ----------
    n_names : int
        Columns that mean the same in all tasks: the first of the wide table.
    n_outputs : int, default=1
        Classes that mean the same in all tasks, 1 for numbers.
    hidden : float, default=0.0
        How often a column is hidden in training, as if it had no name.
    """

    center: Tensor
    scale: Tensor
    slope: Tensor
    constant: Tensor

    def __init__(self, n_names: int, n_outputs: int = 1, hidden: float = 0.0):
        super().__init__()
        self.hidden = hidden
        self.register_buffer("center", torch.zeros(n_names))
        self.register_buffer("scale", torch.ones(n_names))
        self.register_buffer("slope", torch.zeros(n_names, n_outputs))
        self.register_buffer("constant", torch.zeros(n_outputs))

    def here(self, support: TaskBatch) -> Tensor:
        """Columns that tasks have, ``(n_tasks, n_names)``.

        Those with values in the support; all, where that has no rows.
        """
        known = _values(support)[1][..., : len(self.slope)]
        empty = support.weights.sum(dim=1, keepdim=True) == 0
        here = (known.sum(dim=1) > 0) | empty
        if self.training and self.hidden:
            here = here & (torch.rand(here.shape, device=here.device) >= self.hidden)
        return here.to(known.dtype)

    def forward(self, batch: TaskBatch, here: Tensor) -> Tensor:
        """Means or logits ``(n_tasks, n_rows, n_outputs)``."""
        X, known = (part[..., : len(self.slope)] for part in _values(batch))
        cells = ((X - self.center) / self.scale).clamp(-FARTHEST, FARTHEST) * known
        return cells @ (self.slope * here.unsqueeze(-1)) + self.constant


class TargetScale(nn.Module):
    """What tasks have in common of numbers to be predicted, and how each departs.

    Of the targets, `NamedSlopes` are taken off. Level and spread of what remains are
    shrunk towards those of all tasks.

    Parameters
    ----------
    n_names : int
        Columns that mean the same in all tasks.
    """

    variance: Tensor

    def __init__(self, n_names: int):
        super().__init__()
        self.named = NamedSlopes(n_names)
        # Of what slopes leave, over all tasks.
        self.register_buffer("variance", torch.ones(()))
        self.log_strength = nn.Parameter(torch.zeros(()))

    def forward(self, support: TaskBatch) -> tuple[Tensor, TaskState]:
        """Standardised targets ``(n_tasks, n_rows, 1)``, zero for padding.

        And ``level`` and ``spread`` of tasks, each ``(n_tasks, 1)``, and the ``named``
        columns that they have.
        """
        assert support.y is not None
        weights, strength = support.weights, self.log_strength.exp()
        count = weights.sum(dim=1, keepdim=True)
        here = self.named.here(support)
        y = (support.y - self.named(support, here).squeeze(-1)) * weights
        level = y.sum(dim=1, keepdim=True) / (count + strength)
        moved = (y - level) * weights
        squares = moved.square().sum(dim=1, keepdim=True)
        squares = squares + strength * self.variance
        spread = (squares / (count + strength)).sqrt()
        state = {"level": level, "spread": spread, "named": here}
        return (moved / spread).unsqueeze(-1), state

    def undo(self, means: Tensor, state: TaskState, query: TaskBatch) -> Tensor:
        """Predictions ``(n_tasks, n_rows)`` from standardised ones of query rows."""
        common = self.named(query, state["named"]).squeeze(-1)
        return means * state["spread"] + state["level"] + common
