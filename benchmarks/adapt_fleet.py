"""Seconds to adapt to 10,000 new ten-row tasks in one call, and to predict them.

python benchmarks/adapt_fleet.py
"""

import statistics
import time

import numpy as np
import torch
from _ledger import record

from skmeta.utils.discovery import all_estimators

N_TASKS, N_ROWS, N_FEATURES, N_REPEATS = 10_000, 10, 10, 3


def fleet(seed, classifier):
    """Rows of many related tasks; labels are shared by all."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N_TASKS, 2 * N_ROWS, N_FEATURES))
    weights = 1 + rng.normal(size=(N_TASKS, N_FEATURES))
    y = np.einsum("trf,tf->tr", X, weights) + rng.normal(size=X.shape[:2])
    y = (y > 0).astype(int) if classifier else y
    groups = np.repeat([f"user {i}" for i in range(N_TASKS)], N_ROWS)
    return X[:, :N_ROWS], y[:, :N_ROWS], X[:, N_ROWS:], y[:, N_ROWS:], groups


def flat(X):
    return X.reshape(-1, N_FEATURES)


def measure(estimator, classifier):
    X, y, X_query, y_query, groups = fleet(0, classifier)
    train = slice(0, 200)
    ids = np.repeat(np.arange(200), N_ROWS)
    meta = estimator.fit(flat(X[train]), y[train].ravel(), groups=ids)
    times = []
    for _ in range(N_REPEATS):
        start = time.perf_counter()
        meta.adapt(flat(X), y.ravel(), groups=groups)
        middle = time.perf_counter()
        found = meta.predict(flat(X_query), groups=groups)
        times.append((middle - start, time.perf_counter() - middle))
    truth = y_query.ravel()
    quality = (
        np.mean(found == truth)
        if classifier
        else 1 - np.mean((found - truth) ** 2) / np.var(truth)
    )
    adapt, predict = (statistics.median(t) for t in zip(*times, strict=True))
    return {
        "adapt": adapt,
        "predict": predict,
        "total": adapt + predict,
        "accuracy" if classifier else "r2": float(quality),
    }


def main():
    torch.set_num_threads(1)
    classifiers = {name for name, _ in all_estimators("classifier")}
    results = {}
    for name, estimator in all_estimators():
        instance = estimator()
        if "random_state" in instance.get_params():
            instance.set_params(random_state=0)
        results[name] = measure(instance, name in classifiers)
        print(name, {k: round(v, 3) for k, v in results[name].items()})
    record(
        "adapt_fleet",
        protocol=f"{N_TASKS} tasks, {N_ROWS} support and {N_ROWS} query rows of "
        f"{N_FEATURES} features; seconds, median of {N_REPEATS}, one Torch thread",
        seeds=[0],
        results=results,
    )


if __name__ == "__main__":
    main()
