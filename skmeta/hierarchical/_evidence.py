"""Marginal likelihood of stacked linear-Gaussian tasks, with its gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from ._statistics import Statistics


class Evidence(NamedTuple):
    """Log marginal likelihood and its derivatives.

    Parameters
    ----------
    value : float
        Log density of all targets, task weights and shared mean integrated out.
    mean : ndarray of shape (n_features,)
        Posterior mean of the shared mean of the task weights.
    mean_cov : ndarray of shape (n_features, n_features)
        Posterior covariance of the shared mean.
    d_cov : ndarray of shape (n_features, n_features)
        Derivative with respect to the covariance of the task weights.
    d_noise : float
        Derivative with respect to the noise variance.
    """

    value: float
    mean: np.ndarray
    mean_cov: np.ndarray
    d_cov: np.ndarray
    d_noise: float


def whiten(gram: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``gram @ factor`` and ``factor.T @ gram @ factor`` of every task.

    Both are single matrix products over the stacked rows: broadcasting a small matrix
    against a stack is up to ten times slower.
    """
    n_tasks, p, _ = gram.shape
    rank = factor.shape[1]
    right = (gram.reshape(-1, p) @ factor).reshape(n_tasks, p, rank)
    left = np.ascontiguousarray(right.swapaxes(1, 2))
    return right, (left.reshape(-1, p) @ factor).reshape(n_tasks, rank, rank)


def marginalise(statistics: Statistics, factor: np.ndarray, noise: float):
    """Statistics of every task with its own deviation integrated out.

    With ``V`` the covariance of the rows of a task (noise plus deviation) these are
    ``F' V^-1 F``, ``F' V^-1 y``, ``y' V^-1 y`` and ``log |V|``.

    Returns
    -------
    precision : ndarray of shape (n_tasks, n_features, n_features)
    score : ndarray of shape (n_tasks, n_features)
    energy : ndarray of shape (n_tasks,)
    log_det : ndarray of shape (n_tasks,)
    """
    log_det = statistics.count * np.log(noise)
    if not factor.shape[1]:
        return (
            statistics.gram / noise,
            statistics.cross / noise,
            statistics.energy / noise,
            log_det,
        )
    right, inner = whiten(statistics.gram, factor)
    inner[:, np.arange(len(factor.T)), np.arange(len(factor.T))] += noise
    chol = np.linalg.cholesky(inner)
    joined = np.concatenate([right, (statistics.cross @ factor)[:, None]], axis=1)
    half = np.linalg.solve(chol, joined.swapaxes(1, 2))
    explained = np.matmul(half.swapaxes(1, 2), half.copy())
    diagonal = np.diagonal(chol, axis1=1, axis2=2)
    log_det = log_det + 2 * np.log(diagonal).sum(1) - len(factor.T) * np.log(noise)
    return (
        (statistics.gram - explained[:, :-1, :-1]) / noise,
        (statistics.cross - explained[:, :-1, -1]) / noise,
        (statistics.energy - explained[:, -1, -1]) / noise,
        log_det,
    )


def shared_mean(precision: np.ndarray, score: np.ndarray, ridge: np.ndarray):
    """Posterior mean, covariance and log-determinant of precision of the mean.

    Parameters
    ----------
    precision, score : ndarray
        As `marginalise` returns them, summed over tasks.
    ridge : ndarray of shape (n_features,)
        Prior precision of every entry of the shared mean.
    """
    chol = linalg.cholesky(precision + np.diag(ridge), lower=True)
    root = linalg.solve_triangular(chol, np.eye(len(chol)), lower=True)
    cov = root.T @ root
    return cov @ score, cov, 2 * np.log(np.diagonal(chol)).sum()


def evidence(
    statistics: Statistics, factor: np.ndarray, noise: float, ridge: np.ndarray
) -> Evidence:
    """Log marginal likelihood of all tasks and its gradient, in closed form.

    The weights of a task are the shared mean plus ``factor @ u`` with standard normal
    ``u``; the shared mean has a centred Gaussian prior of precision `ridge`. Both are
    integrated out, as in the restricted likelihood of Laird and Ware [1]_.

    Parameters
    ----------
    statistics : Statistics
        Sufficient statistics of the tasks.
    factor : ndarray of shape (n_features, rank)
        Square root of the covariance of the task weights.
    noise : float
        Variance of the noise.
    ridge : ndarray of shape (n_features,)
        Prior precision of the entries of the shared mean.

    Returns
    -------
    Evidence
        Value, posterior of the shared mean, gradient.

    References
    ----------
    .. [1] N. M. Laird and J. H. Ware, "Random-effects models for longitudinal data",
       Biometrics 38 (1982), 963-974.
    """
    precision, score, energy, log_det = marginalise(statistics, factor, noise)
    total = score.sum(0)
    mean, cov, mean_log_det = shared_mean(precision.sum(0), total, ridge)
    quadratic = energy.sum() - total @ mean
    n_rows = statistics.count.sum()
    value = -0.5 * (
        n_rows * np.log(2 * np.pi)
        + log_det.sum()
        + quadratic
        + mean_log_det
        - np.log(ridge).sum()
    )
    residual = score - precision @ mean
    spread = whiten_sum(precision, cov)
    d_cov = 0.5 * (residual.T @ residual - precision.sum(0) + spread)
    # A common factor on all variances changes the density in a known way, which gives
    # the derivative for the noise from the others (Euler's theorem).
    d_scale = 0.5 * (quadratic - n_rows)
    d_ridge = 0.5 * (1 - ridge * (mean**2 + np.diagonal(cov))).sum()
    along = np.sum(d_cov * (factor @ factor.T))
    return Evidence(value, mean, cov, d_cov, (d_scale - along + d_ridge) / noise)


def whiten_sum(precision: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Sum over tasks of ``P cov P``."""
    n_tasks, p, _ = precision.shape
    product = (precision.reshape(-1, p) @ cov).reshape(n_tasks, p, p)
    return np.tensordot(product, precision, axes=([0, 2], [0, 2]))
