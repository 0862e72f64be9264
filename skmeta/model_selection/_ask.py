"""Which rows of a task to label first."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ..adapted import unwrap
from ..base import NeuralMetaEstimator
from ..tasks._pack import to_batch
from ..tasks._table import table_from_codes


def ask(estimator, X_pool, n, *, groups=None):
    """Choose the rows of a task whose labels would tell the most.

    Where the state of a task is a Gaussian posterior (`HierarchicalRegressor`,
    `HierarchicalClassifier`, `RidgeHeadRegressor`, `RidgeHeadClassifier`,
    `DeepKernelRegressor`, `DeepKernelClassifier` and conformal wrappers of these), each
    next row is the one whose label reduces the variance of the predictions for the
    whole pool the most [1]_. For a Gaussian model that does not depend on labels, so
    all rows are chosen at once; for classes it takes the probabilities of now. Every
    other learner has no such variance: the rows are then spread out over the pool, each
    next one being the farthest from those that are labelled (k-center greedy [2]_), in
    the features of the meta-trained backbone where there is one, else in the
    standardised features of the pool.

    Rows that the task was adapted to already are accounted for. Variance is what the
    model believes, and straight lines believe in the two ends of the pool, also where
    the truth is bent. `HierarchicalRegressor` therefore takes part of its noise for a
    smooth deviation that rows near each other share, while rows are chosen in one call.

    Parameters
    ----------
    estimator : fitted meta-learner, or Pipeline or search that ends in one
        What was learned. It is not changed.
    X_pool : array-like of shape (n_samples, n_features)
        Rows without labels.
    n : int
        How many to choose, of each task.
    groups : array-like of shape (n_samples,), default=None
        Task id of each row. Without it (and without `group_column`) the rows are those
        of the task that was adapted without an id, or else of a new one.

    Returns
    -------
    ndarray of shape (n,) or (n_tasks * n,)
        Positions in the pool, the most telling row first; those of several tasks one
        task after the other, by sorted id.

    References
    ----------
    .. [1] Cohn, Ghahramani and Jordan. "Active learning with statistical models",
       Journal of Artificial Intelligence Research 4, 1996.
    .. [2] Sener and Savarese. "Active learning for convolutional neural networks: a
       core-set approach", ICLR 2018.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import ask
    >>> tasks = make_regression_tasks(50, 40, random_state=0)
    >>> meta = HierarchicalRegressor().fit(tasks[:-1])
    >>> X, y = tasks[-1]
    >>> rows = ask(meta, X, 5)
    >>> meta = meta.adapt(X[rows], y[rows])
    >>> more = ask(meta, X, 5)
    """
    check_is_fitted(estimator)
    steps, meta = unwrap(estimator)
    check_is_fitted(meta)
    for step in steps:
        X_pool = step.transform(X_pool)
    table = meta._read_rows(X_pool, groups)
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be a positive number of rows, got {n!r}.")
    if n > table.counts.min():
        task = table.ids[int(table.counts.argmin())]
        which = "The pool" if task is None else f"The pool of task {task!r}"
        raise ValueError(f"{which} has {table.counts.min()} rows, fewer than n={n}.")
    chosen = []
    for t in range(table.n_tasks):
        part = table.take([t])
        support = _known_support(meta, part.ids[0])
        posterior = meta._pool_posterior(support, part)
        if posterior is None or not posterior[0].size:
            picked = k_center(*_spread(meta, support, part), n)
        else:
            picked = most_telling(*posterior, n)
        chosen.append(part.order[picked])
    return np.concatenate(chosen)


def _known_support(meta, task):
    """Summary of what the task was adapted to; None where nothing can be said."""
    if task in meta.states_:
        block, place = meta.states_[task]
        return block.support.take([place])
    return meta._prior_summary([task])


def most_telling(latent, noise, weight, n):
    """Rows that one after the other reduce the weighted variance of all rows the most.

    Parameters
    ----------
    latent : ndarray of shape (n_outputs, n_rows, rank)
        Rows, such that the covariance of outputs is ``latent @ latent.T``.
    noise : ndarray of shape (n_outputs, n_rows)
        Variance of the noise of a label.
    weight : ndarray of shape (n_outputs, n_rows)
        How much the variance of a row matters.
    n : int
        Number of rows.

    Returns
    -------
    ndarray of shape (n,)
        Positions.
    """
    chosen = []
    for _ in range(n):
        moment = (latent * weight[..., None]).swapaxes(1, 2) @ latent
        variance = np.square(latent).sum(-1)
        gain = ((latent @ moment * latent).sum(-1) / (noise + variance)).sum(0)
        gain[chosen] = -np.inf
        row = int(gain.argmax())
        chosen.append(row)
        # Square root of the covariance that is left once this row is known.
        z, size = latent[:, row], variance[:, row]
        left = np.sqrt(noise[:, row] / (noise[:, row] + size))
        shrink = (1 - left) / np.maximum(size, np.finfo(float).tiny)
        along = (latent @ z[..., None]) * shrink[:, None, None]
        latent = latent - along * z[:, None]
    return np.array(chosen)


def k_center(pool, known, n):
    """Rows of the pool, each the farthest from all known and chosen ones."""
    if len(known):
        first = None
        distance = np.min([np.square(pool - row).sum(1) for row in known], axis=0)
    else:
        first = int(np.square(pool - pool.mean(0)).sum(1).argmin())
        distance = np.full(len(pool), np.inf)
    chosen = []
    for i in range(n):
        row = first if i == 0 and first is not None else int(distance.argmax())
        chosen.append(row)
        distance = np.minimum(distance, np.square(pool - pool[row]).sum(1))
        distance[chosen] = -1
    return np.array(chosen)


def _spread(meta, support, table):
    """Pool and known rows of a task as points whose distance means something."""
    support = getattr(support, "inner", support)
    meta = getattr(meta, "estimator_", meta)
    known = getattr(support, "X", table.X[:0])
    if known.shape[1:] != table.X.shape[1:]:
        known = table.X[:0]  # a family that keeps something else than rows
    rows = np.concatenate([table.X, known])
    if isinstance(meta, NeuralMetaEstimator):
        points = embedded(meta, rows)
    else:
        points = rows.reshape(len(rows), -1).astype(float)
        center, scale = points[: len(table.X)].mean(0), points[: len(table.X)].std(0)
        points = (points - center) / np.where(scale > 0, scale, 1.0)
    return points[: len(table.X)], points[len(table.X) :]


def embedded(meta, rows):
    """Features of rows from the backbone as it was meta-trained."""
    codes = np.zeros(len(rows), dtype=np.intp)
    batch = meta._to_device(to_batch(table_from_codes(rows, None, codes, [None])))
    with torch.no_grad():
        return meta.learner_.embed(batch)[0].cpu().numpy().astype(float)
