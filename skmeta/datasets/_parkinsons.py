"""Parkinson's disease telemonitoring: one task per patient."""

from __future__ import annotations

import io

import numpy as np
from sklearn.utils._param_validation import StrOptions, validate_params

from ._base import GroupedTable
from ._remote import FETCH_CONSTRAINTS, RemoteFile, fetch_file, open_member

# The checksum of the table, not of the archive around it: as published by UCIData.jl,
# and computed from the text put together again from another copy of the values.
_REMOTE = RemoteFile(
    "https://archive.ics.uci.edu/static/public/189/parkinsons+telemonitoring.zip",
    "parkinsons+telemonitoring.zip",
    "f2c7d5025dec4e92e7feae367a5f7ccf58789a10ac6b54bdf15976c599f9dd39",
    member="parkinsons_updrs.data",
)
_TARGETS = ["motor_UPDRS", "total_UPDRS"]

_DESCR = """\
Parkinson's disease telemonitoring
==================================

5,875 voice recordings of 42 patients over half a year, 101 to 168 of each. To predict
is a clinical score of the disease, from age, sex (1 female) and 16 measures of the
voice. Rows are ordered by patient and, within a patient, by time.

Beware of ``test_time``, days since the patient joined: the score was taken three times,
and in between it was interpolated linearly in time. With time as a feature a model
recovers that interpolation, which says nothing of the voice; it is left out unless
``include_time=True``. A random split within a patient lets later recordings tell
earlier ones just so: let the earliest rows be the support and judge on the later ones.

Jitter:DDP is three times Jitter:RAP, and Shimmer:DDA three times Shimmer:APQ3.

CC BY 4.0. Tsanas, Little, McSharry, Ramig. "Accurate telemonitoring of Parkinson's
disease progression by noninvasive speech tests", IEEE Transactions on Biomedical
Engineering 57 (2010), 884-893. https://doi.org/10.24432/C5ZS3N
"""


@validate_params(
    {
        "target": [StrOptions(set(_TARGETS))],
        "include_time": ["boolean"],
        "as_frame": ["boolean"],
        "return_X_y_groups": ["boolean"],
        **FETCH_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def fetch_parkinsons(
    *,
    target="motor_UPDRS",
    include_time=False,
    data_home=None,
    download_if_missing=True,
    as_frame=False,
    return_X_y_groups=False,
    n_retries=3,
    delay=1.0,
):
    """Load Parkinson's telemonitoring, one task per patient (regression).

    Patients differ more than recordings do, so that a new patient's first few scores
    tell most. The file is downloaded on first use (less than 1 MB).

    Parameters
    ----------
    target : {"motor_UPDRS", "total_UPDRS"}, default="motor_UPDRS"
        Score to predict.
    include_time : bool, default=False
        Whether ``test_time`` is among the features. The scores are piecewise linear
        in it by construction, see ``DESCR``.
    data_home : str or path-like, default=None
        Folder of the downloaded files, see `get_data_home`.
    download_if_missing : bool, default=True
        If False, raise an error where the file is not there yet.
    as_frame : bool, default=False
        Whether to return pandas objects.
    return_X_y_groups : bool, default=False
        Whether to return ``(data, target, groups)`` instead of a Bunch.
    n_retries : int, default=3
        Attempts after a failed connection.
    delay : float, default=1.0
        Seconds between them.

    Returns
    -------
    parkinsons : :class:`~sklearn.utils.Bunch`
        ``data`` of shape (5875, 18), or (5875, 19) with time; ``target`` of shape
        (5875,); ``groups`` of shape (5875,), the patient; ``test_time`` of shape
        (5875,), in days; ``frame``, a table of data, target and patient, or None;
        ``feature_names``; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import fetch_parkinsons
    >>> X, y, patient = fetch_parkinsons(return_X_y_groups=True)  # doctest: +SKIP
    >>> X.shape, len(set(patient))  # doctest: +SKIP
    ((5875, 18), 42)
    """
    path = fetch_file(
        _REMOTE,
        "parkinsons",
        data_home=data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    names, rows = _read(path)
    column = {name: rows[:, i] for i, name in enumerate(names)}
    left_out = ["subject#", *_TARGETS] + ([] if include_time else ["test_time"])
    features = [name for name in names if name not in left_out]
    table = GroupedTable(
        data=np.column_stack([column[name] for name in features]),
        target=column[target],
        groups=column["subject#"].astype(int),
        feature_names=features,
        target_name=target,
        group_name="subject",
    )
    return table.deliver(
        "fetch_parkinsons",
        as_frame=as_frame,
        return_X_y_groups=return_X_y_groups,
        test_time=column["test_time"],
        DESCR=_DESCR,
    )


def _read(path):
    """Column names and rows, each patient's in order of time."""
    with open_member(path, _REMOTE.member) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8")
        names = next(lines).strip().split(",")
        rows = np.loadtxt(lines, delimiter=",", ndmin=2)
    order = np.lexsort([rows[:, names.index("test_time")], rows[:, 0]])
    return names, rows[order]
