"""Hierarchical regression where the order of the rows counts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter
from scipy.stats import multivariate_normal

from skmeta import HierarchicalRegressor
from skmeta.hierarchical._gaussian import (
    Prior,
    posterior,
    predict,
    training_posterior,
)
from skmeta.hierarchical._optimise import (
    Problem,
    default_ridge_groups,
    expectation_maximisation,
)
from skmeta.hierarchical._prior import (
    Fit,
    fit_prior,
    fit_structure,
    serial_density,
    with_fewer_slopes,
)
from skmeta.hierarchical._serial import accumulate_serial, whitened
from skmeta.hierarchical._statistics import accumulate, concatenate
from skmeta.model_selection import GuardedRegressor
from skmeta.persistence import load, save
from skmeta.tasks._table import row_positions

SIZES = [0, 1, 2, 7, 30]


def some_rows(sizes=SIZES, seed=0):
    """Design rows, targets and codes, those of a task not next to each other."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = rng.normal(size=(len(codes), 3))
    X[:, 0] = 1.0
    return X, rng.normal(size=len(codes)), codes


def correlation(n_rows, serial):
    """Of errors with the given correlation of neighbours."""
    return serial ** np.abs(np.subtract.outer(np.arange(n_rows), np.arange(n_rows)))


def a_prior(serial, noise=0.3, seed=0):
    """Arbitrary prior."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(3, 3))
    args = rng.normal(size=3), factor, factor[:, :1], noise, np.ones(3), "full", 0.0, 0
    return Prior(*args, serial=serial)


def drifting_tasks(n_tasks=80, n_rows=60, memory=0.95, drift=1.0, seed=0):
    """Tasks that differ in level and in slopes of features that are new each row."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_tasks, n_rows, 3))
    steps = rng.normal(size=(n_tasks, 200 + n_rows))
    scale = np.sqrt(1 - memory**2)
    drift = drift * lfilter([scale], [1, -memory], steps, axis=1)[:, 200:]
    level, slopes = 2 * rng.normal(size=(n_tasks, 1)), rng.normal(size=(n_tasks, 1, 3))
    y = level + ((0.5 + 0.5 * slopes) * X).sum(2) + drift
    return X.reshape(-1, 3), y.ravel(), np.repeat(np.arange(n_tasks), n_rows)


# Statistics


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    serial=st.floats(-0.9, 0.98),
)
def test_whitened_statistics_are_those_of_generalised_least_squares(sizes, serial):
    X, y, codes = some_rows(sizes)
    white = whitened(accumulate_serial(X, y, codes, len(sizes)), serial)
    for t in range(len(sizes)):
        A, b = X[codes == t], y[codes == t]
        inverse = np.linalg.inv(correlation(len(b), serial))
        assert_allclose(white.gram[t], A.T @ inverse @ A, atol=1e-8)
        assert_allclose(white.cross[t], A.T @ inverse @ b, atol=1e-8)
        assert_allclose(white.energy[t], b @ inverse @ b, atol=1e-8)
        assert white.count[t] == len(b)


def test_whitened_statistics_equal_a_loop_over_rows():
    X, y, codes = some_rows()
    white = whitened(accumulate_serial(X, y, codes, 5), 0.7)
    for t in range(5):
        rows = np.column_stack([X, y])[codes == t]
        moved = [
            row if i == 0 else (row - 0.7 * rows[i - 1]) / np.sqrt(1 - 0.49)
            for i, row in enumerate(rows)
        ]
        expected = sum((np.outer(row, row) for row in moved), np.zeros((4, 4)))
        assert_allclose(white.gram[t], expected[:3, :3], atol=1e-10)
        assert_allclose(white.cross[t], expected[:3, 3], atol=1e-10)


def test_without_correlation_statistics_are_the_ordinary_ones():
    X, y, codes = some_rows()
    statistics = accumulate_serial(X, y, codes, 5)
    assert whitened(statistics, 0.0) is statistics
    for field, expected in zip(
        statistics.fields[:4], accumulate(X, y, codes, 5).fields, strict=True
    ):
        assert_array_equal(field, expected)


@settings(max_examples=30, deadline=None)
@given(
    first=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    later=st.lists(st.integers(0, 4), min_size=3, max_size=3),
)
def test_later_rows_add_up(first, later):
    sizes = np.add(first, later)
    X, y, codes = some_rows(sizes)
    early = row_positions(codes) < np.array(first)[codes]
    parts = [accumulate_serial(X[m], y[m], codes[m], 3) for m in (early, ~early)]
    both, empty = (accumulate_serial(X[:n], y[:n], codes[:n], 3) for n in (len(y), 0))
    for total in (parts[0] + parts[1], empty + parts[0] + parts[1] + empty):
        for field, expected in zip(total.fields, both.fields, strict=True):
            assert_allclose(field, expected, atol=1e-12)


def test_a_weight_of_two_is_the_row_twice():
    X, y, codes = some_rows()
    times = np.random.default_rng(1).integers(1, 4, len(y))
    weighted = accumulate_serial(X, y, codes, 5, times.astype(float))
    again = np.repeat(np.arange(len(y)), times)
    repeated = accumulate_serial(X[again], y[again], codes[again], 5)
    for field, expected in zip(weighted.fields, repeated.fields, strict=True):
        assert_allclose(field, expected, atol=1e-12)


def test_any_weights_leave_a_covariance():
    X, y, codes = some_rows()
    weights = np.random.default_rng(1).uniform(0.01, 2, len(y))
    white = whitened(accumulate_serial(X, y, codes, 5, weights), 0.9)
    assert (np.linalg.eigvalsh(white.gram) > -1e-9).all()


def test_taking_joining_and_shifting_equal_statistics_of_the_rows():
    X, y, codes = some_rows()
    statistics = accumulate_serial(X, y, codes, 5)
    joined = concatenate([statistics.take([3, 4]), statistics.take([0, 1, 2])])
    place = np.array([2, 3, 4, 0, 1])
    weights = np.array([1.0, -2.0, 0.5])
    expected = accumulate_serial(X, y - X @ weights, place[codes], 5)
    for field, wanted in zip(
        joined.shifted(weights).fields, expected.fields, strict=True
    ):
        assert_allclose(field, wanted, atol=1e-10)


# Posterior and marginal likelihood


@pytest.mark.parametrize("serial", [0.0, 0.5, 0.98])
def test_posterior_equals_dense_conditioning(serial):
    X, y, codes = some_rows()
    prior = a_prior(serial)
    cov = prior.factor @ prior.factor.T
    state = posterior(prior, accumulate_serial(X, y, codes, 5))
    _, std = predict(prior, state, X, codes, return_std=True)
    for t in range(5):
        A, b = X[codes == t], y[codes == t]
        gain = cov @ A.T
        inner = A @ gain + prior.noise * correlation(len(b), serial)
        mean = prior.mean + gain @ np.linalg.solve(inner, b - A @ prior.mean)
        left = cov - gain @ np.linalg.solve(inner, gain.T)
        assert_allclose(state["mean"][t], mean, atol=1e-8)
        # Rows much later, whose errors have nothing to do with those of the support.
        variance = np.einsum("np,pq,nq->n", A, left, A) + prior.noise
        assert_allclose(std[codes == t], np.sqrt(variance), atol=1e-8)


def test_known_tasks_keep_the_posterior_of_their_whitened_rows():
    X, y, codes = some_rows([5, 9, 6])
    prior = a_prior(0.8)
    statistics = accumulate_serial(X, y, codes, 3)
    state = training_posterior(prior, statistics)
    independent = replace(prior, serial=0.0)
    expected = training_posterior(independent, whitened(statistics, 0.8))
    assert_allclose(state["mean"], expected["mean"])
    assert not np.allclose(
        state["mean"], training_posterior(independent, statistics)["mean"]
    )


@pytest.mark.parametrize("serial", [0.0, 0.6, 0.95])
def test_serial_density_is_the_density_of_all_targets(serial):
    X, y, codes = some_rows([1, 2, 7, 4])
    rng = np.random.default_rng(1)
    factor, noise, ridge = rng.normal(size=(3, 2)), 0.3, np.array([0.01, 2.0, 5.0])
    cov = (X / ridge) @ X.T
    for t in range(4):
        own = np.flatnonzero(codes == t)
        part = X[own] @ factor @ factor.T @ X[own].T
        cov[np.ix_(own, own)] += part + noise * correlation(len(own), serial)
    fit = Fit("low_rank", factor, noise, ridge, 0.0, 0)
    value = serial_density(fit, accumulate_serial(X, y, codes, 4), serial)
    assert_allclose(
        value, multivariate_normal.logpdf(y, np.zeros(len(y)), cov), rtol=1e-9
    )


# What is learned


def early_statistics(X, y, codes, n_tasks, count):
    """Statistics of the first few rows of every task."""
    position = row_positions(codes)
    keep = [position < n for n in (2, 5, 20)]
    return [count(X[k], y[k], codes[k], n_tasks) for k in keep]


@pytest.mark.parametrize("memory", [0.0, 0.95])
def test_correlation_is_found_where_there_is_one(memory):
    X, y, codes = drifting_tasks(memory=memory)
    X = np.column_stack([np.ones(len(X)), X])
    early = early_statistics(X, y, codes, 80, accumulate_serial)
    prior = fit_prior(accumulate(X, y, codes, 80), early=early)
    if memory:
        assert prior.serial >= 0.9
        assert prior.row_weight == 1.0
    else:
        assert prior.serial == 0.0


def test_slopes_of_new_tasks_are_learned_from_rows_that_drift():
    X, y, codes = drifting_tasks()
    new_X, new_y, new = drifting_tasks(seed=1)
    truth = drifting_tasks(drift=0.0, seed=1)[1].reshape(80, 60)
    own, error = row_positions(new) < 10, {}
    for support in ("random", "first"):
        meta = HierarchicalRegressor(support=support).fit(X, y, groups=codes)
        meta.adapt(new_X[own], new_y[own], groups=new[own])
        gap = meta.predict(new_X, groups=new).reshape(80, 60) - truth
        error[support] = gap.std(axis=1).mean()
    assert error["first"] < 0.7 * error["random"]


@pytest.fixture(scope="module")
def ordered():
    """Meta-learner that remembers the order of rows, and rows of new tasks."""
    X, y, codes = drifting_tasks(40, 30)
    meta = HierarchicalRegressor(support="first").fit(X, y, groups=codes)
    assert meta.prior_.serial > 0
    return meta, drifting_tasks(6, 12, seed=1)


def test_adapting_in_parts_is_adapting_at_once(ordered):
    meta, (X, y, codes) = ordered
    part = row_positions(codes) < 5
    meta.adapt(X, y, groups=codes)
    expected, std = meta.predict(X, groups=codes, return_std=True)
    meta.adapt(X[part], y[part], groups=codes[part])
    meta.partial_adapt(X[~part], y[~part], groups=codes[~part])
    result = meta.predict(X, groups=codes, return_std=True)
    assert_allclose(result[0], expected, atol=1e-9)
    assert_allclose(result[1], std, atol=1e-9)


def test_the_order_of_tasks_does_not_matter_but_that_of_rows_does(ordered):
    meta, (X, y, codes) = ordered
    expected = meta.adapt(X, y, groups=codes).predict(X, groups=codes)
    tasks = np.argsort(-codes, kind="stable")
    meta.adapt(X[tasks], y[tasks], groups=codes[tasks])
    assert_allclose(meta.predict(X, groups=codes), expected, atol=1e-9)
    rows = np.random.default_rng(0).permutation(len(y))
    meta.adapt(X[rows], y[rows], groups=codes[rows])
    assert np.abs(meta.predict(X, groups=codes) - expected).max() > 1e-3


def test_weights_are_numbers_of_rows(ordered):
    meta, (X, y, codes) = ordered
    times = np.random.default_rng(0).integers(0, 3, len(y))
    times[row_positions(codes) == 0] = 1
    meta.adapt(X, y, groups=codes, sample_weight=times)
    expected = meta.predict(X, groups=codes)
    again = np.repeat(np.arange(len(y)), times)
    meta.adapt(X[again], y[again], groups=codes[again])
    assert_allclose(meta.predict(X, groups=codes), expected, atol=1e-9)


def test_saved_and_loaded_it_goes_on_where_it_was(ordered, tmp_path):
    meta, (X, y, codes) = ordered
    part = row_positions(codes) < 5
    meta.adapt(X[part], y[part], groups=codes[part])
    save(meta, tmp_path / "meta.skmeta")
    again = load(tmp_path / "meta.skmeta")
    for model in (meta, again):
        model.partial_adapt(X[~part], y[~part], groups=codes[~part])
    assert_array_equal(again.predict(X, groups=codes), meta.predict(X, groups=codes))


def test_learning_goes_on_with_new_and_known_tasks():
    X, y, codes = drifting_tasks(30, 25)
    old = codes < 20
    meta = HierarchicalRegressor(support="first").fit(X[old], y[old], groups=codes[old])
    meta.adapt(X[~old][:3], y[~old][:3], groups=codes[~old][:3])
    meta.partial_fit(X[~old], y[~old], groups=codes[~old])
    whole = meta._training.rows
    expected = accumulate_serial(
        meta._design.features(X), meta._design.encode(y), codes, 30
    )
    assert sorted(meta._training.ids) == list(range(30))
    place = [meta._training.ids.index(t) for t in range(19)]
    assert_allclose(whole.take(place).lag, expected.lag[:19], atol=1e-9)
    assert np.isfinite(meta.predict(X, groups=codes)).all()


def test_the_guard_hands_its_order_on():
    guard = GuardedRegressor(support="first")
    found = dict(guard._default_candidates())
    assert {found[name].support for name in ("hierarchical", "both")} == {"first"}


def test_slopes_that_drift_explains_are_found_not_to_vary():
    # One feature goes up and down as slowly as the drift; only the other has slopes.
    rng = np.random.default_rng(0)
    X, y, codes = drifting_tasks(60, 60, memory=0.98)
    X = np.column_stack([np.ones(len(y)), X])
    waves = lfilter([0.2], [1, -0.98], rng.normal(size=(60, 260)), axis=1)[:, 200:]
    X = np.column_stack([X, waves.ravel()])
    position = row_positions(codes) < 20
    early = accumulate_serial(X[position], y[position], codes[position], 60)
    groups = default_ridge_groups(5)
    statistics = accumulate(X, y, codes, 60)
    start = expectation_maximisation([statistics], groups)
    fits = [
        fit_structure(Problem([statistics], n, groups), start, 300)
        for n in ("none", "diagonal")
    ]
    assert np.abs(np.diagonal(fits[1].factor))[4] > 0.1
    none, fewer, diagonal = with_fewer_slopes(fits, statistics, early, groups, 300)
    assert (none, diagonal) == tuple(fits)
    size = np.abs(fewer.factor)
    assert size.shape == (5, 4)
    assert (size[4] == 0).all()
    assert_allclose(size.max(1)[1:4], 0.5, rtol=0.3)


def test_independent_rows_keep_all_structures():
    X, y, codes = drifting_tasks(40, 30, memory=0.0)
    X = np.column_stack([np.ones(len(y)), X])
    statistics = accumulate_serial(X, y, codes, 40)
    groups = default_ridge_groups(4)
    start = expectation_maximisation([statistics], groups)
    fits = [fit_structure(Problem([statistics], "diagonal", groups), start, 300)]
    assert with_fewer_slopes(fits, statistics, statistics, groups, 300) == fits


# Columns that only differ between tasks


def test_columns_of_tasks_are_known_from_statistics():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 5)
    age, constant = rng.normal(size=6)[codes], np.full(30, 2.0)
    X = np.column_stack([np.ones(30), age, rng.normal(size=30), 0 * constant])
    level = accumulate(X, rng.normal(size=30), codes, 6).task_level()
    assert level.tolist() == [False, True, False, False]
    assert default_ridge_groups(4, 0, level).tolist() == [0, 2, 1, 1]
    assert default_ridge_groups(4, 1, level).tolist() == [0, 2, 1, 3]
    assert default_ridge_groups(3, 0, np.array([False, True, True])).tolist() == [
        0,
        1,
        1,
    ]
    assert default_ridge_groups(3, 2).tolist() == [0, 1, 1]


def test_a_column_of_tasks_is_not_shrunk_like_the_many_beside_it():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 30)
    age = rng.normal(size=40)
    X = np.column_stack([np.ones(1200), age[codes], rng.normal(size=(1200, 15))])
    y = (age + 0.8 * rng.normal(size=40))[codes] + 0.3 * rng.normal(size=1200)
    prior = fit_prior(accumulate(X, y, codes, 40), "intercept")
    means = np.array([X[codes == t].mean(0)[:2] for t in range(40)])
    target = np.array([y[codes == t].mean() for t in range(40)])
    expected = np.linalg.lstsq(means, target, rcond=None)[0][1]
    assert_allclose(prior.mean[1], expected, rtol=0.1)
