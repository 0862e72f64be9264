"""How far the label of each support row is believed, where some may be wrong."""

from __future__ import annotations

import numpy as np

from ._laplace import (
    LogisticPrior,
    indicators,
    log_likelihood,
    logistic_posterior,
)

#: How many rows the expected share of wrong labels counts as, beside those of a task.
STRENGTH = 5.0
#: Share of random labels that "robust" expects. Of two classes half of them are right.
ROBUST = 0.4
#: What "learned" chooses from.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
N_ROUNDS = 10


def trusted(
    prior: LogisticPrior,
    features: np.ndarray,
    labels: np.ndarray,
    codes: np.ndarray,
    n_tasks: int,
    n_classes: int,
    weight: np.ndarray | None = None,
    *,
    share: float,
    n_rounds: int = N_ROUNDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of rows under a mixture of the model's labels and random ones.

    Expectation maximisation: a row counts by the probability that its label is the
    model's, then the most probable weights of the task follow, and its share of random
    labels, whose expected value counts as `STRENGTH` rows.

    Parameters
    ----------
    prior, features, labels, codes, n_tasks, n_classes, weight
        As for `logistic_posterior`.
    share : float
        Expected share of random labels; 0 believes all of them.
    n_rounds : int
        Rounds.

    Returns
    -------
    weight : ndarray of shape (n_rows,)
        `weight`, times the belief in each label.
    random : ndarray of shape (n_tasks,)
        Share of random labels in each task.
    """
    weight = np.ones(len(codes)) if weight is None else weight
    belief, random = np.ones(len(codes)), np.full(n_tasks, share)
    if share == 0:
        return weight, random
    task = features, labels, codes, n_tasks, n_classes
    size = np.bincount(codes, weight, n_tasks)
    for _ in range(n_rounds):
        mode = logistic_posterior(prior, *task, weight * belief)["mean"]
        mode[..., 0] += prior.shift(labels, codes, n_tasks, weight * belief)
        model = (1 - random[codes]) * likelihood(mode, features, labels, codes)
        belief = model / (model + random[codes] / n_classes)
        doubted = np.bincount(codes, weight * (1 - belief), n_tasks)
        random = (share * STRENGTH + doubted) / (STRENGTH + size)
    return weight * belief, random


def likelihood(weights, features, labels, codes):
    """Probability of the label of each row, under the weights of its task."""
    logits = np.einsum("rf,rkf->rk", features, weights[codes])
    return np.exp(log_likelihood(logits, indicators(labels, logits.shape[1])))


def learn_share(prior: LogisticPrior, support, query, n_classes: int) -> float:
    """The share of random labels with which later rows of tasks are predicted best.

    Parameters
    ----------
    prior : LogisticPrior
        Learned prior.
    support, query : TaskTable
        Early and later design rows of the same tasks.
    n_classes : int
        Number of classes.

    Returns
    -------
    float
        One of `SHARES`; 0 where there are no later rows.
    """
    if len(query.X) == 0:
        return 0.0
    task = support.X, support.y, support.codes, support.n_tasks, n_classes

    def loss(share):
        weight, random = trusted(prior, *task, support.weight, share=share)
        mode = logistic_posterior(prior, *task, weight)["mean"]
        right = likelihood(mode, query.X, query.y, query.codes)
        random = random[query.codes]  # the later labels may be wrong as well
        return -np.log((1 - random) * right + random / n_classes).mean()

    return min(SHARES, key=loss)
