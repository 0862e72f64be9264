"""The residual network of few-shot learning."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, then the mean over the image.

    The deeper of the two standard backbones of few-shot learning on images [1]_ [2]_:
    better features than `Conv4` at about thirty times the cost, so one for a GPU. The
    number of channels is inferred from the first batch.

    Parameters
    ----------
    widths : sequence of int, default=(64, 160, 320, 640)
        Filters of each block; the last one is the number of features.
    dropout : float, default=0.0
        Probability of zeroing a value after each block.

    References
    ----------
    .. [1] Oreshkin, Rodriguez and Lacoste. "TADAM: task dependent adaptive metric for
       improved few-shot learning", NeurIPS 2018.
    .. [2] Lee, Maji, Ravichandran and Soatto. "Meta-learning with differentiable convex
       optimization", CVPR 2019.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import ResNet12
    >>> ResNet12(widths=(4, 8, 8, 16))(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 16])
    """

    def __init__(
        self, widths: Sequence[int] = (64, 160, 320, 640), dropout: float = 0.0
    ):
        super().__init__()
        self.blocks = nn.ModuleList(_Residual(width) for width in widths)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, X: Tensor) -> Tensor:
        """Features of images ``(n, height, width)`` or ``(n, channels, h, w)``."""
        if X.ndim == 3:
            X = X.unsqueeze(1)
        for block in self.blocks:
            X = block(X)
            if min(X.shape[-2:]) >= 2:
                X = self.pool(X)
            X = self.dropout(X)
        return X.mean(dim=(2, 3))


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.LazyConv2d(width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential(
            nn.LazyConv2d(width, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, X: Tensor) -> Tensor:
        return self.activation(self.path(X) + self.shortcut(X))
