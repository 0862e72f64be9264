"""Backbones: Torch modules that map rows to features."""

from ._conv import Conv4
from ._mlp import MLP
from ._resnet import ResNet12
from ._sequence import Recurrent, TemporalConv
from ._text import BagOfEmbeddings, TextCNN, TextRNN

__all__ = [
    "MLP",
    "BagOfEmbeddings",
    "Conv4",
    "Recurrent",
    "ResNet12",
    "TemporalConv",
    "TextCNN",
    "TextRNN",
    "default_backbone",
]


def default_backbone(feature_shape):
    """Class of the backbone for rows of the given shape.

    Parameters
    ----------
    feature_shape : tuple of int
        Shape of one row: ``(n_features,)``, ``(height, width)`` or
        ``(channels, height, width)``.

    Returns
    -------
    module : type of nn.Module
        `Conv4` for images (both sides at least 8), else `MLP`.
    params : dict
        Its parameters: images below 28 pixels get fewer blocks, so that the last map
        is not pooled to nothing.

    Examples
    --------
    >>> from skmeta.modules import default_backbone
    >>> module, params = default_backbone((8, 8))
    >>> module.__name__, params
    ('Conv4', {'n_blocks': 2})
    """
    side = min(feature_shape[-2:]) if len(feature_shape) in (2, 3) else 0
    if side < 8:
        return MLP, {}
    return Conv4, {"n_blocks": min(4, (side - 1).bit_length() - 1)}
