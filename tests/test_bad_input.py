"""Faults in the input: refused with a clear error, and nothing half-changed.

Every public meta-learner goes through every case, by being in `skmeta.__all__`.
"""

import copy
import functools
import re
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNet

from skmeta import DivergenceWarning, SingleTaskWarning
from skmeta.heterogeneous._base import TableMetaEstimator
from skmeta.modules import MLP
from skmeta.utils.discovery import all_estimators
from skmeta.utils.estimator_checks import ragged_tasks

pytestmark = pytest.mark.usefixtures("short_training")

ESTIMATORS = dict(all_estimators())
#: An instance of each with the names of its parameters: sklearn reads them anew from
#: the signature at every call, and there are tens of thousands of cases.
DEFAULTS = {
    name: (estimator(), {*estimator._get_param_names()})
    for name, estimator in ESTIMATORS.items()
}
NAMES = ["a", "b", "c"]
#: Methods that take targets; "again" is a second fit, "go on" a second partial_fit.
FRESH = ("fit", "partial_fit")
KNOWN = ("again", "go on", "adapt", "partial_adapt", "score")
#: Those that hold new data against what fit has seen.
LATER = ("go on", "adapt", "partial_adapt", "score")
PREDICT = ("predict", "predict_proba")
METHODS = {"again": "fit", "go on": "partial_fit"}


def new(name, **params):
    """Default construction, but for a seed."""
    estimator = ESTIMATORS[name]()
    if "random_state" in estimator.get_params():
        params = {"random_state": 0, **params}
    return estimator.set_params(**params)


@functools.cache
def tasks_of(name):
    return ragged_tasks(new(name))


@functools.cache
def _fitted(name, kind):
    model = new(name)
    if "n_episodes" in model.get_params():
        model.set_params(n_episodes=1)
    X, y, groups = to_long(tasks_of(name))
    if kind == "frames":
        X = pd.DataFrame(X, columns=NAMES)
    elif kind == "per_task":
        model.set_params(label_space="per_task")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        return model.fit(X, y, groups=groups)


def fitted(name, kind="arrays"):
    """A copy of the one fitted estimator of its class and kind."""
    return copy.copy(_fitted(name, kind))


def to_long(tasks):
    """Rows of all tasks; the ids are strings."""
    X, y = (np.concatenate(parts) for parts in zip(*tasks, strict=True))
    return (
        X,
        y,
        np.repeat([f"s{t}" for t in range(len(tasks))], [len(y) for _, y in tasks]),
    )


# ---------------------------------------------------------------------- forms of input
def as_list(tasks):
    return {"X": tasks}


def as_rows(tasks):
    X, y, groups = to_long(tasks)
    return {"X": X, "y": y, "groups": groups}


def as_list_of_frames(tasks):
    return {"X": [(pd.DataFrame(X, columns=NAMES), y) for X, y in tasks]}


def as_frame(tasks):
    arguments = as_rows(tasks)
    return {**arguments, "X": pd.DataFrame(arguments["X"], columns=NAMES)}


FORMS = {
    "list": as_list,
    "rows": as_rows,
    "list of frames": as_list_of_frames,
    "frame": as_frame,
}


def anyone(estimator):
    return True


@dataclass
class Case:
    """A call that must be refused.

    `arguments` makes those of the call from good tasks; `match` is found in the
    error, after the names of the task and column have been filled in.
    """

    fault: str
    call: str
    arguments: Callable
    match: str
    kind: str = "arrays"
    params: dict = field(default_factory=dict)
    error: tuple = (ValueError, TypeError)
    applies: Callable = anyone

    def __str__(self):
        return f"{self.call}-{self.fault}"

    def is_for(self, name):
        estimator, known = DEFAULTS[name]
        return (
            hasattr(estimator, METHODS.get(self.call, self.call))
            and all(param in known for param in self.params)
            and (self.kind != "per_task" or "label_space" in known)
            and self.applies(estimator)
        )


def cases(fault, calls, arguments, match, **options):
    return [Case(fault, call, arguments, match, **options) for call in calls]


def neural(estimator):
    return hasattr(estimator, "n_queries")


def regressor(estimator):
    return not is_classifier(estimator)


def without_missing(estimator):
    """NaN is an error, and not a missing value."""
    return not get_tags(estimator).input_tags.allow_nan


def same_columns(estimator):
    """All tasks must have the same columns; others have tests of their own."""
    return not isinstance(estimator, TableMetaEstimator)


# ------------------------------------------------------------- cells, in all the forms
def with_cell(value, dtype):
    """Put a value into row 1, column 1 of task 2."""

    def spoil(tasks):
        X, y = tasks[2]
        X = X.astype(dtype)
        X[1, 1] = value
        return [*tasks[:2], (X, y), *tasks[3:]]

    return spoil


def with_target(value, dtype):
    """Put a value into row 1 of the targets of task 2."""

    def spoil(tasks):
        tasks = [(X, y.astype(dtype)) for X, y in tasks]
        tasks[2][1][1] = value
        return tasks

    return spoil


def located(form, message, what):
    """The message, and then the place of the bad cell as the form counts it."""
    if form in ("list", "list of frames"):
        task, row = "2", "1"
    else:
        task, row = "'s2'", r"{row}"
    column = {"X": ", column 1 of X", "y": " of y"}[what]
    if "frame" in form:
        column = column.replace("1", "'b'")
    return rf"(?s){message}.*task {task}, row {row}{column}"


def cell_cases():
    cells = {
        "NaN": (np.nan, float, "NaN"),
        "inf": (-np.inf, float, "infinity"),
        "huge number": (-1e200, float, "too large"),
        "None": (None, object, "NaN"),
        "NA": (pd.NA, object, "NAType|NaN"),
        "string": ("high", object, "convert string to float"),
        "dict": ({}, object, "float|number"),
        "date": (pd.Timestamp(0), object, "Timestamp"),
        "complex": (1j, complex, "Complex data not supported"),
    }
    for name, (value, dtype, message) in cells.items():
        spoil = with_cell(value, dtype)
        for form, make in FORMS.items():
            if "frame" in form and name not in ("NaN", "string"):
                continue
            yield from cases(
                f"{name} in X of a {form}",
                [*FRESH, *KNOWN, *(() if "list" in form else PREDICT)],
                lambda tasks, spoil=spoil, make=make: make(spoil(tasks)),
                located(form, message, "X"),
                kind="frames" if "frame" in form else "arrays",
                applies=without_missing if name in ("NaN", "None") else anyone,
            )


def target_cases():
    targets = {
        "NaN": (np.nan, float, "NaN", None),
        "inf": (np.inf, float, "infinity", None),
        "huge number": (1e200, float, "too large", regressor),
        "None": (None, object, "NaN", None),
        "string": ("high", object, "convert string to float", regressor),
    }
    for name, (value, dtype, message, applies) in targets.items():
        spoil = with_target(value, dtype)
        for form in ("list", "rows"):
            yield from cases(
                f"{name} in y of a {form}",
                [*FRESH, *KNOWN],
                lambda tasks, spoil=spoil, form=form: FORMS[form](spoil(tasks)),
                located(form, message, "y"),
                applies=applies or anyone,
            )


# ---------------------------------------------------------------------- other faults
def change(**changes):
    """Rows in long format with some arguments replaced: functions of what they were."""

    def arguments(tasks):
        rows = as_rows(tasks)
        return {**rows, **{k: f(rows[k]) for k, f in changes.items()}}

    return arguments


def replaced(f, make=as_list):
    """A list of tasks of which `f` makes another task 2."""
    return lambda tasks: make([*tasks[:2], f(*tasks[2]), *tasks[3:]])


def frame_with(columns, make=as_frame):
    def arguments(tasks):
        given = make(tasks)
        given["X"] = given["X"].set_axis(columns, axis=1)
        return given

    return arguments


def column_of_one(tasks):
    """List of frames of which that of task 2 has another order of columns."""
    given = as_list_of_frames(tasks)
    frame, y = given["X"][2]
    given["X"][2] = frame[NAMES[::-1]], y
    return given


def missing_id(value, dtype=object):
    def spoil(groups):
        groups = groups.astype(dtype)
        groups[3] = value
        return groups

    return spoil


ROWS = [*FRESH, *KNOWN, *PREDICT]


def layout_cases():
    any_fit = [*FRESH, *KNOWN]
    wider = replaced(lambda X, y: (X[:, [0, 1, 2, 0]], y))
    yield from cases(
        "widths", any_fit, wider, "Task 2: X has 4 features.*task 0 has 3",
        applies=same_columns,
    )  # fmt: skip
    yield from cases(
        "axes", any_fit, replaced(lambda X, y: (X[:, None], y)), r"Task 2: .*\(1, 3\)"
    )
    yield from cases(
        "task of 1-d X", any_fit, replaced(lambda X, y: (X[:, 0], y)),
        "Task 2: expected X with at least 2 dimensions",
    )  # fmt: skip
    ragged = replaced(lambda X, y: ([[1.0], *X[1:].tolist()], y))
    yield from cases(
        "ragged lists", any_fit, ragged, "Task 2: X and y should be arrays"
    )
    yield from cases(
        "1-d X", ROWS, change(X=lambda X: X[:, 0]), "Expected 2D array, got 1D array"
    )
    yield from cases(
        "scalar X", any_fit, change(X=lambda X: 3.0), "2D array|groups has"
    )
    for width, columns in ((4, [0, 1, 2, 0]), (2, [0, 1])):
        match = rf"X has {width} features, but .* is expecting 3 features"
        one = change(X=lambda X, columns=columns: X[:, columns])
        # Known tasks keep their columns; adapting afresh may be to others.
        held = ("go on", "partial_adapt", "score", *PREDICT)
        yield from cases(f"{width} columns", held, one, match)
        yield from cases(
            f"{width} columns", ("adapt",), one, match, applies=same_columns
        )

        def each(tasks, columns=columns):
            return as_list([(X[:, columns], y) for X, y in tasks])

        yield from cases(
            f"{width} columns of all tasks", LATER, each, match, applies=same_columns
        )
    yield from cases(
        "images", [*LATER, *PREDICT], change(X=lambda X: X[:, :, None]),
        r"rows of shape \(3, 1\).*fitted with rows of shape \(3,\)",
    )  # fmt: skip
    strings = change(X=lambda X: X.astype(str))
    yield from cases("str X", ROWS, strings, "strings")
    dates = change(X=lambda X: X.astype("M8[D]"))
    yield from cases(
        "dates as X", ROWS, dates, r"(?s)X has dtype datetime64\[D\].*'s0', row 0, col"
    )
    yield from cases(
        "sparse X", ROWS, change(X=csr_array), "(?i)sparse data was passed"
    )
    yield from cases(
        "sparse task", any_fit, replaced(lambda X, y: (csr_array(X), y)),
        "Task 2: sparse data was passed for X",
    )  # fmt: skip


def collection_cases():
    any_fit = [*FRESH, *KNOWN]
    yield from cases("no task", any_fit, lambda tasks: {"X": []}, "0 tasks, 0 sample")
    yield from cases("no row", PREDICT, lambda tasks: {"X": []}, "0 sample|got 1D")
    nothing = change(**{k: lambda v: v[:0] for k in ("X", "y", "groups")})
    yield from cases("empty table", ROWS, nothing, r"0 sample\(s\)")
    yield from cases(
        "empty task", any_fit, replaced(lambda X, y: (X[:0], y[:0])), "Task 2 is empty"
    )
    generator = lambda tasks: {"X": (task for task in tasks)}  # noqa: E731
    yield from cases("generator", [*any_fit, *PREDICT], generator, "X is a generator")
    yield from cases("list of tasks", PREDICT, as_list, "X is a list of tasks")
    yield from cases(
        "list without targets", any_fit, lambda tasks: {"X": [X for X, _ in tasks]},
        "list of arrays without targets",
    )  # fmt: skip
    yield from cases(
        "lists for tuples", any_fit, lambda tasks: {"X": [list(t) for t in tasks]},
        r"requires y to be passed.*a list of \(X, y\) tuples",
    )  # fmt: skip
    yield from cases(
        "no y", any_fit, change(y=lambda y: None), "requires y to be passed"
    )
    yield from cases(
        "list and y", any_fit, lambda tasks: {"X": tasks, "y": as_rows(tasks)["y"]},
        "neither y nor groups",
    )  # fmt: skip
    yield from cases(
        "list and groups", any_fit,
        lambda tasks: {"X": tasks, "groups": as_rows(tasks)["groups"]},
        "neither y nor groups",
    )  # fmt: skip
    yield from cases(
        "short y",
        any_fit,
        change(y=lambda y: y[:-1]),
        "inconsistent numbers of samples",
    )
    yield from cases(
        "short y of a task", any_fit, replaced(lambda X, y: (X, y[1:])),
        r"Task 2: X has \d+ rows and y has \d+",
    )  # fmt: skip
    yield from cases(
        "2-d y", any_fit, change(y=lambda y: np.c_[y, y]), "should be a 1d array"
    )
    yield from cases(
        "2-d y of a task", any_fit, replaced(lambda X, y: (X, np.c_[y, y])),
        "Task 2: y should be a 1d array",
    )  # fmt: skip


def name_cases():
    any_fit = [*FRESH, *KNOWN]
    twice = ["a", "b", "a"]
    options = {"kind": "frames"}
    yield from cases("duplicate names", ROWS, frame_with(twice), "'a'", **options)
    yield from cases(
        "duplicate names in tasks", any_fit,
        lambda tasks: {"X": [(pd.DataFrame(X, columns=twice), y) for X, y in tasks]},
        "'a'", **options,
    )  # fmt: skip
    yield from cases(
        "order within the list", any_fit, column_of_one,
        "Task 2: the feature names should match those of task 0",
        applies=same_columns, **options,
    )  # fmt: skip
    yield from cases(
        "a task without names", any_fit, as_list_with_an_array, "Task 2: .* names",
        **options,
    )  # fmt: skip
    for form, make in (("frame", as_frame), ("list", as_list_of_frames)):
        calls = LATER if form == "list" else [*LATER, *PREDICT]

        def reordered(tasks, make=make):
            given = make(tasks)
            if make is as_frame:
                return {**given, "X": given["X"][NAMES[::-1]]}
            return {"X": [(frame[NAMES[::-1]], y) for frame, y in given["X"]]}

        yield from cases(
            f"order of a {form}",
            calls,
            reordered,
            "must be in the same order",
            applies=anyone if form == "frame" else same_columns,
            **options,
        )
    other = frame_with(["a", "b", "q"])
    unseen = "(?s)unseen at fit time:\n- q.*now missing:\n- c"
    yield from cases(
        "other names", ("go on", "partial_adapt", "score", *PREDICT), other, unseen,
        **options,
    )  # fmt: skip
    yield from cases(
        "other names", ("adapt",), other, unseen, applies=same_columns, **options
    )
    polars = change(X=lambda X: pl.DataFrame(X, schema=NAMES[::-1]))
    yield from cases(
        "order of polars", [*LATER, *PREDICT], polars, "must be in the same order",
        **options,
    )  # fmt: skip


def as_list_with_an_array(tasks):
    """List of frames, but for task 2."""
    given = as_list_of_frames(tasks)
    given["X"][2] = tasks[2]
    return given


def group_cases():
    fourth = lambda groups: np.arange(len(groups)) == 3  # noqa: E731
    missing = {
        "NaN": missing_id(np.nan),
        "None": missing_id(None),
        "NA": missing_id(pd.NA),
        "NaN as float": lambda groups: np.where(fourth(groups), np.nan, 1.0),
        "NaN in a list": lambda groups: list(missing_id(np.nan)(groups)),
        "NaT": lambda groups: missing_id("NaT", "M8[D]")(np.ones(len(groups))),
        "null of polars": lambda groups: pl.Series(list(missing_id(None)(groups))),
        "NA of pandas": lambda groups: pd.array(missing_id(None)(groups), "string"),
    }  # fmt: skip
    for name, spoil in missing.items():
        match = r"groups contains a missing task id \(NaN\) in row 3"
        calls = ROWS if name == "NaN" else ("fit", "adapt", "predict")
        yield from cases(f"{name} in groups", calls, change(groups=spoil), match)
    lengths = r"groups has \d+ entries, but X has \d+ rows"
    yield from cases("short groups", ROWS, change(groups=lambda g: g[:-1]), lengths)
    yield from cases("long groups", ROWS, change(groups=lambda g: [*g, "s0"]), lengths)
    one_each = "groups should be a 1d array of one task id per row"
    yield from cases("2-d groups", ROWS, change(groups=lambda g: np.c_[g, g]), one_each)
    yield from cases("name as groups", ROWS, change(groups=lambda g: "store"), one_each)

    def column(tasks):
        arguments = as_frame(tasks)
        groups = arguments.pop("groups")
        return {**arguments, "X": arguments["X"].assign(store=groups)}

    def without(tasks):
        return {**column(tasks), "X": column(tasks)["X"][NAMES]}

    options = {"kind": "frames", "params": {"group_column": "store"}}
    absent = "group_column='store' is not in X.*set_output"
    yield from cases("no column", ROWS, without, absent, **options)
    yield from cases(
        "no column of an array", ROWS, change(groups=lambda g: None), absent, **options
    )
    for place in (3, -9):
        yield from cases(
            f"no column {place}", ROWS, change(groups=lambda g: None),
            f"group_column={place} is not in X", params={"group_column": place},
        )  # fmt: skip
    both = lambda tasks: {**column(tasks), "groups": as_rows(tasks)["groups"]}  # noqa: E731
    yield from cases(
        "column and groups",
        ROWS,
        both,
        "given twice: .*group_column='store'",
        **options,
    )

    def hole(tasks):
        X = column(tasks)["X"]
        X["store"] = missing_id(None)(X["store"].to_numpy())
        return {**column(tasks), "X": X}

    yield from cases(
        "NaN in the column", ROWS, hole, "missing task id .*row 3", **options
    )


def label_cases():
    any_fit = [*FRESH, *KNOWN]
    options = {"applies": is_classifier}
    words = {"int and str": lambda y: y.astype(str), "str and int": lambda y: y}
    for name, f in words.items():
        swap = (lambda y: y) if name == "int and str" else (lambda y: y.astype(str))

        def mixed(tasks, f=f, swap=swap):
            return as_list(
                [(X, (f if t == 2 else swap)(y)) for t, (X, y) in enumerate(tasks)]
            )

        yield from cases(
            name, any_fit, mixed, "Task 2: y has dtype.*labels of different types",
            **options,
        )  # fmt: skip
    both = change(y=lambda y: ["a" if i % 2 else i % 3 for i in range(len(y))])
    yield from cases("mixed y", any_fit, both, "labels of different types", **options)
    strings = change(y=lambda y: y.astype(str))
    other = "not seen: '[01]' in task 's0'|labels of different types"
    yield from cases("str after int", LATER, strings, other, **options)
    yield from cases(
        "str after int, per task", ("adapt", "partial_adapt", "score"),
        lambda tasks: {k: v[: len(tasks[0][1])] for k, v in strings(tasks).items()},
        "labels of different types", kind="per_task", **options,
    )  # fmt: skip
    yield from cases(
        "continuous y", any_fit, change(y=lambda y: y + 0.5), "Unknown label type",
        **options,
    )  # fmt: skip
    unseen = replaced(lambda X, y: (X, np.where(y == 0, 9, y)), as_rows)
    yield from cases(
        "unseen class", ("go on", "adapt", "partial_adapt"), unseen,
        "a label that fit has not seen: 9 in task 's2'", **options,
    )  # fmt: skip
    yield from cases(
        "unseen class of a list", LATER, replaced(lambda X, y: (X, np.where(y, 9, y))),
        "a label that fit has not seen: 9 in task 2", **options,
    )  # fmt: skip
    yield from cases(
        "class not in classes", FRESH[1:],
        lambda tasks: {**as_rows(tasks), "classes": [0, 5]},
        r"labels not in classes: .*1", **options,
    )  # fmt: skip
    one = lambda X, y: (X, np.zeros_like(y))  # noqa: E731
    yield from cases(
        "one class per task", ("adapt", "partial_adapt", "score"), replaced(one),
        "task 2 contain only one class", kind="per_task", **options,
    )  # fmt: skip

    def new_id(tasks):
        rows = as_rows([tasks[0], one(*tasks[1]), *tasks[2:]])
        return {**rows, "groups": np.char.add("new ", rows["groups"])}

    yield from cases(
        "one class in a new task", ("adapt", "partial_adapt", "score"), new_id,
        "task 'new s1' contain only one class", kind="per_task", **options,
    )  # fmt: skip
    yield from cases(
        "one class in all", [*FRESH, "again"], change(y=np.zeros_like),
        "2 classes.*only one class", **options,
    )  # fmt: skip
    yield from cases(
        "single rows with labels of their own", [*FRESH, "again"],
        change(groups=lambda g: np.arange(len(g))), "at least two rows",
        params={"label_space": "per_task"}, **options,
    )  # fmt: skip
    yield from cases(
        "single rows with shared labels", [*FRESH, "again"],
        change(groups=lambda g: np.arange(len(g))), "at least two rows",
        params={"label_space": "shared"},
        applies=lambda e: is_classifier(e) and neural(e),
    )  # fmt: skip
    yield from cases(
        "pool of single rows", [*FRESH, "again"],
        lambda tasks: {"X": tasks[0][0], "y": np.arange(len(tasks[0][1]))},
        "at least two rows", applies=lambda e: is_classifier(e) and neural(e),
    )  # fmt: skip


def target_type_cases():
    options = {"applies": regressor}
    for name, f in {
        "str y": lambda y: y.astype(str),
        "dates as y": lambda y: y.astype("M8[D]"),
        "complex y": lambda y: y + 1j,
    }.items():
        match = "(?i)y has dtype .*numbers|complex data not supported"
        yield from cases(name, [*FRESH, *KNOWN], change(y=f), match, **options)


def score_cases():
    weighted = lambda w: lambda tasks: {  # noqa: E731
        **as_rows(tasks), "sample_weight": w(as_rows(tasks)["y"]),
    }  # fmt: skip
    for name, w, match in (
        ("negative weights", lambda y: -np.ones(len(y)), "(?i)negative values"),
        ("NaN as weight", lambda y: np.full(len(y), np.nan), "sample_weight"),
        ("short weights", lambda y: np.ones(3), "sample_weight"),
        ("no weight", lambda y: np.zeros(len(y)), "(?i)sample.weight"),
    ):
        yield from cases(name, ("score",), weighted(w), match)
    yield from cases(
        "nothing to judge", ("score",),
        lambda tasks: as_list([(X[:1], y[:1]) for X, y in tasks]),
        "No new task has rows left to be judged", applies=is_classifier,
    )  # fmt: skip


def unfitted_cases():
    match = "not fitted yet"
    yield from cases(
        "unfitted", ("adapt", "partial_adapt", "score", *PREDICT), as_rows, match,
        kind="nothing", error=(NotFittedError,),
    )  # fmt: skip


UNKNOWN = object()
COUNTS = [-1, 0, 1.5, "many", None, (3, 1), (0, 2), (1, 2, 3), (1.5, 2), np.array(3)]
BAD_VALUES = {
    "n_ways": COUNTS,
    "n_shots": COUNTS,
    "n_queries": COUNTS,
    "n_episodes": [0, -1, "all"],
    "chunk_size": [0, 1.5],
    "support": ["last", None],
    "label_space": ["global", None],
    "class_balanced": ["yes"],
    "metric": ["manhattan"],
    "augment": ["flip"],
    "task_sampler": ["exp3"],
    "inner_lr": [-1, 0, "fast", None, [-0.1], [], np.nan],
    "inner_steps": [0, 1.5, None],
    "adapt_steps": [-1, 1.5, "many"],
    "first_order": ["yes"],
    "adapted": ["tail"],
    "head_init": ["zeros"],
    "n_layers": [0],
    "n_heads": [0],
    "use_names": ["yes"],
    "width": [0],
    "transductive": ["yes"],
    "covariance": ["spherical", None],
    "cv": [1, None],
    "base_estimator": ["boosting", 3],
    "estimator": ["mlp", 3, pd.DataFrame],
    "group_column": [1.5],
    "random_state": ["seed", -1],
}


def parameter_cases():
    """Values out of range, and for every parameter one of no known type."""
    for name, (estimator, params) in DEFAULTS.items():
        constraints = estimator._parameter_constraints
        for param in sorted(params):
            assert param in constraints, f"{name} does not constrain {param}"
            values = [*BAD_VALUES.get(param, [])]
            if constraints[param] != "no_validation":
                values.append(UNKNOWN)
            if not neural(estimator):
                # No episodes: a score without support rows is fine.
                values = [
                    v for v in values if not (param == "n_shots" and v is COUNTS[1])
                ]
            for value in values:
                calls = [*FRESH, *(("again", "go on") if value is UNKNOWN else ())]
                shown = "an object" if value is UNKNOWN else repr(value)
                yield from cases(
                    f"{param}={shown}", calls, as_rows,
                    rf"(?s)\b{param}\b.*", params={param: value},
                    applies=lambda e, name=name: type(e) is ESTIMATORS[name],
                    error=(InvalidParameterError, ValueError, TypeError),
                )  # fmt: skip
    net = NeuralNet(MLP, torch.nn.MSELoss, device="cuda:99", train_split=None)
    yield from cases(
        "no such device", [*FRESH, "again"], as_rows, "device='cuda:99'",
        params={"estimator": net}, applies=neural,
    )  # fmt: skip


MAKERS = [
    cell_cases, target_cases, layout_cases, collection_cases, name_cases, group_cases,
    label_cases, target_type_cases, score_cases, unfitted_cases, parameter_cases,
]  # fmt: skip


def refused():
    """For each estimator and fault the calls that must refuse it, as one test.

    A test for each call would be twenty thousand tests, whose bookkeeping costs more
    than the calls.
    """
    together = defaultdict(list)
    for make in MAKERS:
        for case in make():
            for name in ESTIMATORS:
                if case.is_for(name):
                    together[name, case.fault].append(case)
    for (name, fault), found in together.items():
        assert len({case.call for case in found}) == len(found), (name, fault)
        yield pytest.param(name, found, id=f"{name}-{fault}")


def snapshot(estimator):
    """Every attribute; they are only ever rebound, so identity is what counts."""
    return {name: (id(value), value) for name, value in vars(estimator).items()}


@pytest.mark.parametrize("name, found", [*refused()])
def test_refused(name, found):
    """Every call of a fault is tried, and all that went wrong are named."""
    wrong = []
    for case in found:
        try:
            check_refused(name, case)
        except Exception as error:
            error.add_note(f"in the call: {case.call}")
            wrong.append(error)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} of {len(found)} calls", wrong)


def check_refused(name, case):
    if case.call in FRESH or case.kind == "nothing":
        model = new(name, **case.params)
    else:
        model = fitted(name, case.kind).set_params(**case.params)
    arguments = case.arguments(tasks_of(name))
    if case.call in PREDICT:
        arguments.pop("y", None)
    before = snapshot(model)
    states = model.states_ if hasattr(model, "states_") else None
    row = len(tasks_of(name)[0][1]) + len(tasks_of(name)[1][1]) + 1
    try:
        getattr(model, METHODS.get(case.call, case.call))(**arguments)
    except case.error as error:
        assert re.search(case.match.replace("{row}", str(row)), str(error))
    else:
        raise AssertionError("not refused")
    assert snapshot(model) == before
    assert getattr(model, "states_", None) is states
    if case.call in FRESH or case.kind == "nothing":
        assert vars(model) == new(name, **case.params).get_params(deep=False)
        assert not hasattr(model, "n_features_in_")


# -------------------------------------------------------------- odd, and yet accepted
def quick(name, **params):
    """Few steps of meta-training; parameters that the class lacks are left out."""
    params = {"n_episodes": 1, "label_space": "shared", **params}
    known = ESTIMATORS[name]().get_params()
    return new(name, **{k: v for k, v in params.items() if k in known})


def fits(name):
    """Odd collections to fit on, with parameters."""
    tasks = tasks_of(name)
    X, y, groups = to_long(tasks)
    one_label = np.zeros_like(y)
    odd = [(X[:4], one_label[:4]), (X[:1], y[:1])]
    yield "one label, one row", [*tasks, *odd], {}
    if not (is_classifier(new(name)) and neural(new(name))):
        yield "single rows", [(X[i : i + 1], y[i : i + 1]) for i in range(len(X))], {}
    yield "fewer rows than asked", tasks, {"n_shots": 50, "n_queries": 50}
    yield "fewer classes than asked", tasks, {"n_ways": 50, "label_space": "per_task"}
    yield "a wide range", tasks, {"n_ways": (1, 9), "n_queries": (1, 30)}
    yield "equal rows", [(np.ones_like(X), y) for X, y in tasks], {}
    yield "one column", [(X[:, :1], y) for X, y in tasks], {}
    yield "more columns than rows", [(np.tile(X, 8), y) for X, y in tasks], {}
    yield "booleans", [(X > 0, y) for X, y in tasks], {}
    yield "numbers as objects", [(X.astype(object), y) for X, y in tasks], {}
    for exponent in (-300, 25, 140):
        large = [(X * 10.0**exponent, y) for X, y in tasks]
        yield f"scale 1e{exponent}", large, {}
    if not is_classifier(new(name)):
        yield "constant target", [(X, one_label[: len(X)]) for X, _ in tasks], {}
        for exponent in (-300, 140):
            large = [(X, y * 10.0**exponent) for X, y in tasks]
            yield f"target 1e{exponent}", large, {}


def outputs(model, X, groups=None):
    """All that can be predicted."""
    values = [model.predict(X, groups=groups)]
    if is_classifier(model):
        assert set(values[0]) <= set(model.classes_)
        values = [model.predict_proba(X, groups=groups)]
        np.testing.assert_allclose(values[0].sum(axis=1), 1)
    elif hasattr(model, "prior_") or "Ridge" in type(model).__name__:
        values += model.predict(X, groups=groups, return_std=True)
    return values


def assert_finite(model, X, groups=None):
    for values in outputs(model, X, groups):
        assert np.isfinite(values).all()


FITS = [
    pytest.param(name, *fit[1:], id=f"{name}-{fit[0]}")
    for name in ESTIMATORS
    for fit in fits(name)
]
#: A refusal is fine where numbers are extreme; NaN is not.
extreme = pytest.mark.filterwarnings("ignore::skmeta.DivergenceWarning")


@extreme
@pytest.mark.parametrize("name, tasks, params", FITS)
def test_accepted_by_fit(name, tasks, params):
    try:
        model = quick(name, **params).fit(tasks)
        X = np.concatenate([X for X, _ in tasks])
        for t in (0, len(tasks) - 2, len(tasks) - 1):
            assert_finite(model, tasks[t][0], [t] * len(tasks[t][0]))
        if getattr(model, "label_space_", "shared") == "shared":
            assert_finite(model, X, ["never seen"] * len(X))
    except ValueError as error:
        assert re.search("diverged|too large|label that", str(error))
        largest = max(np.abs(np.asarray(A, float)).max() for A in tasks[0])
        assert largest > 1e5


def supports(name):
    """Odd support rows to adapt to, and rows to predict."""
    X, y = ragged_tasks(new(name), n_tasks=1, seed=1)[0]
    yield "one row", (X[:1], y[:1]), X
    yield "one label", (X[:5], np.zeros_like(y[:5])), X
    yield "equal rows", (np.tile(X[:1], (6, 1)), y[:6]), X
    yield "many rows", (np.tile(X, (50, 1)), np.tile(y, 50)), X
    yield "columns of another order in memory", (np.asfortranarray(X), y), X[::-1]
    yield "backwards", (X[::-1], y[::-1]), X[::-2, ::1]
    yield "one row to predict", (X, y), X[:1]
    yield "far away", (X, y), 1e6 * X
    for exponent in (4, 25, 140):
        yield f"scale 1e{exponent}", (X * 10.0**exponent, y), X * 10.0**exponent
        if not is_classifier(new(name)):
            yield f"target 1e{exponent}", (X, y * 10.0**exponent), X


SUPPORTS = [
    pytest.param(name, *support[1:], id=f"{name}-{support[0]}")
    for name in ESTIMATORS
    for support in supports(name)
]


@extreme
@pytest.mark.parametrize("name, support, query", SUPPORTS)
def test_accepted_by_adapt(name, support, query):
    model = fitted(name)
    try:
        assert_finite(model.adapt(*support), query)
        assert_finite(model.partial_adapt(*support), query)
    except ValueError as error:
        assert "diverged" in str(error)
        assert max(np.abs(values).max() for values in (*support, query)) > 1e3


PER_TASK = [
    name for name in ESTIMATORS if "label_space" in ESTIMATORS[name]().get_params()
]


@pytest.mark.parametrize("n_classes, n_rows", [(2, 2), (7, 7), (7, 30), (40, 45)])
@pytest.mark.parametrize("name", PER_TASK)
def test_accepted_by_adapt_with_labels_per_task(name, n_classes, n_rows):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n_rows, 3)), 10 + np.arange(n_rows) % n_classes
    model = fitted(name, "per_task").adapt(X, y)
    assert_finite(model, X)
    assert set(model.predict(X)) <= set(y)
    assert not model.predict_proba(X)[:, model.classes_ < 10].any()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_task_is_fitted_with_a_warning(name):
    X, y = tasks_of(name)[0]
    for call, arguments in (("fit", ([(X, y)],)), ("partial_fit", (X, y))):
        with pytest.warns(SingleTaskWarning, match="pass groups="):
            model = getattr(quick(name), call)(*arguments)
        assert_finite(model, X)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_known_and_unknown_tasks_are_predicted_together(name):
    model = fitted(name)
    X, y, groups = to_long(tasks_of(name))
    mixed = groups.astype(object)
    mixed[::3] = [("never seen", i) for i in range(len(mixed[::3]))]
    together = outputs(model, X, mixed)
    for values, known, prior in zip(
        together,
        outputs(model, X, groups),
        outputs(model, X, ["q"] * len(X)),
        strict=True,
    ):
        new_row = np.arange(len(X)) % 3 == 0
        np.testing.assert_allclose(values[~new_row], known[~new_row], rtol=1e-9)
        np.testing.assert_allclose(values[new_row], prior[new_row], rtol=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_labels_and_ids_of_any_kind(name):
    X, y, groups = to_long(tasks_of(name))
    ids = [
        {0: 1.5, 1: ("a", 2), 2: "b", 3: True}.get(int(g[1:]), int(g[1:]))
        for g in groups
    ]
    labels = np.array(["no", "yes"], dtype=object)[y] if y.dtype.kind == "i" else y
    model = quick(name).fit(X, labels, groups=ids)
    assert_finite(model, X, ids)
    expected = quick(name).fit(X, y, groups=ids)
    for values, others in zip(
        outputs(model, X, ids), outputs(expected, X, ids), strict=True
    ):
        np.testing.assert_array_equal(values, others)
    score = model.score(X, labels, groups=ids)
    assert score == expected.score(X, y, groups=ids)
    listed = [(X[groups == g], labels[groups == g]) for g in np.unique(groups)]
    assert np.isfinite(model.score(listed))


@pytest.mark.parametrize(
    "name", [n for n in ESTIMATORS if is_classifier(ESTIMATORS[n]())]
)
def test_class_that_comes_later(name):
    X, y, groups = to_long(tasks_of(name))
    model = quick(name, covariance="intercept")
    model.partial_fit(X, 2 * y, groups=groups, classes=[0, 1, 2])
    assert_finite(model, X, groups)
    model.partial_fit(X, y, groups=groups).adapt(X[:3], [1, 1, 1])
    assert_finite(model, X)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_score_of_ragged_tasks(name):
    model, tasks = fitted(name), ragged_tasks(new(name), seed=1)
    X, y = tasks[0]
    single = [(X[i : i + 1], y[i : i + 1]) for i in range(3)]
    assert np.isfinite(model.score([*tasks, *single]))
    few = [(X[:2], y[:2]) for X, y in tasks]
    assert np.isfinite(model.score([*few, tasks[0]]))


@pytest.mark.parametrize("name", [n for n in PER_TASK if neural(ESTIMATORS[n]())])
def test_every_episode_has_rows_to_be_judged(name):
    """Nearly all classes have one row: the mean loss of no row would be NaN."""
    rng = np.random.default_rng(0)
    tasks = [
        (rng.normal(size=(8, 3)), np.array([0, 0, *range(1, 7)])) for _ in range(3)
    ]
    net = NeuralNet(
        MLP, torch.nn.CrossEntropyLoss, batch_size=1, max_epochs=3, verbose=0,
        train_split=None,
    )  # fmt: skip
    params = {
        "estimator": net,
        "n_ways": 2,
        "label_space": "per_task",
        "n_episodes": 20,
    }
    for arguments in ({"X": tasks}, {"X": tasks[0][0], "y": tasks[0][1]}):
        model = quick(name, **params).fit(**arguments)
        assert np.isfinite(model.history_[:, "train_loss"]).all()
        assert_finite(model.adapt(*tasks[0]), tasks[1][0])
