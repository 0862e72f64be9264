"""The guard: weights by hand, and no worse than the best of pooled and local."""

import copy
import functools

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from _tiny import classification_tasks, long_format, regression_tasks, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmeta import (
    HierarchicalClassifier,
    HierarchicalRegressor,
    PerTask,
    RidgeHeadRegressor,
    SingleTaskWarning,
)
from skmeta.baselines import (
    LocalClassifier,
    LocalRegressor,
    PooledClassifier,
    PooledRegressor,
)
from skmeta.datasets import make_regression_tasks
from skmeta.model_selection import GuardedClassifier, GuardedRegressor, compare
from skmeta.model_selection._guard_rule import simplex_least_squares, trust
from skmeta.utils.estimator_checks import parametrize_with_meta_checks


def guard(*, classifier=False, **params):
    """Two linear candidates, few shots."""
    if classifier:
        candidates = [
            ("pooled", PooledClassifier(LogisticRegression())),
            ("local", LocalClassifier()),
        ]
    else:
        candidates = [
            ("pooled", PooledRegressor(Ridge())),
            ("local", LocalRegressor()),
        ]
    defaults = {"estimators": candidates, "shots": [0, 2, 5], "cv": 3, "n_draws": 2}
    cls = GuardedClassifier if classifier else GuardedRegressor
    return cls(**defaults | params)


def tasks_of(classifier, **params):
    return (classification_tasks if classifier else regression_tasks)(**params)


def output(model, X, groups=None):
    name = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    return getattr(model, name)(X, groups=groups)


# --------------------------------------------------------------------------- contracts
# sklearn's checks have rows of one task, which says little for a choice over tasks.
single_task = pytest.mark.filterwarnings("ignore::skmeta.SingleTaskWarning")
sparse = pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix:UserWarning")

CHEAP = [GuardedRegressor(Ridge()), GuardedClassifier(LogisticRegression())]


@pytest.fixture
def array_api(monkeypatch):
    """Without it sklearn silently skips a check."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@single_task
@sparse
@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([guard(), guard(classifier=True)])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@single_task
@sparse
@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([GuardedRegressor(), GuardedClassifier(), *CHEAP])
def test_sklearn_checks_of_the_default_candidates(estimator, check):
    check(estimator)


@pytest.mark.slow
@single_task
@sparse
@pytest.mark.usefixtures("array_api")
@parametrize_with_checks([guard(), guard(classifier=True)])
def test_sklearn_checks_with_routing(estimator, check):
    with sklearn.config_context(enable_metadata_routing=True):
        check(estimator)


# With two rows of three features the local model has no weight, as it should have, and
# nothing would be adapted.
@parametrize_with_meta_checks(
    [
        guard(shots=[0, 5], cv=2, n_draws=1),
        guard(classifier=True, shots=[0, 5], cv=2, n_draws=1),
    ]
)
def test_meta_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_meta_checks(CHEAP)
def test_meta_checks_of_the_default_candidates(estimator, check):
    check(estimator)


@pytest.mark.parametrize("classifier", [False, True])
def test_default_candidates(classifier):
    tasks = tasks_of(classifier, n_tasks=6)
    base = LogisticRegression(C=0.5) if classifier else Ridge(alpha=2.0)
    cls = GuardedClassifier if classifier else GuardedRegressor
    model = cls(base, shots=[0, 2], cv=2, n_draws=1).fit(tasks)
    kinds = [
        type(e).__name__.removesuffix("Classifier").removesuffix("Regressor")
        for e in model.estimators_.values()
    ]
    assert list(model.estimators_) == ["pooled", "local", "hierarchical", "both"]
    assert kinds == ["Pooled", "Local", "Hierarchical", "Hierarchical"]
    assert repr(model.estimators_["pooled"].estimator_) == repr(base)
    assert repr(model.estimators_["both"].base_estimator) == repr(base)
    assert model.estimators_["hierarchical"].base_estimator is None


# ------------------------------------------------------------------------------ weights
@given(
    n=st.integers(1, 6),
    rank=st.integers(1, 8),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_simplex_least_squares_is_what_a_general_solver_finds(n, rank, scale, seed):
    errors = np.random.default_rng(seed).normal(size=(rank, n)) * scale
    gram = errors.T @ errors
    weight = simplex_least_squares(gram)
    assert weight.min() >= 0 and weight.sum() == pytest.approx(1, abs=1e-12)
    unit = gram / scale**2
    slow = minimize(
        lambda w: w @ unit @ w,
        np.full(n, 1 / n),
        jac=lambda w: 2 * unit @ w,
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert weight @ unit @ weight <= slow.fun + 1e-6 * max(slow.fun, 1e-3)
    for vertex in range(n):
        assert weight @ unit @ weight <= unit[vertex, vertex] * (1 + 1e-6)


def test_simplex_least_squares_of_no_errors_is_even():
    weight = simplex_least_squares(np.zeros((4, 4)))
    np.testing.assert_allclose(weight, 0.25, atol=1e-6)


def slow_parts(model, tasks, shots, seed=0):
    """Query outputs of each candidate by shot, draw and task, and the fold of tasks."""
    X, y, codes = long_format(tasks)
    if model._is_classifier:
        y = np.searchsorted(model.classes_, y)
    folds = KFold(model.cv, shuffle=True, random_state=seed).split(range(len(tasks)))
    parts, fold_of = {}, np.empty(len(tasks), dtype=int)
    for f, (train, test) in enumerate(folds):
        fold_of[test] = f
        keep = np.isin(codes, train)
        fitted = [
            clone(e).fit(X[keep], y[keep], groups=codes[keep])
            for _, e in model.estimators
        ]
        for draw in range(model.n_draws):
            key = np.random.default_rng((seed, draw)).random(len(y))
            for k in shots:
                for t in test:
                    rows = np.flatnonzero(codes == t)
                    if len(rows) <= k:
                        continue
                    chosen = np.sort(rows[np.argsort(key[rows])][:k])
                    query = np.setdiff1d(rows, chosen)
                    outputs = []
                    for e in fitted:
                        e = copy.copy(e)
                        groups = np.full(len(query), -1)
                        if k:
                            e.adapt(X[chosen], y[chosen], groups=np.full(k, -1))
                        outputs.append(output(e, X[query], groups))
                    parts[k, draw, t] = np.array(outputs), y[query]
    return parts, fold_of


def slow_loss(model, outputs, y):
    if not model._is_classifier:
        return np.mean((outputs - y) ** 2)
    wrong = outputs.argmax(axis=1) != y
    own = outputs[np.arange(len(y)), y]
    return np.mean(wrong + 1e-3 * (1 - own) ** 2)


def slow_mixture(model, parts):
    """Weights of two candidates by a general solver; tasks count the same."""

    def objective(w):
        total = 0.0
        for outputs, y in parts:
            mixed = np.tensordot([w, 1 - w], outputs, 1)
            if model._is_classifier:
                own = np.clip(outputs[:, np.arange(len(y)), y], 1e-3, None)
                total -= np.mean(np.log([w, 1 - w] @ own))
            else:
                total += np.mean((mixed - y) ** 2)
        return total

    inner = minimize_scalar(objective, bounds=(0, 1), method="bounded").x
    best = min([0.0, inner, 1.0], key=objective)
    return np.array([best, 1 - best])


def mixed_loss(model, weight, outputs, y):
    return slow_loss(model, np.tensordot(weight, outputs, 1), y)


@pytest.fixture(scope="module", params=[False, True], ids=["regressor", "classifier"])
def chosen(request):
    """A guard, its slow parts by shot, draw and task, and the fold of each task."""
    tasks = tasks_of(request.param, n_tasks=9, n_rows=14)
    sizes = [4, 14, 9, 14, 12, 14, 5, 14, 14]  # some too small for five shots
    tasks = [(X[:n], y[:n]) for (X, y), n in zip(tasks, sizes, strict=True)]
    model = guard(classifier=request.param).fit(tasks)
    assert model.shots_.tolist() == [0, 2, 5]
    return model, *slow_parts(model, tasks, model.shots_)


def test_losses_are_those_of_the_slow_loop(chosen):
    model, parts, fold_of = chosen
    for i, k in enumerate([0, 2, 5]):
        at_k = {(d, t): part for (k_, d, t), part in parts.items() if k_ == k}
        for t in range(9):
            own = [at_k[d, t] for d in (0, 1) if (d, t) in at_k]
            if not own:
                assert k == 5 and t in (0, 6) and np.isnan(model.losses_[i, t]).all()
                continue
            others = [part for (_, u), part in at_k.items() if fold_of[u] != fold_of[t]]
            for m, weight in enumerate([*np.eye(2), slow_mixture(model, others)]):
                expected = np.mean([mixed_loss(model, weight, *part) for part in own])
                exact = {"rel": 1e-6} if m < 2 else {"rel": 0.02, "abs": 2e-3}
                assert model.losses_[i, t, m] == pytest.approx(expected, **exact)


def slow_wins(losses):
    """How often each column is best in resamples of the tasks."""
    losses = np.array([row for row in losses if not np.isnan(row).any()])
    n = len(losses)
    draws = np.random.default_rng(0).multinomial(n, [1 / n] * n, 500)
    wins = np.zeros(losses.shape[1])
    for draw in draws:
        wins[np.argmin(sum(c * row for c, row in zip(draw, losses, strict=True)))] += 1
    return wins / 500


def slow_pair(model, losses, parts):
    """Weights of the simple candidates, and of all that there are."""
    wins, mixture = slow_wins(losses), slow_mixture(model, parts)
    return slow_wins(losses[:, :2]), wins[:2] + wins[2] * mixture


def slow_trust(gains):
    """One-sided t-test at 10 %, and how much of the square is left above its bound."""
    error = np.std(gains, ddof=1) / len(gains) ** 0.5
    bound = student.ppf(0.9, len(gains) - 1) * error
    return 1 - (bound / np.mean(gains)) ** 2 if np.mean(gains) > bound else 0.0


def test_weights_follow_from_the_losses(chosen):
    model, parts, fold_of = chosen
    for i, k in enumerate([0, 2, 5]):
        at_k = {(d, t): part for (k_, d, t), part in parts.items() if k_ == k}
        gains = []
        for t in sorted({t for _, t in at_k}):
            others = fold_of != fold_of[t]
            kept = [part for (_, u), part in at_k.items() if others[u]]
            safe, rich = slow_pair(model, model.losses_[i][others], kept)
            own = [part for (_, u), part in at_k.items() if u == t]
            gains.append(
                np.mean(
                    [
                        mixed_loss(model, safe, *p) - mixed_loss(model, rich, *p)
                        for p in own
                    ]
                )
            )
        safe, rich = slow_pair(model, model.losses_[i], list(at_k.values()))
        expected = safe + slow_trust(gains) * (rich - safe)
        np.testing.assert_allclose(model.weights_[i], expected, atol=0.01)
    assert len(np.unique(model.weights_.round(2))) > 1


def test_trust_needs_more_than_luck_and_grows_without_a_jump():
    gain = np.random.default_rng(0).normal(size=30)
    gain = (gain - gain.mean()) / gain.std(ddof=1) * 30**0.5
    bound = student.ppf(0.9, 29)
    for ratio, expected in [(-2, 0), (0.9, 0), (1, 0), (2, 0.75), (10, 0.99)]:
        found = trust(gain + ratio * bound)
        assert found == pytest.approx(expected, abs=1e-12)
    with_small_tasks = np.append(gain + 2 * bound, [np.nan, np.nan])
    assert trust(with_small_tasks) == pytest.approx(0.75)
    assert trust(np.full(5, 0.1)) == 1 and trust(np.zeros(5)) == 0
    assert trust(np.array([1.0])) == 0 and trust(np.array([np.nan])) == 0


@pytest.mark.parametrize("classifier", [False, True])
def test_weights_lie_on_the_simplex(classifier):
    cls = GuardedClassifier if classifier else GuardedRegressor
    base = LogisticRegression() if classifier else Ridge()
    model = cls(base, cv=2, n_draws=1).fit(tasks_of(classifier, n_tasks=6))
    assert model.weights_.shape == (len(model.shots_), 4)
    assert model.weights_.min() >= 0
    np.testing.assert_allclose(model.weights_.sum(axis=1), 1)
    assert model.losses_.shape == (len(model.shots_), 6, 5)


def test_identical_tasks_are_pooled_and_unrelated_ones_are_local():
    rng = np.random.default_rng(0)

    def tasks(w):
        X = rng.normal(size=(30, 3))
        return X, X @ w + 0.3 * rng.normal(size=30)

    same = guard(shots=[0, 2, 20]).fit([tasks(np.ones(3)) for _ in range(12)])
    assert (same.weights_[:, 0] > 0.9).all()
    apart = guard(shots=[0, 2, 20]).fit(
        [tasks(5 * rng.normal(size=3)) for _ in range(12)]
    )
    assert apart.weights_[2, 1] > 0.95


def test_shots_that_few_tasks_have_are_left_out():
    tasks = regression_tasks(n_rows=12)
    assert guard(shots=[0, 11, 12]).fit(tasks).shots_.tolist() == [0, 11]
    small = [(X[:1], y[:1]) for X, y in tasks]
    model = guard(shots=[5], estimators=[("pooled", PooledRegressor(Ridge()))])
    model.fit(small)
    assert model.shots_.tolist() == [5] and model.weights_.tolist() == [[1.0]]


def test_shots_that_one_task_alone_has_are_compared_all_the_same():
    """Nothing is left to learn weights from when that task is held out."""
    for classifier in (False, True):
        tasks = tasks_of(classifier, n_tasks=3, n_rows=20)
        tasks = [(X[:n], y[:n]) for (X, y), n in zip(tasks, [6, 6, 20], strict=True)]
        model = guard(classifier=classifier, shots=[0, 9]).fit(tasks)
        assert model.shots_.tolist() == [0, 9]
        assert np.isfinite(model.weights_).all()
        np.testing.assert_array_equal(
            np.isnan(model.losses_[1]), [[True] * 3, [True] * 3, [False] * 3]
        )


# -------------------------------------------------------------------------- predictions
@pytest.fixture(scope="module", params=[False, True], ids=["regressor", "classifier"])
def fitted(request):
    model = guard(classifier=request.param).fit(tasks_of(request.param, n_tasks=9))
    # Other weights at each number of shots, so that a mixed-up one shows.
    model.weights_ = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    model.states_ = model.states_.unsolved()
    return model


def by_hand(model, X, y, query):
    weights = [
        np.interp(np.log(1 + len(y)), np.log([1, 3, 6]), column)
        for column in model.weights_.T
    ]
    codes = y if not model._is_classifier else np.searchsorted(model.classes_, y)
    total = 0.0
    for weight, candidate in zip(weights, model.estimators_.values(), strict=True):
        candidate = copy.copy(candidate)
        groups = np.full(len(query), -1)
        if len(y):
            candidate.adapt(X, codes, groups=np.full(len(y), -1))
        total = total + weight * output(candidate, query, groups)
    return total


@pytest.mark.parametrize("n_rows", [0, 1, 2, 3, 5, 11])
def test_predictions_are_weighted_candidates(fitted, n_rows):
    X, y = tasks_of(fitted._is_classifier, n_tasks=1, seed=3)[0]
    expected = by_hand(fitted, X[:n_rows], y[:n_rows], X)
    model = copy.copy(fitted)
    if n_rows:
        model.adapt(X[:n_rows], y[:n_rows])
        np.testing.assert_allclose(output(model, X), expected)
        if n_rows > 1:
            model.adapt(X[:1], y[:1]).partial_adapt(X[1:n_rows], y[1:n_rows])
    groups = None if n_rows else ["new"] * len(X)
    np.testing.assert_allclose(output(model, X, groups), expected)
    if fitted._is_classifier:
        labels = model.classes_[expected.argmax(axis=1)]
        np.testing.assert_array_equal(model.predict(X, groups=groups), labels)


def test_known_tasks_are_predicted_from_their_training_rows(fitted):
    tasks = tasks_of(fitted._is_classifier, n_tasks=9)
    X, _, groups = long_format(tasks)
    expected = [by_hand(fitted, X_t, y_t, X_t) for X_t, y_t in tasks]
    np.testing.assert_allclose(output(fitted, X, groups), np.concatenate(expected))


def test_neural_candidates_and_names_that_share_a_beginning():
    candidates = [
        ("a", tiny(RidgeHeadRegressor)),
        ("a b", HierarchicalRegressor()),
        ("a 0", LocalRegressor(Ridge())),
    ]
    tasks = regression_tasks(n_tasks=6)
    model = guard(estimators=candidates, shots=[0, 3], cv=2, n_draws=1).fit(tasks)
    model.weights_ = np.array([[0.2, 0.3, 0.5], [0.5, 0.1, 0.4]])
    (X, y), *_ = regression_tasks(1, seed=4)
    model.adapt(X[:3], y[:3])
    expected = sum(
        weight * copy.copy(e).adapt(X[:3], y[:3]).predict(X)
        for weight, e in zip(model.weights_[1], model.estimators_.values(), strict=True)
    )
    np.testing.assert_allclose(model.predict(X), expected)


def test_string_labels_and_a_class_that_some_folds_do_not_see():
    rng = np.random.default_rng(0)
    tasks = []
    for t in range(6):
        X = rng.normal(size=(12, 2))
        y = np.where(X[:, 0] > 0, "yes", "no").astype(object)
        if t == 4:
            y[::3] = "rare"
        tasks.append((X, y))
    candidates = [
        ("pooled", PooledClassifier(LogisticRegression())),
        ("local", LocalClassifier()),
        ("meta", HierarchicalClassifier(covariance="intercept")),
    ]
    model = guard(classifier=True, estimators=candidates, shots=[0, 4]).fit(tasks)
    assert model.classes_.tolist() == ["no", "rare", "yes"]
    assert np.isfinite(model.losses_).all()
    X, y = tasks[0]
    proba = model.adapt(X, y).predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert np.mean(model.predict(X) == y) > 0.8


def test_classes_announced_before_they_come():
    tasks = classification_tasks(6)
    model = guard(classifier=True).partial_fit(tasks, classes=[0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]
    X, y = tasks[0][0], np.arange(12) % 3
    assert model.adapt(X, y).predict_proba(X).shape == (12, 3)


# -------------------------------------------------------------------------- partial_fit
@pytest.mark.parametrize("classifier", [False, True])
def test_partial_fit_in_two_calls_is_fit(classifier):
    tasks = tasks_of(classifier, n_tasks=9)
    whole = guard(classifier=classifier).fit(tasks)
    apart = guard(classifier=classifier)
    apart.partial_fit(tasks[:5]).partial_fit(tasks[5:])
    np.testing.assert_array_equal(apart.shots_, whole.shots_)
    np.testing.assert_allclose(apart.weights_, whole.weights_)
    np.testing.assert_allclose(apart.losses_, whole.losses_)
    X, _, groups = long_format(tasks)
    np.testing.assert_allclose(output(apart, X, groups), output(whole, X, groups))


def test_partial_fit_extends_known_tasks():
    X, y, groups = long_format(regression_tasks(6))
    first = np.arange(len(y)) % 3 > 0
    model = guard().partial_fit(X[first], y[first], groups=groups[first])
    model.partial_fit(X[~first], y[~first], groups=groups[~first])
    order = np.lexsort((~first, groups))
    whole = guard().fit(X[order], y[order], groups=groups[order])
    np.testing.assert_allclose(model.losses_, whole.losses_)
    np.testing.assert_allclose(model.predict(X, groups), whole.predict(X, groups))


# ---------------------------------------------------------------------- in scikit-learn
def test_parameters_of_candidates_can_be_searched():
    tasks = regression_tasks(8)
    model = guard()
    params = model.get_params()
    assert params["pooled__estimator__alpha"] == 1.0
    assert params["local"] is model.estimators[1][1]
    assert "pooled" not in model.get_params(deep=False)
    assert "pooled" not in GuardedRegressor().get_params()
    before = model.estimators
    model.set_params(pooled__estimator__alpha=7.0, local=LocalRegressor(Ridge()))
    assert model.estimators[0][1].estimator.alpha == 7.0
    assert isinstance(model.estimators[1][1].estimator, Ridge)
    assert before[1][1].estimator is None  # the list that was passed is not edited
    search = GridSearchCV(
        guard(n_draws=1, shots=[0, 3], cv=2),
        {"pooled__estimator__alpha": [0.1, 1000.0]},
        cv=2,
        error_score="raise",
    ).fit(tasks)
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0
    with pytest.raises(ValueError, match="Invalid parameter 'none'"):
        model.set_params(none=1)


def test_guard_in_a_pipeline_of_tasks():
    tasks = regression_tasks(8)
    pipe = make_pipeline(PerTask(StandardScaler()), guard(n_draws=1))
    score = cross_val_score(pipe, tasks, cv=[(range(5), range(5, 8))])[0]
    scaler = StandardScaler().fit(np.concatenate([X for X, _ in tasks[:5]]))
    scaled = [(scaler.transform(X), y) for X, y in tasks]
    assert score == pytest.approx(guard(n_draws=1).fit(scaled[:5]).score(scaled[5:]))


def test_jobs_are_bit_equal_to_serial():
    tasks = regression_tasks(8)
    serial = guard().fit(tasks)
    with joblib.parallel_config("threading"):
        parallel = guard(n_jobs=2).fit(tasks)
    np.testing.assert_array_equal(parallel.losses_, serial.losses_)
    np.testing.assert_array_equal(parallel.weights_, serial.weights_)


def test_support_first_judges_later_rows():
    tasks = regression_tasks(8)
    drifting = [(X, y + 10.0 * (np.arange(len(y)) > 7)) for X, y in tasks]
    random = guard(shots=[8]).fit(drifting)
    first = guard(shots=[8], support="first").fit(drifting)
    # No support row has drifted and all query rows have, so that local misses by 10.
    np.testing.assert_allclose(first.losses_[0, :, 1], 100, rtol=0.05)
    assert random.losses_[0, :, 1].mean() < 75
    # There is one draw.
    again = guard(shots=[8], support="first", n_draws=7).fit(drifting)
    np.testing.assert_array_equal(again.losses_, first.losses_)


# ------------------------------------------------------------------------------- report
def test_report_says_what_the_choice_rests_on():
    model = guard().fit(regression_tasks(9))
    table = model.report()
    assert table["n_shots"].tolist() == [0] * 3 + [2] * 3 + [5] * 3
    assert table["candidate"].tolist() == ["pooled", "local", "mixture"] * 3
    for (k, name), row in table.set_index(["n_shots", "candidate"]).iterrows():
        i, m = [0, 2, 5].index(k), ["pooled", "local", "mixture"].index(name)
        losses = model.losses_[i, :, m]
        gap = losses - model.losses_[i, :, 0]
        half = 1.96 * gap.std(ddof=1) / 3
        expected = [losses.mean(), gap.mean(), gap.mean() - half, gap.mean() + half]
        np.testing.assert_allclose(
            row[["loss", "difference", "low", "high"]].astype(float), expected
        )
        if m < 2:
            assert row["weight"] == model.weights_[i, m]
        else:
            assert np.isnan(row["weight"])
    assert isinstance(table, pd.DataFrame) and len(table.columns) == 7


def test_a_single_task_gives_even_weights_and_an_empty_report():
    X, y = regression_tasks(1)[0]
    with pytest.warns(SingleTaskWarning):
        model = guard().fit(X, y)
    assert model.weights_.tolist() == [[0.5, 0.5]]
    table = model.report()
    assert table["loss"].isna().all() and len(table) == 3
    assert np.isfinite(model.predict(X)).all()


# ------------------------------------------------------------------------ never worse
def held_out_errors(models, tasks, n_shots):
    """Mean over tasks of the squared error on the rows after the first `n_shots`."""
    X, y, groups = long_format(tasks)
    rank = np.concatenate([np.arange(len(y)) for _, y in tasks])
    groups = groups + 10_000
    support, query = rank < n_shots, rank >= 40
    errors = []
    for model in models:
        model = copy.copy(model)
        if n_shots:
            model.adapt(X[support], y[support], groups=groups[support])
        predicted = model.predict(X[query], groups=groups[query])
        errors.append(np.mean((predicted - y[query]) ** 2))
    return errors


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("between", [slow(0.02), 0.3, slow(1.0)])
def test_never_one_percent_worse_than_the_best_of_pooled_and_local(between):
    """On tasks alike, related and unrelated, from no row to many."""
    shots = [0, 1, 2, 5, 10, 20, 40]
    tasks = make_regression_tasks(160, 60, 4, between=between, random_state=1)
    known, new = tasks[:80], tasks[80:]
    model = GuardedRegressor(LinearRegression(), shots=shots, n_draws=2).fit(known)
    single = [model.estimators_["pooled"], model.estimators_["local"]]
    for n_shots in [0, 1, 2, 3, 5, 7, 10, 14, 20, 30, 40]:
        error, *others = held_out_errors([model, *single], new, n_shots)
        assert error <= 1.01 * min(others), n_shots


def test_a_guarded_classifier_errs_no_more_than_the_best_of_pooled_and_local():
    tasks = make_regression_tasks(160, 60, 4, between=0.5, random_state=1)
    tasks = [(X, (y > 0).astype(int)) for X, y in tasks]
    known, new = tasks[:80], tasks[80:]
    params = {"shots": [0, 2, 5, 10, 40], "n_draws": 1}
    model = guard(classifier=True, **params).fit(known)
    for n_shots in [0, 1, 3, 10, 20, 40]:
        error, *others = held_out_errors(
            [model, *model.estimators_.values()], new, n_shots
        )
        assert error <= min(others) + 0.01, n_shots


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"estimators": []}, ValueError, r"list of \(name, meta-learner\) pairs"),
        ({"estimators": [LocalRegressor()]}, ValueError, "pairs; got"),
        ({"estimators": "best"}, ValueError, "'estimators' parameter .* 'best'"),
        (
            {"estimators": [("a", LocalRegressor()), ("a", LocalRegressor())]},
            ValueError,
            r"not unique: \['a', 'a'\]",
        ),
        ({"estimators": [("cv", LocalRegressor())]}, ValueError, "conflict.*'cv'"),
        (
            {"estimators": [("a__b", LocalRegressor())]},
            ValueError,
            "must not contain __",
        ),
        (
            {"estimators": [("ridge", Ridge())]},
            TypeError,
            "are regressors; 'ridge' is Ridge.*PooledRegressor",
        ),
        (
            {"estimators": [("c", LocalClassifier())]},
            TypeError,
            "are regressors; 'c' is",
        ),
        ({"shots": [5, 2]}, ValueError, "increasing"),
        ({"shots": []}, ValueError, "increasing"),
        ({"shots": [-1]}, ValueError, "at least 0"),
        ({"cv": 1}, ValueError, "'cv' parameter"),
        ({"n_draws": 0}, ValueError, "'n_draws' parameter"),
        ({"support": "last"}, ValueError, "'support' parameter"),
        ({"base_estimator": 3}, ValueError, "'base_estimator' parameter"),
    ],
)
def test_parameters_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        guard(**params).fit(regression_tasks(4))


def test_labels_that_belong_to_their_task_are_refused():
    tasks = [
        (X, np.array([f"{t}{label}" for label in y]))
        for t, (X, y) in enumerate(classification_tasks(6))
    ]
    model = guard(classifier=True)
    with pytest.raises(
        ValueError,
        match="GuardedClassifier needs classes that mean the same in every task",
    ):
        model.fit(tasks)
    assert not hasattr(model, "weights_")


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes.*only one class:"):
        guard(classifier=True).fit([(X, 0 * y) for X, y in classification_tasks(4)])


@pytest.mark.parametrize("verb", ["fit", "adapt", "predict"])
def test_missing_values_are_named_by_task_and_column(verb):
    X, y, groups = long_format(regression_tasks(4))
    model = guard().fit(X, y, groups=groups)
    frame = pd.DataFrame(X, columns=["age", "dose", "weight"]).assign(user=groups)
    named = guard(group_column="user").fit(frame, y)
    X[30, 1] = frame.loc[30, "dose"] = np.nan
    rows = (X,) if verb == "predict" else (X, y)
    with pytest.raises(ValueError, match="NaN[^^]*task 2, row 30, column 1 of X"):
        getattr(model, verb)(*rows, groups=groups)
    rows = (frame,) if verb == "predict" else (frame, y)
    with pytest.raises(ValueError, match="NaN[^^]*task 2, row 30, column 'dose' of X"):
        getattr(named, verb)(*rows)


# -------------------------------------------------------------------------------- leaks
HUGE = 1e6
SEEN = []


class Spy(HierarchicalRegressor):
    """Keeps all rows that fit, adapt and states see."""

    def _meta_fit(self, table, **options):
        SEEN.append(("fit", table.X.copy(), table.y.copy()))
        return super()._meta_fit(table, **options)

    def _summarize(self, table):
        SEEN.append(("adapt", table.X.copy(), table.y.copy()))
        return super()._summarize(table)


def poisoned(tasks, positions, n_shots):
    """The same tasks, all rows but the first `n_shots` of some of them spoilt."""
    tasks = [(X.copy(), y.copy()) for X, y in tasks]
    for t in positions:
        tasks[t][0][n_shots:] *= HUGE
        tasks[t][1][n_shots:] = HUGE
    return tasks


def spied(tasks, use):
    SEEN.clear()
    result = use(tasks)
    return list(SEEN), result


def assert_same_rows(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])


def test_query_rows_stay_out_of_the_cross_fitting():
    tasks = regression_tasks(8)
    model = guard(estimators=[("spy", Spy())], cv=2, shots=[2], support="first")
    test = next(KFold(2, shuffle=True, random_state=0).split(tasks))[1]

    def first_fold(tasks):
        model.fit(tasks)
        return model.losses_[0, test, 0]

    def of_first_fold(seen):
        second = [i for i, (kind, *_) in enumerate(seen) if kind == "fit"][1]
        return seen[:second]

    clean, losses = spied(tasks, first_fold)
    spoilt, huge = spied(poisoned(tasks, test, 2), first_fold)
    clean, spoilt = of_first_fold(clean), of_first_fold(spoilt)
    assert {kind for kind, *_ in clean} == {"fit", "adapt"}
    assert_same_rows(clean, spoilt)
    assert (huge > 1e6 * losses).all()
    seen, _ = spied(poisoned(tasks, test, 1), first_fold)
    assert max(np.abs(X).max() for _, X, _ in of_first_fold(seen)) > 1000


def test_query_rows_stay_out_of_score():
    known, tasks = regression_tasks(8), regression_tasks(5, seed=1)
    model = guard(
        estimators=[("spy", Spy())], cv=2, shots=[2], n_shots=2, support="first"
    ).fit(known)
    X, _, groups = long_format(known)
    before = model.predict(X, groups)
    clean, score = spied(tasks, model.score)
    spoilt, bad = spied(poisoned(tasks, [1, 3], 2), model.score)
    assert_same_rows(clean, spoilt)
    assert bad != score
    np.testing.assert_array_equal(model.predict(X, groups), before)


def test_a_guard_that_is_compared_sees_no_query_rows():
    tasks = regression_tasks(9)
    model = guard(estimators=[("spy", Spy())], cv=2, shots=[2], support="first")
    folds = [(np.arange(6), np.array([6, 7, 8]))]

    def use(tasks):
        params = {"shots": [2], "support": "first", "baselines": False}
        return compare({"guard": model}, tasks, cv=folds, **params).scores["guard"]

    clean, scores = spied(tasks, use)
    spoilt, bad = spied(poisoned(tasks, [6, 7, 8], 2), use)
    assert_same_rows(clean, spoilt)
    assert (bad[..., 6:] < scores[..., 6:] - 1000).all()
