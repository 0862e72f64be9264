"""Options that make a learned prior more personal, each against the plain one.

Usage::

    python benchmarks/personal.py [--data generated_kinds hsb82 ...] [--seeds 5]

30 % of the tasks are held out. With and without an option a learner sees the same
training tasks, and the same first rows of each new task. Where rows have no order, k
random ones are support and all others are judged; where they come in order, the first k
are support and the next 20 are judged, since a task that drifts is another one later.
Losses are RMSE, or the share of wrong labels where the answer is yes or no.

Columns for ``task_features`` are all that never vary within a task. ``neighbors`` is
10. The half-life for ``recency`` is the one of `HALF_LIVES` with which a third of the
training tasks is predicted best by the others. Rows of the ledger about data that were
not asked for stay.
"""

import argparse
import copy

import numpy as np
import pandas as pd
from _grouped_baselines import Rows
from _ledger import load as load_ledger
from _ledger import record
from grouped_tables import held_out
from grouped_tables import load as load_table
from scipy.stats import t as student
from sklearn.impute import SimpleImputer

from skmeta import HierarchicalClassifier, HierarchicalRegressor
from skmeta.tasks._table import row_positions

NEIGHBORS, HALF_LIVES, N_NEXT = 10, (5, 10, 20, 50), 20
OPTIONS = ("task_features", "neighbors", "recency")
#: Numbers of support rows, whether rows come in order, and the learner.
PROTOCOLS = {
    "generated": ((0, 2, 5, 20), False, HierarchicalRegressor),
    "generated_slopes": ((0, 2, 5, 20), False, HierarchicalRegressor),
    "generated_kinds": ((0, 2, 5, 20), False, HierarchicalRegressor),
    "generated_kinds_yes_or_no": ((0, 2, 5, 20), False, HierarchicalClassifier),
    "generated_drift": ((5, 20, 40), True, HierarchicalRegressor),
    "hsb82": ((0, 5), False, HierarchicalRegressor),
    "london": ((0, 5), False, HierarchicalRegressor),
    "radon": ((0, 3), False, HierarchicalRegressor),
    "parkinson_with_time": ((20, 60), True, HierarchicalRegressor),
    "parkinson_without_time": ((20, 60), True, HierarchicalRegressor),
}


def generated(name, seed, n_tasks=150, n_rows=60):
    """Linear tasks with four columns that vary and a last one that does not."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_tasks), n_rows)
    about = rng.normal(size=n_tasks)
    X = rng.normal(size=(len(groups), 5))
    X[:, 4] = about[groups]
    slopes = rng.normal(size=(n_tasks, 4))
    if name == "generated_slopes":
        slopes = 0.5 * slopes + about[:, None] * [1.0, -0.5, 0.0, 0.0]
    if name.startswith("generated_kinds"):
        slopes = 0.3 * slopes + rng.normal(size=(3, 4))[rng.integers(0, 3, n_tasks)]
    slopes = np.repeat(slopes[:, None], n_rows, axis=1)
    if name == "generated_drift":
        slopes += 0.2 * rng.normal(size=slopes.shape).cumsum(1)
    y = (X[:, :4] * slopes.reshape(-1, 4)).sum(1) + rng.normal(size=len(groups))
    return Rows(X, (y > 0) * 1 if name.endswith("yes_or_no") else y, groups)


def episode(rows, n_shots, ordered, seed):
    """Masks of the support rows and of those that are judged."""
    key = None if ordered else np.random.default_rng(seed).random(len(rows.y))
    place = row_positions(rows.groups, key)
    support = place < np.minimum(n_shots, np.bincount(rows.groups)[rows.groups] - 1)
    later = place < n_shots + N_NEXT if ordered else True
    return support, ~support & later


def losses(meta, rows, n_shots, ordered, seed):
    """Mean loss of every task with rows to judge: squared error, or wrong labels."""
    support, judged = episode(rows, n_shots, ordered, seed)
    model, support = copy.copy(meta), rows[support]
    if len(support.y):
        model.adapt(support.X, support.y, groups=support.groups)
    judged = rows[judged]
    predicted = model.predict(judged.X, groups=judged.groups)
    loss = predicted != judged.y
    if isinstance(meta, HierarchicalRegressor):
        loss = np.square(predicted - judged.y)
    return pd.Series(loss.astype(float)).groupby(judged.groups).agg(["mean", "size"])


def total(loss, tasks=slice(None)):
    """What is reported of the losses of tasks, rows weighing the same."""
    return np.average(loss["mean"].iloc[tasks], weights=loss["size"].iloc[tasks])


def split(name, seed):
    """Training and test tasks, those of other ids."""
    if name.startswith("generated"):
        rows = generated(name, seed)
    else:
        rows = load_table(name)[0]
    train, test = held_out(rows, seed)
    imputer = SimpleImputer(keep_empty_features=True).fit(train.X)
    train, test = (Rows(imputer.transform(r.X), r.y, r.groups) for r in (train, test))
    return train, test


def described(rows):
    """Columns that vary, but within no task."""
    frame = pd.DataFrame(rows.X)
    constant = frame.groupby(rows.groups).nunique().max() == 1
    return np.flatnonzero(constant & (frame.nunique() > 1)).tolist()


def tuned_half_life(fit, train, n_shots, seed):
    """Half-life with which some of the training tasks are predicted best."""
    inner, rest = held_out(train, 1000 + seed)
    found = [
        total(losses(fit(inner, recency=h), rest, n_shots, True, seed))
        for h in HALF_LIVES
    ]
    return HALF_LIVES[int(np.argmin(found))]


def run_seed(name, seed):
    """Losses of every task, plain and with each option that applies."""
    shots, ordered, learner = PROTOCOLS[name]
    train, test = split(name, seed)

    def fit(rows, **option):
        meta = learner(support="first" if ordered else "random", **option)
        return meta.fit(rows.X, rows.y, groups=rows.groups)

    options = {"neighbors": NEIGHBORS}
    if columns := described(train):
        options["task_features"] = columns
    if ordered:
        options["recency"] = tuned_half_life(fit, train, max(shots), seed)
    metas = {"plain": fit(train)}
    metas |= {key: fit(train, **{key: value}) for key, value in options.items()}
    found = {
        (key, k): losses(meta, test, k, ordered, seed)
        for key, meta in metas.items()
        for k in shots
    }
    return found, options


def interval(values):
    """Half of a 95 % interval of the mean over seeds."""
    n = len(values)
    return student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5


def summarise(name, runs):
    """A row of the table for every option and number of support rows."""
    power = 0.5 if PROTOCOLS[name][2] is HierarchicalRegressor else 1.0
    rows = []
    for option in (o for o in OPTIONS if o in runs[0][1]):
        for k in PROTOCOLS[name][0]:
            pairs = [(found["plain", k], found[option, k]) for found, _ in runs]
            plain, ours = np.array([[total(p) for p in pair] for pair in pairs]).T
            plain, ours = plain**power, ours**power
            change = 100 * (ours / plain - 1)
            worse = [np.mean(o["mean"] > 1.01 * p["mean"]) for p, o in pairs]
            hard = [np.argsort(-p["mean"].to_numpy())[: len(p) // 10 or 1]
                    for p, _ in pairs]  # fmt: skip
            tail = [
                100 * ((total(o, h) / total(p, h)) ** power - 1)
                for (p, o), h in zip(pairs, hard, strict=True)
            ]
            rows.append(
                {
                    "data": name,
                    "option": option,
                    "k": k,
                    "plain": f"{plain.mean():.4g}",
                    "with it": f"{ours.mean():.4g}",
                    "change": f"{change.mean():+.1f} ± {interval(change):.1f} %",
                    "tasks worse": f"{100 * np.mean(worse):.0f} %",
                    "hardest tenth": f"{np.mean(tail):+.1f} %",
                    "tasks": sum(len(p) for p, _ in pairs),
                    "settings": [found[option] for _, found in runs],
                }
            )
            print({key: rows[-1][key] for key in rows[-1]}, flush=True)
    return rows


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    results = []
    for name in options.data:
        results += summarise(name, [run_seed(name, s) for s in range(options.seeds)])
    kept = (load_ledger("personal") or {"results": []})["results"]
    results += [row for row in kept if row["data"] not in options.data]
    results.sort(key=lambda row: list(PROTOCOLS).index(row["data"]))
    record(
        "personal",
        protocol="30 % of the tasks held out; k random rows and all others judged, or "
        f"the first k and the next {N_NEXT} where rows have an order. RMSE, or share "
        "of wrong labels; change with 95 % intervals, paired over "
        f"{options.seeds} splits; tasks whose loss grows by more than 1 %; change in "
        "the tenth of tasks that is hardest without the option.",
        seeds=[*range(options.seeds)],
        results=results,
    )


if __name__ == "__main__":
    main()
