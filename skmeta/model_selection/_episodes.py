"""The same episodes of held-out tasks for every estimator."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from ..adapted import unwrap
from ..tasks._sampler import support_mask
from ._rows import HeldOut, TaskRows
from ._scoring import task_scores


@dataclass(frozen=True)
class Episodes:
    """How held-out tasks are split into support and query rows.

    Parameters
    ----------
    shots : tuple of int
        Support rows, of which all but one row of a task may be taken.
    n_draws : int
        Random supports of each task; one where `support` is "first".
    support : {"random", "first"}
        Random rows, or the first in row order.
    per_class : bool
        Whether shots are counted per class of the task.
    seed : int
        Seed of the draws. Fewer shots of a draw are part of its more shots.
    """

    shots: tuple
    n_draws: int
    support: str
    per_class: bool
    seed: int

    def masks(self, rows: TaskRows):
        """Yield shot and draw, both as positions, and the support rows."""
        labels = None
        if self.per_class:
            labels = np.unique(rows.y, return_inverse=True)[1]
        for draw in range(self.n_draws):
            for i, n_shots in enumerate(self.shots):
                seed = (self.seed, draw)
                mask = support_mask(
                    rows.codes, labels, n_shots, support=self.support, seed=seed
                )
                yield i, draw, mask

    def score(self, held_out: HeldOut, scoring, masks):
        """Scores of shape (n_shots, n_draws, n_tasks)."""
        n_tasks = held_out.rows.n_tasks
        scores = np.empty((len(self.shots), self.n_draws, n_tasks))
        for i, draw, mask in masks:
            meta = held_out.adapted(mask)
            query = held_out.take(~mask)
            scores[i, draw] = task_scores(meta, *query, n_tasks, scoring)
        return scores


def episodes(shots, n_draws, support, per_class, random_state, meta, rows) -> Episodes:
    """Checked description; `per_class="auto"` asks what the labels of `meta` mean."""
    shots = tuple(int(k) for k in np.atleast_1d(shots))
    if not shots or min(shots) < 0 or sorted(set(shots)) != list(shots):
        raise ValueError(
            f"shots must be increasing numbers of rows, at least 0; got {shots!r}."
        )
    if support not in ("random", "first"):
        raise ValueError(f"support must be 'random' or 'first', got {support!r}.")
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, got {n_draws!r}.")
    if per_class == "auto":
        per_class = is_classifier(meta) and labels_per_task(meta, rows)
    if isinstance(random_state, (int, np.integer)):
        seed = int(random_state)
    else:
        seed = int(check_random_state(random_state).randint(2**31))
    return Episodes(
        shots, 1 if support == "first" else n_draws, support, bool(per_class), seed
    )


def labels_per_task(meta, rows) -> bool:
    """Whether classes exist only inside their task, guessed as `fit` would."""
    space = getattr(meta, "label_space_", getattr(meta, "label_space", "auto"))
    if space != "auto":
        return space == "per_task"
    labels, codes = np.unique(rows.y, return_inverse=True)
    pairs = np.unique(rows.codes * len(labels) + codes)
    n_labels = np.bincount(pairs // len(labels), minlength=rows.n_tasks)
    return bool(np.median(n_labels) * 2 < len(labels))


def task_folds(cv, n_tasks, seed, shuffle=True):
    """Pairs of training and held-out task positions.

    Parameters
    ----------
    cv : int, splitter or iterable
        Number of folds, or anything that splits ``range(n_tasks)``.
    n_tasks : int
        Number of tasks.
    seed : int
        Of the shuffling, where `cv` is a number.
    shuffle : bool, default=True
        Whether to shuffle, where `cv` is a number.

    Returns
    -------
    list of (train, test)
        Positions.
    """
    if isinstance(cv, (int, np.integer)):
        if cv < 2 or cv > n_tasks:
            raise ValueError(
                f"{cv} folds over {n_tasks} tasks: the number of folds must be at "
                "least 2 and at most the number of tasks."
            )
        cv = KFold(cv, shuffle=shuffle, random_state=seed if shuffle else None)
    if hasattr(cv, "split"):
        cv = cv.split(np.arange(n_tasks))
    return [(np.asarray(train), np.asarray(test)) for train, test in cv]


def cross_evaluate(estimators, rows, plan, scoring, cv, n_jobs=None):
    """Few-shot scores of several estimators on the same episodes.

    Parameters
    ----------
    estimators : dict of str to estimator
        Meta-learners; cloned and fitted on the training tasks of each fold, or taken
        as they are where `cv` is "prefit".
    rows : TaskRows
        All tasks.
    plan : Episodes
        Which rows are support.
    scoring : str or callable
        As `scorer_of` gives it.
    cv : int, splitter, iterable or "prefit"
        Folds over tasks.
    n_jobs : int, default=None
        Jobs of joblib, one for each estimator and fold.

    Returns
    -------
    scores : dict of str to ndarray of shape (n_shots, n_draws, n_tasks)
        Averaged over folds where a task is held out by several; NaN for tasks that
        were not held out or had no query rows.
    seconds : dict of str to float
        Wall time of fitting and scoring, summed over folds.
    """
    folds = [(None, np.arange(rows.n_tasks))]
    if isinstance(cv, str) and cv == "prefit":
        for estimator in estimators.values():
            check_is_fitted(unwrap(estimator)[1])
    else:
        folds = task_folds(cv, rows.n_tasks, plan.seed)
    masks = list(plan.masks(rows))
    jobs = [
        delayed(_one_fold)(estimator, rows, train, test, plan, masks, scoring)
        for estimator in estimators.values()
        for train, test in folds
    ]
    done = iter(Parallel(n_jobs=n_jobs)(jobs))
    scores, seconds = {}, {}
    for name in estimators:
        total = np.zeros((len(plan.shots), plan.n_draws, rows.n_tasks))
        count, seconds[name] = np.zeros(rows.n_tasks), 0.0
        for _, test in folds:
            found, spent = next(done)
            total[:, :, test] += found
            count[test] += 1
            seconds[name] += spent
        nothing = np.full_like(total, np.nan)
        scores[name] = np.divide(total, count, out=nothing, where=count > 0)
    return scores, seconds


def _one_fold(estimator, rows, train, test, plan, masks, scoring):
    begin = time.perf_counter()
    fitted = estimator if train is None else rows.take(train).fit(estimator, rows.y)
    kept = rows.positions(test)
    parts = [(i, draw, mask[kept]) for i, draw, mask in masks]
    scores = plan.score(HeldOut(fitted, rows.take(test)), scoring, parts)
    return scores, time.perf_counter() - begin
