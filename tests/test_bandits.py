"""Contextual bandits: posterior, policies, arms, off-policy values."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.utils import estimator_checks

from skmeta.bandits import LoggedTask, MetaBandit, off_policy_value
from skmeta.bandits._prior import arm_prior, cells_of, fit_arms

ARMS = np.array(["a", "b", "c"])


def log(n_tasks=12, n_rows=15, seed=0, binary=False):
    """Rows of tasks whose arms have weights around a common mean."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(3, 2))
    weights = mean + 0.5 * rng.normal(size=(n_tasks, 3, 2))
    X = rng.normal(size=(n_tasks * n_rows, 2))
    arm = rng.integers(3, size=len(X))
    groups = np.repeat(np.arange(n_tasks), n_rows)
    value = (weights[groups, arm] * X).sum(1)
    reward = value + 0.3 * rng.normal(size=len(X))
    if binary:
        reward = (rng.random(len(X)) < 1 / (1 + np.exp(-2 * value))).astype(int)
    return X, ARMS[arm], reward, groups


@pytest.fixture(scope="module", params=[False, True], ids=["continuous", "binary"])
def fitted(request):
    X, action, reward, groups = log(binary=request.param)
    return MetaBandit(random_state=0).fit(X, action, reward, groups)


def test_posterior_is_that_of_bayes_rule():
    X, action, reward, groups = log()
    bandit = MetaBandit(n_directions=2).fit(X, action, reward, groups)
    X, action, reward, _ = log(1, 9, seed=5)
    bandit.adapt(X, action, reward)
    prior, design = bandit.prior_, bandit._design
    Z, y = design.features(X), design.encode(reward)
    arm = np.searchsorted(ARMS, action)
    wide = np.zeros((9, 9))
    for row in range(9):
        wide[row, 3 * arm[row] : 3 * arm[row] + 3] = Z[row]
    # Among rows: the textbook formula of a Gaussian process.
    cov, mean = prior.covariance, prior.mean.ravel()
    gain = cov @ wide.T @ np.linalg.inv(wide @ cov @ wide.T + prior.noise * np.eye(9))
    mean, cov = mean + gain @ (y - wide @ mean), cov - gain @ wide @ cov
    X_new = np.random.default_rng(1).normal(size=(4, 2))
    Z_new = design.features(X_new)
    found, std = bandit.decision_function(X_new, return_std=True)
    for k in range(3):
        part = slice(3 * k, 3 * k + 3)
        assert_allclose(found[:, k], design.decode(Z_new @ mean[part]), atol=1e-8)
        variance = np.einsum("np,pq,nq->n", Z_new, cov[part, part], Z_new)
        assert_allclose(std[:, k], design.target_scale * np.sqrt(variance), atol=1e-7)


def test_streamed_equals_batch(fitted):
    X, action, reward, _ = log(1, 12, seed=3, binary=fitted.binary_)
    whole, stream = copy.copy(fitted), copy.copy(fitted)
    whole.adapt(X, action, reward)
    stream.adapt(X[:1], action[:1], reward[:1])
    for i in range(1, 12):
        stream.partial_adapt(X[i : i + 1], action[i : i + 1], reward[i : i + 1])
    for one, other in zip(
        whole.decision_function(X, return_std=True),
        stream.decision_function(X, return_std=True),
        strict=True,
    ):
        assert_allclose(one, other, atol=1e-8)


def test_adapting_leaves_what_fit_learned(fitted):
    X, action, reward, _ = log(1, 12, seed=3, binary=fitted.binary_)
    before = fitted.decision_function(X, groups=np.zeros(12, dtype=int))
    other = copy.copy(fitted).adapt(X, action, reward)
    assert_array_equal(fitted.decision_function(X, groups=np.zeros(12, int)), before)
    assert None in other.states_
    assert None not in fitted.states_


def test_learned_prior_finds_the_variances():
    # Without directions the model is that of the generator: means, own deviations.
    rng = np.random.default_rng(0)
    K, T, n = 4, 200, 20
    mean = rng.normal(size=(K, 3))
    root = np.array([[0.6, 0.0], [0.2, 0.5], [0.0, 0.3]])
    own = rng.normal(size=(T, K, 2)) @ root.T
    Z = np.column_stack([np.ones(T * n), rng.normal(size=(T * n, 2))])
    arm, codes = rng.integers(K, size=T * n), np.repeat(np.arange(T), n)
    y = ((mean + own)[codes, arm] * Z).sum(1) + 0.2 * rng.normal(size=T * n)
    cells = cells_of(Z, arm, y, codes, K, T)
    prior = arm_prior(*fit_arms(cells, 0))
    assert_allclose(prior.mean, mean, atol=0.15)
    assert_allclose(prior.own.mean(0), root @ root.T, atol=0.06)
    assert_allclose(prior.noise, 0.04, rtol=0.1)


def test_directions_are_found_and_the_others_vanish():
    rng = np.random.default_rng(0)
    K, T, n = 5, 120, 20
    loadings = rng.normal(size=(K, 3, 1))
    z = rng.normal(size=(T, 1))
    Z = np.column_stack([np.ones(T * n), rng.normal(size=(T * n, 2))])
    arm, codes = rng.integers(K, size=T * n), np.repeat(np.arange(T), n)
    y = np.einsum("np,npr,nr->n", Z, loadings[arm], z[codes])
    y = y + 0.2 * rng.normal(size=T * n)
    q, hyper = fit_arms(cells_of(Z, arm, y, codes, K, T), 3)
    found = arm_prior(q, hyper).loadings.reshape(K * 3, 3)
    truth = loadings.reshape(K * 3)
    # In units in which the numbers of these tasks have variance one.
    truth = z.var() * np.outer(truth, truth)
    assert_allclose(found @ found.T, truth, atol=0.3)
    spread = np.sort(1 / np.sqrt(hyper.precision[1:]))
    assert spread[1] < 0.1 * spread[2]


@pytest.mark.parametrize("policy", ["thompson", "ucb", "greedy"])
def test_probabilities_are_those_of_the_choices(fitted, policy):
    bandit = copy.copy(fitted).set_params(policy=policy)
    X = np.array([[0.3, -0.2]])
    proba = bandit.predict_proba(X, groups=["new"])
    assert_allclose(proba.sum(1), 1)
    drawn = bandit.predict(np.repeat(X, 4000, axis=0), groups=["new"] * 4000)
    share = (drawn[:, None] == bandit.arms_).mean(0)
    assert_allclose(share, proba[0], atol=0.07)  # 500 draws against 4000
    if policy != "thompson":
        assert_array_equal(np.sort(proba[0]), [0, 0, 1])


def test_ucb_and_exploit(fitted):
    X, *_ = log(1, 30, seed=8)
    groups = ["new"] * 30
    bandit = copy.copy(fitted).set_params(policy="ucb", alpha=0.0)
    best = fitted.decision_function(X, groups).argmax(1)
    assert_array_equal(fitted.predict(X, groups, exploit=True), ARMS[best])
    if not fitted.binary_:
        assert_array_equal(bandit.predict(X, groups), ARMS[best])
        mean, std = fitted.decision_function(X, groups, return_std=True)
        bandit.set_params(alpha=2.0)
        chosen = ARMS[(mean + 2 * std).argmax(1)]
        assert_array_equal(bandit.predict(X, groups), chosen)


def test_arms_come_and_go(fitted):
    bandit = copy.copy(fitted)
    X, action, reward, _ = log(1, 12, seed=3, binary=bandit.binary_)
    bandit.adapt(X, action, reward)
    before = bandit.decision_function(X)
    bandit.add_arm("new")
    assert bandit.arms_.tolist() == ["a", "b", "c", "new"]
    after = bandit.decision_function(X)
    assert_allclose(after[:, :3], before, atol=1e-8)
    n = 40
    paid = np.ones(n) if bandit.binary_ else 9 + np.zeros(n)
    bandit.partial_adapt(np.zeros((n, 2)), np.repeat("new", n), paid)
    at_zero = bandit.decision_function(np.zeros((1, 2)))[0]
    assert at_zero.argmax() == 3
    assert at_zero[3] > (0.6 if bandit.binary_ else 5)
    bandit.remove_arm("new")
    assert bandit.predict_proba(X).shape == (12, 3)
    assert "new" not in bandit.predict(np.zeros((50, 2)))
    bandit.add_arm("new")
    assert_allclose(bandit.decision_function(np.zeros((1, 2)))[0], at_zero)
    assert fitted.arms_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="there already"):
        bandit.add_arm("a")
    with pytest.raises(ValueError, match="not one of"):
        bandit.remove_arm("z")


def test_lists_of_tasks_are_rows_with_groups():
    X, action, reward, groups = log()
    rows = MetaBandit(random_state=0).fit(X, action, reward, groups)
    tasks = [
        LoggedTask(X[groups == t], action[groups == t], reward[groups == t])
        for t in range(12)
    ]
    listed = MetaBandit(random_state=0).fit(tasks)
    new = np.zeros(12, dtype=int)
    assert_allclose(
        listed.decision_function(X[:12], new), rows.decision_function(X[:12], new)
    )
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = MetaBandit(random_state=0).fit(
        X[order], action[order], reward[order], groups[order]
    )
    assert_allclose(
        shuffled.decision_function(X[:12], new),
        rows.decision_function(X[:12], new),
        atol=1e-8,
    )


def test_contract(fitted):
    X, *_ = log(1, 20, seed=9)
    groups = ["new"] * 20
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.predict(X, groups), copy.copy(fitted).predict(X, groups))
    assert_array_equal(again.predict_proba(X, groups), fitted.predict_proba(X, groups))
    fresh = clone(fitted)
    assert not hasattr(fresh, "prior_")
    estimator_checks.check_parameters_default_constructible("MetaBandit", fresh)
    estimator_checks.check_no_attributes_set_in_init("MetaBandit", fresh)
    estimator_checks.check_estimator_repr("MetaBandit", fresh)


def test_seed_and_global_random_numbers():
    X, action, reward, groups = log()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = (
        MetaBandit(random_state=3).fit(X, action, reward, groups).predict(X, groups)
        for _ in range(2)
    )
    assert_array_equal(one, two)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_bad_input(fitted):
    X, action, reward, groups = log()
    with pytest.raises(ValueError, match="action and the reward"):
        MetaBandit().fit(X, action)
    with pytest.raises(ValueError, match="one entry for each of the 180 rows"):
        MetaBandit().fit(X, action[:5], reward)
    with pytest.raises(ValueError, match="arm that is not known: .*'zzz'"):
        fitted.adapt(X[:1], ["zzz"], [1])
    with pytest.raises(ValueError, match="needs rewards of 0 and 1"):
        MetaBandit(reward_type="binary").fit(X, action, reward)
    bad = X.copy()
    bad[20, 1] = np.nan
    with pytest.raises(ValueError, match="task 1, row 20, column 1 of X"):
        MetaBandit().fit(bad, action, reward, groups)
    with pytest.raises(ValueError, match="Task 1: X, action"):
        MetaBandit().fit([(X, action, reward), (X, action[:3], reward)])
    with pytest.raises(ValueError, match="features"):
        fitted.predict(np.zeros((1, 3)))


def test_score_goes_into_cross_validation():
    X, action, reward, groups = log(20, 30)
    propensity = np.full(len(X), 1 / 3)
    tasks = [
        LoggedTask(*(c[groups == t] for c in (X, action, reward, propensity)))
        for t in range(20)
    ]
    listed = cross_val_score(MetaBandit("greedy", random_state=0), tasks, cv=4)
    assert listed.shape == (4,)
    with config_context(enable_metadata_routing=True):
        routed = cross_val_score(
            MetaBandit("greedy", random_state=0),
            X,
            action,
            cv=GroupKFold(4),
            params={"reward": reward, "groups": groups, "propensity": propensity},
        )
    # Choosing by context is worth more than any arm by itself.
    assert listed.mean() > reward.mean() + 0.3
    assert routed.mean() > reward.mean() + 0.3


def test_off_policy_values_by_hand():
    reward, proba = np.array([1.0, 0.0, 2.0, 1.0]), np.array([0.9, 0.1, 0.5, 0.5])
    logged = np.array([0.5, 0.5, 0.25, 0.5])
    weight = proba / logged
    ips = off_policy_value(reward, proba, logged, method="ips")
    assert_allclose(ips.value, (weight * reward).mean())
    error = (weight * reward).std(ddof=1) / 2
    assert_allclose(ips.standard_error, error)
    assert_allclose((ips.high - ips.low) / 2, 2.353363434801823 * error)  # t, 3 df
    snips = off_policy_value(reward, proba, logged, method="snips")
    assert_allclose(snips.value, (weight * reward).sum() / weight.sum())
    model, policy_model = np.array([0.8, 0.1, 1.5, 1.0]), np.full(4, 1.1)
    dr = off_policy_value(
        reward,
        proba,
        logged,
        expected=model,
        policy_expected=policy_model,
        method="dr",
    )
    assert_allclose(dr.value, np.mean(1.1 + weight * (reward - model)))
    # Two groups of two: the error of the mean of two group sums.
    by_group = off_policy_value(
        reward, proba, logged, method="ips", groups=["x", "x", "y", "y"]
    )
    deviation = weight * reward - ips.value
    sums = np.array([deviation[:2].sum(), deviation[2:].sum()])
    assert_allclose(by_group.standard_error, np.sqrt(2 * (sums**2).sum()) / 4)


def test_off_policy_faults():
    with pytest.raises(ValueError, match="in row 1"):
        off_policy_value([1, 0], [1, 1], [0.5, 0.0])
    with pytest.raises(ValueError, match="never takes"):
        off_policy_value([1, 0], [0, 0], [0.5, 0.5])
    with pytest.raises(ValueError, match="needs expected"):
        off_policy_value([1, 0], [1, 1], [0.5, 0.5], method="dr")


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_intervals_cover_the_true_value(method):
    rng = np.random.default_rng(0)
    hits, n = 0, 400
    for _ in range(600):
        x = rng.random(n)
        logged = np.column_stack([0.3 + 0.4 * x, 0.7 - 0.4 * x])
        judged = np.column_stack([0.8 - 0.5 * x, 0.2 + 0.5 * x])
        action = (rng.random(n) < logged[:, 1]).astype(int)
        means = np.column_stack([x, 1 - x**2])
        reward = (rng.random(n) < means[np.arange(n), action]).astype(float)
        model = 0.8 * means  # wrong by a fifth
        each = np.arange(n)
        result = off_policy_value(
            reward,
            judged[each, action],
            logged[each, action],
            expected=model[each, action],
            policy_expected=(judged * model).sum(1),
            method=method,
        )
        # Integral of (.8 - .5 x) x + (.2 + .5 x) (1 - x^2) over [0, 1].
        truth = 0.4 - 0.5 / 3 + 0.2 + 0.25 - 0.2 / 3 - 0.125
        hits += result.low <= truth <= result.high
    assert 0.87 <= hits / 600 <= 0.93
