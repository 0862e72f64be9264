"""A fleet of 10,000 tasks: adapt, stream, predict a million rows by id, save, load.

python benchmarks/serve_fleet.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _ledger import record

from skmeta import HierarchicalClassifier, HierarchicalRegressor
from skmeta.persistence import load, save

N_TASKS, N_ROWS, N_FEATURES, N_QUERIES = 10_000, 10, 10, 1_000_000


def rows(rng, n_rows, tasks, weights, classifier):
    """Rows of the given tasks."""
    X = rng.normal(size=(n_rows, N_FEATURES))
    y = (X * weights[tasks]).sum(1) + rng.normal(size=n_rows)
    return X, (y > 0).astype(int) if classifier else y


class Clock:
    """Seconds of the wall and of the processor, by name."""

    def __init__(self):
        self.seconds = {}

    def __call__(self, name, function):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        cpu = time.process_time() - cpu
        self.seconds[name] = {
            "wall": round(time.perf_counter() - wall, 3),
            "cpu": round(cpu, 3),
        }
        return result


def measure(estimator, classifier):
    """Seconds of each step, bytes of a task, and what streaming changes."""
    rng, clock = np.random.default_rng(0), Clock()
    weights = 1 + rng.normal(size=(N_TASKS, N_FEATURES))
    tasks = np.repeat(np.arange(N_TASKS), N_ROWS)
    X, y = rows(rng, len(tasks), tasks, weights, classifier)
    old = tasks < 200
    meta = clock("fit 200 tasks", lambda: estimator.fit(X[old], y[old], tasks[old]))
    ids = np.array([f"user {t}" for t in tasks])
    meta.forget(range(200))
    batch = clock("adapt", lambda: meta.adapt(X, y, groups=ids))
    asked = rng.integers(N_TASKS, size=N_QUERIES)
    X_new, _ = rows(rng, N_QUERIES, asked, weights, classifier)
    names = np.array([f"user {t}" for t in range(N_TASKS)])[asked]
    found = clock("predict 1,000,000 rows", lambda: batch.predict(X_new, groups=names))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.safetensors"
        clock("save", lambda: save(batch, path))
        size = path.stat().st_size
        again = clock("load", lambda: load(path))
    same = bool(
        np.array_equal(again.predict(X_new[:1000], groups=names[:1000]), found[:1000])
    )
    streamed = again.forget(np.unique(ids))
    visit = np.tile(np.arange(N_ROWS), N_TASKS)

    def stream():
        for number in range(N_ROWS):
            now = visit == number
            streamed.partial_adapt(X[now], y[now], groups=ids[now])

    clock("10 visits of all tasks, one row each", stream)
    output = "predict_proba" if classifier else "predict"
    first = X_new[:20_000], names[:20_000]
    gap = getattr(streamed, output)(*first) - getattr(batch, output)(*first)
    return {
        "seconds": clock.seconds,
        "file_bytes_per_task": round(size / N_TASKS),
        "loaded_predicts_the_same": same,
        "streamed_minus_batch": float(np.abs(gap).max()),
    }


def main():
    """Run, print, write the ledger."""
    torch.set_num_threads(1)
    results = {}
    for estimator in (HierarchicalRegressor(), HierarchicalClassifier()):
        name = type(estimator).__name__
        results[name] = measure(estimator, name.endswith("Classifier"))
        print(name, results[name], flush=True)
    record(
        "serve_fleet",
        protocol=f"{N_TASKS} tasks of {N_ROWS} rows and {N_FEATURES} features; prior "
        "learned from 200 of them; one Torch thread",
        seeds=[0],
        results=results,
    )


if __name__ == "__main__":
    main()
