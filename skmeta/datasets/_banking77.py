"""Banking77: customer queries and their intents."""

from __future__ import annotations

import csv

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from ._remote import FETCH_CONSTRAINTS, RemoteFile, fetch_file

_HOST = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/"
    "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data"
)
# Computed from the files.
_FILES = {
    "train": RemoteFile(
        f"{_HOST}/train.csv",
        "train.csv",
        "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    ),
    "test": RemoteFile(
        f"{_HOST}/test.csv",
        "test.csv",
        "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
    ),
}

_DESCR = """\
Banking77
=========

13,083 queries of bank customers in English, each with one of 77 intents; 10,003 are in
the training part and 3,080, 40 of each intent, in the test part. For few-shot learning
split by intent and pool both parts: seven near duplicates straddle them.

CC BY 4.0. Casanueva, Temcinas, Gerz, Henderson, Vulic. "Efficient intent detection with
dual sentence encoders", NLP for ConvAI 2020.
https://github.com/PolyAI-LDN/task-specific-datasets
"""


@validate_params(
    {
        "subset": [StrOptions({"all", *_FILES})],
        "return_X_y": ["boolean"],
        **FETCH_CONSTRAINTS,
    },
    prefer_skip_nested_validation=True,
)
def fetch_banking77(
    *,
    subset="all",
    data_home=None,
    download_if_missing=True,
    return_X_y=False,
    n_retries=3,
    delay=1.0,
):
    """Load Banking77, customer queries with their intents (text classification).

    An intent is a class of its own, so that a few queries of new intents make a new
    task. The files are downloaded on first use (1 MB).

    Parameters
    ----------
    subset : {"all", "train", "test"}, default="all"
        Part of the data; "all" is "train" followed by "test".
    data_home : str or path-like, default=None
        Folder of the downloaded files, see `get_data_home`.
    download_if_missing : bool, default=True
        If False, raise an error where a file is not there yet.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    n_retries : int, default=3
        Attempts after a failed connection.
    delay : float, default=1.0
        Seconds between them.

    Returns
    -------
    banking77 : :class:`~sklearn.utils.Bunch`
        ``data``, list of str, the queries without white space around them; ``target``
        of shape (n_samples,), index into ``target_names``, the 77 intents in
        alphabetical order; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import fetch_banking77
    >>> banking77 = fetch_banking77()  # doctest: +SKIP
    >>> banking77.data[0]  # doctest: +SKIP
    'I am still waiting on my card?'
    >>> banking77.target_names[banking77.target[0]]  # doctest: +SKIP
    'card_arrival'
    """
    rows = []
    for name in _FILES if subset == "all" else [subset]:
        path = fetch_file(
            _FILES[name],
            "banking77",
            data_home=data_home,
            download_if_missing=download_if_missing,
            n_retries=n_retries,
            delay=delay,
        )
        with open(path, encoding="utf-8", newline="") as file:
            rows.extend(csv.DictReader(file))
    data = [row["text"].strip() for row in rows]
    names, target = np.unique([row["category"] for row in rows], return_inverse=True)
    if return_X_y:
        return data, target
    return Bunch(data=data, target=target, target_names=names.tolist(), DESCR=_DESCR)
