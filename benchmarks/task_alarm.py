"""How well tasks with wrong labels are told from ordinary ones.

Usage::

    python benchmarks/task_alarm.py [--data hsb82 ...] [--seeds 5]

`TaskNovelty` with default parameters is fitted on 70 % of the groups; each of the
others is judged as it is and with wrong targets: "shuffled" among its own rows, or
"drawn" from the rows of all groups. Of each group k random rows are used. AUC of the
scores within a split, averaged over splits; the share of ordinary groups that raise an
alarm at alpha=0.05. Generated tasks have 60 for training and 60 to be judged.
"""

import argparse

import numpy as np
from _ledger import record
from grouped_tables import held_out, load
from sklearn.metrics import roc_auc_score

from skmeta.datasets import make_regression_tasks
from skmeta.model_selection import TaskNovelty

SHOTS = (5, 10, 20, 50)
GENERATED = ("generated", "generated_classes")
REAL = ("parkinson_with_time", "parkinson_without_time", "hsb82", "london")


def splits(name, n_seeds):
    """Yield training and test tasks as lists."""
    rows = None if name in GENERATED else load(name)[0]
    for seed in range(n_seeds):
        if rows is None:
            tasks = make_regression_tasks(120, 60, random_state=seed)
            if name == "generated_classes":
                tasks = [(X, (y > 0).astype(int)) for X, y in tasks]
            yield tasks[:60], tasks[60:]
        else:
            yield tuple(map(as_list, held_out(rows, seed)))


def as_list(rows):
    """Rows as one pair per group."""
    groups = [rows.groups == name for name in np.unique(rows.groups)]
    return [(rows.X[part], rows.y[part]) for part in groups]


def some_rows(tasks, n_shots, rng):
    """Random rows of the tasks that have as many."""
    drawn = [
        (X[part], y[part])
        for X, y in tasks
        if len(y) >= n_shots
        for part in [rng.permutation(len(y))[:n_shots]]
    ]
    return drawn


def run(name, n_seeds):
    """Results for every number of rows."""
    found = {}
    for seed, (train, test) in enumerate(splits(name, n_seeds)):
        novelty = TaskNovelty(random_state=seed).fit(train)
        rng = np.random.default_rng(seed)
        everything = np.concatenate([y for _, y in test])
        for n_shots in SHOTS:
            tasks = some_rows(test, n_shots, rng)
            if len(tasks) < 5:
                continue
            usual = novelty.score_samples(tasks)
            false = (novelty.p_values(tasks) <= novelty.alpha).mean()
            for kind in ("shuffled", "drawn"):
                wrong = [
                    (
                        X,
                        rng.permutation(y if kind == "shuffled" else everything)[
                            : len(y)
                        ],
                    )
                    for X, y in tasks
                ]
                scores = np.append(usual, novelty.score_samples(wrong))
                auc = roc_auc_score(np.arange(len(scores)) < len(usual), scores)
                found.setdefault((n_shots, kind), []).append((auc, false))
    results = []
    for (n_shots, kind), values in sorted(found.items()):
        auc, false = np.mean(values, axis=0).round(3)
        row = {"data": name, "targets": kind, "k": n_shots, "auc": auc}
        row["auc_by_split"] = np.round([a for a, _ in values], 3).tolist()
        row["false_alarms"] = false
        results.append(row)
        print(f"{name:23} {kind:9} k={n_shots:<3} AUC {auc:.3f} false {false:.3f}")
    return results


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[*GENERATED, *REAL])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    results = [row for name in options.data for row in run(name, options.seeds)]
    record("task_alarm", results=results)


if __name__ == "__main__":
    main()
