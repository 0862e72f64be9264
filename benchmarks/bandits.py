"""Contextual bandits: regret of a new task after 60 pulls, and off-policy intervals.

Ten arms and eight features, rewards of standard deviation about one without the noise.
The weights of every arm in a task are drawn around a common mean with a covariance of
rank two ("own"), or a few numbers of the task move the weights of all arms together,
rank three ("shared"). Every bandit is Thompson sampling with the posterior of Bayes'
rule; they differ in the prior: the true one, a flat one of the same mean size, or what
`MetaBandit` learns from logged tasks of 20 rows with random actions. All are played on
the same new tasks. How close the learned prior comes depends on the noise and on the
number of logged tasks, so both vary.

    python benchmarks/bandits.py
"""

import argparse
import itertools
import time

import numpy as np
from _ledger import record
from threadpoolctl import threadpool_limits

from skmeta.bandits import MetaBandit, off_policy_value

ARMS, FEATURES = 10, 8
ROWS, PULLS = 20, 60
NOISES, LOGGED = (0.1, 0.25, 0.5), (50, 200)


class World:
    """Where tasks come from."""

    def __init__(self, kind, noise, seed):
        rng = np.random.default_rng(seed)
        self.noise = noise
        n = ARMS * FEATURES
        if kind == "shared":
            self.mean = 0.3 * rng.normal(size=n)
            self.root = rng.normal(size=(n, 3)) / np.sqrt(3)
        else:
            self.mean = np.tile(0.3 * rng.normal(size=FEATURES), ARMS)
            root = rng.normal(size=(FEATURES, 2)) / np.sqrt(2)
            self.root = np.kron(np.eye(ARMS), root)

    def weights(self, rng):
        """Of all arms in a new task."""
        drawn = self.mean + self.root @ rng.normal(size=self.root.shape[1])
        return drawn.reshape(ARMS, FEATURES)

    @staticmethod
    def contexts(rng, n):
        return rng.normal(size=(n, FEATURES)) / np.sqrt(FEATURES)

    def log(self, n_tasks, rng):
        tasks = []
        for _ in range(n_tasks):
            X, weights = self.contexts(rng, ROWS), self.weights(rng)
            action = rng.integers(ARMS, size=ROWS)
            reward = (weights[action] * X).sum(1)
            reward += self.noise * rng.normal(size=ROWS)
            tasks.append((X, action, reward))
        return tasks


def regret(start, rank, world, seed, n_tasks):
    """Mean regret of Thompson sampling from a prior ``start``, by task.

    The prior is a mean (n_arms, p), a root (n_arms, p, rank), the noise, and a map from
    contexts to rows.
    """
    mean, root, noise, rows = start
    values = []
    for task in range(n_tasks):
        rng = np.random.default_rng([seed, task])
        weights = world.weights(rng)
        X, error = world.contexts(rng, PULLS), world.noise * rng.normal(size=PULLS)
        white = rng.normal(size=(PULLS, rank))[:, : root.shape[2]]
        Z, precision = rows(X), np.eye(root.shape[2])
        linear, total = np.zeros(root.shape[2]), 0.0
        for t in range(PULLS):
            chol = np.linalg.cholesky(precision)
            latent = np.linalg.solve(precision, linear)
            latent = latent + np.linalg.solve(chol.T, white[t])
            arm = int(np.argmax((mean + root @ latent) @ Z[t]))
            true = weights @ X[t]
            total += true.max() - true[arm]
            row = Z[t] @ root[arm]
            precision += np.outer(row, row) / noise[0]
            reward = noise[1](true[arm] + error[t])
            linear += row * (reward - Z[t] @ mean[arm]) / noise[0]
        values.append(total)
    return np.array(values)


def known(world, root):
    """A prior in the coordinates of the world."""
    root = root.reshape(ARMS, FEATURES, -1)
    mean, noise = world.mean.reshape(ARMS, FEATURES), (world.noise**2, float)
    return mean, root, noise, np.asarray


def learned(bandit):
    """The prior of a fitted `MetaBandit`, in its own coordinates."""
    core, design = bandit._prior_core, bandit._design
    root = core.factor.reshape(ARMS, FEATURES + 1, -1)
    noise = bandit.prior_.noise, design.encode
    return bandit.prior_.mean, root, noise, design.features


def regrets(kind, noise, seed, n_tasks):
    """Regret under every prior, and the seconds that learning took for each log."""
    world = World(kind, noise, seed)
    n = ARMS * FEATURES
    size = np.sqrt(np.square(world.root).sum() / n + np.square(world.mean).mean())
    flat = known(world, size * np.eye(n))
    priors = {
        "true prior": known(world, world.root),
        "flat prior": (np.zeros_like(flat[0]), *flat[1:]),
    }
    seconds = {}
    for n_logged in LOGGED:
        logged = world.log(n_logged, np.random.default_rng(seed + 1000))
        start = time.process_time()
        bandit = MetaBandit(random_state=seed).fit(logged)
        seconds[n_logged] = time.process_time() - start
        priors[f"learned from {n_logged}"] = learned(bandit)
    rank = ARMS * (FEATURES + 1)
    found = {k: regret(v, rank, world, seed, n_tasks) for k, v in priors.items()}
    return found, seconds


def coverage(method, n_runs, n_rows=500, level=0.9):
    """Share of intervals that hold the true value, model wrong by a fifth."""
    hits = 0
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        x, each = rng.random(n_rows), np.arange(n_rows)
        logged = np.column_stack([0.2 + 0.6 * x, 0.8 - 0.6 * x])
        judged = np.column_stack([0.9 - 0.7 * x, 0.1 + 0.7 * x])
        action = (rng.random(n_rows) < logged[:, 1]).astype(int)
        means = np.column_stack([x, 1 - x**2])
        reward = (rng.random(n_rows) < means[each, action]).astype(float)
        result = off_policy_value(
            reward,
            judged[each, action],
            logged[each, action],
            expected=0.8 * means[each, action],
            policy_expected=0.8 * (judged * means).sum(1),
            method=method,
            coverage=level,
        )
        truth = 0.9 / 2 - 0.7 / 3 + 0.1 + 0.7 / 2 - 0.1 / 3 - 0.7 / 4
        hits += result.low <= truth <= result.high
    return hits / n_runs


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    threadpool_limits(1)
    results = []
    for kind, noise in itertools.product(("own", "shared"), NOISES):
        runs = [
            regrets(kind, noise, seed, options.tasks) for seed in range(options.seeds)
        ]
        row = {"covariance": kind, "noise": noise}
        for name in runs[0][0]:
            values = [found[name].mean() for found, _ in runs]
            row[name] = {"mean": np.mean(values), "by_seed": values}
            ratios = [
                found[name].mean() / found["true prior"].mean() for found, _ in runs
            ]
            row[name]["over_true"] = np.mean(values) / row["true prior"]["mean"]
            row[name]["over_true_by_seed"] = ratios
        row["seconds"] = {n: [taken[n] for _, taken in runs] for n in LOGGED}
        print(row, flush=True)
        results.append(row)
    covered = {m: coverage(m, options.runs) for m in ("ips", "snips", "dr")}
    print(covered)
    record(
        "bandits",
        protocol=f"Regret after {PULLS} pulls, logged tasks of {ROWS} rows",
        seeds=list(range(options.seeds)),
        n_tasks=options.tasks,
        regret=results,
        interval_coverage={"level": 0.9, "runs": options.runs} | covered,
    )


if __name__ == "__main__":
    main()
