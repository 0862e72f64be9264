"""Few-shot quality of a fitted meta-learner as a scorer."""

from __future__ import annotations

import numpy as np
from sklearn.utils._metadata_requests import _MetadataRequester

from ..adapted import unwrap
from ._episodes import episodes
from ._rows import HeldOut, read_task_rows
from ._scoring import scorer_of


class FewShotScorer(_MetadataRequester):
    """Adapt to support rows of held-out tasks, judge on their query rows.

    A scorer for ``scoring=`` of `cross_val_score`, `GridSearchCV` and all others. It
    sees whole pipelines; what they learned is not changed. Task ids reach it as
    ``groups`` with metadata routing, or inside `X` by the `group_column` of the
    meta-learner; a list of tasks needs neither.

    Parameters
    ----------
    scoring : str or callable, default=None
        Any scorer of scikit-learn, taken of each task alone; accuracy, or the negative
        root mean squared error, where None.
    n_shots : int, default=5
        Support rows of each task (at most all but one), or of each of its classes.
    n_draws : int, default=5
        Random supports of each task, whose scores are averaged.
    support : {"random", "first"}, default="random"
        Random draws, or the first rows in row order (then there is one draw).
    per_class : bool or "auto", default="auto"
        Whether shots are counted per class: "auto" where classes belong to their task.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    See Also
    --------
    shot_curve : The same for several numbers of shots.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import FewShotScorer
    >>> tasks = make_regression_tasks(30, 20, random_state=0)
    >>> scorer = FewShotScorer("r2", n_shots=5)
    >>> scores = cross_val_score(HierarchicalRegressor(), tasks, scoring=scorer)
    >>> scores.shape
    (5,)
    >>> fitted = HierarchicalRegressor().fit(tasks[:20])
    >>> scorer.per_task(fitted, tasks[20:]).shape
    (10,)
    """

    __metadata_request__score = {"groups": True}

    def __init__(
        self,
        scoring=None,
        *,
        n_shots=5,
        n_draws=5,
        support="random",
        per_class="auto",
        random_state=0,
    ):
        self.scoring = scoring
        self.n_shots = n_shots
        self.n_draws = n_draws
        self.support = support
        self.per_class = per_class
        self.random_state = random_state

    def __call__(self, estimator, X, y=None, groups=None):
        """Mean score over tasks; parameters as for `per_task`."""
        scores = self.per_task(estimator, X, y, groups)
        if np.isnan(scores).all():
            raise ValueError(
                f"No task has rows left to be judged after n_shots={self.n_shots} "
                "support rows; pass larger tasks."
            )
        return float(np.nanmean(scores))

    # scikit-learn passes metadata to what it calls `score`.
    score = __call__

    def per_task(self, estimator, X, y=None, groups=None):
        """Score of each task, averaged over draws.

        Parameters
        ----------
        estimator : fitted meta-learner, or Pipeline or search that ends in one
            What was learned. It is not changed.
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks that `estimator` has not seen.
        y : array-like of shape (n_samples,), default=None
            Targets; None for a list.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        ndarray of shape (n_tasks,)
            In the order of the list, or of the sorted ids. NaN for a task that has no
            row to be judged.
        """
        meta = unwrap(estimator)[1]
        rows = read_task_rows(estimator, X, y, groups)
        plan = episodes(
            self.n_shots,
            self.n_draws,
            self.support,
            self.per_class,
            self.random_state,
            meta,
            rows,
        )
        scoring = scorer_of(self.scoring, meta)
        scores = plan.score(HeldOut(estimator, rows), scoring, plan.masks(rows))
        return scores[0].mean(0)

    def __repr__(self):
        return f"FewShotScorer({self.scoring!r}, n_shots={self.n_shots})"
