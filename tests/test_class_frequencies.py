"""Classes that come in stretches: frequencies in first rows are no evidence."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import ttest_rel

from skmeta import HierarchicalClassifier
from skmeta.hierarchical._laplace import (
    ClassFrequencies,
    LogisticPrior,
    logistic_posterior,
    training_logistic_posterior,
)
from skmeta.persistence import load, save
from skmeta.utils.estimator_checks import parametrize_with_meta_checks


def problem(n_classes, seed=0):
    """A prior that knows frequencies, and rows of one task with weights."""
    rng = np.random.default_rng(seed)
    share = np.array([0.5, 0.2, 0.3])[:n_classes]
    factor = rng.normal(size=(3, 2))
    prior = LogisticPrior(
        mean=rng.normal(size=(1 if n_classes == 2 else n_classes, 3)),
        factor=factor,
        between=factor,
        ridge=np.ones(3),
        covariance="low_rank",
        log_evidence=0.0,
        n_iter=0,
        row_weight=0.6,
        frequencies=ClassFrequencies(share / share.sum(), 2.0),
    )
    X = np.column_stack([np.ones(12), rng.normal(size=(12, 2))])
    return prior, X, rng.integers(0, n_classes, 12), rng.integers(0, 4, 12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_posterior_is_that_of_shifted_logits(n_classes):
    prior, X, labels, weight = problem(n_classes)
    share, n_rows = prior.frequencies.share, prior.frequencies.n_rows
    counts = [weight[labels == k].sum() for k in range(n_classes)]
    frequent = (np.array(counts) + n_rows * share) / (weight.sum() + n_rows)
    shift = np.log(frequent) - np.log(share)

    def loss(latent):
        weights = prior.mean + latent.reshape(len(prior.mean), 2) @ prior.factor.T
        logits = X @ weights.T
        if n_classes == 2:
            logits = np.column_stack([np.zeros(len(X)), logits])
        own = log_softmax(logits + shift, axis=1)[np.arange(len(X)), labels]
        return latent @ latent / 2 - prior.row_weight * weight @ own

    best = minimize(loss, np.zeros(2 * len(prior.mean)), tol=1e-12).x
    codes = np.zeros(len(X), int)
    state = logistic_posterior(prior, X, labels, codes, 1, n_classes, weight)
    expected = prior.mean + best.reshape(-1, 2) @ prior.factor.T
    assert_allclose(state["mean"][0], expected, atol=1e-4)
    rows = np.repeat(np.arange(len(X)), weight)
    again = logistic_posterior(prior, X[rows], labels[rows], codes[rows], 1, n_classes)
    assert_allclose(again["mean"], state["mean"], atol=1e-7)


def test_all_rows_of_a_task_are_its_own_frequencies():
    prior, X, labels, _ = problem(3)
    task = X, labels, np.zeros(len(X), int), 1, 3
    found = training_logistic_posterior(prior, *task)
    known = training_logistic_posterior(replace(prior, frequencies=None), *task)
    assert_array_equal(found["mean"], known["mean"])


def test_many_rows_of_usual_frequencies_change_nothing():
    prior, X, labels, _ = problem(3)
    task = X, labels, np.zeros(len(X), int), 1, 3
    usual = replace(prior.frequencies, n_rows=1e9)
    found = logistic_posterior(replace(prior, frequencies=usual), *task)
    known = logistic_posterior(replace(prior, frequencies=None), *task)
    assert_allclose(found["mean"], known["mean"], atol=1e-6)


def tasks_in_stretches(n_tasks, stretch, seed=0, n_rows=60):
    """Three classes in stretches of so many rows; the features of users differ."""
    rng = np.random.default_rng(seed)
    centers = 1.5 * np.eye(3, 4)
    tasks = []
    for _ in range(n_tasks):
        y = np.repeat(rng.integers(0, 3, n_rows // stretch), stretch)
        own = centers + 0.7 * rng.normal(size=centers.shape)
        tasks.append((own[y] + rng.normal(size=(n_rows, 4)), y))
    return tasks


@pytest.fixture(scope="module")
def stretches():
    tasks = tasks_in_stretches(40, 5)
    fitted = {
        support: HierarchicalClassifier(support=support).fit(tasks)
        for support in ("first", "random")
    }
    return fitted, tasks_in_stretches(200, 5, seed=1)


def test_first_rows_do_not_mislead(stretches):
    fitted, new = stretches
    X, y = (np.stack(part) for part in zip(*new, strict=True))
    ids = np.array([f"new {i}" for i in range(len(y))])
    right = {}
    for support, meta in fitted.items():
        meta.adapt(
            *(part[:, :20].reshape(-1, *part.shape[2:]) for part in (X, y)),
            groups=np.repeat(ids, 20),
        )
        found = meta.predict(X[:, 20:].reshape(-1, 4), groups=np.repeat(ids, 40))
        right[support] = (found.reshape(-1, 40) == y[:, 20:]).mean(axis=1)
    assert fitted["first"].prior_.frequencies is not None
    assert fitted["random"].prior_.frequencies is None
    assert (
        ttest_rel(right["first"], right["random"], alternative="greater").pvalue < 0.01
    )


def test_frequencies_that_do_foretell_are_used():
    """Rows at random, of users whose classes differ in how frequent they are."""
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(60):
        y = rng.choice(3, p=rng.dirichlet([0.4, 0.4, 0.4]), size=40)
        tasks.append((np.eye(3)[y] + rng.normal(size=(40, 3)), y))
    meta = HierarchicalClassifier(support="first").fit(tasks)
    assert meta.prior_.frequencies is None


def test_streaming_and_files(stretches, tmp_path):
    fitted, [(X, y), *_] = stretches
    meta = fitted["first"]
    meta.adapt([(X[:20], y[:20])])
    whole = meta.predict_proba(X[20:])
    meta.adapt([(X[:12], y[:12])]).partial_adapt([(X[12:20], y[12:20])])
    assert_allclose(meta.predict_proba(X[20:]), whole, atol=1e-8)
    save(meta, tmp_path / "fleet")
    again = load(tmp_path / "fleet")
    assert_array_equal(again.predict_proba(X[20:]), meta.predict_proba(X[20:]))


@parametrize_with_meta_checks([HierarchicalClassifier(support="first")])
def test_meta_checks(estimator, check):
    check(estimator)
