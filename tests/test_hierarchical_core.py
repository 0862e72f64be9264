"""The numerical core of the hierarchical models, against slow references."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.linalg import block_diag
from scipy.optimize import approx_fprime, minimize
from scipy.signal import lfilter
from scipy.special import expit, log_expit, log_softmax, softmax
from scipy.stats import multivariate_normal, norm
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import r2_score

from skmeta import HierarchicalRegressor
from skmeta.datasets import load_breast_cancer_tasks, make_regression_tasks
from skmeta.hierarchical._design import fit_design
from skmeta.hierarchical._evidence import evidence
from skmeta.hierarchical._gaussian import (
    Prior,
    posterior,
    predict,
    training_posterior,
)
from skmeta.hierarchical._laplace import (
    LogisticPrior,
    _Block,
    averaged_probabilities,
    logistic_posterior,
    predict_logits,
    predict_proba,
    training_logistic_posterior,
)
from skmeta.hierarchical._laplace_bound import (
    LogisticData,
    SoftmaxExpansion,
    quadratic_of,
)
from skmeta.hierarchical._laplace_prior import fit_logistic_prior
from skmeta.hierarchical._optimise import (
    Problem,
    default_ridge_groups,
    expectation_maximisation,
    ridge_vector,
)
from skmeta.hierarchical._out_of_fold import out_of_fold_predictions, pooled_features
from skmeta.hierarchical._prior import COVARIANCES, fit_prior, later_loss
from skmeta.hierarchical._statistics import (
    accumulate,
    concatenate,
    empty_statistics,
    padded_blocks,
)
from skmeta.tasks._table import row_positions

STRUCTURES = [name for name in COVARIANCES if name != "auto"]


def make_tasks(n_tasks=60, n_rows=12, sd=(1.0, 0.5, 0.0), noise=0.4, seed=0):
    """Design rows, targets, codes and true weights of linear tasks."""
    rng = np.random.default_rng(seed)
    sizes = np.broadcast_to(n_rows, n_tasks)
    codes = np.repeat(np.arange(n_tasks), sizes)
    features = rng.normal(size=(len(codes), len(sd)))
    features[:, 0] = 1.0
    weights = 0.5 + rng.normal(size=(n_tasks, len(sd))) * sd
    mean = (features * weights[codes]).sum(1)
    return features, mean + noise * rng.normal(size=len(codes)), codes, weights


def make_logistic_tasks(
    n_tasks=100, n_rows=30, sd=(1.0, 0.6, 0.0), n_classes=2, seed=0
):
    """Design rows, labels and codes of logistic tasks."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_tasks), n_rows)
    features = rng.normal(size=(len(codes), len(sd)))
    features[:, 0] = 1.0
    weights = 0.5 + rng.normal(size=(n_tasks, n_classes, len(sd))) * sd
    logits = np.einsum("np,nkp->nk", features, weights[codes])
    if n_classes == 2:
        logits[:, 0] = 0.0
    noisy = logits + rng.gumbel(size=logits.shape)
    return features, noisy.argmax(1), codes


def a_prior(p=3, rank=3, noise=0.3, seed=0):
    """Arbitrary prior."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(p, rank))
    return Prior(
        rng.normal(size=p), factor, factor[:, :1], noise, np.ones(p), "full", 0.0, 0
    )


def dense_posterior(mean, cov, noise, features, y):
    """Gaussian conditioning by the book."""
    gain = cov @ features.T
    inner = features @ gain + noise * np.eye(len(y))
    weights = mean + gain @ np.linalg.solve(inner, y - features @ mean)
    return weights, cov - gain @ np.linalg.solve(inner, gain.T)


# Statistics


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), seed=st.integers(0, 9)
)
def test_statistics_of_ragged_tasks_in_any_order_equal_a_loop(sizes, seed):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X, y = rng.normal(size=(len(codes), 3)), rng.normal(size=len(codes))
    weights = rng.uniform(size=len(codes))
    total = accumulate(X, y, codes, len(sizes), weights)
    for t in range(len(sizes)):
        own = codes == t
        A, b, w = X[own], y[own], weights[own]
        assert_allclose(total.gram[t], (A * w[:, None]).T @ A, atol=1e-12)
        assert_allclose(total.cross[t], A.T @ (w * b), atol=1e-12)
        assert_allclose(total.energy[t], w @ b**2, atol=1e-12)
        assert_allclose(total.count[t], w.sum(), atol=1e-12)


def test_padded_blocks_cover_each_row_once_and_pad_by_half_at_most():
    rng = np.random.default_rng(0)
    sizes = np.r_[rng.integers(0, 5, 500), rng.integers(0, 3000, 20), 50_000]
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    seen, padded = np.zeros(len(codes), int), 0
    for tasks, rows, mask in padded_blocks(codes, len(sizes), 10):
        seen[rows[mask]] += 1
        padded += mask.size
        assert (codes[rows] == tasks[:, None]).all()
    assert (seen == 1).all()
    assert padded < 3 * len(codes)


def test_shifted_statistics_are_those_of_the_residual():
    X, y, codes, _ = make_tasks(6, [0, 1, 2, 5, 9, 3])
    weights = np.array([1.0, -2.0, 0.5])
    residual = accumulate(X, y - X @ weights, codes, 6)
    moved = accumulate(X, y, codes, 6).shifted(weights)
    for field, expected in zip(moved.fields, residual.fields, strict=True):
        assert_allclose(field, expected, atol=1e-11)


def test_statistics_add_up_and_join():
    X, y, codes, _ = make_tasks()
    half = np.random.default_rng(0).uniform(size=len(y)) < 0.5
    both = accumulate(X, y, codes, 60)
    parts = [accumulate(X[m], y[m], codes[m], 60) for m in (half, ~half)]
    for field, total in zip((parts[0] + parts[1]).fields, both.fields, strict=True):
        assert_allclose(field, total, atol=1e-11)
    joined = concatenate([both.take(slice(10)), both.take(slice(10, None))])
    assert joined.n_tasks == 60
    assert_allclose(joined.gram, both.gram)
    assert_allclose((both - parts[0]).cross, parts[1].cross, atol=1e-11)


# Marginal likelihood


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_evidence_equals_the_density_of_all_targets(rank):
    X, y, codes, _ = make_tasks(6, [0, 1, 2, 5, 9, 3])
    rng = np.random.default_rng(1)
    factor, noise = rng.normal(size=(3, rank)), 0.3
    ridge = np.array([0.01, 2.0, 5.0])
    cov = noise * np.eye(len(y)) + (X / ridge) @ X.T
    cov += block_diag(
        *[X[codes == t] @ factor @ factor.T @ X[codes == t].T for t in range(1, 6)]
    )
    brute = multivariate_normal.logpdf(y, np.zeros(len(y)), cov)
    result = evidence(accumulate(X, y, codes, 6), factor, noise, ridge)
    assert_allclose(result.value, brute, rtol=1e-10)
    gain = (X / ridge).T
    assert_allclose(result.mean, gain @ np.linalg.solve(cov, y), atol=1e-10)
    assert_allclose(
        result.mean_cov,
        np.diag(1 / ridge) - gain @ np.linalg.solve(cov, gain.T),
        atol=1e-10,
    )


@pytest.mark.parametrize("covariance", STRUCTURES)
def test_gradient_of_the_objective(covariance):
    X, y, codes, _ = make_tasks(30, 8, sd=(1.0, 0.5, 0.2, 0.0, 0.3))
    statistics = accumulate(X, y, codes, 30)
    groups = default_ridge_groups(5, 2)
    problem = Problem([statistics, statistics.take(slice(20))], covariance, groups)
    theta = 0.5 * np.random.default_rng(0).normal(size=problem.n_free + 3)
    numeric = approx_fprime(theta, lambda t: problem(t)[0], 1e-6)
    assert_allclose(problem(theta)[1], numeric, atol=1e-5)


def test_em_never_lowers_the_marginal_likelihood():
    X, y, codes, _ = make_tasks(40, 10)
    statistics = accumulate(X, y, codes, 40)
    groups = default_ridge_groups(3)
    *_, trace = expectation_maximisation([statistics], groups, n_steps=50)
    assert (np.diff(trace) > -1e-8).all()
    assert trace[-1] > trace[0]


@pytest.mark.parametrize("covariance", ["diagonal", "low_rank", "full", "auto"])
def test_generated_data_recover_the_truth(covariance):
    X, y, codes, _ = make_tasks(500, 15, sd=(1.0, 0.5, 0.0))
    prior = fit_prior(accumulate(X, y, codes, 500), covariance)
    spread = np.sqrt(np.diag(prior.between @ prior.between.T))
    assert_allclose(spread, [1.0, 0.5, 0.0], atol=0.08)
    assert_allclose(prior.mean, 0.5, atol=0.15)
    assert_allclose(prior.noise, 0.16, rtol=0.05)
    assert covariance == "auto" or prior.covariance == covariance


def test_correlated_weights_are_found():
    rng = np.random.default_rng(0)
    X, _, codes, _ = make_tasks(400, 15, sd=(1.0, 1.0))
    root = np.linalg.cholesky([[1.0, 0.8], [0.8, 1.0]])
    weights = rng.normal(size=(400, 2)) @ root.T
    y = (X * weights[codes]).sum(1) + 0.3 * rng.normal(size=len(codes))
    prior = fit_prior(accumulate(X, y, codes, 400))
    assert prior.covariance == "full"
    assert_allclose(prior.between @ prior.between.T, root @ root.T, atol=0.12)


def test_random_intercept_agrees_with_statsmodels():
    statsmodels = pytest.importorskip("statsmodels.api")
    X, y, codes, _ = make_tasks(150, 8, sd=(0.7, 0.0, 0.0))
    fit = statsmodels.MixedLM(y, X, groups=codes).fit(reml=True)
    prior = fit_prior(accumulate(X, y, codes, 150), "intercept")
    assert_allclose(prior.noise, fit.scale, rtol=0.01)
    assert_allclose(prior.between[0, 0] ** 2, fit.cov_re[0, 0], rtol=0.02)
    assert_allclose(prior.mean, fit.fe_params, atol=0.01)


def test_a_slope_that_varies_keeps_its_mean():
    # One common ridge would shrink it as hard as the many slopes that are zero, and
    # count its mean as a difference between tasks.
    rng = np.random.default_rng(0)
    X, _, codes, _ = make_tasks(25, 60, sd=np.ones(20))
    weights = np.zeros((25, 20))
    weights[:, 1] = 0.2 + 0.2 * rng.normal(size=25)
    y = (X * weights[codes]).sum(1) + 0.5 * rng.normal(size=len(codes))
    prior = fit_prior(accumulate(X, y, codes, 25), "diagonal")
    assert_allclose(prior.mean[1], weights[:, 1].mean(), rtol=0.15)


def early_statistics(X, y, codes, n_tasks, shots=(2, 5, 20)):
    """Statistics of the first few rows of every task."""
    position = row_positions(codes)
    keep = [position < n for n in shots]
    return [accumulate(X[k], y[k], codes[k], n_tasks) for k in keep]


def correlated_tasks(n_tasks=100, n_rows=60, seed=0):
    """Tasks that differ in their level; features and noise go up and down slowly.

    No slope differs between tasks, but the waves of one task seem to be related, so
    that the likelihood of independent rows finds slopes that differ.
    """
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(n_tasks, 100 + n_rows, 4))
    waves = lfilter([0.3], [1, -0.95], steps, axis=1)[:, 100:]
    y = 0.5 * rng.normal(size=(n_tasks, 1)) + waves[..., 0]
    waves[..., 0] = 1.0
    y = y + 0.1 * rng.normal(size=y.shape)
    return waves.reshape(-1, 4), y.ravel(), np.repeat(np.arange(n_tasks), n_rows)


def test_auto_predicts_later_rows_where_the_likelihood_is_misled():
    X, y, codes = correlated_tasks()
    statistics = accumulate(X, y, codes, 100)
    by_likelihood = fit_prior(statistics)
    by_prediction = fit_prior(statistics, early=early_statistics(X, y, codes, 100))
    assert by_likelihood.covariance in ("diagonal", "full")
    assert by_prediction.row_weight < by_likelihood.row_weight
    X, y, codes = correlated_tasks(seed=1)
    own, error = row_positions(codes) < 5, []
    for prior in (by_likelihood, by_prediction):
        state = posterior(prior, accumulate(X[own], y[own], codes[own], 100))
        mean = predict(prior, state, X[~own], codes[~own])
        error.append(np.mean((mean - y[~own]) ** 2))
    assert error[1] < 0.95 * error[0]


@pytest.mark.parametrize(
    "sd, expected",
    [
        ((0.0, 0.0, 0.0), ["none"]),
        ((1.0, 0.0, 0.0), ["intercept"]),
        ((1.0, 1.0, 1.0), ["diagonal", "full"]),
    ],
)
def test_auto_is_as_rich_as_the_tasks(sd, expected):
    X, y, codes, _ = make_tasks(80, 25, sd=sd, seed=1)
    prior = fit_prior(
        accumulate(X, y, codes, 80), early=early_statistics(X, y, codes, 80)
    )
    assert prior.covariance in expected


def test_auto_without_later_rows_falls_back_on_the_likelihood():
    X, y, codes, _ = make_tasks(60, 2)
    statistics = accumulate(X, y, codes, 60)
    early = early_statistics(X, y, codes, 60)
    assert fit_prior(statistics, early=early).covariance == (
        fit_prior(statistics).covariance
    )


def test_loss_of_later_rows_equals_a_loop():
    X, y, codes, _ = make_tasks(4, [3, 9, 6, 30])
    prior, statistics = a_prior(), accumulate(X, y, codes, 4)
    early = early_statistics(X, y, codes, 4)
    losses = later_loss(prior, early, [statistics - part for part in early])
    for i, n_shots in enumerate((2, 5, 20)):
        for t in range(4):
            own, position = codes == t, row_positions(codes)
            support, query = own & (position < n_shots), own & (position >= n_shots)
            state = posterior(
                prior,
                accumulate(X[support], y[support], np.zeros(support.sum(), int), 1),
            )
            error = np.square(y[query] - X[query] @ state["mean"][0])
            expected = error.mean() if query.any() else 0.0
            assert_allclose(losses[i, t], expected, atol=1e-9)


@pytest.mark.parametrize("weight", [0.1, 2.0])
def test_row_weight_is_the_weight_of_support_rows(weight):
    X, y, codes, _ = make_tasks(5, 4)
    prior = a_prior()
    cov = prior.factor @ prior.factor.T
    state = posterior(replace(prior, row_weight=weight), accumulate(X, y, codes, 5))
    _, std = predict(
        replace(prior, row_weight=weight), state, X, codes, return_std=True
    )
    for t in range(5):
        own = codes == t
        weights, left = dense_posterior(
            prior.mean, cov, prior.noise / weight, X[own], y[own]
        )
        assert_allclose(state["mean"][t], weights, atol=1e-9)
        variance = np.einsum("np,pq,nq->n", X[own], left, X[own]) + prior.noise
        assert_allclose(std[own], np.sqrt(variance), atol=1e-9)


def test_early_rows_of_a_known_task_that_comes_again_are_among_its_rows():
    tasks = [(X, y) for X, y in make_regression_tasks(12, 8, random_state=0)]
    X = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    codes = np.repeat(np.arange(12), 8)
    old, new = codes < 8, codes >= 6
    meta = HierarchicalRegressor().fit(X[old], y[old], groups=codes[old])
    meta.adapt(X[codes == 7][:3], y[codes == 7][:3], groups=codes[codes == 7][:3])
    meta.partial_fit(X[new], y[new], groups=codes[new])
    training = meta._training
    assert sorted(training.ids) == list(range(12))
    # Task 6 has its rows twice; of task 7 three had replaced those of fit.
    counts = dict(zip(training.ids, training.rows.count, strict=True))
    assert [counts[t] for t in (0, 6, 7, 11)] == [8, 16, 11, 8]
    for early in meta._early_rows(training.ids):
        rest = training.rows - meta._statistics(early)
        assert (rest.count >= 0).all()
        assert (np.linalg.eigvalsh(rest.gram) > -1e-8).all()


def test_a_column_that_describes_tasks_makes_the_first_prediction_personal():
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(80), 10)
    size = rng.normal(size=80)
    X = np.column_stack([rng.normal(size=800), size[task]])
    y = X[:, 0] + (2 * size + 0.3 * rng.normal(size=80))[task]
    old = task < 60
    meta = HierarchicalRegressor().fit(X[old], y[old], groups=task[old])
    assert r2_score(y[~old], meta.predict(X[~old], groups=task[~old])) > 0.95


# Posterior


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    rank=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_posterior_and_prediction_equal_dense_conditioning(sizes, rank, seed):
    X, y, codes, _ = make_tasks(len(sizes), sizes, seed=seed)
    prior = a_prior(rank=rank, seed=seed)
    state = posterior(prior, accumulate(X, y, codes, len(sizes)))
    new = np.random.default_rng(seed).normal(size=(3 * len(sizes), 3))
    asked = np.repeat(np.arange(len(sizes)), 3)
    mean, std = predict(prior, state, new, asked, return_std=True)
    for t in range(len(sizes)):
        own = codes == t
        cov = prior.factor @ prior.factor.T
        weights, cov = dense_posterior(prior.mean, cov, prior.noise, X[own], y[own])
        assert_allclose(state["mean"][t], weights, atol=1e-9)
        rows = new[asked == t]
        assert_allclose(mean[asked == t], rows @ weights, atol=1e-8)
        variance = np.diag(rows @ cov @ rows.T) + prior.noise
        assert_allclose(std[asked == t], np.sqrt(variance), atol=1e-8)


def test_streaming_equals_batch():
    X, y, codes, _ = make_tasks(50, 30)
    prior = fit_prior(accumulate(X, y, codes, 50))
    first = np.tile(np.arange(30) < 7, 50)
    streamed = accumulate(X[first], y[first], codes[first], 50)
    streamed += accumulate(X[~first], y[~first], codes[~first], 50)
    a = posterior(prior, streamed)
    b = posterior(prior, accumulate(X, y, codes, 50))
    for name in a:
        assert_allclose(a[name], b[name], atol=1e-8, rtol=1e-8)


def test_no_rows_and_unknown_tasks_give_the_prior():
    X, y, codes, _ = make_tasks(40, 6)
    prior = fit_prior(accumulate(X, y, codes, 40))
    state = posterior(prior, empty_statistics(2, 3))
    known = predict(prior, state, X[:10], np.arange(10) % 2, return_std=True)
    unknown = predict(prior, state, X[:10], np.full(10, -1), return_std=True)
    assert_allclose(known, unknown, rtol=1e-10)
    assert_allclose(known[0], X[:10] @ prior.mean)


def test_posterior_of_training_tasks_counts_their_rows_once():
    X, y, codes, _ = make_tasks(4, [3, 1, 6, 2])
    statistics = accumulate(X, y, codes, 4)
    prior = fit_prior(statistics, "diagonal")
    cov = prior.between @ prior.between.T
    joint = np.kron(np.ones((4, 4)), np.diag(1 / prior.ridge)) + np.kron(np.eye(4), cov)
    rows = np.zeros((len(y), 12))
    for t in range(4):
        rows[codes == t, 3 * t : 3 * t + 3] = X[codes == t]
    weights, covs = dense_posterior(np.zeros(12), joint, prior.noise, rows, y)
    state = training_posterior(prior, statistics)
    # The flat intercept has a variance of 1e6, which costs the reference digits.
    assert_allclose(state["mean"].ravel(), weights, atol=1e-6)
    _, std = predict(prior, state, X, codes, return_std=True)
    variance = np.einsum("np,pq,nq->n", rows, covs, rows) + prior.noise
    assert_allclose(std, np.sqrt(variance), rtol=1e-5)


def test_intervals_of_new_tasks_cover_what_they_say():
    X, y, codes, _ = make_tasks(300, 40)
    train = codes < 150
    prior = fit_prior(accumulate(X[train], y[train], codes[train], 150))
    support = ~train & (np.tile(np.arange(40), 300) < 3)
    state = posterior(
        prior, accumulate(X[support], y[support], codes[support] - 150, 150)
    )
    query = ~train & ~support
    mean, std = predict(prior, state, X[query], codes[query] - 150, return_std=True)
    inside = np.abs(y[query] - mean) < norm.ppf(0.95) * std
    assert abs(inside.mean() - 0.9) < 0.02


def test_ten_thousand_tasks_adapt_and_predict_within_a_second():
    X, y, codes, _ = make_tasks(10_000, 10, sd=np.linspace(1, 0.1, 11))
    prior = fit_prior(accumulate(X[:5000], y[:5000], codes[:5000], 500), "diagonal")
    start = time.perf_counter()
    state = posterior(prior, accumulate(X, y, codes, 10_000))
    predict(prior, state, X, codes)
    assert time.perf_counter() - start < 1.0


# Hard cases of fitting


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(
    "case",
    ["one task", "one row", "one row each", "few tasks", "two tasks", "one feature"],
)
def test_degenerate_task_sets(case, covariance):
    n_tasks, n_rows, p = {
        "one task": (1, 30, 4),
        "one row": (1, 1, 4),
        "one row each": (30, 1, 4),
        "few tasks": (4, 25, 12),
        "two tasks": (2, 3, 4),
        "one feature": (20, 5, 1),
    }[case]
    X, y, codes, _ = make_tasks(n_tasks, n_rows, sd=np.full(p, 0.3))
    statistics = accumulate(X, y, codes, n_tasks)
    prior = fit_prior(statistics, covariance)
    for state in (posterior(prior, statistics), training_posterior(prior, statistics)):
        mean, std = predict(prior, state, X, codes, return_std=True)
        assert np.isfinite(mean).all()
        assert (std > 0).all()
    assert np.abs(X @ prior.mean - y).max() < 10


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_constant_duplicate_collinear_and_badly_scaled_columns(covariance):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 20)
    Z = rng.normal(size=(600, 2))
    X = np.column_stack([Z, Z[:, 0], 3 * Z[:, 1], np.full(600, 7.0), 1e-8 * Z[:, 0]])
    X = np.column_stack([X, 1e9 + 1e3 * rng.normal(size=600)])
    y = 1e6 + 1e4 * (Z[:, 0] + rng.normal(size=30)[groups] + 0.1 * rng.normal(size=600))
    design, features = fit_design(X, y, groups)
    assert (features[:, 5] == 0).all()
    statistics = accumulate(features, design.encode(y), groups, 30)
    prior = fit_prior(statistics, covariance)
    state = posterior(prior, statistics)
    mean = design.decode(predict(prior, state, features, groups))
    # Without differences between tasks only the common slope can be learned.
    limit = 1.2e4 if covariance == "none" else 2e3
    assert np.sqrt(np.mean((mean - y) ** 2)) < limit


def test_noiseless_linear_targets():
    X, y, codes, _ = make_tasks(40, 12, noise=0.0)
    design, features = fit_design(X[:, 1:], y, codes)
    statistics = accumulate(features, design.encode(y), codes, 40)
    prior = fit_prior(statistics)
    mean = predict(prior, posterior(prior, statistics), features, codes)
    assert prior.noise < 1e-5
    assert np.abs(mean - design.encode(y)).max() < 1e-3


def test_constant_target():
    X, _, codes, _ = make_tasks(10, 5)
    design, features = fit_design(X[:, 1:], np.full(50, 3.0), codes)
    y = design.encode(np.full(50, 3.0))
    prior = fit_prior(accumulate(features, y, codes, 10))
    assert_allclose(design.decode(features @ prior.mean), 3.0, atol=1e-3)


@pytest.mark.parametrize("n_inputs", [65, 300])
def test_many_features_are_reduced_and_the_shared_mean_keeps_them_all(n_inputs):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 20)
    X = rng.normal(size=(600, n_inputs))
    w = np.zeros(n_inputs)
    w[-5:] = 1.0
    y = X @ w + rng.normal(size=30)[groups] + 0.3 * rng.normal(size=600)
    train = groups < 25
    design, features = fit_design(X[train], y[train], groups[train], max_features=20)
    assert features.shape == (500, 21) == (500, design.n_features)
    statistics = accumulate(features, design.encode(y[train]), groups[train], 25)
    prior = fit_prior(statistics, "intercept")
    asked = design.features(X[~train])
    support = np.tile(np.arange(20) < 5, 5)
    state = posterior(
        prior,
        accumulate(
            asked[support],
            design.encode(y[~train][support]),
            groups[~train][support] - 25,
            5,
        ),
    )
    mean = design.decode(predict(prior, state, asked, groups[~train] - 25))
    error = np.sqrt(np.mean((mean - y[~train])[~support] ** 2))
    assert error < 0.6 * y.std()


def test_large_sets_of_tasks_are_sampled_for_the_variances_only():
    X, y, codes, _ = make_tasks(6000, 5)
    statistics = accumulate(X, y, codes, 6000)
    prior = fit_prior(statistics, "diagonal")
    again = fit_prior(statistics, "diagonal")
    assert_allclose(prior.mean, again.mean)
    full = evidence(statistics, prior.between, prior.noise, prior.ridge)
    assert_allclose(prior.mean, full.mean, atol=1e-8)
    assert_allclose(prior.log_evidence, full.value, rtol=1e-10)


def test_without_support_rows_it_is_not_worse_than_pooled_least_squares():
    X, y, codes, _ = make_tasks(60, 20, sd=(0.5, 0.3, 0.1), seed=3)
    train = codes < 40
    prior = fit_prior(accumulate(X[train], y[train], codes[train], 40))
    pooled = LinearRegression().fit(X[train], y[train]).predict(X[~train])
    ours = X[~train] @ prior.mean
    assert np.mean((ours - y[~train]) ** 2) < 1.01 * np.mean((pooled - y[~train]) ** 2)


@pytest.mark.parametrize("fit", [fit_prior, fit_logistic_prior])
def test_unknown_structure_and_no_tasks(fit):
    arguments = (
        (empty_statistics(2, 2),)
        if fit is fit_prior
        else (np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, int), 2, 2)
    )
    with pytest.raises(ValueError, match="must be one of"):
        fit(*arguments, "diag")
    with pytest.raises(ValueError, match="at least one"):
        fit(*arguments)


# Classification


def a_logistic_prior(n_columns, rank=3, seed=0):
    """Arbitrary prior."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(3, rank))
    mean = rng.normal(size=(n_columns, 3))
    return LogisticPrior(mean, factor, factor, np.ones(3), "full", 0.0, 0)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    n_classes=st.integers(2, 4),
    rank=st.integers(1, 3),
    weight=st.sampled_from([0.3, 1.0]),
)
def test_newton_equals_a_general_optimiser(sizes, n_classes, rank, weight):
    X, _, codes, _ = make_tasks(len(sizes), sizes)
    labels = np.random.default_rng(0).integers(0, n_classes, len(codes))
    prior = a_logistic_prior(1 if n_classes == 2 else n_classes, rank)
    prior = replace(prior, row_weight=weight)
    state = logistic_posterior(prior, X, labels, codes, len(sizes), n_classes)
    for t in range(len(sizes)):
        own = codes == t
        Z, y, shape = X[own] @ prior.factor, labels[own], (len(prior.mean), rank)

        def logits(u, own=own, Z=Z, shape=shape):
            own_logits = X[own] @ prior.mean.T + Z @ u.reshape(shape).T
            if n_classes == 2:
                own_logits = np.column_stack([np.zeros(len(Z)), own_logits])
            return own_logits

        def loss(u, y=y, logits=logits):
            own_loss = log_softmax(logits(u), axis=1)[np.arange(len(y)), y]
            return 0.5 * u @ u - weight * own_loss.sum()

        best = minimize(loss, np.zeros(rank * shape[0]), tol=1e-10).x
        expected = prior.mean + best.reshape(shape) @ prior.factor.T
        assert_allclose(state["mean"][t], expected, atol=3e-4)
        p = softmax(logits(best), axis=1)[:, 1 if n_classes == 2 else slice(None)]
        for k, own_p in enumerate(p.reshape(len(Z), len(prior.mean)).T):
            share = 1 if n_classes == 2 else n_classes / (n_classes - 1)
            hessian = np.eye(rank) + weight * share * (Z.T * (own_p * (1 - own_p))) @ Z
            chol = state["chol"][t, k]
            assert_allclose(chol @ chol.T, hessian, atol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("C", [0.3, 10.0])
def test_one_task_with_a_fixed_prior_is_a_penalised_logistic_regression(n_classes, C):
    X, labels, _ = make_logistic_tasks(1, 80, n_classes=n_classes)
    factor = np.sqrt(C) * np.eye(3)
    prior = replace(
        a_logistic_prior(1 if n_classes == 2 else n_classes),
        mean=np.zeros((1 if n_classes == 2 else n_classes, 3)),
        factor=factor,
    )
    codes = np.zeros(80, int)
    state = logistic_posterior(prior, X, labels, codes, 1, n_classes)
    reference = LogisticRegression(C=C, fit_intercept=False, tol=1e-12, max_iter=10_000)
    weights = reference.fit(X, labels).coef_
    assert_allclose(state["mean"][0], weights, atol=1e-6)


def test_newton_steps_of_a_softmax_solve_the_full_system():
    """Conjugate gradients against the Hessian that they never form."""
    rng = np.random.default_rng(0)
    Z, K = rng.normal(size=(2, 7, 3)), 4
    logits = 2 * rng.normal(size=(2, 7, K))
    weight = rng.uniform(0.1, 1.0, size=(2, 7))
    target = np.eye(K)[rng.integers(0, K, (2, 7))]
    block = _Block(Z, logits, target, weight)
    p = softmax(logits, axis=-1)
    gradient = 1e-9 * block.gradient(np.zeros((2, K, 3)), p)
    step = block.newton_step(p, gradient)
    for t in range(2):
        hessian = np.eye(3 * K)
        for z, w, q in zip(Z[t], weight[t], p[t], strict=True):
            curve = np.diag(q) - np.outer(q, q)
            hessian += w * np.kron(curve, np.outer(z, z))
        exact = np.linalg.solve(hessian, gradient[t].ravel())
        assert_allclose(step[t].ravel(), exact, rtol=1e-6, atol=1e-18)


def test_variances_of_differences_are_exact_where_classes_are_as_probable():
    X, K = make_tasks(1, 9)[0], 5
    prior = replace(a_logistic_prior(K), mean=np.zeros((K, 3)))
    Z = X @ prior.factor
    block = _Block(Z[None], np.zeros((1, 9, K)), np.eye(K)[:1], np.ones((1, 9)))
    root = block.root(np.zeros((1, K, 3)))
    curve = np.eye(K) / K - 1 / K**2
    joint = np.linalg.inv(np.eye(3 * K) + np.kron(curve, Z.T @ Z)).reshape(K, 3, K, 3)
    exact = joint[0, :, 0] + joint[1, :, 1] - joint[0, :, 1] - joint[1, :, 0]
    kept = [np.linalg.inv(root[0, k] @ root[0, k].T) for k in (0, 1)]
    assert_allclose(kept[0] + kept[1], exact, atol=1e-12)


def test_means_of_a_softmax_maximise_the_posterior_density():
    """Shared means and deviations of tasks together, against a general optimiser."""
    X, labels, codes = make_logistic_tasks(6, 15, sd=(1.0, 0.5), n_classes=3)
    factor, ridge = np.array([[0.7, 0.0], [0.1, 0.4]]), np.array([1e-6, 0.5])
    center = np.arange(6.0).reshape(3, 2) / 5
    data = LogisticData(X, labels, codes, 6, 3, center)
    means = quadratic_of(data).means(factor, ridge)[0]

    def loss(theta):
        mean, latent = theta[:6].reshape(3, 2), theta[6:].reshape(6, 3, 2)
        logits = np.einsum("np,nkp->nk", X, (mean + latent @ factor.T)[codes])
        likelihood = log_softmax(logits, axis=1)[np.arange(90), labels].sum()
        prior = ridge * np.square(mean - center)
        return 0.5 * prior.sum() + 0.5 * np.square(latent).sum() - likelihood

    best = minimize(loss, np.zeros(42), tol=1e-9).x[:6].reshape(3, 2)
    found, best = means - means.mean(0), best - best.mean(0)
    assert_allclose(found, best, atol=2e-3)


def test_the_expansion_of_a_softmax_touches_it():
    """Value and slope at the points, for each row by itself."""
    X, labels, codes = make_logistic_tasks(4, 5, n_classes=4)
    data = LogisticData(X, labels, codes, 4, 4, np.zeros((4, 3)))
    rng = np.random.default_rng(0)
    points, spread = rng.normal(size=(20, 4)), rng.uniform(size=(20, 4))
    expansion = SoftmaxExpansion(data, points, spread)
    weight, score = expansion.weight(), expansion.score()
    value = expansion.constant() + (score * points - weight * points**2 / 2).sum(1)
    exact = log_softmax(points, axis=1)[np.arange(20), labels]
    assert_allclose(value, exact)
    slope = np.eye(4)[labels] - softmax(points, axis=1)
    assert_allclose(score - weight * points, slope, atol=1e-12)
    # Doubt about the logits never makes a row that is nearly certain worthless.
    sure = SoftmaxExpansion(data, 50 * points, 0 * spread).weight()
    assert sure.max(1).min() < 1e-6
    doubtful = SoftmaxExpansion(data, 50 * points, 1e4 + spread).weight()
    assert doubtful.max(1).min() > 0.05


def test_logistic_batch_equals_loop_and_order_does_not_matter():
    X, labels, codes = make_logistic_tasks(20, 15, n_classes=3)
    keep = np.random.default_rng(0).permutation(len(codes))[:200]
    X, labels, codes = X[keep], labels[keep], codes[keep]
    prior = a_logistic_prior(3)
    state = logistic_posterior(prior, X, labels, codes, 20, 3)
    proba = predict_proba(prior, state, X, codes)
    for t in range(20):
        own = codes == t
        zero = np.zeros(own.sum(), int)
        alone = logistic_posterior(prior, X[own], labels[own], zero, 1, 3)
        assert_allclose(alone["mean"][0], state["mean"][t], atol=1e-8)
        assert_allclose(
            predict_proba(prior, alone, X[own], zero), proba[own], atol=1e-9
        )


def test_separable_support_and_absent_classes_stay_finite():
    X = np.column_stack([np.ones(6), [-3, -2, -1, 1, 2, 3.0], np.zeros(6)])
    labels = np.array([0, 0, 0, 1, 1, 1])
    prior = replace(a_logistic_prior(4), factor=100 * np.eye(3))
    state = logistic_posterior(prior, X, labels, np.zeros(6, int), 1, 4)
    proba = predict_proba(prior, state, X, np.zeros(6, int))
    assert np.isfinite(state["mean"]).all()
    assert_allclose(proba.sum(1), 1.0)
    assert (proba.argmax(1) == labels).all()
    assert (proba[:, 2:] > 0).all()


def test_unknown_tasks_give_the_prior_probabilities():
    prior = a_logistic_prior(3)
    X = make_tasks(1, 8)[0]
    state = logistic_posterior(prior, X[:0], np.zeros(0, int), np.zeros(0, int), 2, 3)
    known = predict_proba(prior, state, X, np.arange(8) % 2)
    assert_allclose(predict_proba(prior, state, X, np.full(8, -1)), known, atol=1e-12)
    mean, variance = predict_logits(prior, state, X, np.full(8, -1))
    assert_allclose(mean, X @ prior.mean.T)
    assert_allclose(variance[:, 0], np.square(X @ prior.factor).sum(1))


def test_averaged_probabilities_against_monte_carlo():
    mean, variance = np.array([[-1.0], [0.3], [2.0]]), np.array([[0.5], [4.0], [2.0]])
    draws = np.random.default_rng(0).normal(size=200_000)
    expected = expit(mean + np.sqrt(variance) * draws).mean(1)
    assert_allclose(averaged_probabilities(mean, variance)[:, 1], expected, atol=0.02)
    mean = np.array([[-1.0, 0.5, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    variance = np.array([[0.5, 1.0, 0.1], [4.0, 4.0, 4.0], [5.0, 0.1, 0.1]])
    draws = np.random.default_rng(0).normal(size=(200_000, 1, 3))
    expected = softmax(mean + np.sqrt(variance) * draws, axis=-1).mean(0)
    # Far from exact where one class alone is uncertain, as in the last row.
    assert_allclose(averaged_probabilities(mean, variance), expected, atol=0.07)


def test_the_bound_lies_below_the_evidence_and_only_rises():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 12)
    center = np.array([[0.3]])
    data = LogisticData(np.ones((12, 1)), labels, np.zeros(12, int), 1, 2, center)
    groups, bound = default_ridge_groups(1), quadratic_of(data)
    values = []
    for _ in range(20):
        problem = Problem(bound.parts(), "intercept", groups, fixed_noise=1.0)
        theta = np.array([0.8, 0.0, 0.0])[: problem.n_free + 1 + groups.max()]
        values.append(bound.value(problem, theta))
        factor, _, ridge = problem.unpack(theta)
        bound = bound.tighten(factor, ridge, 1)
    assert (np.diff(values) > -1e-9).all()
    variance = 0.8**2 + 1 / ridge_vector(np.ones(1), groups)[0]
    sign = np.where(labels == 1, 1, -1)[:, None]

    grid = np.linspace(-40, 40, 40_001)
    density = log_expit(sign * grid).sum(0) + norm.logpdf(grid, 0.3, np.sqrt(variance))
    exact = np.log(np.exp(density).sum() * (grid[1] - grid[0]))
    assert values[-1] < exact
    assert values[-1] > exact - 0.2


def test_logistic_data_recover_the_truth():
    X, labels, codes = make_logistic_tasks(300, 40)
    prior = fit_logistic_prior(X, labels, codes, 300, 2, "diagonal")
    spread = np.sqrt(np.diag(prior.between @ prior.between.T))
    # The bound keeps the variances of binary outcomes somewhat too small.
    assert_allclose(spread, [1.0, 0.6, 0.0], atol=0.25)
    assert spread[0] > spread[1] > spread[2]
    assert_allclose(prior.mean[0], 0.5, atol=0.2)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_adaptation_improves_the_log_loss(n_classes):
    X, labels, codes = make_logistic_tasks(160, 40, n_classes=n_classes, seed=1)
    train = codes < 80
    prior = fit_logistic_prior(X[train], labels[train], codes[train], 80, n_classes)
    assert prior.covariance != "none"
    new, asked, y = X[~train], codes[~train] - 80, labels[~train]
    support = row_positions(asked) < 10
    state = logistic_posterior(
        prior, new[support], y[support], asked[support], 80, n_classes
    )
    query = ~support

    def log_loss(codes):
        proba = predict_proba(prior, state, new[query], codes)
        return -np.log(proba[np.arange(query.sum()), y[query]]).mean()

    assert log_loss(asked[query]) < log_loss(np.full(query.sum(), -1)) - 0.03


def test_support_that_misleads_is_not_trusted():
    # Rows sorted by class within each task: the first rows show one class only.
    X, labels, codes = make_logistic_tasks(40, 20, sd=(0.0, 0.0, 0.0))
    order = np.lexsort([labels, codes])
    X, labels, codes = X[order], labels[order], codes[order]
    prior = fit_logistic_prior(X, labels, codes, 40, 2)
    support = row_positions(codes) < 5
    state = logistic_posterior(
        prior, X[support], labels[support], codes[support], 40, 2
    )
    adapted = predict_proba(prior, state, X, codes)
    pooled = predict_proba(prior, state, X, np.full(len(codes), -1))
    assert np.abs(adapted - pooled).max() < 0.15


def test_training_tasks_are_not_counted_twice():
    X, labels, codes = make_logistic_tasks(1, 60, n_classes=3)
    prior = fit_logistic_prior(X, labels, codes, 1, 3)
    state = training_logistic_posterior(prior, X, labels, codes, 1, 3)
    assert_allclose(state["mean"][0], prior.mean)
    new = logistic_posterior(prior, X[:0], labels[:0], codes[:0], 1, 3)
    assert state["chol"].shape == new["chol"].shape
    before = predict_logits(prior, new, X, codes)[1]
    assert (predict_logits(prior, state, X, codes)[1] < before).all()


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("case", ["one task", "one row", "separable", "rare"])
def test_degenerate_classification(case, n_classes, covariance):
    X, labels, codes = make_logistic_tasks(12, 8, n_classes=n_classes)
    if case == "one task":
        codes = np.zeros_like(codes)
    elif case == "one row":
        X, labels, codes = X[::8], labels[::8], codes[::8]
    elif case == "separable":
        labels = np.minimum((X[:, 1] > 0) + (X[:, 1] > 1), n_classes - 1)
    else:
        labels = np.zeros_like(labels)
        labels[:2] = [1, n_classes - 1]
    n_tasks = codes.max() + 1
    prior = fit_logistic_prior(X, labels, codes, n_tasks, n_classes, covariance)
    state = logistic_posterior(prior, X, labels, codes, n_tasks, n_classes)
    proba = predict_proba(prior, state, X, codes)
    assert np.isfinite(proba).all()
    assert_allclose(proba.sum(1), 1.0)


# Pooled predictions as features


def test_out_of_fold_predictions_never_saw_the_task():
    class Recorder(LinearRegression):
        """Remembers the tasks it was fitted on, the last column."""

        def fit(self, X, y):
            self.seen_ = set(X[:, -1])
            return super().fit(X, y)

        def predict(self, X):
            assert not self.seen_ & set(X[:, -1])
            return super().predict(X)

    X, y, codes, _ = make_tasks(10, 6)
    X = np.column_stack([X, codes])
    features, fitted = out_of_fold_predictions(Recorder(), X, y, codes)
    assert features.shape == (60, 1)
    assert fitted.seen_ == set(range(10))


@pytest.mark.parametrize("n_rows", [1, 2, 30])
def test_out_of_fold_predictions_of_a_single_task(n_rows):
    X, y, codes, _ = make_tasks(1, n_rows)
    features, _ = out_of_fold_predictions(LinearRegression(), X, y, codes)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RidgeClassifier(),
        RandomForestClassifier(5, random_state=0),
        DummyClassifier(),
    ],
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_out_of_fold_log_odds(estimator, n_classes):
    X, labels, codes = make_logistic_tasks(12, 10, n_classes=n_classes)
    names = np.array(["a", "b", "c"])[:n_classes]
    features, fitted = out_of_fold_predictions(
        estimator, X, names[labels], codes, is_classifier=True, classes=names
    )
    new = pooled_features(fitted, X, names)
    assert features.shape == new.shape == (120, 1 if n_classes == 2 else 3)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 6.0
    index = new[:, 0] > 0 if n_classes == 2 else new.argmax(1)
    assert (names[index.astype(int)] == fitted.predict(X)).mean() > 0.95


def test_a_class_missing_from_a_fold_gets_the_lowest_value():
    X, labels, codes = make_logistic_tasks(10, 8)
    labels[codes == 0] = 2
    features, _ = out_of_fold_predictions(
        LogisticRegression(), X, labels, codes, is_classifier=True
    )
    assert (features[codes == 0].argmin(1) == 2).all()


@pytest.mark.parametrize("n_inputs", [3, 90])
def test_pooled_weights_repeat_the_pooled_model(n_inputs):
    rng = np.random.default_rng(0)
    groups, X = np.repeat(np.arange(20), 10), rng.normal(size=(200, n_inputs))
    y, pooled = 5 + 3 * rng.normal(size=200), 4 + rng.normal(size=(200, 1))
    design, features = fit_design(np.hstack([X, pooled]), y, groups, n_base=1)
    repeated = design.decode(features @ design.pooled_weights()[0])
    assert_allclose(repeated, pooled[:, 0])
    labels = rng.integers(0, 3, 200)
    odds = rng.normal(size=(200, 3))
    design, features = fit_design(
        np.hstack([X, odds]), labels, groups, classes=np.arange(3), n_base=3
    )
    assert_allclose(features @ design.pooled_weights().T, odds, atol=1e-12)


def test_center_is_where_the_mean_goes_without_evidence():
    rng = np.random.default_rng(0)
    X, _, codes, _ = make_tasks(40, 10)
    center = np.array([0.0, 2.0, -1.0])
    y = X @ center + 0.3 * rng.normal(size=40)[codes] + 0.5 * rng.normal(size=400)
    statistics = accumulate(X, y, codes, 40)
    towards_zero = fit_prior(statistics, "intercept")
    towards_truth = fit_prior(statistics, "intercept", center=center)
    error = [
        np.abs(p.mean[1:] - center[1:]).sum() for p in (towards_zero, towards_truth)
    ]
    assert error[1] < 0.3 * error[0]
    assert towards_truth.ridge[1] > 10 * towards_zero.ridge[1]


def test_a_good_pooled_classifier_is_kept_and_corrected_by_the_task():
    rng = np.random.default_rng(0)
    codes, odds = np.repeat(np.arange(60), 30), 2 * rng.normal(size=(1800, 1))
    raw = rng.normal(size=(1800, 4))
    shift = rng.normal(size=60)[codes]
    labels = (rng.logistic(size=1800) < odds[:, 0] + shift).astype(int)
    design, features = fit_design(
        np.hstack([raw, odds]), labels, codes, classes=np.arange(2), n_base=1
    )
    center = design.pooled_weights()
    prior = fit_logistic_prior(features, labels, codes, 60, 2, n_base=1, center=center)
    assert_allclose(prior.mean, center, atol=1e-5)
    assert prior.covariance != "none"
    assert np.square(prior.between[1:5]).sum() == 0


def test_a_bad_pooled_classifier_is_corrected_for_all():
    rng = np.random.default_rng(0)
    codes, raw = np.repeat(np.arange(60), 30), rng.normal(size=(1800, 2))
    odds = rng.normal(size=(1800, 1))
    labels = (rng.logistic(size=1800) < 3 * raw[:, 0]).astype(int)
    design, features = fit_design(
        np.hstack([raw, odds]), labels, codes, classes=np.arange(2), n_base=1
    )
    center = design.pooled_weights()
    prior = fit_logistic_prior(features, labels, codes, 60, 2, n_base=1, center=center)
    assert prior.mean[0, 1] > 2
    assert abs(prior.mean[0, 3]) < 0.3


def test_known_tasks_of_tables_without_noise():
    # A task of few rows and many columns can be fitted exactly; "auto" then finds
    # almost no noise, and differences of covariances would not be positive.
    data = load_breast_cancer_tasks()
    X, y, groups = map(np.asarray, (data.data, data.target, data.groups))
    rows = np.random.default_rng(0).permutation(len(X))[: int(0.8 * len(X))]
    model = HierarchicalRegressor().fit(X[rows], y[rows], groups=groups[rows])
    mean, std = model.predict(X, groups=groups, return_std=True)
    assert np.isfinite(mean).all() and (std > 0).all()
    assert r2_score(y, mean) > 0.9
