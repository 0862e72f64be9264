"""Learners that take gradient steps: time and memory of an outer step, and accuracy.

Two problems: 10 points of new sinusoids, by a perceptron of 2 x 40; and Omniglot in
14 x 14 pixels, five-way one-shot on the test alphabets of Vinyals, by one of 128 and
64. Every learner is judged twice in one training: after as many outer steps as all
others, and after as much processor time. Rates are the library's defaults, at inputs
of about unit size; nothing was tuned.

    python benchmarks/gradient_family.py

Needs ``omniglot28.npz`` in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _few_shot import adapted_accuracy, pool_sampler, stacked_episodes
from _ledger import record
from omniglot import load
from sinusoid import errors, test_waves
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

import skmeta
from skmeta.datasets import make_sinusoid_tasks
from skmeta.modules import MLP

SEEDS = [0, 1, 2]
N_STEPS, SECONDS = 500, 4.0
N_EPISODES, N_QUERIES = 400, 5
#: What the inputs of the sinusoids, in [-5, 5], are divided by.
SCALE = 2.5

#: Name: beginning of the estimator's, parameters.
LEARNERS = {
    "MAML": ("MAML", {}),
    "MAML, first order": ("MAML", {"first_order": True}),
    "ANIL": ("MAML", {"adapted": "head"}),
    "MAML, losses of all steps": ("MAML", {"multi_step_loss": N_STEPS // 2}),
    "MAML++": (
        "MAML",
        {
            "multi_step_loss": N_STEPS // 2,
            "first_order": N_STEPS // 4,
            "inner_lr": "per_layer",
        },
    ),
    "Meta-SGD": ("MAML", {"inner_lr": "learned"}),
    "Meta-Curvature": ("MAML", {"inner_lr": "curvature"}),
    "ALFA": ("MAML", {"inner_lr": "alfa"}),
    "CAVIA": ("CAVIA", {}),
    "implicit MAML": ("ImplicitMAML", {}),
    "Reptile": ("Reptile", {}),
    "closed-form ridge head": ("RidgeHead", {}),
}
#: Those whose rate is a number.
FIXED_RATE = ("MAML", "Reptile", "ImplicitMAML")


class Watch(Callback):
    """Times each outer step, and keeps the weights at so many steps and seconds.

    One step, after a few, is profiled instead: the most memory that its tensors hold.
    Training ends when both are reached.

    Parameters
    ----------
    n_steps : int
        Outer steps.
    seconds : float
        Processor time of outer steps.
    """

    _profiled = 5

    def __init__(self, n_steps, seconds):
        self.n_steps = n_steps
        self.seconds = seconds

    def on_train_begin(self, net, **kwargs):
        self.taken_, self.weights_ = [], {}
        self.spent_ = 0.0

    def on_batch_begin(self, net, training=False, **kwargs):
        if len(self.taken_) == self._profiled:
            self._profile = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
            )
            self._profile.start()
        self._start = time.process_time()

    def on_batch_end(self, net, training=False, **kwargs):
        taken = time.process_time() - self._start
        if len(self.taken_) == self._profiled:
            self._profile.stop()
            self.peak_ = peak_bytes(self._profile)
            taken = self.taken_[-1]
        self.taken_.append(taken)
        self.spent_ += taken
        for key, reached in (
            ("steps", len(self.taken_) >= self.n_steps),
            ("seconds", self.spent_ >= self.seconds),
        ):
            if reached and key not in self.weights_:
                self.weights_[key] = copy.deepcopy(net.module_.learner.state_dict())
                setattr(self, f"steps_at_{key}_", len(self.taken_))
        if len(self.weights_) == 2:
            raise KeyboardInterrupt  # how skorch's callbacks end training


def peak_bytes(profile):
    """The most that tensors made in the profiled time hold at once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]"
    )
    return max(np.cumsum([size for _, size in changes]).max(), 0)


def make(name, kind, hidden, criterion, **shared):
    """Estimator of that name; 1,000,000 epochs, since the callback ends training."""
    stem, params = LEARNERS[name]
    if stem in FIXED_RATE:
        params = {"inner_lr": 0.1} | params
    net = NeuralNet(
        MLP,
        criterion,
        module__hidden=hidden,
        module__activation=nn.ReLU,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=10**6,
        train_split=None,
        verbose=0,
        callbacks=[("watch", Watch(N_STEPS, SECONDS))],
        **{key: shared.pop(key) for key in ("batch_size",)},
    )
    return getattr(skmeta, f"{stem}{kind}")(net, n_episodes=4000, **params, **shared)


# ----------------------------------------------------------------------------- problems
class Sinusoids:
    """Mean squared error at 100 other points of 1,000 new waves."""

    figure = "mse"

    def __init__(self, seed):
        tasks = make_sinusoid_tasks(5000, 20, random_state=seed)
        self.tasks = [(task.X / SCALE, task.y) for task in tasks]
        X, y, X_query, y_query = test_waves(10)
        self.waves = X / SCALE, y, X_query / SCALE, y_query

    def fit(self, name, seed):
        meta = make(
            name,
            "Regressor",
            (40, 40),
            nn.MSELoss,
            n_shots=10,
            n_queries=10,
            batch_size=25,
            random_state=seed,
        )
        return meta.fit(self.tasks)

    def judge(self, meta):
        return errors(meta, self.waves)

    def baseline(self):
        """The mean of the support."""
        _, y, _, y_query = self.waves
        return "mean of the support", np.square(
            y_query - y.mean(axis=1, keepdims=True)
        ).mean(axis=1)


class Characters:
    """Accuracy in % in episodes of characters of other alphabets."""

    figure = "accuracy"

    def __init__(self, seed):
        self.X, self.y = small([0, 1])
        X, y = small([2])
        sampler = pool_sampler(X, y, 5, 1, N_QUERIES, 2026)
        self.episodes = stacked_episodes(sampler, N_EPISODES)

    def fit(self, name, seed):
        meta = make(
            name,
            "Classifier",
            (128, 64),
            nn.CrossEntropyLoss,
            n_ways=5,
            n_shots=1,
            n_queries=5,
            batch_size=8,
            random_state=seed,
        )
        return meta.fit(self.X, self.y)

    def judge(self, meta):
        return 100 * adapted_accuracy(meta, *self.episodes)

    def baseline(self):
        """The nearest support row."""
        Xs, ys, Xq, yq = self.episodes
        nearest = torch.cdist(*map(torch.from_numpy, (Xq, Xs))).argmin(2).numpy()
        found = np.take_along_axis(ys, nearest, axis=1)
        return "nearest support row", 100 * (found == yq).mean(axis=1)


def small(splits):
    """Images of 14 x 14 as rows, and their classes."""
    X, y = load(splits)
    return X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(X), -1), y


PROBLEMS = {"sinusoids, 10 shots": Sinusoids, "Omniglot 14 x 14, 5w1s": Characters}


# ----------------------------------------------------------------------------- the runs
def measure(problem, name, seed):
    """Cost of an outer step, and what is reached at both ends."""
    meta = problem.fit(name, seed)
    watch = dict(meta.net_.callbacks_)["watch"]
    row = {
        "milliseconds": 1e3 * np.median(watch.taken_),
        "megabytes": watch.peak_ / 1e6,
    }
    for key in ("steps", "seconds"):
        meta.learner_.load_state_dict(watch.weights_[key])
        row[f"at {key}"] = judged(problem, meta)
    row["steps_in_time"] = watch.steps_at_seconds_
    return row


def judged(problem, meta):
    """Figures of new tasks; NaN where training has ended in what cannot be adapted."""
    try:
        return problem.judge(meta)
    except skmeta.DivergenceError:
        return np.array([np.nan])


def summary(runs):
    """Mean over seeds, with the interval over their episodes and seeds."""
    row = {
        key: float(np.mean([run[key] for run in runs]))
        for key in ("milliseconds", "megabytes", "steps_in_time")
    }
    return row | {
        key: spread([run[key] for run in runs]) for key in ("at steps", "at seconds")
    }


def spread(values):
    """Figures of the seeds that did not diverge."""
    held = np.array([value for value in values if np.isfinite(value).all()])
    return {
        "mean": held.mean(),
        "interval": 1.96 * held.mean(axis=0).std(ddof=1) / held.shape[1] ** 0.5,
        "by_seed": held.mean(axis=1),
        "n_diverged": len(values) - len(held),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=[*LEARNERS])
    parser.add_argument("--develop", action="store_true", help="do not record")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results, start = {}, time.process_time()
    for title, kind in PROBLEMS.items():
        runs = {name: [] for name in args.learners}
        for seed in args.seeds:
            problem = kind(seed)
            for name in args.learners:
                runs[name].append(measure(problem, name, seed))
                told = {key: np.mean(value) for key, value in runs[name][-1].items()}
                print(
                    title,
                    seed,
                    name,
                    {k: round(v, 3) for k, v in told.items()},
                    flush=True,
                )
        name, values = problem.baseline()
        results[title] = {
            "figure": kind.figure,
            "learners": {name: summary(part) for name, part in runs.items()},
            "baseline": {"name": name, **spread([values])},
        }
    if not args.develop:
        record(
            "gradient_family",
            protocol=f"{N_STEPS:,} outer steps, or {SECONDS:g} CPU-seconds of them",
            seeds=args.seeds,
            cpu_seconds=time.process_time() - start,
            results=results,
        )


if __name__ == "__main__":
    main()
