"""One hundred plant species: leaves of species never seen, from 1 and 5 of each.

Thirty of the species are held out, others for every seed. A leaf is a 32 x 32 mask, or
one of three descriptions by 64 numbers: margin, shape, texture. Every row is judged on
the same episodes. Settings are untuned: nothing was compared on test species.

    python benchmarks/leaves.py
    python benchmarks/leaves.py --views margin shape texture

Needs ``leaves100.npz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import time

import numpy as np
import torch
from _few_shot import adapted_accuracy, pool_sampler, stacked_episodes
from _ledger import record, shared_data
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn

from skmeta import ProtoNetClassifier, RidgeHeadClassifier
from skmeta.augmentation import ClassRotation, Compose, RandomCrop
from skmeta.modules import MLP, Conv4

SEEDS = [0, 1, 2]
SEEDS_OF_IMAGES = [0]  # a seed takes minutes
VIEWS = ("margin", "shape", "texture", "images")
SETTINGS = {"5w1s": (5, 1), "5w5s": (5, 5), "20w1s": (20, 1), "20w5s": (20, 5)}
N_EPISODES, N_QUERIES, N_HELD_OUT = 200, 5, 30


def load(view, seed):
    """Rows and species of the training species, then those of the held-out ones."""
    with np.load(shared_data() / "leaves100.npz") as file:
        X, y = file[view].astype(np.float32), file[f"{view}_y"].astype(int)
    species = np.random.default_rng(seed).permutation(np.unique(y))
    new = np.isin(y, species[:N_HELD_OUT])
    if view == "images":
        X = X / 255
    else:
        X = StandardScaler().fit(X[~new]).transform(X)
    return X[~new], y[~new], X[new], y[new]


def learner(kind, view, seed):
    images = view == "images"
    net = NeuralNet(
        Conv4 if images else MLP,
        nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=10,
        batch_size=2 if images else 4,
        train_split=None,
        verbose=0,
        **({"module__width": 32} if images else {"module__hidden": (128, 64)}),
    )
    return kind(
        net,
        n_ways=10,
        n_shots=1,
        n_queries=5,
        n_episodes=80 if images else 400,
        augment=Compose([ClassRotation(), RandomCrop(2)]) if images else None,
        random_state=seed,
    )


def centroid_accuracy(Xs, ys, Xq, yq):
    """Accuracy of each episode of the nearest class mean in the rows as they are."""
    Xs, Xq = (torch.from_numpy(X).flatten(2) for X in (Xs, Xq))
    members = nn.functional.one_hot(torch.from_numpy(ys)).float().mT
    means = members @ Xs / members.sum(dim=2, keepdim=True)
    found = torch.cdist(Xq, means).argmin(dim=2).numpy()
    return (found == yq).mean(axis=1)


def logistic_accuracy(Xs, ys, Xq, yq):
    """The same of logistic regression fitted to each support alone."""
    model = LogisticRegression(max_iter=500)
    flat = [X.reshape(*X.shape[:2], -1) for X in (Xs, Xq)]
    pairs = zip(flat[0], ys, flat[1], yq, strict=True)
    return np.array([model.fit(X, y).score(Q, q) for X, y, Q, q in pairs])


def measure(view, seed):
    X, y, X_new, y_new = load(view, seed)
    scores, seconds = {}, {}
    fitted = {}
    for kind in (ProtoNetClassifier, RidgeHeadClassifier):
        start = time.process_time()
        fitted[kind.__name__] = learner(kind, view, seed).fit(X, y)
        seconds[kind.__name__] = time.process_time() - start
    for setting, (n_ways, n_shots) in SETTINGS.items():
        sampler = pool_sampler(X_new, y_new, n_ways, n_shots, N_QUERIES, seed)
        drawn = stacked_episodes(sampler, N_EPISODES)
        for name, meta in fitted.items():
            scores[name, setting] = adapted_accuracy(meta, *drawn)
        scores["nearest class mean", setting] = centroid_accuracy(*drawn)
        scores["logistic regression", setting] = logistic_accuracy(*drawn)
    return scores, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=[*VIEWS])
    views = parser.parse_args().views
    torch.set_num_threads(1)
    for view in views:
        seeds = SEEDS_OF_IMAGES if view == "images" else SEEDS
        runs, results = [measure(view, seed) for seed in seeds], {}
        for name, setting in runs[0][0]:
            values = 100 * np.array([scores[name, setting] for scores, _ in runs])
            row = results.setdefault(name, {})
            # Over all episodes; the mean of each seed beside it, since splits differ.
            row[setting] = {
                "accuracy": values.mean(),
                "interval": 1.96 * values.std(ddof=1) / values.size**0.5,
                "by_seed": values.mean(axis=1).tolist(),
            }
            row["cpu_seconds"] = np.mean([s.get(name, 0.0) for _, s in runs])
        for name, row in results.items():
            cells = [f"{s} {row[s]['accuracy']:.1f}" for s in SETTINGS]
            print(view, name, *cells, flush=True)
        record(
            f"leaves_{view}",
            protocol=f"{N_HELD_OUT} of 100 species held out, {N_EPISODES} episodes a "
            f"seed, {N_QUERIES} queries per class, untuned",
            seeds=seeds,
            results=results,
        )


if __name__ == "__main__":
    main()
