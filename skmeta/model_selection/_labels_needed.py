"""At how many support rows a curve of mean scores reaches what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.isotonic import isotonic_regression

#: Shapes of a tail: where it bends, in largest measured numbers of rows, how much of
#: the error can be learned, in units of what cannot, and how slowly it goes on.
_BENDS, _SHARES = np.geomspace(0.003, 6.0, 34), (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_POWERS = (0.5, 1.0)
#: Of the covariance of the means, what is taken from one that is the same at all shots.
_SHRINKAGE = 0.3
#: Shapes are never better than this share of the rise of the curve.
_MISFIT = 1e-3
#: Beyond how many times the measured rows nothing is foretold.
_REACH = 4


def labels_needed(shots, scores, wanted, confidence, n_boot, random_state):
    """Support rows that reach a wanted mean score, and an interval.

    Parameters
    ----------
    shots : ndarray of shape (n_shots,)
        Numbers of rows that were measured, ascending.
    scores : ndarray of shape (n_shots, n_tasks)
        Score of each task, higher being better.
    wanted : float
        Mean score over tasks.
    confidence : float
        Coverage of the interval.
    n_boot : int
        Resamples of tasks.
    random_state : int
        Their seed.

    Returns
    -------
    n_shots, low, high : float
        Infinite beyond reach.
    """
    rng = np.random.default_rng(random_state)
    n_tasks, tail = scores.shape[1], Tail.of(shots, scores)
    draws = [scores[:, i] for i in rng.integers(n_tasks, size=(n_boot, n_tasks))]
    found = np.array(
        [
            _shots_for(tail, draw.mean(axis=1), wanted, share)
            for draw, share in zip(draws, rng.random(n_boot), strict=True)
        ]
    )
    half = (1 - confidence) / 2
    low, high = np.quantile(found, [half, 1 - half], method="nearest")
    return _shots_for(tail, scores.mean(axis=1), wanted, 0.5), low, high


def _shots_for(tail, means, wanted, share):
    """Rows at which a monotone curve through the means reaches a score.

    Beyond the measured rows, the quantile of the shapes of the tail, of which `share`
    have reached it with fewer.
    """
    curve = isotonic_regression(means)
    if wanted <= curve[0]:
        return float(tail.shots[0])
    if wanted > curve[-1]:
        return tail.reach(means, wanted - curve[-1], share)
    at = np.log1p(tail.shots)
    i = int(np.searchsorted(curve, wanted))
    part = (wanted - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(np.expm1(at[i - 1] + part * (at[i] - at[i - 1])))


@dataclass(frozen=True, eq=False)
class Tail:
    """How a curve may go on beyond the numbers of rows that were measured.

    Parameters
    ----------
    shots : ndarray of shape (n_shots,)
        Measured numbers of rows.
    shapes : ndarray of shape (3, n_shapes)
        Parameters of `error_left`.
    whitener : ndarray of shape (n_shots, n_shots)
        Turns means into independent numbers of variance one, level left out.
    """

    shots: np.ndarray
    shapes: np.ndarray
    whitener: np.ndarray

    @classmethod
    def of(cls, shots, scores):
        """Tail of a curve that was measured on these tasks, (n_shots, n_tasks)."""
        shapes = np.meshgrid(_BENDS * shots[-1], _SHARES, _POWERS)
        root = np.linalg.cholesky(_covariance_of_means(scores))
        whitener = np.linalg.inv(root)
        # Any level fits: what is left is orthogonal to the constant.
        level = whitener.sum(axis=1) / np.linalg.norm(whitener.sum(axis=1))
        whitener = whitener - np.outer(level, level @ whitener)
        return cls(np.asarray(shots, float), np.reshape(shapes, (3, -1)), whitener)

    def reach(self, means, step, share):
        """Rows that lift the last mean by a step, as a quantile over the shapes.

        Each shape has its best level and rise, and weighs as much as it is likely,
        given the means.
        """
        first, last, columns = self._measured
        target = self.whitener @ means
        rise = np.maximum(columns @ target / np.square(columns).sum(axis=1), 0.0)
        misfit = np.square(target - rise[:, None] * columns).sum(axis=1)
        weight = np.exp((misfit.min() - misfit) / 2)
        with np.errstate(divide="ignore"):
            wanted = last - (first - last) * step / rise
        found = shots_until(wanted, *self.shapes)
        found[found > _REACH * (1 + self.shots[-1])] = np.inf
        order = np.argsort(found)
        total = np.cumsum(weight[order])
        return float(found[order][np.searchsorted(total, share * total[-1])])

    @cached_property
    def _measured(self):
        """Of every shape: its ends, and its rise from nothing to one, whitened."""
        left = error_left(self.shots, *self.shapes[..., None])
        first, last = left[:, 0], left[:, -1]
        risen = (first[:, None] - left) / (first - last)[:, None]
        return first, last, risen @ self.whitener.T


def error_left(shots, bend, share, power):
    """Part of the error that can be learned that is left after some rows.

    The mean square that is left of a Gaussian linear model solves
    ``s = 1 / (1 + shots / bend / (1 + share * s))``: what is not yet known of the task
    is noise to the rest of it. Its root, as of a root mean squared error, goes from one
    to zero here: like a hyperbola for a small `share`, and for a large one in a line
    that ends at about ``bend * share`` rows. Powers below one are slower.

    Parameters
    ----------
    shots : float or ndarray
        Rows.
    bend : float or ndarray
        Rows that halve the error where `share` is small.
    share : float or ndarray
        Mean square of what can be learned, in units of that of the noise.
    power : float or ndarray
        Exponent.

    Returns
    -------
    ndarray
        Between 0 and 1.
    """
    linear = share - 1 - shots / bend
    square = (linear + np.sqrt(linear**2 + 4 * share)) / (2 * share)
    root = (np.sqrt(1 + share * square) - 1) / (np.sqrt(1 + share) - 1)
    return root**power


def shots_until(left, bend, share, power):
    """Rows after which this part of the error is left; infinite for none."""
    root = np.maximum(left, 0) ** (1 / power) * (np.sqrt(1 + share) - 1)
    square = root * (2 + root) / share
    # A part that is next to nothing may have a square of zero.
    shots, square = np.broadcast_arrays(
        bend * (1 - square) * (1 + share * square), square
    )
    return np.divide(shots, square, out=np.full(shots.shape, np.inf), where=square > 0)


def _covariance_of_means(scores):
    """Of the mean scores at each number of shots, shrunk, and never singular."""
    n_shots, n_tasks = scores.shape
    rise = np.ptp(scores.mean(axis=1)) or 1.0
    found = np.eye(n_shots) * (_MISFIT * rise) ** 2
    if n_tasks > 1:
        measured = np.cov(scores) / n_tasks
        common = measured.mean()
        alike = np.full_like(measured, common)
        alike[np.diag_indices(n_shots)] = np.trace(measured) / n_shots
        found += (1 - _SHRINKAGE) * measured + _SHRINKAGE * alike
    return found
