"""The convolutional backbone of the few-shot literature."""

from __future__ import annotations

from torch import Tensor, nn


class Conv4(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling.

    The network of Vinyals et al. (2016) [1]_ and most work since. The number of
    channels is inferred from the first batch.

    Parameters
    ----------
    width : int, default=64
        Filters of each block.
    n_blocks : int, default=4
        Number of blocks. A block that would pool a map of less than 2x2 keeps its
        size, so that small images work.

    References
    ----------
    .. [1] Vinyals et al. "Matching networks for one shot learning", NeurIPS 2016.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import Conv4
    >>> Conv4(width=8)(torch.zeros(5, 28, 28)).shape
    torch.Size([5, 8])
    """

    def __init__(self, width: int = 64, n_blocks: int = 4):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LazyConv2d(width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
            )
            for _ in range(n_blocks)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, X: Tensor) -> Tensor:
        """Features of images ``(n, height, width)`` or ``(n, channels, h, w)``."""
        if X.ndim == 3:
            X = X.unsqueeze(1)
        for block in self.blocks:
            X = block(X)
            if min(X.shape[-2:]) >= 2:
                X = self.pool(X)
        return X.flatten(1)
