"""One safetensors file: arrays, and a tree of JSON in its header."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.utils.validation import check_is_fitted

from ..base import MetaEstimator
from ._tree import Reader, Writer

#: Version of the format; a file of another one is refused.
FORMAT = 1


def save(meta, path):
    """Save a fitted meta-learner and all tasks that it knows in one file.

    The file holds numbers and names, never code: arrays in the format of safetensors
    and the rest as JSON in its header. It can be read in any version of Python, and
    loading executes nothing. A parameter that is code (a skorch net, a module of your
    own, an augmentation) is left out, and given again to `load`.

    Parameters
    ----------
    meta : meta-learner
        Fitted. Learners with a fitted scikit-learn model inside (``base_estimator=``)
        cannot be saved this way; pickle keeps them.
    path : str or Path
        Where to; an existing file is replaced at once or not at all.

    Raises
    ------
    TypeError
        If something that was learned is neither a number, nor a name, nor of skmeta.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.persistence import load, save
    >>> tasks = make_regression_tasks(20, 10, random_state=0)
    >>> meta = HierarchicalRegressor().fit(tasks)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "fleet.safetensors"
    ...     save(meta, path)
    ...     again = load(path)
    >>> again.states_
    <states of 20 tasks>
    """
    if not isinstance(meta, MetaEstimator):
        raise TypeError(f"meta must be a meta-learner of skmeta, got {meta!r}.")
    check_is_fitted(meta)
    writer = Writer()
    root = writer.encode(meta)
    header = {"format": FORMAT, "skmeta": version("skmeta"), "root": root}
    tree = json.dumps(header | {"objects": writer.objects})
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(writer.arrays, part, metadata={"skmeta": tree})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path, **given):
    """Load a meta-learner that `save` has written.

    Parameters
    ----------
    path : str or Path
        The file.
    **given : dict
        Parameters that were code and are not in the file, such as
        ``estimator=NeuralNet(...)``.

    Returns
    -------
    meta-learner
        Fitted, with all its tasks.

    Raises
    ------
    ValueError
        If the file is not one of `save`, is of another version of the format, or needs
        a parameter that was not given.

    See Also
    --------
    save : Write a file.

    Examples
    --------
    >>> from skmeta.persistence import load
    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
        ...
    FileNotFoundError: nowhere.safetensors
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, "np") as file:
            tree = (file.metadata() or {}).get("skmeta")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a file that skmeta has saved.") from error
    if tree is None:
        raise ValueError(f"{path} is not a file that skmeta has saved.")
    header = json.loads(tree)
    if header["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {header['format']} of skmeta {header['skmeta']}; this "
            f"version reads format {FORMAT}."
        )
    return Reader(header["objects"], arrays, given).decode(header["root"])
