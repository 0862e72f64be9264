"""How much weight each candidate of the guard is given, from losses of tasks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.stats import t as student


def safe_and_rich(losses, mixture, simple):
    """Weights of the simple candidates alone, and of all candidates.

    Parameters
    ----------
    losses : ndarray of shape (n_tasks, n_candidates + 1)
        Loss of each task with each candidate and, last, with their mixture; NaN where
        a task was too small.
    mixture : ndarray of shape (n_candidates,)
        Weights of the mixture.
    simple : list of int
        Positions of the simple candidates.

    Returns
    -------
    safe, rich : ndarray of shape (n_candidates,)
        Weights that sum to 1. How often a candidate is best in resamples of the tasks
        is its weight: a choice between equals is a matter of luck, and their mean is
        not.
    """
    safe = np.zeros(len(mixture))
    safe[simple] = share_of_wins(losses[:, simple])
    every = np.vstack([np.eye(len(mixture)), mixture])
    return safe, share_of_wins(losses) @ every


def share_of_wins(losses, n_boot=500):
    """How often each column has the smallest mean, over resamples of the tasks."""
    losses = losses[~np.isnan(losses).any(axis=1)]
    n_tasks, n_columns = losses.shape
    if not n_tasks:
        return np.full(n_columns, 1 / n_columns)
    draws = np.random.default_rng(0).multinomial(
        n_tasks, np.full(n_tasks, 1 / n_tasks), n_boot
    )
    return np.bincount((draws @ losses).argmin(axis=1), minlength=n_columns) / n_boot


def trust(gain, level=0.9):
    """How far to believe a mean gain over tasks, from 0 to 1.

    Nothing unless the gain is beyond the one-sided bound of Student's t-test over
    tasks. From there on the part of its square that the bound leaves over, as in the
    positive-part estimator of James and Stein, so that a little more evidence never
    changes the choice by a jump.

    Parameters
    ----------
    gain : ndarray of shape (n_tasks,)
        Gain of each task; NaN where it is not known.
    level : float, default=0.9
        Of the test.

    Returns
    -------
    float
        Share of the way from the safe to the rich weights.
    """
    gain = gain[~np.isnan(gain)]
    if len(gain) < 2 or gain.mean() <= 0:
        return 0.0
    bound = student.ppf(level, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
    return max(0.0, 1 - (bound / gain.mean()) ** 2)


def task_means(values, codes, n_tasks):
    """Mean of the rows of each task; zero without rows."""
    counts = np.bincount(codes, minlength=n_tasks)
    return np.bincount(codes, values, minlength=n_tasks) / np.maximum(counts, 1)


def likeliest_mixture(proba, row_weight, n_steps=100):
    """Weights under which a mixture of forecasts is most likely, by EM.

    Parameters
    ----------
    proba : ndarray of shape (n_rows, n_candidates)
        Probability that each candidate gave to what happened.
    row_weight : ndarray of shape (n_rows,)
        How much each row counts.
    n_steps : int, default=100
        Steps of EM.

    Returns
    -------
    ndarray of shape (n_candidates,)
        Weights, even without rows.
    """
    weight = np.full(proba.shape[1], 1 / proba.shape[1])
    if not len(proba):
        return weight
    proba, row = np.clip(proba, 1e-3, None), row_weight / row_weight.sum()
    for _ in range(n_steps):
        share = proba * weight
        weight = row @ (share / share.sum(axis=1, keepdims=True))
    return weight


def simplex_least_squares(gram):
    """Weights ``w >= 0`` that sum to 1 and minimise ``w @ gram @ w``.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
        Symmetric, positive semi-definite.

    Returns
    -------
    ndarray of shape (n,)
        Weights.
    """
    n = len(gram)
    gram = gram / max(np.trace(gram) / n, np.finfo(float).tiny)
    values, vectors = np.linalg.eigh(gram + 1e-10 * np.eye(n))
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    # A heavy last row makes the sum 1 within the solver; dividing makes it exact.
    weight, _ = nnls(np.vstack([root, np.full(n, 1e4)]), np.append(np.zeros(n), 1e4))
    return weight / weight.sum()
