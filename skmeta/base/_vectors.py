"""One vector for each known task, for maps and distances of tasks."""

from __future__ import annotations

import numpy as np

#: Parts of a state that say how sure it is, or which classes and how many rows a task
#: has, and what there is one of for each row of a task or each place of a grid: none of
#: them is where a task lies.
_ASIDE = {
    "basis", "chol", "counts", "covariance", "exists", "features", "inverse", "keys",
    "labels", "log_shots", "n_support", "origin", "present", "row_weights", "sums",
    "told", "untold", "values", "variance", "votes",
}  # fmt: skip


def task_vectors(meta, states=None):
    """State of each known task as one vector, and that of the prior.

    Parameters
    ----------
    meta : meta-learner
        Fitted.
    states : TaskStates, default=None
        Whose tasks to take; by default `states_` of `meta`.

    Returns
    -------
    vectors : ndarray of shape (n_tasks, n_numbers)
        In the order of the states: posterior means, prototypes, heads or fast weights,
        flattened.
    prior : ndarray of shape (n_numbers,) or None
        The same of a task without rows, where there is a prior.
    """
    states = meta.states_ if states is None else states
    if getattr(meta, "label_space_", "shared") == "per_task":
        raise ValueError(
            f"Classes exist only inside their task for this {type(meta).__name__}, so "
            "the states of two tasks cannot be compared. Fit it with "
            "label_space='shared' if a label means the same in every task."
        )
    parts, places = [], []
    for block, inside, where in states.by_block(list(states)):
        parts.append(_flat(meta, meta._state(block, inside)))
        places.append(where)
    vectors = np.concatenate(parts)[np.argsort(np.concatenate(places), kind="stable")]
    summary = meta._prior_summary([None])
    if summary is None:
        return vectors, None
    return vectors, _flat(meta, meta._solve(summary))[0]


def _flat(meta, state):
    arrays = [
        values.reshape(len(values), -1)
        for name, values in sorted(state.items())
        if values.dtype.kind == "f"
        # An estimator made of others says whose state it is: "hierarchical chol".
        and name.rpartition(" ")[2] not in _ASIDE
        and not name.startswith("statistics.")
    ]
    if not arrays:
        raise ValueError(
            f"{type(meta).__name__} keeps no numbers of a task that could be compared, "
            f"only {sorted(state)}."
        )
    return np.concatenate(arrays, axis=1)
