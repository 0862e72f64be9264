"""Support rows with wrong labels: uniform, robust and learned weights of rows.

Usage::

    python benchmarks/label_noise.py [--data generated vehicle ...] [--seeds 3]

30 % of the tasks are held out. A share of the labels of their 20 support rows is
exchanged for another class; their other rows are judged by their true labels. All three
see the same tasks, rows and wrong labels. Training labels are right, but for
"a third mislabelled", where in one task of three, new ones included, 40 % of all labels
are wrong. Tasks of real tables are clusters of their rows.
"""

import argparse

import numpy as np
from _ledger import record
from pooling_guard import load_table
from sklearn.model_selection import ShuffleSplit

from skmeta import HierarchicalClassifier
from skmeta.datasets import make_regression_tasks

DATA = ("generated", "a third mislabelled", "vehicle", "credit_g")
SHARES = (0.0, 0.2, 0.4)
WEIGHTINGS = ("uniform", "robust", "learned")
N_SUPPORT = 20


def load(name, seed):
    """Tasks of more rows than are support, in random order of rows."""
    rng = np.random.default_rng(seed)
    if name in DATA[:2]:
        tasks = make_regression_tasks(150, 50, 4, random_state=seed)
        return [(X, (y > 0).astype(int)) for X, y in tasks]
    X, y, groups = load_table(name)
    rows = [rng.permutation(np.flatnonzero(groups == g)) for g in np.unique(groups)]
    return [(X[r], y[r]) for r in rows if len(r) > N_SUPPORT + 10]


def mislabelled(y, classes, share, rng):
    """A share of the labels, each exchanged for another class."""
    step = rng.integers(1, len(classes), len(y)) * (rng.random(len(y)) < share)
    return classes[(np.searchsorted(classes, y) + step) % len(classes)]


def episodes(name, share, seed):
    """Training tasks, and support and query of each new one."""
    tasks, rng = load(name, seed), np.random.default_rng(seed)
    classes = np.unique(np.concatenate([y for _, y in tasks]))
    split = ShuffleSplit(1, test_size=0.3, random_state=seed)
    train, test = next(split.split(tasks))
    if name == DATA[1]:
        wrong = {i: share * (n % 3 == 0) for part in (train, test)
                 for n, i in enumerate(part)}  # fmt: skip
    else:
        wrong = dict.fromkeys(train, 0.0) | dict.fromkeys(test, share)
    noisy = {i: mislabelled(tasks[i][1], classes, wrong[i], rng) for i in wrong}
    n = N_SUPPORT
    return [(tasks[i][0], noisy[i]) for i in train], [
        (tasks[i][0][:n], noisy[i][:n], tasks[i][0][n:], tasks[i][1][n:]) for i in test
    ]


def accuracies(name, share, seed):
    """Accuracy of each weighting in each new task, and the share that was learned."""
    train, test = episodes(name, share, seed)
    scores = []
    for weighting in WEIGHTINGS:
        meta = HierarchicalClassifier(
            sample_weighting=weighting, n_shots=N_SUPPORT // 2
        ).fit(train)
        scores.append([np.mean(meta.adapt(*s).predict(X) == y) for *s, X, y in test])
    return np.array(scores), meta.random_share_


def run(name, share, n_seeds):
    """A row of the table."""
    scores, learned = zip(
        *(accuracies(name, share, seed) for seed in range(n_seeds)), strict=True
    )
    scores = 100 * np.hstack(scores)
    row = {"data": name, "wrong labels": f"{100 * share:.0f} %"}
    row |= {w: round(s.mean(), 1) for w, s in zip(WEIGHTINGS, scores, strict=True)}
    for weighting, score in zip(WEIGHTINGS[1:], scores[1:], strict=True):
        gain = score - scores[0]
        half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
        row[f"{weighting} gains"] = f"{gain.mean():+.1f} ± {half:.1f}"
    row |= {"random share learned": round(np.mean(learned), 2)}
    row["test tasks"] = scores.shape[1]
    print(row, flush=True)
    return row


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    record(
        "label_noise",
        protocol="Accuracy in %, HierarchicalClassifier, "
        f"{N_SUPPORT} support rows of each new task, {options.seeds} splits; gains are "
        "paired over test tasks, with 95 % intervals.",
        seeds=[*range(options.seeds)],
        results=[
            run(name, share, options.seeds)
            for name in options.data
            for share in SHARES
            if share or name != DATA[1]
        ],
    )


if __name__ == "__main__":
    main()
