"""Sinusoids: mean squared error after five and ten points of a new wave.

Amplitude U[0.1, 5], phase U[0, pi], x U[-5, 5], as in Finn et al. (2017). Every method
adapts to the same 10 points (then 5) of the same 1,000 new waves and is judged on 100
others of each. Gradient steps that are too long for the points of a wave diverge: waves
with an error above 100, four times what the largest of them is worth, are counted and
left out of the mean.

Rates and depths were chosen on waves of another seed than those judged here.

    python benchmarks/sinusoid.py
"""

import argparse
import time

import numpy as np
import torch
from _ledger import record
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.metrics import mean_squared_error
from skorch import NeuralNet
from torch import nn

from skmeta import (
    MAMLRegressor,
    MultiTaskRegressor,
    ReptileRegressor,
    RidgeHeadRegressor,
    TransferRegressor,
)
from skmeta.datasets import make_sinusoid_tasks
from skmeta.modules import MLP

N_TRAIN, N_TEST, N_QUERIES = 20_000, 1_000, 100
DIVERGED = 100.0


def net(n_steps, lr, hidden=(40, 40), batch_size=25, activation=nn.ReLU, **params):
    return NeuralNet(
        MLP,
        nn.MSELoss,
        module__hidden=hidden,
        module__activation=activation,
        optimizer=torch.optim.Adam,
        lr=lr,
        batch_size=batch_size,
        max_epochs=n_steps // 100,
        train_split=None,
        verbose=0,
        **params,
    )


def cosine(n_steps):
    """The rate falls to zero along a half cosine."""
    from skorch.callbacks import LRScheduler
    from torch.optim.lr_scheduler import CosineAnnealingLR

    return [LRScheduler(CosineAnnealingLR, T_max=n_steps, step_every="batch")]


def ridge(seed, n_steps=5000):
    return RidgeHeadRegressor(
        net(
            n_steps,
            1e-2,
            (64, 64, 64),
            activation=nn.Tanh,
            callbacks=cosine(n_steps),
        ),
        n_shots=10,
        n_queries=10,
        n_episodes=2500,
        random_state=seed,
    )


def maml(seed, n_steps=6000, **params):
    return MAMLRegressor(
        net(n_steps, 3e-3, callbacks=cosine(n_steps)),
        inner_lr=0.05,
        inner_steps=1,
        n_shots=10,
        n_queries=10,
        n_episodes=2500,
        random_state=seed,
        **params,
    )


def meta_sgd(seed, n_steps=6000):
    return maml(seed, n_steps).set_params(inner_lr="learned")


def reptile(seed, n_steps=6000):
    return ReptileRegressor(
        net(n_steps, 1e-3),
        inner_lr=0.02,
        inner_steps=10,
        adapt_steps=50,
        n_shots=10,
        n_queries=10,
        n_episodes=2500,
        random_state=seed,
    )


def rows_net(n_epochs):
    """A net that sees rows instead of episodes."""
    return net(100 * n_epochs, 3e-3, batch_size=256)


def transfer(seed):
    return TransferRegressor(rows_net(5), random_state=seed)


def multi_task(seed):
    return MultiTaskRegressor(rows_net(5), random_state=seed)


METHODS = {
    "RidgeHeadRegressor": (ridge, {}),
    "MAMLRegressor, 1 step": (maml, {}),
    "MAMLRegressor, 10 steps": (maml, {"adapt_steps": 10}),
    "MAMLRegressor first order, 1 step": (
        lambda seed: maml(seed, first_order=True),
        {},
    ),
    "MAMLRegressor learned rates, 1 step": (meta_sgd, {}),
    "ReptileRegressor, 50 steps": (reptile, {}),
    "TransferRegressor": (transfer, {}),
    "MultiTaskRegressor": (multi_task, {}),
}


def test_waves(n_shots):
    tasks = make_sinusoid_tasks(N_TEST, n_shots + N_QUERIES, random_state=987)
    X = np.stack([task.X for task in tasks])
    y = np.stack([task.y for task in tasks])
    return X[:, :n_shots], y[:, :n_shots], X[:, n_shots:], y[:, n_shots:]


def errors(meta, waves):
    """Mean squared error of every new wave, all adapted in one call."""
    X, y, X_query, y_query = waves
    ids = np.arange(N_TEST)
    groups = [f"new {i}" for i in np.repeat(ids, X.shape[1])]
    meta.adapt(X.reshape(-1, 1), y.ravel(), groups=groups)
    groups = [f"new {i}" for i in np.repeat(ids, N_QUERIES)]
    found = meta.predict(X_query.reshape(-1, 1), groups=groups)
    return np.square(found.reshape(y_query.shape) - y_query).mean(axis=1)


def gaussian_process(waves):
    """A Gaussian process fitted to each new wave alone, hyper-parameters included."""
    kernel = ConstantKernel(5.0) * RBF(1.5)
    X, y, X_query, y_query = waves
    return np.array(
        [
            mean_squared_error(
                y_query[i],
                GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=None)
                .fit(X[i], y[i])
                .predict(X_query[i]),
            )
            for i in range(len(X))
        ]
    )


def summary(values):
    values = np.ravel(values)
    diverged = ~(values < DIVERGED)
    values = values[~diverged]
    return {
        "mse": values.mean(),
        "interval": 1.96 * values.std(ddof=1) / values.size**0.5,
        "diverged": int(diverged.sum()),
        "n_waves": len(diverged),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    waves = {k: test_waves(k) for k in (5, 10)}
    found, seconds, fitted = {}, {}, {}
    for seed in range(args.seeds):
        tasks = make_sinusoid_tasks(N_TRAIN, 20, random_state=seed)
        for name, (build, changes) in METHODS.items():
            start = time.process_time()
            if (build, seed) not in fitted:
                fitted[build, seed] = build(seed).fit(tasks)
                seconds.setdefault(name, []).append(time.process_time() - start)
            meta = fitted[build, seed].set_params(**changes)
            for k, new in waves.items():
                found.setdefault((name, k), []).append(errors(meta, new))
            print(seed, name, {k: round(found[name, k][-1].mean(), 4) for k in waves})
    results = {
        name: {f"{k} shots": summary(found[name, k]) for k in waves}
        | {"cpu_seconds": float(np.mean(seconds[name])) if name in seconds else None}
        for name in METHODS
    }
    results["Gaussian process of each wave alone"] = {
        f"{k} shots": summary(gaussian_process(new)) for k, new in waves.items()
    }
    results["mean of the training targets"] = {
        f"{k} shots": summary(np.square(new[3]).mean(axis=1))
        for k, new in waves.items()
    }
    for name, row in results.items():
        print(name, row)
    record(
        "sinusoid",
        protocol=f"{N_TEST} new waves, {N_QUERIES} query points each",
        seeds=list(range(args.seeds)),
        results=results,
    )


if __name__ == "__main__":
    main()
