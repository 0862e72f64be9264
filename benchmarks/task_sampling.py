"""Training tasks chosen by reward: eight sources of tasks, two of them like the target.

The target are sinusoids, judged on 200 new ones after 10 rows. Five of them are there
to validate on; the training tasks, 20 of each source, are sinusoids of small and of
large amplitude, and then faster sinusoids, lines, parabolas, steps and noise. Every row
of the table is `MAMLRegressor` after 500 steps of ten tasks.

Temperatures and rates were chosen on other seeds.

    python benchmarks/task_sampling.py [--seeds 5]
"""

import argparse
import time

import numpy as np
import torch
from _ledger import record
from sklearn.model_selection import PredefinedSplit
from skorch import NeuralNet
from skorch.dataset import ValidSplit
from torch import nn

from skmeta import MAMLRegressor
from skmeta.modules import MLP
from skmeta.task_sampling import Exp3Sampler, GradientAlignmentSampler

N_PER_SOURCE, N_VALIDATION, N_TEST = 20, 5, 200
N_SHOTS, N_ROWS = 10, 20
FIRST_SEED = 100


def wave(x, rng, low=0.1, high=5.0, speed=1.0):
    return rng.uniform(low, high) * np.sin(speed * x - rng.uniform(0, np.pi))


RELEVANT = {
    "small waves": lambda x, rng: wave(x, rng, 0.1, 2.5),
    "large waves": lambda x, rng: wave(x, rng, 2.5, 5.0),
}
SOURCES = RELEVANT | {
    "twice as fast": lambda x, rng: wave(x, rng, speed=2.0),
    "three times as fast": lambda x, rng: wave(x, rng, speed=3.0),
    "lines": lambda x, rng: rng.normal() * x + 2 * rng.normal(),
    "parabolas": lambda x, rng: rng.normal() * (x**2 / 4 - 2) + rng.normal(),
    "steps": lambda x, rng: 3 * rng.normal() * np.sign(x - rng.uniform(-5, 5)),
    "noise": lambda x, rng: 3 * rng.normal(size=x.shape),
}


def draw(source, n_tasks, rng, n_rows=N_ROWS):
    """Tasks of one source."""
    rows = [rng.uniform(-5, 5, (n_rows, 1)) for _ in range(n_tasks)]
    return [(X, source(X[:, 0], rng)) for X in rows]


def fitted(seed, training, validation=(), task_sampler=None):
    """A meta-learner after as many steps as all others."""
    fold = np.repeat([-1, 0], [len(training), len(validation)])
    net = NeuralNet(
        MLP,
        nn.MSELoss,
        module__hidden=(40, 40),
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=10,
        max_epochs=10,
        train_split=ValidSplit(PredefinedSplit(fold)) if len(validation) else None,
        verbose=0,
    )
    meta = MAMLRegressor(
        net,
        n_shots=N_SHOTS,
        n_queries=N_ROWS - N_SHOTS,
        n_episodes=500,
        task_sampler=task_sampler,
        random_state=seed,
    )
    return meta.fit([*training, *validation])


def error(meta, test):
    """Mean squared error of new tasks."""
    tasks = np.repeat(np.arange(len(test)), len(test[0][1]))
    first = np.arange(len(tasks)) % len(test[0][1]) < N_SHOTS
    X, y = (np.concatenate(parts) for parts in zip(*test, strict=True))
    meta.adapt(X[first], y[first], groups=tasks[first])
    found = meta.predict(X[~first], groups=tasks[~first])
    return float(np.mean((found - y[~first]) ** 2))


def run(seed):
    """Error, relevant share of the draws and seconds of each way to choose tasks."""
    rng = np.random.default_rng(seed)
    drawn = {name: draw(s, N_PER_SOURCE, rng) for name, s in SOURCES.items()}
    validation, test = draw(wave, N_VALIDATION, rng), draw(wave, N_TEST, rng, 50)
    every = [task for tasks in drawn.values() for task in tasks]
    relevant = every[: len(RELEVANT) * N_PER_SOURCE]
    names = [name for name, tasks in drawn.items() for _ in tasks]
    sources = dict(enumerate(names + ["validation"] * N_VALIDATION))
    aligned = GradientAlignmentSampler(sources=sources)
    ways = {
        "uniform": (every,),
        "uniform, validation tasks among them": (every + validation,),
        "Exp3": (every, validation, Exp3Sampler(sources=sources)),
        "alignment, every task by itself": (
            every,
            validation,
            GradientAlignmentSampler(),
        ),
        "alignment": (every, validation, aligned),
        "alignment, validation tasks among them": (
            every + validation,
            validation,
            aligned,
        ),
        "validation tasks alone": (validation,),
        "oracle: relevant sources alone": (relevant,),
        "oracle, validation tasks among them": (relevant + validation,),
    }
    found = {}
    for name, way in ways.items():
        start = time.process_time()
        meta = fitted(seed, *way)
        row = found[name] = {"seconds": time.process_time() - start}
        row["mse"] = error(meta, test)
        if meta.task_sampler_ is not None:
            shares = meta.task_sampler_.probabilities_
            row["relevant"] = float(shares[: len(relevant)].sum())
        print(seed, name, row, flush=True)
    return found


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [FIRST_SEED + i for i in range(options.seeds)]
    runs = [run(seed) for seed in seeds]
    record(
        "task_sampling",
        protocol=f"8 sources of {N_PER_SOURCE} tasks, 2 of them relevant, "
        f"{N_VALIDATION} validation tasks, {N_SHOTS} rows of {N_TEST} new tasks, mean "
        "squared error",
        seeds=seeds,
        results={
            name: {key: [r[name][key] for r in runs] for key in row}
            for name, row in runs[0].items()
        },
    )


if __name__ == "__main__":
    main()
