"""Is the guarded model ever worse than the better of pooled and local?

Usage::

    python benchmarks/pooling_guard.py      # fourteen data sets, three splits each

Real grouped tables, and eight small tables whose tasks are speakers or, where there is
no group, clusters of rows. 30 % of the tasks are held out; k support rows, random or in
row order; all methods see the same episodes. Regression: root of the mean squared error
over tasks, in standard deviations of the target; classification: accuracy, every task
weighing the same. The data are read from ``SKMETA_SHARED_DATA``.
"""

import argparse
import time

import numpy as np
from _grouped_baselines import boosting, forest
from _ledger import record, shared_data
from grouped_tables import PROTOCOLS, load
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
    """Figure of every method, shape (n_shots, n_splits), by name."""
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
            mean = np.nanmean(scores, axis=(1, 2))
            found.setdefault(name, []).append(mean if classifier else np.sqrt(-mean))
    return {name: np.transpose(values) for name, values in found.items()}


def summarise(name, support, classifier, found):
    """One record for each number of shots."""
    rows = []
    for i, k in enumerate(SHOTS):
        means = {method: values[i].mean() for method, values in found.items()}
        if classifier:
            best = max(means["pooled"], means["local"])
            excess = best - means["guarded"]
        else:
            best = min(means["pooled"], means["local"])
            excess = means["guarded"] / best - 1
        rows.append(
            {
                "data": name,
                "protocol": f"30 % of tasks held out, {support} k rows",
                "metric": "accuracy" if classifier else "rmse",
                "k": k,
                **{method: round(float(mean), 4) for method, mean in means.items()},
                "excess": round(float(excess), 4),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[*PROTOCOLS, *TABLES])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="do not write the ledger")
    options = parser.parse_args()
    results, begin = [], time.process_time()
    for name in options.data:
        classifier = name == "wisdm" or name in TABLES
        if name in TABLES:
            X, y, groups = load_table(name)
            support = "random"
        else:
            rows, _ = load(name)
            X, y, groups = rows.X, rows.y, rows.groups
            support = PROTOCOLS[name][1]
        found = evaluate(X, y, groups, support, classifier, options.splits)
        results += summarise(name, support, classifier, found)
    worst = max(results, key=lambda row: row["excess"])
    print("worst:", worst)
    if not options.dry:
        record(
            "pooling_guard",
            seeds=list(range(options.splits)),
            cpu_seconds=time.process_time() - begin,
            results=results,
            worst=worst,
        )


if __name__ == "__main__":
    main()
