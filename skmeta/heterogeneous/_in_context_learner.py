"""A transformer over the rows and columns of a support set, as a Torch learner."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ..outer_loop import Learner, TaskState, one_hot, only_existing, which_classes
from ..tasks._batch import TaskBatch
from ._columns_learner import (
    HIDDEN,
    NEVER,
    NamedSlopes,
    Names,
    TargetScale,
    cells_of,
    columns_of,
)
from ._local_ridge import LocalRidge

#: Scores of attention that are computed at a time without a graph.
_MAX_SCORES = 20_000_000


class RowAndColumnTransformer(Learner):
    """Reads support rows with their targets, and query rows beside them.

    Each cell is a token, and each row has one more, which carries its target. Layers
    alternate between attention among the tokens of a row and attention, within a
    column, to the tokens of the support rows. Neither rows nor columns have positions,
    so their order does not matter. Classes are known only by which support rows share
    one, so their order does not matter either. A query row votes for the classes of
    the support rows by how alike their tokens are, column by column: tokens of
    different columns are not compared, since a token alone does not tell its column.
    Votes are added to what regressions on the support rows alone say, see `LocalRidge`.

    Parameters
    ----------
    backbone : nn.Module
        Maps cells ``(n_cells, 2)``, a value and whether there is one, to tokens.
    n_features : int
        Width of a token, a multiple of `n_heads`.
    n_layers, n_heads : int, default=2 and 4
        Layers, and heads of their attention.
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
        n_layers: int = 2,
        n_heads: int = 4,
        n_classes: int | None = None,
        classifier: bool = False,
        n_names: int = 0,
        class_balanced: bool = True,
    ):
        super().__init__(backbone)
        if n_features % n_heads:
            raise ValueError(
                f"The backbone gives {n_features} features, which must be a multiple "
                f"of n_heads={n_heads}."
            )
        self.width = n_features
        self.classifier = classifier
        self.names = Names(n_names, n_features)
        self.layers = cast(
            "Iterable[_Layer]",
            nn.ModuleList(_Layer(n_features, n_heads) for _ in range(n_layers)),
        )
        self.start = nn.Parameter(torch.randn(2, n_features) / n_features**0.5)
        self.norm = nn.LayerNorm(n_features)
        self.to_query = nn.Linear(n_features, n_features)
        self.to_key = nn.Linear(n_features, n_features)
        # Equal at first: then votes are those of a kernel in each column.
        self.to_query.load_state_dict(self.to_key.state_dict())
        self.prior: nn.Linear | None = None
        self.named: NamedSlopes | None = None
        if n_classes is not None:
            self.named = NamedSlopes(n_names, n_classes, HIDDEN)
            self.prior = nn.Linear(n_features, n_classes)
        self.local = LocalRidge(classifier, class_balanced)
        if not classifier:
            self.target = nn.Linear(1, n_features)
            self.offset = nn.Linear(n_features, 1)
            self.target_scale = TargetScale(n_names)

    def adapt(self, support: TaskBatch) -> TaskState:
        """What each layer shows of the support rows, and the keys of their votes."""
        state = columns_of(support)
        state["rows"] = support.weights.to(state["center"].dtype)
        targets = self._targets(support, state)
        cells, known = cells_of(state, support)
        tokens = self._tokens(state, cells, known, targets)
        if self.named is not None:
            state["named"] = self.named.here(support)
        state |= self.local.adapt(cells, targets, state, support, self.names.n_names)
        kin = None
        if self.classifier:
            state["targets"] = targets
            kin = targets @ targets.transpose(1, 2)
        for number, layer in enumerate(self.layers):
            mixed, memory = layer.mix(tokens, state["present"])
            state[f"{number} memory"] = memory
            tokens = layer.look(mixed, memory, memory, state["rows"], kin)
        here = nn.functional.pad(state["present"], (1, 0), value=1.0)[:, None, :, None]
        state["keys"] = self.to_key(self.norm(tokens)) * here / here.sum(2, True).sqrt()
        return {**state, **which_classes(support, tokens)}

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""
        cells, known = cells_of(state, query)
        tokens = self._tokens(state, cells, known, None)
        for number, layer in enumerate(self.layers):
            mixed, normed = layer.mix(tokens, state["present"])
            memory = state[f"{number} memory"]
            tokens = layer.look(mixed, normed, memory, state["rows"])
        tokens = self.norm(tokens)
        keys = state["keys"].flatten(2).transpose(1, 2)
        scores = self.to_query(tokens).flatten(2) @ keys / self.width**0.5
        scores = scores.masked_fill(state["rows"].unsqueeze(1) == 0, NEVER)
        votes = self._votes(tokens[:, :, 0], scores, state)
        if self.named is not None:
            votes = votes + self.named(query, state["named"])
        output = self.local.corrected(state, cells, votes)
        if not self.classifier:
            return self.target_scale.undo(output.squeeze(-1), state, query)
        return only_existing(output, state)

    def _votes(self, rows: Tensor, scores: Tensor, state: TaskState) -> Tensor:
        if not self.classifier:
            # A row of zeros beside the support rows: there may be none.
            share = nn.functional.pad(scores, (1, 0)).softmax(-1)[..., 1:]
            return share @ state["targets"] + self.offset(rows)
        members = state["targets"].unsqueeze(1)
        votes = (
            scores.unsqueeze(-1) - members.sum(dim=2, keepdim=True).clamp(min=1).log()
        )
        votes = votes.masked_fill(members == 0, NEVER)
        if self.prior is not None:
            votes = torch.cat([votes, self.prior(rows).unsqueeze(2)], dim=2)
        return votes.logsumexp(dim=2)

    def _targets(self, support: TaskBatch, state: TaskState) -> Tensor:
        """One-hot classes or standardised targets, zero for padding."""
        if self.classifier:
            return one_hot(support, state["center"].dtype)
        state["targets"], scale = self.target_scale(support)
        state |= scale
        return state["targets"]

    def _tokens(
        self, state: TaskState, cells: Tensor, known: Tensor, targets: Tensor | None
    ) -> Tensor:
        """Tokens ``(n_tasks, n_rows, 1 + n_columns, width)``, the row's own first."""
        flat = torch.stack([cells, known], dim=-1).flatten(0, 2)
        tokens = self.backbone(flat).flatten(1).unflatten(0, cells.shape)
        tokens = tokens + self.names(state["columns"]).unsqueeze(1)
        own = self.start[0 if targets is None else 1].expand(*cells.shape[:2], -1)
        if targets is not None and not self.classifier:
            own = own + self.target(targets)
        return torch.cat([own.unsqueeze(2), tokens], dim=2)


class _Layer(nn.Module):
    """Attention among the tokens of a row, then to the rows of a column, then a MLP."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.within_row = _Attention(width, n_heads)
        self.within_column = _Attention(width, n_heads)
        # How much more rows of one class attend to each other, by head.
        self.kinship = nn.Parameter(torch.linspace(-2, 2, n_heads))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def mix(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens that have seen the others of their row, and the same normalised."""
        normed = self.norms[0](tokens)
        # The token of the row itself is always there.
        absent = nn.functional.pad(1 - present, (1, 0))[:, None, None, None]
        mixed = tokens + self.within_row(normed, normed, absent * NEVER)
        return mixed, self.norms[1](mixed)

    def look(
        self,
        mixed: Tensor,
        normed: Tensor,
        memory: Tensor,
        present: Tensor,
        kin: Tensor | None = None,
    ) -> Tensor:
        """Tokens that have seen the support rows in `memory`, those that are present.

        Beside them stands a row of zeros, since there may be none.
        """
        bias = nn.functional.pad(1 - present, (1, 0))[:, None, None, None] * NEVER
        if kin is not None:
            kin = nn.functional.pad(kin, (1, 0))[:, None, None]
            bias = bias + self.kinship[:, None, None] * kin
        rows = nn.functional.pad(memory, (0, 0, 0, 0, 1, 0)).transpose(1, 2)
        found = self.within_column(normed.transpose(1, 2), rows, bias)
        mixed = mixed + found.transpose(1, 2)
        return mixed + self.mlp(self.norms[2](mixed))


class _Attention(nn.Module):
    """Multi-head attention over the last axis but one."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.to_query = nn.Linear(width, width)
        self.to_memory = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """What the queries find; `bias` is added to scores, one axis more for heads."""
        keys, values = (self._heads(m) for m in self.to_memory(memory).chunk(2, -1))
        queries = self._heads(self.to_query(queries))
        parts = [
            nn.functional.scaled_dot_product_attention(part, keys, values, bias_part)
            for part, bias_part in self._slices(queries, keys, bias)
        ]
        found = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)
        return self.out(found.transpose(-2, -3).flatten(-2))

    @staticmethod
    def _slices(queries: Tensor, keys: Tensor, bias: Tensor):
        """Queries in slices of bounded memory, unless a graph holds them all anyway."""
        n_queries = queries.shape[-2]
        size = n_queries
        if not torch.is_grad_enabled():
            per_query = queries[..., :1, 0].numel() * keys.shape[-2]
            size = _MAX_SCORES // max(per_query, 1)
        for start in range(0, max(n_queries, 1), max(size, 1)):
            rows = slice(start, start + max(size, 1))
            part = bias if bias.shape[-2] == 1 else bias[..., rows, :]
            yield queries[..., rows, :], part

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)
