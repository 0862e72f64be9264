"""Learn to learn from real data, in under two minutes on a CPU.

1. Handwritten digits: meta-train on 0 to 5, then tell 6, 7, 8 and 9 apart from one or
   five images of each.
2. Births per woman: most countries are known; a new one is predicted from the years
   1960 to 1964.

Prints accuracies and errors beside honest baselines and writes ``quickstart.png``.
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupShuffleSplit
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skmeta import HierarchicalRegressor, ProtoNetClassifier, freeze
from skmeta.datasets import load_digits_tasks, load_fertility_tasks

N_DRAWS = 50
N_YEARS = 5
Z90 = 1.645  # of a standard normal, 90 % lie within
COLORS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito: told apart by everyone


def with_progress(estimator):
    """A progress bar, where scikit-learn (1.9 or newer) and rich are there for it."""
    try:
        from sklearn.callback import ProgressBar

        return estimator.set_callbacks(ProgressBar())
    except ImportError:
        return estimator


def more_classes(X, y):
    """Every digit, turned and mirrored, is one more class to learn from."""
    views = [np.rot90(Z, k, axes=(1, 2)) for Z in (X, X[:, :, ::-1]) for k in range(4)]
    return np.concatenate(views), np.concatenate([y + 10 * i for i in range(8)])


def support_draws(y, n_shots, rng):
    """Rows to learn from, `n_shots` of each class, several times."""
    for _ in range(N_DRAWS):
        rows = [rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)]
        yield np.concatenate([r[:n_shots] for r in rows])


def digits():
    data = load_digits_tasks()
    meta = ProtoNetClassifier(n_ways=10, n_shots=1, n_queries=5, random_state=0)
    with_progress(meta).fit(*more_classes(data.X_train, data.y_train))

    X, y = data.X_test, data.y_test
    flat = X.reshape(len(X), -1)
    models = {
        "skmeta ProtoNetClassifier": (freeze(meta), X),
        "nearest mean of raw pixels": (NearestCentroid(), flat),
        "logistic regression": (LogisticRegression(max_iter=1000), flat),
    }
    scores = {name: {} for name in models}
    for n_shots in (1, 5):
        rng = np.random.default_rng(0)
        draws = list(support_draws(y, n_shots, rng))
        for name, (model, rows) in models.items():
            scores[name][n_shots] = [
                model.fit(rows[s], y[s]).score(
                    np.delete(rows, s, axis=0), np.delete(y, s)
                )
                for s in draws
            ]
    return scores


def births():
    X, y, country = load_fertility_tasks(return_X_y_groups=True)
    curve = make_pipeline(
        StandardScaler(), PolynomialFeatures(3, include_bias=False), StandardScaler()
    )
    Z = curve.fit_transform(X)
    splitter = GroupShuffleSplit(1, test_size=0.3, random_state=0)
    train, test = next(splitter.split(X, y, country))
    is_first = X[test, 0] < X.min() + N_YEARS
    support, query = test[is_first], test[~is_first]

    meta = HierarchicalRegressor().fit(Z[train], y[train], groups=country[train])
    meta.adapt(Z[support], y[support], groups=country[support])
    mean, std = meta.predict(Z[query], groups=country[query], return_std=True)

    pooled = Ridge().fit(Z[train], y[train])
    boosting = HistGradientBoostingRegressor(random_state=0).fit(X[train], y[train])
    residual = pd.Series(y[support] - pooled.predict(Z[support]))
    offset = residual.groupby(country[support]).mean()
    predictions = {
        "skmeta HierarchicalRegressor": mean,
        "pooled curve + the country's offset": pooled.predict(Z[query])
        + offset[country[query]].to_numpy(),
        "pooled curve": pooled.predict(Z[query]),
        "pooled boosting": boosting.predict(X[query]),
    }
    errors = {
        name: np.sqrt(np.mean((p - y[query]) ** 2)) for name, p in predictions.items()
    }
    inside = np.mean(np.abs(y[query] - mean) < Z90 * std)
    table = pd.DataFrame(
        {"year": X[:, 0], "births": y, "country": country, "known": True}
    )
    table.loc[query, ["known"]] = False
    table.loc[query, "mean"], table.loc[query, "std"] = mean, std
    return errors, inside, table.loc[test]


def draw(scores, curves):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    shots = np.array([1, 5])
    for i, (name, values) in enumerate(scores.items()):
        left.errorbar(
            shots + 0.06 * (i - 1),
            [100 * np.mean(values[k]) for k in shots],
            [100 * 1.96 * np.std(values[k]) / N_DRAWS**0.5 for k in shots],
            fmt="osD"[i],
            linestyle=("-", "--", ":")[i],
            color=COLORS[i],
            capsize=3,
            label=name,
        )
    left.set(
        xticks=shots,
        xlabel="labelled images of each digit",
        ylabel="accuracy in %",
        title="Digits 6 to 9, never seen in training",
    )
    left.legend(frameon=False, loc="lower right")

    level = curves[curves.known].groupby("country").births.last().sort_values()
    for i, name in enumerate(level.index[[-1, len(level) // 2, 0]]):
        rows = curves[curves.country == name]
        known, new = rows[rows.known], rows[~rows.known]
        right.plot(new.year, new.births, ".", color=COLORS[i], markersize=4)
        right.plot(known.year, known.births, "o", color=COLORS[i], markersize=6)
        right.plot(new.year, new["mean"], color=COLORS[i], label=name)
        low, high = new["mean"] - Z90 * new["std"], new["mean"] + Z90 * new["std"]
        right.fill_between(new.year, low, high, color=COLORS[i], alpha=0.15)
    right.set(
        xlabel="year",
        ylabel="births per woman",
        title=f"New countries, from their first {N_YEARS} years (large dots)",
    )
    right.legend(frameon=False, title="prediction and 90 % interval", loc="lower left")
    figure.savefig("quickstart.png", dpi=120)


def main():
    torch.set_num_threads(1)  # small networks are faster on one thread
    # Pixels that are the same in all support images of a digit: no concern here.
    warnings.filterwarnings("ignore", module="sklearn.neighbors")
    start = time.perf_counter()
    scores = digits()
    print("\nUnseen digits 6 to 9: accuracy in %, mean of 50 draws of the support rows")
    print(f"{'':38}{'1 shot':>10}{'5 shots':>10}")
    for name, values in scores.items():
        cells = "".join(f"{100 * np.mean(values[k]):10.1f}" for k in (1, 5))
        print(f"{name:38}{cells}")

    errors, inside, curves = births()
    print(f"\nBirths per woman in new countries after {N_YEARS} known years: RMSE")
    for name, error in errors.items():
        print(f"{name:38}{error:10.2f}")
    print(f"{'rows inside the 90 % interval':38}{100 * inside:9.0f}%")
    draw(scores, curves)
    print(f"\nwrote quickstart.png, {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
