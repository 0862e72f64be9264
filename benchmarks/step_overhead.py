"""Share of an outer step that is sampling and skorch rather than the learner.

After every step of ``fit`` a twin of its module, with a criterion and optimizer of its
own, takes the bare step on the same meta-batch: predictions, loss, gradient, update. So
the two differ by a millisecond in time, and a busy machine slows both. A whole step is
the CPU time of an epoch without the twin's, divided by its steps; set-up and the first
epoch are left out. One thread; what is reported are medians over the epochs.

    python benchmarks/step_overhead.py
"""

import argparse
import copy
import time
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from _ledger import record
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from skmeta import MAMLClassifier, MAMLRegressor
from skmeta.datasets import make_sinusoid_tasks
from skmeta.modules import MLP

TARGET = 0.05
#: Outer steps of an epoch.
STEPS = 100


@dataclass(frozen=True)
class Setting:
    """An estimator, its tasks and the share that its steps may lose."""

    kind: str
    batch_size: int
    inner_steps: int
    target: float | None = None


SETTINGS = {
    "sinusoid, 25 tasks, 5 inner steps": Setting("sinusoid", 25, 5, TARGET),
    "sinusoid, 25 tasks, 1 inner step": Setting("sinusoid", 25, 1),
    "table, 32 tasks, 5 inner steps": Setting("table", 32, 5),
}


def make_tasks(kind):
    """Tasks to train on, the size of those of the speed table."""
    if kind == "sinusoid":
        return make_sinusoid_tasks(1000, 20, random_state=0)
    rng = np.random.default_rng(0)
    X = rng.random((200, 60, 20), dtype=np.float32)
    y = np.tile(np.arange(60) % 5, (200, 1))
    return list(zip(X, y, strict=True))


def make_meta(setting, n_steps):
    """The estimator, set to `n_steps` outer steps in epochs of `STEPS`."""
    sinusoid = setting.kind == "sinusoid"
    net = NeuralNet(
        MLP,
        nn.MSELoss if sinusoid else nn.CrossEntropyLoss,
        module__hidden=(40, 40) if sinusoid else (64, 64),
        module__activation=nn.ReLU,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=setting.batch_size,
        max_epochs=n_steps // STEPS,
        train_split=None,
        callbacks=[("twin", Twin())],
        verbose=0,
    )
    kind = MAMLRegressor if sinusoid else MAMLClassifier
    n_shots = 10 if sinusoid else 5
    return kind(
        net,
        inner_lr=0.01,
        inner_steps=setting.inner_steps,
        n_shots=n_shots,
        n_queries=n_shots,
        n_episodes=STEPS * setting.batch_size,
        random_state=0,
    )


class Twin(Callback):
    """Takes the bare step after every step of the net and keeps both times apart."""

    def on_train_begin(self, net, **kwargs):
        self.module = copy.deepcopy(net.module_)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=1e-3)
        self.criterion = copy.deepcopy(net.criterion_)
        self.epochs = []

    def on_epoch_begin(self, net, **kwargs):
        self.own = self.bare = 0.0
        self.start = time.process_time()

    def on_batch_end(self, net, batch, training, **kwargs):
        start = time.process_time()
        inputs, y = batch
        self.module.train()
        self.optimizer.zero_grad()
        self.criterion(self.module(**inputs), y).backward()
        self.optimizer.step()
        self.bare += time.process_time() - start
        self.own += time.process_time() - start

    def on_epoch_end(self, net, **kwargs):
        whole = time.process_time() - self.start - self.own
        self.epochs.append((whole, self.bare))


def drawing_seconds(meta, tasks, setting, n_steps):
    """CPU seconds of drawing the episodes of so many steps."""
    table = meta._read(tasks, None, None, reset=False)
    sampler = meta._sampler(meta._targets(meta._encode(table)))
    start = time.process_time()
    for _ in islice(sampler.stream(0, sampler.units, setting.batch_size), n_steps):
        pass
    return time.process_time() - start


def measure(setting, repeats):
    """Milliseconds of a whole step, a bare one and a draw: medians over the epochs."""
    tasks = make_tasks(setting.kind)
    meta = make_meta(setting, (repeats + 1) * STEPS).fit(tasks)
    twin = dict(meta.net_.callbacks_)["twin"]
    epochs = 1e3 * np.array(twin.epochs[1:]) / STEPS
    drawing = [drawing_seconds(meta, tasks, setting, STEPS) for _ in range(repeats)]
    drawing = 1e3 * np.median(drawing) / STEPS
    whole, bare = np.median(epochs, axis=0)
    shares = 1 - epochs[:, 1] / epochs[:, 0]
    return {
        "whole": whole,
        "bare": bare,
        "sampling": drawing,
        "share": np.median(shares),
        "share of sampling": drawing / whole,
        "shares of the epochs": sorted(shares),
        "target": setting.target,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="epochs")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--dry-run", action="store_true", help="write no results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in options.settings:
        results[name] = measure(SETTINGS[name], options.repeats)
        print(name, results[name], flush=True)
    if not options.dry_run:
        record(
            "step_overhead",
            protocol="milliseconds of CPU of an outer step, one thread: whole step of "
            "fit, bare learner step, drawing the episodes; medians of "
            f"{options.repeats} epochs",
            seeds=[0],
            results=results,
        )


if __name__ == "__main__":
    main()
