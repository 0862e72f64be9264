"""Logs of several tasks, as they come in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LoggedTask(NamedTuple):
    """What was logged in one task; a plain tuple does as well.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Contexts.
    action : array-like of shape (n_samples,)
        Arms that were pulled.
    reward : array-like of shape (n_samples,)
        What they paid.
    propensity : array-like of shape (n_samples,), default=None
        Probability of each action under the policy that logged it.
    """

    X: object
    action: object
    reward: object
    propensity: object = None


def is_log(X):
    """Whether `X` is a list of logged tasks rather than rows."""
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(isinstance(task, tuple) and len(task) in (3, 4) for task in X)
        and all(np.ndim(task[1]) > 0 for task in X)
    )


def stacked(tasks):
    """Columns of all logged tasks, with positions for task ids."""
    for t, task in enumerate(tasks):
        lengths = [len(column) for column in task if column is not None]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise ValueError(
                f"Task {t}: X, action, reward and propensity should have the same "
                f"number of rows, at least one; got {lengths}."
            )
    columns = [
        np.concatenate([np.asarray(task[i]) for task in tasks]) for i in range(3)
    ]
    groups = np.repeat(np.arange(len(tasks)), [len(task[1]) for task in tasks])
    given = [task[3] if len(task) == 4 else None for task in tasks]
    if any(column is None for column in given):
        return *columns, groups, None
    return *columns, groups, np.concatenate([np.asarray(c, dtype=float) for c in given])
