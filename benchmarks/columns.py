"""Tables with different columns: adapting to tables and to measurements never seen.

*Tables*: trained on eleven tables, judged on six others, which share neither columns
nor classes with them. *New column*: trained on subsets of the columns of iris and wine
without some of them, judged on other rows that have one of these beside known columns.
Every row of a table is judged on the same episodes. Settings were chosen with
``--validate``, which looks at training tables only.

    python benchmarks/columns.py

Needs ``uci_tables.npz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch
from _ledger import record, shared_data
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn

from skmeta import HeterogeneousClassifier, InContextClassifier, SelfMadeTasks
from skmeta.modules import MLP

SEEDS = [0, 1, 2]
LABELS = (4, 8, 16)
N_QUERIES, N_WAYS = 30, 4
TRAIN = (
    "balance_scale", "breast_cancer", "car", "credit_g", "diabetes", "digits",
    "haberman", "heart_c", "ionosphere", "tic_tac_toe", "zoo",
)  # fmt: skip
VALID = ("balance_scale", "breast_cancer", "heart_c", "ionosphere")
TEST = ("iris", "wine", "vehicle", "segment", "vowel", "glass")
#: Columns of which zero stands for a missing value, in the table of diabetes.
MEASURED = ("plas", "pres", "skin", "insu", "mass")
#: Inverse strength of the regularisation of logistic regression; of 0.03 to 10, best on
#: the validation tables or within half a point of it, for each number of labels.
C = 1.0
#: Epochs of 60 steps, of the closed-form head and of the transformer, whose steps cost
#: ten times as much: on other tables, and on columns of the same one.
EPOCHS, EPOCHS_NEW = (45, 12), (10, 3)


# --------------------------------------------------------------------------------- data
def load(name):
    """Columns of a table as a frame, and its classes."""
    bundled = {
        "iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer,
        "digits": load_digits,
    }  # fmt: skip
    if name in bundled:
        return bundled[name](return_X_y=True, as_frame=True)
    with np.load(shared_data() / "uci_tables.npz", allow_pickle=True) as file:
        X = pd.DataFrame(file[f"{name}__X"], columns=map(str, file[f"{name}__cols"]))
        y = pd.Series(file[f"{name}__y"])
    if name == "vowel":  # a train/test flag, the speaker and the sex
        X = X.iloc[:, 3:]
    if name == "diabetes":
        X[[*MEASURED]] = X[[*MEASURED]].replace(0, np.nan)
    return X, y


def subset_tasks(tables, n_each, rng):
    """Tasks of a few columns of each table, drawn at random and without names."""
    tasks = []
    for X, y in tables.values():
        for _ in range(n_each):
            width = rng.integers(2, min(X.shape[1], 20) + 1)
            columns = rng.permutation(X.shape[1])[:width]
            rows = rng.permutation(len(X))[:200]
            tasks.append((X.to_numpy(float)[rows][:, columns], y.to_numpy()[rows]))
    return tasks


def episode(y, n_labels, rng, n_ways=N_WAYS):
    """Support rows, at least one of each class, and query rows."""
    classes, counts = np.unique(y, return_counts=True)
    classes = rng.permutation(classes[counts > n_labels])[:n_ways]
    rows = rng.permutation(np.flatnonzero(np.isin(y, classes)))
    first = np.array([rows[np.flatnonzero(y[rows] == c)[0]] for c in classes])
    others = rows[~np.isin(rows, first)]
    n_more = n_labels - len(first)
    return np.append(first, others[:n_more]), others[n_more:][:N_QUERIES]


# ----------------------------------------------------------------------------- learners
def net(module, **params):
    return NeuralNet(
        module,
        nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=8,
        train_split=None,
        verbose=0,
        **params,
    )


def learners(seed, epochs):
    """Both learners, that train for so many epochs."""
    shared = {"n_ways": (2, 4), "n_shots": (1, 8), "n_queries": 4, "n_episodes": 480}
    # Rows to learn from come as frequent as classes are, in all that is judged.
    shared |= {"class_balanced": False, "random_state": seed}
    return {
        kind.__name__: kind(
            net(MLP, module__hidden=(32,), max_epochs=n_epochs), **shared
        )
        for kind, n_epochs in zip(
            (HeterogeneousClassifier, InContextClassifier), epochs, strict=True
        )
    }


class Mean:
    """Classes by the mean of the probabilities of fitted learners."""

    def __init__(self, *learners):
        self.learners = learners
        self.feature_names_in_ = getattr(learners[0], "feature_names_in_", None)

    def adapt(self, *data, **groups):
        for learner in self.learners:
            learner.adapt(*data, **groups)

    def predict(self, X, groups):
        found = sum(each.predict_proba(X, groups=groups) for each in self.learners)
        return self.learners[0].classes_[found.argmax(axis=1)]


def scaled(model):
    return make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), model
    )


def baselines():
    """What one does with the support rows alone."""
    return {
        "logistic regression": scaled(LogisticRegression(C=C)),
        "nearest centroid": scaled(NearestCentroid()),
        "naive Bayes": scaled(GaussianNB(var_smoothing=1.0)),
    }


def accuracy(models, X, y, draws, adapt):
    """Accuracy of each model in each episode; those in `adapt` get all in one call."""
    scores = {}
    for name, model in models.items():
        if name in adapt:
            support, query = (np.concatenate(rows) for rows in zip(*draws, strict=True))
            ids = [
                np.repeat(np.arange(len(draws)), [len(rows) for rows in side])
                for side in zip(*draws, strict=True)
            ]
            model.adapt(take(X, support), y[support], groups=ids[0])
            hits = model.predict(take(X, query), groups=ids[1]) == y[query]
            scores[name] = [hits[ids[1] == i].mean() for i in range(len(draws))]
            continue
        scores[name] = [
            np.mean(model.fit(take(X, s), y[s]).predict(take(X, q)) == y[q])
            for s, q in draws
        ]
    return scores


def take(X, rows):
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


# ------------------------------------------------------------------------------- tables
def measure_tables(train, test, seed, n_episodes, extra=None):
    """Accuracies on the tables of `test`, by number of labels and model."""
    rng = np.random.default_rng(seed)
    tables = {name: load(name) for name in train}
    tasks = subset_tasks(tables, 12, rng)
    made = SelfMadeTasks(12 * len(tables), random_state=seed)
    tasks += made.make([X.to_numpy(float) for X, _ in tables.values()])
    fitted, seconds = {}, {}
    for name, meta in learners(seed, EPOCHS).items():
        start = time.process_time()
        fitted[name] = meta.set_params(label_space="per_task").fit(tasks)
        seconds[name] = time.process_time() - start
    fitted["mean of both"] = Mean(*fitted.values())
    results = {}
    for name in test:
        X, y = (values.to_numpy() for values in load(name))
        X = X.astype(float)
        for n_labels in LABELS:
            draws = [episode(y, n_labels, rng) for _ in range(n_episodes)]
            models = fitted | baselines() | (extra or {})
            found = accuracy(models, X, y, draws, fitted)
            results[name, n_labels] = found
    return results, seconds


# --------------------------------------------------------------------------- new column
def measure_new_column(name, n_new, seed, n_episodes):
    """Accuracies by number of labels and model, with and without the new column."""
    rng = np.random.default_rng(seed)
    X, y = load(name)
    y = y.to_numpy()
    columns = rng.permutation(X.columns)
    new, known = columns[:n_new], columns[n_new:]
    rows = rng.permutation(len(X))
    old, fresh = rows[: len(X) // 2], np.sort(rows[len(X) // 2 :])
    tasks = []
    for _ in range(12):
        subset = rng.permutation(known)[: rng.integers(1, min(len(known), 4) + 1)]
        tasks.append((X.iloc[old][list(subset)], y[old]))
    fitted = {
        key: meta.set_params(label_space="shared").fit(tasks)
        for key, meta in learners(seed, EPOCHS_NEW).items()
    }
    fitted["mean of both"] = Mean(*fitted.values())
    X, y = X.iloc[fresh].reset_index(drop=True), y[fresh]
    results = {}
    for n_labels in LABELS:
        drawn = []
        for _ in range(n_episodes):
            own = [*rng.permutation(known)[: rng.integers(1, 3)], rng.choice(new)]
            drawn.append((own, *episode(y, n_labels, rng)))
        found = {}
        for suffix, cut in (("", None), (", without it", -1)):
            parts = [(X[own[:cut]], s, q) for own, s, q in drawn]
            for key, meta in fitted.items():
                found[key + suffix] = fleet_accuracy(meta, parts, y)
            model = baselines()["logistic regression"]
            found["logistic regression" + suffix] = [
                np.mean(model.fit(F.iloc[s], y[s]).predict(F.iloc[q]) == y[q])
                for F, s, q in parts
            ]
            found["impute and pool" + suffix] = [
                pooled_accuracy(tasks, *part, y) for part in parts
            ]
        results[name, n_labels] = found
    return results


def fleet_accuracy(meta, parts, y):
    """Accuracy of each episode, all adapted in one call, each with its own columns."""
    meta.adapt([(F.iloc[s], y[s]) for F, s, _ in parts])
    wide = pd.concat([F.iloc[q] for F, _, q in parts], ignore_index=True)
    known = [name for name in meta.feature_names_in_ if name in wide]  # in this order
    wide = wide[[*known, *wide.columns.difference(known, sort=True)]]
    ids = np.repeat(np.arange(len(parts)), [len(q) for *_, q in parts])
    hits = meta.predict(wide, groups=ids) == np.concatenate([y[q] for *_, q in parts])
    return [hits[ids == i].mean() for i in range(len(parts))]


def pooled_accuracy(tasks, F, support, query, y):
    """One model of all rows there are, holes filled with means."""
    frames = [*(X for X, _ in tasks), F.iloc[support]]
    rows = pd.concat(frames, ignore_index=True)
    targets = np.concatenate([*(targets for _, targets in tasks), y[support]])
    model = scaled(LogisticRegression(C=C)).fit(rows, targets)
    return np.mean(
        model.predict(F.iloc[query].reindex(columns=rows.columns)) == y[query]
    )


# ----------------------------------------------------------------------------- the runs
def validate():
    """Accuracies on held-out training tables, by which settings are chosen."""
    extra = {
        f"logistic regression, C={c}": scaled(LogisticRegression(C=c))
        for c in (0.1, 0.3, 3.0)
    }
    train = [name for name in TRAIN if name not in VALID]
    results, seconds = measure_tables(train, VALID, 0, 40, extra)
    rows = {
        key: {m: np.mean(v) for m, v in found.items()} for key, found in results.items()
    }
    print(seconds, (100 * pd.DataFrame(rows)).round(1).to_string(), sep="\n")


def summary(runs):
    """Mean accuracy over seeds and episodes, its interval, and paired differences."""
    rows = []
    for data, n_labels in runs[0]:
        cells = {
            model: 100 * np.concatenate([run[data, n_labels][model] for run in runs])
            for model in runs[0][data, n_labels]
        }
        reference = cells["logistic regression"]
        for model, values in cells.items():
            gain = values - reference
            rows.append(
                {
                    "data": data,
                    "labels": n_labels,
                    "model": model,
                    "accuracy": values.mean(),
                    "interval": 1.96 * values.std(ddof=1) / len(values) ** 0.5,
                    "over logistic regression": gain.mean(),
                    "interval of that": 1.96 * gain.std(ddof=1) / len(gain) ** 0.5,
                    "by_seed": [
                        100 * np.mean(run[data, n_labels][model]) for run in runs
                    ],
                }
            )
    return rows


def measure(seed, n_episodes):
    """Accuracies on other tables, those with a new column, and seconds of training."""
    tables, seconds = measure_tables(TRAIN, TEST, seed, n_episodes)
    print(f"seed {seed}: {seconds}", flush=True)
    iris = measure_new_column("iris", 1, seed, n_episodes)
    return tables, iris | measure_new_column("wine", 4, seed, n_episodes), seconds


def report(runs, n_episodes):
    """Print and record what `measure` found for each seed."""
    tables, new, seconds = zip(*runs, strict=True)
    rows = summary(tables)
    rows += [{**row, "data": f"{row['data']}, new column"} for row in summary(new)]
    print(pd.DataFrame(rows).drop(columns="by_seed").round(1).to_string())
    record(
        "columns",
        protocol=f"{n_episodes} episodes a seed, {N_QUERIES} query rows, trained "
        f"on {len(TRAIN)} other tables, or on subsets of other columns",
        seeds=SEEDS,
        cpu_seconds=pd.DataFrame(seconds).mean().to_dict(),
        results=rows,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validate", action="store_true", help="training tables only")
    parser.add_argument("--episodes", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # A centroid classifier warns of columns that are constant within the classes.
    warnings.filterwarnings("ignore", module="sklearn.neighbors")
    if options.validate:
        validate()
        return
    runs = [measure(seed, options.episodes) for seed in SEEDS]
    report(runs, options.episodes)


if __name__ == "__main__":
    main()
