"""Omniglot, held-out alphabets: accuracy on characters never seen, from 1 and 5 images.

Protocol of Vinyals et al. (2016) as used by Snell et al. (2017): 28 x 28 images, every
rotation by 90 degrees is a class of its own; training on the training and validation
alphabets, episodes from the test alphabets, judged once.

    python benchmarks/omniglot.py --recipe protonet
    python benchmarks/omniglot.py --recipe protonet-long

Needs ``omniglot28.npz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import time

import numpy as np
import torch
from _ledger import record, shared_data
from sklearn.neighbors import NearestCentroid
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR

from skmeta import ProtoNetClassifier, freeze
from skmeta.modules import Conv4
from skmeta.tasks._sampler import EpisodeSampler
from skmeta.tasks._table import table_from_codes

SETTINGS = {"5w1s": (5, 1), "5w5s": (5, 5), "20w1s": (20, 1), "20w5s": (20, 5)}
PUBLISHED = {  # Snell et al. 2017, table 1
    "protonet": {"5w1s": 98.8, "5w5s": 99.7, "20w1s": 96.0, "20w5s": 98.9},
}
N_EPISODES = 1000
N_QUERIES = 15


def load(splits):
    """Images of the given parts of the Vinyals split, rotations as classes."""
    with np.load(shared_data() / "omniglot28.npz") as file:
        keep = np.isin(file["vinyals_split"], splits)
        images = file["images"][keep].astype(np.float32) / 255
    rotated = np.concatenate([np.rot90(images, k, axes=(2, 3)) for k in range(4)])
    n_classes, n_drawers = rotated.shape[:2]
    X = np.ascontiguousarray(rotated.reshape(-1, 28, 28))
    return X, np.repeat(np.arange(n_classes), n_drawers)


def protonet(width, n_ways, n_steps, halve_every, lr, seed):
    net = NeuralNet(
        Conv4,
        nn.CrossEntropyLoss,
        module__width=width,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=n_steps // 100,
        batch_size=1,
        train_split=None,
        callbacks=[
            LRScheduler(StepLR, step_size=halve_every, gamma=0.5, step_every="batch")
        ],
    )
    return ProtoNetClassifier(
        net,
        n_ways=n_ways,
        n_shots=1,
        n_queries=5,
        n_episodes=100,
        random_state=seed,
    )


RECIPES = {
    # Untuned: width, ways and rate of a first run, never compared on test classes.
    "protonet": lambda seed: protonet(32, 30, 8000, 2000, 2e-3, seed),
    "protonet-long": lambda seed: protonet(64, 60, 6500, 1300, 2e-3, seed),
}


def embed(meta, X):
    """Features of all images, in the precision of training."""
    backbone = meta.net_.module_.learner.backbone.eval()
    with torch.no_grad():
        parts = [backbone(torch.from_numpy(part)) for part in np.array_split(X, 64)]
    return torch.cat(parts).numpy()


def episodes(X, y, n_ways, n_shots, n_episodes, seed=2026):
    """Support and query of every episode, the same for everything compared."""
    table = table_from_codes(X, y, np.zeros(len(y), dtype=int), [None])
    sampler = EpisodeSampler(
        table, None, True, n_ways, n_shots, N_QUERIES, "random", True, seed, None
    )
    for step in range(n_episodes):
        support, query = sampler.sample(step, sampler.units, 1)
        yield support.X[0], support.y[0], query.X[0], query.y[0]


def centroid_accuracy(features, y, n_ways, n_shots):
    """Accuracy of each episode of the nearest class mean, which is ProtoNet's rule."""
    scores = []
    for Xs, ys, Xq, yq in episodes(features, y, n_ways, n_shots, N_EPISODES):
        means = torch.stack([Xs[ys == c].mean(0) for c in range(n_ways)])
        found = torch.cdist(Xq, means).argmin(1)
        scores.append((found == yq).float().mean().item())
    return np.array(scores)


def check_rule(meta, X, y):
    """The public verbs give what `centroid_accuracy` computes from features."""
    few = freeze(meta)
    features = embed(meta, X)
    pairs = zip(episodes(X, y, 5, 1, 3), episodes(features, y, 5, 1, 3), strict=True)
    for (Xs, ys, Xq, yq), (Fs, fs, Fq, fq) in pairs:
        few.fit(Xs.numpy(), ys.numpy())
        rule = NearestCentroid().fit(Fs.numpy(), fs.numpy())
        assert few.score(Xq.numpy(), yq.numpy()) == rule.score(Fq.numpy(), fq.numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default="protonet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load([0, 1])
    meta = RECIPES[args.recipe](args.seed)
    cpu, wall = time.process_time(), time.perf_counter()
    meta.fit(X, y)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    X, y = load([2])
    check_rule(meta, X, y)
    features, pixels = embed(meta, X), X.reshape(len(X), -1)
    rows = {}
    for name, (n_ways, n_shots) in SETTINGS.items():
        ours = 100 * centroid_accuracy(features, y, n_ways, n_shots)
        base = 100 * centroid_accuracy(pixels, y, n_ways, n_shots)
        rows[name] = {
            "accuracy": ours.mean(),
            "interval": 1.96 * ours.std(ddof=1) / len(ours) ** 0.5,
            "pixel_centroid": base.mean(),
            "published": PUBLISHED["protonet"][name],
        }
        print(name, {k: round(float(v), 2) for k, v in rows[name].items()})
    record(
        f"omniglot_{args.recipe.replace('-', '_')}",
        protocol=f"Vinyals split, rotations, {N_EPISODES} test episodes, "
        f"{N_QUERIES} queries per class",
        seeds=[args.seed],
        cpu_seconds=cpu,
        wall_seconds=wall,
        results=rows,
        estimator=repr(meta),
    )


if __name__ == "__main__":
    main()
