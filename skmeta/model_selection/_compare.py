"""Several learners and the models of today on the same episodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.base import is_classifier, is_regressor

from ..adapted import unwrap
from ..baselines import (
    LocalClassifier,
    LocalRegressor,
    MixedModelRegressor,
    PooledClassifier,
    PooledRegressor,
    ShrunkOffsetRegressor,
    TaskEncodedClassifier,
    TaskEncodedRegressor,
)
from ._curves import _prepare, summary
from ._episodes import cross_evaluate


@dataclass(frozen=True)
class Comparison:
    """Scores of several estimators on the same episodes.

    Parameters
    ----------
    shots : ndarray of shape (n_shots,)
        Support rows.
    scores : dict of str to ndarray of shape (n_shots, n_draws, n_tasks)
        Score of each task and draw, higher is better; NaN without rows to judge.
    reference : str
        What differences and harm are relative to.
    seconds : dict of str to float
        Wall time of fitting and scoring, all folds together.
    scoring : str
        Name of the score.
    """

    shots: np.ndarray
    scores: dict = field(repr=False)
    reference: str
    seconds: dict = field(repr=False)
    scoring: str

    def to_frame(self):
        """One row for each number of shots and estimator.

        Returns
        -------
        pandas.DataFrame
            Mean over tasks with the limits of its 95 % interval, worst decile, harm
            rate (share of tasks worse than the reference), the paired difference to
            the reference with its 95 % interval over tasks, and seconds; indexed by
            shots and estimator.
        """
        import pandas as pd

        rows = {}
        for i, k in enumerate(self.shots):
            base = self.scores[self.reference][i].mean(axis=0)
            for name, scores in self.scores.items():
                own = scores[i].mean(axis=0)
                gap = summary(own - base)
                rows[int(k), name] = summary(own, base) | {
                    "difference": gap["mean"],
                    "difference_low": gap["low"],
                    "difference_high": gap["high"],
                    "seconds": self.seconds[name],
                }
        index = pd.MultiIndex.from_tuples(rows, names=["n_shots", "estimator"])
        return pd.DataFrame(list(rows.values()), index=index)


def compare(
    estimators,
    X,
    y=None,
    groups=None,
    *,
    shots=(5,),
    scoring=None,
    baselines=True,
    reference=None,
    cv=5,
    n_draws=5,
    support="random",
    per_class="auto",
    group_column=None,
    n_jobs=None,
    random_state=0,
):
    """Compare learners with each other and with the models that people have today.

    All are judged on the same episodes of the same held-out tasks, so differences are
    paired.

    Parameters
    ----------
    estimators : estimator, or dict of str to estimator
        Meta-learners, pipelines and searches that end in one, or any estimators of
        scikit-learn, which are then pooled over tasks.
    X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
        Tasks, or rows.
    y : array-like of shape (n_samples,), default=None
        Targets; None for a list.
    groups : array-like of shape (n_samples,), default=None
        Task id of each row; None for a list or with a `group_column`.
    shots : int or sequence of int, default=(5,)
        Support rows of each held-out task (at most all but one), or of each of its
        classes.
    scoring : str or callable, default=None
        Any scorer of scikit-learn, taken of each task alone; accuracy, or the negative
        root mean squared error, where None.
    baselines : bool, default=True
        Whether to add what `default_baselines` gives.
    reference : str, default=None
        Name of the estimator that others are compared with. By default "pooled" where
        there is one, or else the first.
    cv : int, splitter, iterable or "prefit", default=5
        Folds over tasks. "prefit" takes estimators as they are, and `X` as tasks that
        they have not seen; there are no baselines then.
    n_draws : int, default=5
        Random supports of each task.
    support : {"random", "first"}, default="random"
        Random draws, or the first rows in row order (then there is one draw).
    per_class : bool or "auto", default="auto"
        Whether shots are counted per class: "auto" where classes belong to their task.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`. By default that of
        the first meta-learner.
    n_jobs : int, default=None
        Jobs of joblib, one for each estimator and fold.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and draws.

    Returns
    -------
    Comparison
        Scores; `to_frame` for a table.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import compare
    >>> tasks = make_regression_tasks(40, 20, random_state=0)
    >>> found = compare({"ours": HierarchicalRegressor()}, tasks, baselines=False)
    >>> found.to_frame().shape
    (1, 10)
    """
    if not isinstance(estimators, dict):
        estimators = {type(estimators).__name__: estimators}
    if not estimators:
        raise ValueError("estimators is empty; pass at least one.")
    first = _first_meta(estimators)
    if group_column is None and first is not None:
        group_column = first.group_column
    chosen = {name: as_meta(e, group_column) for name, e in estimators.items()}
    rows, plan, scoring = _prepare(
        next(iter(chosen.values())), X, y, groups, shots, scoring, n_draws, support,
        _per_class(per_class, first), random_state,
    )  # fmt: skip
    if baselines and not (isinstance(cv, str) and cv == "prefit"):
        classifier = is_classifier(next(iter(chosen.values())))
        known = default_baselines(classifier, plan.per_class)
        for name, estimator in known.items():
            chosen.setdefault(name, estimator.set_params(group_column=group_column))
    reference = _reference(reference, chosen)
    scores, seconds = cross_evaluate(chosen, rows, plan, scoring, cv, n_jobs)
    name = scoring if isinstance(scoring, str) else repr(scoring)
    return Comparison(np.array(plan.shots), scores, reference, seconds, name)


def default_baselines(classifier, per_task_labels=False):
    """The models that people have today, by name.

    Parameters
    ----------
    classifier : bool
        Whether classes are predicted.
    per_task_labels : bool, default=False
        Whether classes exist only inside their task, so that nothing can be pooled.

    Returns
    -------
    dict of str to estimator
        A pooled boosting model; a model of each task alone; boosting with an encoding
        of the task; boosting with a shrunk offset and, where statsmodels is installed,
        a linear mixed model (both for regression).

    Examples
    --------
    >>> from skmeta.model_selection import default_baselines
    >>> list(default_baselines(classifier=True))
    ['pooled', 'local', 'task encoding']
    """
    if classifier and per_task_labels:
        return {"local": LocalClassifier(label_space="per_task")}
    if classifier:
        return {
            "pooled": PooledClassifier(),
            "local": LocalClassifier(),
            "task encoding": TaskEncodedClassifier(),
        }
    found = {
        "pooled": PooledRegressor(),
        "local": LocalRegressor(),
        "task encoding": TaskEncodedRegressor(),
        "shrunk offset": ShrunkOffsetRegressor(),
    }
    try:
        import statsmodels  # noqa: F401
    except ImportError:
        return found
    return found | {"mixed model": MixedModelRegressor()}


def as_meta(estimator, group_column=None):
    """A meta-learner as it is; any other estimator pooled over tasks."""
    try:
        unwrap(estimator)
    except TypeError:
        if is_classifier(estimator):
            return PooledClassifier(estimator, group_column=group_column)
        if is_regressor(estimator):
            return PooledRegressor(estimator, group_column=group_column)
        raise
    return estimator


def _first_meta(estimators):
    for estimator in estimators.values():
        try:
            return unwrap(estimator)[1]
        except TypeError:
            continue
    return None


def _per_class(per_class, first):
    """What "auto" means where the first estimator has no label space of its own."""
    if per_class == "auto" and first is None:
        return False
    return per_class


def _reference(reference, chosen):
    if reference is None:
        return "pooled" if "pooled" in chosen else next(iter(chosen))
    if reference not in chosen:
        raise ValueError(f"reference={reference!r} is none of {list(chosen)}.")
    return reference
