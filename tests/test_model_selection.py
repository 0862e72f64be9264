"""Splits, scorers, curves and comparisons against slow references."""

import copy
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from _tiny import classification_tasks, long_format, regression_tasks, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.base import clone, is_classifier
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from skmeta import (
    HierarchicalClassifier,
    HierarchicalRegressor,
    PerTask,
    ProtoNetClassifier,
)
from skmeta.baselines import (
    LocalClassifier,
    LocalRegressor,
    PooledClassifier,
    PooledRegressor,
)
from skmeta.model_selection import (
    Comparison,
    FewShotKFold,
    FewShotScorer,
    ShotCurve,
    TaskLearningCurve,
    compare,
    default_baselines,
    shot_curve,
    task_learning_curve,
)
from skmeta.model_selection._labels_needed import Tail, error_left, shots_until
from skmeta.utils.estimator_checks import _learned

FEATURES = ["x0", "x1", "x2"]


def routing():
    return sklearn.config_context(enable_metadata_routing=True)


def ragged(n_tasks=10, seed=0):
    """Regression tasks of 4 to 12 rows."""
    sizes = np.random.default_rng(seed).integers(4, 13, n_tasks)
    tasks = regression_tasks(n_tasks, seed=seed)
    return [(X[:n], y[:n]) for (X, y), n in zip(tasks, sizes, strict=True)]


def frame_of(X, groups, library=pd):
    columns = {name: X[:, j] for j, name in enumerate(FEATURES)}
    return library.DataFrame(columns | {"user": groups})


# ----------------------------------------------------------------- slow references
def slow_support(tasks, n_shots, *, draw=0, seed=0, support="random", per_class=False):
    """Support rows of each task, a list of boolean arrays."""
    n_rows = sum(len(y) for _, y in tasks)
    key = np.random.default_rng((seed, draw)).random(n_rows)
    masks, start = [], 0
    for _, y in tasks:
        own = key[start : start + len(y)]
        start += len(y)
        if support == "first":
            own = np.arange(len(y))
        mask = np.zeros(len(y), dtype=bool)
        for label in np.unique(y) if per_class else [None]:
            rows = np.flatnonzero(y == label) if per_class else np.arange(len(y))
            least = min(1, n_shots) if per_class else 0
            k = min(n_shots, max(len(rows) - 1, least))
            mask[rows[np.argsort(own[rows])][:k]] = True
        masks.append(mask)
    return masks


def adapted_to(fitted, X, y, before=lambda X: X):
    """Of one task alone; without support rows what is known of no task."""
    model = copy.copy(fitted)
    if not len(y):
        return lambda name, X: getattr(model, name)(before(X), groups=["?"] * len(X))
    model.adapt(before(X), y)
    return lambda name, X: getattr(model, name)(before(X))


def slow_scores(fitted, tasks, metric, n_shots, **how):
    """Score of each task: adapt on its support rows, judge the rest."""
    before = lambda X: X  # noqa: E731
    if hasattr(fitted, "steps"):
        before, fitted = fitted[:-1].transform, fitted[-1]
    scores = []
    for (X, y), mask in zip(tasks, slow_support(tasks, n_shots, **how), strict=True):
        answer = adapted_to(fitted, X[mask], y[mask], before)
        scores.append(metric(answer, X[~mask], y[~mask]))
    return np.array(scores)


def of_predict(metric, sign=1):
    return lambda answer, X, y: sign * metric(y, answer("predict", X))


REGRESSION = {
    None: of_predict(metrics.root_mean_squared_error, -1),
    "r2": of_predict(metrics.r2_score),
    "neg_mean_squared_error": of_predict(metrics.mean_squared_error, -1),
    "neg_root_mean_squared_error": of_predict(metrics.root_mean_squared_error, -1),
    "neg_mean_absolute_error": of_predict(metrics.mean_absolute_error, -1),
    "neg_max_error": of_predict(metrics.max_error, -1),
}

CLASSIFICATION = {
    None: of_predict(metrics.accuracy_score),
    "accuracy": of_predict(metrics.accuracy_score),
    "balanced_accuracy": of_predict(metrics.balanced_accuracy_score),
    "f1_macro": of_predict(lambda y, p: metrics.f1_score(y, p, average="macro")),
    "roc_auc": lambda answer, X, y: metrics.roc_auc_score(
        y, answer("predict_proba", X)[:, 1]
    ),
    "neg_log_loss": lambda answer, X, y: (
        -metrics.log_loss(y, answer("predict_proba", X), labels=[0, 1])
    ),
    "neg_brier_score": lambda answer, X, y: (
        -metrics.brier_score_loss(y, answer("predict_proba", X)[:, 1])
    ),
}


# ------------------------------------------------------------------------ FewShotKFold
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=9),
    n_splits=st.integers(2, 5),
    n_shots=st.integers(0, 8),
    support=st.sampled_from(["random", "first"]),
    shuffle=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_folds_partition_rows_and_hold_out_each_task_once(
    sizes, n_splits, n_shots, support, shuffle, seed
):
    n_splits = min(n_splits, len(sizes))
    groups = np.repeat([f"user {t}" for t in range(len(sizes))], sizes)
    groups = np.random.default_rng(seed).permutation(groups)
    cv = FewShotKFold(
        n_splits, n_shots, support=support, shuffle=shuffle, random_state=seed
    )
    X = np.zeros((len(groups), 1))
    folds = list(cv.split(X, groups=groups))
    assert len(folds) == n_splits == cv.get_n_splits()
    held_out = []
    for train, test in folds:
        assert not set(train) & set(test)
        np.testing.assert_array_equal(
            np.sort(np.append(train, test)), range(len(groups))
        )
        for task in set(groups[test]):
            rows = np.flatnonzero(groups == task)
            shown = np.intersect1d(rows, train)
            assert len(shown) == min(n_shots, len(rows) - 1)
            if support == "first":
                np.testing.assert_array_equal(shown, rows[: len(shown)])
        held_out += set(groups[test])
    assert sorted(held_out) == sorted(set(groups))
    sizes_of_folds = [len(set(groups[test])) for _, test in folds]
    assert max(sizes_of_folds) - min(sizes_of_folds) <= 1
    again = list(cv.split(X, groups=groups))
    for (train, test), (same_train, same_test) in zip(folds, again, strict=True):
        np.testing.assert_array_equal(train, same_train)
        np.testing.assert_array_equal(test, same_test)


def test_folds_are_shuffled_and_rows_drawn_by_the_seed():
    groups = np.repeat(np.arange(12), 6)
    X = np.zeros((72, 1))

    def first(**params):
        return next(FewShotKFold(3, 2, **params).split(X, groups=groups))[1]

    assert set(groups[first(shuffle=False)]) == {0, 1, 2, 3}
    assert set(groups[first()]) != {0, 1, 2, 3}
    assert not np.array_equal(first(), first(random_state=1))
    rows = first(shuffle=False)
    assert not np.array_equal(rows, first(shuffle=False, support="first"))


def test_folds_count_shots_per_class():
    rng = np.random.default_rng(0)
    groups, y = rng.integers(0, 8, 200), rng.integers(0, 4, 200)
    y[y == 3] = 2
    cv = FewShotKFold(4, 3, per_class=True)
    for train, test in cv.split(y[:, None], y, groups):
        for task in set(groups[test]):
            for label in range(3):
                rows = np.flatnonzero((groups == task) & (y == label))
                n_shown = len(np.intersect1d(rows, train))
                assert n_shown == min(3, max(len(rows) - 1, min(1, len(rows))))


def test_folds_of_a_list_are_folds_of_tasks():
    tasks, cv = ragged(), FewShotKFold(3, 2)
    folds = list(cv.split(tasks))
    expected = list(KFold(3, shuffle=True, random_state=0).split(range(10)))
    for fold, same in zip(folds, expected, strict=True):
        np.testing.assert_array_equal(fold[0], same[0])
        np.testing.assert_array_equal(fold[1], same[1])
    meta = HierarchicalRegressor()
    by_hand = [
        clone(meta).fit([tasks[t] for t in train]).score([tasks[t] for t in test])
        for train, test in folds
    ]
    np.testing.assert_array_equal(cross_val_score(meta, tasks, cv=cv), by_hand)


def slow_fold_scores(meta, X, y, groups, cv):
    scores = []
    for train, test in cv.split(X, y, groups):
        scaler = StandardScaler().fit(X[train])
        model = clone(meta).fit(
            scaler.transform(X[train]), y[train], groups=groups[train]
        )
        predicted = model.predict(scaler.transform(X[test]), groups=groups[test])
        counts = {task: np.sum(groups[test] == task) for task in groups[test]}
        equal = [1 / counts[task] for task in groups[test]]
        scores.append(
            [
                metrics.r2_score(y[test], predicted),
                metrics.r2_score(y[test], predicted, sample_weight=equal),
            ]
        )
    return np.transpose(scores)


def test_folds_with_routing_and_with_a_column_are_the_loop_by_hand():
    X, y, groups = long_format(ragged(12))
    meta, cv = HierarchicalRegressor(), FewShotKFold(3, 2)
    expected, weighted = slow_fold_scores(meta, X, y, groups, cv)
    with routing():
        pipe = make_pipeline(StandardScaler(), meta)
        scores = cross_val_score(pipe, X, y, params={"groups": groups}, cv=cv)
        np.testing.assert_allclose(scores, weighted)
        grid = {"hierarchicalregressor__base_estimator": [None, Ridge()]}
        search = GridSearchCV(pipe, grid, cv=cv, error_score="raise")
        search.fit(X, y, groups=groups)
    found = [search.cv_results_[f"split{i}_test_score"] for i in range(3)]
    np.testing.assert_allclose(np.array(found)[:, 0], weighted)
    assert not np.allclose(*np.transpose(found))

    scale = make_column_transformer(
        (StandardScaler(), FEATURES),
        ("passthrough", ["user"]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipe = make_pipeline(scale, HierarchicalRegressor(group_column="user"))
    frame = frame_of(X, groups)
    scores = cross_val_score(pipe, frame, y, groups=groups, cv=cv, scoring="r2")
    np.testing.assert_allclose(scores, expected)
    search = GridSearchCV(pipe, {}, cv=cv, scoring="r2", error_score="raise")
    search.fit(frame, y, groups=groups)
    assert search.best_score_ == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    "params, given, message",
    [
        ({}, {"groups": None}, "needs groups: the task id of each row"),
        ({"n_splits": 5}, {}, "5 folds over 4 tasks"),
        ({"n_splits": 5, "shuffle": False}, {}, "5 folds over 4 tasks"),
        ({"n_splits": 1}, {}, "at least 2"),
        ({"support": "last"}, {}, "'random' or 'first', got 'last'"),
        ({"per_class": True}, {"y": None}, "per class; pass y"),
        ({"per_class": True}, {"y": np.arange(12)}, "n_shots=5"),
        ({}, {"groups": np.arange(11)}, "11 entries, but X has 12 rows"),
    ],
)
def test_folds_that_cannot_be_made(params, given, message):
    data = {"y": np.zeros(12), "groups": np.repeat(np.arange(4), 3)} | given
    cv = FewShotKFold(**{"n_splits": 2} | params)
    with pytest.raises(ValueError, match=message):
        list(cv.split(np.zeros((12, 2)), **data))


# ----------------------------------------------------------------------- FewShotScorer
@pytest.fixture(scope="module")
def hierarchical():
    return HierarchicalRegressor().fit(regression_tasks(seed=5))


@pytest.fixture(scope="module")
def protonet():
    return tiny(ProtoNetClassifier, label_space="shared").fit(classification_tasks())


@pytest.mark.parametrize("scoring", REGRESSION)
@pytest.mark.parametrize("how", [{}, {"support": "first"}], ids=["random", "first"])
@pytest.mark.parametrize("n_shots", [0, 3])
def test_scorer_of_regression_is_the_slow_loop(hierarchical, scoring, how, n_shots):
    tasks = [task for task in ragged(9, seed=1) if len(task[1]) > 4]
    scorer = FewShotScorer(scoring, n_shots=n_shots, n_draws=3, random_state=4, **how)
    n_draws = 1 if how else 3
    expected = np.mean(
        [
            slow_scores(
                hierarchical, tasks, REGRESSION[scoring], n_shots, seed=4, draw=d, **how
            )
            for d in range(n_draws)
        ],
        axis=0,
    )
    np.testing.assert_allclose(scorer.per_task(hierarchical, tasks), expected)
    assert scorer(hierarchical, tasks) == pytest.approx(expected.mean())


@pytest.mark.parametrize("scoring", CLASSIFICATION)
@pytest.mark.parametrize("kind", ["protonet", "hierarchical"])
def test_scorer_of_shared_classes_is_the_slow_loop(protonet, scoring, kind):
    fitted = protonet
    if kind == "hierarchical":
        fitted = HierarchicalClassifier().fit(classification_tasks())
    tasks = classification_tasks(6, n_rows=14, seed=1)
    scorer = FewShotScorer(scoring, n_shots=4, n_draws=2)
    expected = [
        slow_scores(fitted, tasks, CLASSIFICATION[scoring], 4, draw=d) for d in (0, 1)
    ]
    found = scorer.per_task(fitted, tasks)
    np.testing.assert_allclose(found, np.mean(expected, axis=0))
    assert len(np.unique(found)) > 1


def named_apart(tasks):
    """Labels that exist only inside their task."""
    return [
        (X, np.array([f"{t}{'ab'[label]}" for label in y]))
        for t, (X, y) in enumerate(tasks)
    ]


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "roc_auc"])
@pytest.mark.parametrize("kind", ["protonet", "local"])
def test_scorer_of_labels_per_task_counts_shots_per_class(scoring, kind):
    known = named_apart(classification_tasks())
    tasks = [
        (X, np.char.add("new", y)) for X, y in named_apart(classification_tasks(5))
    ]
    meta = tiny(ProtoNetClassifier) if kind == "protonet" else LocalClassifier()
    fitted = meta.fit(known)
    assert fitted.label_space_ == "per_task"

    def metric(answer, X, y):
        if scoring == "accuracy":
            return metrics.accuracy_score(y, answer("predict", X))
        proba = answer("predict_proba", X)
        proba = proba[:, proba.any(axis=0)]  # the classes of this task, sorted
        if scoring == "roc_auc":
            return metrics.roc_auc_score(y, proba[:, 1])
        return -metrics.log_loss(y, proba)

    scorer = FewShotScorer(scoring, n_shots=2, n_draws=2)
    expected = [
        slow_scores(fitted, tasks, metric, 2, per_class=True, draw=d) for d in (0, 1)
    ]
    np.testing.assert_allclose(
        scorer.per_task(fitted, tasks), np.mean(expected, axis=0)
    )
    counted = FewShotScorer(scoring, n_shots=2, per_class=True, n_draws=2)
    np.testing.assert_array_equal(
        counted.per_task(fitted, tasks), scorer.per_task(fitted, tasks)
    )


def test_log_loss_needs_not_every_class_among_the_query_rows():
    X = np.random.default_rng(0).normal(size=(40, 3))
    tasks = [
        (X[i : i + 10], np.array([0, 1, 2, 0, 1, 2, 0, 0, 0, 0])) for i in (0, 9, 18)
    ]
    fitted = HierarchicalClassifier().fit(tasks)
    scorer = FewShotScorer("neg_log_loss", n_shots=6, support="first")

    def metric(answer, X, y):
        return -metrics.log_loss(y, answer("predict_proba", X), labels=[0, 1, 2])

    expected = slow_scores(fitted, tasks, metric, 6, support="first")
    np.testing.assert_allclose(scorer.per_task(fitted, tasks), expected)


def test_log_loss_of_a_label_without_support_is_as_bad_as_can_be():
    tasks = [(np.arange(4.0)[:, None] * [1, 2, 3], list("abac")) for _ in range(2)]
    tasks = [(X, [f"{t}{label}" for label in y]) for t, (X, y) in enumerate(tasks)]
    fitted = LocalClassifier(label_space="per_task").fit(tasks)
    scorer = FewShotScorer("neg_log_loss", n_shots=3, support="first", per_class=False)
    worst = np.log(np.finfo(float).eps)
    new = [(X, np.char.add("new", y)) for X, y in tasks]
    np.testing.assert_allclose(scorer.per_task(fitted, new), worst)


def test_callable_scorers_see_the_rows_of_one_task(hierarchical):
    tasks, seen = ragged(4), []

    def scoring(estimator, X, y):
        seen.append(len(y))
        assert not is_classifier(estimator)
        worst = np.abs(X[:, 0]).argmax()
        one = estimator.predict(X[worst : worst + 1])
        return -abs(one[0] - y[worst]) - np.abs(estimator.predict(X) - y).mean()

    def metric(answer, X, y):
        error = np.abs(answer("predict", X) - y)
        return -error[np.abs(X[:, 0]).argmax()] - error.mean()

    scorer = FewShotScorer(scoring, n_shots=2, n_draws=1)
    expected = slow_scores(hierarchical, tasks, metric, 2)
    np.testing.assert_allclose(scorer.per_task(hierarchical, tasks), expected)
    assert seen == [len(y) - 2 for _, y in tasks]


@pytest.mark.parametrize("form", ["long", "interleaved", "pandas", "index", "polars"])
def test_scorer_takes_every_form(form):
    known, tasks = ragged(8), ragged(6, seed=1)
    scorer = FewShotScorer("r2", n_shots=2, support="first")
    expected = scorer.per_task(HierarchicalRegressor().fit(known), tasks)
    column = None if form in ("long", "interleaved") else "user"

    def shaped(tasks):
        X, y, groups = long_format(tasks)
        order = np.arange(len(y))
        if form != "long":  # tasks mixed, rows of one task in order
            rank = np.concatenate([np.arange(len(y)) for _, y in tasks])
            order = np.lexsort((-groups, rank))
        X, y, groups = X[order], y[order], groups[order]
        if column is None:
            return (X, y), {"groups": groups}
        X = frame_of(X, groups, pl if form == "polars" else pd)
        return (X.set_index("user") if form == "index" else X, y), {}

    rows, ids = shaped(known)
    fitted = HierarchicalRegressor(group_column=column).fit(*rows, **ids)
    rows, ids = shaped(tasks)
    np.testing.assert_allclose(scorer.per_task(fitted, *rows, **ids), expected)


def test_scorer_draws_the_same_rows_from_a_list_and_from_rows(hierarchical):
    tasks = ragged(6, seed=1)
    X, y, groups = long_format(tasks)
    scorer = FewShotScorer("r2", n_shots=2)
    np.testing.assert_array_equal(
        scorer.per_task(hierarchical, X, y, groups=groups),
        scorer.per_task(hierarchical, tasks),
    )


def test_scorer_in_cross_validation_of_a_list():
    tasks = ragged(9)
    pipe = make_pipeline(PerTask(StandardScaler()), HierarchicalRegressor())
    folds = list(KFold(3).split(tasks))
    scorer = FewShotScorer("r2", n_shots=2, n_draws=1)
    scores = cross_val_score(pipe, tasks, cv=folds, scoring=scorer)
    for (train, test), score in zip(folds, scores, strict=True):
        rows = np.concatenate([tasks[t][0] for t in train])
        scaler = StandardScaler().fit(rows)
        scaled = [(scaler.transform(X), y) for X, y in tasks]
        fitted = HierarchicalRegressor().fit([scaled[t] for t in train])
        expected = slow_scores(fitted, [scaled[t] for t in test], REGRESSION["r2"], 2)
        assert score == pytest.approx(expected.mean())


def test_scorer_in_searches_with_and_without_routing():
    tasks = ragged(9)
    X, y, groups = long_format(tasks)
    folds = [
        (np.unique(groups[train]), np.unique(groups[test]))
        for train, test in GroupKFold(3).split(X, y, groups)
    ]
    scorer = FewShotScorer("neg_mean_absolute_error", n_shots=2, n_draws=2)
    grid = {"hierarchicalregressor__base_estimator": [None, Ridge()]}
    lifted = make_pipeline(PerTask(StandardScaler()), HierarchicalRegressor())
    of_list = GridSearchCV(lifted, grid, cv=folds, scoring=scorer, error_score="raise")
    of_list.fit(tasks)
    assert of_list.score(tasks) == pytest.approx(scorer(of_list, tasks))
    expected = [of_list.cv_results_[f"split{i}_test_score"] for i in range(3)]
    assert not np.allclose(*np.transpose(expected))

    with routing():
        pipe = make_pipeline(StandardScaler(), HierarchicalRegressor())
        search = GridSearchCV(
            pipe, grid, cv=GroupKFold(3), scoring=scorer, error_score="raise"
        ).fit(X, y, groups=groups)
        found = [search.cv_results_[f"split{i}_test_score"] for i in range(3)]
        np.testing.assert_allclose(found, expected)
        scores = cross_val_score(
            pipe, X, y, params={"groups": groups}, cv=GroupKFold(3), scoring=scorer
        )
        np.testing.assert_allclose(scores, np.array(expected)[:, 0])
        both = cross_validate(
            pipe,
            X,
            y,
            params={"groups": groups},
            cv=GroupKFold(3),
            scoring={"few": scorer, "one": FewShotScorer("r2", n_shots=1)},
        )
        np.testing.assert_allclose(both["test_few"], scores)


def test_scorer_leaves_the_estimator_bit_equal(hierarchical, protonet):
    cases = [(hierarchical, ragged(5)), (protonet, classification_tasks(5, seed=2))]
    for fitted, tasks in cases:
        before, attributes = _learned(fitted), dict(vars(fitted))
        FewShotScorer(n_shots=2)(fitted, tasks)
        assert _learned(fitted) == before
        assert vars(fitted).keys() == attributes.keys()
        assert all(vars(fitted)[name] is attributes[name] for name in attributes)


def test_scorer_leaves_out_tasks_without_query_rows():
    (X, y), *_ = tasks = named_apart(classification_tasks())
    fitted = LocalClassifier().fit(tasks)
    small = (X[:2], np.array(["p", "q"]))
    scores = FewShotScorer(n_shots=1).per_task(fitted, [(X, y), small])
    np.testing.assert_array_equal(np.isnan(scores), [False, True])
    assert FewShotScorer(n_shots=1)(fitted, [(X, y), small]) == scores[0]
    with pytest.raises(ValueError, match="No task has rows left .* n_shots=1"):
        FewShotScorer(n_shots=1)(fitted, [small])


@pytest.mark.parametrize(
    "params, call, error, message",
    [
        ({"scoring": "r3"}, {}, ValueError, "r3"),
        ({"scoring": 3}, {}, TypeError, "scorer of scikit-learn.*got 3"),
        ({"n_shots": -1}, {}, ValueError, "at least 0; got"),
        ({"n_draws": 0}, {}, ValueError, "n_draws must be at least 1"),
        ({"support": "last"}, {}, ValueError, "got 'last'"),
        ({}, {"groups": [0]}, ValueError, "pass neither y nor groups"),
    ],
)
def test_scorer_refuses(hierarchical, params, call, error, message):
    with pytest.raises(error, match=message):
        FewShotScorer(**params).per_task(hierarchical, ragged(3), **call)


def test_rows_without_task_ids_or_targets_are_explained(hierarchical):
    X, y, groups = long_format(ragged(3))
    with pytest.raises(ValueError, match="pass groups=, or a list"):
        FewShotScorer()(hierarchical, X, y)
    with pytest.raises(ValueError, match="y is None"):
        FewShotScorer()(hierarchical, X, groups=groups)
    with pytest.raises(TypeError, match="meta-learner"):
        FewShotScorer()(LinearRegression().fit(X, y), X, y, groups)


# -------------------------------------------------------------------------- shot_curve
def slow_curve(estimator, tasks, metric, shots, n_draws, cv=3, seed=0, **how):
    """Scores of shape (n_shots, n_draws, n_tasks)."""
    scores = np.full((len(shots), n_draws, len(tasks)), np.nan)
    masks = {
        (i, d): slow_support(tasks, k, draw=d, seed=seed, **how)
        for i, k in enumerate(shots)
        for d in range(n_draws)
    }
    folds = KFold(cv, shuffle=True, random_state=seed)
    for train, test in folds.split(range(len(tasks))):
        fitted = clone(estimator).fit([tasks[t] for t in train])
        before, meta = (lambda X: X), fitted
        if hasattr(fitted, "steps"):
            lift, meta = fitted[0], fitted[-1]
            before = lift.transform
        for (i, d), mask in masks.items():
            for t in test:
                (X, y), m = tasks[t], mask[t]
                answer = adapted_to(meta, X[m], y[m], before)
                scores[i, d, t] = metric(answer, X[~m], y[~m])
    return scores


@pytest.mark.parametrize(
    "how", [{}, {"support": "first", "random_state": 3}], ids=["random", "first"]
)
def test_shot_curve_is_the_slow_loop(how):
    tasks, shots = ragged(8), [0, 1, 3]
    pipe = make_pipeline(PerTask(StandardScaler()), HierarchicalRegressor())
    pooled = PooledRegressor(Ridge())
    curve = shot_curve(
        pipe, tasks, shots=shots, cv=3, n_draws=2, baseline=pooled, **how
    )
    n_draws = 1 if how else 2
    params = {"seed": 3, "support": "first"} if how else {}
    for found, estimator in ((curve.scores, pipe), (curve.baseline, pooled)):
        expected = slow_curve(
            estimator, tasks, REGRESSION[None], shots, n_draws, **params
        )
        np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(curve.shots, shots)
    assert curve.scoring == "neg_root_mean_squared_error"


def test_shot_curve_of_classifiers():
    tasks = classification_tasks(6)
    curve = shot_curve(
        tiny(ProtoNetClassifier, label_space="shared"),
        tasks,
        shots=[1, 4],
        cv=2,
        n_draws=2,
        scoring="neg_log_loss",
        baseline=PooledClassifier(LogisticRegression()),
    )
    for found, estimator in (
        (curve.scores, tiny(ProtoNetClassifier, label_space="shared")),
        (curve.baseline, PooledClassifier(LogisticRegression())),
    ):
        expected = slow_curve(
            estimator, tasks, CLASSIFICATION["neg_log_loss"], [1, 4], 2, cv=2
        )
        np.testing.assert_allclose(found, expected)


def with_a_rare_class():
    """Classification tasks, the last of which alone has a third class."""
    *tasks, (X, y) = classification_tasks(9)
    return [*tasks, (X, np.where(np.arange(len(y)) % 3 == 0, 2, y))]


def nothing(estimator, X, y=None):
    """A score for searches of which only what they fit at last matters."""
    return 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_pipeline(PerTask(StandardScaler()), LocalClassifier()),
        lambda: GridSearchCV(
            LocalClassifier(), {"n_shots": [2]}, scoring=nothing, cv=2
        ),
        lambda: tiny(ProtoNetClassifier, label_space="shared"),
    ],
)
def test_folds_that_lack_a_class_know_of_it(make):
    tasks, folds = with_a_rare_class(), [([0, 1, 2, 3], [8]), ([4, 5, 6, 7, 8], [0])]
    how = {"shots": [4], "cv": folds, "n_draws": 2, "baseline": None}
    with routing():
        curve = shot_curve(make(), tasks, **how)
        again = shot_curve(make(), *long_format(tasks), **how)
    assert np.isfinite(curve.scores[0][:, [0, 8]]).all()
    np.testing.assert_array_equal(curve.scores, again.scores)


def test_a_fold_that_lacks_a_class_by_hand():
    tasks = with_a_rare_class()
    curve = shot_curve(
        HierarchicalClassifier(), tasks, shots=[4], cv=[([0, 1, 2, 3], [8])],
        support="first", baseline=None, scoring="neg_log_loss",
    )  # fmt: skip
    X, y, groups = long_format(tasks[:4])
    meta = HierarchicalClassifier()
    meta.partial_fit(X, y, groups=groups, classes=[0, 1, 2])
    X, y = tasks[8]
    proba = meta.adapt(X[:4], y[:4]).predict_proba(X[4:])
    assert 2 in y[:4]
    expected = np.log(proba[np.arange(len(y) - 4), y[4:]]).mean()
    np.testing.assert_allclose(curve.scores[0, 0, 8], expected)


def test_a_comparison_where_a_fold_lacks_a_class():
    tasks = with_a_rare_class()
    found = compare(LocalClassifier(), tasks, shots=[4], cv=3, n_draws=1)
    assert np.isfinite([*found.scores.values()]).all()


def test_shot_curve_of_labels_per_task_has_no_pooled_baseline():
    tasks = named_apart(classification_tasks(6))
    curve = shot_curve(LocalClassifier(), tasks, shots=[1, 3], cv=2, n_draws=1)
    assert curve.baseline is None and "harm_rate" not in curve.to_frame()
    expected = slow_curve(
        LocalClassifier(label_space="per_task"),
        tasks,
        CLASSIFICATION["accuracy"],
        [1, 3],
        1,
        cv=2,
        per_class=True,
    )
    np.testing.assert_allclose(curve.scores, expected)


def test_the_default_baseline_is_pooled_boosting():
    tasks = regression_tasks(6, n_rows=25)
    params = {"shots": [2], "cv": 2, "n_draws": 1}
    curve = shot_curve(LocalRegressor(), tasks, **params)
    same = shot_curve(PooledRegressor(), tasks, baseline=None, **params)
    np.testing.assert_array_equal(curve.baseline, same.scores)


@pytest.mark.parametrize("form", ["long", "pandas", "polars"])
def test_curves_and_comparisons_take_every_form(form):
    tasks = ragged(8)
    X, y, groups = long_format(tasks)
    column = None if form == "long" else "user"
    rows = {"X": X, "y": y, "groups": groups}
    if column:
        rows = {"X": frame_of(X, groups, {"pandas": pd, "polars": pl}[form]), "y": y}
    meta = HierarchicalRegressor()
    ours = HierarchicalRegressor(group_column=column)
    params = {"cv": 2, "n_draws": 2, "scoring": "neg_mean_absolute_error"}
    expected = shot_curve(
        meta, tasks, shots=[0, 2], baseline=PooledRegressor(Ridge()), **params
    )
    found = shot_curve(
        ours,
        **rows,
        shots=[0, 2],
        baseline=PooledRegressor(Ridge(), group_column=column),
        **params,
    )
    np.testing.assert_allclose(found.scores, expected.scores)
    np.testing.assert_allclose(found.baseline, expected.baseline)
    expected = task_learning_curve(meta, tasks, train_sizes=[2, 4], **params)
    found = task_learning_curve(ours, **rows, train_sizes=[2, 4], **params)
    np.testing.assert_allclose(found.scores, expected.scores)
    both = {"ours": meta, "plain": Ridge()}
    expected = compare(both, tasks, baselines=False, **params)
    found = compare(both | {"ours": ours}, **rows, baselines=False, **params)
    for name in both:
        np.testing.assert_allclose(found.scores[name], expected.scores[name])


def test_prefit_estimators_are_taken_as_they_are():
    known, tasks = ragged(8), ragged(5, seed=1)
    fitted = HierarchicalRegressor().fit(known)
    local = LocalRegressor().fit(known)
    before = _learned(fitted)
    curve = shot_curve(fitted, tasks, shots=[1, 2], cv="prefit", n_draws=1)
    assert curve.baseline is None
    for i, k in enumerate([1, 2]):
        expected = slow_scores(fitted, tasks, REGRESSION[None], k)
        np.testing.assert_allclose(curve.scores[i, 0], expected)
    with_baseline = shot_curve(
        fitted, tasks, shots=[1, 2], cv="prefit", n_draws=1, baseline=local
    )
    found = compare(
        {"ours": fitted, "local": local}, tasks, shots=[1, 2], cv="prefit", n_draws=1
    )
    assert list(found.scores) == ["ours", "local"]
    np.testing.assert_array_equal(found.scores["ours"], curve.scores)
    np.testing.assert_array_equal(found.scores["local"], with_baseline.baseline)
    assert _learned(fitted) == before
    with pytest.raises(NotFittedError):
        shot_curve(HierarchicalRegressor(), tasks, cv="prefit")
    with pytest.raises(NotFittedError):
        shot_curve(fitted, tasks, cv="prefit", baseline=PooledRegressor())


def test_a_task_held_out_by_several_folds_gets_their_mean():
    tasks = ragged(6)
    splits = list(ShuffleSplit(3, test_size=2, random_state=0).split(tasks))
    params = {"shots": [2], "n_draws": 2, "baseline": None}
    curve = shot_curve(LocalRegressor(Ridge()), tasks, cv=splits, **params)
    each = [
        shot_curve(LocalRegressor(Ridge()), tasks, cv=[fold], **params).scores
        for fold in splits
    ]
    held_out = np.array([np.isin(np.arange(6), test) for _, test in splits])
    assert held_out.sum(axis=0).max() > 1 and not held_out.any(axis=0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(curve.scores, np.nanmean(each, axis=0))


@pytest.mark.parametrize(
    "params, message",
    [
        ({"shots": []}, "increasing numbers"),
        ({"shots": [2, 1]}, "increasing numbers"),
        ({"shots": [-1, 1]}, "at least 0"),
        ({"cv": 9}, "9 folds over 8 tasks"),
        ({"cv": 1}, "1 folds over 8 tasks"),
        ({"baseline": "best"}, "baseline must be 'pooled' or an estimator; got 'best'"),
        ({"support": "last"}, "got 'last'"),
        ({"scoring": "r3"}, "r3"),
    ],
)
def test_curves_refuse(params, message):
    with pytest.raises(ValueError, match=message):
        shot_curve(LocalRegressor(), ragged(8), **params)


def test_table_of_a_curve_by_hand():
    rng = np.random.default_rng(0)
    scores, baseline = rng.normal(size=(2, 2, 3, 30))
    scores[1, 0, 4] = np.nan
    scores[0, :, 7] = baseline[0, :, 7]  # a tie is no harm
    table = ShotCurve(np.array([0, 5]), scores, baseline, "r2").to_frame()
    assert list(table.index) == [0, 5] and table.index.name == "n_shots"
    for i, row in enumerate(table.itertuples()):
        means, others = [], []
        for t in range(30):
            draws = [scores[i, d, t] for d in range(3)]
            if not any(np.isnan(draws)):
                means.append(sum(draws) / 3)
                others.append(sum(baseline[i, :, t]) / 3)
        n = len(means)
        assert row.n_tasks == n == 30 - i
        center = sum(means) / n
        assert row.mean == pytest.approx(center)
        spread = (sum((m - center) ** 2 for m in means) / (n - 1)) ** 0.5
        assert row.high - center == pytest.approx(1.96 * spread / n**0.5)
        assert center - row.low == pytest.approx(1.96 * spread / n**0.5)
        assert row.worst_decile == pytest.approx(np.percentile(means, 10))
        worse = sum(m < o for m, o in zip(means, others, strict=True))
        assert row.harm_rate == pytest.approx(worse / n)
        assert 0 < worse < n


def test_tables_without_a_judged_task_are_empty_and_quiet():
    nothing = np.full((1, 1, 3), np.nan)
    table = ShotCurve(np.array([5]), nothing, nothing, "r2").to_frame()
    assert table["n_tasks"].tolist() == [0] and np.isnan(table["mean"]).all()
    one = np.array([[[np.nan, 0.5, np.nan]]])
    table = ShotCurve(np.array([5]), one, None, "r2").to_frame()
    assert table["mean"].tolist() == [0.5] and np.isnan(table["low"]).all()


# ----------------------------------------------------------------------- labels_needed
def power_law(shots, power=0.7, plateau=0.9, gain=0.6, n_tasks=200, noise=0.02):
    rng = np.random.default_rng(0)
    means = plateau - gain * (1.0 + np.array(shots)) ** -power
    own = rng.normal(size=(n_tasks,)) * 0.1
    draws = noise * rng.normal(size=(len(shots), 4, n_tasks))
    scores = means[:, None, None] + (own - own.mean()) + draws
    return ShotCurve(np.array(shots), scores, None, "r2")


@pytest.mark.parametrize("power", [0.4, 0.7, 1.2])
@pytest.mark.parametrize("n_labels", [3, 8, 15, 40])
def test_labels_needed_finds_a_known_power_law(power, n_labels):
    """Between measured shots (up to 20) and beyond them."""
    curve = power_law([0, 1, 2, 5, 10, 20], power)
    wanted = 0.9 - 0.6 * (1 + n_labels) ** -power
    k, low, high = curve.labels_needed(wanted, n_boot=100)
    assert abs(k - n_labels) <= 0.25 * n_labels
    assert low <= high
    if n_labels <= 20:
        assert low <= k <= high


@pytest.mark.parametrize("n_features, noise", [(3, 1.0), (20, 0.5)])
def test_labels_needed_foretells_a_linear_model(n_features, noise):
    """Its mean squared error is known; the curve ends at half the rows."""
    shots, rng = np.array([0, 1, 2, 3, 5, 8, 10]), np.random.default_rng(0)

    def root_error(k):
        found = []
        for _ in range(300):
            X = rng.standard_normal((k, n_features))
            precision = np.eye(n_features) + X.T @ X / noise**2
            found.append(noise**2 + np.trace(np.linalg.inv(precision)))
        return np.mean(found) ** 0.5

    scores = -np.array([root_error(k) for k in shots])
    tasks = scores[:, None] + 1e-3 * rng.standard_normal((len(shots), 100))
    curve = ShotCurve(shots, tasks[:, None], None, "neg_root_mean_squared_error")
    for n_labels in (15, 20):
        k, low, high = curve.labels_needed(-root_error(n_labels), n_boot=50)
        assert abs(k - n_labels) <= 0.25 * n_labels
        assert low <= k <= high


@pytest.mark.parametrize("share", [0.1, 3.0, 100.0])
def test_error_left_solves_its_equation(share):
    k, bend = np.linspace(0, 40, 9), 2.0
    left = error_left(k, bend, share, 1.0)
    square = ((1 + left * (np.sqrt(1 + share) - 1)) ** 2 - 1) / share
    np.testing.assert_allclose(square, 1 / (1 + k / bend / (1 + share * square)))
    assert left[0] == pytest.approx(1) and (np.diff(left) < 0).all()
    slow = error_left(k, bend, share, 0.5)
    np.testing.assert_allclose(slow**2, left)
    for power, values in ((1.0, left), (0.5, slow)):
        found = shots_until(values, bend, share, power)
        np.testing.assert_allclose(found, k, atol=1e-8)
    assert shots_until(np.array([0.0, -1.0]), bend, share, 1.0).tolist() == [np.inf] * 2
    # A part so small that its rows are beyond all numbers, or beyond counting.
    assert shots_until(1e-300, bend, share, 0.5) == np.inf
    assert shots_until(1e-30, bend, share, 1.0) > 1e25


def test_tail_weighs_shapes_by_their_likelihood():
    """Generalised least squares of each shape in a loop, and the weighted median."""
    shots, rng = np.array([1, 2, 4, 8]), np.random.default_rng(0)
    scores = -3 / (shots[:, None] + 2.0) + 0.2 * rng.standard_normal((4, 30))
    means, step = scores.mean(axis=1), 0.05
    tail = Tail.of(shots, scores)
    measured = np.cov(scores) / 30
    alike = np.full((4, 4), measured.mean())
    np.fill_diagonal(alike, np.diag(measured).mean())
    cov = 0.7 * measured + 0.3 * alike + 1e-6 * np.ptp(means) ** 2 * np.eye(4)
    inverse, reached = np.linalg.inv(cov), []
    for shape in tail.shapes.T:
        X = np.column_stack([np.ones(4), -error_left(shots, *shape)])
        level, gain = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ means)
        if gain < 0:
            level, gain = (inverse @ means).sum() / inverse.sum(), 0.0
        misfit = means - X @ [level, gain]
        ks = np.geomspace(8, 36, 20_001)
        rise = gain * (error_left(8, *shape) - error_left(ks, *shape))
        k = ks[np.argmax(rise >= step)] if rise[-1] >= step else np.inf
        reached.append((k, np.exp(-misfit @ inverse @ misfit / 2)))
    reached = np.array(sorted(reached))
    total = reached[:, 1].cumsum() / reached[:, 1].sum()
    for share in (0.1, 0.3, 0.5):
        expected = reached[np.searchsorted(total, share), 0]
        assert tail.reach(means, step, share) == pytest.approx(expected, rel=1e-3)


def test_labels_needed_says_what_it_does_not_know():
    """A flat curve of few tasks: any number might do, and none."""
    rng = np.random.default_rng(0)
    shots = np.array([0, 1, 2, 5, 10])
    scores = -0.7 + 0.1 * rng.standard_normal((1, 1, 15))
    scores = scores + 0.002 * np.log1p(shots)[:, None, None]
    flat = ShotCurve(shots, scores + 0.02 * rng.normal(size=(5, 1, 15)), None, "r2")
    _, low, high = flat.labels_needed(scores.mean() + 0.01)
    assert low < 5 and np.isinf(high)


def test_labels_needed_is_monotone_and_infinite_beyond_reach():
    curve = power_law([0, 1, 2, 5, 10, 20])
    wanted = np.linspace(0.0, 1.2, 61)
    found = np.array([curve.labels_needed(w, n_boot=20) for w in wanted])
    assert (found[:-1] <= found[1:]).all()
    assert found[0].tolist() == [0, 0, 0]
    assert np.isinf(found[-1]).all()
    finite = np.isfinite(found[:, 0])
    assert found[finite, 0].max() > 20
    measured = curve.per_task.mean(axis=1)
    for k, score in zip(curve.shots, measured, strict=True):
        assert curve.labels_needed(score, n_boot=1)[0] == pytest.approx(k)


def test_labels_needed_of_a_flat_curve():
    scores = np.full((3, 1, 5), 0.4)
    flat = ShotCurve(np.array([1, 2, 4]), scores, None, "r2")
    assert flat.labels_needed(0.4)[0] == 1
    assert flat.labels_needed(0.41) == (np.inf, np.inf, np.inf)


def test_labels_needed_resamples_tasks():
    curve = power_law([0, 2, 5, 10], n_tasks=12)
    same = curve.labels_needed(0.7), curve.labels_needed(0.7)
    assert same[0] == same[1]
    k, low, high = curve.labels_needed(0.7, confidence=0.5, random_state=1)
    wide = curve.labels_needed(0.7, confidence=0.99, random_state=1)
    assert wide[1] < low < high < wide[2]


def test_labels_needed_refuses():
    with pytest.raises(ValueError, match="at least three"):
        power_law([0, 1]).labels_needed(0.5)
    nothing = ShotCurve(np.array([0, 1, 2]), np.full((3, 1, 4), np.nan), None, "r2")
    with pytest.raises(ValueError, match="leave out the largest shots"):
        nothing.labels_needed(0.5)


# ----------------------------------------------------------------- task_learning_curve
def test_task_learning_curve_is_the_slow_loop():
    tasks = ragged(9)
    curve = task_learning_curve(
        HierarchicalRegressor(),
        tasks,
        train_sizes=[2, 0.5, 1.0],
        n_shots=2,
        cv=3,
        n_draws=2,
        scoring="r2",
        random_state=5,
    )
    assert curve.n_tasks.tolist() == [2, 3, 6] and curve.n_shots == 2
    order = np.random.default_rng(5)
    expected = np.full((3, 9), np.nan)
    folds = KFold(3, shuffle=True, random_state=5).split(tasks)
    for train, test in folds:
        chosen = order.permutation(train)
        for i, size in enumerate([2, 3, 6]):
            fitted = HierarchicalRegressor().fit([tasks[t] for t in chosen[:size]])
            draws = []
            for d in (0, 1):
                masks = slow_support(tasks, 2, draw=d, seed=5)
                draws.append([])
                for t in test:
                    (X, y), m = tasks[t], masks[t]
                    answer = adapted_to(fitted, X[m], y[m])
                    draws[-1].append(REGRESSION["r2"](answer, X[~m], y[~m]))
            expected[i, test] = np.mean(draws, axis=0)
    np.testing.assert_allclose(curve.scores, expected, rtol=1e-5)
    table = curve.to_frame()
    np.testing.assert_allclose(table["mean"], np.mean(expected, axis=1), rtol=1e-5)
    assert table["n_held_out"].tolist() == [9, 9, 9]
    assert table.index.tolist() == [2, 3, 6]


def test_tables_of_task_learning_curves_leave_out_unjudged_tasks():
    scores = np.array([[0.0, 1.0, np.nan], [0.5, 1.0, np.nan]])
    table = TaskLearningCurve(np.array([2, 4]), scores, 5, "r2").to_frame()
    assert table["mean"].tolist() == [0.5, 0.75]
    assert table["n_held_out"].tolist() == [2, 2]


@pytest.mark.parametrize("sizes", [[], [1], [7], [2.0], [0.5, 8]])
def test_train_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match=r"between 2 and 6.*got \["):
        task_learning_curve(LocalRegressor(), ragged(9), train_sizes=sizes, cv=3)


# ----------------------------------------------------------------------------- compare
def test_compare_is_the_slow_loop_for_each_and_pairs_them():
    tasks = ragged(8)
    estimators = {
        "ours": HierarchicalRegressor(),
        "same": HierarchicalRegressor(),
        "plain": Ridge(),
        "pipe": make_pipeline(StandardScaler(), Ridge(alpha=3.0)),
        "lifted": make_pipeline(PerTask(StandardScaler()), LocalRegressor(Ridge())),
    }
    found = compare(
        estimators, tasks, shots=[0, 2], cv=3, n_draws=2, baselines=False, scoring="r2"
    )
    as_meta = estimators | {
        name: PooledRegressor(estimators[name]) for name in ("plain", "pipe")
    }
    assert list(found.scores) == list(estimators)
    for name, estimator in as_meta.items():
        expected = slow_curve(estimator, tasks, REGRESSION["r2"], [0, 2], 2)
        np.testing.assert_allclose(found.scores[name], expected, err_msg=name)
        assert found.seconds[name] > 0
    np.testing.assert_array_equal(found.scores["ours"], found.scores["same"])
    assert found.reference == "ours"
    assert not np.allclose(found.scores["plain"], found.scores["ours"])


def test_table_of_a_comparison_by_hand():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1, 3, 20))
    b[0, 0, 3] = a[0, 1, 3] = np.nan
    found = Comparison(np.array([4]), {"a": a, "b": b}, "a", {"a": 1.0, "b": 2.0}, "r2")
    row = found.to_frame().loc[(4, "b")]
    gaps = np.delete((b - a)[0].mean(axis=0), 3)
    assert row["difference"] == pytest.approx(gaps.mean())
    half = 1.96 * np.sqrt(np.sum((gaps - gaps.mean()) ** 2) / 18 / 19)
    assert row["difference_high"] - gaps.mean() == pytest.approx(half)
    assert gaps.mean() - row["difference_low"] == pytest.approx(half)
    assert row["harm_rate"] == pytest.approx(np.mean(gaps < 0))
    assert row["mean"] == pytest.approx(np.delete(b[0].mean(axis=0), 3).mean())
    assert row["seconds"] == 2.0 and row["n_tasks"] == 19
    own = found.to_frame().loc[(4, "a")]
    assert own["difference"] == own["harm_rate"] == 0


def test_compare_adds_the_models_of_today():
    tasks = regression_tasks(6, n_rows=10)
    found = compare(HierarchicalRegressor(), tasks, cv=2, n_draws=1, shots=3)
    names = ["HierarchicalRegressor", *default_baselines(classifier=False)]
    assert list(found.scores) == names and "mixed model" in names
    assert found.reference == "pooled"
    table = found.to_frame()
    assert table.loc[(3, "pooled"), "difference"] == 0
    assert np.isfinite(table.drop(columns="worst_decile").to_numpy()).all()
    own = compare(
        {"pooled": Ridge()}, tasks, cv=2, n_draws=1, reference="local", shots=3
    )
    assert own.reference == "local" and list(own.scores)[0] == "pooled"
    np.testing.assert_array_equal(own.scores["local"], found.scores["local"])
    assert not np.allclose(own.scores["pooled"], found.scores["pooled"])


def test_compare_of_classifiers():
    tasks = classification_tasks(6)
    found = compare({"plain": LogisticRegression()}, tasks, cv=2, n_draws=1, shots=3)
    assert list(found.scores) == ["plain", *default_baselines(classifier=True)]
    expected = slow_curve(
        PooledClassifier(LogisticRegression()),
        tasks,
        CLASSIFICATION["accuracy"],
        [3],
        1,
        cv=2,
    )
    np.testing.assert_allclose(found.scores["plain"], expected)
    apart = named_apart(tasks)
    found = compare({"net": tiny(ProtoNetClassifier)}, apart, cv=2, n_draws=1, shots=3)
    assert list(found.scores) == ["net", "local"] and found.reference == "net"


def test_default_baselines_fit_what_they_are_for():
    for classifier in (False, True):
        for estimator in default_baselines(classifier).values():
            assert is_classifier(estimator) == classifier
    local = default_baselines(classifier=True, per_task_labels=True)
    assert list(local) == ["local"] and local["local"].label_space == "per_task"


@pytest.mark.parametrize(
    "estimators, params, error, message",
    [
        ({}, {}, ValueError, "estimators is empty"),
        ({"a": StandardScaler()}, {}, TypeError, "meta-learner"),
        ({"a": Ridge()}, {"reference": "b"}, ValueError, r"'b' is none of \['a'"),
        ({"a": Ridge()}, {"group_column": "user"}, ValueError, "user"),
    ],
)
def test_compare_refuses(estimators, params, error, message):
    X, y, groups = long_format(ragged(4))
    rows = (X, y) if "group_column" in params else (X, y, groups)
    with pytest.raises(error, match=message):
        compare(estimators, *rows, cv=2, **params)


# ------------------------------------------------------------------------------- joblib
def everything(n_jobs, classifier):
    tasks = ragged(6)
    params = {"cv": 2, "n_draws": 2, "n_jobs": n_jobs}
    curve = shot_curve(
        HierarchicalRegressor(),
        tasks,
        shots=[0, 2],
        baseline=PooledRegressor(Ridge()),
        **params,
    )
    sizes = task_learning_curve(
        LocalRegressor(Ridge()), tasks, train_sizes=[2, 3], **params
    )
    both = compare(
        {"meta": classifier, "plain": LogisticRegression()},
        classification_tasks(6),
        shots=[1, 2],
        baselines=False,
        **params,
    )
    return [curve.scores, curve.baseline, sizes.scores, *both.scores.values()]


@pytest.mark.parametrize(
    "backend, classifier",
    [("threading", HierarchicalClassifier()), ("loky", tiny(ProtoNetClassifier))],
)
def test_jobs_are_bit_equal_to_serial(backend, classifier):
    with joblib.parallel_config(backend):
        found = everything(2, classifier)
    for parallel, serial in zip(found, everything(None, classifier), strict=True):
        np.testing.assert_array_equal(parallel, serial)


def test_dask_is_bit_equal_to_serial():
    distributed = pytest.importorskip(
        "distributed", reason="dask spreads jobs over machines; it is not installed"
    )
    classifier = HierarchicalClassifier()
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        found = everything(2, classifier)
    for parallel, serial in zip(found, everything(None, classifier), strict=True):
        np.testing.assert_array_equal(parallel, serial)


# ------------------------------------------------------------------------------- leaks
HUGE = 1e6


def poisoned(tasks, positions, n_shots):
    """The same tasks, all rows but the first `n_shots` of some of them spoilt."""
    tasks = [(X.copy(), y.copy()) for X, y in tasks]
    for t in positions:
        tasks[t][0][n_shots:] *= HUGE
        if tasks[t][1].dtype.kind == "f":
            tasks[t][1][n_shots:] = HUGE
        else:
            tasks[t][1][n_shots:] = 1 - tasks[t][1][n_shots:]
    return tasks


SEEN = []


class Spy(HierarchicalRegressor):
    """Keeps all rows that fit, adapt and states see."""

    def _meta_fit(self, table, **options):
        SEEN.append((table.X.copy(), table.y.copy()))
        return super()._meta_fit(table, **options)

    def _summarize(self, table):
        SEEN.append((table.X.copy(), table.y.copy()))
        return super()._summarize(table)


TRAIN, TEST = np.arange(6), np.array([6, 7, 8])
FIRST = {"n_shots": 2, "support": "first"}


def scorer_in_cross_validate(tasks):
    scoring = FewShotScorer(**FIRST)
    result = cross_validate(Spy(), tasks, cv=[(TRAIN, TEST)], scoring=scoring)
    return result["test_score"]


def folds_in_cross_validate(tasks):
    X, y, groups = long_format(tasks)
    cv = FewShotKFold(3, 2, support="first", shuffle=False)
    fold = [list(cv.split(X, y, groups))[2]]
    inside = np.column_stack([X, groups])
    meta = Spy(group_column=3)
    return cross_validate(meta, inside, y, cv=fold, scoring="r2")["test_score"]


def in_a_shot_curve(tasks):
    params = {"shots": [0, 2], "support": "first", "baseline": Spy()}
    curve = shot_curve(Spy(), tasks, cv=[(TRAIN, TEST)], **params)
    return curve.scores[1, :, TEST]


def in_a_task_learning_curve(tasks):
    params = {"train_sizes": [3, 6], **FIRST}
    return task_learning_curve(Spy(), tasks, cv=[(TRAIN, TEST)], **params).scores


def in_a_comparison(tasks):
    both = {"one": Spy(), "plain": Ridge()}
    params = {"shots": [2], "support": "first", "baselines": False}
    return compare(both, tasks, cv=[(TRAIN, TEST)], **params).scores["one"]


@pytest.mark.parametrize(
    "path",
    [
        scorer_in_cross_validate,
        folds_in_cross_validate,
        in_a_shot_curve,
        in_a_task_learning_curve,
        in_a_comparison,
    ],
    ids=lambda path: path.__name__,
)
def test_query_rows_reach_nothing_that_is_fitted_or_adapted(path):
    tasks = regression_tasks(9)
    runs, scores = [], []
    for data in (tasks, poisoned(tasks, TEST, 2)):
        SEEN.clear()
        scores.append(path(data))
        runs.append(list(SEEN))
    assert len(runs[0]) == len(runs[1]) > 0
    for (X, y), (same_X, same_y) in zip(*runs, strict=True):
        np.testing.assert_array_equal(X, same_X)
        np.testing.assert_array_equal(y, same_y)
        assert max(np.abs(X).max(initial=0), np.abs(y).max(initial=0)) < 100
    # The rows were judged, so the poison was there.
    assert not np.allclose(*scores, equal_nan=True)
    # A support row would have been seen.
    SEEN.clear()
    path(poisoned(tasks, TEST, 1))
    assert any(np.abs(X).max(initial=0) > 1000 for X, _ in SEEN)


class Normed(nn.Sequential):
    """A backbone with running statistics."""

    def __init__(self, n_features):
        super().__init__(nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.Tanh())


def net_with_running_statistics(n_features, **params):
    net = {"module__n_features": n_features}
    return tiny(ProtoNetClassifier, Normed, net=net, label_space="shared", **params)


def pipeline_of_everything():
    """A scaler, an encoder, and a net with running statistics."""
    scale = make_column_transformer(
        (StandardScaler(), FEATURES),
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["kind"]),
        ("passthrough", ["user"]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    return make_pipeline(scale, net_with_running_statistics(6, group_column="user"))


def rows_of_everything(tasks):
    X, y, groups = long_format(tasks)
    kinds = np.array(["a", "b", "c"])[np.arange(len(y)) % 3]
    kinds[np.abs(X).max(axis=1) > 1000] = "poison"
    return frame_of(X, groups).assign(kind=kinds)[[*FEATURES, "kind", "user"]], y


def learned(fitted, tasks):
    """Everything that was fitted, and what is predicted of the training tasks."""
    scaler = fitted[0].named_transformers_["standardscaler"]
    encoder = fitted[0].named_transformers_["onehotencoder"]
    weights = fitted[-1].learner_.state_dict()
    assert any("running_mean" in name for name in weights)
    frame, _ = rows_of_everything(tasks)
    known = fitted.predict_proba(frame[frame["user"].isin(TRAIN)])
    return [
        scaler.mean_,
        scaler.scale_,
        *encoder.categories_,
        *(value.numpy() for value in weights.values()),
        known,
    ]


@pytest.mark.parametrize("path", ["FewShotKFold", "FewShotScorer"])
def test_query_rows_change_no_scaler_encoder_or_running_statistics(path):
    tasks = classification_tasks(9)
    found, scores = [], []
    for data in (tasks, poisoned(tasks, TEST, 4)):
        frame, y = rows_of_everything(data)
        users = frame["user"].to_numpy()
        if path == "FewShotKFold":
            cv = FewShotKFold(3, 4, support="first", shuffle=False)
            fold, scoring = list(cv.split(frame, y, users))[2], "accuracy"
        else:
            is_train = np.isin(users, TRAIN)
            fold = np.flatnonzero(is_train), np.flatnonzero(~is_train)
            scoring = FewShotScorer(n_shots=4, support="first")
        result = cross_validate(
            pipeline_of_everything(),
            frame,
            y,
            cv=[fold],
            scoring=scoring,
            return_estimator=True,
            error_score="raise",
        )
        found.append(learned(result["estimator"][0], tasks))
        scores.append(result["test_score"])
    for clean, spoilt in zip(*found, strict=True):
        np.testing.assert_array_equal(clean, spoilt)
    assert scores[0] != scores[1]


def test_query_rows_of_a_task_change_no_score_of_others():
    tasks = classification_tasks(6, seed=1)
    fitted = net_with_running_statistics(3).fit(classification_tasks())
    before = _learned(fitted)
    scorer = FewShotScorer("neg_log_loss", n_shots=4, support="first")
    clean = scorer.per_task(fitted, tasks)
    spoilt = scorer.per_task(fitted, poisoned(tasks, [2], 4))
    np.testing.assert_array_equal(clean != spoilt, np.arange(6) == 2)
    assert _learned(fitted) == before
