"""Support labels that may be wrong: believed as far as the model explains them."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import ttest_rel

from skmeta import HierarchicalClassifier
from skmeta.datasets import make_regression_tasks
from skmeta.hierarchical._laplace import (
    ClassFrequencies,
    LogisticPrior,
    logistic_posterior,
)
from skmeta.hierarchical._trust import STRENGTH, learn_share, likelihood, trusted
from skmeta.tasks._table import table_from_codes
from skmeta.utils.estimator_checks import parametrize_with_meta_checks


def problem(n_classes, n_tasks=4, seed=0):
    """A prior, and ragged tasks with some labels that are not the model's."""
    rng = np.random.default_rng(seed)
    n_columns = 1 if n_classes == 2 else n_classes
    prior = LogisticPrior(
        mean=rng.normal(size=(n_columns, 3)),
        factor=rng.normal(size=(3, 2)),
        between=np.zeros((3, 2)),
        ridge=np.ones(3),
        covariance="low_rank",
        log_evidence=0.0,
        n_iter=0,
    )
    codes = rng.permutation(np.repeat(np.arange(n_tasks), [3, 8, 20, 1]))
    features = rng.normal(size=(len(codes), 3))
    features[:, 0] = 1.0
    labels = rng.integers(0, n_classes, len(codes))
    weight = rng.uniform(0.5, 2, len(codes))
    return prior, (features, labels, codes, n_tasks, n_classes), weight


def log_proba(prior, latent, features, labels, weight):
    """Of one task, whose weights differ from the prior's mean by a latent vector."""
    weights = prior.mean + latent.reshape(len(prior.mean), -1) @ prior.factor.T
    logits = features @ weights.T + usual(prior, labels, weight)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    return log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def usual(prior, labels, weight):
    """By how much logits are larger in these rows since a class is more frequent."""
    if prior.frequencies is None:
        return 0.0
    share, n_rows = prior.frequencies.share, prior.frequencies.n_rows
    own = [weight[labels == k].sum() + n_rows * p for k, p in enumerate(share)]
    logs = np.log(own / (weight.sum() + n_rows) / share)
    return logs if len(share) > 2 else logs[1] - logs[0]


def slow_trust(prior, features, labels, weight, n_classes, share, n_rounds):
    """Expectation maximisation for one task, with a general minimiser."""
    belief, random = np.ones(len(labels)), share
    for _ in range(n_rounds):
        latent = minimize(
            lambda u, w=weight * belief: (
                u @ u / 2 - w @ log_proba(prior, u, features, labels, w)
            ),
            np.zeros(len(prior.mean) * prior.factor.shape[1]),
            options={"gtol": 1e-9},
        ).x
        proba = np.exp(log_proba(prior, latent, features, labels, weight * belief))
        model = (1 - random) * proba
        belief = model / (model + random / n_classes)
        doubted = weight @ (1 - belief)
        random = (STRENGTH * share + doubted) / (STRENGTH + weight.sum())
    return weight * belief, random


@pytest.mark.parametrize("in_stretches", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_trust_is_the_slow_loop(n_classes, in_stretches):
    prior, task, weight = problem(n_classes)
    if in_stretches:
        share = np.array([0.5, 0.2, 0.3])[:n_classes]
        prior = replace(prior, frequencies=ClassFrequencies(share / share.sum(), 2.0))
    features, labels, codes, n_tasks, _ = task
    found, random = trusted(prior, *task, weight, share=0.3, n_rounds=4)
    for t in range(n_tasks):
        own = codes == t
        expected, share = slow_trust(
            prior, features[own], labels[own], weight[own], n_classes, 0.3, 4
        )
        np.testing.assert_allclose(found[own], expected, rtol=2e-4)
        np.testing.assert_allclose(random[t], share, rtol=2e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_each_round_explains_the_labels_better(n_classes):
    prior, task, weight = problem(n_classes)
    features, labels, codes, n_tasks, _ = task

    def objective(n_rounds):
        found, random = trusted(prior, *task, weight, share=0.3, n_rounds=n_rounds)
        mode = logistic_posterior(prior, *task, found)["mean"]
        away = (mode - prior.mean) @ np.linalg.pinv(prior.factor).T
        model = likelihood(mode, features, labels, codes)
        r = random[codes]
        return (
            weight @ np.log((1 - r) * model + r / n_classes)
            - np.square(away).sum() / 2
            + STRENGTH * (0.3 * np.log(random) + 0.7 * np.log(1 - random)).sum()
        )

    values = [objective(n) for n in (0, 1, 2, 5, 10, 20)]
    assert (np.diff(values) > 0).all()
    assert values[-1] - values[-2] < 1e-3 * (values[-1] - values[0])


def test_all_is_believed_where_no_label_is_random():
    prior, task, weight = problem(2)
    found, random = trusted(prior, *task, weight, share=0.0)
    np.testing.assert_array_equal(found, weight)
    assert not random.any()
    empty = table_from_codes(np.zeros((0, 3)), np.zeros(0, int), np.zeros(0, int), [])
    assert learn_share(prior, empty, empty, 2) == 0


@parametrize_with_meta_checks([HierarchicalClassifier(sample_weighting="robust")])
def test_meta_checks(estimator, check):
    check(estimator)


def noisy_tasks(flipped, n_rows=50):
    """Tasks whose labels are wrong with the probability that each of them is given."""
    rng = np.random.default_rng(0)
    tasks = make_regression_tasks(len(flipped), n_rows, 4, random_state=0)
    return [
        (X, np.where(rng.random(n_rows) < share, y <= 0, y > 0), y > 0)
        for (X, y), share in zip(tasks, flipped, strict=True)
    ]


def learn(tasks, name):
    return HierarchicalClassifier(
        covariance="diagonal", sample_weighting=name, n_shots=10
    ).fit([(X, noisy) for X, noisy, _ in tasks])


def accuracies(models, tasks, n_support=20):
    """Of each model in each task, on the true labels of later rows."""
    found = []
    for X, noisy, y in tasks:
        adapted = [copy.copy(m).adapt(X[:n_support], noisy[:n_support]) for m in models]
        found.append(
            [np.mean(m.predict(X[n_support:]) == y[n_support:]) for m in adapted]
        )
    return np.transpose(found)


def test_wrong_support_labels():
    """40 % of them: robust beats uniform, and costs little where all are right."""
    for share, least in ((0.4, 0.02), (0.0, -0.01)):
        tasks = noisy_tasks(np.repeat([0.0, share], 60))
        models = [learn(tasks[:60], name) for name in ("uniform", "robust")]
        assert models[0].random_share_ == 0 < models[1].random_share_
        uniform, robust = accuracies(models, tasks[60:])
        assert robust.mean() > uniform.mean() + least
        if share:
            assert ttest_rel(robust, uniform).pvalue < 0.01


def test_share_is_learned_over_tasks():
    """Where a third of tasks has wrong labels; and nothing is lost where none has."""
    third = np.where(np.arange(180) % 3 == 0, 0.4, 0.0)
    for shares, least in ((third, 0.005), (np.zeros(180), -0.003)):
        tasks = noisy_tasks(shares)
        models = [learn(tasks[:90], name) for name in ("uniform", "learned")]
        assert (models[1].random_share_ > 0.1) == shares.any()
        uniform, learned = accuracies(models, tasks[90:])
        assert learned.mean() > uniform.mean() + least
