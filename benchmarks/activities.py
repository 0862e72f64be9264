"""WISDM: what new users of a phone do, from a few labelled windows of each activity.

Tasks are users, who share the six activities. 30 % of the users are held out; of each,
k windows of every activity are the support set, drawn at random, and all others the
query set. Users do not do everything, and the support shows what each of them does: all
methods choose among these activities. Every method is judged on the same windows.
Settings are untuned: nothing was compared on the users held out.

    python benchmarks/activities.py

Needs ``wisdm_ar_v11_transformed.csv.gz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from _grouped_baselines import Rows, forest, join
from _ledger import record
from grouped_tables import held_out, load
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn

from skmeta import (
    DeepKernelClassifier,
    HierarchicalClassifier,
    HierarchicalForestClassifier,
    MAMLClassifier,
    MultiTaskClassifier,
    ProtoNetClassifier,
    RidgeHeadClassifier,
    TransferClassifier,
)
from skmeta.baselines import PooledClassifier
from skmeta.modules import MLP

SEEDS = [0, 1, 2]
SHOTS = (1, 5)
REFITTED = "forest, refitted with the support"


def net(n_epochs, batch_size):
    return NeuralNet(
        MLP,
        nn.CrossEntropyLoss,
        module__hidden=(64, 64),
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=n_epochs,
        batch_size=batch_size,
        train_split=None,
        verbose=0,
    )


def learners(seed):
    """Networks of 2 x 64 that train on episodes, or on all rows, and three forests."""
    episodes = {"n_shots": (1, 5), "n_queries": 10, "n_episodes": 400}
    episodes |= {"label_space": "shared", "random_state": seed}
    return {
        "ProtoNet": ProtoNetClassifier(net(20, 4), **episodes),
        "RidgeHead": RidgeHeadClassifier(net(20, 4), **episodes),
        "MAML": MAMLClassifier(net(20, 4), **episodes),
        "ANIL": MAMLClassifier(net(20, 4), adapted="head", **episodes),
        "DeepKernel": DeepKernelClassifier(net(20, 4), **episodes),
        "Transfer": TransferClassifier(
            net(40, 64), label_space="shared", random_state=seed
        ),
        "MultiTask": MultiTaskClassifier(
            net(40, 64), label_space="shared", random_state=seed
        ),
        "learned prior": HierarchicalClassifier(),
        "learned prior + forest": HierarchicalClassifier(forest()),
        "learned leaves of a forest": HierarchicalForestClassifier(forest()[-1]),
        "pooled forest": PooledClassifier(forest()),
    }


def support_mask(rows: Rows, n_shots, rng):
    """True for `n_shots` windows of each activity of each user, at most all but one.

    Parameters
    ----------
    rows : Rows
        Windows, in any order.
    n_shots : int
        Windows of an activity.
    rng : numpy.random.Generator
        Draws them.
    """
    table = pd.DataFrame({"user": rows.groups, "activity": rows.y})
    order = rng.permutation(len(table))
    cells = table.iloc[order].groupby(["user", "activity"])
    rank = cells.cumcount().sort_index().to_numpy()
    sizes = table.groupby(["user", "activity"])["user"].transform("size").to_numpy()
    return rank < np.minimum(n_shots, sizes - 1)


def by_user(proba, classes, support, query):
    """Share of windows right, user by user; activities are those of the support."""
    seen = pd.crosstab(support.groups, support.y).reindex(columns=classes, fill_value=0)
    done = seen.loc[query.groups].to_numpy() > 0
    found = classes[np.where(done, proba, -1.0).argmax(axis=1)]
    return pd.Series(found == query.y).groupby(query.groups).mean()


def measure(seed):
    """Accuracy of every user by method and shots, and seconds of training."""
    train, test = held_out(load("wisdm")[0], seed)
    scale = make_pipeline(SimpleImputer(), StandardScaler()).fit(train.X)
    train, test = (replace(rows, X=scale.transform(rows.X)) for rows in (train, test))
    draws = {k: support_mask(test, k, np.random.default_rng((seed, k))) for k in SHOTS}
    scores, seconds = {}, {}
    for name, meta in learners(seed).items():
        start = time.process_time()
        meta.fit(train.X, train.y, groups=train.groups)
        seconds[name] = time.process_time() - start
        for k, drawn in draws.items():
            support, query = test[drawn], test[~drawn]
            meta.adapt(support.X, support.y, groups=support.groups)
            proba = meta.predict_proba(query.X, groups=query.groups)
            scores[name, k] = by_user(proba, meta.classes_, support, query)
    start = time.process_time()
    for k, drawn in draws.items():
        rows, query = join(train, test[drawn]), test[~drawn]
        model = forest().fit(rows.X, rows.y)
        proba = model.predict_proba(query.X)
        scores[REFITTED, k] = by_user(proba, model.classes_, test[drawn], query)
    seconds[REFITTED] = (time.process_time() - start) / len(SHOTS)
    return scores, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--develop", action="store_true", help="do not record")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs, results = [], {}
    for seed in SEEDS:
        runs.append(measure(seed))
        told = {
            key: round(100 * values.mean(), 1) for key, values in runs[-1][0].items()
        }
        print(seed, told, flush=True)
    for name, k in runs[0][0]:
        values = [100 * scores[name, k].to_numpy() for scores, _ in runs]
        rest = [100 * scores[REFITTED, k].to_numpy() for scores, _ in runs]
        both, gain = map(np.concatenate, (values, np.subtract(values, rest)))
        row = results.setdefault(name, {})
        row[f"{k} a class"] = {
            "accuracy": both.mean(),
            "interval": 1.96 * both.std(ddof=1) / len(both) ** 0.5,
            "by_seed": [part.mean() for part in values],
            "over forest refitted": gain.mean(),
            "interval of that": 1.96 * gain.std(ddof=1) / len(gain) ** 0.5,
        }
        row["cpu_seconds"] = float(np.mean([seconds[name] for _, seconds in runs]))
        print(name, k, row[f"{k} a class"])
    if not args.develop:
        record(
            "activities",
            protocol="30 % of the users held out, k windows of each of their "
            "activities as support, among which all methods choose; mean accuracy of "
            "users",
            seeds=SEEDS,
            results=results,
        )


if __name__ == "__main__":
    main()
