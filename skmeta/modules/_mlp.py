"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class MLP(nn.Sequential):
    """Fully connected layers, each followed by an activation.

    The number of input features is inferred from the first batch.

    Parameters
    ----------
    hidden : sequence of int, default=(64, 64)
        Width of each layer; the last one is the number of features.
    activation : type of nn.Module, default=nn.ReLU
        Activation after each layer.
    dropout : float, default=0.0
        Probability of zeroing an activation.

    Examples
    --------
    >>> import torch
    >>> from skmeta.modules import MLP
    >>> MLP(hidden=(32, 16))(torch.zeros(5, 4)).shape
    torch.Size([5, 16])
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.ReLU,
        dropout: float = 0.0,
    ):
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.LazyLinear(width), activation()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers)
