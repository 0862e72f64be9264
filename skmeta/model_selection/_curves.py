"""Score against support rows, and against the number of training tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.base import is_classifier

from ..adapted import unwrap
from ..baselines import PooledClassifier, PooledRegressor
from ._episodes import cross_evaluate, episodes, task_folds
from ._labels_needed import labels_needed
from ._rows import read_task_rows
from ._scoring import scorer_of


@dataclass(frozen=True)
class ShotCurve:
    """Scores of held-out tasks against their number of support rows.

    Parameters
    ----------
    shots : ndarray of shape (n_shots,)
        Support rows.
    scores : ndarray of shape (n_shots, n_draws, n_tasks)
        Score of each task and draw, higher is better; NaN without rows to judge.
    baseline : ndarray of shape (n_shots, n_draws, n_tasks) or None
        The same of what `harm_rate` compares with.
    scoring : str
        Name of the score.
    """

    shots: np.ndarray
    scores: np.ndarray = field(repr=False)
    baseline: np.ndarray | None = field(repr=False)
    scoring: str

    @property
    def per_task(self):
        """Mean over draws, of shape (n_shots, n_tasks)."""
        return self.scores.mean(axis=1)

    def to_frame(self):
        """One row for each number of shots.

        Returns
        -------
        pandas.DataFrame
            Mean over tasks with the limits of its 95 % interval, the worst decile of
            tasks, the share of tasks that are worse than the baseline, and the number
            of tasks; indexed by shots.
        """
        import pandas as pd

        base = None if self.baseline is None else self.baseline.mean(axis=1)
        rows = [
            summary(scores, None if base is None else base[i])
            for i, scores in enumerate(self.per_task)
        ]
        return pd.DataFrame(rows, index=pd.Index(self.shots, name="n_shots"))

    def labels_needed(self, score, *, confidence=0.9, n_boot=500, random_state=0):
        """How many support rows reach a wanted mean score, and how sure that is.

        The curve is made monotone and interpolated in ``log(1 + shots)``. Beyond the
        shots that were measured it goes on like the error of a Gaussian linear model
        [1]_, of which many shapes are weighed by how well they fit; the answer is the
        median over them, and infinite beyond four times as many shots. For the interval
        tasks are resampled, and each time one of the shapes is drawn: it is wide, or
        infinite, where the curve is too flat, or was measured on too few tasks, for the
        number to be known.

        Parameters
        ----------
        score : float
            Wanted mean score over tasks, higher being better: an error of 0.1 is -0.1.
        confidence : float, default=0.9
            Coverage of the interval.
        n_boot : int, default=500
            Resamples of tasks.
        random_state : int, default=0
            Their seed.

        Returns
        -------
        n_shots, low, high : float
            Support rows; infinite where no number of rows is expected to be enough, or
            none that these shots can tell.

        References
        ----------
        .. [1] Sollich and Halees. "Learning curves for Gaussian process regression:
           approximations and bounds", Neural Computation 14, 2002.

        Examples
        --------
        >>> from skmeta import HierarchicalRegressor
        >>> from skmeta.datasets import make_regression_tasks
        >>> from skmeta.model_selection import shot_curve
        >>> tasks = make_regression_tasks(60, 40, random_state=0)
        >>> curve = shot_curve(HierarchicalRegressor(), tasks, shots=[0, 1, 2, 5, 10])
        >>> n_shots, low, high = curve.labels_needed(curve.per_task[3].mean())
        >>> bool(low <= n_shots <= high)
        True
        """
        if self.scoring.startswith("neg_") and score > 0:
            raise ValueError(
                f"{self.scoring} is never positive, so score={score!r} cannot be "
                f"reached; pass {-score!r}."
            )
        values = self.per_task[:, ~np.isnan(self.per_task).any(axis=0)]
        if not values.shape[1]:
            raise ValueError(
                "No task has rows to judge at every number of shots; leave out the "
                "largest shots."
            )
        if len(self.shots) < 3:
            raise ValueError("A curve needs at least three numbers of shots.")
        return labels_needed(
            self.shots, values, score, confidence, n_boot, random_state
        )


def summary(scores, base=None):
    """Mean, 95 % interval, worst decile and harm rate of the scores of tasks."""
    valid = ~np.isnan(scores)
    found, n = scores[valid], int(valid.sum())
    if not n:
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n_tasks": 0}
    half = 1.96 * found.std(ddof=1) / n**0.5 if n > 1 else np.nan
    row = {
        "mean": found.mean(),
        "low": found.mean() - half,
        "high": found.mean() + half,
        "worst_decile": np.quantile(found, 0.1),
    }
    if base is not None:
        # Equal scores are no harm, and rounding must not make it one.
        row["harm_rate"] = float(np.mean(found < base[valid] - 1e-12))
    return row | {"n_tasks": n}


def shot_curve(
    estimator,
    X,
    y=None,
    groups=None,
    *,
    shots=(0, 1, 2, 5, 10, 20),
    scoring=None,
    cv=5,
    n_draws=5,
    support="random",
    per_class="auto",
    baseline="pooled",
    n_jobs=None,
    random_state=0,
):
    """Score of tasks that were not seen, against their number of support rows.

    Parameters
    ----------
    estimator : meta-learner, or Pipeline or search that ends in one
        Cloned and fitted on the training tasks of each fold.
    X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
        Tasks, or rows.
    y : array-like of shape (n_samples,), default=None
        Targets; None for a list.
    groups : array-like of shape (n_samples,), default=None
        Task id of each row; None for a list or with a `group_column`.
    shots : sequence of int, default=(0, 1, 2, 5, 10, 20)
        Support rows of each held-out task (at most all but one), or of each of its
        classes. Leave out 0 where labels belong to their task.
    scoring : str or callable, default=None
        Any scorer of scikit-learn, taken of each task alone; accuracy, or the negative
        root mean squared error, where None.
    cv : int, splitter, iterable or "prefit", default=5
        Folds over tasks. "prefit" takes `estimator` (and `baseline`) as they are, and
        `X` as tasks that they have not seen.
    n_draws : int, default=5
        Random supports of each task.
    support : {"random", "first"}, default="random"
        Random draws, or the first rows in row order (then there is one draw).
    per_class : bool or "auto", default="auto"
        Whether shots are counted per class: "auto" where classes belong to their task.
    baseline : meta-learner, "pooled" or None, default="pooled"
        What tasks may be harmed in comparison to: a pooled boosting model. None with
        labels that belong to their task, where nothing can be pooled; with "prefit" it
        must be a fitted estimator or None.
    n_jobs : int, default=None
        Jobs of joblib, one for each fold.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and draws.

    Returns
    -------
    ShotCurve
        Scores; `to_frame` for a table, `labels_needed` for the number of labels that a
        wanted score takes.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import shot_curve
    >>> tasks = make_regression_tasks(40, 20, random_state=0)
    >>> curve = shot_curve(HierarchicalRegressor(), tasks, shots=[0, 5], scoring="r2")
    >>> curve.to_frame()["mean"].is_monotonic_increasing
    True
    """
    rows, plan, scoring = _prepare(
        estimator, X, y, groups, shots, scoring, n_draws, support, per_class,
        random_state,
    )  # fmt: skip
    estimators = {"estimator": estimator}
    baseline = _baseline(baseline, estimator, plan, cv)
    if baseline is not None:
        estimators["baseline"] = baseline
    scores, _ = cross_evaluate(estimators, rows, plan, scoring, cv, n_jobs)
    return ShotCurve(
        np.array(plan.shots),
        scores["estimator"],
        scores.get("baseline"),
        scoring if isinstance(scoring, str) else repr(scoring),
    )


def _prepare(
    estimator, X, y, groups, shots, scoring, n_draws, support, per_class, random_state
):
    meta = unwrap(estimator)[1]
    rows = read_task_rows(estimator, X, y, groups)
    plan = episodes(shots, n_draws, support, per_class, random_state, meta, rows)
    return rows, plan, scorer_of(scoring, meta)


def _baseline(baseline, estimator, plan, cv):
    if not isinstance(baseline, str):
        return baseline
    if baseline != "pooled":
        raise ValueError(
            f"baseline must be 'pooled' or an estimator; got {baseline!r}."
        )
    meta = unwrap(estimator)[1]
    if plan.per_class or (isinstance(cv, str) and cv == "prefit"):
        return None
    pooled = PooledClassifier() if is_classifier(meta) else PooledRegressor()
    return pooled.set_params(group_column=meta.group_column)


@dataclass(frozen=True)
class TaskLearningCurve:
    """Scores of held-out tasks against the number of training tasks.

    Parameters
    ----------
    n_tasks : ndarray of shape (n_sizes,)
        Training tasks.
    scores : ndarray of shape (n_sizes, n_tasks)
        Score of each held-out task, averaged over draws.
    n_shots : int
        Support rows of each held-out task.
    scoring : str
        Name of the score.
    """

    n_tasks: np.ndarray
    scores: np.ndarray = field(repr=False)
    n_shots: int
    scoring: str

    def to_frame(self):
        """Mean over held-out tasks with the limits of its 95 % interval.

        Returns
        -------
        pandas.DataFrame
            Indexed by the number of training tasks.
        """
        import pandas as pd

        rows = [summary(scores) for scores in self.scores]
        index = pd.Index(self.n_tasks, name="n_training_tasks")
        return pd.DataFrame(rows, index=index).rename(columns={"n_tasks": "n_held_out"})


def task_learning_curve(
    estimator,
    X,
    y=None,
    groups=None,
    *,
    train_sizes=(0.1, 0.25, 0.5, 0.75, 1.0),
    n_shots=5,
    scoring=None,
    cv=5,
    n_draws=5,
    support="random",
    per_class="auto",
    n_jobs=None,
    random_state=0,
):
    """Score of tasks that were not seen, against the number of training tasks.

    Says whether more tasks would help.

    Parameters
    ----------
    estimator : meta-learner, or Pipeline or search that ends in one
        Cloned and fitted on some of the training tasks of each fold.
    X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
        Tasks, or rows.
    y : array-like of shape (n_samples,), default=None
        Targets; None for a list.
    groups : array-like of shape (n_samples,), default=None
        Task id of each row; None for a list or with a `group_column`.
    train_sizes : sequence of float or int, default=(0.1, 0.25, 0.5, 0.75, 1.0)
        Training tasks, as shares of those of a fold or as numbers. At least 2 tasks.
    n_shots : int, default=5
        Support rows of each held-out task, or of each of its classes.
    scoring : str or callable, default=None
        Any scorer of scikit-learn, taken of each task alone; accuracy, or the negative
        root mean squared error, where None.
    cv : int, splitter or iterable, default=5
        Folds over tasks.
    n_draws : int, default=5
        Random supports of each task.
    support : {"random", "first"}, default="random"
        Random draws, or the first rows in row order (then there is one draw).
    per_class : bool or "auto", default="auto"
        Whether shots are counted per class: "auto" where classes belong to their task.
    n_jobs : int, default=None
        Jobs of joblib, one for each fold.
    random_state : int, RandomState instance or None, default=0
        Seed of folds, of which tasks are trained on, and of draws.

    Returns
    -------
    TaskLearningCurve
        Scores; `to_frame` for a table.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import task_learning_curve
    >>> tasks = make_regression_tasks(40, 20, random_state=0)
    >>> curve = task_learning_curve(HierarchicalRegressor(), tasks)
    >>> curve.n_tasks.tolist()
    [3, 8, 16, 24, 32]
    """
    rows, plan, scoring = _prepare(
        estimator, X, y, groups, n_shots, scoring, n_draws, support, per_class,
        random_state,
    )  # fmt: skip
    folds = task_folds(cv, rows.n_tasks, plan.seed)
    sizes = _sizes(train_sizes, min(len(train) for train, _ in folds))
    order = np.random.default_rng(plan.seed)
    folds = [(order.permutation(train), test) for train, test in folds]
    scores = np.full((len(sizes), rows.n_tasks), np.nan)
    for i, size in enumerate(sizes):
        part = [(train[:size], test) for train, test in folds]
        found, _ = cross_evaluate({"": estimator}, rows, plan, scoring, part, n_jobs)
        scores[i] = found[""][0].mean(axis=0)
    name = scoring if isinstance(scoring, str) else repr(scoring)
    return TaskLearningCurve(np.array(sizes), scores, plan.shots[0], name)


def _sizes(train_sizes, largest):
    sizes = sorted(
        {
            max(round(size * largest), 2) if isinstance(size, float) else int(size)
            for size in train_sizes
        }
    )
    if not sizes or sizes[0] < 2 or sizes[-1] > largest:
        raise ValueError(
            f"train_sizes must be shares in (0, 1], or numbers of tasks between 2 and "
            f"{largest}, those of the smallest fold; got {train_sizes!r}."
        )
    return sizes
