"""Handwritten digits, split by class."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from ._base import check_choice

_DESCR = """\
Handwritten digits, split by class
==================================

The 1,797 images of 8 x 8 pixels of :func:`sklearn.datasets.load_digits` (Alpaydin and
Kaynak 1998, UCI Machine Learning Repository, CC BY 4.0), scaled to [0, 1]. Digits that
are learned from and digits to adapt to are different ones.

Judge a meta-learner beside the nearest class mean of the raw pixels: on images as
small and as well aligned as these that baseline is strong (78 % with one image per
class and 92 % with five, for the default unseen digits), and a network that was
trained on six classes is easily worse.
"""


@validate_params(
    {"train_classes": ["array-like"], "flatten": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def load_digits_tasks(*, train_classes=(0, 1, 2, 3, 4, 5), flatten=False):
    """Load handwritten digits, some to learn from and the others unseen.

    Meta-train on one labelled pool, ``fit(X_train, y_train)``, which draws few-shot
    episodes from its classes; then adapt to a few images of the unseen digits.

    Parameters
    ----------
    train_classes : array-like of int, default=(0, 1, 2, 3, 4, 5)
        Digits of the meta-training pool; all others are unseen.
    flatten : bool, default=False
        Whether images are rows of 64 features rather than arrays of 8 x 8.

    Returns
    -------
    digits : :class:`~sklearn.utils.Bunch`
        ``X_train`` of shape (n_train, 8, 8) or (n_train, 64), from 0 (paper) to 1
        (ink); ``y_train`` of shape (n_train,); ``X_test`` and ``y_test``, the images
        of the other digits; ``train_classes`` and ``test_classes``; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import load_digits_tasks
    >>> digits = load_digits_tasks()
    >>> digits.X_train.shape, digits.X_test.shape
    ((1083, 8, 8), (714, 8, 8))
    >>> digits.test_classes
    array([6, 7, 8, 9])
    """
    check_choice("train_classes", train_classes, range(10))
    bunch = load_digits()
    X = (bunch.data if flatten else bunch.images) / 16.0
    train = np.isin(bunch.target, train_classes)
    if train.all() or not train.any():
        raise ValueError(
            "train_classes must leave some digits to learn from and some unseen. "
            f"Got {train_classes!r}."
        )
    return Bunch(
        X_train=X[train],
        y_train=bunch.target[train],
        X_test=X[~train],
        y_test=bunch.target[~train],
        train_classes=np.unique(bunch.target[train]),
        test_classes=np.unique(bunch.target[~train]),
        DESCR=_DESCR,
    )
