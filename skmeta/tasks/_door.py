"""The one door through which data come in, whatever form it has."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import narwhals.stable.v1 as nw
import numpy as np
from scipy.sparse import issparse
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _get_feature_names,
    _num_samples,
    check_array,
    check_consistent_length,
    check_X_y,
    validate_data,
)

from ._table import TaskTable, label_kind, ranges, table_from_codes

#: Numbers beyond it overflow when they are squared, and become NaN later.
LARGEST = np.float64(1e150)


def is_task_list(X) -> bool:
    """Whether ``X`` is a collection of ``(X, y)`` pairs.

    Examples
    --------
    >>> from skmeta.tasks import is_task_list
    >>> is_task_list([([[0.0]], [1.0])])
    True
    >>> is_task_list([[0.0, 1.0], [1.0, 0.0]])
    False
    """
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(isinstance(task, tuple) and len(task) == 2 for task in X)
        and all(np.ndim(task[1]) > 0 or hasattr(task[0], "shape") for task in X)
    )


def read_tasks(
    estimator, X, y=None, groups=None, *, reset, group_column=None, classifier=False
) -> TaskTable:
    """Tasks from any input form, validated once.

    Parameters
    ----------
    estimator : estimator
        Remembers (``reset=True``) or checks the number and names of columns.
    X : list of (X, y) tuples, or array-like of shape (n_rows, ...)
        One pair per task, or rows in long format.
    y : array-like of shape (n_rows,), default=None
        Targets of rows in long format; must be None for a list of tasks.
    groups : array-like of shape (n_rows,), default=None
        Task id of each row in long format. Without it, and without a
        `group_column`, all rows are one task whose id is None.
    reset : bool
        Whether to remember the columns (``fit``) or to check them.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`.
    classifier : bool, default=False
        Whether `y` holds labels.

    Returns
    -------
    TaskTable
        Rows sorted by task, with `y` as it came.
    """
    if is_task_list(X):
        return _read_list(estimator, X, y, groups, reset, classifier)
    _refuse_other_collections(X, y)
    given, groups = split_group_column(X, groups, group_column)
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but "
            "the target y is None. Pass X and y, or a list of (X, y) tuples, one per "
            "task."
        )
    codes, ids = _factorize(groups, _n_rows(given))
    X, y = _validate(estimator, given, y, codes, ids, reset, classifier)
    if X is given or not X.flags.owndata:
        X = X.copy()  # rows are kept, and the user may reuse the array
    return table_from_codes(X, y, codes, ids)


def read_rows(estimator, X, groups=None, *, group_column=None) -> TaskTable:
    """Rows to predict, by task; the columns are checked against those of fit."""
    if is_task_list(X):
        raise TypeError(
            "X is a list of tasks, but rows are needed; pass the rows X and, where "
            "they belong to several tasks, their groups."
        )
    _refuse_generator(X)
    X, groups = split_group_column(X, groups, group_column)
    codes, ids = _factorize(groups, _n_rows(X))
    X, _ = _validate(estimator, X, None, codes, ids, False, False)
    return table_from_codes(X, None, codes, ids)


def _read_list(estimator, tasks, y, groups, reset, classifier):
    if y is not None or groups is not None:
        raise ValueError(
            "X is a list of (X, y) tasks, which carries its own targets and task "
            "ids; pass neither y nor groups."
        )
    Xs, ys = zip(*(_read_task(t, *task) for t, task in enumerate(tasks)), strict=True)
    _same_layout(Xs, ys, classifier)
    counts = np.array([len(x) for x in ys])
    codes = np.repeat(np.arange(len(tasks)), counts)
    rows = ranges(np.zeros_like(counts), counts)
    X, y = np.concatenate(Xs), np.concatenate(ys)
    names = _shared_names([task[0] for task in tasks])
    if names is not None:
        X = nw.from_dict(
            {name: X[:, j] for j, name in enumerate(names)},
            backend=nw.from_native(tasks[0][0], eager_only=True).implementation,
        ).to_native()
    ids = list(range(len(tasks)))
    X, y = _validate(estimator, X, y, codes, ids, reset, classifier, rows)
    if not X.flags.writeable:
        X = X.copy()
    return replace(table_from_codes(X, y, codes, ids), listed=True)


def _read_task(t, X, y):
    if issparse(X):
        raise TypeError(
            f"Task {t}: sparse data was passed for X, but dense data is required. Use "
            "'.toarray()' to convert to a dense numpy array."
        )
    try:
        X, y = np.asarray(_to_numpy(X)), _as_labels(y)
    except ValueError as error:
        raise ValueError(f"Task {t}: X and y should be arrays: {error}") from error
    if X.ndim < 2:
        raise ValueError(
            f"Task {t}: expected X with at least 2 dimensions (rows and columns), got "
            f"shape {X.shape}. Reshape your data to one row per sample."
        )
    if len(X) == 0:
        raise ValueError(f"Task {t} is empty: it has 0 sample(s).")
    if y.ndim != 1 and y.shape != (len(X), 1):
        raise ValueError(f"Task {t}: y should be a 1d array, got shape {y.shape}.")
    if len(y) != len(X):
        raise ValueError(
            f"Task {t}: X has {len(X)} rows and y has {len(y)}; found inconsistent "
            "numbers of samples."
        )
    return X, y.ravel()


def _same_layout(Xs, ys, classifier):
    shape = Xs[0].shape[1:]
    for t, X in enumerate(Xs):
        if X.shape[1:] != shape:
            raise ValueError(
                f"Task {t}: X has {X.shape[1]} features of shape {X.shape[1:]}, but "
                f"task 0 has {shape[0]} of shape {shape}; all tasks must have the same "
                "columns."
            )
    _same_kind(ys, classifier)


def _same_kind(ys, classifier):
    for t, y in enumerate(ys):
        if classifier and label_kind(y) != label_kind(ys[0]):
            raise TypeError(
                f"Task {t}: y has dtype {y.dtype}, but that of task 0 is "
                f"{ys[0].dtype}; labels of different types cannot be compared."
            )


def _shared_names(frames):
    """Column names of all tasks, which must agree in order; None without names."""
    all_names = [_get_feature_names(frame) for frame in frames]
    for t, names in enumerate(all_names):
        if (names is None) != (all_names[0] is None) or (
            names is not None and list(names) != list(all_names[0])
        ):
            raise ValueError(
                f"Task {t}: the feature names should match those of task 0 in the "
                f"same order; got {names!r} and {all_names[0]!r}."
            )
    if all_names[0] is not None:
        _refuse_duplicates(all_names[0])
    return all_names[0]


def _refuse_duplicates(names):
    values, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"X has duplicate columns: {values[counts > 1].tolist()}.")


def _refuse_generator(X):
    if hasattr(X, "__next__"):
        raise TypeError(
            "X is a generator, which can be read only once; pass list(X), a list of "
            "(X, y) tuples or of rows."
        )


def _refuse_other_collections(X, y):
    _refuse_generator(X)
    if isinstance(X, (list, tuple)) and len(X) == 0:
        raise ValueError("X is an empty list: 0 tasks, 0 sample(s).")
    if y is None and isinstance(X, list) and hasattr(X[0], "shape"):
        raise ValueError(
            "X is a list of arrays without targets; pass a list of (X, y) tuples, one "
            "per task."
        )


def split_group_column(X, groups, group_column):
    """Take the task id out of `X` where it travels inside; ids may be None."""
    X = _to_numpy(X)
    if group_column is None:
        return X, groups
    if groups is not None:
        raise ValueError(
            f"Task ids were given twice: by groups= and by group_column="
            f"{group_column!r}. Use one of them."
        )
    if hasattr(X, "index") and group_column in getattr(X.index, "names", ()):
        return X, np.asarray(X.index.get_level_values(group_column))
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return _pop_column(frame, group_column)
    X = np.asarray(X)
    known = X.ndim == 2 and group_column in range(-X.shape[1], X.shape[1])
    if not known:
        raise ValueError(_no_column(group_column, "an array"))
    return np.delete(X, group_column, axis=1), X[:, group_column]


def drop_group_column(X, group_column, n_features):
    """Rows without the task ids that travel inside `X`, if they do."""
    if group_column is None or np.shape(X)[1] == n_features:
        return X
    return split_group_column(X, None, group_column)[0]


def _pop_column(frame, group_column):
    name = group_column
    n_columns = len(frame.columns)
    if name not in frame.columns and name in range(-n_columns, n_columns):
        name = frame.columns[name]
    if name not in frame.columns:
        raise ValueError(_no_column(group_column, f"columns {frame.columns[:10]}"))
    return frame.drop(name).to_native(), frame.get_column(name).to_numpy()


def _no_column(group_column, got):
    return (
        f"group_column={group_column!r} is not in X, which is {got}. If a transformer "
        "dropped it, let the column pass through and keep the names with "
        "set_output(transform='pandas'), or pass groups=."
    )


def _to_numpy(X):
    if hasattr(X, "detach") and hasattr(X, "cpu"):
        return X.detach().cpu().numpy()
    return X


def _n_rows(X):
    try:
        return _num_samples(X)
    except TypeError:  # no rows at all: validation will say so
        return 0


def _factorize(groups, n_rows):
    """Codes and ids; ids are sorted, so that the order of tasks does not matter."""
    if groups is None:
        return np.zeros(n_rows, dtype=np.intp), [None]
    if isinstance(groups, list) and any(isinstance(task, tuple) for task in groups):
        groups = _objects(groups)
    groups = _as_labels(groups)
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups.ravel()
    if groups.ndim != 1:
        raise ValueError(
            f"groups should be a 1d array of one task id per row, got shape "
            f"{groups.shape}. A column of X is named by group_column."
        )
    if len(groups) != n_rows:
        raise ValueError(
            f"groups has {len(groups)} entries, but X has {n_rows} rows; pass one "
            "task id per row."
        )
    missing = _is_missing(groups)
    if missing.any():
        raise ValueError(
            f"groups contains a missing task id (NaN) in row {int(missing.argmax())}."
        )
    try:
        ids, codes = np.unique(groups, return_inverse=True)
        return codes.ravel(), ids.tolist()
    except TypeError:  # ids of types that do not compare with each other
        values = groups.tolist()
        known = sorted(set(values), key=lambda task: (type(task).__name__, str(task)))
        index = {task: i for i, task in enumerate(known)}
        return np.array([index[task] for task in values], dtype=np.intp), known


def _as_labels(values):
    """An array; numbers and NaN in a list beside strings do not become strings."""
    values = _to_numpy(values)
    array = np.asarray(values)
    if (
        array.dtype.kind in "US"
        and isinstance(values, (list, tuple))
        and not all(isinstance(value, (str, bytes)) for value in values)
    ):
        return _objects(values)
    return array


def _objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _is_missing(values):
    if values.dtype.kind in "fcmM":
        return np.isnan(values) if values.dtype.kind in "fc" else np.isnat(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)

    def missing(value):
        try:
            return value is None or bool(value != value)
        except TypeError:  # pandas.NA
            return True

    return np.fromiter(map(missing, values), dtype=bool, count=len(values))


def _validate(estimator, X, y, codes, ids, reset, classifier, rows=None):
    """Checked arrays; `rows` is how rows are counted in errors, where not through.

    With `reset` None the columns are neither remembered nor held against those of fit.
    NaN in `X` is a missing value where the estimator has the tag for it.
    """
    missing = get_tags(estimator).input_tags.allow_nan
    names = _get_feature_names(X)
    if names is not None:
        _refuse_duplicates(names)
    y = y if y is None or hasattr(y, "dtype") else _as_labels(y)
    try:
        X, y = _checked(estimator, X, y, reset, classifier, missing)
    except (ValueError, TypeError) as error:
        rows = np.arange(len(codes)) if rows is None else rows
        where = _locate(X, y, codes, ids, names, rows, classifier, missing)
        if not where:
            raise
        raise type(error)(f"{error}\nFirst found in {where}.") from error
    if reset is not None:
        _check_shape(estimator, X, reset)
    check_consistent_length(X, codes)
    return X, y


def _checked(estimator, X, y, reset, classifier, missing):
    params = {"allow_nd": True, "ensure_all_finite": "allow-nan" if missing else True}
    check, check_both = check_array, check_X_y
    if reset is None:
        params["estimator"] = estimator
    else:
        check = check_both = partial(validate_data, estimator, reset=reset)
    if y is None:
        return _numbers(check(X, **params), "X", missing), None
    y = _to_numpy(y)
    X, y = check_both(X, y, y_numeric=not classifier, **params)
    X = _numbers(X, "X", missing)
    if _is_missing(y).any():  # sklearn takes None among objects
        raise ValueError("Input y contains NaN or None.")
    if not classifier:
        return X, _numbers(y, "y").astype(np.float64)
    if y.dtype.kind == "O" and len({isinstance(label, str) for label in y}) > 1:
        raise TypeError(
            "y has both strings and other labels; labels of different types cannot be "
            "compared."
        )
    # Each label thrice: sklearn takes few rows per class for a regression problem.
    check_classification_targets(np.tile(np.unique(y), 3))
    return X, np.array(y)


def _numbers(values, name, missing=False):
    """Real numbers of a type that Torch has."""
    if values.dtype.kind == "O":
        values = values.astype(np.float64)
        if not _finite(values, missing).all():  # None was no NaN before
            raise ValueError(f"Input {name} contains NaN or infinity.")
    if values.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} has dtype {values.dtype}, but real numbers are needed; convert "
            "strings, dates and durations first."
        )
    # NaN, where it is let through, is left out by fmax and fmin.
    top, bottom = np.fmax.reduce, np.fmin.reduce
    if values.size and max(top(values, None), -float(bottom(values, None))) > LARGEST:
        raise ValueError(f"{name} contains values too large to be squared; scale it.")
    native = values.dtype.newbyteorder("=")
    return values.astype(np.float64 if native.itemsize > 8 else native, copy=False)


def _check_shape(estimator, X, reset):
    """The number of columns is sklearn's to check, the further axes are ours."""
    if reset:
        estimator._feature_shape = X.shape[1:]
    elif X.shape[1:] != estimator._feature_shape:
        raise ValueError(
            f"X has rows of shape {X.shape[1:]}, but {type(estimator).__name__} was "
            f"fitted with rows of shape {estimator._feature_shape}."
        )


def _locate(X, y, codes, ids, names, rows, classifier, missing=False):
    """Task, row and column of the first cell that cannot be used."""
    for name, values in (("X", X), ("y", y)):
        try:
            values = np.asarray(values)
        except (ValueError, TypeError):
            continue
        if values.ndim == 0 or len(values) != len(codes):
            continue
        is_label = name == "y" and classifier
        bad = ~_finite(values, missing and name == "X")
        if is_label and values.dtype.kind not in "fc":
            bad = _is_missing(values.ravel())
        if not bad.any():
            continue
        row, *column = (int(i[0]) for i in np.nonzero(bad))
        task = "" if ids == [None] else f"task {ids[codes[row]]!r}, "
        where = f"{task}row {rows[row]}"
        if name == "X" and column:
            where += (
                f", column {column[0] if names is None else repr(names[column[0]])}"
            )
        return f"{where} of {name}"
    return ""


def _finite(values, missing=False):
    """Which values can be used; NaN can where it stands for a missing value."""
    kind = values.dtype.kind
    if kind == "f":
        return ~(np.abs(values) > LARGEST) if missing else np.abs(values) <= LARGEST
    if kind == "c":
        return np.isfinite(values) & (values.imag == 0)
    if kind in "biu":
        return np.ones(values.shape, dtype=bool)

    def finite(value):
        try:
            value = float(np.nan if value is None else value)
            return bool(np.isfinite(value)) or (missing and np.isnan(value))
        except (TypeError, ValueError):
            return False

    return np.vectorize(finite, otypes=[bool])(values)
