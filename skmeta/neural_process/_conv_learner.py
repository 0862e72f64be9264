"""Convolutional conditional neural process as a Torch learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..outer_loop import DensityLearner, TaskState
from ..outer_loop._density import positive
from ..tasks._batch import TaskBatch
from ._neural_process_learner import MIN_STD

_KERNEL_SIZE = 5
#: Added to the density that the mean target of a grid point is divided by.
_EPSILON = 1e-2
#: Grid points of a task to either side of its centre at the most: bounds memory where
#: a row lies far out, which is then taken to lie there.
_MAX_CELLS = 2048


class ConvCNP(DensityLearner):
    """Convolutional conditional neural process on a line [1]_.

    A set convolution puts support rows on a grid, as a density of rows and a mean
    target around each grid point. A convolutional network turns these into mean and
    deviation at each grid point, and a second set convolution reads them off at query
    rows. All of it looks at distances only, so predictions move along with the rows:
    exactly so by multiples of the spacing.

    The grid has no end. It is evaluated where support rows have an influence, by
    convolutions without padding; everywhere else the network sees an empty grid and
    has the same output, which is also the prediction for a task without rows. What is
    predicted for a row thus depends on no other query row.

    Set convolutions have cubic B-splines as their kernel, rather than Gaussians with
    a learned length: they sum to one and reach four grid points, so that a row costs
    the same on every grid, and the network after them can widen them.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to their position on the line.
    spacing : float, default=0.1
        Distance of grid points.
    width : int, default=32
        Channels of the network.
    n_layers : int, default=4
        Layers of the network; the steps of the kernel double from layer to layer, so
        that it sees ``2 * (2 ** n_layers - 1)`` grid points to either side.

    References
    ----------
    .. [1] Gordon et al. "Convolutional conditional neural processes", ICLR 2020.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spacing: float = 0.1,
        width: int = 32,
        n_layers: int = 4,
    ):
        super().__init__(backbone)
        self.spacing = spacing
        self.network = _DilatedNetwork(width, n_layers)

    def adapt(self, support: TaskBatch) -> TaskState:
        """What the network says of each grid point, ``(n_tasks, n_cells, 2)``.

        It is told apart from what it says of an empty grid, ``(n_tasks, 2)``, and
        begins at the grid point ``origin``.
        """
        assert support.y is not None
        first, kernel = self._cells(support)
        real = support.weights > 0
        present = real.to(kernel.dtype)
        n_rows = real.sum(dim=1).clamp(min=1)
        center = (first * real).sum(dim=1) // n_rows
        first = first.clamp(
            (center - _MAX_CELLS).unsqueeze(1), (center + _MAX_CELLS).unsqueeze(1)
        )
        # Padding lies at the centre, with no weight.
        first = torch.where(real, first, center.unsqueeze(1))
        beyond = 2 * self.network.reach
        if first.shape[1]:
            start, stop = first.amin(dim=1), first.amax(dim=1)
        else:
            start = stop = center
        n_cells = int((stop - start).max()) + 4 + 2 * beyond
        cells = (first - start.unsqueeze(1) + beyond).unsqueeze(-1)
        cells = (cells + torch.arange(4, device=cells.device)).flatten(1)
        kernel = kernel * present.unsqueeze(-1)
        empty = kernel.new_zeros(len(kernel), n_cells)
        density = empty.scatter_add(1, cells, kernel.flatten(1))
        targets = kernel * support.y.unsqueeze(-1)
        signal = empty.scatter_add(1, cells, targets.flatten(1))
        grid = torch.stack([density.log1p(), signal / (density + _EPSILON)], dim=1)
        untold = self.network(grid.new_zeros(1, 2, 2 * self.network.reach + 1))
        return {
            "told": (self.network(grid) - untold).transpose(1, 2),
            "untold": untold.squeeze(-1).expand(len(grid), -1),
            "origin": (start - self.network.reach).to(kernel.dtype),
        }

    def density(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Mean and deviation of a new observation: ``(n_tasks, n_rows, 2)``."""
        first, kernel = self._cells(query)
        told = state["told"]
        n_tasks, n_rows = first.shape
        cells = (first - state["origin"].long().unsqueeze(1)).unsqueeze(-1)
        cells = (cells + torch.arange(4, device=cells.device)).flatten(1)
        inside = (cells >= 0) & (cells < told.shape[1])
        cells = cells.clamp(0, told.shape[1] - 1).unsqueeze(-1).expand(-1, -1, 2)
        around = told.gather(1, cells) * inside.unsqueeze(-1)
        around = around.unflatten(1, (n_rows, 4))
        raw = (around * kernel.unsqueeze(-1)).sum(dim=2) + state["untold"].unsqueeze(1)
        mean, spread = raw.unbind(-1)
        return torch.stack([mean, positive(spread, MIN_STD)], dim=-1)

    def _cells(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """First grid point that a row reaches, and its weight in that and the next 3.

        ``(n_tasks, n_rows)`` and ``(n_tasks, n_rows, 4)``.
        """
        position = self.embed(batch).squeeze(-1) / self.spacing
        below = position.detach().floor()
        f = (position - below).unsqueeze(-1)
        kernel = torch.cat(
            [
                (1 - f) ** 3,
                3 * f**3 - 6 * f**2 + 4,
                -3 * f**3 + 3 * f**2 + 3 * f + 1,
                f**3,
            ],
            dim=-1,
        )
        # A position that has diverged is told by its weights.
        return below.nan_to_num().clamp(-(2**40), 2**40).long() - 1, kernel / 6


class _DilatedNetwork(nn.Module):
    """Residual layers of convolutions without padding, from two channels to two."""

    def __init__(self, width: int, n_layers: int):
        super().__init__()
        self.first = nn.Conv1d(2, width, _KERNEL_SIZE)
        self.rest = nn.ModuleList(
            nn.Conv1d(width, width, _KERNEL_SIZE, dilation=2**i)
            for i in range(1, n_layers)
        )
        self.last = nn.Conv1d(width, 2, 1)
        #: Grid points that are seen, and lost, on either side.
        self.reach = (_KERNEL_SIZE // 2) * (2**n_layers - 1)

    def forward(self, grid: Tensor) -> Tensor:
        """Two numbers for each grid point but the outermost `reach` on either side."""
        hidden = self.first(grid)
        for i, layer in enumerate(self.rest, 1):
            margin = _KERNEL_SIZE // 2 * 2**i
            kept = hidden[..., margin : hidden.shape[-1] - margin]
            hidden = kept + layer(hidden.relu())
        return self.last(hidden.relu())
