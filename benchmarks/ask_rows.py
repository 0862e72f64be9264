"""Rows chosen by `ask` against random rows, as the support set of a new task.

Usage::

    python benchmarks/ask_rows.py [--data hsb82 ...] [--seeds 5] [--pools 10]

Each task of the held-out 30 % is divided at random, ten times, into a pool and rows to
be judged. The learner is adapted to n rows of the pool, chosen by `ask` or at random
(mean of five draws), and the loss on the judged rows is compared task by task: root
mean squared error, or log loss for classes. A task that several splits hold out counts
once in the intervals. Data sets that are not named keep the rows of the run before.
"""

import argparse
import copy

import numpy as np
from _ledger import load, record
from sklearn.metrics import log_loss
from task_alarm import GENERATED, REAL, splits

from skmeta import HierarchicalClassifier, HierarchicalRegressor
from skmeta.model_selection import ask

N_ROWS = (1, 3, 5, 10)
N_DRAWS = 5


def loss(fitted, pool, rows, judged):
    """Loss on judged rows after adapting to rows of the pool."""
    meta = copy.copy(fitted).adapt(pool[0][rows], pool[1][rows])
    if isinstance(fitted, HierarchicalClassifier):
        proba = meta.predict_proba(judged[0])
        return log_loss(judged[1], proba, labels=meta.classes_)
    return np.sqrt(np.mean((judged[1] - meta.predict(judged[0])) ** 2))


def judge(fitted, task, rng):
    """Loss of rows chosen by `ask` and at random, for each number that there are."""
    X, y = task
    order, half = rng.permutation(len(y)), len(y) // 2
    pool, judged = ((X[part], y[part]) for part in np.split(order, [half]))
    draws = [rng.permutation(half) for _ in range(N_DRAWS)]
    asked = ask(fitted, pool[0], min(max(N_ROWS), half))
    return {
        n: (
            loss(fitted, pool, asked[:n], judged),
            np.mean([loss(fitted, pool, rows[:n], judged) for rows in draws]),
        )
        for n in N_ROWS
        if n < half
    }


def run(name, n_seeds, n_pools):
    """Results for every number of rows."""
    classes = name == "generated_classes"
    learner = HierarchicalClassifier if classes else HierarchicalRegressor
    found = {n: {} for n in N_ROWS}
    for seed, (train, test) in enumerate(splits(name, n_seeds)):
        fitted = learner().fit(train)
        fitted.states_ = type(fitted.states_)()
        rng = np.random.default_rng(seed)
        for task in test:
            for _ in range(n_pools):
                for n, pair in judge(fitted, task, rng).items():
                    # A task is known by its targets, in whatever split it is.
                    found[n].setdefault(task[1].tobytes(), []).append(pair)
    results = []
    for n, pairs in found.items():
        ours, chance = np.transpose([np.mean(p, axis=0) for p in pairs.values()])
        gain = chance - ours
        half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
        row = {
            "data": name,
            "loss": "log_loss" if classes else "rmse",
            "n": n,
            "n_tasks": len(gain),
            "ask": round(ours.mean(), 4),
            "random": round(chance.mean(), 4),
            "gain": round(gain.mean(), 4),
            "interval95": round(half, 4),
            "share_better": round(float((gain > 0).mean()), 3),
        }
        results.append(row)
        print(
            f"{name:23} n={n:<3} ask {row['ask']:.4f} random {row['random']:.4f} "
            f"gain {row['gain']:.4f} +-{half:.4f} better {row['share_better']:.2f}",
            flush=True,
        )
    return results


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[*GENERATED, *REAL])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pools", type=int, default=10)
    options = parser.parse_args()
    before = (load("ask_rows") or {"results": []})["results"]
    rows = [row for row in before if row["data"] not in options.data]
    rows += [
        row for name in options.data for row in run(name, options.seeds, options.pools)
    ]
    order = [*GENERATED, *REAL]
    record(
        "ask_rows",
        protocol="30 % of groups held out, or 60 of 120 generated tasks, 5 splits; n "
        "rows of a pool, half of a task, 10 pools a task; judged on the other half",
        results=sorted(rows, key=lambda row: order.index(row["data"])),
    )


if __name__ == "__main__":
    main()
