"""What straight lines cannot follow, when rows of a task are chosen."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist

#: Largest share of the noise that rows near each other have in common.
SHARE = 0.6
#: The same as a share of the squared distance that is typical in a pool.
CURVED = 0.15
#: Rows that stand for a pool: of more, the deviation is a Nystroem approximation.
N_MARKS = 256


def with_misfit(latent):
    """Take part of the noise for a smooth deviation that near rows share.

    A straight line learns the most from the two ends of a pool. Where the truth is
    bent, a second label at the same end tells of the same deviation, and less than one
    in the middle. Nearness is that of latent rows, where a feature counts by how much
    the task may depend on it. The deviation is no larger than a share of the noise, and
    where the line itself hardly varies over the pool it is hardly there.

    Parameters
    ----------
    latent : ndarray of shape (n_rows, rank)
        Rows, such that ``latent @ latent.T`` is the covariance of outputs in units of
        the variance of the noise.

    Returns
    -------
    latent : ndarray of shape (n_rows, rank + min(n_rows, N_MARKS))
        With the deviation; as it was where all rows are alike.
    noise : ndarray of shape (n_rows,)
        What is left of the noise; the sum of both variances is unchanged.
    """
    every = np.linspace(0, len(latent) - 1, min(len(latent), N_MARKS)).astype(int)
    marks = latent[every]
    distance = cdist(latent, marks, "sqeuclidean")
    if not distance.any():
        return latent, np.ones(len(latent))
    typical = np.median(distance[distance > 0])
    kernel = np.exp(-2 * distance / typical)
    inner = kernel[every] + 1e-8 * np.eye(len(every))
    root = solve_triangular(np.linalg.cholesky(inner), kernel.T, lower=True).T
    shared = np.sqrt(min(SHARE, CURVED * typical)) * root
    noise = 1 - np.square(shared).sum(axis=1)
    return np.concatenate([latent, shared], axis=1), noise
