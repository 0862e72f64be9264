"""Tasks of different sizes as one padded tensor with masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskBatch:
    """Rows of several tasks, stacked along a leading task axis.

    Parameters
    ----------
    X : Tensor of shape (n_tasks, n_rows, *features)
        Rows, padded with zeros up to the largest task.
    y : Tensor of shape (n_tasks, n_rows), default=None
        Class indices (int64, counted within the task or within the shared label
        space) or regression targets (floating). Padded entries are zero.
    mask : bool Tensor of shape (n_tasks, n_rows), default=None
        True for real rows, False for padding. None means that every row is real.
    n_classes : int, default=None
        Width of the class axis; None for regression.
    class_mask : bool Tensor of shape (n_tasks, n_classes), default=None
        True for classes that exist in the task. None means that all do.
    sample_weight : Tensor of shape (n_tasks, n_rows), default=None
        How often each row counts. None means once.
    """

    X: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    n_classes: int | None = None
    class_mask: Tensor | None = None
    sample_weight: Tensor | None = None

    @property
    def n_tasks(self) -> int:
        return self.X.shape[0]

    @property
    def weights(self) -> Tensor:
        """Row weights, 1 for real rows and 0 for padding, in the dtype of ``X``."""
        if self.mask is None:
            dtype = (
                self.X.dtype
                if self.X.is_floating_point()
                else torch.get_default_dtype()
            )
            return torch.ones(self.X.shape[:2], dtype=dtype, device=self.X.device)
        return self.mask.to(
            self.X.dtype if self.X.is_floating_point() else torch.get_default_dtype()
        )

    def take(self, index) -> TaskBatch:
        """The tasks at ``index`` (slice, int64 or bool tensor) along the task axis."""

        def pick(tensor):
            return None if tensor is None else tensor[index]

        return replace(
            self,
            X=self.X[index],
            y=pick(self.y),
            mask=pick(self.mask),
            class_mask=pick(self.class_mask),
            sample_weight=pick(self.sample_weight),
        )

    def to(self, device) -> TaskBatch:
        """The same on another device; None leaves it where it is."""

        def move(tensor):
            return None if tensor is None else tensor.to(device)

        if device is None:
            return self
        return replace(
            self,
            X=self.X.to(device),
            y=move(self.y),
            mask=move(self.mask),
            class_mask=move(self.class_mask),
            sample_weight=move(self.sample_weight),
        )

    def append(self, other: TaskBatch) -> TaskBatch:
        """Rows of this batch, then those of `other`, of each task."""
        assert self.y is not None and other.y is not None
        mask = None
        if self.mask is not None or other.mask is not None:
            mask = torch.cat([self.weights > 0, other.weights > 0], dim=1)
        assert self.sample_weight is None and other.sample_weight is None
        return replace(
            self,
            X=torch.cat([self.X, other.X], dim=1),
            y=torch.cat([self.y, other.y], dim=1),
            mask=mask,
        )
