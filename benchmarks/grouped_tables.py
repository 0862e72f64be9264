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
target. Parkinson: rows in time order, the first k are the support set, RMSE in points
of total UPDRS. WISDM: windows in the order of the file, accuracy. The data are read
from ``SKMETA_SHARED_DATA`` (default ``../shared/data``).
"""

import argparse
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
from _ledger import record, shared_data
from scipy.stats import t as student
from sklearn.impute import SimpleImputer

from skmeta.hierarchical import _gaussian, _laplace
from skmeta.hierarchical._design import fit_design
from skmeta.hierarchical._laplace_prior import fit_logistic_prior
from skmeta.hierarchical._out_of_fold import out_of_fold_predictions, pooled_features
from skmeta.hierarchical._prior import fit_prior
from skmeta.hierarchical._statistics import accumulate

DATA = shared_data()


# The library under test. `learned_prior` and `learned_prior_classifier` are the only
# functions that know it.


@lru_cache(maxsize=8)
def _fit_learned_prior(train, base, covariance):
    X, model = train.X, None
    if base is not None:
        feature, model = out_of_fold_predictions(base(), X, train.y, train.groups)
        X = np.hstack([X, feature])
    n_base = X.shape[1] - train.X.shape[1]
    design, features = fit_design(X, train.y, train.groups, n_base=n_base)
    names, codes = np.unique(train.groups, return_inverse=True)
    statistics = accumulate(features, design.encode(train.y), codes, len(names))
    center = design.pooled_weights()[0]
    prior = fit_prior(statistics, covariance, n_base=n_base, center=center)
    return model, design, prior


def learned_prior(train, support, query, base=None, covariance="auto", refit=False):
    """Hierarchical linear model, adapted to the support rows.

    With `refit` the prior is learned from the support rows of the new groups as well,
    as the mixed model does it; otherwise from the training groups alone.
    """
    rows = join(train, support) if refit else train
    model, design, prior = _fit_learned_prior(rows, base, covariance)
    if refit:
        # The mean has seen the support rows already.
        prior = replace(prior, factor=prior.between)

    def rows(part):
        extra = [] if model is None else [pooled_features(model, part.X)]
        return design.features(np.hstack([part.X, *extra]))

    names = np.unique(query.groups)
    codes = partial(np.searchsorted, names)
    mean = np.repeat(prior.mean[None], len(names), axis=0)
    if len(support.y):
        statistics = accumulate(
            rows(support), design.encode(support.y), codes(support.groups), len(names)
        )
        state = _gaussian.posterior(prior, statistics)
        mean = state["mean"]
    weights = mean[codes(query.groups)]
    return design.decode(np.einsum("np,np->n", rows(query), weights))


@lru_cache(maxsize=8)
def _fit_learned_prior_classifier(train, base, covariance):
    classes, labels = np.unique(train.y, return_inverse=True)
    imputer = SimpleImputer().fit(train.X)
    X, model = imputer.transform(train.X), None
    if base is not None:
        feature, model = out_of_fold_predictions(
            base(), train.X, train.y, train.groups, is_classifier=True
        )
        X = np.hstack([X, feature])
    n_base = X.shape[1] - train.X.shape[1]
    design, features = fit_design(
        X, train.y, train.groups, classes=classes, n_base=n_base
    )
    names, codes = np.unique(train.groups, return_inverse=True)
    prior = fit_logistic_prior(
        features,
        labels,
        codes,
        len(names),
        len(classes),
        covariance,
        n_base=n_base,
        center=design.pooled_weights() if n_base else None,
    )
    return classes, imputer, model, design, prior


def learned_prior_classifier(train, support, query, base=None, covariance="auto"):
    """Hierarchical logistic model, adapted to the support rows without a refit."""
    fitted = _fit_learned_prior_classifier(train, base, covariance)
    classes, imputer, model, design, prior = fitted

    def rows(part):
        extra = [] if model is None else [pooled_features(model, part.X, classes)]
        return design.features(np.hstack([imputer.transform(part.X), *extra]))

    names = np.unique(query.groups)
    codes = partial(np.searchsorted, names)
    empty = not len(support.y)
    known = query[:0] if empty else support
    state = _laplace.logistic_posterior(
        prior,
        rows(known) if len(known.y) else np.zeros((0, design.n_features)),
        np.searchsorted(classes, known.y),
        codes(known.groups),
        len(names),
        len(classes),
    )
    chosen = np.full(len(query.y), -1) if empty else codes(query.groups)
    return classes[_laplace.predict_proba(prior, state, rows(query), chosen).argmax(1)]


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


OURS = {
    "learned prior": learned_prior,
    "learned prior, refitted": partial(learned_prior, refit=True),
    "learned prior + boosting": partial(learned_prior, base=boosting),
}
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
    "learned prior": learned_prior_classifier,
    "learned prior + forest": partial(learned_prior_classifier, base=forest),
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


def methods_for(name, columns):
    """Methods by name."""
    if name == "wisdm":
        return CLASSIFICATION
    slope = columns.index(PROTOCOLS[name][2])
    return {
        **REGRESSION,
        f"mixed model, slope of {columns[slope]}": partial(
            mixed_model, slopes=(slope,)
        ),
        **OURS,
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


def run_seed(name, rows, columns, seed, develop):
    """Records of all methods and shots of one split."""
    shots, order, _ = PROTOCOLS[name]
    train, test = held_out(rows, seed, develop)
    z_scored = name in ("hsb82", "london", "radon")
    scale = train.y.std() if z_scored else 1.0
    records = []
    for n_shots in shots:
        support = support_mask(test.groups, n_shots, order, np.random.default_rng(seed))
        query, reference = test[~support], None
        for method, function in methods_for(name, columns).items():
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
            records.append(
                {
                    "method": method,
                    "k": n_shots,
                    "seed": seed,
                    "value": float(figure(loss)),
                    "harm": float((by_group > reference + 1e-12).mean()),
                    "seconds": seconds,
                }
            )
    return records


def summarise(name, records):
    """Mean, interval over seeds and harm rate of every method and shot."""
    frame = pd.DataFrame(records)
    rows = []
    for (k, method), part in frame.groupby(["k", "method"], sort=False):
        n = len(part)
        half = student.ppf(0.975, n - 1) * part.value.std() / n**0.5 if n > 1 else None
        rows.append(
            {
                "data": name,
                "protocol": f"30 % of groups held out, {PROTOCOLS[name][1]} k rows",
                "metric": "accuracy" if name == "wisdm" else "rmse",
                "method": method,
                "k": int(k),
                "seeds": part.seed.tolist(),
                "mean": round(part.value.mean(), 4),
                "interval95": half and round(half, 4),
                "values": part.value.round(4).tolist(),
                "harm_rate": round(part.harm.mean(), 3),
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
    parser.add_argument("--name", default="grouped_tables", help="of the ledger")
    options = parser.parse_args()
    results = []
    for name in options.data:
        rows, columns = load(name)
        records = []
        for seed in range(options.seeds):
            records += run_seed(name, rows, columns, seed, options.develop)
        results += summarise(name, records)
        show([row for row in results if row["data"] == name])
    if not options.develop:
        others = {m.__name__: m.__version__ for m in (statsmodels, pd)}
        record(options.name, other_versions=others, results=results)


if __name__ == "__main__":
    main()
