"""Tasks made from tables that have no labels."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.cluster import KMeans
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

from ..base._checks import check_range
from ..tasks import Task


class SelfMadeTasks:
    """Tasks made from tables without labels, to learn from beside your own.

    Some columns of a table, drawn at random, are what a task asks for: classes are the
    clusters that k-means finds in them, a number is their random combination. In the
    rows that a learner sees, the values of these columns are shuffled, so that it has
    to tell from the others [1]_. Any learner can be trained on such tasks; those that
    take tables with different columns can be trained on many tables at once.

    Parameters
    ----------
    n_tasks : int, default=100
        Tasks to make, of all tables in turn.
    kind : {"classes", "numbers"}, default="classes"
        Whether the tasks are for classifiers or for regressors.
    n_classes : int or (int, int), default=(2, 5)
        Classes of a task; a pair is a range to draw from.
    share : (float, float), default=(0.2, 0.5)
        Range of the share of columns that the target is made of.
    n_rows : int, default=200
        Rows of a task at the most.
    random_state : int, RandomState instance or None, default=None
        Seed of all draws.

    See Also
    --------
    InContextClassifier : A learner that many and varied tasks suit.

    References
    ----------
    .. [1] Nam et al. "STUNT: few-shot tabular learning with self-generated tasks from
       unlabeled tables", ICLR 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris, load_wine
    >>> from skmeta import SelfMadeTasks
    >>> tables = [load_iris().data, load_wine().data]
    >>> tasks = SelfMadeTasks(20, random_state=0).make(tables)
    >>> [X.shape for X, y in tasks[:2]]
    [(150, 4), (178, 13)]
    """

    _parameter_constraints: dict = {
        "n_tasks": [Interval(Integral, 1, None, closed="left")],
        "kind": [StrOptions({"classes", "numbers"})],
        "n_classes": [Interval(Integral, 2, None, closed="left"), "array-like"],
        "share": ["array-like"],
        "n_rows": [Interval(Integral, 4, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_tasks=100,
        *,
        kind="classes",
        n_classes=(2, 5),
        share=(0.2, 0.5),
        n_rows=200,
        random_state=None,
    ):
        self.n_tasks = n_tasks
        self.kind = kind
        self.n_classes = n_classes
        self.share = share
        self.n_rows = n_rows
        self.random_state = random_state

    def __repr__(self):
        return f"SelfMadeTasks({self.n_tasks}, kind={self.kind!r})"

    def make(self, X):
        """Make tasks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of such
            One table or many, of at least two columns each; frames keep their names.
            NaN is a missing value.

        Returns
        -------
        list of Task
        """
        self._check()
        tables = X if isinstance(X, (list, tuple)) and np.ndim(X[0]) == 2 else [X]
        values = [self._values(t, table) for t, table in enumerate(tables)]
        rng = check_random_state(self.random_state)
        tasks = []
        for i in range(self.n_tasks):
            t = i % len(tables)
            rows, y = self._task(values[t], rng)
            tasks.append(Task(_framed(rows, tables[t]), y))
        return tasks

    def _check(self):
        validate_parameter_constraints(
            self._parameter_constraints, vars(self), type(self).__name__
        )
        check_range("n_classes", self.n_classes)
        low, high = self.share if np.ndim(self.share) else (None, None)
        real = isinstance(low, Real) and isinstance(high, Real)
        if not real or not 0 < low <= high < 1:
            raise ValueError(
                "share must be a pair (low, high) with 0 < low <= high < 1; got "
                f"{self.share!r}."
            )

    @staticmethod
    def _values(t, table):
        try:
            values = check_array(
                table,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                ensure_min_samples=4,
                ensure_min_features=2,
            )
        except (ValueError, TypeError) as error:
            raise type(error)(f"Table {t}: {error}") from error
        return values

    def _task(self, table, rng):
        rows = rng.permutation(len(table))[: self.n_rows]
        X = table[np.sort(rows)]
        n_columns = X.shape[1]
        share = rng.uniform(*self.share)
        n_chosen = int(np.clip(round(share * n_columns), 1, n_columns - 1))
        chosen = rng.permutation(n_columns)[:n_chosen]
        y = self._targets(_standard(X[:, chosen]), rng)
        X = X.copy()
        for column in chosen:
            X[:, column] = rng.permutation(X[:, column])
        return X, y

    def _targets(self, values, rng):
        """Clusters, or a combination, of standardised columns weighted at random."""
        weights = rng.uniform(0.5, 1.5, size=values.shape[1])
        if self.kind == "numbers":
            signs = rng.choice([-1.0, 1.0], size=values.shape[1])
            return _standard((values @ (weights * signs))[:, None]).ravel()
        low, high = np.broadcast_to(self.n_classes, 2)
        n_classes = min(int(rng.randint(low, high + 1)), len(np.unique(values, axis=0)))
        seed = rng.randint(2**31 - 1)
        return KMeans(max(n_classes, 1), n_init=1, random_state=seed).fit_predict(
            values * weights
        )


def _standard(values):
    """Columns of mean 0 and deviation 1; what is missing or constant is 0."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, values, 0)
    away = np.where(known, filled - filled.sum(axis=0) / count, 0)
    deviation = np.sqrt((away**2).sum(axis=0) / count)
    return away / np.where(deviation > 0, deviation, 1)


def _framed(rows, table):
    """Rows as a frame where the table is one."""
    if not hasattr(table, "columns"):
        return rows
    import narwhals.stable.v1 as nw

    frame = nw.from_native(table, eager_only=True)
    columns = {name: rows[:, j] for j, name in enumerate(frame.columns)}
    return nw.from_dict(columns, backend=frame.implementation).to_native()
