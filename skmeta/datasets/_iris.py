"""Iris, seen through a few measurements at a time."""

from __future__ import annotations

from itertools import combinations
from numbers import Integral

import numpy as np
from sklearn.datasets import load_iris
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, validate_params

from ..tasks import Task

_MEASUREMENTS = ("sepal length", "sepal width", "petal length", "petal width")

_DESCR = """\
Iris in tasks of feature subsets
================================

Each task predicts the species of the 150 flowers of :func:`sklearn.datasets.load_iris`
(Fisher 1936) from some of their four measurements, in centimetres. A column means
something else in each task, the classes are the same in all.

All tasks describe the same flowers: a held-out subset is a new view of known flowers,
not of new ones. Rows alternate between the three species, so that the first 3k rows of
a task hold k flowers of each.
"""


@validate_params(
    {
        "subset_size": [Interval(Integral, 1, 4, closed="both")],
        "test_subsets": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def load_iris_tasks(*, subset_size=2, test_subsets=None):
    """Load iris as tasks, each with some of the four measurements.

    Each task asks for the species, given a subset of the measurements; some subsets
    are held out as new tasks. As all subsets have one size, all tasks have as many
    columns, of different meaning.

    Parameters
    ----------
    subset_size : int, default=2
        Measurements of a task, 1 to 4.
    test_subsets : list of tuples of str or int, default=None
        Subsets to hold out, as names or positions of measurements. None holds out the
        last one, for pairs the length and width of the petals; an empty list none.

    Returns
    -------
    iris : :class:`~sklearn.utils.Bunch`
        ``tasks``, list of Task with ``X`` of shape (150, subset_size) and ``y`` of
        shape (150,); ``feature_names``, list of tuples with the names of each task's
        columns; ``test_tasks`` and ``test_feature_names``, the same for the subsets
        held out; ``target_names``, the three species; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import load_iris_tasks
    >>> iris = load_iris_tasks()
    >>> len(iris.tasks), iris.test_feature_names
    (5, [('petal length', 'petal width')])
    >>> iris.tasks[0].X.shape, iris.feature_names[0]
    ((150, 2), ('sepal length', 'sepal width'))
    """
    subsets = list(combinations(range(4), subset_size))
    if test_subsets is None:
        test = subsets[-1:]
    else:
        test = [_positions(subset, subset_size) for subset in test_subsets]
    train = [subset for subset in subsets if subset not in test]
    bunch = load_iris()
    order = np.arange(150).reshape(3, 50).T.ravel()
    X, y = bunch.data[order], bunch.target[order]

    def describe(subset):
        return tuple(_MEASUREMENTS[column] for column in subset)

    return Bunch(
        tasks=[Task(X[:, subset], y) for subset in train],
        feature_names=[describe(subset) for subset in train],
        test_tasks=[Task(X[:, subset], y) for subset in test],
        test_feature_names=[describe(subset) for subset in test],
        target_names=bunch.target_names,
        DESCR=_DESCR,
    )


def _positions(subset, subset_size):
    """Sorted positions of the measurements of a subset given by name or position."""
    known = {name: i for i, name in enumerate(_MEASUREMENTS)}
    columns = [known.get(item, item) for item in subset]
    if len(set(columns)) != subset_size or not set(columns) <= set(range(4)):
        raise ValueError(
            f"A test subset must name {subset_size} different measurements out of "
            f"{list(_MEASUREMENTS)}, or their positions. Got {subset!r}."
        )
    return tuple(sorted(columns))
