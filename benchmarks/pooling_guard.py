"""Is the guarded model ever worse than the better of pooled and local?

Usage::

    python benchmarks/pooling_guard.py                  # fourteen data sets
    python benchmarks/pooling_guard.py --data radon     # the others stay in the ledger

Real grouped tables, and eight small tables whose tasks are speakers or, where there is
no group, clusters of rows. 30 % of the tasks are held out; k support rows, random or in
row order; all methods see the same episodes. Regression: root of the mean squared error
over tasks, in standard deviations of the target; classification: accuracy, every task
weighing the same. The best of pooled and local is chosen after the fact, in each cell,
by the same few test tasks: beside the excess over it stands its 95 % interval, paired
over test tasks. The ledger is written after each data set and says of how many splits
of the tasks its rows are. The data are read from ``SKMETA_SHARED_DATA``.
"""

import argparse
import time

import numpy as np
from _grouped_baselines import boosting, forest
from _ledger import load as load_ledger
from _ledger import record, shared_data
from grouped_tables import PROTOCOLS, load
from scipy.stats import t as student
from sklearn.cluster import KMeans
from sklearn.impute import SimpleImputer
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta.baselines import (
    LocalClassifier,
    LocalRegressor,
    PooledClassifier,
    PooledRegressor,
)
from skmeta.model_selection import GuardedClassifier, GuardedRegressor, compare

SHOTS = (0, 1, 2, 5, 10, 20, 40)
TABLES = (
    "balance_scale",
    "car",
    "credit_g",
    "diabetes",
    "segment",
    "tic_tac_toe",
    "vehicle",
    "vowel",
)


def load_table(name, rows_per_task=60):
    """Rows, labels and tasks of a small table: speakers, or clusters of rows."""
    with np.load(shared_data() / "uci_tables.npz") as file:
        X, y = file[f"{name}__X"].astype(float), file[f"{name}__y"].astype(int)
    if name == "vowel":
        return X[:, 2:], y, X[:, 1].astype(int)
    n_clusters = max(len(X) // rows_per_task, 8)
    clusters = KMeans(n_clusters, random_state=0, n_init=1)
    return X, y, clusters.fit_predict(StandardScaler().fit_transform(X))


def methods(classifier, support, seed):
    """The guard and what it must not be worse than."""
    if classifier:
        found = {
            "pooled": PooledClassifier(forest()),
            "local": LocalClassifier(label_space="shared"),
            "guarded": GuardedClassifier(forest(), support=support, random_state=seed),
        }
        return {
            name: make_pipeline(SimpleImputer(), estimator)
            for name, estimator in found.items()
        }
    return {
        "pooled": PooledRegressor(boosting()),
        "local": LocalRegressor(),
        "guarded": GuardedRegressor(boosting(), support=support, random_state=seed),
    }


def evaluate(X, y, groups, support, classifier, n_splits):
    """Score of every method by name, shape (n_splits, n_shots, n_tasks)."""
    found = {}
    n_tasks = len(np.unique(groups))
    split = ShuffleSplit(n_splits, test_size=0.3, random_state=0)
    y = y if classifier else (y - y.mean()) / y.std()
    for seed, fold in enumerate(split.split(np.arange(n_tasks))):
        result = compare(
            methods(classifier, support, seed),
            X,
            y,
            groups,
            shots=SHOTS,
            scoring="accuracy" if classifier else "neg_mean_squared_error",
            baselines=False,
            cv=[fold],
            support=support,
            n_draws=3,
            random_state=seed,
        )
        for name, scores in result.scores.items():
            found.setdefault(name, []).append(scores.mean(axis=1))
    return {name: np.array(values) for name, values in found.items()}


def cell(scores, classifier):
    """Figures of the methods, excess of the guard, and half of its interval.

    Parameters
    ----------
    scores : dict of str to ndarray of shape (n_splits, n_tasks)
        At one number of shots; NaN for tasks that were not held out.
    classifier : bool
        Whether scores are accuracies, or else negative squared errors.
    """
    by_split = {name: np.nanmean(values, axis=1) for name, values in scores.items()}
    if classifier:
        means = {name: values.mean() for name, values in by_split.items()}
        best = max(("pooled", "local"), key=means.get)
        excess, unit = means[best] - means["guarded"], 1.0
    else:
        means = {name: np.sqrt(-values).mean() for name, values in by_split.items()}
        best = min(("pooled", "local"), key=means.get)
        excess = means["guarded"] / means[best] - 1
        # A small share of the squared error is twice that of its root.
        unit = -2 * np.nanmean(scores[best])
    gap = scores[best] - scores["guarded"]
    gap = np.nanmean(gap[:, ~np.isnan(gap).all(axis=0)], axis=0) / unit
    half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
    return means, excess, half, len(gap)


def summarise(name, support, classifier, found):
    """One record for each number of shots."""
    rows = []
    for i, k in enumerate(SHOTS):
        scores = {method: values[:, i] for method, values in found.items()}
        means, excess, half, n_tasks = cell(scores, classifier)
        rows.append(
            {
                "data": name,
                "protocol": f"30 % of tasks held out, {support} k rows",
                "metric": "accuracy" if classifier else "rmse",
                "k": k,
                **{method: round(float(mean), 4) for method, mean in means.items()},
                "excess": round(float(excess), 4),
                "excess_interval95": round(float(half), 4),
                "test_tasks": n_tasks,
                "splits": len(found["pooled"]),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[*PROTOCOLS, *TABLES])
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="do not write the ledger")
    options = parser.parse_args()
    for name in options.data:
        begin = time.process_time()
        classifier = name == "wisdm" or name in TABLES
        if name in TABLES:
            X, y, groups = load_table(name)
            support = "random"
        else:
            rows, _ = load(name)
            X, y, groups = rows.X, rows.y, rows.groups
            support = PROTOCOLS[name][1]
        found = evaluate(X, y, groups, support, classifier, options.splits)
        results = summarise(name, support, classifier, found)
        if not options.dry:
            write(name, results, time.process_time() - begin)


def write(name, results, seconds):
    """Put the rows of one data set into the ledger, in the order of the data sets."""
    old = load_ledger("pooling_guard") or {"results": [], "cpu_seconds": {}}
    results = [row for row in old["results"] if row["data"] != name] + results
    order = [*PROTOCOLS, *TABLES]
    results.sort(key=lambda row: (order.index(row["data"]), row["k"]))
    record(
        "pooling_guard",
        seeds=list(range(max(row["splits"] for row in results))),
        cpu_seconds={**old["cpu_seconds"], name: round(seconds, 1)},
        results=results,
        worst=max(results, key=lambda row: row["excess"]),
    )


if __name__ == "__main__":
    main()
