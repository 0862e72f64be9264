"""Omniglot: 1,623 handwritten characters of 50 alphabets."""

from __future__ import annotations

import io
import re
import zipfile
from numbers import Integral

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._base import import_optional
from ._remote import FETCH_CONSTRAINTS, RemoteFile, fetch_file

_HOST = "https://github.com/brendenlake/omniglot/raw/master/python"


def _remote(name, sha256):
    return RemoteFile(f"{_HOST}/{name}.zip", f"{name}.zip", sha256)


# small1: computed from the file. The others: as published by TensorFlow Datasets, whose
# value for small1 is the computed one.
_ARCHIVES = {
    "background": _remote(
        "images_background",
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    "evaluation": _remote(
        "images_evaluation",
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
    "small1": _remote(
        "images_background_small1",
        "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    ),
    "small2": _remote(
        "images_background_small2",
        "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
    ),
}

# The split of Vinyals et al. (2016), in the numbering of the files: characters up to
# 1200 are for training, those of five alphabets among them for validation.
_LAST_TRAIN_CHARACTER = 1200
_VALIDATION_ALPHABETS = [
    "Armenian",
    "Bengali",
    "Early_Aramaic",
    "Hebrew",
    "Mkhedruli_(Georgian)",
]
_MEMBER = re.compile(r"([^/]+)/character(\d+)/(\d+)_(\d+)\.png$")

_DESCR = """\
Omniglot
========

1,623 characters of 50 alphabets, each drawn once by 20 people on a screen. The 30
alphabets of the "background" set are to learn from, the 20 of the "evaluation" set are
new. ``split`` is the one of Vinyals et al. (2016): 1,028 characters for training, 172
for validation and 423 for testing. Augment by rotations of 90 degrees, each of which
counts as a new character, to compare with published results.

MIT licence. Lake, Salakhutdinov, Tenenbaum. "Human-level concept learning through
probabilistic program induction", Science 350 (2015), 1332-1338.
https://github.com/brendenlake/omniglot
"""


@validate_params(
    {
        "subset": [StrOptions({"all", *_ARCHIVES})],
        "image_size": [Interval(Integral, 1, 105, closed="both")],
        "return_X_y": ["boolean"],
        **FETCH_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def fetch_omniglot(
    *,
    subset="all",
    image_size=28,
    data_home=None,
    download_if_missing=True,
    return_X_y=False,
    n_retries=3,
    delay=1.0,
):
    """Load Omniglot, handwritten characters of 50 alphabets (few-shot classification).

    The data set that few-shot learning grew up on: very many classes with very few
    images each. It is downloaded on first use (16 MB) and needs pillow.

    Parameters
    ----------
    subset : {"all", "background", "evaluation", "small1", "small2"}, default="all"
        "background" are 964 characters of 30 alphabets, "evaluation" 659 of 20
        others, "all" both. "small1" and "small2" are five alphabets each of the
        background set.
    image_size : int, default=28
        Width and height of the images, of which the original ones are 105. Shrinking
        averages over areas.
    data_home : str or path-like, default=None
        Folder of the downloaded files, see `get_data_home`.
    download_if_missing : bool, default=True
        If False, raise an error where a file is not there yet.
    return_X_y : bool, default=False
        Whether to return ``(images, target)`` instead of a Bunch.
    n_retries : int, default=3
        Attempts after a failed connection.
    delay : float, default=1.0
        Seconds between them.

    Returns
    -------
    omniglot : :class:`~sklearn.utils.Bunch`
        ``images`` of shape (n, image_size, image_size), float32, from 0 (paper) to 1
        (ink); ``target`` of shape (n,), the character, 0 to 1622, the same in each
        subset; ``alphabet`` of shape (n,), index into ``alphabet_names``;
        ``character`` of shape (n,), the number inside its alphabet, from 1;
        ``drawer`` of shape (n,), 1 to 20; ``split`` of shape (n,), 0, 1 or 2 for
        training, validation and test of Vinyals et al. (2016); ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import fetch_omniglot
    >>> omniglot = fetch_omniglot()  # doctest: +SKIP
    >>> omniglot.images.shape  # doctest: +SKIP
    (32460, 28, 28)
    """
    image = import_optional("PIL.Image", "fetch_omniglot", "pillow")
    rows = []
    for name in ["background", "evaluation"] if subset == "all" else [subset]:
        path = fetch_file(
            _ARCHIVES[name],
            "omniglot",
            data_home=data_home,
            download_if_missing=download_if_missing,
            n_retries=n_retries,
            delay=delay,
        )
        rows.extend(_read(path, image, image_size))
    images, target, alphabet, character, drawer = map(np.array, zip(*rows, strict=True))
    images = images.astype(np.float32) / 255
    if return_X_y:
        return images, target
    names = list(dict.fromkeys(alphabet.tolist()))
    return Bunch(
        images=images,
        target=target,
        alphabet=np.array([names.index(name) for name in alphabet]),
        character=character,
        drawer=drawer,
        split=_vinyals_split(target, alphabet),
        alphabet_names=names,
        DESCR=_DESCR,
    )


def _vinyals_split(target, alphabet):
    split = np.isin(alphabet, _VALIDATION_ALPHABETS).astype(int)
    split[target >= _LAST_TRAIN_CHARACTER] = 2
    return split


def _read(path, image, size):
    """Yield pixels, class, alphabet, character and drawer, in order of class."""
    with zipfile.ZipFile(path) as archive:
        found = [match for match in map(_MEMBER.search, archive.namelist()) if match]
        for match in sorted(found, key=lambda match: match.groups()[2:]):
            alphabet, character, number, drawer = match.groups()
            pixels = image.open(io.BytesIO(archive.read(match.string))).convert("L")
            # Inverting comes first: rounding after it would differ in the last bit.
            pixels = pixels.point(lambda value: 255 - value)
            pixels = pixels.resize((size, size), image.Resampling.BOX)
            yield (
                np.asarray(pixels),
                int(number) - 1,
                alphabet,
                int(character),
                int(drawer),
            )
