"""Random changes of training episodes, for the parameter ``augment``."""

from ._base import Augmentation, Compose
from ._episodes import Mixup, Resample
from ._rows import (
    ClassRotation,
    Cutout,
    GaussianNoise,
    RandomCrop,
    RandomFlip,
    TimeShift,
    TokenDropout,
)

__all__ = [
    "Augmentation",
    "ClassRotation",
    "Compose",
    "Cutout",
    "GaussianNoise",
    "Mixup",
    "RandomCrop",
    "RandomFlip",
    "Resample",
    "TimeShift",
    "TokenDropout",
]
