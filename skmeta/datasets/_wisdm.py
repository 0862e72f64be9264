"""WISDM: activities from the accelerometer of a phone, one task per user."""

from __future__ import annotations

import io
import re

import numpy as np
from sklearn.utils._param_validation import validate_params

from ._base import GroupedTable
from ._remote import FETCH_CONSTRAINTS, RemoteFile, fetch_file, open_member

# Nobody published a checksum of this file.
_REMOTE = RemoteFile(
    "https://www.cis.fordham.edu/wisdm/includes/datasets/latest/WISDM_ar_latest.tar.gz",
    "WISDM_ar_latest.tar.gz",
    sha256=None,
    member="WISDM_ar_v1.1/WISDM_ar_v1.1_transformed.arff",
)
_ATTRIBUTE = re.compile(r'@attribute\s+"?([^"\s]+)', flags=re.IGNORECASE)

_DESCR = """\
WISDM activity prediction, version 1.1
======================================

5,418 windows of ten seconds of a phone's accelerometer in the pocket of 36 users, each
while walking, jogging, going upstairs or downstairs, sitting or standing. 43 features
per window: ten bins of the distribution, mean, time between peaks, absolute and
standard deviation along each of three axes, and the mean resultant. Rows of a user are
in order of time.

The time between peaks (XPEAK, YPEAK, ZPEAK) is missing where there were none, and XAVG
is constant. Not every user does everything.

Kwapisz, Weiss, Moore. "Activity recognition using cell phone accelerometers",
SensorKDD 2010, which the Wireless Sensor Data Mining Lab asks users to cite; its readme
is in the archive and must go along with the data when these are passed on.
https://www.cis.fordham.edu/wisdm/dataset.php
"""


@validate_params(
    {
        "as_frame": ["boolean"],
        "return_X_y_groups": ["boolean"],
        **FETCH_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def fetch_wisdm(
    *,
    data_home=None,
    download_if_missing=True,
    as_frame=False,
    return_X_y_groups=False,
    n_retries=3,
    delay=1.0,
):
    """Load WISDM activity prediction, one task per user (classification).

    The classes are the same for all users, but everyone walks in their own way. The
    archive is downloaded on first use. Nobody published a checksum of it: that
    of the first copy is recorded, with a warning, and later uses compare with it.

    Parameters
    ----------
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
    wisdm : :class:`~sklearn.utils.Bunch`
        ``data`` of shape (5418, 43) with NaN where a value is missing; ``target`` of
        shape (5418,), the name of the activity; ``groups`` of shape (5418,), the
        user; ``frame``, all of them in one table, or None; ``feature_names``;
        ``target_names``, the six activities; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import fetch_wisdm
    >>> wisdm = fetch_wisdm()  # doctest: +SKIP
    >>> wisdm.data.shape, len(set(wisdm.groups))  # doctest: +SKIP
    ((5418, 43), 36)
    """
    path = fetch_file(
        _REMOTE,
        "wisdm",
        data_home=data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    with open_member(path, _REMOTE.member) as file:
        table = _parse(io.TextIOWrapper(file, encoding="utf-8"))
    return table.deliver(
        "fetch_wisdm",
        as_frame=as_frame,
        return_X_y_groups=return_X_y_groups,
        target_names=np.unique(table.target).tolist(),
        DESCR=_DESCR,
    )


def _parse(lines):
    """Read the ARFF file: id, user, 43 numbers and the activity in each row.

    The header is read for the names only; as published it is not quite valid, and
    general readers stumble over it.
    """
    names, rows, in_data = [], [], False
    for line in map(str.strip, lines):
        attribute = _ATTRIBUTE.match(line)
        if attribute:
            names.append(attribute[1])
        elif in_data and line and not line.startswith("%"):
            rows.append([field.strip(" \"'") for field in line.split(",")])
        in_data = in_data or line.lower() == "@data"
    cells = np.array(rows)
    numbers = np.where(cells[:, 2:-1] == "?", "nan", cells[:, 2:-1]).astype(float)
    return GroupedTable(
        data=numbers,
        target=cells[:, -1],
        groups=cells[:, 1].astype(int),
        feature_names=names[2 : cells.shape[1] - 1],
        target_name="activity",
        group_name="user",
    )
