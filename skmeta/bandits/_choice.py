"""Choosing arms from the posterior of their weights."""

from __future__ import annotations

import numpy as np


class TaskWeights:
    """Posterior of the weights of all arms in one task.

    Parameters
    ----------
    mean : ndarray of shape (n_weights,)
        Expected weights.
    factor : ndarray of shape (n_weights, rank)
        Square root of the prior covariance.
    chol : ndarray of shape (rank, rank)
        Root of the posterior precision, times the noise, in its coordinates.
    noise : float
        Variance of the noise.
    n_arms : int
        Number of arms.
    """

    def __init__(self, mean, factor, chol, noise, n_arms):
        self.weights = mean.reshape(n_arms, -1)
        # A draw of the weights is the mean plus white numbers times this root.
        self.root = np.sqrt(noise) * np.linalg.solve(chol, factor.T)

    def means(self, features):
        """Expected values of all arms, (n_rows, n_arms)."""
        return features @ self.weights.T

    def stds(self, features):
        """Standard deviations of these values, (n_rows, n_arms)."""
        n_arms, p = self.weights.shape
        root = self.root.reshape(-1, n_arms, p).transpose(1, 0, 2)
        half = features @ root.swapaxes(1, 2)
        return np.sqrt(np.square(half).sum(-1)).T

    def draws(self, rng, n):
        """Weights drawn from the posterior, (n, n_arms, n_features)."""
        white = rng.standard_normal((n, len(self.root)))
        return self.weights + (white @ self.root).reshape(n, *self.weights.shape)


def draw_values(weights, features, rng):
    """Values of all arms under weights drawn anew for every row."""
    return np.einsum("nkp,np->nk", weights.draws(rng, len(features)), features)


def best_shares(weights, features, active, n_draws, seed):
    """How often each arm is the best of the active ones over draws of the weights."""
    drawn = weights.draws(np.random.default_rng(seed), n_draws)
    shares = np.zeros((len(features), len(weights.weights)))
    for start in range(0, len(features), 256):
        rows = slice(start, start + 256)
        values = np.einsum("skp,np->nsk", drawn, features[rows], optimize=True)
        values[..., ~active] = -np.inf
        best = values.argmax(-1)
        for arm in np.flatnonzero(active):
            shares[rows, arm] = (best == arm).mean(1)
    return shares


def largest(values, active):
    """Probability one for the active arm of the largest value, the first of equals."""
    values = np.where(active, values, -np.inf)
    return np.eye(values.shape[1])[values.argmax(1)]
