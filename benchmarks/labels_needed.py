"""How well the number of labels that a score takes is foretold for new tasks.

Usage::

    python benchmarks/labels_needed.py                      # everything, five splits
    python benchmarks/labels_needed.py --data london        # the others stay

`shot_curve` cross-validates over the training tasks. The wanted score is the mean score
that held-out tasks reach with k rows, by a learner fitted on all training tasks, for k
of 5, 8, 15 and 20; `labels_needed` of the curve should answer k. The curve is measured
up to 10 rows, so that 15 and 20 are foretold from fewer, or up to 25.

Half of the groups of the real tables that have more than 30 rows are held out;
generated tasks are 200 (classes: 100) to learn from and 400 held out. "told" is the
share of the splits in which the 90 % interval lies within a factor of two: only there
does the method say that it knows. Beside it the answers of two others: "power law" goes
on beyond the curve by ``plateau - gain * (1 + k) ** -power``, and "same tasks" asks the
curve, up to 25 rows, of half of the held-out tasks for the score of the other half. Its
error is that of a mean over so few tasks, and has nothing to do with foretelling.
"""

import argparse
import time

import numpy as np
from _ledger import load as load_ledger
from _ledger import record
from scipy.optimize import nnls
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from skmeta import HierarchicalClassifier, HierarchicalRegressor, PerTask
from skmeta.datasets import make_regression_tasks, make_sinusoid_tasks
from skmeta.model_selection import shot_curve

SHOTS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 25)
UP_TO, TRUE = (10, 25), (5, 8, 15, 20)
PROTOCOL = (
    "Rows foretold by a cross-validated curve of training tasks for the mean score "
    "that held-out tasks reach with k rows: errors relative to k. Told is the share of "
    "splits in which the 90 % interval lies within a factor of two"
)
BAR = 0.25


def generated(n_train=200, **options):
    """Linear tasks of 60 rows."""

    def split(seed):
        tasks = make_regression_tasks(n_train + 400, 60, random_state=seed, **options)
        return tasks[:n_train], tasks[n_train:]

    return split


def classes(seed):
    """Two classes, of a linear function with noise."""
    parts = generated(100, n_features=4)(seed)
    return [[(X, (y > 0).astype(int)) for X, y in part] for part in parts]


def sinusoids(seed):
    """Waves with noise."""
    tasks = make_sinusoid_tasks(600, 60, noise=0.5, random_state=seed)
    return tasks[:200], tasks[200:]


def table(name):
    """Groups of a real table that have rows left to be judged."""

    def split(seed):
        from grouped_tables import load

        rows = load(name)[0]
        groups = [rows.groups == g for g in np.unique(rows.groups)]
        tasks = [(rows.X[g], rows.y[g]) for g in groups if g.sum() > SHOTS[-1] + 5]
        order = np.random.default_rng(seed).permutation(len(tasks))
        half = len(tasks) // 2
        return [tasks[t] for t in order[:half]], [tasks[t] for t in order[half:]]

    return split


def splines():
    return make_pipeline(
        PerTask(SplineTransformer(8, degree=3)), HierarchicalRegressor()
    )


DATA = {
    "generated, 3 features": (generated(n_features=3), HierarchicalRegressor),
    "generated, 5 features": (generated(), HierarchicalRegressor),
    "generated, 20 features": (
        generated(n_features=20, noise=2.0),
        HierarchicalRegressor,
    ),
    "generated, alike": (generated(between=0.4), HierarchicalRegressor),
    "generated, classes": (classes, HierarchicalClassifier),
    "sinusoids with noise": (sinusoids, splines),
    "hsb82": (table("hsb82"), HierarchicalRegressor),
    "london": (table("london"), HierarchicalRegressor),
    "parkinson_with_time": (table("parkinson_with_time"), HierarchicalRegressor),
    "parkinson_without_time": (table("parkinson_without_time"), HierarchicalRegressor),
}


def upto(curve, n_shots, tasks=slice(None)):
    """The curve as if no more rows, or fewer tasks, had been measured."""
    keep = curve.shots <= n_shots
    scores = curve.scores[keep][..., tasks]
    return type(curve)(curve.shots[keep], scores, None, curve.scoring)


def power_law(curve, wanted):
    """Rows that a wanted score takes by a power law, where the curve ends below it."""
    means = curve.per_task.mean(axis=1)
    if wanted <= means.max():
        return curve.labels_needed(wanted, n_boot=1)[0]
    low, (smallest, found) = means.min(), (np.inf, np.inf)
    for power in np.linspace(0.1, 2.0, 39):
        fall = (1.0 + curve.shots) ** -power
        (start, gain), error = nnls(np.column_stack([fall**0, 1 - fall]), means - low)
        if error < smallest:
            below = low + start + gain - wanted
            found = (gain / below) ** (1 / power) - 1 if below > 0 else np.inf
            smallest = error
    return found if found <= 4 * (1 + curve.shots[-1]) else np.inf


def one_split(name, seed):
    """Answers for every curve and true number, as rows of a table."""
    split, make = DATA[name]
    train, test = split(seed)
    options = {"shots": SHOTS, "baseline": None, "random_state": seed}
    curve = shot_curve(make(), train, **options)
    truth = shot_curve(make().fit(train), test, cv="prefit", **options)
    halves = slice(0, None, 2), slice(1, None, 2)
    found = []
    for true in TRUE:
        scores = truth.per_task[truth.shots == true][0]
        same = upto(truth, SHOTS[-1], halves[0])
        same = same.labels_needed(scores[halves[1]].mean(), n_boot=1)[0]
        for n_shots in UP_TO:
            known = upto(curve, n_shots)
            answer = known.labels_needed(scores.mean())
            law = power_law(known, scores.mean())
            found.append((n_shots, true, *answer, law, same))
    return found


def judge(name, n_shots, true, rows):
    """Errors relative to the true number, and what the interval said."""
    k, low, high, law, same = np.array(rows).T
    told = (0 < low) & (high <= 2 * low)
    error = np.abs(k / true - 1)
    return {
        "data": name,
        "curve": f"to {n_shots} rows",
        "k": true,
        "foretold": [_rounded(value, 1) for value in k],
        "low": [_rounded(value, 1) for value in low],
        "high": [_rounded(value, 1) for value in high],
        "median error": _rounded(np.median(error)),
        "within 25 %": _rounded(np.mean(error <= BAR)),
        "told": _rounded(told.mean()),
        "of them within 25 %": _rounded(np.mean(error[told] <= BAR))
        if told.any()
        else "-",
        "covered by 90 %": _rounded(np.mean((low <= true) & (true <= high))),
        "power law, median error": _rounded(np.median(np.abs(law / true - 1))),
        "same tasks, median error": _rounded(np.median(np.abs(same / true - 1))),
    }


def _rounded(value, digits=2):
    return round(float(value), digits) if np.isfinite(value) else "inf"


def run(name, n_seeds):
    """Results of a data set."""
    start = time.process_time()
    found = [row for seed in range(n_seeds) for row in one_split(name, seed)]
    seconds = round((time.process_time() - start) / n_seeds, 1)
    results = []
    for n_shots in UP_TO:
        for true in TRUE:
            rows = [row[2:] for row in found if row[:2] == (n_shots, true)]
            row = judge(name, n_shots, true, rows)
            results.append(row | {"splits": n_seeds, "CPU s a split": seconds})
            print(results[-1], flush=True)
    return results


def main():
    """Run, print, write the ledger after each data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=[*DATA])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for name in options.data:
        results = run(name, options.seeds)
        old = (load_ledger("labels_needed") or {"results": []})["results"]
        rows = [row for row in old if row["data"] != name] + results
        rows.sort(key=lambda row: list(DATA).index(row["data"]))
        record("labels_needed", protocol=PROTOCOL, results=rows)


if __name__ == "__main__":
    main()
