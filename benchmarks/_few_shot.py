"""Episodes from one labelled pool, and the accuracy of a meta-learner on them."""

import numpy as np

from skmeta.tasks._sampler import EpisodeSampler
from skmeta.tasks._table import table_from_codes


def pool_sampler(X, y, n_ways, n_shots, n_queries, seed):
    """Draws episodes of the classes of a pool."""
    table = table_from_codes(X, y, np.zeros(len(y), dtype=int), [None])
    return EpisodeSampler(
        table, None, True, n_ways, n_shots, n_queries, "random", True, seed, None
    )


def stacked_episodes(sampler, n_episodes):
    """Rows and classes of the support, then of the query, of all episodes."""
    support, query = sampler.sample(0, sampler.units, n_episodes)
    return tuple(part.numpy() for part in (support.X, support.y, query.X, query.y))


def adapted_accuracy(meta, Xs, ys, Xq, yq, at_a_time=None):
    """Accuracy of each episode; so many of them, or all, are adapted in one call."""
    scores, step = [], at_a_time or len(Xs)
    for part in (slice(i, i + step) for i in range(0, len(Xs), step)):
        ids = np.array([f"episode {i}" for i in range(len(Xs[part]))])
        rows = (-1, *Xs.shape[2:])
        groups = np.repeat(ids, ys.shape[1])
        meta.adapt(Xs[part].reshape(rows), ys[part].ravel(), groups=groups)
        groups = np.repeat(ids, yq.shape[1])
        found = meta.predict(Xq[part].reshape(rows), groups=groups)
        scores.append((found.reshape(yq[part].shape) == yq[part]).mean(axis=1))
    return np.concatenate(scores)
