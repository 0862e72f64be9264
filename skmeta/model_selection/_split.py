"""Folds over tasks that leave the support rows of held-out tasks for training."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils.validation import _num_samples

from ..tasks import is_task_list
from ..tasks._door import _factorize
from ..tasks._sampler import support_mask
from ._episodes import task_folds


class FewShotKFold(BaseCrossValidator):
    """K-fold over tasks in which held-out tasks show their support rows.

    The training side holds all rows of the training tasks and the support rows of the
    held-out ones, so that a meta-learner with a `group_column` is adapted to them by
    `fit`; the test side holds their query rows. Every scorer of scikit-learn then
    measures few-shot quality, without metadata routing. With it, task ids reach the
    default `score` of the meta-learner, but no scorer given by name. A list of tasks
    is split by task only, since `score` of a meta-learner splits held-out tasks itself.

    Because the support rows are part of the training side, a meta-learner also learns
    from them, as a mixed model that is refitted with the new groups. `FewShotScorer`
    keeps fit and adapt apart.

    Parameters
    ----------
    n_splits : int, default=5
        Folds over tasks.
    n_shots : int, default=5
        Support rows of each held-out task; at most all but one of its rows.
    support : {"random", "first"}, default="random"
        A random draw, or the first in row order, as the history of a new user is.
    per_class : bool, default=False
        Whether shots are counted per class. Then `y` must hold labels.
    shuffle : bool, default=True
        Whether tasks are assigned to folds at random.
    random_state : int, default=0
        Seed of folds and draws.

    See Also
    --------
    FewShotScorer : Adapts to several draws of the support rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_val_score
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.model_selection import FewShotKFold
    >>> rng = np.random.default_rng(0)
    >>> user = np.repeat(np.arange(20), 10)
    >>> X = np.column_stack([rng.normal(size=200), user])
    >>> y = X[:, 0] + rng.normal(size=20)[user] + 0.1 * rng.normal(size=200)
    >>> meta = HierarchicalRegressor(group_column=1)
    >>> cv = FewShotKFold(n_shots=3)
    >>> scores = cross_val_score(meta, X, y, groups=user, cv=cv, scoring="r2")
    >>> bool(scores.mean() > 0.9)
    True
    """

    # Requested by default, so that one array of task ids reaches everything.
    __metadata_request__split = {"groups": True}

    def __init__(
        self,
        n_splits=5,
        n_shots=5,
        *,
        support="random",
        per_class=False,
        shuffle=True,
        random_state=0,
    ):
        self.n_splits = n_splits
        self.n_shots = n_shots
        self.support = support
        self.per_class = per_class
        self.shuffle = shuffle
        self.random_state = random_state

    def split(self, X, y=None, groups=None):
        """Yield training and test rows, or tasks where `X` is a list of tasks.

        Parameters
        ----------
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks, or rows.
        y : array-like of shape (n_samples,), default=None
            Targets; needed with ``per_class=True``.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row; None for a list of tasks.

        Yields
        ------
        train, test : ndarray of int
            Positions.
        """
        if is_task_list(X):
            yield from self._folds(len(X))
            return
        if groups is None:
            raise ValueError("FewShotKFold needs groups: the task id of each row.")
        codes, ids = _factorize(groups, _num_samples(X))
        support = self._support(codes, y)
        for _, test in self._folds(len(ids)):
            held_out = np.isin(codes, test)
            query = held_out & ~support
            if not query.any():
                raise ValueError(
                    f"No held-out task has rows left after n_shots={self.n_shots} "
                    "support rows; pass larger tasks."
                )
            yield np.flatnonzero(~query), np.flatnonzero(query)

    def get_n_splits(self, X=None, y=None, groups=None):
        """Number of folds."""
        return self.n_splits

    def _support(self, codes, y):
        labels = None
        if self.per_class:
            if y is None:
                raise ValueError("per_class=True counts rows per class; pass y.")
            labels = np.unique(np.asarray(y), return_inverse=True)[1]
        if self.support not in ("random", "first"):
            raise ValueError(
                f"support must be 'random' or 'first', got {self.support!r}."
            )
        return support_mask(
            codes, labels, self.n_shots, support=self.support, seed=self.random_state
        )

    def _folds(self, n_tasks):
        return task_folds(self.n_splits, n_tasks, self.random_state, self.shuffle)
