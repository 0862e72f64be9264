"""Adapting linear-Gaussian tasks to their rows: batched closed-form posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._evidence import whiten
from ._serial import whitened
from ._statistics import Statistics, padded_blocks

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Prior:
    """What fitting learned: the distribution of the weights of a new task.

    Parameters
    ----------
    mean : ndarray of shape (n_features,)
        Expected weights.
    factor : ndarray of shape (n_features, rank)
        Square root of the covariance of the weights of a new task: how much tasks
        differ, plus how little is known of their mean.
    between : ndarray of shape (n_features, rank_between)
        Square root of the first of these two parts. Tasks that were themselves fitted
        on get their exact posterior from it.
    noise : float
        Variance of the noise.
    ridge : ndarray of shape (n_features,)
        Learned prior precision of the mean.
    covariance : str
        Structure of the covariance.
    log_evidence : float
        Log marginal likelihood of the training tasks.
    n_iter : int
        Evaluations of the marginal likelihood by the optimiser.
    row_weight : float
        How much a support row counts; less than one where the rows of a task resemble
        each other more than the model says.
    serial : float
        Correlation of the errors of one support row and the next, ``serial ** n`` that
        of rows n apart; their statistics must know their order where it is not 0.
    """

    mean: np.ndarray
    factor: np.ndarray
    between: np.ndarray
    noise: float
    ridge: np.ndarray
    covariance: str
    log_evidence: float
    n_iter: int
    row_weight: float = 1.0
    serial: float = 0.0

    @property
    def row_noise(self) -> float:
        """Variance of the noise that a support row is taken to have."""
        return self.noise / self.row_weight


def posterior(prior: Prior, statistics: Statistics) -> State:
    """Posterior of the weights of new tasks.

    Parameters
    ----------
    prior : Prior
        Learned prior.
    statistics : Statistics
        Sufficient statistics of the support rows; a task without rows gets the prior.

    Returns
    -------
    dict
        ``"mean"`` of shape (n_tasks, n_features), the expected weights, and ``"chol"``
        of shape (n_tasks, rank, rank), the lower root of the posterior precision times
        ``prior.row_noise`` in the coordinates of ``prior.factor``.
    """
    statistics = whitened(statistics, prior.serial)
    score = statistics.cross - statistics.gram @ prior.mean
    latent, chol = conditional(prior.factor, prior.row_noise, statistics.gram, score)
    return {"mean": prior.mean + latent @ prior.factor.T, "chol": chol}


def conditional(factor, noise, gram, score):
    """Posterior of the latent coordinates of the deviation from the mean.

    Parameters
    ----------
    factor : ndarray of shape (n_features, rank)
        Square root of the prior covariance.
    noise : float
        Variance of the noise.
    gram : ndarray of shape (n_tasks, n_features, n_features)
        Sums of the outer products of the rows.
    score : ndarray of shape (n_tasks, n_features)
        Sums of row times residual from the prior mean.

    Returns
    -------
    latent : ndarray of shape (n_tasks, rank)
        Posterior means.
    chol : ndarray of shape (n_tasks, rank, rank)
        Lower roots of the posterior precisions times the noise.
    """
    rank = factor.shape[1]
    if not rank:
        return np.zeros((len(score), 0)), np.zeros((len(score), 0, 0))
    _, inner = whiten(gram, factor)
    inner[:, np.arange(rank), np.arange(rank)] += noise
    latent = np.linalg.solve(inner, (score @ factor)[..., None])[..., 0]
    return latent, np.linalg.cholesky(inner)


def training_posterior(prior: Prior, statistics: Statistics) -> State:
    """Posterior of the weights of tasks that the prior was fitted on.

    Their rows are in the prior already: conditioning on them again would count them
    twice. The exact posterior combines the deviation of the task, given the mean, with
    the uncertainty of the mean that is left.

    Parameters
    ----------
    prior : Prior
        Learned prior.
    statistics : Statistics
        Sufficient statistics of training tasks, as they were when fitted.

    Returns
    -------
    dict
        As from `posterior`; the root need not be triangular.
    """
    statistics = whitened(statistics, prior.serial)
    gram, between = statistics.gram, prior.between
    score = statistics.cross - gram @ prior.mean
    deviation, chol = conditional(between, prior.row_noise, gram, score)
    # Products of roots, not differences of covariances: with little noise and many
    # features the differences cancel, and what is left is not positive.
    half = np.linalg.solve(
        chol, np.broadcast_to(between.T, (len(gram), *between.T.shape))
    )
    shrunk = half.swapaxes(1, 2) @ half
    keep = np.eye(len(between)) - shrunk @ gram
    mean_cov = prior.factor @ prior.factor.T - between @ between.T
    cov = prior.row_noise * shrunk + keep @ mean_cov @ keep.swapaxes(1, 2)
    inverse = np.linalg.pinv(prior.factor)
    latent = inverse @ (cov + cov.swapaxes(1, 2)) @ inverse.T / (2 * prior.row_noise)
    rank = latent.shape[1]
    tiny = 1e-12 * np.trace(latent, axis1=1, axis2=2) / max(rank, 1)
    latent[:, np.arange(rank), np.arange(rank)] += tiny[:, None]
    root = np.linalg.inv(np.linalg.cholesky(latent)).swapaxes(1, 2)
    mean = prior.mean + deviation @ between.T
    return {"mean": mean, "chol": root}


def predict(
    prior: Prior,
    state: State,
    features: np.ndarray,
    codes: np.ndarray,
    return_std: bool = False,
):
    """Predict long-format rows, each by its own task.

    Parameters
    ----------
    prior : Prior
        Learned prior.
    state : dict
        What `posterior` returned.
    features : ndarray of shape (n_rows, n_features)
        Design rows.
    codes : ndarray of shape (n_rows,)
        Task of every row; -1 for an unknown task, which is predicted by the prior.
    return_std : bool, default=False
        Whether to return the standard deviation of a new observation as well.

    Returns
    -------
    mean : ndarray of shape (n_rows,)
        Predictions.
    std : ndarray of shape (n_rows,)
        Only with ``return_std=True``.
    """
    weights = np.concatenate([state["mean"], prior.mean[None]])
    mean = np.einsum("np,np->n", features, weights[codes])
    if not return_std:
        return mean
    variance = prior.noise + latent_variance(prior, state, features, codes)
    return mean, np.sqrt(variance)


def latent_variance(prior, state, features, codes):
    """Posterior variance of the noise-free target of every row."""
    latent = features @ prior.factor
    rank = latent.shape[1]
    variance = np.square(latent).sum(1)
    if not rank:
        return variance
    known = np.flatnonzero(codes >= 0)
    blocks = padded_blocks(codes[known], len(state["chol"]), 2 * rank)
    for tasks, rows, mask in blocks:
        rows = known[rows]
        half = np.linalg.solve(state["chol"][tasks], latent[rows].swapaxes(1, 2))
        variance[rows[mask]] = prior.row_noise * np.square(half).sum(1)[mask]
    return variance
