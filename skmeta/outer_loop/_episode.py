"""The module that skorch trains: one meta-batch of episodes per forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..exceptions import DivergenceWarning, warn_caller
from ..inner_loop import in_chunks
from ..tasks._batch import TaskBatch
from ._learner import Learner

#: Padding classes get a logit this far below the smallest real one while training:
#: their probability vanishes, and the loss with label smoothing stays moderate.
_MASKED_LOGIT = 100.0


class Episode(nn.Module):
    """Adapts to support rows and predicts query rows.

    Parameters
    ----------
    learner : Learner
        The algorithm.
    chunk_size : int or None
        Tasks whose graph is held in memory at a time; None holds the meta-batch.
    """

    def __init__(self, learner: Learner, chunk_size: int | None = None):
        super().__init__()
        self.learner = learner
        self.chunk_size = chunk_size
        self.n_diverged = 0
        super().train()

    def train(self, mode: bool = True) -> Episode:
        """Set the mode of all modules, unless it is that of the last call.

        skorch asks for it before every step, and walking through the modules takes a
        fiftieth of the step of a small learner.
        """
        return self if mode == self.training else super().train(mode)

    def forward(self, support: dict[str, Tensor], query: dict[str, Tensor]) -> Tensor:
        """Predictions of real query rows: ``(n_rows, n_classes)`` or ``(n_rows,)``."""
        batches = _to_batch(support), _to_batch(query)
        if self.training:
            self.learner.begin_step()
        output = self._finite(*batches)
        if batches[1].class_mask is not None:
            output = _lift_masked(output, batches[1].class_mask)
        mask = batches[1].mask
        return output.flatten(0, 1) if mask is None else output[mask]

    def _predict(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        size = self.chunk_size
        if size is None or size >= support.n_tasks or not torch.is_grad_enabled():
            return self.learner.episode(support, query)
        parameters = [p for p in self.learner.parameters() if p.requires_grad]
        return in_chunks(self.learner.episode, support, query, parameters, size)

    def _finite(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Predictions without the tasks that diverge.

        A diverged task is computed anew without it rather than masked, because the
        gradient of a masked NaN is NaN. Its predictions are constant zeros.
        """
        output = self._predict(support, query)
        keep = _finite_tasks(output)
        if _all(keep):
            return output
        if self.training:
            self.n_diverged += int((~keep).sum())
        if not keep.any():
            return torch.zeros_like(output.detach()).requires_grad_()
        index = keep.nonzero().squeeze(1)
        kept = self._predict(support.take(index), query.take(index))
        # The criterion averages over all rows: make the mean that of the kept ones.
        share = len(index) / len(keep)
        if query.mask is not None:
            share = int(query.mask[keep].sum()) / int(query.mask.sum())
        kept = kept.detach() + (kept - kept.detach()) / share
        return torch.zeros_like(output.detach()).index_copy(0, index, kept)


class EpisodeFactory:
    """Builds the `Episode` where skorch asks for a module.

    Called with the ``module__*`` parameters of the user's net, which all belong to
    the backbone.
    """

    def __init__(self, backbone, build_learner: Callable, sample: Tensor, chunk_size):
        self.backbone = backbone
        self.build_learner = build_learner
        self.sample = sample
        self.chunk_size = chunk_size

    def __call__(self, **params) -> nn.Module:
        backbone = self._backbone(params)
        with torch.no_grad():
            backbone.eval()
            sample = self.sample.to(row_dtype(self.sample, backbone.modules()))
            n_features = backbone(sample).flatten(1).shape[1]
            backbone.train()
        return self._wrapped(self.build_learner(backbone, n_features), n_features)

    def _wrapped(self, learner: Learner, n_features: int) -> nn.Module:
        return Episode(learner, self.chunk_size)

    def _backbone(self, params) -> nn.Module:
        if not isinstance(self.backbone, nn.Module):
            return self.backbone(**params)
        if params:
            return type(self.backbone)(**params)
        return copy.deepcopy(self.backbone)


def as_inputs(batch: TaskBatch) -> dict:
    """A batch as tensors with a leading task axis, as skorch moves and counts them."""
    inputs = {"X": batch.X}
    for name in ("y", "mask", "class_mask"):
        tensor = getattr(batch, name)
        if tensor is not None:
            inputs[name] = tensor
    if batch.n_classes is not None:
        # The width of the class axis travels as the size of an empty tensor.
        inputs["width"] = batch.X.new_empty((batch.n_tasks, 0, batch.n_classes))
    return inputs


def _to_batch(inputs: dict[str, Tensor]) -> TaskBatch:
    width = inputs.get("width")
    return TaskBatch(
        inputs["X"],
        inputs.get("y"),
        inputs.get("mask"),
        None if width is None else width.shape[-1],
        inputs.get("class_mask"),
    )


def _finite_tasks(output: Tensor) -> Tensor:
    """Tasks without NaN or +inf; -inf is the logit of a class that is not there."""
    detached = output.detach()
    return (detached < torch.inf).flatten(1).all(dim=1)


@torch.compiler.disable
def _all(keep: Tensor) -> bool:
    return bool(keep.all())


def _lift_masked(logits: Tensor, class_mask: Tensor) -> Tensor:
    missing = ~class_mask.unsqueeze(1)
    lowest = logits.detach().masked_fill(missing, torch.inf).amin(-1, keepdim=True)
    return torch.where(missing, lowest - _MASKED_LOGIT, logits)


def warn_diverged(n_diverged: int) -> None:
    """Say once per fit how many episodes were left out."""
    if n_diverged:
        warn_caller(
            f"{n_diverged} training episodes diverged and were left out of the "
            "meta-gradient (n_diverged_). Lower inner_lr or inner_steps, or scale the "
            "features; where the loss is NaN from some epoch on, lower the outer rate "
            "(estimator__lr).",
            DivergenceWarning,
        )


def row_dtype(X, modules) -> torch.dtype | None:
    """Type of rows in training: float32, or as they are where they are token ids."""
    embeds = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in modules)
    return None if embeds and not X.is_floating_point() else torch.float32
