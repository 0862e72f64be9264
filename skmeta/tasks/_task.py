"""A task is a pair of arrays."""

from typing import NamedTuple


class Task(NamedTuple):
    """One data set among many related ones.

    A collection of tasks is a plain list of such pairs; ``(X, y)`` tuples do as well.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features) or (n_samples, ...)
        Rows of the task.
    y : array-like of shape (n_samples,)
        Labels or targets.

    Examples
    --------
    >>> from skmeta.tasks import Task
    >>> task = Task([[0.0], [1.0]], [0, 1])
    >>> task.y
    [0, 1]
    """

    X: object
    y: object
