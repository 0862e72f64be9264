"""Tasks: how they come in, are drawn, packed and lifted, against slow references."""

import datetime
from itertools import islice

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta import HierarchicalRegressor, PerTask, Task
from skmeta.tasks import TaskBatch, _sampler, is_task_list, read_rows, read_tasks
from skmeta.tasks._pack import as_tensor, pieces, to_batch, unpad
from skmeta.tasks._sampler import (
    EpisodeSampler,
    draw_without_replacement,
    encode_classes,
    split_support,
)
from skmeta.tasks._table import append_rows, join_tables, table_from_codes

COUNTS = (4, 1, 6, 2)
NAMES = ["a", "b", "c"]


class Reader(BaseEstimator):
    """What the door needs of an estimator: somewhere to remember columns."""


def make_tasks(shape=(3,)):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(n, *shape)), rng.normal(size=n)) for n in COUNTS]


def to_long(tasks, ids):
    X = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    return X, y, [task for task, n in zip(ids, COUNTS, strict=True) for _ in range(n)]


def by_task(X, y, groups):
    """Rows of each task in the order they come in, by a loop."""
    rows = {}
    for x, target, task in zip(X, y, groups, strict=True):
        rows.setdefault(task, []).append((x, target))
    return rows


def assert_table_is(table, rows):
    assert sorted(table.ids, key=str) == sorted(rows, key=str)
    assert table.n_tasks == len(rows)
    assert table.offsets[0] == 0 and table.offsets[-1] == len(table.X)
    for t, task in enumerate(table.ids):
        inside = slice(table.offsets[t], table.offsets[t + 1])
        np.testing.assert_array_equal(table.X[inside], [x for x, _ in rows[task]])
        np.testing.assert_array_equal(table.y[inside], [y for _, y in rows[task]])
        np.testing.assert_array_equal(table.codes[inside], t)
        assert table.counts[t] == len(rows[task])


# ------------------------------------------------------------------------- the door
LISTS = {
    "tuples": lambda tasks: tasks,
    "a tuple of tuples": tuple,
    "Task": lambda tasks: [Task(X, y) for X, y in tasks],
    "nested lists": lambda tasks: [(X.tolist(), y.tolist()) for X, y in tasks],
    "columns as y": lambda tasks: [(X, y[:, None]) for X, y in tasks],
    "tensors": lambda tasks: [
        (torch.tensor(X, requires_grad=True), torch.tensor(y)) for X, y in tasks
    ],
    "pandas": lambda tasks: [
        (pd.DataFrame(X, columns=NAMES), pd.Series(y)) for X, y in tasks
    ],
    "nullable pandas": lambda tasks: [
        (pd.DataFrame(X, columns=NAMES).convert_dtypes(), y) for X, y in tasks
    ],
    "polars": lambda tasks: [
        (pl.DataFrame(X, schema=NAMES), pl.Series(y)) for X, y in tasks
    ],
}


@pytest.mark.parametrize("form", LISTS)
def test_list_forms(form):
    tasks = make_tasks()
    reader = Reader()
    table = read_tasks(reader, LISTS[form](tasks), reset=True)
    assert table.listed and table.ids == [0, 1, 2, 3]
    assert_table_is(table, by_task(*to_long(tasks, range(4))))
    assert table.X.dtype == table.y.dtype == np.float64
    assert reader.n_features_in_ == 3
    named = form in ("pandas", "nullable pandas", "polars")
    assert list(getattr(reader, "feature_names_in_", [])) == (NAMES if named else [])


IDS = {
    "int": [3, 1, 2, 0],
    "negative and large": [-(2**62), 2**62, 0, -1],
    "float": [0.5, -1.0, 2.0, np.inf],
    "str": ["b", "a", "d", "c"],
    "mixed": ["b", 1, (2, "x"), 0.5],
    "tuple": [(0, "b"), (0, "a"), (1, "a"), (1, "b")],
    "date": [datetime.date(2020, 1, day) for day in (4, 3, 2, 1)],
}


def object_array(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


ID_FORMS = {
    "list": list,
    "object array": object_array,
    "array": np.array,
    "column": lambda ids: np.array(ids)[:, None],
    "pandas": lambda ids: pd.Series(ids, index=range(len(ids), 0, -1)),
    "categorical": lambda ids: pd.Series(ids).astype("category"),
    "polars": pl.Series,
    "tensor": torch.tensor,
}
#: Arrays make strings of mixed ids and rows of tuples; a tensor holds numbers only.
OF_ANY_TYPE = {"list", "object array", "pandas"}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    "kind, form",
    [
        (kind, form)
        for kind in IDS
        for form in ID_FORMS
        if (
            form in OF_ANY_TYPE
            or kind in ("int", "negative and large", "float")
            or (kind == "str" and form != "tensor")
        )
    ],
)
def test_long_form(kind, form, interleaved):
    X, y, groups = to_long(make_tasks(), IDS[kind])
    if interleaved:
        order = np.random.default_rng(1).permutation(len(X))
        X, y, groups = X[order], y[order], [groups[i] for i in order]
    ids = ID_FORMS[form](groups)
    table = read_tasks(Reader(), X, y, ids, reset=True)
    assert not table.listed
    assert_table_is(table, by_task(X, y, groups))
    np.testing.assert_array_equal(table.restore(table.y), y)
    np.testing.assert_array_equal(table.restore(table.X), X)
    np.testing.assert_array_equal(X[table.order], table.X)
    if form in ("list", "object array", "array"):
        backwards = read_tasks(Reader(), X[::-1], y[::-1], ids[::-1], reset=True)
        assert backwards.ids == table.ids


def frame_forms(X, groups):
    columns = {name: X[:, j] for j, name in enumerate(NAMES)}
    with_id = {"a": X[:, 0], "store": groups, "b": X[:, 1], "c": X[:, 2]}
    indexed = pd.DataFrame(with_id).set_index("store")
    return {
        "pandas column": (pd.DataFrame(with_id), "store"),
        "pandas column by position": (pd.DataFrame(with_id), 1),
        "pandas column from the end": (pd.DataFrame(with_id), -3),
        "pandas index": (indexed, "store"),
        "pandas index level": (
            indexed.assign(day=range(len(X))).set_index("day", append=True),
            "store",
        ),
        "polars column": (pl.DataFrame(with_id), "store"),
        "polars column by position": (pl.DataFrame(with_id), 1),
        "groups": (pd.DataFrame(columns), None),
    }


@pytest.mark.parametrize("form", frame_forms(np.zeros((1, 3)), [0]))
@pytest.mark.parametrize("kind", ["int", "str"])
def test_group_column_of_frames(form, kind):
    X, y, groups = to_long(make_tasks(), IDS[kind])
    order = np.random.default_rng(1).permutation(len(X))
    X, y, groups = X[order], y[order], [groups[i] for i in order]
    frame, column = frame_forms(X, groups)[form]
    ids = groups if column is None else None
    reader = Reader()
    table = read_tasks(reader, frame, y, ids, reset=True, group_column=column)
    assert_table_is(table, by_task(X, y, groups))
    assert list(reader.feature_names_in_) == NAMES
    rows = read_rows(reader, frame, ids, group_column=column)
    assert rows.y is None
    np.testing.assert_array_equal(rows.X, table.X)
    np.testing.assert_array_equal(rows.restore(rows.X), X)


@pytest.mark.parametrize("column", [1, -3])
@pytest.mark.parametrize("kind", ["int", "str"])
def test_group_column_of_arrays(column, kind):
    X, y, groups = to_long(make_tasks(), IDS[kind])
    dtype = float if kind == "int" else object
    inside = np.insert(X.astype(dtype), 1, np.array(groups, dtype=dtype), axis=1)
    reader = Reader()
    table = read_tasks(reader, inside, y, reset=True, group_column=column)
    assert_table_is(table, by_task(X, y, groups))
    assert reader.n_features_in_ == 3


def test_frames_of_tensors_and_lists_without_groups():
    X, y, _ = to_long(make_tasks(), range(4))
    for data in (X.tolist(), torch.from_numpy(X), pd.DataFrame(X), pl.DataFrame(X)):
        table = read_tasks(Reader(), data, y, reset=True)
        assert table.ids == [None] and not table.listed
        np.testing.assert_array_equal(table.X, X)
        np.testing.assert_array_equal(table.order, np.arange(len(X)))


@pytest.mark.parametrize("shape", [(2, 4), (1, 3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_rows_of_more_axes(shape, dtype):
    tasks = [((9 * X).astype(dtype), y) for X, y in make_tasks(shape)]
    X, y, groups = to_long(tasks, "bdac")
    reader = Reader()
    table = read_tasks(reader, X, y, groups, reset=True)
    assert table.X.dtype == dtype and table.X.shape[1:] == shape
    assert_table_is(table, by_task(X, y, groups))
    listed = read_tasks(Reader(), tasks, reset=True)
    assert_table_is(listed, by_task(*to_long(tasks, range(4))))
    with pytest.raises(ValueError, match=r"rows of shape .* fitted with rows of shape"):
        read_rows(reader, X[..., :-1])


@pytest.mark.parametrize(
    "dtype, kept",
    [("bool", "bool"), ("float16", "float16"), (">f8", "float64"), (">i4", "int32"),
     (np.longdouble, "float64"), (object, "float64")],
)  # fmt: skip
def test_numbers_become_those_that_torch_has(dtype, kept):
    X, y, groups = to_long(make_tasks(), range(4))
    X = np.round(3 * X).astype(dtype)
    table = read_tasks(Reader(), X, y.astype(">f8"), groups, reset=True)
    assert table.X.dtype == kept and table.X.dtype.isnative
    assert table.y.dtype == np.float64 and table.y.dtype.isnative
    np.testing.assert_array_equal(table.X.astype(float), X.astype(float))
    torch.from_numpy(table.X), torch.from_numpy(table.y)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bad_cells_are_found_in_any_precision(dtype):
    tasks = [(X.astype(dtype), y) for X, y in make_tasks()]
    tasks[2][0][4, 1] = np.nan
    with pytest.raises(ValueError, match="task 2, row 4, column 1 of X"):
        read_tasks(Reader(), tasks, reset=True)


@pytest.mark.parametrize("kind", ["i", "U", "O", "b"])
def test_labels_keep_their_type(kind):
    X, y, groups = to_long(make_tasks(), range(4))
    labels = {"i": (y > 0) + 3, "b": y > 0}.get(kind, np.where(y > 0, "u", "v"))
    labels = labels.astype(object) if kind == "O" else labels
    table = read_tasks(Reader(), X, labels, groups, reset=True, classifier=True)
    assert table.y.dtype.kind == kind
    np.testing.assert_array_equal(table.y, labels)
    assert list(table.labels) == sorted(set(labels))


def test_strings_of_different_libraries_are_one_kind_of_label():
    X = np.zeros((2, 1))
    tasks = [(X, ["u", "v"]), (X, np.array(["v", "u"], dtype=object)),
             (X, pd.Series(["u", "v"])), (X, pl.Series(["v", "u"]))]  # fmt: skip
    table = read_tasks(Reader(), tasks, reset=True, classifier=True)
    assert list(table.y) == list("uvvu" * 2)


def test_the_table_is_independent_of_the_arrays_it_came_from():
    for form in ("array", "tensor", "frame"):
        X, y, groups = to_long(make_tasks(), range(4))
        expected = X.copy(), y.copy()
        forms = {"tensor": torch.from_numpy, "frame": pd.DataFrame}
        data = forms.get(form, np.asarray)(X)
        table = read_tasks(Reader(), data, y, groups, reset=True)
        X[:], y[:] = -1, -1
        np.testing.assert_array_equal(table.X, expected[0])
        np.testing.assert_array_equal(table.y, expected[1])
        assert table.X.flags.writeable


def test_is_task_list():
    X, y = np.zeros((2, 3)), np.zeros(2)
    assert is_task_list([(X, y)]) and is_task_list(((X, y), (X, y)))
    assert is_task_list([Task([[1.0]], [1.0])]) and is_task_list([(X, 1.0)])
    for rows in (X, [[1, 2], [3, 4]], [(1, 2), (3, 4)], [], (X, y), [X, y], None, "ab"):
        assert not is_task_list(rows)


# ------------------------------------------------------------------------ the table
@st.composite
def tables(draw, min_rows=0, labels=False):
    """Tables whose only feature is the number of the row as it came in."""
    counts = draw(st.lists(st.integers(min_rows, 5), min_size=1, max_size=5))
    codes = np.repeat(np.arange(len(counts)), counts)
    codes = codes[draw(st.permutations(range(len(codes))))] if len(codes) else codes
    n = len(codes)
    y = np.arange(n) / 1.0
    if labels:
        y = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), int)
    ids = [f"task {t}" for t in range(len(counts))]
    return table_from_codes(np.arange(n)[:, None] / 1.0, y, codes, ids)


def rows_of(table):
    """Task ids with their rows, a loop over tasks."""
    return [
        (task, table.X[a:b].ravel().tolist(), table.y[a:b].tolist())
        for task, a, b in zip(
            table.ids, table.offsets[:-1], table.offsets[1:], strict=True
        )
    ]


@given(tables(), st.data())
def test_take(table, data):
    tasks = data.draw(st.lists(st.integers(0, table.n_tasks - 1)))
    taken = table.take(tasks)
    everything = rows_of(table)
    assert rows_of(taken) == [everything[t] for t in tasks]
    np.testing.assert_array_equal(taken.order, taken.X.ravel())
    assert table.take(range(table.n_tasks)) is table


@given(tables(), st.data())
def test_take_rows(table, data):
    n = len(table.X)
    kept = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    part = table.take_rows(np.flatnonzero(kept))
    expected, start = [], 0
    for task, X, y in rows_of(table):
        inside = [i for i in range(len(X)) if kept[start + i]]
        expected.append((task, [X[i] for i in inside], [y[i] for i in inside]))
        start += len(X)
    assert rows_of(part) == expected
    np.testing.assert_array_equal(part.order, part.X.ravel())


@given(tables())
def test_restore(table):
    np.testing.assert_array_equal(
        table.restore(table.X).ravel(), np.arange(len(table.X))
    )
    assert rows_of(table.with_y(None).with_y(table.y)) == rows_of(table)


@given(tables(), st.data())
def test_append_rows(table, data):
    n = len(table.X)
    early = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    first, second = (table.take_rows(np.flatnonzero(m)) for m in (early, ~early))
    expected = [
        (task, a + b, u + v)
        for (task, a, u), (_, b, v) in zip(rows_of(first), rows_of(second), strict=True)
    ]
    assert rows_of(append_rows(first, second)) == expected


@given(st.lists(tables(), min_size=1, max_size=4))
def test_join_tables(parts):
    joined = join_tables(parts)
    assert rows_of(joined) == [rows for part in parts for rows in rows_of(part)]
    assert len(joined.order) == len(joined.X)


def test_labels_of_different_types_are_not_joined():
    numbers, words = (
        table_from_codes(np.zeros((2, 1)), np.array(y), np.array([0, 0]), ["t"])
        for y in ([0, 1], ["u", "v"])
    )
    for join in (append_rows, lambda *both: join_tables(both)):
        with pytest.raises(TypeError, match="labels of different types"):
            join(numbers, words)


# -------------------------------------------------------------------------- classes
@given(st.data())
def test_encode_classes(data):
    n = data.draw(st.integers(1, 20))
    codes = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    alphabet = data.draw(st.sampled_from([[0, 1, 5], ["x", "b", "zz"], [False, True]]))
    labels = data.draw(st.lists(st.sampled_from(alphabet), min_size=n, max_size=n))
    local, values, offsets = encode_classes(codes, np.array(labels))
    assert len(offsets) == codes.max() + 2
    for t in range(codes.max() + 1):
        expected = sorted(
            {y for y, code in zip(labels, codes, strict=True) if code == t}
        )
        assert values[offsets[t] : offsets[t + 1]].tolist() == expected
    for i, (code, y) in enumerate(zip(codes, labels, strict=True)):
        assert values[offsets[code] + local[i]] == y


# ---------------------------------------------------------------------------- draws
@pytest.mark.parametrize("per_draw", [0, 8], ids=["one by one", "sorted"])
def test_draws_are_uniform_and_distinct(per_draw, monkeypatch):
    monkeypatch.setattr(_sampler, "_SORTED_PER_DRAW", per_draw)
    rng = np.random.default_rng(0)
    draws = draw_without_replacement(rng, np.full(30_000, 5), 3)
    assert draws.min() == 0 and draws.max() == 4
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    assert all(len(set(kind)) == 3 for kind in kinds.tolist())
    assert len(kinds) == 60  # ordered triples of five
    assert chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("per_draw", [0, 8], ids=["one by one", "sorted"])
def test_draws_of_more_than_there_is_are_permutations(per_draw, monkeypatch):
    monkeypatch.setattr(_sampler, "_SORTED_PER_DRAW", per_draw)
    rng = np.random.default_rng(0)
    draws = draw_without_replacement(rng, np.full((100, 120), 4), 6)
    assert draws.shape == (100, 120, 6)
    assert (draws[..., 4:] == -1).all()
    kinds, counts = np.unique(draws[..., :4].reshape(-1, 4), axis=0, return_counts=True)
    assert len(kinds) == 24 and all(sorted(k) == [0, 1, 2, 3] for k in kinds.tolist())
    assert chisquare(counts).pvalue > 0.01


@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 9),
)
def test_draws_of_ragged_counts(counts, size, seed):
    draws = draw_without_replacement(np.random.default_rng(seed), counts, size)
    assert draws.shape == (len(counts), size)
    for drawn, count in zip(draws.tolist(), counts, strict=True):
        valid = drawn[: min(count, size)]
        assert len(set(valid)) == len(valid)
        assert all(0 <= i < count for i in valid)
        assert set(drawn[len(valid) :]) <= {-1}


# ------------------------------------------------------------------------- episodes
RANGE = st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 2), st.integers(2, 4)))
KINDS = ["per_task", "balanced", "unbalanced", "regression"]


def traced_table(rows_per_class, kind):
    """Rows that say where they are from: (task, label, place within task)."""
    X = []
    for t, counts in enumerate(rows_per_class):
        labels = np.repeat(np.arange(len(counts)), counts)
        labels = np.random.default_rng(t).permutation(labels)
        X += [(t, label, place) for place, label in enumerate(labels)]
    X = np.array(X, dtype=np.float64)
    codes, y = X[:, 0].astype(int), X[:, 1].astype(int)
    table = table_from_codes(X, y, codes, list(range(len(rows_per_class))))
    if kind == "per_task":
        return table.with_y(encode_classes(codes, y)[0])
    return table if kind != "regression" else table.with_y(10 * X[:, 0] + X[:, 2])


def sampler_of(rows_per_class, kind, **params):
    options = {
        "n_ways": 3,
        "n_shots": 2,
        "n_queries": 2,
        "support": "random",
        "seed": 0,
    }
    table = traced_table(rows_per_class, kind)
    shared = kind in ("balanced", "unbalanced")
    return EpisodeSampler(
        table,
        n_classes=max(map(len, rows_per_class)) if shared else None,
        classifier=kind != "regression",
        **{"class_balanced": kind != "unbalanced", **options, **params},
    )


def usable(rows_per_class, kind):
    """Tasks that can give an episode with a query row."""
    at_least = 2 if kind in ("per_task", "balanced") else 1
    n_classes = 2 if kind == "per_task" else 1
    return [
        t
        for t, counts in enumerate(rows_per_class)
        if max(counts) >= at_least and np.count_nonzero(counts) >= n_classes
    ]


def real_rows(batch, i):
    """Rows of episode `i` as ``(task, label, place, y)``; padding must be zero."""
    mask = (
        torch.ones(batch.X.shape[:2], dtype=bool) if batch.mask is None else batch.mask
    )
    assert not batch.X[i][~mask[i]].any() and not batch.y[i][~mask[i]].any()
    X, y = batch.X[i][mask[i]].tolist(), batch.y[i][mask[i]].tolist()
    return [(*map(int, x), label) for x, label in zip(X, y, strict=True)]


def check_sizes(places, support, query, n_shots, n_queries, at_least, first):
    """Support and query of one segment, whose rows stand at `places` in the task."""
    k = min(max(len(places) - 1, min(len(places), at_least)), n_shots)
    assert len(support) == k
    assert len(query) == min(len(places) - k, n_queries)
    assert len({*support, *query}) == len(support) + len(query)
    assert {*support, *query} <= set(places)
    if first:
        assert support == sorted(places)[:k]


def places_of(rows_per_class, t, label=None):
    table = traced_table([*rows_per_class[:t], rows_per_class[t]], "unbalanced")
    return [
        int(x[2]) for x in table.X if x[0] == t and (label is None or x[1] == label)
    ]


def check_episode(rows_per_class, kind, support, query, ways, shots, queries, first):
    """One episode against the rows of its task, class by class."""
    rows = support + query
    task = rows[0][0]
    assert {row[0] for row in rows} == {task}
    assert query
    if kind in ("unbalanced", "regression"):
        width = max(map(len, rows_per_class)) if kind == "unbalanced" else 1
        places = places_of(rows_per_class, task)
        check_sizes(places, [r[2] for r in support], [r[2] for r in query],
                    shots * width, queries * width, 0, first)  # fmt: skip
        for t, label, place, y in rows:
            assert y == (label if kind == "unbalanced" else 10 * t + place)
        return
    present = [c for c, count in enumerate(rows_per_class[task]) if count]
    if kind == "balanced":
        columns = {label: label for label in present}
    else:
        columns = {row[1]: row[3] for row in support}
        assert len(columns) == min(ways, len(present))
        assert sorted(columns.values()) == list(range(len(columns)))
    for label, column in columns.items():
        check_sizes(
            places_of(rows_per_class, task, label),
            [r[2] for r in support if r[1] == label],
            [r[2] for r in query if r[1] == label],
            shots, queries, 1, first,
        )  # fmt: skip
        assert {r[3] for r in rows if r[1] == label} == {column}
    assert {r[1] for r in rows} == set(columns)


def widths(sampler, kind, support, query):
    """Shots and queries that this meta-batch drew, from the shape of its batches."""
    if kind == "regression":
        per = 1
    elif kind == "per_task":
        per = support.n_classes
    else:
        per = sampler.n_classes
    return support.X.shape[1] // per, query.X.shape[1] // per


def in_range(value, bounds):
    low, high = bounds if isinstance(bounds, tuple) else (bounds, bounds)
    return low <= value <= high


@pytest.mark.parametrize("kind", KINDS)
@given(
    rows_per_class=st.lists(
        st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
        min_size=2,
        max_size=4,
    ),
    n_ways=RANGE,
    n_shots=RANGE,
    n_queries=RANGE,
    first=st.booleans(),
    n_tasks=st.integers(1, 6),
    step=st.integers(0, 2**40),
)
def test_episodes_of_ragged_tasks(
    kind, rows_per_class, n_ways, n_shots, n_queries, first, n_tasks, step
):
    sampler = sampler_of(
        rows_per_class,
        kind,
        n_ways=n_ways,
        n_shots=n_shots,
        n_queries=n_queries,
        support="first" if first else "random",
    )
    units = sampler.units
    assert units.tolist() == usable(rows_per_class, kind)
    if len(units) == 0:
        return
    support, query = sampler.sample(step, units, n_tasks)
    shots, queries = widths(sampler, kind, support, query)
    assert in_range(shots, n_shots) and in_range(queries, n_queries)
    seen = []
    for i in range(n_tasks):
        rows = real_rows(support, i), real_rows(query, i)
        ways = support.n_classes
        check_episode(rows_per_class, kind, *rows, ways, shots, queries, first)
        seen.append(rows[1][0][0])
        if kind == "per_task":
            exists = [c in {r[3] for r in rows[0]} for c in range(ways)]
            mask = [True] * ways if query.class_mask is None else query.class_mask[i]
            assert list(mask) == exists
    assert set(seen) <= set(units.tolist())
    # Tasks take turns: no one comes a second time before all have come.
    assert np.ptp([seen.count(t) for t in units]) <= 1
    assert support.n_classes == query.n_classes
    if kind == "per_task":
        most = max(np.count_nonzero(rows_per_class[t]) for t in set(seen))
        assert in_range(ways, n_ways) or ways == most
        assert ways <= sampler.rows_per_episode
    elif kind != "regression":
        assert support.n_classes == sampler.n_classes and support.class_mask is None
    n_rows = support.X.shape[1] + query.X.shape[1]
    assert n_rows <= sampler.rows_per_episode


@given(
    rows_per_class=st.lists(
        st.lists(st.integers(1, 9), min_size=2, max_size=4), min_size=1, max_size=3
    ).filter(lambda tasks: all(max(counts) > 1 for counts in tasks)),
    n_ways=RANGE,
    n_shots=RANGE,
    n_queries=RANGE,
    step=st.integers(0, 2**40),
)
def test_episodes_as_frequent_as_classes_are(
    rows_per_class, n_ways, n_shots, n_queries, step
):
    """As many rows in all as balanced ones, where there are so many; each class one."""
    sizes = {"n_ways": n_ways, "n_shots": n_shots, "n_queries": n_queries}
    sampler = sampler_of(rows_per_class, "per_task", class_balanced=False, **sizes)
    support, query = sampler.sample(step, sampler.units, 4)
    shots = [n_shots] if np.ndim(n_shots) == 0 else range(n_shots[0], n_shots[1] + 1)
    queries = [n_queries] if np.ndim(n_queries) == 0 else range(1, n_queries[1] + 1)
    possible = {(k, q) for k in shots for q in queries}
    for i in range(4):
        rows, others = real_rows(support, i), real_rows(query, i)
        (task,) = {row[0] for row in rows + others}
        column = {row[1]: row[3] for row in rows}
        assert sorted(column.values()) == list(range(len(column)))
        assert all(row[3] == column[row[1]] for row in rows + others)
        assert len({row[:3] for row in rows + others}) == len(rows) + len(others)
        total = sum(rows_per_class[task][label] for label in column)
        possible &= {
            (k, q)
            for k, q in possible
            if len(rows) == max(min(k * len(column), total - 1), len(column))
            and len(others) == min(q * len(column), total - len(rows)) > 0
        }
    assert possible  # all episodes of a step have one number of shots and of queries


def test_frequencies_of_episodes_are_those_of_the_task():
    sampler = sampler_of(
        [[40, 15, 5]], "per_task", class_balanced=False, n_shots=4, n_queries=4
    )
    support, query = sampler.sample(0, sampler.units, 1)
    assert support.mask is None and query.mask is None
    drawn = np.zeros(3)
    for step in range(600):
        _, query = sampler.sample(step, sampler.units, 1)
        drawn += np.bincount([row[1] for row in real_rows(query, 0)], minlength=3)
    # What is left of each class once it has one support row.
    assert np.abs(drawn / drawn.sum() - np.array([39, 14, 4]) / 57).max() < 0.02


@given(
    counts=st.lists(st.integers(1, 5), min_size=2, max_size=6),
    n_ways=RANGE,
    first=st.booleans(),
    step=st.integers(0, 100),
)
def test_episodes_of_one_pool(counts, n_ways, first, step):
    sampler = sampler_of(
        [counts], "per_task", n_ways=n_ways, support="first" if first else "random"
    )
    assert sampler.pooled
    units = sampler.units
    if max(counts) < 2:
        assert len(units) == 0  # no class has a row to be judged
        return
    assert units.tolist() == list(range(len(counts)))
    support, query = sampler.sample(step, units, 5)
    assert support.class_mask is None
    for i in range(5):
        rows = real_rows(support, i), real_rows(query, i)
        check_episode([counts], "per_task", *rows, support.n_classes, 2, 2, first)
    held_out = [c for c in units if counts[c] > 1][:1]
    support, _ = sampler.sample(step, held_out, 2)
    assert {row[1] for row in real_rows(support, 0)} == set(held_out)


def test_episodes_without_padding_have_no_mask():
    for kind in KINDS:
        sampler = sampler_of([[6, 6, 6]] * 3, kind, n_ways=2)
        for batch in sampler.sample(0, sampler.units, 3):
            assert batch.mask is None and batch.class_mask is None
            assert batch.X.dtype == torch.float32
            assert batch.y.dtype == (
                torch.float32 if kind == "regression" else torch.int64
            )


def test_episodes_keep_the_type_of_token_ids():
    sampler = sampler_of([[4, 4]] * 2, "balanced", dtype=None)
    sampler.table = sampler.table.take_rows(np.arange(16))
    object.__setattr__(sampler.table, "X", sampler.table.X.astype(np.int64))
    support, query = sampler.sample(0, sampler.units, 2)
    assert support.X.dtype == query.X.dtype == torch.int64


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_are_keyed_by_seed_and_step(kind):
    tasks = [[7, 8, 9], [9, 8, 7], [5, 5, 5]]
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state()

    def draw(step, seed=0):
        sampler = sampler_of(tasks, kind, seed=seed)
        support, query = sampler.sample(step, sampler.units, 4)
        return torch.cat([support.X, query.X], dim=1)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    assert not torch.equal(draw(3), draw(3, seed=1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    now = np.random.get_state()  # noqa: NPY002
    for before, after in zip(numpy_state, now, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_same_however_it_is_reached(kind, ragged):
    """Steps are drawn in blocks, which nobody should see."""
    tasks = [[7, 8, 9], [2, 3, 4] if ragged else [9, 8, 7], [5, 5, 5]]
    sampler = sampler_of(tasks, kind, n_ways=2)
    assert sampler._steps_at_once(4) == 32

    def parts(batches):
        return [
            torch.cat([side.X.flatten(), side.weights.flatten(), side.y.flatten()])
            for batch in batches
            for side in batch
        ]

    run = parts(islice(sampler.stream(0, sampler.units, 4), 70))
    for step in (0, 31, 32, 69):
        alone = parts([sampler.sample(step, sampler.units, 4)])
        assert all(map(torch.equal, alone, run[2 * step : 2 * step + 2]))
    later = parts(islice(sampler.stream(30, sampler.units, 4), 40))
    assert all(map(torch.equal, later, run[60:]))
    assert len({tuple(part.tolist()) for part in run}) == len(run)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_classes_are_drawn_uniformly(kind):
    sampler = sampler_of([[5, 5, 5, 5]] * 2, kind, n_ways=2, n_shots=1, n_queries=1)
    for batch in sampler.sample(0, sampler.units, 4_000):
        rows = [row[:3] for i in range(4_000) for row in real_rows(batch, i)]
        _, counts = np.unique(rows, axis=0, return_counts=True)
        assert len(counts) == 40
        # Rows of an episode are distinct, hence a little too even: a loose bound.
        assert chisquare(counts).pvalue > 0.01


# ---------------------------------------------------------------------------- split
def split_by_a_loop(table, labels, n_shots):
    """Places of the first support rows of each task and class."""
    support, start = [], 0
    for count in table.counts:
        inside = range(start, start + count)
        if labels is None:
            support += inside[: min(n_shots, max(count - 1, 0))]
        else:
            for label in set(labels[inside]):
                rows = [i for i in inside if labels[i] == label]
                support += rows[: min(n_shots, max(len(rows) - 1, 1))]
        start += count
    return sorted(support)


@given(tables(labels=True), st.integers(0, 4), st.booleans(), st.booleans())
def test_split_support(table, n_shots, by_label, first):
    labels = table.y if by_label else None
    how = "first" if first else "random"
    support, query = split_support(table, labels, n_shots, support=how, seed=3)
    expected = split_by_a_loop(table, labels, n_shots)
    if first:
        assert rows_of(support) == rows_of(table.take_rows(expected))
    # As many of every class of every task, whichever they are.
    sizes = table.take_rows(expected)
    np.testing.assert_array_equal(support.counts, sizes.counts)
    if by_label:
        pairs = [sorted(zip(t.codes, t.y, strict=True)) for t in (support, sizes)]
        assert pairs[0] == pairs[1]
    both = np.sort(np.concatenate([support.X, query.X]).ravel())
    np.testing.assert_array_equal(both, np.arange(len(table.X)))
    for part in (support, query):
        assert part.ids == table.ids
        place = np.empty(len(table.X), int)
        place[table.order] = np.arange(len(table.X))
        assert (np.diff(place[part.order]) > 0).all()
    again, _ = split_support(table, labels, n_shots, support=how, seed=3)
    assert rows_of(again) == rows_of(support)


def test_random_split_is_uniform():
    table = traced_table([[3, 2]] * 2_000, "unbalanced")
    hits = np.zeros((2, 5))
    for seed in range(2):
        support, _ = split_support(table, table.y, 1, seed=seed)
        per_class = [support.X[support.y == c, 2].astype(int) for c in (0, 1)]
        hits += [np.bincount(places, minlength=5) for places in per_class]
    # Places of classes within tasks are shuffled, so all are alike.
    assert all(chisquare(row).pvalue > 0.01 for row in hits)


# -------------------------------------------------------------------------- packing
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 200),
)
def test_pieces(counts, cells_per_row, max_cells):
    counts = np.array(counts)
    groups = pieces(counts, cells_per_row, max_cells)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(counts)))
    for group in groups:
        cells = len(group) * counts[group].max() * cells_per_row
        assert len(group) == 1 or cells <= max_cells
    if len(counts) * max(counts.max(), 1) * cells_per_row <= max_cells:
        assert len(groups) == 1


@given(tables(labels=True), st.sampled_from([(), (2,), (2, 1)]))
def test_to_batch_and_back(table, shape):
    X = np.broadcast_to(
        table.X.reshape(-1, 1, *[1] * len(shape)), (len(table.X), 3, *shape)
    )
    table = table_from_codes(X.copy(), table.y, table.codes, table.ids)
    batch = to_batch(table, n_classes=4)
    width = max(table.counts)
    assert batch.X.shape == (table.n_tasks, width, 3, *shape)
    assert batch.n_tasks == table.n_tasks and batch.n_classes == 4
    for t, (a, b) in enumerate(zip(table.offsets[:-1], table.offsets[1:], strict=True)):
        np.testing.assert_array_equal(batch.X[t, : b - a], table.X[a:b])
        np.testing.assert_array_equal(batch.y[t, : b - a], table.y[a:b])
        assert not batch.X[t, b - a :].any() and not batch.y[t, b - a :].any()
        mask = np.arange(width) < b - a
        if batch.mask is None:
            assert mask.all()
        else:
            np.testing.assert_array_equal(batch.mask[t], mask)
        np.testing.assert_array_equal(batch.weights[t], mask.astype(float))
    assert batch.X.dtype == batch.weights.dtype == torch.float64
    np.testing.assert_array_equal(unpad(batch.X.numpy(), table), table.X)
    np.testing.assert_array_equal(unpad(batch.y.numpy(), table), table.y)
    assert to_batch(table.with_y(None)).y is None


def test_batches_of_read_only_and_reversed_arrays():
    for values in (np.arange(6.0)[::-1], np.arange(12.0)[::-2], np.arange(6.0)):
        values.flags.writeable = False
        np.testing.assert_array_equal(as_tensor(values), values.copy())
    writable = np.arange(6.0)
    assert as_tensor(writable).data_ptr() == writable.ctypes.data


def test_take_from_a_batch():
    batch = TaskBatch(
        torch.arange(12.0).reshape(3, 2, 2),
        torch.arange(6).reshape(3, 2),
        torch.tensor([[True, True], [True, False], [True, True]]),
        2,
        torch.tensor([[True, True], [True, False], [True, True]]),
    )
    index = torch.tensor([2, 1])
    for part in (batch.take(index), batch.take(slice(1, 3)).take(index - 1)):
        for name in ("X", "y", "mask", "class_mask"):
            assert torch.equal(getattr(part, name), getattr(batch, name)[index])
        assert part.n_classes == 2 and part.n_tasks == 2
    bare = TaskBatch(batch.y[..., None]).take(batch.mask[:, 1])
    assert bare.n_tasks == 2 and bare.y is None and bare.mask is None
    assert torch.equal(bare.weights, torch.ones(2, 2))


# --------------------------------------------------------------------------- the lift
def as_arrays(tasks):
    return tasks


def as_tensors(tasks):
    return [(torch.from_numpy(X), torch.from_numpy(y)) for X, y in tasks]


def as_pandas(tasks):
    return [(pd.DataFrame(X, columns=NAMES), pd.Series(y)) for X, y in tasks]


def as_polars(tasks):
    return [(pl.DataFrame(X, schema=NAMES), pl.Series(y)) for X, y in tasks]


@pytest.mark.parametrize("form", [as_arrays, as_tensors, as_pandas, as_polars])
@pytest.mark.parametrize("refit", [False, True])
def test_lift(form, refit):
    tasks = make_tasks()
    lift = PerTask(StandardScaler(), refit=refit).fit(form(tasks))
    together = StandardScaler().fit(np.concatenate([X for X, _ in tasks]))
    lifted = lift.transform(form(tasks))
    assert len(lifted) == len(tasks) and is_task_list(lifted)
    for (X, y), task in zip(tasks, lifted, strict=True):
        expected = StandardScaler().fit(X) if refit else together
        np.testing.assert_allclose(task.X, expected.transform(X))
        np.testing.assert_array_equal(task.y, y)
        rows = lift.transform(form([(X, y)])[0][0])
        np.testing.assert_allclose(rows, expected.transform(X))
    assert hasattr(lift, "transformer_") != refit


def test_lift_of_rows_is_the_transformer():
    X, y, _ = to_long(make_tasks(), range(4))
    expected = StandardScaler().fit_transform(X)
    np.testing.assert_array_equal(
        PerTask(StandardScaler()).fit_transform(X, y), expected
    )


def test_lift_selects_columns_by_name():
    tasks = as_pandas(make_tasks())
    chosen = make_column_transformer((StandardScaler(), ["c"]), ("passthrough", ["a"]))
    lifted = PerTask(chosen).fit(tasks).transform(tasks)
    for (X, _), (Z, _) in zip(tasks, lifted, strict=True):
        np.testing.assert_array_equal(Z[:, 1], X["a"])


def test_lift_hands_targets_on():
    class Supervised(StandardScaler):
        def fit(self, X, y=None):
            self.targets_ = y
            return super().fit(X)

    tasks = make_tasks()
    lift = PerTask(Supervised()).fit(tasks)
    np.testing.assert_array_equal(
        lift.transformer_.targets_, to_long(tasks, range(4))[1]
    )


def test_lift_clones_and_leaves_its_parameter_alone():
    lift = PerTask(StandardScaler(with_mean=False), refit=True)
    params = lift.get_params()
    assert params["refit"] is True and params["transformer__with_mean"] is False
    lift.set_params(refit=False, transformer__with_std=False)
    with pytest.raises(NotFittedError):
        lift.transform(make_tasks())
    lift.fit(make_tasks())
    assert not hasattr(lift.transformer, "n_features_in_")
    again = clone(lift)
    assert again.transformer is not lift.transformer
    assert again.get_params()["transformer__with_std"] is False
    with pytest.raises(NotFittedError):
        again.transform(make_tasks())


@pytest.mark.parametrize("form", [as_arrays, as_pandas, as_polars])
@pytest.mark.parametrize("refit", [False, True])
def test_lift_in_a_pipeline(form, refit):
    rng = np.random.default_rng(0)
    tasks = [
        (1e3 * X, X @ [1.0, -2.0, 0.5] + t)
        for t, X in enumerate(rng.normal(size=(12, 9, 3)))
    ]
    train, new = form(tasks[:9]), form(tasks[9:])
    model = make_pipeline(
        PerTask(StandardScaler(), refit=refit), HierarchicalRegressor()
    )
    model.fit(train)
    assert model.score(new) > 0.5
    lift, meta = model[0], model[-1]
    by_hand = clone(meta).fit(lift.transform(train))
    X, y = new[0]
    meta.adapt(lift.transform(X), y), by_hand.adapt(lift.transform(X), y)
    np.testing.assert_array_equal(model.predict(X), by_hand.predict(lift.transform(X)))
