"""A prior made of the training tasks themselves: a mixture over their neighborhoods.

All is in latent coordinates, in which the learned prior is standard normal and distance
is that of Mahalanobis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import expit, logit, logsumexp

from ._gaussian import State

#: Of more training tasks a random choice stands for all.
MAX_TASKS = 500
# New tasks that are solved at once: bounds the memory.
_CHUNK = 1000


@dataclass(frozen=True)
class Neighborhoods:
    """A new task is as the learned prior says, or in one of some neighborhoods.

    Neighborhoods are Gaussian, each around a training task and those nearest to it.
    Mean and covariance of their mixture are those of the learned prior, so that a task
    without rows is predicted as without neighbors.

    Parameters
    ----------
    centers : ndarray of shape (n_centers, n_columns, rank)
        Means of neighborhoods; one column, or one for each logit.
    cov : ndarray of shape (n_columns, rank, rank)
        Covariance of the tasks of a neighborhood, common to all.
    share : float
        Prior probability that a new task is in one of them.
    """

    centers: np.ndarray
    cov: np.ndarray
    share: float

    def posterior(
        self, latent: np.ndarray, precision: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of new tasks, from those under the learned prior alone.

        The posterior under a standard normal prior tells the likelihood: its precision
        is one less, and times the mean both give the same score. What rows say of a
        neighborhood is their likelihood integrated over it, in closed form.

        Parameters
        ----------
        latent : ndarray of shape (n_tasks, n_columns, rank)
            Posterior means under the learned prior.
        precision : ndarray of shape (n_tasks, n_columns, rank, rank)
            Posterior precisions.

        Returns
        -------
        latent : ndarray of shape (n_tasks, n_columns, rank)
            Means of the mixture of posteriors.
        cov : ndarray of shape (n_tasks, n_columns, rank, rank)
            Its covariances.
        """
        parts = [
            self._moments(Sites(self, latent[begin:end], precision[begin:end]))
            for begin, end in _chunks(len(latent))
        ]
        latent, cov = zip(*parts, strict=True)
        return np.concatenate(latent), np.concatenate(cov)

    def _moments(self, sites):
        """Moments of the mixture around the mean under the learned prior."""
        weight = sites.responsibilities(self.share)
        share = weight.sum(1)[:, None, None]
        start = sites.start - sites.latent
        first = np.matmul(sites.gain, sites.sums(weight, sites.centers)[..., None])
        first = first[..., 0]
        second = sites.gain @ sites.sums(weight, sites.outer)
        total = second @ sites.gain.swapaxes(2, 3)
        cross = start[..., None] * (first + 0.5 * share * start)[..., None, :]
        total += cross + cross.swapaxes(2, 3) + share[..., None] * sites.cov
        total += (1 - share)[..., None] * np.linalg.inv(sites.precision)
        moved = share * start + first
        return sites.latent + moved, total - moved[..., None] * moved[..., None, :]


def learn_neighborhoods(mean, cov, latent, precision, n_neighbors) -> Neighborhoods:
    """Neighborhoods of training tasks that are known up to a posterior.

    A kernel density estimate over tasks [1]_ whose kernel has the shape of the tasks
    near each other, as far as they are known: the posteriors of `n_neighbors` tasks
    make a Gaussian, whose covariance is averaged over neighborhoods. How often new
    tasks are in one of them is what makes the rows of each training task likeliest,
    given the neighborhoods that it is not part of.

    Parameters
    ----------
    mean : ndarray of shape (n_tasks, n_columns, rank)
        Posterior means of the training tasks.
    cov : ndarray of shape (n_tasks, n_columns, rank, rank)
        Posterior covariances.
    latent, precision : ndarray
        Posterior means and precisions of the same tasks as if they were new.
    n_neighbors : int
        Tasks of a neighborhood, the one in the middle among them.

    Returns
    -------
    Neighborhoods

    References
    ----------
    .. [1] M. West, "Approximating posterior distributions by mixtures", Journal of the
       Royal Statistical Society B 55 (1993), 409-422.
    """
    flat = mean.reshape(len(mean), -1)
    nearest = np.argsort(cdist(flat, flat), axis=1, kind="stable")[:, :n_neighbors]
    centers = mean[nearest].mean(1)
    apart = mean[nearest] - centers[:, None]
    within = np.einsum("nkca,nkcb->cab", apart, apart) / nearest.size
    within += cov[nearest].mean((0, 1))
    centers = centers - centers.mean(0)
    total = within + np.einsum("nca,ncb->cab", centers, centers) / len(centers)
    values, vectors = np.linalg.eigh(total)
    shrink = (vectors / np.sqrt(values)[:, None]) @ vectors.swapaxes(1, 2)
    centers = np.einsum("cab,ncb->nca", shrink, centers)
    found = Neighborhoods(centers, shrink @ within @ shrink, 0.5)
    own = np.zeros((len(mean), len(mean)), dtype=bool)
    np.put_along_axis(own.T, nearest, True, axis=1)
    return replace(found, share=_learn_share(Sites(found, latent, precision), ~own))


def _learn_share(sites, others, n_rounds=50) -> float:
    """Share of tasks in a neighborhood of others, by expectation maximisation."""
    judged = others.any(1)
    if not judged.any():
        return 0.5  # one neighborhood of all tasks: the learned prior once more
    ratio = np.where(others, sites.log_ratio, -np.inf)[judged]
    ratio = logsumexp(ratio, axis=1) - np.log(others[judged].sum(1))
    share = 0.5
    for _ in range(n_rounds):
        belief = expit(logit(share) + ratio)
        share = (1 + belief.sum()) / (2 + len(belief))
    return float(share)


class Sites:
    """What the rows of tasks say of every neighborhood.

    Parameters
    ----------
    found : Neighborhoods
        What was learned.
    latent, precision : ndarray
        Posteriors of the tasks under the learned prior, see `Neighborhoods.posterior`.

    Attributes
    ----------
    cov : ndarray of shape (n_tasks, n_columns, rank, rank)
        Posterior covariance in a neighborhood.
    gain, start : ndarray
        The posterior mean in one is ``start + gain @ center``.
    log_ratio : ndarray of shape (n_tasks, n_centers)
        Log-likelihood of the rows in a neighborhood less that under the learned prior.
    """

    def __init__(self, found, latent, precision):
        self.latent, self.precision = latent, precision
        self.centers = found.centers
        self.outer = found.centers[..., None] * found.centers[..., None, :]
        inner = np.linalg.inv(found.cov)
        own = precision + inner - np.eye(latent.shape[-1])
        score = np.matmul(precision, latent[..., None])[..., 0]
        self.cov = np.linalg.inv(own)
        self.gain = self.cov @ inner
        self.start = np.matmul(self.cov, score[..., None])[..., 0]
        pull = np.matmul(inner, self.start[..., None])[..., 0]
        flat = (part.reshape(len(part), -1) for part in (self.outer, self.centers))
        outer, centers = flat
        bend = (inner @ self.gain - inner).reshape(len(latent), -1)
        common = (score * (self.start - latent)).sum((1, 2))
        common += _log_det(inner) - _log_det(own) + _log_det(precision)
        self.log_ratio = 0.5 * (bend @ outer.T + common[:, None])
        self.log_ratio += pull.reshape(len(latent), -1) @ centers.T

    def responsibilities(self, share):
        """Posterior probability of every neighborhood; the rest is the prior's."""
        log_weight = self.log_ratio + np.log(share / len(self.centers))
        every = np.column_stack(
            [np.full(len(log_weight), np.log1p(-share)), log_weight]
        )
        return np.exp(log_weight - logsumexp(every, axis=1, keepdims=True))

    @staticmethod
    def sums(weight, values):
        """Weighted sums over neighborhoods."""
        total = weight @ values.reshape(len(values), -1)
        return total.reshape(len(weight), *values.shape[1:])


def _chunks(n_tasks):
    """Bounds of chunks of tasks; one that is empty where there are none."""
    return [(i, i + _CHUNK) for i in range(0, max(n_tasks, 1), _CHUNK)]


def _log_det(precision):
    """Sum over the columns."""
    return np.linalg.slogdet(precision)[1].sum(-1)


def latent_state(prior, state: State):
    """Means and precisions of states in latent coordinates, an axis for the columns."""
    deviation = (state["mean"] - prior.mean) @ np.linalg.pinv(prior.factor).T
    precision = state["chol"] @ state["chol"].swapaxes(-1, -2)
    return (
        deviation.reshape(len(deviation), -1, prior.factor.shape[1]),
        precision.reshape(len(deviation), -1, *precision.shape[-2:]) / prior.row_noise,
    )
