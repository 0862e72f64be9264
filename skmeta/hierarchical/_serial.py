"""Statistics of rows whose errors resemble those of the row before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ._statistics import Statistics, accumulate, later_rows, outer_sums, repeated


@dataclass(frozen=True)
class SerialStatistics(Statistics):
    """Statistics of tasks that remember the order of their rows.

    Below, a joined row is a feature row and, last, its target. Statistics of rows that
    come later add up, ``earlier + later``.

    Parameters
    ----------
    lag : ndarray of shape (n_tasks, n_features + 1, n_features + 1)
        Sum of the outer products of each joined row with the one before it.
    first, last : ndarray of shape (n_tasks, n_features + 1)
        First and last joined row; zero where a task has no rows.
    """

    lag: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def fields(self) -> tuple[np.ndarray, ...]:
        """All seven arrays, uncopied."""
        return (*super().fields, self.lag, self.first, self.last)

    def __add__(self, later: SerialStatistics) -> SerialStatistics:
        """Statistics of the rows of both, those of `later` being the later ones."""
        rows, kept = super().__add__(later), later.kept_before()[:, None, None]
        between = kept / self.decay * _outer(later.first, self.last)
        lag = kept * self.lag + later.lag + between
        first = np.where(self.count[:, None] > 0, self.first, later.first)
        last = np.where(later.count[:, None] > 0, later.last, self.last)
        return SerialStatistics(*rows.fields, lag, first, last, decay=self.decay)

    def shifted(self, weights: np.ndarray) -> SerialStatistics:
        """Statistics of what is left of the target after ``features @ weights``."""
        change = np.eye(len(weights) + 1)
        change[:-1, -1] = -weights
        return replace(
            super().shifted(weights),
            lag=change.T @ self.lag @ change,
            first=self.first @ change,
            last=self.last @ change,
        )


def accumulate_serial(
    features: np.ndarray,
    y: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    weights: np.ndarray | None = None,
    decay: float = 1.0,
) -> SerialStatistics:
    """Statistics of rows in long format that come in the order of the rows.

    Parameters
    ----------
    features, y, codes, n_tasks
        As for `accumulate`.
    weights : ndarray of shape (n_rows,), default=None
        How often each row comes, one time after the other.
    decay : float, default=1.0
        What a row counts less for each row of its task after it.

    Returns
    -------
    SerialStatistics
        One entry per task.
    """
    rows = accumulate(features, y, codes, n_tasks, weights, decay)
    weights = np.ones(len(codes)) if weights is None else weights
    order = np.argsort(codes, kind="stable")
    joined, task = np.column_stack([features, y])[order], codes[order]
    starts = np.r_[True, task[1:] != task[:-1]][: len(task)]
    follows = np.flatnonzero(~starts)
    times = weights[order]
    count = decay ** later_rows(task, times)
    pairs = joined[follows], joined[follows - 1], task[follows], n_tasks
    lag = outer_sums(*pairs, (count * decay ** (times - 1))[follows])
    if (times != 1).any():
        # A row that comes twice follows itself once.
        lag += outer_sums(
            joined, joined, task, n_tasks, count * repeated(times - 1, decay)
        )
    ends = np.r_[starts[1:], True][: len(task)]
    first, last = np.zeros((2, n_tasks, joined.shape[1]))
    first[task[starts]], last[task[ends]] = joined[starts], joined[ends]
    return SerialStatistics(*rows.fields, lag, first, last, decay=decay)


def whitened(statistics: Statistics, serial: float) -> Statistics:
    """Statistics of rows made independent.

    Errors with the correlation ``serial ** |i - j|``, an autoregression of order one,
    become independent with the same variance when ``serial`` times the row before is
    taken from each row but the first and the rest divided by
    ``sqrt(1 - serial ** 2)`` [1]_. The sums of the outer products of such rows follow
    from those of the rows as they were and of each with the one before it. Where rows
    count less the older they are, a row made independent counts as the newer of the two
    that it comes from.

    Parameters
    ----------
    statistics : Statistics
        With the order of the rows unless `serial` is 0.
    serial : float
        Correlation of the errors of consecutive rows.

    Returns
    -------
    Statistics
        The counts are those of the rows as they were.

    References
    ----------
    .. [1] S. J. Prais and C. B. Winsten, "Trend estimators and serial correlation",
       Cowles Commission Discussion Paper 383 (1954).
    """
    if not serial:
        return statistics
    every = np.block(
        [
            [statistics.gram, statistics.cross[..., None]],
            [statistics.cross[:, None], statistics.energy[:, None, None]],
        ]
    )
    decay = statistics.decay
    oldest = statistics.kept_before()[:, None, None] / decay
    first = oldest * _outer(statistics.first, statistics.first)
    last = _outer(statistics.last, statistics.last)
    lag = statistics.lag + statistics.lag.swapaxes(1, 2)
    moved = every - first - serial * lag + serial**2 / decay * (every - last)
    total = first + moved / (1 - serial**2)
    return Statistics(
        total[:, :-1, :-1], total[:, :-1, -1], total[:, -1, -1], statistics.count
    )


def log_jacobian(statistics: Statistics, serial: float) -> float:
    """What whitening changes in the log density of the targets."""
    steps = np.maximum(statistics.count - 1, 0).sum()
    return -0.5 * steps * np.log1p(-(serial**2))


def _outer(left, right):
    return left[:, :, None] * right[:, None, :]
