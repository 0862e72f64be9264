"""Ridge regressions on the rows of a task, mixed by what each leaves out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..closed_form._ridge_learner import ALPHA_GAIN
from ..outer_loop import TaskState
from ..tasks._batch import TaskBatch
from ._columns_learner import (
    NEVER,
    class_frequency,
    class_likelihood,
    even_share,
    named_share,
)
from ._ridge_path import ridge_path

#: Regularisations that are tried, as multiples of the one that is learned.
MULTIPLES = (0.01, 0.1, 1.0, 10.0)
#: Support rows at the most that others are compared with.
MAX_LANDMARKS = 256
#: Added to the diagonal of their similarities: rows may be equal.
JITTER = 1e-4
#: Power of the frequency of classes by which each expert is corrected at first: ridge
#: regression leans towards frequent classes, that of a kernel hardly regularised most.
_BY_FREQUENCY = (-0.4, -0.35, -0.3, -0.1, -1.0, -0.75, -0.3, -0.2)
#: Added to the probabilities that a network gives classes.
_LEAST = 0.03


class LocalRidge(nn.Module):
    r"""Linear and kernel ridge regression, each for several regularisations.

    The kernel compares rows by the distances of their cells,
    :math:`k(x, x') = \exp(-\frac{1}{d h} \sum_j |x_j - x'_j|)`: one cell that is far
    out says less that way than it does squared. Each regression is an *expert*. What it
    would have said of every support row without that row is known in closed form. By
    how well it would have done, and by the size of the task, experts are mixed: their
    probabilities of classes, or their means. A network may *correct* the mixture.

    What is learned over tasks are regularisations, the width :math:`h`, how far outputs
    are stretched into logits, and what the size of a task, the rows left out and the
    network count for.

    Parameters
    ----------
    classifier : bool
        Whether targets are classes.
    class_balanced : bool, default=True
        Whether classes are equally frequent in training, which then can teach nothing
        of what their frequency says.
    """

    def __init__(self, classifier: bool, class_balanced: bool = True):
        super().__init__()
        self.classifier = classifier
        # How each of these goes with the size of a task, see `size_of`. Of both kinds:
        self.log_alpha = nn.Parameter(torch.zeros(2, 3))
        # Of each expert: how far its outputs are stretched, and how likely it is before
        # the support.
        self.log_stretch = nn.Parameter(torch.zeros(2 * len(MULTIPLES), 3))
        self.log_before = nn.Parameter(torch.zeros(2 * len(MULTIPLES), 3))
        # Of the correction, also by the share of columns that are known. A network that
        # has met none of them says less of other tables than training makes believe.
        self.log_share = nn.Parameter(torch.tensor([-2.3, 0.0, 0.0, 1.6]))
        self.log_width = nn.Parameter(torch.tensor(0.5))
        # What the likelihood of rows that are left out counts for.
        self.log_trust = nn.Parameter(torch.tensor(-1.0))
        if classifier:
            self.by_frequency = nn.Parameter(
                torch.tensor(_BY_FREQUENCY), requires_grad=not class_balanced
            )
            with torch.no_grad():
                self.log_stretch[:, 0] = torch.tensor(5.0).log()
        else:  # where slopes in common are taken off, most of what is left is noise
            with torch.no_grad():
                self.log_alpha[:, 0] = torch.tensor(10.0).log() / ALPHA_GAIN

    def adapt(
        self,
        cells: Tensor,
        targets: Tensor,
        state: TaskState,
        support: TaskBatch,
        n_names: int,
    ) -> TaskState:
        """Weights of all experts, and how much to believe each.

        Parameters
        ----------
        cells : Tensor of shape (n_tasks, n_rows, n_columns)
            Standardised cells of the support; rows of padding are zero.
        targets : Tensor of shape (n_tasks, n_rows, n_outputs)
            One-hot classes or standardised targets, zero for padding.
        state : dict of Tensor
            With ``columns`` and which of them are ``present``, and ``named`` where
            what is common to tasks is known by name.
        support : TaskBatch
            Rows of each task.
        n_names : int
            Columns that mean the same in all tasks, the first of the wide table.

        Returns
        -------
        dict of Tensor
            Entries of the state that begin with "local".
        """
        present = support.weights.to(cells.dtype)
        n_rows, n_columns = present.sum(dim=1), state["present"].sum(dim=1)
        size = size_of(n_rows, n_columns)
        alphas = (ALPHA_GAIN * size @ self.log_alpha.T).exp().unsqueeze(-1)
        residual = targets
        if self.classifier:  # what the absence of a class says is for the constant
            residual = (targets - even_share(support)) * present.unsqueeze(-1)
        found, left_out = self._experts(
            cells, residual, alphas * cells.new_tensor(MULTIPLES), present, state
        )
        found["local stretch"] = (size @ self.log_stretch.T).exp()
        output = residual.unsqueeze(1) - left_out
        output = found["local stretch"][:, :, None, None] * output
        if self.classifier:
            counts = targets.sum(dim=1, keepdim=True)
            found["local frequency"] = class_frequency(counts, support)
            others = class_frequency(counts - targets, support)
            output = output + self.by_frequency[:, None, None] * others.unsqueeze(1)
            likelihood = class_likelihood(output, targets, support)
        else:
            error = (targets.unsqueeze(1) - output).square().sum(dim=(2, 3))
            n = n_rows.clamp(min=1).unsqueeze(1)
            likelihood = -0.5 * n * (error / n + 1e-6).log()
        belief = size @ self.log_before.T + self.log_trust.exp() * likelihood
        found["local belief"] = belief.log_softmax(dim=1)
        known = named_share(state, n_names)
        found["local share"] = self._share(size, known, n_rows)
        return found

    def _experts(
        self,
        cells: Tensor,
        targets: Tensor,
        alphas: Tensor,
        present: Tensor,
        state: TaskState,
    ) -> tuple[TaskState, Tensor]:
        """Weights of all experts, and their residuals of rows that are left out."""
        linear, linear_out = ridge_path(
            _linear(cells, present, state), targets, alphas[:, 0]
        )
        landmarks, marked = landmarks_of(cells, present)
        factor = _factor(self._similarity(landmarks, landmarks, state), marked)
        similar = self._similarity(cells, landmarks, state)
        similar = similar * present.unsqueeze(-1) * marked.unsqueeze(1)
        # Features whose inner products are the kernel, and a constant.
        features = torch.linalg.solve_triangular(factor, similar.mT, upper=False).mT
        features = torch.cat([present.unsqueeze(-1), features], dim=-1)
        kernel, kernel_out = ridge_path(features, targets, alphas[:, 1])
        constant, kernel = kernel.tensor_split([1], dim=2)
        weights = {
            "local linear": linear,
            "local constant": constant,
            "local kernel": torch.linalg.solve_triangular(
                factor.mT.unsqueeze(1), kernel, upper=True
            ),
            "local landmarks": landmarks * marked.unsqueeze(-1),
        }
        return weights, torch.cat([linear_out, kernel_out], dim=1)

    def _share(self, size: Tensor, known: Tensor, n_rows: Tensor) -> Tensor:
        """What the correction counts for, ``(n_tasks,)``."""
        share = torch.cat([size, known.unsqueeze(1)], dim=1) @ self.log_share
        if self.classifier:
            return share.exp()
        # Of an average: without any row, the network alone speaks.
        return share.exp() / (share.exp() + n_rows / (n_rows + 1))

    def corrected(self, state: TaskState, cells: Tensor, correction: Tensor) -> Tensor:
        """Logits or means ``(n_tasks, n_rows, n_outputs)`` of query rows.

        Of means, what the experts and a network say is averaged. Of logits it is added
        up, and the correction is bounded: a network that has never seen such a table
        may be sure and wrong.
        """
        output = torch.cat(
            [
                _linear(cells, torch.ones_like(cells[..., 0]), state).unsqueeze(1)
                @ state["local linear"],
                self._similarity(cells, state["local landmarks"], state).unsqueeze(1)
                @ state["local kernel"]
                + state["local constant"],
            ],
            dim=1,
        )
        output = state["local stretch"][:, :, None, None] * output
        belief = state["local belief"][:, :, None, None]
        share = state["local share"][:, None, None]
        if not self.classifier:
            return (1 - share) * (belief.exp() * output).sum(dim=1) + share * correction
        frequency = state["local frequency"].unsqueeze(1)
        output = output + self.by_frequency[:, None, None] * frequency
        if "exists" in state:
            absent = state["exists"].unsqueeze(1) == 0
            output = output.masked_fill(absent.unsqueeze(1), NEVER)
            correction = correction.masked_fill(absent, NEVER)
        bounded = (_LEAST + correction.softmax(dim=-1)).log()
        return (belief + output.log_softmax(dim=-1)).logsumexp(dim=1) + share * bounded

    def _similarity(self, cells: Tensor, others: Tensor, state: TaskState) -> Tensor:
        n_columns = state["present"].sum(dim=1).clamp(min=1)[:, None, None]
        distance = torch.cdist(cells, others, p=1.0) / n_columns
        return (-distance / self.log_width.exp()).exp()


def size_of(n_rows: Tensor, n_columns: Tensor) -> Tensor:
    """One, and logarithms of rows and columns, ``(n_tasks, 3)``; 0 at 10 rows of 8."""
    rows, columns = (n_rows.clamp(min=1) / 10).log(), (n_columns.clamp(min=1) / 8).log()
    return torch.stack([torch.ones_like(rows), rows, columns], dim=1)


def landmarks_of(cells: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that others are compared with, and 1 for those that are not padding.

    All rows, or of more than `MAX_LANDMARKS` some at all distances from the centre, so
    that their order does not matter.
    """
    if cells.shape[1] <= MAX_LANDMARKS:
        return cells, present
    far = cells.detach().abs().sum(dim=-1)
    order = far.masked_fill(present == 0, torch.inf).argsort(dim=1)
    n_rows = present.sum(dim=1, keepdim=True)
    step = n_rows.clamp(min=MAX_LANDMARKS) / MAX_LANDMARKS
    place = (torch.arange(MAX_LANDMARKS, device=cells.device) * step).long()
    rows = order.gather(1, place)
    marked = (place < n_rows).to(cells.dtype)
    return cells.gather(1, rows.unsqueeze(-1).expand(-1, -1, cells.shape[2])), marked


def _linear(cells: Tensor, present: Tensor, state: TaskState) -> Tensor:
    """Features of the linear experts; rows of padding are zero."""
    n_columns = state["present"].sum(dim=1).clamp(min=1)[:, None, None]
    return torch.cat([present.unsqueeze(-1), cells / n_columns.sqrt()], dim=-1)


def _factor(similar: Tensor, marked: Tensor) -> Tensor:
    """Cholesky factor of similarities among landmarks; padding is left alone."""
    similar = similar * marked.unsqueeze(1) * marked.unsqueeze(2)
    diagonal = JITTER + 1 - marked
    factor, failed = torch.linalg.cholesky_ex(similar + diagonal.diag_embed())
    return factor.masked_fill(failed.bool()[:, None, None], torch.nan)
