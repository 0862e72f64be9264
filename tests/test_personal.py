"""Options of the hierarchical models that make them more personal."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import sqrtm
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.ensemble import HistGradientBoostingRegressor

from skmeta import HierarchicalClassifier, HierarchicalRegressor
from skmeta.hierarchical._design import fit_design
from skmeta.hierarchical._neighbors import learn_neighborhoods
from skmeta.hierarchical._optimise import (
    Problem,
    default_ridge_groups,
    varying_columns,
)
from skmeta.hierarchical._prior import COVARIANCES, fit_prior
from skmeta.hierarchical._serial import accumulate_serial, whitened
from skmeta.hierarchical._statistics import accumulate
from skmeta.persistence import load, save
from skmeta.tasks._table import row_positions

STRUCTURES = [name for name in COVARIANCES if name != "auto"]
MODELS = [HierarchicalRegressor, HierarchicalClassifier]


def described_tasks(n_tasks=60, n_rows=20, seed=0):
    """Tasks whose first slope is the size of the task; size is the last column."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_tasks), n_rows)
    size = rng.normal(size=n_tasks)
    X = rng.normal(size=(len(codes), 3))
    X[:, 2] = size[codes]
    slope = np.column_stack([size, 0.3 * rng.normal(size=n_tasks)])
    y = (X[:, :2] * slope[codes]).sum(1) + 0.2 * rng.normal(size=len(codes))
    return X, y, codes


def targets(model, y):
    return y if model is HierarchicalRegressor else (y > 0).astype(int)


def outputs(meta, X, groups):
    """All that is predicted of rows."""
    if isinstance(meta, HierarchicalRegressor):
        return np.column_stack(meta.predict(X, groups=groups, return_std=True))
    return meta.predict_proba(X, groups=groups)


def new_rows(model, seed=1, n_tasks=8, n_rows=12):
    X, y, codes = described_tasks(n_tasks, n_rows, seed)
    return X, targets(model, y), codes + 1000


# What describes a task


@pytest.mark.parametrize("n_base", [0, 2])
def test_products_stand_before_pooled_columns(n_base):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 6)
    X = rng.normal(2, 3, size=(60, 5 + n_base))
    X[:, 1] = rng.normal(size=10)[groups]  # says nothing of slopes, nor has it one
    X[:, 3:5] = rng.normal(size=(10, 2))[groups]
    y = rng.normal(size=60)
    design, features = fit_design(X, y, groups, n_base=n_base, n_task=2)
    Z = (X - X.mean(0)) / X.std(0)
    products = [
        Z[:, t] * Z[:, j] for t in (3, 4) for j in (0, 2, *range(5, 5 + n_base))
    ]
    expected = [np.ones(60), *Z[:, :5].T, *products, *Z[:, 5:].T]
    assert_allclose(features, np.column_stack(expected), atol=1e-12)
    assert_allclose(design.features(X), features, atol=1e-12)
    assert features.shape[1] == design.n_features
    if n_base:
        weights = design.pooled_weights()
        assert_allclose(design.decode(features @ weights.T), X[:, 5:], atol=1e-9)


def test_many_columns_leave_those_of_tasks_as_they_are():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 5)
    X = rng.normal(size=(150, 72))
    X[:, 70:] = rng.normal(size=(30, 2))[groups]
    design, features = fit_design(X, X[:, 0], groups, n_task=2)
    assert design.n_features == features.shape[1] == 1 + 42 + 2 + 2 * 42
    assert_allclose(
        design.features(X)[:, design.task_columns],
        (X[:, 70:] - X[:, 70:].mean(0)) / X[:, 70:].std(0),
    )


@pytest.mark.parametrize("covariance", STRUCTURES)
def test_gradient_where_products_do_not_vary(covariance):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(30), 8)
    X = rng.normal(size=(240, 6))
    X[:, 0] = 1.0
    statistics = accumulate(X, rng.normal(size=240), codes, 30)
    varying = varying_columns(6, 1, 2)
    assert varying.tolist() == [0, 1, 2, 5]
    groups = default_ridge_groups(6, 1, None, 2)
    assert groups.tolist() == [0, 1, 1, 3, 3, 2]
    problem = Problem([statistics], covariance, groups, varying=varying)
    theta = 0.5 * rng.normal(size=problem.n_free + 4)
    assert (problem.unpack(theta)[0][3:5] == 0).all()
    numeric = approx_fprime(theta, lambda t: problem(t)[0], 1e-6)
    assert_allclose(problem(theta)[1], numeric, atol=1e-5)


@pytest.mark.parametrize("covariance", ["auto", "diagonal", "full"])
def test_slopes_follow_what_describes_the_task(covariance):
    X, y, codes = described_tasks(100)
    meta = HierarchicalRegressor(covariance=covariance, task_features=[2])
    meta.fit(X, y, groups=codes)
    new, truth, unseen = described_tasks(30, seed=1)
    slope = np.gradient(meta.predict([[0, 0, 1.5], [1, 0, 1.5]]))[0]
    assert_allclose(slope, 1.5, rtol=0.1)
    plain = HierarchicalRegressor(covariance=covariance).fit(X, y, groups=codes)
    error = [
        np.mean((m.predict(new, groups=unseen + 1000) - truth) ** 2)
        for m in (meta, plain)
    ]
    # What is left is the other slope, and noise.
    assert error[0] < 0.3**2 + 0.2**2 + 0.05
    assert error[1] > 4 * error[0]
    between = meta.prior_.between @ meta.prior_.between.T
    assert_allclose(np.diagonal(between)[-2:], 0, atol=1e-12)


def test_probabilities_follow_what_describes_the_task():
    X, y, codes = described_tasks(100)
    new, truth, unseen = described_tasks(30, seed=1)
    accuracy = []
    for task_features in ([2], None):
        meta = HierarchicalClassifier(
            covariance="diagonal", task_features=task_features
        )
        meta.fit(X, y > 0, groups=codes)
        predicted = meta.predict(new, groups=unseen + 1000)
        accuracy.append(np.mean(predicted == (truth > 0)))
    assert accuracy[0] > accuracy[1] + 0.2


@pytest.mark.parametrize("model", MODELS)
def test_names_and_positions_are_the_same(model):
    X, y, codes = described_tasks(20)
    y, (new, _, unseen) = targets(model, y), new_rows(model)
    meta = model(covariance="diagonal", task_features=[2]).fit(X, y, groups=codes)
    expected = outputs(meta, new, unseen)
    first = [2, 0, 1]
    forms = {
        "negative": ([-1], None, X, new, codes, unseen),
        "first": ([0], None, X[:, first], new[:, first], codes, unseen),
    }
    for kind in (pd.DataFrame, pl.DataFrame):
        frames = [kind(dict(zip("abc", rows.T, strict=True))) for rows in (X, new)]
        forms[kind.__module__] = (["c"], None, *frames, codes, unseen)
    inside = [np.column_stack([g, rows]) for g, rows in ((codes, X), (unseen, new))]
    forms["group_column"] = ([2], 0, *inside, None, None)
    for name, (columns, group_column, rows, others, *groups) in forms.items():
        meta.set_params(task_features=columns, group_column=group_column)
        meta.fit(rows, y, groups=groups[0])
        found = outputs(meta, others, groups[1])
        assert_allclose(found, expected, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_a_described_task_streams_saves_and_goes_on(model, tmp_path):
    X, y, codes = described_tasks(24)
    y, (new, labels, unseen) = targets(model, y), new_rows(model)
    old = codes < 20
    meta = model(covariance="diagonal", task_features=[2])
    meta.fit(X[old], y[old], groups=codes[old])
    meta.adapt(new, labels, groups=unseen)
    expected = outputs(meta, new, unseen)
    first = np.arange(len(new)) % 12 < 5
    meta.adapt(new[first], labels[first], groups=unseen[first])
    save(meta, tmp_path / "meta.skmeta")
    again = load(tmp_path / "meta.skmeta")
    for learner in (meta, again):
        learner.partial_adapt(new[~first], labels[~first], groups=unseen[~first])
        assert_allclose(outputs(learner, new, unseen), expected, atol=1e-8)
        learner.partial_fit(X[~old], y[~old], groups=codes[~old])
    assert_array_equal(outputs(meta, new, unseen), outputs(again, new, unseen))
    assert len(meta._training.ids) == 24


@pytest.mark.parametrize("model", MODELS)
def test_one_task_is_described_in_one_way(model):
    X, y, codes = described_tasks(20)
    frame, y = pd.DataFrame(X, columns=list("abc")), targets(model, y)
    wrong = frame.copy()
    wrong.loc[45, "c"] += 1.0
    message = r"Column 'c' is among task_features but varies within the task 2\."
    meta = model(covariance="diagonal", task_features=["c"])
    with pytest.raises(ValueError, match=message):
        meta.fit(wrong, y, groups=codes)
    meta.fit(frame, y, groups=codes)
    for method in (meta.adapt, meta.partial_adapt, meta.partial_fit, meta.score):
        with pytest.raises(ValueError, match=message):
            method(wrong, y, groups=codes)
    with pytest.raises(ValueError, match=message):
        meta.predict(wrong, groups=codes)
    # What came before is remembered.
    own = np.flatnonzero(codes == 2)
    other = frame.iloc[own].assign(c=3.0)
    for method in (meta.partial_adapt, meta.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(other, y[own], groups=codes[own])
    meta.adapt(other, y[own], groups=codes[own])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["d"], "'d', which is not a column of X; X has columns ['a', 'b', 'c']"),
        ([3], "3, which is not a column"),
        ([1.0], "1.0, which is not a column"),
        (["c", 2], "a column twice"),
        ("c", "'task_features' parameter"),
    ],
)
def test_columns_that_are_not_there_are_named(columns, message):
    X, y, codes = described_tasks(5)
    frame = pd.DataFrame(X, columns=list("abc"))
    with pytest.raises(ValueError) as error:
        HierarchicalRegressor(task_features=columns).fit(frame, y, groups=codes)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="3 columns without names"):
        HierarchicalRegressor(task_features=["c"]).fit(X, y, groups=codes)


def test_a_pooled_model_is_corrected_by_what_describes_the_task():
    X, y, codes = described_tasks(40)
    boosting = HistGradientBoostingRegressor(max_iter=20, random_state=0)
    meta = HierarchicalRegressor(boosting, task_features=[2])
    meta.fit(X, y, groups=codes)
    new, truth, unseen = described_tasks(20, seed=1)
    plain = meta.base_estimator_.predict(new)
    predicted = meta.predict(new, groups=unseen + 1000)
    assert np.mean((predicted - truth) ** 2) < 0.75 * np.mean((plain - truth) ** 2)


# Rows that count less as they get older


def some_rows(sizes, seed=0):
    """Design rows, targets and codes, those of a task not next to each other."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = rng.normal(size=(len(codes), 3))
    return X, rng.normal(size=len(codes)), codes


def wandering_tasks(n_tasks=60, n_rows=40, step=0.3, seed=0):
    """Tasks whose slopes go for a random walk."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_tasks, n_rows, 2))
    steps = step * rng.normal(size=(n_tasks, n_rows, 2))
    slopes = rng.normal(size=(n_tasks, 1, 2)) + steps.cumsum(1)
    y = (X * slopes).sum(2) + 0.3 * rng.normal(size=(n_tasks, n_rows))
    return X.reshape(-1, 2), y.ravel(), np.repeat(np.arange(n_tasks), n_rows)


def test_aged_statistics_equal_a_loop_over_rows():
    sizes = [0, 1, 2, 7, 12]
    X, y, codes = some_rows(sizes)
    found = accumulate_serial(X, y, codes, 5, decay=0.8)
    for t in range(5):
        A, b = X[codes == t], y[codes == t]
        weight = 0.8 ** np.arange(len(b))[::-1]
        assert_allclose(found.gram[t], (A * weight[:, None]).T @ A, atol=1e-12)
        assert_allclose(found.cross[t], A.T @ (weight * b), atol=1e-12)
        assert_allclose(found.energy[t], weight @ b**2, atol=1e-12)
        assert_allclose(found.count[t], weight.sum(), atol=1e-12)
        assert_allclose(found.kept_before()[t], 0.8 ** len(b), atol=1e-12)
    white = whitened(found, 0.7)
    for t in range(5):
        rows = np.column_stack([X, y])[codes == t]
        moved = [
            row if i == 0 else (row - 0.7 * rows[i - 1]) / np.sqrt(1 - 0.49)
            for i, row in enumerate(rows)
        ]
        expected = np.zeros((4, 4))
        for age, row in enumerate(moved[::-1]):
            expected += 0.8**age * np.outer(row, row)
        assert_allclose(white.gram[t], expected[:3, :3], atol=1e-10)
        assert_allclose(white.cross[t], expected[:3, 3], atol=1e-10)
        assert_allclose(white.energy[t], expected[3, 3], atol=1e-10)


@pytest.mark.parametrize("count", [accumulate, accumulate_serial])
@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=9, max_size=9),
    decay=st.floats(0.05, 0.999),
)
def test_aged_statistics_of_parts_add_up(count, sizes, decay):
    sizes = np.reshape(sizes, (3, 3))
    X, y, codes = some_rows(sizes.sum(0))
    part = (row_positions(codes) >= np.cumsum(sizes, axis=0)[:, codes]).sum(0)
    parts = [
        count(X[part == i], y[part == i], codes[part == i], 3, decay=decay)
        for i in range(3)
    ]
    whole = count(X, y, codes, 3, decay=decay)
    for total in ((parts[0] + parts[1]) + parts[2], parts[0] + (parts[1] + parts[2])):
        for field, expected in zip(total.fields, whole.fields, strict=True):
            assert_allclose(field, expected, atol=1e-10)


@pytest.mark.parametrize("count", [accumulate, accumulate_serial])
def test_a_weight_is_a_number_of_rows_that_age(count):
    X, y, codes = some_rows([4, 6, 3])
    times = np.random.default_rng(0).integers(1, 4, len(y))
    again = np.repeat(np.arange(len(y)), times)
    weighted = count(X, y, codes, 3, times, decay=0.7)
    repeated = count(X[again], y[again], codes[again], 3, decay=0.7)
    for field, expected in zip(weighted.fields, repeated.fields, strict=True):
        assert_allclose(field, expected, atol=1e-10)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("support", ["random", "first"])
def test_rows_that_age_stream(model, support):
    X, y, codes = wandering_tasks(30, 25)
    y, old = targets(model, y), codes < 24
    covariance = "auto" if model is HierarchicalRegressor else "diagonal"
    meta = model(covariance=covariance, support=support, recency=3)
    meta.fit(X[old], y[old], groups=codes[old])
    new, labels, unseen = X[~old], y[~old], codes[~old]
    weight = np.random.default_rng(0).integers(1, 3, len(labels))
    meta.adapt(new, labels, groups=unseen, sample_weight=weight)
    expected = outputs(meta, new, unseen)
    part = row_positions(unseen) // 6
    again = np.repeat(np.arange(len(labels)), weight)
    for rows in (np.arange(len(labels)), again):
        meta.forget(np.unique(unseen))
        for i in range(5):
            own = rows[part[rows] == i]
            given = weight[own] if rows is not again else None
            meta.partial_adapt(
                new[own], labels[own], groups=unseen[own], sample_weight=given
            )
        assert_allclose(outputs(meta, new, unseen), expected, atol=1e-8)


@pytest.mark.parametrize("model", MODELS)
def test_recency_is_a_half_life(model):
    X, y, codes = wandering_tasks(30, 20)
    y, old = targets(model, y), codes < 24
    models = [
        model(covariance="diagonal", recency=recency).fit(
            X[old], y[old], groups=codes[old]
        )
        for recency in (None, 4, 1e12)
    ]
    new, labels, unseen = X[~old], y[~old], codes[~old]
    half = 0.5 ** ((19 - row_positions(unseen)) / 4)
    plain, recent, never = models
    recent.adapt(new, labels, groups=unseen)
    expected = outputs(recent, new, unseen)
    for meta in (plain, never):
        meta.adapt(new, labels, groups=unseen)
    assert_allclose(outputs(plain, new, unseen), outputs(never, new, unseen), atol=1e-6)
    assert np.abs(outputs(plain, new, unseen) - expected).max() > 0.01
    plain.prior_ = recent.prior_
    plain.adapt(new, labels, groups=unseen, sample_weight=half)
    assert_allclose(outputs(plain, new, unseen), expected, atol=1e-8)


@pytest.mark.parametrize("model", MODELS)
def test_recent_rows_are_worth_more_where_tasks_drift(model):
    X, y, codes = wandering_tasks(100)
    y, last = targets(model, y), row_positions(codes) >= 35
    old = codes < 40
    error = []
    for recency in (None, 5):
        meta = model(covariance="diagonal", recency=recency)
        meta.fit(X[old], y[old], groups=codes[old])
        new = ~old & ~last
        meta.adapt(X[new], y[new], groups=codes[new])
        for judged in (~old & last, old & last):
            predicted = meta.predict(X[judged], groups=codes[judged])
            error.append(np.mean((predicted - y[judged]) ** 2))
    better = 0.8 if model is HierarchicalRegressor else 0.95
    assert error[2] < better * error[0]  # new tasks, from their first 35 rows
    assert error[3] < error[1]  # known tasks


def test_how_tasks_differ_is_learned_at_their_last_rows():
    X, y, codes = wandering_tasks(40)
    plain, recent = (
        HierarchicalRegressor(covariance="diagonal", recency=recency).fit(
            X, y, groups=codes
        )
        for recency in (None, 8)
    )
    rows = plain._design.features(X), plain._design.encode(y), codes, 40
    expected = fit_prior(accumulate(*rows, decay=0.5 ** (1 / 8)), "diagonal")
    assert_allclose(recent.prior_.mean, expected.mean, atol=1e-10)
    assert_allclose(recent.prior_.factor, expected.factor, atol=1e-10)
    assert recent.prior_.noise < 0.9 * plain.prior_.noise


def test_tasks_that_age_are_learned_on_with_all_of_their_rows():
    X, y, codes = wandering_tasks(20, 15)
    first, rest = codes < 15, codes >= 15
    meta = HierarchicalRegressor(recency=3).fit(X[first], y[first], groups=codes[first])
    meta.partial_fit(X[rest], y[rest], groups=codes[rest])
    again = row_positions(codes) < 5
    meta.partial_fit(X[again], y[again], groups=codes[again])
    training = meta._training
    assert (training.rows.count == 20).all()
    X, y, codes = (np.concatenate([part, part[again]]) for part in (X, y, codes))
    rows = meta._design.features(X), meta._design.encode(y), codes, 20
    expected = accumulate(*rows, decay=0.5 ** (1 / 3))
    order = np.argsort(training.ids)
    assert_allclose(training.recent.take(order).cross, expected.cross, atol=1e-9)


# Tasks that are like some others


def clustered_tasks(n_tasks=80, n_rows=12, spread=0.2, seed=0):
    """Tasks of three kinds, the last column of no use."""
    rng = np.random.default_rng(seed)
    kinds = np.array([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]])
    slopes = kinds[rng.integers(0, 3, n_tasks)] + spread * rng.normal(size=(n_tasks, 2))
    codes = np.repeat(np.arange(n_tasks), n_rows)
    X = rng.normal(size=(len(codes), 3))
    y = (X[:, :2] * slopes[codes]).sum(1) + 0.7 * rng.normal(size=len(codes))
    return X, y, codes


def posteriors(n_tasks=20, n_columns=1, rank=3, seed=0):
    """Means and covariances of tasks in latent coordinates."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(n_tasks, n_columns, rank))
    root = 0.3 * rng.normal(size=(n_tasks, n_columns, rank, rank))
    return mean, root @ root.swapaxes(2, 3) + 0.05 * np.eye(rank)


@pytest.mark.parametrize("n_columns", [1, 3])
def test_neighborhoods_equal_a_loop_and_keep_the_moments_of_the_prior(n_columns):
    mean, cov = posteriors(20, n_columns)
    found = learn_neighborhoods(mean, cov, mean, np.linalg.inv(cov), 4)
    for k in range(n_columns):
        near, within = [], np.zeros((3, 3))
        for i in range(20):
            nearest = np.argsort(((mean - mean[i]) ** 2).sum((1, 2)))[:4]
            near.append(mean[nearest, k].mean(0))
            for j in nearest:
                apart = mean[j, k] - near[-1]
                within += (cov[j, k] + np.outer(apart, apart)) / 80
        near -= np.mean(near, axis=0)
        shrink = np.linalg.inv(sqrtm(within + near.T @ near / 20))
        assert_allclose(found.centers[:, k], near @ shrink, atol=1e-10)
        assert_allclose(found.cov[k], shrink @ within @ shrink, atol=1e-10)
        spread = found.centers[:, k].T @ found.centers[:, k] / 20
        assert_allclose(found.cov[k] + spread, np.eye(3), atol=1e-10)
        assert_allclose(found.centers.mean(0), 0, atol=1e-10)


@pytest.mark.parametrize("n_columns", [1, 2])
def test_posterior_equals_that_of_every_neighborhood_by_itself(n_columns):
    mean, cov = posteriors(9, n_columns)
    found = learn_neighborhoods(mean, cov, mean, np.linalg.inv(cov), 3)
    rng, noise = np.random.default_rng(1), 0.4
    Z = rng.normal(size=(5, n_columns, 2, 3))
    y = rng.normal(size=(5, n_columns, 2))
    priors = [(np.zeros_like(found.centers[0]), np.array(n_columns * [np.eye(3)]))]
    priors += [(center, found.cov) for center in found.centers]
    shares = np.r_[1 - found.share, np.full(9, found.share / 9)]
    precision = np.eye(3) + Z.swapaxes(2, 3) @ Z / noise
    score = (Z.swapaxes(2, 3) @ y[..., None])[..., 0] / noise
    latent = np.linalg.solve(precision, score[..., None])[..., 0]
    moments = found.posterior(latent, precision)
    for t in range(5):
        weight, means, covs = [], [], []
        for share, (center, spread) in zip(shares, priors, strict=True):
            density, own = np.log(share), []
            for k in range(n_columns):
                A, S = Z[t, k], spread[k]
                outer = A @ S @ A.T + noise * np.eye(2)
                density += multivariate_normal.logpdf(y[t, k], A @ center[k], outer)
                gain = S @ A.T @ np.linalg.inv(outer)
                own.append(
                    (center[k] + gain @ (y[t, k] - A @ center[k]), S - gain @ A @ S)
                )
            weight.append(density)
            means.append([m for m, _ in own])
            covs.append([c for _, c in own])
        weight = softmax(weight)
        middle = np.tensordot(weight, means, 1)
        assert_allclose(moments[0][t], middle, atol=1e-9)
        for k in range(n_columns):
            apart = np.array(means)[:, k] - middle[k]
            total = np.tensordot(weight, np.array(covs)[:, k], 1)
            total += (weight[:, None] * apart).T @ apart
            assert_allclose(moments[1][t, k], total, atol=1e-9)


def test_share_of_tasks_in_neighborhoods_maximises_the_likelihood_of_others():
    mean, cov = posteriors(15)
    latent, cov_new = posteriors(15, seed=1)
    precision = np.linalg.inv(cov_new + 0.1 * np.eye(3))
    precision += np.eye(3)
    found = learn_neighborhoods(mean, cov, latent, precision, 3)
    nearest = np.argsort(cdist(mean[:, 0], mean[:, 0]), axis=1)[:, :3]
    ratio = []
    for t in range(15):
        others = [i for i in range(15) if t not in nearest[i]]
        # Likelihood in a neighborhood over that under the prior: the mean of the
        # density of one over that of the other under the posterior of the latter.
        draws = np.random.default_rng(t).multivariate_normal(
            latent[t, 0], np.linalg.inv(precision[t, 0]), 4000
        )
        prior = multivariate_normal.logpdf(draws, np.zeros(3), np.eye(3))
        near = [
            multivariate_normal.logpdf(draws, found.centers[i, 0], found.cov[0])
            for i in others
        ]
        ratio.append(np.exp(np.array(near) - prior).mean())
    ratio = np.array(ratio)
    grid = np.linspace(0.01, 0.99, 99)[:, None]
    density = np.log(grid * ratio + 1 - grid).sum(1) + np.log(grid * (1 - grid))[:, 0]
    assert_allclose(found.share, grid[np.argmax(density), 0], atol=0.03)


@pytest.mark.parametrize("model", MODELS)
def test_rows_tell_in_which_neighborhood_a_task_is(model):
    X, y, codes = clustered_tasks(120)
    new, truth, unseen = clustered_tasks(60, 40, seed=1)
    y, truth = targets(model, y), targets(model, truth)
    own = row_positions(unseen) < 3
    loss = []
    for neighbors in (5, None, 120):
        meta = model(covariance="full", neighbors=neighbors)
        meta.fit(X, y, groups=codes)
        cold = outputs(meta, new, unseen + 1000)
        meta.adapt(new[own], truth[own], groups=unseen[own] + 1000)
        warm = outputs(meta, new, unseen + 1000)
        error = (warm[:, 0] - truth if model is HierarchicalRegressor
                 else warm[:, 1] - truth)[~own]  # fmt: skip
        loss.append(np.mean(error**2))
        if neighbors == 5:
            first = cold
            assert meta.neighborhoods_.share > 0.5
        # Without rows, or with one neighborhood of all, it is as without neighbors.
        assert_allclose(cold, first, atol=1e-8)
    assert loss[0] < (0.85 if model is HierarchicalRegressor else 0.98) * loss[1]
    assert_allclose(loss[2], loss[1], rtol=1e-6)


def test_tasks_that_do_not_cluster_are_as_before():
    X, y, codes = clustered_tasks(150)
    rng = np.random.default_rng(0)
    y += (X[:, :2] * (3 * rng.normal(size=(150, 2)))[codes]).sum(1)
    meta = HierarchicalRegressor(neighbors=10).fit(X, y, groups=codes)
    assert meta.neighborhoods_.share < 0.1


@pytest.mark.parametrize("model", MODELS)
def test_with_neighbors_a_task_streams_saves_and_goes_on(model, tmp_path):
    X, y, codes = clustered_tasks(40)
    if model is HierarchicalClassifier:
        y = np.digitize(y, [-1, 1])
    old, known = codes < 30, codes == 0
    meta, plain = (
        model(covariance="diagonal", neighbors=neighbors, recency=20).fit(
            X[old], y[old], groups=codes[old]
        )
        for neighbors in (4, None)
    )
    # Of known tasks there is nothing to be guessed.
    assert_array_equal(
        outputs(meta, X[known], codes[known]), outputs(plain, X[known], codes[known])
    )
    meta.adapt(X[~old], y[~old], groups=codes[~old])
    expected = outputs(meta, X[~old], codes[~old])
    plain.adapt(X[~old], y[~old], groups=codes[~old])
    assert np.abs(outputs(plain, X[~old], codes[~old]) - expected).max() > 1e-4
    early = ~old & (row_positions(codes) < 5)
    meta.adapt(X[early], y[early], groups=codes[early])
    save(meta, tmp_path / "meta.skmeta")
    late = ~old & ~early
    for learner in (meta, load(tmp_path / "meta.skmeta")):
        learner.partial_adapt(X[late], y[late], groups=codes[late])
        assert_allclose(outputs(learner, X[~old], codes[~old]), expected, atol=1e-8)
        learner.partial_fit(X[~old], y[~old], groups=codes[~old])
        assert len(learner.neighborhoods_.centers) == 40
