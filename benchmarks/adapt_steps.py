"""Number of gradient steps in `adapt`: that of training, or what fit found to work.

The same trained learner adapts to the same 1 to 20 rows of the same new tasks, with as
many steps as in training and with ``adapt_steps="auto"``; other rows of these tasks are
judged. Sinusoids of Finn et al. (2017), and pupils by school. No task is spared for
validation, so that "auto" judges on training tasks. Its rule was made with seeds 0 to
4; these are others.

    python benchmarks/adapt_steps.py
"""

import numpy as np
import torch
from _ledger import record
from grouped_tables import load
from scipy.stats import t as student
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import StandardScaler

from skmeta import MAMLRegressor, ReptileRegressor
from skmeta.datasets import make_sinusoid_tasks
from skmeta.exceptions import DivergenceError

SEEDS = (10, 11, 12, 13, 14)
SHOTS, N_SUPPORT = (1, 2, 5, 10, 20), 20
SETTINGS = (
    ("sinusoids", MAMLRegressor),
    ("sinusoids", ReptileRegressor),
    ("london", MAMLRegressor),
    ("hsb82", MAMLRegressor),
)


def split(data, seed):
    """Training and new tasks, rows in random order."""
    if data == "sinusoids":
        tasks = make_sinusoid_tasks(600, 40, random_state=seed)
        return tasks[:500], tasks[500:]
    table, _ = load(data)
    X, y, school = table.X, table.y, table.groups
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(school == s)) for s in np.unique(school)]
    parts = next(ShuffleSplit(1, test_size=0.3, random_state=seed).split(rows))
    train, test = ([rows[i] for i in part] for part in parts)
    X = StandardScaler().fit(X[np.concatenate(train)]).transform(X)
    test = [r for r in test if len(r) > N_SUPPORT + 5]
    return [(X[r], y[r]) for r in train], [(X[r], y[r]) for r in test]


def errors(meta, tasks, n_shots):
    """Mean squared error of each task after so many rows; infinite for divergence."""
    support = [(X[:n_shots], y[:n_shots]) for X, y in tasks]
    X, y = (np.concatenate(parts) for parts in zip(*support, strict=True))
    try:
        meta.adapt(X, y, groups=np.repeat(np.arange(len(tasks)), n_shots))
    except DivergenceError:
        return np.full(len(tasks), np.inf)
    found = []
    for t, (X, y) in enumerate(tasks):
        rest = X[N_SUPPORT:]
        difference = meta.predict(rest, groups=np.full(len(rest), t)) - y[N_SUPPORT:]
        found.append(np.mean(difference**2))
    return np.array(found)


def run(data, learner):
    """A row of the table for each number of shots."""
    cells = {n: [] for n in SHOTS}
    for seed in SEEDS:
        train, test = split(data, seed)
        meta = learner(
            n_shots=10,
            n_queries=10,
            n_episodes=400,
            adapt_steps="auto",
            random_state=seed,
        ).fit(train)
        table = meta.adapt_steps_
        for n in SHOTS:
            plain, auto = (
                errors(meta.set_params(adapt_steps=steps), test, n).mean()
                for steps in (None, "auto")
            )
            nearest = min(table, key=lambda known: abs(np.log(known / n)))
            cells[n].append((plain, auto, table[nearest]))
    for n, cell in cells.items():
        plain, auto, steps = np.transpose(cell)
        both = np.isfinite(plain) & np.isfinite(auto)
        gain, gains = (plain - auto)[both], "-"
        if len(gain) > 1:
            half = student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1)
            gains = f"{gain.mean():+.3g} ± {half / len(gain) ** 0.5:.2g}"
        row = {
            "data": data,
            "learner": learner.__name__,
            "rows": n,
            "steps of training": f"{plain.mean():.4g}",
            "auto": f"{auto.mean():.4g}",
            "auto gains": gains,
            "diverging seeds": f"{np.isinf(plain).sum()}, {np.isinf(auto).sum()}",
            "steps taken": " ".join(f"{count:.0f}" for count in steps),
        }
        print(row, flush=True)
        yield row


def main():
    """Run, print, write the ledger."""
    torch.set_num_threads(1)
    record(
        "adapt_steps",
        protocol="Mean squared error after so many rows of a new task, mean of "
        f"{len(SEEDS)} seeds; 5 steps in training. Gains on the same tasks and rows "
        "with 95 % intervals over seeds where neither diverges; seeds in which steps "
        "of training, and of auto, diverge; and the steps that each seed took.",
        seeds=SEEDS,
        results=[r for setting in SETTINGS for r in run(*setting)],
    )


if __name__ == "__main__":
    main()
