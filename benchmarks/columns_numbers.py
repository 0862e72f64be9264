"""Tasks that show half of the columns each, and a number to be predicted.

"generated": ten columns with weights around a common mean, of which a task shows five
at random. "london" and "hsb82": the pupils of a school, of whom half of the columns are
known. Half of the tasks are held out; of each, k random rows are the support set and
the others are judged. Root mean squared error in standard deviations of the training
target; intervals over splits.

Beside `HeterogeneousRegressor` stand a ridge regression of the support rows alone and
two where columns that a task does not show are set to their mean: one of all rows,
moved by the mean error of the support rows, shrunk towards zero, and
`HierarchicalRegressor`.

    python benchmarks/columns_numbers.py

London and hsb82 are read from the folder that SKMETA_SHARED_DATA names.
"""

import argparse

import numpy as np
import torch
from _ledger import record
from grouped_tables import load
from scipy.stats import t as student
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta import HeterogeneousRegressor, HierarchicalRegressor, InContextRegressor

SHOTS = (5, 10, 20)
TRANSFORMER = "InContextRegressor"
PRIOR = "impute, HierarchicalRegressor"
OURS, ALONE, POOLED = (
    "HeterogeneousRegressor",
    "ridge of the support",
    "impute and pool",
)


def tasks_of(name, rng):
    """Rows of tasks with NaN in the columns that they do not show."""
    if name == "generated":
        mean = rng.normal(size=10)
        tasks = []
        for _ in range(160):
            X = rng.normal(size=(50, 10))
            weights = mean + 0.5 * rng.normal(size=10)
            y = X @ weights + rng.normal() + 0.5 * rng.normal(size=50)
            tasks.append((X, y))
    else:
        rows = load(name)[0]
        groups = (rows.groups == g for g in np.unique(rows.groups))
        tasks = [(rows.X[g], rows.y[g]) for g in groups if g.sum() >= SHOTS[-1] + 5]
    for X, _ in tasks:
        hidden = rng.permutation(X.shape[1])[: X.shape[1] // 2]
        X[:, hidden] = np.nan
    return tasks


def linear():
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 22)))


def pooled_model(train, fill):
    """Ridge of all rows with means in place of what is not known."""
    X = np.concatenate([X for X, _ in train])
    model = linear().fit(
        np.where(np.isnan(X), fill, X), np.concatenate([y for _, y in train])
    )
    error = [y - model.predict(np.where(np.isnan(X), fill, X)) for X, y in train]
    within = np.mean([e.var(ddof=1) for e in error])
    between = np.var([e.mean() for e in error])
    return model, within / max(between, 1e-12)


def split_errors(name, seed):
    """Error by method and number of rows of one split."""
    rng = np.random.default_rng(seed)
    tasks = tasks_of(name, rng)
    tasks = [tasks[t] for t in rng.permutation(len(tasks))]
    train, test = tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]
    fill = np.nanmean(np.concatenate([X for X, _ in train]), axis=0)
    scale = np.concatenate([y for _, y in train]).std()
    meta = HeterogeneousRegressor(n_shots=(3, 20), n_queries=5, random_state=seed).fit(
        train
    )
    transformer = InContextRegressor(n_shots=(3, 20), n_queries=5, random_state=seed)
    transformer.fit(train)
    model, strength = pooled_model(train, fill)
    filled_train = [(np.where(np.isnan(X), fill, X), y) for X, y in train]
    prior = HierarchicalRegressor().fit(filled_train)
    squares = {}
    for X, y in test:
        order = rng.permutation(len(y))
        for k in SHOTS:
            known, asked = order[:k], order[k:]
            shown = ~np.isnan(X[0])
            alone = linear().fit(X[known][:, shown], y[known])
            filled = np.where(np.isnan(X), fill, X)
            error = y[known] - model.predict(filled[known])
            offset = error.sum() / (k + strength)
            found = {
                OURS: meta.adapt(X[known], y[known]).predict(X[asked]),
                TRANSFORMER: transformer.adapt(X[known], y[known]).predict(X[asked]),
                ALONE: alone.predict(X[asked][:, shown]),
                POOLED: model.predict(filled[asked]) + offset,
                PRIOR: prior.adapt(filled[known], y[known]).predict(filled[asked]),
            }
            for method, values in found.items():
                loss = np.square(values - y[asked]).mean() / scale**2
                squares.setdefault((method, k), []).append(loss)
    return {key: np.sqrt(np.mean(values)) for key, values in squares.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    results = []
    for name in ("generated", "london", "hsb82"):
        splits = [split_errors(name, seed) for seed in seeds]
        for method, k in splits[0]:
            values = np.array([split[method, k] for split in splits])
            gain = values - [split[OURS, k] for split in splits]
            half = student.ppf(0.975, len(values) - 1) / len(values) ** 0.5
            results.append(
                {
                    "data": name,
                    "k": k,
                    "method": method,
                    "rmse": round(values.mean(), 4),
                    "minus the first": round(gain.mean(), 4),
                    "interval95": round(half * gain.std(ddof=1), 4),
                    "rmse_by_split": values.round(4).tolist(),
                }
            )
            print(results[-1], flush=True)
    record(
        "columns_numbers",
        protocol="Half of the tasks held out, half of the columns of each hidden, k "
        "random rows known; root mean squared error in standard deviations of the "
        f"target, {len(seeds)} splits",
        results=results,
    )


if __name__ == "__main__":
    main()
