"""Neural processes and deep kernels: how likely are the values of a new function?

Functions of two known distributions: draws of a Gaussian process, and sinusoids of
random amplitude and phase (Finn et al. 2017), both with noise. Every learner adapts to
the same few points of the same new functions, and is judged by the log-density that it
gives to other points, one by one. For draws of a Gaussian process, the posterior under
the true kernel is the best there is. For sinusoids it is the true posterior too, by
quadrature over amplitude and phase.

Rates and sizes were chosen on functions of other seeds than those judged here.

    python benchmarks/neural_process.py
    python benchmarks/neural_process.py --develop
"""

import argparse
import time

import numpy as np
import torch
from _ledger import record
from scipy.special import logsumexp
from sklearn.gaussian_process.kernels import RBF
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from skmeta import (
    AttentiveNPRegressor,
    CNPRegressor,
    ConvCNPRegressor,
    DeepKernelRegressor,
    RidgeHeadRegressor,
)
from skmeta.datasets import make_sinusoid_tasks
from skmeta.modules import MLP

NOISE, LENGTH, X_RANGE = 0.1, 0.6, (-3.0, 3.0)
SHOTS, N_QUERIES, N_TRAIN, N_TEST = (3, 10), 50, 4_000, 300
N_STEPS = 2_000
TRUTH = "true posterior"


# -------------------------------------------------------------------------- functions
def gp_tasks(n_tasks, n_samples, seed):
    """Draws of a Gaussian process with an RBF kernel, and noise."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(*X_RANGE, size=(n_tasks, n_samples, 1))
    kernel, noise = RBF(LENGTH), NOISE**2 * np.eye(n_samples)
    return [
        (x, np.linalg.cholesky(kernel(x) + noise) @ rng.normal(size=n_samples))
        for x in X
    ]


def sinusoid_tasks(n_tasks, n_samples, seed):
    return make_sinusoid_tasks(n_tasks, n_samples, noise=NOISE, random_state=seed)


def log_normal(y, mean, std):
    return -0.5 * (((y - mean) / std) ** 2 + np.log(2 * np.pi * std**2))


def gp_posterior(X, y, X_query):
    """Mean and deviation of a new observation under the true kernel."""
    kernel = RBF(LENGTH)
    factor = np.linalg.cholesky(kernel(X) + NOISE**2 * np.eye(len(X)))
    cross = np.linalg.solve(factor, kernel(X, X_query))
    mean = cross.T @ np.linalg.solve(factor, y)
    return mean, np.sqrt(1 + NOISE**2 - np.square(cross).sum(axis=0))


def gp_truth(X, y, X_query, y_query):
    return log_normal(y_query, *gp_posterior(X, y, X_query))


def sinusoid_truth(X, y, X_query, y_query, n=(400, 400)):
    """Log-density by quadrature over the uniform prior of amplitude and phase."""
    height = (0.1 + 4.9 * (np.arange(n[0]) + 0.5) / n[0])[:, None]
    shift = (np.pi * (np.arange(n[1]) + 0.5) / n[1])[None]

    def log_likelihood(x, value):
        return log_normal(value, height * np.sin(x - shift), NOISE)

    weight = sum(log_likelihood(*row) for row in zip(X[:, 0], y, strict=True))
    weight -= logsumexp(weight)
    # Most of the grid has no weight worth adding.
    near = weight > weight.max() - 25
    height, shift = (np.broadcast_to(v, n)[near] for v in (height, shift))
    found = log_likelihood(X_query, y_query[:, None])
    return logsumexp(weight[near] + found, axis=1)


WORLDS = {
    "Gaussian process": (gp_tasks, gp_truth),
    "sinusoids": (sinusoid_tasks, sinusoid_truth),
}


# --------------------------------------------------------------------------- learners
def net(module, n_steps, lr, **params):
    return NeuralNet(
        module,
        nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        batch_size=16,
        max_epochs=n_steps // 100,
        train_split=None,
        verbose=0,
        callbacks=[LRScheduler(CosineAnnealingLR, T_max=n_steps, step_every="batch")],
        **params,
    )


def learners(seed, n_steps):
    """Name: estimator; the attentive and the convolutional cost more for each step."""
    episode = {
        "n_shots": SHOTS,
        "n_queries": 20,
        "n_episodes": 1600,
        "random_state": seed,
    }
    relu = {"module__hidden": (64, 64), "module__activation": nn.ReLU}
    tanh = {"module__hidden": (64, 64), "module__activation": nn.Tanh}
    return {
        "CNPRegressor": CNPRegressor(
            net(MLP, 2 * n_steps, 2e-3, **relu), width=128, **episode
        ),
        "AttentiveNPRegressor": AttentiveNPRegressor(
            net(MLP, n_steps, 2e-3, **relu), width=128, **episode
        ),
        "ConvCNPRegressor": ConvCNPRegressor(
            net(nn.Identity, n_steps // 2, 3e-3), **episode
        ),
        "DeepKernelRegressor": DeepKernelRegressor(
            net(MLP, n_steps, 3e-3, **tanh), **episode
        ),
        "RidgeHeadRegressor (ALPaCA)": RidgeHeadRegressor(
            net(MLP, n_steps, 3e-3, **tanh), **episode
        ),
    }


# ---------------------------------------------------------------------------- judging
def stacked(tasks):
    return tuple(np.stack([task[i] for task in tasks]) for i in (0, 1))


def log_density(meta, X, y, n_shots):
    """Mean log-density of the query rows of every function, all adapted at once."""
    ids = np.array([f"new {i}" for i in range(len(X))])
    rows, queries = slice(n_shots), slice(max(SHOTS), None)
    groups = np.repeat(ids, n_shots)
    meta.adapt(X[:, rows].reshape(-1, 1), y[:, rows].ravel(), groups=groups)
    groups = np.repeat(ids, N_QUERIES)
    query = X[:, queries].reshape(-1, 1)
    mean, std = meta.predict(query, groups=groups, return_std=True)
    found = log_normal(y[:, queries].ravel(), mean, std)
    return found.reshape(len(X), -1).mean(axis=1)


def true_density(truth, X, y, n_shots):
    rows, queries = slice(n_shots), slice(max(SHOTS), None)
    return np.array(
        [
            truth(x[rows], v[rows], x[queries], v[queries]).mean()
            for x, v in zip(X, y, strict=True)
        ]
    )


def run(world, seeds, n_steps, first_seed, n_test=N_TEST):
    """Log-density by learner and number of shots, for each seed, and CPU seconds."""
    make, truth = WORLDS[world]
    found, seconds = {}, {}
    X, y = stacked(make(n_test, max(SHOTS) + N_QUERIES, first_seed + 1_000))
    for k in SHOTS:
        found[TRUTH, k] = [true_density(truth, X, y, k)] * len(seeds)
    for seed in seeds:
        tasks = make(N_TRAIN, max(SHOTS) + 20, first_seed + seed)
        for name, meta in learners(seed, n_steps).items():
            start = time.process_time()
            meta.fit(tasks)
            seconds.setdefault(name, []).append(time.process_time() - start)
            for k in SHOTS:
                value = log_density(meta, X, y, k)
                found.setdefault((name, k), []).append(value)
            shown = {k: round(found[name, k][-1].mean(), 3) for k in SHOTS}
            print(world, seed, name, shown, f"{seconds[name][-1]:.0f} s", flush=True)
    return found, seconds


def summary(found, seconds):
    results = {}
    for (name, k), values in found.items():
        values = np.array(values)
        gap = np.array(found[TRUTH, k]) - values
        row = results.setdefault(name, {"cpu_seconds": np.mean(seconds.get(name, 0.0))})
        row[f"{k} shots"] = {
            "log_density": values.mean(),
            "interval": 1.96 * values.mean(axis=0).std(ddof=1) / len(gap[0]) ** 0.5,
            "below_truth": gap.mean(),
            "below_truth_interval": 1.96
            * gap.mean(axis=0).std(ddof=1)
            / len(gap[0]) ** 0.5,
            "by_seed": values.mean(axis=1).tolist(),
        }
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--develop", action="store_true", help="functions of its own")
    parser.add_argument("--steps", type=int, default=N_STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for world in WORLDS:
        if args.develop:
            found, _ = run(world, [0], args.steps, 50_000, 100)
            print({k: round(found[TRUTH, k][0].mean(), 3) for k in SHOTS})
            continue
        results[world] = summary(*run(world, [0, 1, 2], args.steps, 0))
    if args.develop:
        return
    record(
        "neural_process",
        protocol=f"{N_TEST} new functions, {N_QUERIES} query points each, noise of "
        f"deviation {NOISE}; mean log-density of a query point",
        seeds=[0, 1, 2],
        results=results,
    )


if __name__ == "__main__":
    main()
