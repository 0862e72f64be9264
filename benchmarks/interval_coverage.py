"""Coverage of calibrated intervals and sets on groups that were not seen.

Usage::

    python benchmarks/interval_coverage.py                   # everything, ten splits
    python benchmarks/interval_coverage.py --data radon     # the others stay
    python benchmarks/interval_coverage.py --develop         # inside training groups

30 % of the groups are held out. `ConformalRegressor` and `ConformalClassifier` are
fitted on the others, around the default learner or, for classes, a pooled logistic
regression that sees the class frequencies of the group (the default learner takes up to
minutes a split there and is left to ``--slow``); of each held-out group k rows are the
support set and all others are judged. The small tables are those of `pooling_guard.py`,
cut into clusters of about 30 rows, since 90 % needs nine groups. Coverage is averaged
over the rows of a group and then over groups; quantiles over groups are recorded as
well. Beside it the coverage of the standard deviations (or, for classes, of the most
probable classes up to the nominal probability) as the learner states them, and mean
widths in units of the target (sizes of sets for classes). School and radon tables:
random support rows. Parkinson and WISDM: rows in order of time, the first k are the
support set.

The data are read from ``SKMETA_SHARED_DATA`` (default ``../shared/data``). The ledger
is written after each data set; rows of the others stay.
"""

import argparse
import copy
import time

import numpy as np
from _grouped_baselines import Rows
from _ledger import load as load_ledger
from _ledger import record
from grouped_tables import PROTOCOLS, held_out, load
from pooling_guard import TABLES, load_table
from scipy.stats import norm
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta.baselines import TaskEncodedClassifier
from skmeta.model_selection import ConformalClassifier, ConformalRegressor
from skmeta.tasks._sampler import support_mask

LEVEL = 0.9
SHOTS = (0, 1, 5, 20)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def by_group(values, groups):
    """Mean of each group."""
    _, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.bincount(codes, values) / counts


def judge_intervals(meta, query):
    """Coverage and width of every row, calibrated and as the learner states it."""
    mean, ends = meta.predict_interval(query.X, query.groups)
    _, std = meta.predict(query.X, query.groups, return_std=True)
    low, high = ends[:, 0, 0], ends[:, 1, 0]
    half = norm.ppf(0.5 + LEVEL / 2) * std
    return {
        "coverage": (low <= query.y) & (query.y <= high),
        "width": high - low,
        "raw_coverage": np.abs(query.y - mean) <= half,
        "raw_width": 2 * half,
    }


def judge_sets(meta, query):
    """The same for sets of classes."""
    _, sets = meta.predict_set(query.X, query.groups)
    true = np.searchsorted(meta.classes_, query.y)
    proba = meta.predict_proba(query.X, query.groups)
    order = np.argsort(-proba, axis=1)
    before = np.cumsum(np.take_along_axis(proba, order, 1), 1)
    before = np.hstack([np.zeros((len(proba), 1)), before[:, :-1]])
    stated = np.zeros(proba.shape, dtype=bool)
    np.put_along_axis(stated, order, before < LEVEL, axis=1)
    rows = np.arange(len(true))
    return {
        "coverage": sets[rows, true, 0],
        "width": sets[..., 0].sum(1),
        "raw_coverage": stated[rows, true],
        "raw_width": stated.sum(1),
    }


def encoded():
    """Pooled logistic regression that sees the class frequencies of the group."""
    logistic = LogisticRegression(C=0.1, max_iter=1000)
    return TaskEncodedClassifier(
        make_pipeline(StandardScaler(), logistic), n_repeats=2, random_state=0
    )


def read(name):
    """Rows, order of the support rows, and whether the target is a class."""
    if name in TABLES:
        return Rows(*load_table(name, rows_per_task=30)), "random", True
    return load(name)[0], PROTOCOLS[name][1], name == "wisdm"


def wrappers(order, seed, n_classes, slow):
    """Calibrated learners by name, and how they are judged."""
    options = {"support": order, "confidence_level": LEVEL, "random_state": seed}
    if not n_classes:
        return {"interval": ConformalRegressor(**options)}, judge_intervals
    found = {"lac": ConformalClassifier(encoded(), **options)}
    if slow:
        found["lac, learned prior"] = ConformalClassifier(**options)
    return found, judge_sets


def run_seed(rows, order, classes, seed, options):
    """Yield method, shots, and judgements by group, of one split."""
    train, test = held_out(rows, seed, options.develop)
    if np.isnan(rows.X).any():
        imputer = SimpleImputer().fit(train.X)
        train = type(train)(imputer.transform(train.X), train.y, train.groups)
        test = type(test)(imputer.transform(test.X), test.y, test.groups)
    n_classes = len(np.unique(rows.y)) if classes else 0
    methods, judge = wrappers(order, seed, n_classes, options.slow)
    for method, wrapper in methods.items():
        start = time.perf_counter()
        fitted = wrapper.fit(train.X, train.y, groups=train.groups)
        seconds = time.perf_counter() - start
        codes = np.unique(test.groups, return_inverse=True)[1]
        for n_shots in SHOTS:
            mask = support_mask(codes, None, n_shots, support=order, seed=seed)
            meta, support, query = copy.copy(fitted), test[mask], test[~mask]
            if n_shots:
                meta.adapt(support.X, support.y, groups=support.groups)
            for correction in ("leave_one_out", "hcp"):
                meta.correction = correction
                judged = {
                    key: by_group(values, query.groups)
                    for key, values in judge(meta, query).items()
                }
                yield f"{method}, {correction}", n_shots, judged, seconds


def summarise(name, records):
    """Rows of the ledger."""
    results = []
    for method, n_shots in dict.fromkeys((m, k) for m, k, *_ in records):
        part = [r for r in records if r[:2] == (method, n_shots)]
        row = {"data": name, "method": method, "k": n_shots, "level": LEVEL}
        for key in part[0][2]:
            means = [judged[key].mean() for _, _, judged, _ in part]
            row[key] = round(float(np.mean(means)), 4)
            if key == "coverage":
                row["by_split"] = np.round(means, 3).tolist()
                row["splits"] = len(means)
                half = 1.96 * np.std(means, ddof=1) / len(means) ** 0.5
                row["interval95_of_splits"] = round(float(half), 4)
                groups = np.concatenate([judged[key] for _, _, judged, _ in part])
                row["n_groups"] = len(groups)
                shares = np.quantile(groups, QUANTILES).round(3)
                row["group_quantiles"] = dict(zip(QUANTILES, shares, strict=True))
                row["share_of_groups_below_0.8"] = round(
                    float((groups < 0.8).mean()), 3
                )
        row["fit_seconds"] = round(float(np.mean([r[3] for r in part])), 2)
        results.append(row)
        print(
            f"{name:22} {method:21} k={n_shots:<3} coverage {row['coverage']:.3f} "
            f"+-{row['interval95_of_splits']:.3f} raw {row['raw_coverage']:.3f} "
            f"width {row['width']:.3g} raw {row['raw_width']:.3g} groups "
            f"{list(row['group_quantiles'].values())}",
            flush=True,
        )
    return results


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*PROTOCOLS, *TABLES]
    parser.add_argument("--data", nargs="+", default=names, choices=names)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    for name in options.data:
        rows, order, classes = read(name)
        records = [
            entry
            for seed in range(options.seeds)
            for entry in run_seed(rows, order, classes, seed, options)
        ]
        results = summarise(name, records)
        if not options.develop:
            old = load_ledger("interval_coverage") or {"results": []}
            kept = [row for row in old["results"] if row["data"] != name]
            rows = sorted(kept + results, key=lambda row: names.index(row["data"]))
            record("interval_coverage", results=rows)


if __name__ == "__main__":
    main()
