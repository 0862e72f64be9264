"""Files from their original hosts: downloaded, checked, cached."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import time
import urllib.request
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from http.client import HTTPException
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

from sklearn.utils._param_validation import Interval, validate_params

# How every fetcher is parametrized.
FETCH_CONSTRAINTS = {
    "data_home": [str, os.PathLike, None],
    "download_if_missing": ["boolean"],
    "n_retries": [Interval(Integral, 0, None, closed="left")],
    "delay": [Interval(Real, 0, None, closed="left")],
}
TIMEOUT = 60  # seconds without an answer


class RemoteFile(NamedTuple):
    """A file on its original host.

    ``sha256`` is that of the ``member`` where one is named, for hosts that pack
    their archives anew from time to time, and None where nobody published one.
    """

    url: str
    filename: str
    sha256: str | None
    member: str | None = None


@validate_params(
    {"data_home": FETCH_CONSTRAINTS["data_home"]}, prefer_skip_nested_validation=True
)
def get_data_home(data_home=None):
    """Return the folder where downloaded data sets are kept, and create it.

    By default it is ``skmeta_data`` in the home folder of the user; the environment
    variable ``SKMETA_DATA`` names another one.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder. None stands for ``SKMETA_DATA``, or else ``~/skmeta_data``.

    Returns
    -------
    data_home : str
        Its path.

    Examples
    --------
    >>> import os, tempfile
    >>> from skmeta.datasets import get_data_home
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data_home = get_data_home(os.path.join(folder, "data"))
    ...     os.path.isdir(data_home)
    True
    """
    if data_home is None:
        data_home = os.environ.get("SKMETA_DATA", os.path.join("~", "skmeta_data"))
    data_home = os.path.expanduser(data_home)
    os.makedirs(data_home, exist_ok=True)
    return data_home


def fetch_file(
    remote, dataset, *, data_home=None, download_if_missing=True, n_retries=3, delay=1.0
):
    """Path of the cached file, downloaded first where it is missing."""
    path = Path(get_data_home(data_home), dataset, remote.filename)
    if not path.exists():
        if not download_if_missing:
            raise OSError(
                f"{path} does not exist and download_if_missing is False. "
                + _by_hand(remote, path)
            )
        _download(remote, path, n_retries, delay)
    _check(remote, path)
    return path


@contextmanager
def open_member(path, member):
    """Open a file inside a zip or tar archive for reading bytes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            yield file
    else:
        with tarfile.open(path) as archive, archive.extractfile(member) as file:
            yield file


def _download(remote, path, n_retries, delay):
    """Write the file beside its place, check it there, then rename it: all or nothing.

    Retries are for the connection only; a wrong checksum would be wrong again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f"{path.name}.part_", dir=path.parent)
    os.close(handle)
    try:
        _retrieve(remote.url, part, n_retries, delay, _by_hand(remote, path))
        found = _digest(remote, part)
        if found is None or remote.sha256 not in (None, found):
            raise OSError(
                f"What {remote.url} sent is corrupt or not what it was: its sha256 is "
                f"{found}, not {remote.sha256}. Nothing was kept. "
                + _by_hand(remote, path)
            )
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _retrieve(url, part, n_retries, delay, advice):
    for left in range(n_retries, -1, -1):
        try:
            return _retrieve_once(url, part)
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError):  # it holds the connection
                error.close()
            if left == 0:
                raise OSError(
                    f"Could not download {url} ({error}). {advice}"
                ) from error
        time.sleep(delay)


def _retrieve_once(url, part):
    # Some hosts turn the default user agent of Python away.
    request = urllib.request.Request(url, headers={"User-Agent": "skmeta"})
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as response,
        open(part, "wb") as file,
    ):
        shutil.copyfileobj(response, file)
        size = response.headers.get("Content-Length")
        if size is not None and file.tell() != int(size):
            raise OSError(f"got {file.tell()} of {size} bytes")


def _check(remote, path):
    """Compare a cached file with its checksum, or with that of its first use."""
    found = _digest(remote, path)
    expected = remote.sha256
    if expected is None and found is not None:
        expected = _first_use(remote, path, found)
    if found is None or found != expected:
        raise OSError(
            f"{path} is not the file that was expected: its sha256 is {found}, not "
            f"{expected}. Delete it and call again to download {remote.url}."
        )


def _first_use(remote, path, found):
    """Return the recorded checksum; record the one found where there is none."""
    record = path.with_name(f"{path.name}.sha256")
    if record.exists():
        return record.read_text().strip()
    record.write_text(found + "\n")
    warnings.warn(
        f"No checksum was ever published for {remote.url}: the sha256 of this copy, "
        f"{found}, was written to {record}, and later uses are compared with it.",
        stacklevel=6,  # the line that calls the public fetcher
    )
    return found


def _digest(remote, path):
    """Return the sha256 of a file or of its member, None where that is unreadable."""
    if remote.member is None:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with open_member(path, remote.member) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error):
        return None


def _by_hand(remote, path):
    """What to do without a connection."""
    what = "" if remote.member is None else f" of {remote.member} in it"
    checksum = "not published" if remote.sha256 is None else remote.sha256
    return (
        f"Without a connection, bring the file from {remote.url} to {path} "
        f"(sha256{what}: {checksum}), or name the folder that has it by data_home or "
        "the environment variable SKMETA_DATA."
    )
