"""Share of an outer step that is sampling and skorch rather than the learner.

A whole step is what one more step of ``fit`` costs: the difference between a run of n
and one of 2n steps, so that set-up cancels. The bare step is the same module, criterion
and optimizer on meta-batches drawn before: predictions, loss, gradient, update. Both
run in turns, on one thread; what is reported are medians of CPU time over the turns.

    python benchmarks/step_overhead.py
"""

import argparse
import time
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from _ledger import record
from skorch import NeuralNet
from torch import nn

from skmeta import MAMLClassifier, MAMLRegressor
from skmeta.datasets import make_sinusoid_tasks
from skmeta.modules import MLP
from skmeta.outer_loop import EpisodeDataset, EpisodeLoader

TARGET = 0.05


@dataclass(frozen=True)
class Setting:
    """An estimator, its tasks and the share that its steps may lose."""

    kind: str
    batch_size: int
    inner_steps: int
    n_steps: int
    target: float | None = None


SETTINGS = {
    "sinusoid, 25 tasks, 5 inner steps": Setting("sinusoid", 25, 5, 300, TARGET),
    "sinusoid, 25 tasks, 1 inner step": Setting("sinusoid", 25, 1, 500),
    "table, 32 tasks, 5 inner steps": Setting("table", 32, 5, 100),
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
    """The estimator, set to `n_steps` outer steps in epochs of 100."""
    sinusoid = setting.kind == "sinusoid"
    net = NeuralNet(
        MLP,
        nn.MSELoss if sinusoid else nn.CrossEntropyLoss,
        module__hidden=(40, 40) if sinusoid else (64, 64),
        module__activation=nn.ReLU,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=setting.batch_size,
        max_epochs=n_steps // 100,
        train_split=None,
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
        n_episodes=100 * setting.batch_size,
        random_state=0,
    )


def bare_seconds(net, batches):
    """CPU seconds of the learner's own work on every meta-batch."""
    module, criterion, optimizer = net.module_, net.criterion_, net.optimizer_
    module.train()
    start = time.process_time()
    for inputs, y in batches:
        optimizer.zero_grad()
        criterion(module(**inputs), y).backward()
        optimizer.step()
    return time.process_time() - start


def sampling_seconds(sampler, n_steps, batch_size):
    start = time.process_time()
    for _ in islice(sampler.stream(0, sampler.units, batch_size), n_steps):
        pass
    return time.process_time() - start


def fit_seconds(setting, tasks, n_steps):
    meta = make_meta(setting, n_steps)
    start = time.process_time()
    meta.fit(tasks)
    return time.process_time() - start, meta


def drawn_before(meta, tasks, setting):
    """The meta-batches of one run, and the sampler that drew them."""
    table = meta._read(tasks, None, None, reset=False)
    sampler = meta._sampler(meta._targets(meta._encode(table)))
    dataset = EpisodeDataset(sampler, setting.n_steps * setting.batch_size)
    return list(EpisodeLoader(dataset, setting.batch_size)), sampler


def measure(setting, repeats):
    """Milliseconds of a whole step, a bare one and a draw: medians over the turns."""
    tasks, n = make_tasks(setting.kind), setting.n_steps
    _, meta = fit_seconds(setting, tasks, n)  # a warm-up
    batches, sampler = drawn_before(meta, tasks, setting)
    turns = []
    for _ in range(repeats):
        short, _ = fit_seconds(setting, tasks, n)
        first = bare_seconds(meta.net_, batches)
        long, _ = fit_seconds(setting, tasks, 2 * n)
        second = bare_seconds(meta.net_, batches)
        drawing = sampling_seconds(sampler, n, setting.batch_size)
        turns.append((long - short, (first + second) / 2, drawing))
    whole, bare, drawing = np.median(turns, axis=0) / n
    return {
        "whole": 1e3 * whole,
        "bare": 1e3 * bare,
        "sampling": 1e3 * drawing,
        "share": 1 - bare / whole,
        "share of sampling": drawing / whole,
        "shares of the turns": sorted(1 - b / w for w, b, _ in turns),
        "target": setting.target,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="turns")
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
            f"{options.repeats} turns",
            seeds=[0],
            results=results,
        )


if __name__ == "__main__":
    main()
