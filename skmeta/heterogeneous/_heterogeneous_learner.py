"""Codes of columns and a closed-form head, for tables whose columns differ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..closed_form._ridge_learner import ALPHA_GAIN
from ..outer_loop import Learner, TaskState, one_hot, only_existing, which_classes
from ..tasks._batch import TaskBatch
from ._columns_learner import (
    HIDDEN,
    NamedSlopes,
    Names,
    TargetScale,
    cells_of,
    class_frequency,
    class_likelihood,
    columns_of,
    even_share,
)
from ._local_ridge import MULTIPLES, LocalRidge, size_of
from ._ridge_path import ridge_path


class ColumnSet(Learner):
    """Infers from the support what each column means, then solves for a linear head.

    A column's *code* is pooled over its (value, target) pairs in the support rows. A
    row is embedded by its cells, each seen together with the code of its column,
    pooled over columns. The head is ridge regression on that embedding and on the
    cells themselves, scaled by a relevance that is read off the code. It is solved for
    several regularisations, whose solutions are averaged by how well each tells rows
    of the support that are left out. What it says is added to what regressions on the
    support rows alone say, see `LocalRidge`.

    Parameters
    ----------
    backbone : nn.Module
        Maps cells ``(n_cells, 1 + width)``, a value and the code of its column, to
        features.
    n_features : int
        Number of features.
    width : int, default=32
        Width of a code.
    n_classes : int, default=None
        Size of a label space that all tasks share; None for regression and for labels
        that exist only inside their task.
    classifier : bool, default=False
        Whether targets are classes.
    n_names : int, default=0
        Columns that mean the same in all tasks, the first of the wide table.
    class_balanced : bool, default=True
        Whether classes are equally frequent in training.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        width: int = 32,
        n_classes: int | None = None,
        classifier: bool = False,
        n_names: int = 0,
        class_balanced: bool = True,
    ):
        super().__init__(backbone)
        self.classifier = classifier
        self.pair = _layers(1 if classifier else 3, width, width)
        self.code = _layers(2 * width + 2 if classifier else width + 2, width, width)
        self.names = Names(n_names, width)
        self.relevance = nn.Linear(width, 1)
        self.mix = nn.Sequential(nn.Linear(n_features, n_features), nn.ReLU())
        # Training starts close to ridge regression on the cells alone.
        self.log_gain = nn.Parameter(torch.tensor(-1.0))
        # Of the regularisation: at 10 rows of 8 columns, and how it goes with both.
        self.log_alpha = nn.Parameter(torch.zeros(3))
        # Of each multiple: how likely it is before the support, how that goes with the
        # number of rows, and how far its outputs are stretched.
        self.log_before = nn.Parameter(torch.zeros(len(MULTIPLES)))
        self.by_rows = nn.Parameter(torch.zeros(len(MULTIPLES)))
        self.log_stretch = nn.Parameter(torch.zeros(len(MULTIPLES)))
        # What the likelihood of rows that are left out counts for.
        self.log_trust = nn.Parameter(torch.tensor(-1.0))
        self.classes: nn.Parameter | None = None
        self.prior: nn.Parameter | None = None
        if n_classes is not None or not classifier:
            self.prior = nn.Parameter(torch.zeros(n_features + 1, n_classes or 1))
        self.named: NamedSlopes | None = None
        if n_classes is not None:
            self.named = NamedSlopes(n_names, n_classes, HIDDEN)
            self.classes = nn.Parameter(torch.randn(n_classes, width) / width**0.5)
        self.local = LocalRidge(classifier, class_balanced)
        if classifier:
            self.log_scale = nn.Parameter(torch.tensor(5.0).log())
        else:
            self.target_scale = TargetScale(n_names)

    def adapt(self, support: TaskBatch) -> TaskState:
        """Columns with their codes, and the weights of the head."""
        state = columns_of(support)
        cells, known = cells_of(state, support)
        targets = self._targets(support, state)
        state["codes"] = self._codes(cells, known, targets, state)
        state["relevance"] = nn.functional.softplus(
            self.relevance(state["codes"]).squeeze(-1)
        )
        features = self._features(state, cells, known, support)
        weights = self._head(features, targets, support, state)
        state["linear"], state["weights"] = weights.tensor_split(
            [cells.shape[2]], dim=1
        )
        if self.prior is not None:
            state["weights"] = state["weights"] + self.prior
        if self.named is not None:
            state["named"] = self.named.here(support)
        state |= self.local.adapt(cells, targets, state, support, self.names.n_names)
        return {**state, **which_classes(support, weights)}

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""
        cells, known = cells_of(state, query)
        features = self._features(state, cells, known, query)
        correction = self._correction(state, features)
        if self.named is not None:
            correction = correction + self.named(query, state["named"])
        output = self.local.corrected(state, cells, correction)
        if not self.classifier:
            return self.target_scale.undo(output.squeeze(-1), state, query)
        return only_existing(output, state)

    def _correction(self, state: TaskState, features: Tensor) -> Tensor:
        """What the head adds to the regressions on the rows of the task alone."""
        output = features @ torch.cat([state["linear"], state["weights"]], dim=1)
        return self.log_scale.exp() * output if self.classifier else output

    def _head(
        self, features: Tensor, targets: Tensor, support: TaskBatch, state: TaskState
    ) -> Tensor:
        """Mean of the ridge heads, on top of the prior; one column for each output."""
        if self.classifier:  # what the absence of a class says is for the constant
            targets = (targets - even_share(support)) * features[..., -1:]
        before: Tensor | float = 0.0
        if self.prior is not None:
            before = features[..., -len(self.prior) :] @ self.prior
        alphas = self._alpha(support, state) * features.new_tensor(MULTIPLES)
        share = self._shares(support, state).unsqueeze(-1).sqrt()
        remaining = targets - before
        path, left_out = ridge_path(share * features, share * remaining, alphas)
        left_out = left_out / share.clamp(min=1e-9).unsqueeze(1)
        stretch = self.log_stretch.exp()
        told = stretch[:, None, None] * (remaining.unsqueeze(1) - left_out)
        told = told + (targets - remaining).unsqueeze(1)
        belief = self._belief(told, targets, support)
        return torch.einsum("tg,tgfo->tfo", belief * stretch, path)

    def _targets(self, support: TaskBatch, state: TaskState) -> Tensor:
        """Targets of the head ``(n_tasks, n_rows, n_outputs)``, zero for padding."""
        if self.classifier:
            return one_hot(support, support.X.dtype)
        targets, scale = self.target_scale(support)
        state |= scale
        return targets

    def _alpha(self, support: TaskBatch, state: TaskState) -> Tensor:
        """Regularisation ``(n_tasks, 1)``, which depends on the size of a task."""
        size = size_of(support.weights.sum(dim=1), state["present"].sum(dim=1))
        return (size @ (ALPHA_GAIN * self.log_alpha)).exp().unsqueeze(-1)

    def _belief(self, told: Tensor, targets: Tensor, support: TaskBatch) -> Tensor:
        """How likely each multiple is, ``(n_tasks, n_multiples)``.

        By how well the others of the support tell each of its rows.
        """
        n_rows = support.weights.sum(dim=1, keepdim=True).clamp(min=1)
        before = self.log_before + self.by_rows * (n_rows / 10).log()
        if self.classifier:
            members = one_hot(support, told.dtype)
            frequency = class_frequency(members.sum(dim=1, keepdim=True), support)
            logits = self.log_scale.exp() * told + frequency.unsqueeze(1)
            likelihood = class_likelihood(logits, members, support)
        else:
            error = (targets.unsqueeze(1) - told).square().sum(dim=(2, 3)) / n_rows
            likelihood = -0.5 * n_rows * (error + 1e-6).log()
        return (before + self.log_trust.exp() * likelihood).softmax(dim=-1)

    def _shares(self, support: TaskBatch, state: TaskState) -> Tensor:
        """Weights of rows, such that all classes weigh the same, ``(n_tasks, n_rows)``.

        How frequent a class is enters as a logit instead, which few rows hardly move.
        """
        if not self.classifier:
            return support.weights
        members = one_hot(support, support.X.dtype)
        counts = members.sum(dim=1, keepdim=True)
        n_seen = (counts > 0).sum(dim=2, keepdim=True).clamp(min=1)
        share = members / (counts.clamp(min=1) * n_seen)
        return share.sum(dim=2) * counts.sum(dim=2)

    def _codes(
        self, cells: Tensor, known: Tensor, targets: Tensor, state: TaskState
    ) -> Tensor:
        """Codes ``(n_tasks, n_columns, width)``, whatever the order of the rows."""
        if self.classifier:
            pooled = self._pool_classes(cells, known, targets)
        else:
            y = targets.expand(-1, -1, cells.shape[2])
            pairs = self.pair(torch.stack([cells, y, cells * y], dim=-1))
            count = known.sum(dim=1).unsqueeze(-1)
            mean = (pairs * known.unsqueeze(-1)).sum(dim=1) / count.clamp(min=1)
            pooled = torch.cat([mean, count.log1p(), count.sqrt() / 10], dim=-1)
        return self.code(pooled) + self.names(state["columns"])

    def _pool_classes(self, cells: Tensor, known: Tensor, members: Tensor) -> Tensor:
        """Mean and deviation over classes of the mean of each class, by column."""
        pairs = self.pair(cells.unsqueeze(-1)) * known.unsqueeze(-1)
        counts = torch.einsum("tnc,tnk->tkc", members, known).unsqueeze(-1)
        sums = torch.einsum("tnc,tnkh->tkch", members, pairs)
        means = sums / counts.clamp(min=1)
        if self.classes is not None:  # a class is the same in all tasks
            means = means + nn.functional.relu(means + self.classes)
        seen = (counts > 0).to(means.dtype)
        n_seen = seen.sum(dim=2).clamp(min=1)
        mean = (means * seen).sum(dim=2) / n_seen
        away = ((means - mean.unsqueeze(2)) * seen).square().sum(dim=2) / n_seen
        shots = counts.sum(dim=2) / n_seen
        return torch.cat([mean, (away + 1e-6).sqrt(), shots.log1p(), n_seen.log()], -1)

    def _features(
        self, state: TaskState, cells: Tensor, known: Tensor, batch: TaskBatch
    ) -> Tensor:
        """Scaled cells, embedding and a constant; rows of padding are zero."""
        code = state["codes"].unsqueeze(1).expand(-1, cells.shape[1], -1, -1)
        seen = torch.cat([cells.unsqueeze(-1), code], dim=-1)
        flat = self.backbone(seen.flatten(0, 2)).flatten(1)
        features = flat.unflatten(0, cells.shape) * known.unsqueeze(-1)
        count = known.sum(dim=2, keepdim=True).clamp(min=1)
        embedded = self.mix(features.sum(dim=2) / count)
        present = batch.weights.to(cells.dtype).unsqueeze(-1)
        n_columns = state["present"].sum(dim=1).clamp(min=1)[:, None, None]
        scaled = cells * (state["relevance"].unsqueeze(1) / n_columns).sqrt()
        gain = self.log_gain.exp() / embedded.shape[-1] ** 0.5
        embedded = gain * embedded * present
        return torch.cat([scaled, embedded, present], dim=-1)


def _layers(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))
