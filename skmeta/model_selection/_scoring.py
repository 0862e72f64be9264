"""Scores of every task on its own, by any scorer of scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.metrics import get_scorer
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples


def _log_loss(meta, X, y, codes):
    """Row by row, so that query rows need not show every class."""
    proba = meta.predict_proba(X, groups=codes)
    columns = np.searchsorted(meta.classes_, y).clip(max=len(meta.classes_) - 1)
    own = proba[np.arange(len(y)), columns]
    own = np.where(meta.classes_[columns] == y, own, 0.0)
    return np.log(own.clip(np.finfo(float).eps))


#: Scores that are means over rows are taken for all tasks at once.
_ROW_SCORES = {
    "accuracy": lambda meta, X, y, codes: (meta.predict(X, codes) == y).astype(float),
    "neg_mean_squared_error": lambda meta, X, y, codes: (
        -np.square(y - meta.predict(X, codes))
    ),
    "neg_mean_absolute_error": lambda meta, X, y, codes: (
        -np.abs(y - meta.predict(X, codes))
    ),
    "neg_log_loss": _log_loss,
}


def scorer_of(scoring, estimator):
    """Name of a score or scorer; accuracy and negative RMSE by default."""
    if scoring is None:
        classifier = is_classifier(estimator)
        return "accuracy" if classifier else "neg_root_mean_squared_error"
    if not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(
            "scoring must be the name of a scorer of scikit-learn, a callable "
            f"scorer(estimator, X, y), or None; got {scoring!r}."
        )
    if isinstance(scoring, str):
        get_scorer(scoring)  # says which names there are
    return scoring


def task_scores(meta, X, y, codes, n_tasks, scoring):
    """Score of the query rows of every task, NaN where it has none.

    Parameters
    ----------
    meta : meta-learner
        Adapted; its task ids are positions.
    X, y, codes : rows, targets and position of the task of each row
        The query rows.
    n_tasks : int
        Number of tasks.
    scoring : str or callable
        As `scorer_of` gives it.

    Returns
    -------
    ndarray of shape (n_tasks,)
        Scores, higher is better.
    """
    counts = np.bincount(codes, minlength=n_tasks)
    scores = np.full(n_tasks, np.nan)
    if not len(codes):
        return scores
    rooted = scoring == "neg_root_mean_squared_error"
    name = "neg_mean_squared_error" if rooted else scoring
    row_score = _ROW_SCORES.get(name) if isinstance(name, str) else None
    if row_score is not None:
        values = row_score(meta, X, y, codes)
        sums = np.bincount(codes, values, minlength=n_tasks)
        np.divide(sums, counts, out=scores, where=counts > 0)
        return -np.sqrt(-scores) if rooted else scores
    scorer = scoring if callable(scoring) else get_scorer(scoring)
    answers = _Answers(meta, X, codes)
    for task in np.flatnonzero(counts):
        rows = np.flatnonzero(codes == task)
        view = _OneTask(answers, rows)
        scores[task] = scorer(view, view.X, y[rows])
    return scores


class _Answers:
    """Outputs for all query rows, computed once for all tasks."""

    def __init__(self, meta, X, codes):
        self.meta, self.X, self.codes = meta, X, codes
        self._known = {}

    def get(self, name):
        if name not in self._known:
            self._known[name] = getattr(self.meta, name)(self.X, groups=self.codes)
        return self._known[name]


class _OneTask(BaseEstimator):
    """What a scorer sees: an estimator that answers for the rows of one task."""

    def __init__(self, answers, rows):
        self.answers = answers
        self.rows = rows
        self.X = _safe_indexing(answers.X, rows)
        self.task = answers.codes[rows[0]]

    def __sklearn_tags__(self):
        return self.answers.meta.__sklearn_tags__()

    def __sklearn_is_fitted__(self):
        return True

    def _columns(self):
        """Columns of the classes that this task has."""
        meta = self.answers.meta
        if meta.label_space_ == "shared":
            return np.arange(len(meta.classes_))
        block, place = meta.states_[int(self.task)]
        own = block.support.take([place]).y
        return np.flatnonzero(np.isin(meta.classes_, own))

    @property
    def classes_(self):
        return self.answers.meta.classes_[self._columns()]

    def predict(self, X):
        return self._answer("predict", X)

    def predict_proba(self, X):
        return self._answer("predict_proba", X)[:, self._columns()]

    def _answer(self, name, X):
        if X is self.X:
            return self.answers.get(name)[self.rows]
        groups = np.full(_num_samples(X), self.task)
        return getattr(self.answers.meta, name)(X, groups=groups)
