"""Checks of parameters that sklearn's own validation cannot express."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch

from ..exceptions import SingleTaskWarning, warn_caller


def check_range(name, value):
    """A positive integer, or an ascending pair of them."""
    if isinstance(value, Integral) and value >= 1:
        return
    pair = () if np.ndim(value) == 0 else tuple(value)
    if (
        len(pair) != 2
        or not all(isinstance(v, Integral) for v in pair)
        or not 1 <= pair[0] <= pair[1]
    ):
        raise ValueError(
            f"{name} must be a positive integer or a pair (low, high) with "
            f"1 <= low <= high; got {value!r}."
        )


def check_device(device):
    """A device that Torch can put a tensor on."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"estimator has device={device!r}, which is not available here: {error}"
        ) from error


def warn_single_task(table, sampler=None):
    """Warn where there is nothing to learn across tasks.

    A pool of rows is many tasks only if episodes can choose between its classes.
    """
    if table.n_tasks > 1:
        return
    what = "a single task"
    if sampler is not None and sampler.pooled:
        n_classes = len(sampler.counts)
        if n_classes > np.min(sampler.n_ways):
            return
        what = f"one pool of {n_classes} classes, all of which are in every episode"
    warn_caller(
        f"fit saw {what}, so nothing can be learned across tasks. If the rows "
        "belong to several tasks, pass groups= (through a pipeline or a search this "
        "needs sklearn.set_config(enable_metadata_routing=True)), or name the column "
        "of task ids with group_column=.",
        SingleTaskWarning,
    )
