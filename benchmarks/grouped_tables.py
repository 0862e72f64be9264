"""New groups of real grouped tables, predicted from their first few rows.

Usage::

    python benchmarks/grouped_tables.py                      # everything, five seeds
    python benchmarks/grouped_tables.py --data radon wisdm --seeds 2
    python benchmarks/grouped_tables.py --develop            # inside training groups

30 % of the groups are held out. Of each, k rows are the support set and all others the
query set; a method is a function of (train, support, query). Every method sees the same
splits in the same run. Settings were chosen with ``--develop`` only, which splits the
training groups of every seed once more and never looks at the test groups.

School and radon tables: k random rows, RMSE in standard deviations of the training
target. Parkinson: rows in time order, the first k are the support set, which the
learned prior is told (``support="first"``), RMSE in points of total UPDRS. WISDM:
windows in the order of the file, accuracy. The data are read from
``SKMETA_SHARED_DATA`` (default ``../shared/data``). Rows of the ledger about data that
were not asked for stay; each row has its date.
"""

import argparse
import copy
import datetime
import time
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import statsmodels
from _grouped_baselines import (
    Rows,
    boosting,
    boosting_offset,
    forest,
    group_mean,
    group_ridge,
    join,
    logistic,
    mixed_model,
    pooled,
    refitted,
    ridge,
)
from _ledger import load as load_ledger
from _ledger import record, shared_data
from scipy.stats import t as student
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer

from skmeta import (
    HierarchicalClassifier,
    HierarchicalForestClassifier,
    HierarchicalForestRegressor,
    HierarchicalRegressor,
)
from skmeta.baselines import LocalRegressor, PooledRegressor
from skmeta.model_selection import GuardedClassifier, GuardedRegressor

DATA = shared_data()


# The library under test.


def hierarchical(support):
    """Learned prior alone."""
    return HierarchicalRegressor(support=support)


def boosted(support):
    """Learned prior with a boosting model inside."""
    return HierarchicalRegressor(boosting(), support=support)


def hierarchical_classifier():
    """Learned prior alone, for the first rows of a group."""
    return HierarchicalClassifier(support="first")


def forested():
    """Learned prior with a random forest inside, for the first rows of a group."""
    return HierarchicalClassifier(forest(), support="first")


def leaves(support):
    """Forest with leaves of each group."""
    return HierarchicalForestRegressor(
        RandomForestRegressor(min_samples_leaf=5, random_state=0), support=support
    )


def leaves_classifier():
    """Forest with leaves of each group, for the first rows of a group."""
    return HierarchicalForestClassifier(forest()[-1], support="first")


def guarded(support):
    """Pooled, local and learned prior, weighed over training groups."""
    return GuardedRegressor(
        estimators=[
            ("boosting", PooledRegressor(boosting())),
            ("ridge", PooledRegressor(ridge())),
            ("mean", LocalRegressor(DummyRegressor())),
            ("local", LocalRegressor()),
            ("hierarchical", hierarchical(support)),
            ("both", boosted(support)),
        ],
        support=support,
    )


def guarded_classifier(support):
    """Pooled, local and learned prior, weighed over training groups."""
    return GuardedClassifier(forest(), support=support)


@lru_cache(maxsize=8)
def _fit_meta(make, train):
    return make().fit(train.X, train.y, groups=train.groups)


def adapted(train, support, query, make):
    """Meta-learner, adapted to the support rows without a refit."""
    model = copy.copy(_fit_meta(make, train))
    if len(support.y):
        model.adapt(support.X, support.y, groups=support.groups)
    return model.predict(query.X, groups=query.groups)


def refitted_meta(train, support, query, make):
    """Meta-learner that learns from the support rows too, as the mixed model does."""
    model = make().fit(*vars(join(train, support)).values())
    return model.predict(query.X, groups=query.groups)


# One function for each, so that what is fitted can be found again.
MAKERS = {
    (make, order): partial(make, order)
    for make in (hierarchical, boosted, leaves, guarded, guarded_classifier)
    for order in ("random", "first")
}


# Data and protocols.


def _table(frame, target, group, drop=()):
    X = frame.drop(columns=[target, group, *drop])
    X = pd.get_dummies(X, drop_first=True)
    rows = Rows(
        X.to_numpy(float), frame[target].to_numpy(), pd.factorize(frame[group])[0]
    )
    return rows, list(X.columns)


def load(name):
    """Rows of a data set and the names of its columns."""
    if name == "hsb82":
        frame = pd.read_csv(DATA / "hsb82_math.csv.gz")
        return _table(frame, "math_achievement", "school")
    if name == "london":
        frame = pd.read_csv(DATA / "london_exam.csv.gz")
        return _table(frame, "normexam", "school", ["student"])
    if name == "radon":
        frame = pd.read_csv(DATA / "radon_mn.csv.gz")
        return _table(frame, "log.radon", "county", ["county.name"])
    if name == "wisdm":
        frame = pd.read_csv(DATA / "wisdm_ar_v11_transformed.csv.gz")
        return _table(frame, "activity", "user")
    frame = pd.read_csv(DATA / "parkinsons_telemonitoring.csv.gz")
    frame = frame.sort_values(["subject", "test_time"], kind="stable")
    drop = ["motor_UPDRS"] + ["test_time"] * (name == "parkinson_without_time")
    return _table(frame, "total_UPDRS", "subject", drop)


REGRESSION = {
    "pooled ridge": partial(pooled, make=ridge),
    "pooled boosting": partial(pooled, make=boosting),
    "group mean": group_mean,
    "group ridge": group_ridge,
    "boosting + offset": boosting_offset,
    "mixed model, intercept": mixed_model,
}
CLASSIFICATION = {
    "pooled forest": partial(pooled, make=forest),
    "pooled logistic": partial(pooled, make=logistic),
    "forest refitted": partial(refitted, make=forest),
    "learned prior": partial(adapted, make=hierarchical_classifier),
    "learned prior + forest": partial(adapted, make=forested),
    "learned leaves of a forest": partial(adapted, make=leaves_classifier),
}
# Shots, order of the support rows, column with a random slope in the mixed model.
PROTOCOLS = {
    "hsb82": ((0, 5), "random", "ses"),
    "london": ((0, 5), "random", "standLRT"),
    "radon": ((0, 3), "random", "basement"),
    "parkinson_with_time": ((0, 5, 20), "first", "test_time"),
    "parkinson_without_time": ((0, 5, 20), "first", "HNR"),
    "wisdm": ((0, 5, 20), "first", None),
}


def methods_for(name, columns, guard=False):
    """Methods by name."""
    order = PROTOCOLS[name][1]
    maker = guarded_classifier if name == "wisdm" else guarded
    last = {"guarded": partial(adapted, make=MAKERS[maker, order])} if guard else {}
    if name == "wisdm":
        return CLASSIFICATION | last
    prior, both = MAKERS[hierarchical, order], MAKERS[boosted, order]
    slope = columns.index(PROTOCOLS[name][2])
    return {
        **REGRESSION,
        f"mixed model, slope of {columns[slope]}": partial(
            mixed_model, slopes=(slope,)
        ),
        "learned prior": partial(adapted, make=prior),
        "learned prior, refitted": partial(refitted_meta, make=prior),
        "learned prior + boosting": partial(adapted, make=both),
        "learned leaves of a forest": partial(adapted, make=MAKERS[leaves, order]),
        **last,
    }


def support_mask(groups, n_shots, order, rng):
    """True for the support rows: at most all but one of each group."""
    rank = np.empty(len(groups), dtype=int)
    for name in np.unique(groups):
        index = np.flatnonzero(groups == name)
        rank[index if order == "first" else rng.permutation(index)] = range(len(index))
    sizes = np.bincount(groups)[groups]
    return rank < np.minimum(n_shots, sizes - 1)


def held_out(rows, seed, develop=False):
    """Training and test rows of a seed, by group; the splits of the reference runs."""
    names = np.random.default_rng(seed).permutation(np.unique(rows.groups))
    test = np.isin(rows.groups, names[int(0.7 * len(names)) :])
    train, test = rows[~test], rows[test]
    return held_out(train, 1000 + seed) if develop else (train, test)


def losses(name, query, prediction, scale):
    """Loss of every query row, and how to average it into the reported figure."""
    if name == "wisdm":
        return (query.y != prediction).astype(float), lambda loss: 1 - loss.mean()
    return np.square((query.y - prediction) / scale), lambda loss: loss.mean() ** 0.5


def run_seed(name, rows, columns, seed, develop, guard):
    """Records of all methods and shots of one split."""
    shots, order, _ = PROTOCOLS[name]
    train, test = held_out(rows, seed, develop)
    if np.isnan(rows.X).any():
        imputer = SimpleImputer().fit(train.X)
        train, test = (replace(r, X=imputer.transform(r.X)) for r in (train, test))
    z_scored = name in ("hsb82", "london", "radon")
    scale = train.y.std() if z_scored else 1.0
    records = []
    for n_shots in shots:
        support = support_mask(test.groups, n_shots, order, np.random.default_rng(seed))
        query, reference = test[~support], None
        for method, function in methods_for(name, columns, guard).items():
            start = time.perf_counter()
            try:
                prediction = function(train, test[support], query)
            except (ValueError, np.linalg.LinAlgError) as error:
                print(f"  {name} seed {seed} k={n_shots} {method}: {error}")
                continue
            seconds = time.perf_counter() - start
            loss, figure = losses(name, query, prediction, scale)
            by_group = pd.Series(loss).groupby(query.groups).mean().to_numpy()
            reference = by_group if reference is None else reference
            worst = np.sort(by_group)[-max(1, len(by_group) // 10) :]
            records.append(
                {
                    "method": method,
                    "k": n_shots,
                    "seed": seed,
                    "value": float(figure(loss)),
                    "harm": float((by_group > reference + 1e-12).mean()),
                    "worst": float(figure(worst)),
                    "seconds": seconds,
                }
            )
    return records


def summarise(name, records):
    """Mean, interval over seeds, harm rate and worst groups of each method and shot."""
    frame = pd.DataFrame(records)
    rows = []
    for (k, method), part in frame.groupby(["k", "method"], sort=False):
        n = len(part)
        half = student.ppf(0.975, n - 1) * part.value.std() / n**0.5 if n > 1 else None
        rows.append(
            {
                "data": name,
                "date": datetime.date.today().isoformat(),
                "protocol": f"30 % of groups held out, {PROTOCOLS[name][1]} k rows",
                "metric": "accuracy" if name == "wisdm" else "rmse",
                "method": method,
                "k": int(k),
                "seeds": part.seed.tolist(),
                "mean": round(part.value.mean(), 4),
                "interval95": half and round(half, 4),
                "values": part.value.round(4).tolist(),
                "harm_rate": round(part.harm.mean(), 3),
                "worst_tenth": round(part.worst.mean(), 4),
                "seconds_per_seed": round(part.seconds.mean(), 3),
            }
        )
    return rows


def show(rows):
    """Print a table."""
    frame = pd.DataFrame(rows)
    for name, part in frame.groupby("data", sort=False):
        print(
            f"\n{name} ({part.metric.iloc[0]}; harm = share worse than the first row)"
        )
        part = part.assign(cell=part.apply(_cell, axis=1))
        table = part.pivot(index="method", columns="k", values="cell")
        print(table.reindex(part.method.unique()).to_string(), flush=True)


def _cell(row):
    half = "" if pd.isna(row.interval95) else f" +-{row.interval95:.3f}"
    return (
        f"{row['mean']:.4f}{half} harm {row.harm_rate:.2f} {row.seconds_per_seed:.1f}s"
    )


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--guard", action="store_true", help="a minute a seed more")
    parser.add_argument("--name", default="grouped_tables", help="of the ledger")
    options = parser.parse_args()
    results = []
    for name in options.data:
        rows, columns = load(name)
        records = []
        for seed in range(options.seeds):
            records += run_seed(
                name, rows, columns, seed, options.develop, options.guard
            )
        results += summarise(name, records)
        show([row for row in results if row["data"] == name])
    if not options.develop:
        kept = (load_ledger(options.name) or {"results": []})["results"]
        results = [row for row in kept if row["data"] not in options.data] + results
        results.sort(key=lambda row: list(PROTOCOLS).index(row["data"]))
        others = {m.__name__: m.__version__ for m in (statsmodels, pd)}
        record(options.name, other_versions=others, results=results)


if __name__ == "__main__":
    main()
