"""Tasks drawn from a known distribution."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from ..tasks import Task

_COUNT = Interval(Integral, 1, None, closed="left")
_SPREAD = Interval(Real, 0, None, closed="left")


def _check_range(name, value):
    if len(value) == 2:
        low, high = map(float, value)
        if -np.inf < low <= high < np.inf:
            return low, high
    raise ValueError(
        f"{name} must be a pair (low, high) of finite numbers with low <= high. "
        f"Got {value!r}."
    )


def _draw_sizes(n_samples, n_tasks, rng):
    """Rows of each task: as many for all, or drawn from an inclusive range."""
    if isinstance(n_samples, Integral):
        return np.full(n_tasks, n_samples)
    low, high = _check_range("n_samples", n_samples)
    if low < 1 or low != int(low) or high != int(high):
        raise ValueError(
            f"n_samples must be a positive integer or a pair. Got {n_samples!r}."
        )
    return rng.randint(int(low), int(high) + 1, size=n_tasks)


def _split(X, y, sizes):
    cuts = np.cumsum(sizes)[:-1]
    return list(map(Task, np.split(X, cuts), np.split(y, cuts)))


@validate_params(
    {
        "n_tasks": [_COUNT],
        "n_samples": [_COUNT, tuple, list],
        "amplitude": [tuple, list],
        "phase": [tuple, list],
        "x_range": [tuple, list],
        "noise": [_SPREAD],
        "return_parameters": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_sinusoid_tasks(
    n_tasks=100,
    n_samples=20,
    *,
    amplitude=(0.1, 5.0),
    phase=(0.0, np.pi),
    x_range=(-5.0, 5.0),
    noise=0.0,
    return_parameters=False,
    random_state=None,
):
    """Generate sine waves of different amplitude and phase, one per task.

    The standard first problem of meta-learning for regression [1]_: a few points of a
    wave determine it, given that all tasks are waves. The mean over tasks is nearly
    flat, so that a pooled model learns next to nothing.

    Parameters
    ----------
    n_tasks : int, default=100
        Number of tasks.
    n_samples : int or (int, int), default=20
        Rows of each task; a pair is a range to draw from, both ends included.
    amplitude : (float, float), default=(0.1, 5.0)
        Range of the amplitudes, drawn uniformly.
    phase : (float, float), default=(0.0, pi)
        Range of the phases, drawn uniformly.
    x_range : (float, float), default=(-5.0, 5.0)
        Range of the input, drawn uniformly.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise on the target.
    return_parameters : bool, default=False
        Whether to return the true amplitude and phase of each task as well.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    tasks : list of Task
        Pairs ``(X, y)`` of shapes ``(n_samples, 1)`` and ``(n_samples,)``, with
        ``y = amplitude * sin(x - phase) + noise``.
    parameters : :class:`~sklearn.utils.Bunch`
        ``amplitude`` and ``phase``, arrays of shape ``(n_tasks,)``. Only returned if
        `return_parameters` is True.

    References
    ----------
    .. [1] Finn, Abbeel, Levine. "Model-agnostic meta-learning for fast adaptation of
       deep networks", ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> tasks, true = make_sinusoid_tasks(3, return_parameters=True, random_state=0)
    >>> X, y = tasks[0]
    >>> X.shape, y.shape
    ((20, 1), (20,))
    >>> np.allclose(y, true.amplitude[0] * np.sin(X[:, 0] - true.phase[0]))
    True
    """
    rng = check_random_state(random_state)
    ranges = {"amplitude": amplitude, "phase": phase, "x_range": x_range}
    ranges = {name: _check_range(name, value) for name, value in ranges.items()}
    sizes = _draw_sizes(n_samples, n_tasks, rng)
    height, shift = (
        rng.uniform(*ranges[name], size=n_tasks) for name in ("amplitude", "phase")
    )
    X = rng.uniform(*ranges["x_range"], size=(sizes.sum(), 1))
    y = np.repeat(height, sizes) * np.sin(X[:, 0] - np.repeat(shift, sizes))
    y += noise * rng.standard_normal(len(y))
    tasks = _split(X, y, sizes)
    if return_parameters:
        return tasks, Bunch(amplitude=height, phase=shift)
    return tasks


@validate_params(
    {
        "n_tasks": [_COUNT],
        "n_samples": [_COUNT, tuple, list],
        "n_features": [_COUNT],
        "between": [_SPREAD, "array-like"],
        "noise": [_SPREAD],
        "return_coef": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_regression_tasks(
    n_tasks=100,
    n_samples=20,
    n_features=5,
    *,
    between=1.0,
    noise=1.0,
    return_coef=False,
    random_state=None,
):
    """Generate linear regression tasks whose weights scatter around a common mean.

    The distribution for which a learned Gaussian prior is the best possible answer.
    With ``between=0`` all tasks are the same, and a pooled model is; where `between`
    is large against the noise, a model of its own for each task is.

    Parameters
    ----------
    n_tasks : int, default=100
        Number of tasks.
    n_samples : int or (int, int), default=20
        Rows of each task; a pair is a range to draw from, both ends included.
    n_features : int, default=5
        Number of features, drawn from a standard normal distribution. There is no
        intercept.
    between : float or array-like of shape (n_features,), default=1.0
        Standard deviation of the weights between tasks, for all features or for each.
    noise : float, default=1.0
        Standard deviation of the Gaussian noise on the target.
    return_coef : bool, default=False
        Whether to return the true weights of each task as well.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws; the common mean of the weights is standard normal.

    Returns
    -------
    tasks : list of Task
        Pairs ``(X, y)`` of shapes ``(n_samples, n_features)`` and ``(n_samples,)``.
    coef : ndarray of shape (n_tasks, n_features)
        True weights. Only returned if `return_coef` is True.

    Examples
    --------
    >>> from skmeta.datasets import make_regression_tasks
    >>> tasks, coef = make_regression_tasks(
    ...     n_tasks=8, n_samples=(2, 9), between=0.5, return_coef=True, random_state=0
    ... )
    >>> coef.shape
    (8, 5)

    Tasks of different size are the normal case:

    >>> [len(y) for X, y in tasks]
    [6, 9, 7, 2, 5, 5, 5, 9]
    """
    rng = check_random_state(random_state)
    spread = np.asarray(between, dtype=float)
    if spread.shape not in [(), (n_features,)] or not np.all(spread >= 0):
        raise ValueError(
            "between must be a non-negative number, or one per feature. "
            f"Got {between!r} for {n_features} features."
        )
    sizes = _draw_sizes(n_samples, n_tasks, rng)
    mean = rng.standard_normal(n_features)
    coef = mean + spread * rng.standard_normal((n_tasks, n_features))
    X = rng.standard_normal((sizes.sum(), n_features))
    y = np.einsum("ij,ij->i", X, np.repeat(coef, sizes, axis=0))
    y += noise * rng.standard_normal(len(y))
    tasks = _split(X, y, sizes)
    return (tasks, coef) if return_coef else tasks
