"""Tasks with columns of their own, in one wide table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import narwhals.stable.v1 as nw
import numpy as np
from sklearn.utils.validation import _get_feature_names, validate_data

from ._door import (
    _factorize,
    _n_rows,
    _read_task,
    _refuse_duplicates,
    _same_kind,
    _to_numpy,
    _validate,
    is_task_list,
    read_rows,
    read_tasks,
    split_group_column,
)
from ._table import ranges, table_from_codes


@dataclass(frozen=True)
class Columns:
    """Columns of all tasks known so far; each has its place in the wide table.

    Places are only ever added, so that tables of before stay what they are, a table
    that is narrower lacks the last ones.

    Parameters
    ----------
    names : tuple of str or None
        Names by place; None where columns have no names.
    n_features : int
        Columns that fit has seen.
    n_shared : int
        Those among them that mean the same in all tasks: all of them, unless tasks
        without names differ in their width.
    width : int
        Columns known by now.
    """

    names: tuple | None
    n_features: int
    n_shared: int
    width: int

    def placed(self, names, n_columns):
        """Places of the columns of a task, and the columns known from then on."""
        if self.names is None:
            first = 0 if n_columns == self.n_features else self.n_shared
            places = np.arange(first, first + n_columns)
            return places, replace(self, width=max(self.width, first + n_columns))
        place = {name: i for i, name in enumerate(self.names)}
        for name in names:
            place.setdefault(name, len(place))
        new = replace(self, names=tuple(place), width=len(place))
        return np.array([place[name] for name in names]), new

    def are_those_of_fit(self, names, n_columns):
        """Whether these are the columns of fit, in whatever order."""
        if self.names is None or names is None:
            # Names that only one side has are sklearn's to warn of.
            return n_columns == self.n_features or self.names is not None
        return set(names) == set(self.names[: self.n_features])


def read_wide_tasks(
    estimator, X, y=None, groups=None, *, known, group_column=None, classifier=False
):
    """Tasks that may each have columns of their own, from any input form.

    Parameters
    ----------
    estimator : estimator
        Remembers the columns of fit.
    X, y, groups, group_column, classifier
        As for `read_tasks`.
    known : Columns or None
        Columns known so far; None in fit, which remembers those it sees.

    Returns
    -------
    table : TaskTable
        Rows with NaN where a task lacks a column or a value.
    columns : Columns
        Columns known from now on.
    """
    options = {"group_column": group_column, "classifier": classifier}
    if is_task_list(X) and y is None and groups is None:
        return _read_list(estimator, X, known, classifier)
    names = n_columns = None
    if known is not None and not is_task_list(X):
        rows, ids = split_group_column(X, groups, group_column)
        names, n_columns = _layout(rows)
    if n_columns is None or y is None or known.are_those_of_fit(names, n_columns):
        table = read_tasks(estimator, X, y, groups, reset=known is None, **options)
        if known is not None:
            return table, known
        _refuse_images(table.X)
        names = getattr(estimator, "feature_names_in_", None)
        width = table.X.shape[1]
        names = None if names is None else tuple(names)
        return table, Columns(names, width, width, width)
    places, columns = known.placed(names, n_columns)
    codes, ids = _factorize(ids, _n_rows(rows))
    values, y = _validate(estimator, rows, y, codes, ids, None, classifier)
    wide = _filled(values, places, columns.width)
    return table_from_codes(wide, y, codes, ids), columns


def read_wide_rows(estimator, X, groups=None, *, known, own, group_column=None):
    """Rows to predict, laid out as the tables of `read_wide_tasks`.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X, groups, group_column
        As for `read_rows`.
    known : Columns
        Columns known so far.
    own : callable
        Gives the places of the columns that a task needs, by its id.

    Returns
    -------
    TaskTable
    """
    if not is_task_list(X) and not hasattr(X, "__next__"):
        rows, ids = split_group_column(X, groups, group_column)
        names, n_columns = _layout(rows)
        if n_columns is not None and not known.are_those_of_fit(names, n_columns):
            hold_to_tasks(estimator, rows, ids, known=known, own=own)
            places, columns = known.placed(names, n_columns)
            codes, ids = _factorize(ids, _n_rows(rows))
            values, _ = _validate(estimator, rows, None, codes, ids, None, False)
            wide = _filled(values, places, columns.width)
            return table_from_codes(wide, None, codes, ids)
    return read_rows(estimator, X, groups, group_column=group_column)


def hold_to_tasks(estimator, rows, groups, *, known, own):
    """Refuse rows that lack columns of a known task; parameters as `read_wide_rows`."""
    names, n_columns = _layout(rows)
    if n_columns is None or known.are_those_of_fit(names, n_columns):
        return
    places, _ = known.placed(names, n_columns)
    for task in _factorize(groups, _n_rows(rows))[1]:
        needed = own(task)
        lacking = np.setdiff1d(needed, places)
        if len(lacking) == 0:
            continue
        if np.array_equal(needed, np.arange(known.n_features)):
            # The task has the columns of fit, and scikit-learn an error for it.
            validate_data(estimator, rows, reset=False, skip_check_array=True)
        which = "" if task is None else f" {task!r}"
        what = f"has {n_columns} features, fewer than"
        if known.names is not None:
            names = [known.names[place] for place in lacking[:5]]
            what = f"lacks the columns {names} of"
        raise ValueError(
            f"X {what} the task{which} that these rows belong to. A column of NaN "
            "stands for values that are not known."
        )


def widened(tables):
    """The same tables, all as wide as the widest."""
    width = max(table.X.shape[1] for table in tables)
    return [
        table
        if table.X.shape[1] == width
        else replace(table, X=_filled(table.X, np.arange(table.X.shape[1]), width))
        for table in tables
    ]


def _read_list(estimator, tasks, known, classifier):
    """A list of tasks, each with its columns."""
    Xs, ys = zip(*(_read_task(t, *task) for t, task in enumerate(tasks)), strict=True)
    for t, X in enumerate(Xs):
        _refuse_images(X, f"Task {t}: ")
    _same_kind(ys, classifier)
    names = _names_of(tasks)
    columns = known
    if known is None:
        columns = _columns_of_fit(names, [X.shape[1] for X in Xs])
    elif (known.names is None) != (names[0] is None):
        return _as_fitted(estimator, tasks, known, classifier)
    places = []
    for own, X in zip(names, Xs, strict=True):
        place, columns = columns.placed(own, X.shape[1])
        places.append(place)
    if known is None:  # names were collected on the way
        columns = replace(columns, n_features=columns.width, n_shared=columns.width)
        if names[0] is None and len({X.shape[1] for X in Xs}) > 1:
            columns = replace(columns, n_shared=0)
    X = np.concatenate(
        [_filled(*pair, columns.width) for pair in zip(Xs, places, strict=True)]
    )
    counts = np.array([len(y) for y in ys])
    codes, ids = np.repeat(np.arange(len(tasks)), counts), list(range(len(tasks)))
    frame = X
    if columns.names is not None:
        frame = nw.from_dict(
            {name: X[:, j] for j, name in enumerate(columns.names)},
            backend=nw.from_native(tasks[0][0], eager_only=True).implementation,
        ).to_native()
    rows = ranges(np.zeros_like(counts), counts)
    X, y = _validate(
        estimator,
        frame,
        np.concatenate(ys),
        codes,
        ids,
        True if known is None else None,
        classifier,
        rows,
    )
    X = X if X.flags.writeable else X.copy()
    return replace(table_from_codes(X, y, codes, ids), listed=True), columns


def _as_fitted(estimator, tasks, known, classifier):
    """A list where only tasks or only fit had names: sklearn warns, widths decide."""
    table = read_tasks(estimator, tasks, reset=False, classifier=classifier)
    return table, known


def _columns_of_fit(names, widths):
    if names[0] is None:
        return Columns(None, max(widths), 0, 0)
    return Columns((), 0, 0, 0)


def _names_of(tasks):
    """Names of the columns of each task: all have them, or none."""
    names = [_get_feature_names(task[0]) for task in tasks]
    for t, own in enumerate(names):
        if (own is None) != (names[0] is None):
            raise ValueError(
                f"Task {t}: its columns have "
                f"{'no names' if own is None else 'names'}, unlike those of task 0. "
                "Columns are matched by name, so all tasks need them, or none."
            )
        if own is not None:
            _refuse_duplicates(own)
    return names


def _layout(rows):
    """Names (or None) and number of columns; None where `rows` is no table."""
    rows = _to_numpy(rows)
    names = _get_feature_names(rows)
    if names is not None:
        _refuse_duplicates(names)
    shape = np.shape(rows) if hasattr(rows, "shape") else _shape_of(rows)
    return names, shape[1] if len(shape) == 2 else None


def _shape_of(rows):
    try:
        return np.asarray(rows).shape
    except ValueError:  # ragged lists
        return ()


def _refuse_images(X, which=""):
    if X.ndim > 2:
        raise ValueError(
            f"{which}X has rows of shape {X.shape[1:]}, but tables are needed: one "
            "number for each row and column."
        )


def _filled(X, places, width):
    """Rows of a task, each column in its place, NaN elsewhere."""
    if np.array_equal(places, np.arange(width)):
        return X.copy()
    dtype = np.result_type(X.dtype, np.float32) if X.dtype.kind != "O" else X.dtype
    wide = np.full((len(X), width), np.nan, dtype=dtype)
    wide[:, places] = X
    return wide
