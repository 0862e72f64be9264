"""Forests in whose leaves every task has values of its own."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from skmeta import HierarchicalForestClassifier, HierarchicalForestRegressor
from skmeta.hierarchical._leaves import STRENGTHS

SMALL = {"n_estimators": 5, "min_samples_leaf": 8, "random_state": 0}
MODELS = [
    HierarchicalForestClassifier(RandomForestClassifier(**SMALL)),
    HierarchicalForestRegressor(RandomForestRegressor(**SMALL)),
    HierarchicalForestClassifier(ExtraTreesClassifier(**SMALL), support="first"),
    HierarchicalForestRegressor(ExtraTreesRegressor(**SMALL), support="first"),
]
each_model = pytest.mark.parametrize(
    "meta", MODELS, ids=lambda meta: type(meta.estimator).__name__
)


def region_tasks(n_tasks, n_rows, own, seed=0, classes=False):
    """Tasks that differ by `own` in each of four regions of the plane."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        X = rng.uniform(-1, 1, (n_rows, 2))
        region = 2 * (X[:, 0] > 0) + (X[:, 1] > 0)
        y = np.array([-2.0, 0.0, 1.0, 2.0])[region] + own * rng.normal(size=4)[region]
        y += 0.3 * rng.normal(size=n_rows)
        tasks.append((X, np.digitize(y, [-1, 1]) if classes else y))
    return tasks


def fitted(meta, n_tasks=12, n_rows=15):
    """A learner that knows some tasks, and the rows of two new ones."""
    classes = isinstance(meta, HierarchicalForestClassifier)
    tasks = region_tasks(n_tasks + 2, n_rows, 1.0, classes=classes)
    meta = copy.deepcopy(meta).fit(tasks[:-2])
    X, y = (np.concatenate(part) for part in zip(*tasks[-2:], strict=True))
    return meta, X, y, np.repeat(["a", "b"], n_rows)


def outputs(meta, X, groups=None):
    if isinstance(meta, HierarchicalForestClassifier):
        return meta.predict_proba(X, groups=groups)
    return meta.predict(X, groups=groups)


def leaf_by_leaf(meta, shown, X):
    """The model of the docstrings, one row and one tree after the other."""
    X_shown, y_shown, weight = shown
    forest, out = meta.estimator_, []
    level = 0.0
    if isinstance(meta, HierarchicalForestRegressor):
        miss = weight * (y_shown - forest.predict(X_shown))
        level = miss.sum() / (weight.sum() + meta.level_strength_)
    for x in X:
        votes = []
        for tree in forest.estimators_:
            inside = tree.apply(X_shown) == tree.apply(x[None])
            prior, n = meta.leaf_strength_, weight[inside].sum()
            if isinstance(meta, HierarchicalForestRegressor):
                mean = tree.predict(x[None])[0]
                above = (weight * (y_shown - mean - level))[inside].sum() / (n + prior)
                votes.append(mean + level + above)
            else:
                p = tree.predict_proba(x[None])[0]
                seen = inside & (y_shown == meta.classes_[:, None])
                votes.append((prior * p + seen @ weight) / (prior + n))
        out.append(np.mean(votes, axis=0))
    return np.array(out)


@each_model
def test_prediction_is_that_of_leaves_one_by_one(meta):
    meta, X, y, groups = fitted(meta)
    meta.leaf_strength_ = 1.7
    if isinstance(meta, HierarchicalForestRegressor):
        meta.level_strength_ = 2.3
    weight = np.random.default_rng(1).uniform(0.2, 2, len(y))
    shown = np.arange(len(y)) % 15 < np.where(groups == "a", 4, 9)
    meta.adapt(X[shown], y[shown], groups=groups[shown], sample_weight=weight[shown])
    found = outputs(meta, X, groups)
    for task in ("a", "b"):
        rows = shown & (groups == task)
        expected = leaf_by_leaf(
            meta, (X[rows], y[rows], weight[rows]), X[groups == task]
        )
        assert_allclose(found[groups == task], expected, atol=1e-12)


@each_model
def test_a_task_without_rows_gets_the_forest(meta):
    meta, X, _, groups = fitted(meta)
    forest = meta.estimator_
    classes = hasattr(forest, "predict_proba")
    pooled = forest.predict_proba(X) if classes else forest.predict(X)
    assert_allclose(outputs(meta, X, groups), pooled, atol=1e-12)


@each_model
def test_row_by_row_is_all_rows_at_once(meta):
    meta, X, y, groups = fitted(meta)
    batch = outputs(copy.copy(meta).adapt(X, y, groups=groups), X, groups)
    for i in np.random.default_rng(0).permutation(len(y)):
        meta.partial_adapt(X[[i]], y[[i]], groups=groups[[i]])
    assert_allclose(outputs(meta, X, groups), batch, atol=1e-12)


@each_model
def test_a_weight_is_a_row_that_comes_again(meta):
    meta, X, y, groups = fitted(meta)
    times = np.arange(len(y)) % 3
    again = np.repeat(np.arange(len(y)), times)
    repeated = copy.copy(meta).adapt(X[again], y[again], groups=groups[again])
    meta.adapt(X, y, groups=groups, sample_weight=times)
    found, expected = (outputs(model, X, groups) for model in (meta, repeated))
    assert_allclose(found, expected, atol=1e-12)


@each_model
def test_forgetting_a_task_is_never_having_met_it(meta):
    meta, X, y, groups = fitted(meta)
    before = outputs(meta, X, groups)
    meta.adapt(X, y, groups=groups).forget(["a", "b"])
    assert_array_equal(outputs(meta, X, groups), before)


@pytest.mark.parametrize("support", ["first", "random"])
def test_strength_is_the_best_on_held_out_tasks(support, monkeypatch):
    """One split, one number of rows: all candidates tried by fitting and adapting."""
    monkeypatch.setattr("skmeta.hierarchical._leaves.SHOTS", (5,))
    tasks = region_tasks(8, 12, 0.8, classes=True)
    forest = RandomForestClassifier(4, min_samples_leaf=3, random_state=0)
    meta = HierarchicalForestClassifier(forest, cv=2, support=support).fit(tasks)

    from sklearn.model_selection import GroupKFold

    from skmeta.tasks._sampler import support_mask

    X, y = (np.concatenate(part) for part in zip(*tasks, strict=True))
    groups = np.repeat(np.arange(8), 12)
    losses = np.zeros(len(STRENGTHS))
    for train, test in GroupKFold(2).split(X, groups=groups):
        part = copy.deepcopy(meta).fit(X[train], y[train], groups=groups[train])
        codes = np.unique(groups[test], return_inverse=True)[1]
        shown = support_mask(codes, None, 5, support=support)
        for i, strength in enumerate(STRENGTHS):
            part.leaf_strength_ = strength
            part.adapt(X[test][shown], y[test][shown], groups=codes[shown] + 100)
            proba = part.predict_proba(X[test][~shown], groups=codes[~shown] + 100)
            losses[i] += np.square(proba - np.eye(3)[y[test][~shown]]).sum()
    assert meta.leaf_strength_ == STRENGTHS[losses.argmin()]


@pytest.mark.parametrize(
    "model", [HierarchicalForestClassifier, HierarchicalForestRegressor]
)
def test_strengths_follow_how_far_tasks_differ(model):
    classes = model is HierarchicalForestClassifier
    kind = RandomForestClassifier if classes else RandomForestRegressor
    forest = kind(20, min_samples_leaf=10, random_state=0)
    strengths, gains = [], []
    for own in (0.0, 2.0):
        tasks = region_tasks(60, 20, own, classes=classes)
        meta = model(forest).fit(tasks[:40])
        X, y = (np.concatenate(part) for part in zip(*tasks[40:], strict=True))
        groups, shown = np.repeat(np.arange(100, 120), 20), np.arange(400) % 20 < 12
        asked = X[~shown], groups[~shown]
        before = meta.predict(*asked)
        after = meta.adapt(X[shown], y[shown], groups=groups[shown]).predict(*asked)
        loss = [np.square(p - y[~shown]).mean() for p in (before, after)]
        strengths.append(meta.leaf_strength_)
        gains.append(1 - loss[1] / loss[0])
    assert strengths[0] > 5 * strengths[1]
    assert abs(gains[0]) < 0.05
    assert gains[1] > 0.4


def test_a_level_is_learned_where_only_levels_differ():
    rng = np.random.default_rng(0)
    tasks = [(X, y + 3 * rng.normal()) for X, y in region_tasks(60, 12, 0.0)]
    meta = HierarchicalForestRegressor(RandomForestRegressor(**SMALL)).fit(tasks[:40])
    # Levels have a variance of 9, errors one of .1 and what the forest errs.
    assert meta.level_strength_ < 1
    error = [meta.adapt(X[:6], y[:6]).predict(X[6:]) - y[6:] for X, y in tasks[40:]]
    assert np.sqrt(np.mean(np.square(error))) < 1.2


def test_missing_values_are_those_of_the_forest():
    tasks = region_tasks(8, 20, 1.0, classes=True)
    for X, _ in tasks:
        X[::7, 0] = np.nan
    meta = HierarchicalForestClassifier(RandomForestClassifier(**SMALL)).fit(tasks[1:])
    assert np.isfinite(meta.adapt(*tasks[0]).predict_proba(tasks[0][0])).all()


def test_a_class_of_a_single_task_is_known():
    tasks = region_tasks(6, 20, 0.5, classes=True)
    tasks[3][1][:5] = 7
    meta = HierarchicalForestClassifier(RandomForestClassifier(**SMALL)).fit(tasks)
    assert_array_equal(meta.classes_, [0, 1, 2, 7])
    proba = meta.adapt(*tasks[0]).predict_proba(tasks[0][0])
    assert_allclose(proba.sum(axis=1), 1)
    assert proba.min() >= 0


def test_what_is_no_forest_is_refused():
    from sklearn.tree import DecisionTreeClassifier

    with pytest.raises(ValueError, match="'estimator' parameter"):
        HierarchicalForestClassifier(DecisionTreeClassifier()).fit(
            region_tasks(3, 10, 1.0, classes=True)
        )
