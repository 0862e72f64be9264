"""What every test shares. Seeds are left alone: a test that needs one sets its own."""

import os
from pathlib import Path

# Before anything imports matplotlib, which is optional.
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from hypothesis import settings
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from skmeta.utils import estimator_checks
from skmeta.utils.discovery import all_estimators

# Time limits per example fail at random on a busy machine.
settings.register_profile("skmeta", deadline=None, derandomize=True)
settings.load_profile("skmeta")


def pytest_configure():
    # Small tensors are far slower on two threads than on one, and xdist uses both
    # cores. A hook, not an autouse fixture, so that it holds for doctests too.
    torch.set_num_threads(1)
    threadpool_limits(1)


#: They share their machinery with MAML and take seconds where it takes a tenth.
SLOW_ESTIMATORS = ("ImplicitMAML",)
#: Their plain form trains as long, and check_readonly_memmap_input has read-only rows.
SLOW_CHECKS = ("s_train(readonly_memmap=True",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        slow = SLOW_CHECKS
        if "test_common.py" in item.nodeid:
            slow += SLOW_ESTIMATORS
        if any(name in item.nodeid for name in slow):
            item.add_marker(pytest.mark.slow)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def shorter_checks(request, monkeypatch):
    """Each of the 8 threads adapts 20 times; the 200 of a user only under `slow`."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(estimator_checks, "N_ADAPTS", 20)


@pytest.fixture
def short_training(monkeypatch):
    """Default nets train two epochs, default forests have three trees.

    For what does not depend on what is learned.
    """
    for _, estimator in all_estimators():
        if hasattr(estimator, "_default_forest"):
            forest = clone(estimator._default_forest).set_params(n_estimators=3)
            monkeypatch.setattr(estimator, "_default_forest", forest)
        if hasattr(estimator, "_net_settings"):
            settings = estimator._net_settings | {"max_epochs": 2}
            monkeypatch.setattr(estimator, "_net_settings", settings)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real data sets that are too large for the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKMETA_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set SKMETA_SHARED_DATA to the folder")
    return folder
