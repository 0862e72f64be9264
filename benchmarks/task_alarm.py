"""How well tasks with wrong labels are told from ordinary ones.

Usage::

    python benchmarks/task_alarm.py                  # everything, five splits
    python benchmarks/task_alarm.py --data hsb82     # the others stay in the ledger

`TaskNovelty` with default parameters is fitted on 70 % of the groups; each of the
others is judged as it is and with wrong targets: "shuffled" among its own rows, or
"drawn" from the rows of all groups. Of each group k random rows are used. AUC of the
scores within a split, averaged over splits; the share of ordinary groups that raise an
alarm at alpha=0.05. Generated tasks have 60 for training and 60 to be judged.

"oracle" is the AUC of the best test there is, for shuffled targets of generated tasks:
the ratio of the likelihood that the true distribution of tasks gives to the targets as
they are, to the mean of that over 200 permutations. For real tables nobody knows that
distribution. There, "best of prior" is the AUC of the same test on targets that are
drawn for the same rows from the prior that `HierarchicalRegressor` learned of all
groups: what any alarm could reach if that prior were the truth.
"""

import argparse

import numpy as np
from _ledger import load as load_ledger
from _ledger import record
from grouped_tables import held_out, load
from scipy.special import log_ndtr, logsumexp
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from skmeta import HierarchicalRegressor
from skmeta.datasets import make_regression_tasks
from skmeta.model_selection import TaskNovelty
from skmeta.tasks._table import table_from_codes

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


def best_of_prior(meta, tasks, rng):
    """AUC of the likelihood ratio, of targets drawn from a prior and shuffled."""
    usual, wrong = [], []
    for X, _ in tasks:
        codes = np.zeros(len(X), dtype=int)
        table = table_from_codes(X, None, codes, ["new"])
        latent = meta._design_rows(table) @ meta.prior_.factor
        mean, std = meta.predict(X, groups=codes - 1, return_std=True)
        root = std[0] / np.sqrt(1 + np.square(latent[0]).sum())
        cov = root**2 * (latent @ latent.T + np.eye(len(X)))
        draw = multivariate_normal(mean, cov, allow_singular=True)
        y = draw.rvs(random_state=rng)
        for scores, targets in ((usual, y), (wrong, rng.permutation(y))):
            scores.append(log_ratio(targets, draw.logpdf, rng))
    return auc(usual, wrong)


def log_likelihoods(X, ys, mean, rng):
    """Of several targets of the same rows, by the true distribution of the tasks.

    Weights are normal around their mean, with variance one; so is the noise. Classes
    are the signs of the targets, and their likelihood a mean over 4,000 weights.
    """
    if ys.dtype.kind == "f":
        cov = X @ X.T + np.eye(len(X))
        return np.atleast_1d(multivariate_normal.logpdf(ys, X @ mean, cov))
    weights = mean + rng.standard_normal((4000, len(mean)))
    margin = weights @ X.T
    no, yes = log_ndtr(-margin), log_ndtr(margin)
    return logsumexp(yes @ ys.T + no @ (1 - ys).T, axis=0)


def log_ratio(y, log_likelihoods, rng, n_permutations=200):
    """Of the targets as they are to the mean of their permutations."""
    ys = np.array([y, *(rng.permutation(y) for _ in range(n_permutations))])
    found = log_likelihoods(ys)
    return found[0] - logsumexp(found[1:]) + np.log(n_permutations)


def oracle_scores(tasks, seed, rng):
    """Log-ratio of each task by the true distribution of the tasks."""
    # The first numbers that the generator draws.
    mean = np.random.RandomState(seed).standard_normal(tasks[0][0].shape[1])
    return [
        log_ratio(y, lambda ys, X=X: log_likelihoods(X, ys, mean, rng), rng)
        for X, y in tasks
    ]


def auc(usual, wrong):
    """Share of pairs in which the ordinary task has the higher score."""
    truth = np.arange(len(usual) + len(wrong)) < len(usual)
    return roc_auc_score(truth, np.append(usual, wrong))


def run(name, n_seeds):
    """Results for every number of rows."""
    found = {}
    for seed, (train, test) in enumerate(splits(name, n_seeds)):
        novelty = TaskNovelty(random_state=seed).fit(train)
        rng = np.random.default_rng(seed)
        everything = np.concatenate([y for _, y in test])
        whole = name in REAL and HierarchicalRegressor().fit([*train, *test])
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
                bound = np.nan
                if name in GENERATED and kind == "shuffled":
                    own = np.random.default_rng((seed, n_shots))
                    bound = auc(*(oracle_scores(t, seed, own) for t in (tasks, wrong)))
                elif kind == "shuffled":
                    own = np.random.default_rng((seed, n_shots))
                    bound = np.mean(
                        [best_of_prior(whole, tasks, own) for _ in range(9)]
                    )
                value = auc(usual, novelty.score_samples(wrong))
                found.setdefault((n_shots, kind), []).append((value, false, bound))
    results = []
    for (n_shots, kind), values in sorted(found.items()):
        mean, false, bound = np.mean(values, axis=0).round(3)
        row = {"data": name, "targets": kind, "k": n_shots, "auc": mean}
        row["oracle"] = row["best_of_prior"] = "-"
        if np.isfinite(bound):
            row["oracle" if name in GENERATED else "best_of_prior"] = bound
        row["auc_by_split"] = np.round([value[0] for value in values], 3).tolist()
        row["false_alarms"] = false
        results.append(row)
        print(
            f"{name:23} {kind:9} k={n_shots:<3} AUC {mean:.3f} best {bound:.3f} "
            f"false {false:.3f}",
            flush=True,
        )
    return results


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=[*GENERATED, *REAL])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    names = [*GENERATED, *REAL]
    for name in options.data:
        results = run(name, options.seeds)
        old = (load_ledger("task_alarm") or {"results": []})["results"]
        rows = [row for row in old if row["data"] != name] + results
        rows.sort(key=lambda row: names.index(row["data"]))
        record(
            "task_alarm",
            protocol="30 % of groups held out, or 60 of 120 generated tasks, k random "
            "rows; AUC of ordinary tasks against the same with wrong targets",
            results=rows,
        )


if __name__ == "__main__":
    main()
