"""Changes of single rows: images, series, tokens, tables."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..tasks._batch import TaskBatch
from ._base import Augmentation, each, with_rows


class RandomCrop(Augmentation):
    """Shift each image by up to `padding` pixels; what comes in is zero.

    The same as padding an image and cropping it at random to its old size.

    Parameters
    ----------
    padding : int, default=4
        Largest shift, in pixels, along each side.
    part : {"both", "support", "query"}, default="both"
        Rows to change.

    Examples
    --------
    >>> from skmeta import ProtoNetClassifier
    >>> from skmeta.augmentation import RandomCrop
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks()
    >>> meta = ProtoNetClassifier(
    ...     n_ways=3, n_episodes=16, augment=RandomCrop(1), random_state=0
    ... )
    >>> meta = meta.fit(digits.X_train, digits.y_train)
    >>> meta.score(digits.X_test, digits.y_test) > 0.7
    True
    """

    def __init__(self, padding: int = 4, part: str = "both"):
        super().__init__(part)
        self.padding = padding

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Shift the images of one side of an episode."""
        _check_images(batch.X, type(self).__name__)
        X = batch.X
        for dim in (-2, -1):
            X = _shifted(X, self.padding, dim)
        return with_rows(batch, X)


class TimeShift(Augmentation):
    """Shift each series by up to `max_shift` steps; what comes in is zero.

    Parameters
    ----------
    max_shift : int, default=2
        Largest shift, in steps, to either side.
    part : {"both", "support", "query"}, default="both"
        Rows to change.
    """

    def __init__(self, max_shift: int = 2, part: str = "both"):
        super().__init__(part)
        self.max_shift = max_shift

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Shift the series ``(length,)`` or ``(length, channels)`` of one side."""
        return with_rows(batch, _shifted(batch.X, self.max_shift, 2))


class RandomFlip(Augmentation):
    """Mirror each image with a probability of `p`.

    Parameters
    ----------
    direction : {"horizontal", "vertical"}, default="horizontal"
        Left to right, or top to bottom.
    p : float, default=0.5
        Probability of an image to be mirrored.
    part : {"both", "support", "query"}, default="both"
        Rows to change.
    """

    def __init__(
        self, direction: str = "horizontal", p: float = 0.5, part: str = "both"
    ):
        super().__init__(part)
        self.direction = direction
        self.p = p

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Mirror images of one side of an episode."""
        X = batch.X
        _check_images(X, type(self).__name__)
        if self.direction not in ("horizontal", "vertical"):
            raise ValueError(
                f"direction must be 'horizontal' or 'vertical'; got {self.direction!r}."
            )
        dim = -1 if self.direction == "horizontal" else -2
        chosen = each(torch.rand(X.shape[:2], device=X.device) < self.p, X)
        return replace(batch, X=torch.where(chosen, X.flip(dim), X))


class GaussianNoise(Augmentation):
    """Add normal noise to every feature.

    Parameters
    ----------
    std : float, default=0.1
        Standard deviation, in units of the features.
    part : {"both", "support", "query"}, default="both"
        Rows to change.
    """

    def __init__(self, std: float = 0.1, part: str = "both"):
        super().__init__(part)
        self.std = std

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Add noise to one side of an episode."""
        return with_rows(batch, batch.X + self.std * torch.randn_like(batch.X))


class Cutout(Augmentation):
    """Set a random square of each image to zero [1]_.

    Parameters
    ----------
    size : int, default=8
        Side of the square in pixels. Its centre is anywhere in the image, so that part
        of it may lie outside.
    part : {"both", "support", "query"}, default="both"
        Rows to change.

    References
    ----------
    .. [1] DeVries and Taylor. "Improved regularization of convolutional neural networks
       with cutout", arXiv:1708.04552, 2017.
    """

    def __init__(self, size: int = 8, part: str = "both"):
        super().__init__(part)
        self.size = size

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Blank a square of the images of one side of an episode."""
        X = batch.X
        _check_images(X, type(self).__name__)
        rows, columns = (self._covered(X, dim) for dim in (-2, -1))
        square = rows.unsqueeze(-1) & columns.unsqueeze(-2)
        if X.ndim == 5:
            square = square.unsqueeze(2)
        return replace(batch, X=X.masked_fill(square, 0))

    def _covered(self, X, dim):
        """Places of the axis inside the square of each image."""
        place = torch.arange(X.shape[dim], device=X.device)
        centre = torch.randint(X.shape[dim], (*X.shape[:2], 1), device=X.device)
        start = centre - self.size // 2
        return (place >= start) & (place < start + self.size)


class TokenDropout(Augmentation):
    """Replace each token by the unknown one with a probability of `p`.

    The n-grams that a token brings along (`TokenSequences`) go with it.

    Parameters
    ----------
    p : float, default=0.1
        Probability of a token to be replaced.
    unknown : int, default=1
        Id of the unknown token. The id 0 is padding and stays.
    part : {"both", "support", "query"}, default="both"
        Rows to change.
    """

    def __init__(self, p: float = 0.1, unknown: int = 1, part: str = "both"):
        super().__init__(part)
        self.p = p
        self.unknown = unknown

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Replace tokens of one side of an episode."""
        X = batch.X
        tokens = X if X.ndim == 3 else X[..., 0]
        dropped = (torch.rand(tokens.shape, device=X.device) < self.p) & (tokens != 0)
        found = tokens.masked_fill(dropped, self.unknown)
        if X.ndim == 3:
            return replace(batch, X=found)
        parts = X[..., 1:].masked_fill(dropped.unsqueeze(-1), 0)
        return replace(batch, X=torch.cat([found.unsqueeze(-1), parts], dim=-1))


class ClassRotation(Augmentation):
    """Turn all images of a class by the same random multiple of 90 degrees.

    Support and query rows of a class turn together: a rotated character is another
    character, so that there are four times as many classes to learn from [1]_. For
    square images, and labels that exist only inside their task.

    References
    ----------
    .. [1] Santoro et al. "Meta-learning with memory-augmented neural networks",
       ICML 2016.
    """

    def __init__(self):
        pass

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Turn the classes of one side alone."""
        return self._turn(batch, self._draw(batch))

    def __call__(self, support, query):
        """Turn support and query rows of a class together."""
        turns = self._draw(support)
        return self._turn(support, turns), self._turn(query, turns)

    def _draw(self, batch):
        if batch.n_classes is None:
            raise ValueError("ClassRotation is for classification.")
        _check_images(batch.X, type(self).__name__)
        if batch.X.shape[-1] != batch.X.shape[-2]:
            raise ValueError(
                "ClassRotation needs square images; these are "
                f"{batch.X.shape[-2]} x {batch.X.shape[-1]}."
            )
        shape = (batch.n_tasks, batch.n_classes)
        return torch.randint(4, shape, device=batch.X.device)

    def _turn(self, batch, turns):
        X, mine = batch.X, each(turns.gather(1, batch.y), batch.X)
        for k in (1, 2, 3):
            X = torch.where(mine == k, batch.X.rot90(k, dims=(-2, -1)), X)
        return replace(batch, X=X)


def _shifted(X: Tensor, most: int, dim: int) -> Tensor:
    """Every row moved by its own number of places along one axis, zeros moving in."""
    dim = dim % X.ndim
    length = X.shape[dim]
    shift = torch.randint(-most, most + 1, X.shape[:2], device=X.device)
    axis = [1] * X.ndim
    axis[dim] = length
    source = torch.arange(length, device=X.device).view(axis) - each(shift, X)
    inside = (source >= 0) & (source < length)
    moved = X.take_along_dim(source.clamp(0, length - 1).expand_as(X), dim)
    return moved * inside


def _check_images(X: Tensor, name: str) -> None:
    if X.ndim not in (4, 5):
        raise ValueError(
            f"{name} needs images, (n, height, width) or (n, channels, height, width); "
            f"got rows of shape {tuple(X.shape[2:])}."
        )
