"""Omniglot: many learners, three minutes of the processor each, on the same episodes.

The Vinyals split with rotations as in `omniglot.py`: the training and validation
alphabets are trained on, episodes of the test alphabets are judged once. Every learner
has a `Conv4` of width 32 and the rate falls to zero within its time. Settings are those
of `omniglot.py` where it has them, else untuned; nothing was compared on test classes.

    python benchmarks/omniglot_learners.py --learner SimpleShot
    python benchmarks/omniglot_learners.py --learner ProtoNet --lake

With ``--lake`` it is the 20 runs of Lake et al. (2015): 20 characters of one alphabet
from one image of each, trained on the background alphabets alone. Learners that take
gradient steps are trained on 20-way episodes then.

Needs ``omniglot28.npz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import copy
import math
import time

import numpy as np
import torch
from _few_shot import adapted_accuracy, pool_sampler
from _ledger import record, shared_data
from omniglot import SETTINGS, load
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from skmeta import (
    MAMLClassifier,
    MatchingNetClassifier,
    ProtoNetClassifier,
    RelationNetClassifier,
    ReptileClassifier,
    RidgeHeadClassifier,
    SimpleShotClassifier,
    TransferClassifier,
)
from skmeta.modules import Conv4
from skmeta.tasks import TaskBatch

N_EPISODES, N_QUERIES = 400, 15
#: Learners that take gradient steps through the whole network are judged on the first
#: of these episodes only, five-way.
N_EPISODES_GRADIENT = 200


class Limit(Callback):
    """Ends training after minutes of the processor, the rate falling to zero till then.

    Parameters
    ----------
    minutes : float
        Processor time.
    """

    def __init__(self, minutes):
        self.minutes = minutes

    def on_train_begin(self, net, **kwargs):
        self.start_ = time.process_time()
        self.n_steps_ = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        for group in net.optimizer_.param_groups:
            group["lr"] = net.lr * (1 + math.cos(math.pi * min(self._spent(), 1))) / 2

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_steps_ += 1
        if self._spent() > 1:
            raise KeyboardInterrupt

    def _spent(self):
        return (time.process_time() - self.start_) / (60 * self.minutes)


def net(minutes, lr, batch_size):
    return NeuralNet(
        Conv4,
        nn.CrossEntropyLoss,
        module__width=32,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=10**6,
        batch_size=batch_size,
        train_split=None,
        verbose=0,
        callbacks=[("limit", Limit(minutes))],
    )


def episodic(kind, **params):
    """Thirty-way one-shot episodes, one a step."""

    def make(minutes, seed):
        return kind(
            net(minutes, 2e-3, 1),
            n_ways=30,
            n_shots=1,
            n_queries=5,
            n_episodes=100,
            random_state=seed,
            **params,
        )

    return make


def supervised(kind, **params):
    """Batches of 128 images, of all classes."""

    def make(minutes, seed):
        return kind(net(minutes, 2e-3, 128), random_state=seed, **params)

    return make


def gradient(kind, **params):
    """Five-way one-shot episodes, four a step; transductive as published."""

    def make(minutes, seed):
        return kind(
            net(minutes, 3e-3, 4),
            n_ways=5,
            n_shots=1,
            n_queries=5,
            n_episodes=400,
            transductive=True,
            random_state=seed,
            **params,
        )

    return make


LEARNERS = {
    "ProtoNet": episodic(ProtoNetClassifier),
    "MatchingNet": episodic(MatchingNetClassifier),
    "RelationNet": episodic(RelationNetClassifier),
    "RidgeHead": episodic(RidgeHeadClassifier),
    "SimpleShot": supervised(SimpleShotClassifier),
    "Baseline++": supervised(TransferClassifier, head="cosine", adapt_steps=100),
    "ANIL": gradient(MAMLClassifier, adapted="head", inner_lr=0.1, inner_steps=5),
    "MAML": gradient(MAMLClassifier, inner_lr=0.4, inner_steps=1, adapt_steps=1),
    "Reptile": gradient(ReptileClassifier, inner_lr=0.1, inner_steps=5, adapt_steps=20),
}
GRADIENT = {"ANIL", "MAML", "Reptile"}
#: Steps of 20-way tasks as published, one such task at a time.
LAKE = {
    "ANIL": {},
    "MAML": {"inner_lr": 0.1, "inner_steps": 5, "adapt_steps": 5},
    "Reptile": {"inner_steps": 10, "adapt_steps": 50},
}


def background(evaluation):
    """Images and classes of background or evaluation alphabets, turned for training."""
    with np.load(shared_data() / "omniglot28.npz") as file:
        images = file["images"][file["evaluation"] == evaluation]
    images = images.astype(np.float32) / 255
    turned = np.concatenate([np.rot90(images, k, axes=(2, 3)) for k in range(4)])
    X = np.ascontiguousarray(turned.reshape(-1, 28, 28))
    return X, np.repeat(np.arange(len(turned)), turned.shape[1])


def lake_runs():
    """Support and test images of the 20 runs: each ``(20, 20, 28, 28)``."""
    with np.load(shared_data() / "omniglot28.npz") as file:
        images, rows = file["images"], file["oneshot_runs"].astype(int)
    run, character, test, train = rows.T
    assert (np.bincount(run)[1:] == 20).all()
    character = character - 1
    order = np.argsort(run, kind="stable")
    parts = (images[character, drawer - 1][order] for drawer in (train, test))
    return [part.reshape(20, 20, 28, 28).astype(np.float32) / 255 for part in parts]


# ------------------------------------------------------------------------------ judging
def on_features(meta, X):
    """The learner without its backbone, and what that makes of all images."""
    learner = copy.deepcopy(meta.net_.module_.learner).eval().requires_grad_(False)
    with torch.no_grad():
        parts = [
            learner.backbone(torch.from_numpy(part)).flatten(1)
            for part in np.array_split(X, max(1, len(X) // 512))
        ]
    learner.backbone = nn.Identity()
    return learner.double(), torch.cat(parts).double()


def accuracies(learner, Xs, ys, Xq, yq):
    """Accuracy of each episode, rows of features and classes by episode."""
    n_ways = int(ys.max()) + 1
    with torch.no_grad():
        state = learner.adapt(TaskBatch(Xs, ys, None, n_ways))
        found = learner.predict(state, TaskBatch(Xq)).argmax(-1)
    return (found == yq).double().mean(1).numpy()


def drawn(y, n_ways, n_shots, n_episodes):
    """Rows of the pool in each episode and their classes; the same for everything."""
    rows = np.arange(len(y))[:, None]
    sampler = pool_sampler(rows, y, n_ways, n_shots, N_QUERIES, 2026)
    both = [sampler.sample(step, sampler.units, 1) for step in range(n_episodes)]
    support = [torch.cat([getattr(s, k) for s, _ in both]) for k in ("X", "y")]
    query = [torch.cat([getattr(q, k) for _, q in both]) for k in ("X", "y")]
    return support[0][..., 0], support[1], query[0][..., 0], query[1]


def centroids(Xs, ys, Xq, yq):
    """Accuracy of each episode of the nearest class mean."""
    members = nn.functional.one_hot(ys).to(Xs.dtype).mT
    means = members @ Xs / members.sum(2, keepdim=True)
    return (torch.cdist(Xq, means).argmin(2) == yq).double().mean(1).numpy()


def summary(scores):
    scores = 100 * np.asarray(scores)
    return {
        "accuracy": scores.mean(),
        "interval": 1.96 * scores.std(ddof=1) / len(scores) ** 0.5,
        "n_episodes": len(scores),
    }


def judge(name, meta):
    """Accuracy by setting, with that of pixels on the same episodes."""
    X, y = load([2])
    pixels, rows = torch.from_numpy(X).flatten(1), {}
    if name not in GRADIENT:
        learner, features = on_features(meta, X)
    for setting, (n_ways, n_shots) in SETTINGS.items():
        if name in GRADIENT and n_ways > 5:
            continue
        n_episodes = N_EPISODES_GRADIENT if name in GRADIENT else N_EPISODES
        s, ys, q, yq = drawn(y, n_ways, n_shots, n_episodes)
        if name in GRADIENT:
            parts = X[s], ys.numpy(), X[q], yq.numpy()
            ours = adapted_accuracy(meta, *parts, at_a_time=50)
        else:
            ours = accuracies(learner, features[s], ys, features[q], yq)
        rows[setting] = summary(ours)
        base = [
            centroids(pixels[s[i]], ys[i], pixels[q[i]], yq[i])
            for i in torch.arange(n_episodes).split(20)
        ]
        rows[setting]["pixel_centroid"] = 100 * np.concatenate(base).mean()
    return rows


def judge_lake(name, meta):
    """Error of the 20 runs, with that of the nearest neighbour in pixels."""
    support, test = lake_runs()
    y = np.tile(np.arange(20), (20, 1))
    scores = adapted_accuracy(meta, support, y, test, y)
    flat = [torch.from_numpy(part).flatten(2) for part in (support, test)]
    pixels = centroids(flat[0], torch.from_numpy(y), flat[1], torch.from_numpy(y))
    return {
        "20w1s within alphabets": summary(scores)
        | {"pixel_centroid": 100 * pixels.mean()}
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learner", choices=LEARNERS, required=True)
    parser.add_argument("--lake", action="store_true")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--develop", action="store_true", help="do not record")
    args = parser.parse_args()
    torch.set_num_threads(1)
    meta = LEARNERS[args.learner](args.minutes, args.seed)
    if args.lake and args.learner in GRADIENT:
        meta.set_params(n_ways=20, estimator__batch_size=1, **LAKE[args.learner])
    X, y = background(evaluation=False) if args.lake else load([0, 1])
    cpu = time.process_time()
    meta.fit(X, y)
    cpu = time.process_time() - cpu
    rows = (judge_lake if args.lake else judge)(args.learner, meta)
    for setting, row in rows.items():
        print(args.learner, setting, {k: round(float(v), 2) for k, v in row.items()})
    if args.develop:
        return
    which = args.learner.lower().replace("++", "_pp")
    protocol = "Vinyals split with rotations"
    if args.lake:
        protocol = "Lake's 20 runs, trained on background alphabets with rotations"
    record(
        f"omniglot_{'lake' if args.lake else 'short'}_{which}",
        learner=args.learner,
        protocol=f"{protocol}, Conv4 of width 32, {args.minutes:g} CPU-minutes",
        seeds=[args.seed],
        cpu_seconds=cpu,
        n_steps=dict(meta.net_.callbacks_)["limit"].n_steps_,
        results=rows,
        estimator=repr(meta),
    )


if __name__ == "__main__":
    main()
