"""Learn to learn from real data, in under two minutes on a CPU.

1. Handwritten digits: meta-train on 0 to 5, then tell 6, 7, 8 and 9 apart from one or
   five images of each.
2. Births per woman: 155 countries are known; a new one is predicted from the years
   1960 to 1964.

Prints accuracies and errors beside honest baselines and writes ``quickstart.png``.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
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
    curve = make_pipeline(PolynomialFeatures(3, include_bias=False), StandardScaler())
    X_curve = make_pipeline(StandardScaler(), curve).fit_transform(X)
    train, test = next(GroupShuffleSplit(1, test_size=0.3, random_state=0).split(X, y, country))
    first = X[test, 0] < X.min() + N_YEARS
    support, query = test[first], test[~first]

    meta = HierarchicalRegressor().fit(X_curve[train], y[train], groups=country[train])
    meta.adapt(X_curve[support], y[support], groups=country[support])
    mean, std = meta.predict(X_curve[query], groups=country[query], return_std=True)

    pooled = Ridge().fit(X_curve[train], y[train])
    boosting = HistGradientBoostingRegressor(random_state=0).fit(X[train], y[train])
    level = {
        c: np.mean(y[support][country[support] == c] - pooled.predict(X_curve[support][country[support] == c]))
        for c in np.unique(country[support])
    }
    shift = np.array([level[c] for c in country[query]])
    predictions = {
        "skmeta HierarchicalRegressor": mean,
        "pooled curve + the country's offset": pooled.predict(X_curve[query]) + shift,
        "pooled curve": pooled.predict(X_curve[query]),
        "pooled boosting": boosting.predict(X[query]),
    }
    errors = {
        name: np.sqrt(np.mean((p - y[query]) ** 2)) for name, p in predictions.items()
    }
    inside = np.mean(np.abs(y[query] - mean) < 1.645 * std)
    return errors, inside, (X[:, 0], y, country, support, query, mean, std)


def draw(scores, curves):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, values in scores.items():
        means = [100 * np.mean(values[k]) for k in (1, 5)]
        spread = [100 * 1.96 * np.std(values[k]) / N_DRAWS**0.5 for k in (1, 5)]
        ours = name.startswith("skmeta")
        left.errorbar(
            [1, 5], means, spread, marker="o", capsize=3, label=name,
            color="C0" if ours else None, linewidth=2.5 if ours else 1.2,
            linestyle="-" if ours else "--",
        )
    left.set(
        xticks=[1, 5], xlabel="labelled images of each digit", ylabel="accuracy in %",
        title="Digits 6 to 9, never seen in training",
    )
    left.legend(frameon=False)

    year, y, country, support, query, mean, std = curves
    chosen = [c for c in ("Kenya", "Brazil", "Korea, Rep.", "France", "India", "Egypt, Arab Rep.", "Sweden", "Mexico") if c in set(country[query])][:3]
    chosen = chosen or list(np.unique(country[query])[:3])
    for i, c in enumerate(chosen):
        rows = country[query] == c
        right.plot(year[country == c], y[country == c], ".", color=f"C{i}", markersize=4)
        right.plot(
            year[support][country[support] == c], y[support][country[support] == c],
            "o", color=f"C{i}", markersize=6,
        )
        right.plot(year[query][rows], mean[rows], color=f"C{i}", label=c)
        right.fill_between(
            year[query][rows], (mean - 1.645 * std)[rows], (mean + 1.645 * std)[rows],
            color=f"C{i}", alpha=0.15, linewidth=0,
        )
    right.set(
        xlabel="year", ylabel="births per woman",
        title=f"New countries, from their first {N_YEARS} years (large dots)",
    )
    right.legend(frameon=False, title="prediction, 90 % interval")
    figure.savefig("quickstart.png", dpi=120)


def main():
    torch.set_num_threads(1)  # small networks are faster on one thread
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
