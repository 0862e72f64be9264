"""Omniglot, held-out alphabets: accuracy on characters never seen, from 1 and 5 images.

Protocol of Vinyals et al. (2016) as used by Snell et al. (2017): 28 x 28 images, every
rotation by 90 degrees is a class of its own; training on the training and validation
alphabets, episodes from the test alphabets, judged once.

    python benchmarks/omniglot.py --recipe protonet
    python benchmarks/omniglot.py --recipe protonet-long
    python benchmarks/omniglot.py --recipe maml --minutes 12
    python benchmarks/omniglot.py --recipe maml-first-order --minutes 12

MAML trains for a stated time of the processor, since the published 60,000 steps are out
of its reach. With ``--checkpoint FOLDER`` a second call goes on where the first ended
(MAML, protonet-long); ``--develop`` trains without the validation alphabets and judges
on them.

Needs ``omniglot28.npz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import ctypes
import json
import math
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from _few_shot import adapted_accuracy, pool_sampler
from _ledger import record, shared_data
from sklearn.neighbors import NearestCentroid
from skorch import NeuralNet
from skorch.callbacks import Callback, Checkpoint, LoadInitState, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR

from skmeta import MAMLClassifier, ProtoNetClassifier, freeze
from skmeta.augmentation import Compose, RandomCrop
from skmeta.modules import Conv4

SETTINGS = {"5w1s": (5, 1), "5w5s": (5, 5), "20w1s": (20, 1), "20w5s": (20, 5)}
PUBLISHED = {
    # Snell et al. 2017, table 1
    "protonet": {"5w1s": 98.8, "5w5s": 99.7, "20w1s": 96.0, "20w5s": 98.9},
    # Finn et al. 2017, table 1, and Nichol et al. 2018, table 2; both transductive
    "maml": {"5w1s": 98.7, "5w5s": 99.9},
    "maml-first-order": {"5w1s": 98.3, "5w5s": 99.2},
}
N_EPISODES = 1000
N_EPISODES_MAML = 400
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


def keep_memory():
    """Let freed memory stay with the process, where the C library is glibc.

    Feature maps of 72 MB would go back to the system and be asked for anew, page by
    page, in every operation: a step of protonet-long takes 1.5 times as long.
    """
    if sys.platform == "linux":
        no_mmap, trim = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(no_mmap, 0)
            libc.mallopt(trim, 2**31 - 1)


def protonet(width, n_ways, n_epochs, lr, callbacks, seed, augment=None):
    net = NeuralNet(
        Conv4,
        nn.CrossEntropyLoss,
        module__width=width,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=n_epochs,
        batch_size=1,
        train_split=None,
        callbacks=[Seconds(), *callbacks],
    )
    return ProtoNetClassifier(
        net,
        n_ways=n_ways,
        n_shots=1,
        n_queries=5,
        n_episodes=100,
        augment=augment,
        random_state=seed,
    )


def protonet_short(seed, folder):
    """Untuned: width, ways and rate of a first run, never compared on test classes."""
    halves = LRScheduler(StepLR, step_size=2000, gamma=0.5, step_every="batch")
    return protonet(32, 30, 80, 2e-3, [halves], seed)


def protonet_long(seed, folder, n_epochs=65):
    """As many steps as a first run, which halved the rate and changed no image.

    Cosine, shifts and mirrored classes were chosen beforehand, not by comparing.
    """
    going_on, n_before = checkpoints(folder)
    callbacks = [*going_on, Cosine(100 * n_epochs)]
    augment = Compose([mirror_classes, RandomCrop(1)])
    seed += n_before  # a second call draws other episodes
    return protonet(64, 60, n_epochs - n_before, 2e-3, callbacks, seed, augment)


def mirror_classes(support, query):
    """Mirror half of the classes: another character, as one that is turned is."""
    shape = support.n_tasks, support.n_classes
    chosen = torch.rand(shape, device=support.X.device) < 0.5

    def mirrored(batch):
        mine = chosen.gather(1, batch.y)[..., None, None]
        return replace(batch, X=torch.where(mine, batch.X.flip(-1), batch.X))

    return mirrored(support), mirrored(query)


RECIPES = {"protonet": protonet_short, "protonet-long": protonet_long}


def checkpoints(folder):
    """Callbacks that save every epoch and load the last one; epochs run before."""
    if folder is None:
        return [], 0
    checkpoint = Checkpoint(monitor=None, dirname=folder)
    history = Path(folder, checkpoint.f_history)
    n_before = len(json.loads(history.read_text())) if history.exists() else 0
    return [LoadInitState(checkpoint), checkpoint], n_before


class Cosine(Callback):
    """Lets the rate fall to zero over all steps, those of earlier calls included."""

    def __init__(self, n_steps):
        self.n_steps = n_steps

    def on_batch_begin(self, net, training=False, **kwargs):
        done = sum(len(epoch["batches"]) for epoch in net.history) - 1
        for group in net.optimizer_.param_groups:
            share = min(done / self.n_steps, 1)
            group["lr"] = net.lr * (1 + math.cos(math.pi * share)) / 2


class Seconds(Callback):
    """Seconds of the processor of every epoch go to the history."""

    def on_epoch_begin(self, net, **kwargs):
        self.epoch_ = time.process_time()

    def on_epoch_end(self, net, **kwargs):
        net.history.record("cpu_seconds", time.process_time() - self.epoch_)


class Budget(Callback):
    """Lets the rate fall to zero over minutes of the processor."""

    def __init__(self, minutes):
        self.minutes = minutes

    def on_train_begin(self, net, **kwargs):
        self.start_ = time.process_time()

    def on_batch_begin(self, net, training=False, **kwargs):
        spent = (time.process_time() - self.start_) / (60 * self.minutes)
        for group in net.optimizer_.param_groups:
            group["lr"] = net.lr * (1 + math.cos(math.pi * min(spent, 1))) / 2


class Stop(Callback):
    """The last callback, so that the others have seen the epoch."""

    def __init__(self, minutes):
        self.minutes = minutes

    def on_train_begin(self, net, **kwargs):
        self.start_ = time.process_time()

    def on_epoch_end(self, net, **kwargs):
        if time.process_time() - self.start_ > 60 * self.minutes:
            raise KeyboardInterrupt


def maml(minutes, folder, seed, **params):
    """Rates and steps were chosen on validation alphabets, in half a minute each."""
    going_on, n_before = checkpoints(folder)
    callbacks = [Seconds(), Budget(minutes), *going_on]
    net = NeuralNet(
        Conv4,
        nn.CrossEntropyLoss,
        module__width=32,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        max_epochs=10**6,
        batch_size=4,
        train_split=None,
        callbacks=[*callbacks, Stop(minutes)],
    )
    return MAMLClassifier(
        net,
        n_ways=5,
        n_shots=1,
        n_queries=5,
        n_episodes=100 * 4,
        transductive=True,  # as published
        random_state=seed + n_before,  # a second call draws other episodes
        **params,
    )


MAML = {
    # One step of 0.4 is the published setting for five ways. Without second
    # derivatives a single step from a head of zeros never moves the backbone.
    "maml": {"inner_lr": 0.4, "inner_steps": 1, "adapt_steps": 1},
    "maml-first-order": {
        "inner_lr": 0.2,
        "inner_steps": 5,
        "adapt_steps": 10,
        "first_order": True,
    },
}


def embed(meta, X):
    """Features of all images, in the precision of training."""
    backbone = meta.net_.module_.learner.backbone.eval()
    with torch.no_grad():
        parts = [backbone(torch.from_numpy(part)) for part in np.array_split(X, 64)]
    return torch.cat(parts).numpy()


def episodes(X, y, n_ways, n_shots, n_episodes, seed=2026):
    """Support and query of every episode, the same for everything compared."""
    sampler = pool_sampler(X, y, n_ways, n_shots, N_QUERIES, seed)
    for support, query in islice(sampler.stream(0, sampler.units, 1), n_episodes):
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


def pixel_accuracy(X, y, n_ways, n_shots):
    return centroid_accuracy(X.reshape(len(X), -1), y, n_ways, n_shots)


def row(ours, base, published):
    ours = 100 * ours
    return {
        "accuracy": ours.mean(),
        "interval": 1.96 * ours.std(ddof=1) / len(ours) ** 0.5,
        "pixel_centroid": 100 * base.mean(),
        "published": published,
    }


def seconds_of(history):
    """What training took, over all calls."""
    return {
        "cpu_seconds": sum(history[:, "cpu_seconds"]),
        "wall_seconds": sum(history[:, "dur"]),
        "n_steps": sum(history[:, "train_batch_count"]),
    }


def run_protonet(args):
    X, y = load([0] if args.develop else [0, 1])
    meta = RECIPES[args.recipe](args.seed, args.checkpoint)
    meta.fit(X, y)
    X, y = load([1] if args.develop else [2])
    check_rule(meta, X, y)
    features = embed(meta, X)
    rows = {}
    for name, (n_ways, n_shots) in SETTINGS.items():
        ours = centroid_accuracy(features, y, n_ways, n_shots)
        base = pixel_accuracy(X, y, n_ways, n_shots)
        rows[name] = row(ours, base, PUBLISHED["protonet"][name])
    return meta, N_EPISODES, rows, seconds_of(meta.history_)


def run_maml(args):
    X, y = load([0] if args.develop else [0, 1])
    meta = maml(args.minutes, args.checkpoint, args.seed, **MAML[args.recipe])
    meta.fit(X, y)
    X, y = load([1] if args.develop else [2])
    rows = {}
    for name, published in PUBLISHED[args.recipe].items():
        n_ways, n_shots = SETTINGS[name]
        drawn = episodes(X, y, n_ways, n_shots, N_EPISODES_MAML)
        parts = (torch.stack(part).numpy() for part in zip(*drawn, strict=True))
        ours = adapted_accuracy(meta, *parts)
        rows[name] = row(ours, pixel_accuracy(X, y, n_ways, n_shots), published)
    return meta, N_EPISODES_MAML, rows, seconds_of(meta.history_)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=[*RECIPES, *MAML], default="protonet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=12, help="MAML: of processor")
    parser.add_argument("--checkpoint", help="folder to go on from and save to")
    parser.add_argument(
        "--develop", action="store_true", help="judge on validation alphabets"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    run = run_maml if args.recipe in MAML else run_protonet
    meta, n_episodes, rows, seconds = run(args)
    for name, values in rows.items():
        print(name, {k: round(float(v), 2) for k, v in values.items()})
    if args.develop:
        return
    record(
        f"omniglot_{args.recipe.replace('-', '_')}",
        protocol=f"Vinyals split, rotations, {n_episodes} test episodes, "
        f"{N_QUERIES} queries per class",
        seeds=[args.seed],
        **seconds,
        results=rows,
        estimator=repr(meta),
    )


if __name__ == "__main__":
    main()
