"""A frozen meta-learner is an ordinary estimator: fitting it is adapting."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from _tiny import META, classification_tasks, long_format, regression_tasks, tiny
from sklearn.base import clone, is_classifier
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags
from torch import nn

from skmeta import (
    AdaptedClassifier,
    AdaptedRegressor,
    ConvCNPRegressor,
    HierarchicalRegressor,
    NotAdaptedError,
    PerTask,
    ProtoNetClassifier,
    RidgeHeadRegressor,
    SingleTaskWarning,
    freeze,
)
from skmeta.modules import Conv4

FEATURES = ["x0", "x1", "x2"]


def fitted(name):
    """A meta-learner that knows seven tasks, and rows of an eighth."""
    meta = META[name]()
    is_regressor = not is_classifier(meta)
    tasks = (regression_tasks if is_regressor else classification_tasks)()
    return meta.fit(tasks[:-1]), *tasks[-1]


def output(estimator, X):
    if is_classifier(estimator):
        return estimator.predict_proba(X)
    return estimator.predict(X)


# ------------------------------------------------------------------------------ verbs
@pytest.mark.parametrize("name", META)
def test_fit_is_adapt(name):
    meta, X, y = fitted(name)
    before, weights = meta.states_, pickle.dumps(meta.__getstate__())
    few = freeze(meta)
    wrapper = AdaptedClassifier if is_classifier(meta) else AdaptedRegressor
    assert type(few) is wrapper and is_classifier(few) == is_classifier(meta)
    assert few.fit(X[:8], y[:8]) is few
    by_hand = copy.copy(meta).adapt(X[:8], y[:8])
    np.testing.assert_array_equal(few.predict(X), by_hand.predict(X))
    columns = np.isin(by_hand.classes_, few.classes_) if is_classifier(few) else ...
    expected = output(by_hand, X)
    expected = expected[:, columns] if is_classifier(few) else expected
    np.testing.assert_array_equal(output(few, X), expected)
    assert meta.states_ is before and pickle.dumps(meta.__getstate__()) == weights
    assert few.n_features_in_ == 3 and len(few.estimator_.states_) == 1


@pytest.mark.parametrize("name", META)
def test_partial_fit_of_chunks_is_fit(name):
    meta, X, y = fitted(name)
    few = freeze(meta)
    whole = clone(few).fit(X[:9], y[:9])
    order = np.r_[np.flatnonzero(y[:9] == y[0])[:2], np.flatnonzero(y[:9] != y[0])[:2]]
    rest = np.setdiff1d(np.arange(9), order)
    chunks = clone(few).partial_fit(X[order], y[order])
    first = chunks.estimator_
    for rows in (rest[:2], rest[2:]):
        assert chunks.partial_fit(X[rows], y[rows]) is chunks
    np.testing.assert_allclose(output(chunks, X), output(whole, X), rtol=1e-6)
    assert chunks.estimator_ is not first
    if is_classifier(few):
        again = clone(few).partial_fit(X[:9], y[:9], classes=np.unique(y))
        np.testing.assert_array_equal(output(again, X), output(whole, X))


@pytest.mark.parametrize("name", META)
def test_clone_keeps_what_was_learned(name):
    meta, X, y = fitted(name)
    few = freeze(meta).fit(X, y)
    other = clone(few)
    with pytest.raises(NotFittedError):
        other.predict(X)
    assert other.estimator.estimator is meta
    np.testing.assert_array_equal(output(other.fit(X, y), X), output(few, X))
    other.fit(X[::-1][:6], y[::-1][:6])  # nor does one adapting disturb the other
    np.testing.assert_array_equal(output(few, X), output(clone(few).fit(X, y), X))


@pytest.mark.parametrize("name", META)
def test_pickle(name):
    meta, X, y = fitted(name)
    few = freeze(meta).fit(X, y)
    other = pickle.loads(pickle.dumps(few))
    np.testing.assert_allclose(output(other, X), output(few, X), rtol=1e-12)
    other.partial_fit(X[:3], y[:3])
    expected = output(clone(few).fit(np.r_[X, X[:3]], np.r_[y, y[:3]]), X)
    np.testing.assert_allclose(output(other, X), expected, rtol=1e-6)


def test_score_is_that_of_the_queries():
    meta, X, y = fitted("hierarchical")
    few = freeze(meta).fit(X[:6], y[:6])
    residual = y[6:] - few.predict(X[6:])
    expected = 1 - np.sum(residual**2) / np.sum((y[6:] - y[6:].mean()) ** 2)
    assert few.score(X[6:], y[6:]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["ridge", "hierarchical"])
def test_standard_deviations(name):
    meta, X, y = fitted(name)
    mean, std = freeze(meta).fit(X[:4], y[:4]).predict(X, return_std=True)
    by_hand = copy.copy(meta).adapt(X[:4], y[:4]).predict(X, return_std=True)
    np.testing.assert_array_equal([mean, std], by_hand)
    more = freeze(meta).fit(X, y).predict(X, return_std=True)[1]
    assert (more < std).all()


def test_no_standard_deviation_without_a_posterior():
    meta, X, y = fitted("maml")
    with pytest.raises(TypeError, match="return_std"):
        freeze(meta).fit(X, y).predict(X, return_std=True)


def test_classes_are_those_of_the_task():
    rng = np.random.default_rng(0)
    pool_y = np.repeat(np.arange(6), 8)
    pool_X = rng.normal(size=(48, 3)) + pool_y[:, None]
    meta = tiny(ProtoNetClassifier, n_ways=3).fit(pool_X, pool_y)
    y = np.array(["cat", "dog", "owl", "yak"] * 4)
    X = rng.normal(size=(16, 3)) + 5 * np.arange(16)[:, None] % 4
    few = freeze(meta).fit(X[:8], y[:8])
    assert few.classes_.tolist() == ["cat", "dog", "owl", "yak"]
    np.testing.assert_allclose(few.predict_proba(X).sum(axis=1), 1)
    few.partial_fit(X[8:] + 9, np.array(["emu"] * 8))
    assert few.classes_.tolist() == ["cat", "dog", "emu", "owl", "yak"]
    assert meta.classes_.tolist() == list(range(6))


# ----------------------------------------------------------------- faults
def test_unfitted():
    meta, X, y = fitted("protonet")
    few = freeze(meta)
    for call in (few.predict, few.predict_proba):
        with pytest.raises(NotFittedError):
            call(X)
    not_fitted = clone(meta)
    in_pipe = make_pipeline(StandardScaler(), not_fitted)
    search = GridSearchCV(not_fitted, {"n_shots": [1]}, cv=2, refit=False)
    search.fit(classification_tasks())
    for estimator in (not_fitted, in_pipe, search, few):
        with pytest.raises(NotFittedError):
            freeze(estimator)
    with pytest.raises(NotFittedError):
        AdaptedClassifier(FrozenEstimator(not_fitted)).fit(X, y)


@pytest.mark.parametrize(
    "wrong", [LinearRegression(), make_pipeline(StandardScaler()), StandardScaler()]
)
def test_only_meta_learners_can_be_frozen(wrong):
    X, y = regression_tasks()[0]
    with pytest.raises(TypeError, match="must be a meta-learner of skmeta"):
        freeze(clone(wrong).fit(X, y))
    for estimator in (wrong, FrozenEstimator(clone(wrong).fit(X, y))):
        with pytest.raises(TypeError, match="must be a meta-learner of skmeta"):
            AdaptedRegressor(estimator).fit(X, y)
    few = freeze(HierarchicalRegressor().fit(regression_tasks())).fit(X, y)
    with pytest.raises(TypeError, match="must be a meta-learner of skmeta"):
        freeze(few)


def test_an_unfrozen_meta_learner_is_trained_on_the_one_task():
    X, y = regression_tasks(n_rows=20)[0]
    with pytest.warns(SingleTaskWarning):
        alone = AdaptedRegressor(HierarchicalRegressor()).fit(X, y)
    with pytest.warns(SingleTaskWarning):
        expected = HierarchicalRegressor().fit(X, y).predict(X)
    np.testing.assert_array_equal(alone.predict(X), expected)
    search = GridSearchCV(HierarchicalRegressor(), {"covariance": ["none"]}, cv=2)
    with pytest.warns(SingleTaskWarning):
        assert AdaptedRegressor(search).fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize("rows", [np.full((4, 3), np.nan), np.ones((4, 2))])
def test_bad_rows_change_nothing(rows):
    meta, X, y = fitted("hierarchical")
    few = freeze(meta).fit(X, y)
    expected = few.predict(X)
    for call in (few.predict, lambda X: few.partial_fit(X, y[:4])):
        with pytest.raises(ValueError, match=r"NaN|features"):
            call(rows)
    np.testing.assert_array_equal(few.predict(X), expected)


def test_a_task_with_one_class_has_no_labels_of_its_own():
    meta, X, _ = fitted("protonet-per-task")
    with pytest.raises(ValueError, match="only one class"):
        freeze(meta).fit(X, np.ones(len(X), dtype=int))
    meta, X, _ = fitted("protonet")  # a rare event may be absent
    few = freeze(meta).fit(X, np.ones(len(X), dtype=int))
    assert few.classes_.tolist() == [0, 1]


# ------------------------------------------------------------------ adapt_params
def test_adapt_params_are_used_and_the_meta_learner_is_not_changed():
    meta, X, y = fitted("maml")
    assert meta.adapt_steps is None
    none = freeze(meta, adapt_steps=0).fit(X, y).predict(X)
    np.testing.assert_allclose(none, meta.predict(X, groups=["new"] * len(X)))
    few = freeze(meta, adapt_steps=7).fit(X, y)
    by_hand = copy.copy(meta).set_params(adapt_steps=7).adapt(X, y).predict(X)
    np.testing.assert_array_equal(few.predict(X), by_hand)
    assert meta.adapt_steps is None and clone(few).adapt_params == {"adapt_steps": 7}


def test_adapt_params_can_be_searched():
    meta, X, y = fitted("maml")
    weights = meta.learner_
    grid = [{"adapt_steps": steps} for steps in (0, 1, 30)]
    search = GridSearchCV(
        freeze(meta), {"adapt_params": grid}, cv=KFold(3), error_score="raise"
    ).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores.round(6))) == 3
    for params, score in zip(grid, scores, strict=True):
        few = freeze(meta, **params)
        assert cross_val_score(few, X, y, cv=KFold(3)).mean() == pytest.approx(score)
    assert meta.learner_ is weights and meta.adapt_steps is None


def test_wrong_adapt_params():
    meta, X, y = fitted("maml")
    with pytest.raises(ValueError, match="Invalid parameter 'steps'"):
        freeze(meta, steps=3).fit(X, y)
    with pytest.raises(ValueError, match="belongs to one of its components"):
        freeze(meta, estimator__lr=3.0).fit(X, y)
    assert meta.estimator.lr == 0.01


# ---------------------------------------------------- pipelines, searches, ensembles
@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("kind", ["meta", "pipeline", "search", "search-in-pipeline"])
def test_freeze_of_everything(kind, routing):
    tasks = classification_tasks()
    X, y, groups = long_format(tasks[:-1])
    X_new, y_new = tasks[-1]
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            scaler, data, cv = StandardScaler(), (X, y), GroupKFold(2)
            params = {"groups": groups}
        else:
            scaler, data, cv = PerTask(StandardScaler()), (tasks[:-1],), 2
            params = {}
        meta = tiny(ProtoNetClassifier)
        grid = {"n_shots": [1, 2]}
        model = {
            "meta": meta,
            "pipeline": make_pipeline(scaler, meta),
            "search": GridSearchCV(
                make_pipeline(scaler, meta),
                {f"protonetclassifier__{k}": v for k, v in grid.items()},
                cv=cv,
            ),
            "search-in-pipeline": make_pipeline(
                scaler, GridSearchCV(meta, grid, cv=cv)
            ),
        }[kind]
        model.fit(*data, **params)
        few = freeze(model)
        scores = cross_val_score(few, X_new, y_new, cv=KFold(3), error_score="raise")
        few.fit(X_new[:8], y_new[:8])
        proba = few.predict_proba(X_new)
        clone(few).partial_fit(X_new, y_new).predict(X_new)

    best = model
    rows = X_new
    if kind != "meta":
        rows = StandardScaler().fit(X).transform(X_new)
    while not isinstance(best, ProtoNetClassifier):
        best = best.best_estimator_ if hasattr(best, "best_estimator_") else best[-1]
    by_hand = copy.copy(best).adapt(rows[:8], y_new[:8])
    np.testing.assert_allclose(proba, by_hand.predict_proba(rows))
    for (train, test), score in zip(KFold(3).split(X_new), scores, strict=True):
        by_hand = copy.copy(best).adapt(rows[train], y_new[train])
        assert np.mean(by_hand.predict(rows[test]) == y_new[test]) == score


def test_inside_a_pipeline():
    meta, X, y = fitted("hierarchical")
    few = make_pipeline(StandardScaler(with_std=False, with_mean=False), freeze(meta))
    np.testing.assert_array_equal(
        few.fit(X[:6], y[:6]).predict(X),
        copy.copy(meta).adapt(X[:6], y[:6]).predict(X),
    )
    assert few[-1].estimator.estimator is meta


def test_inside_ensembles():
    first, X, y = fitted("ridge")
    second = fitted("hierarchical")[0]
    parts = [("a", freeze(first)), ("b", freeze(second))]
    both = VotingRegressor(parts).fit(X[:6], y[:6]).predict(X)
    alone = [clone(few).fit(X[:6], y[:6]).predict(X) for _, few in parts]
    np.testing.assert_allclose(both, np.mean(alone, axis=0))
    stack = StackingRegressor(parts, LinearRegression(), cv=3).fit(X, y)
    assert stack.score(X, y) > 0.5

    first, X, y = fitted("protonet")
    second = fitted("hierarchical-classifier")[0]
    parts = [("a", freeze(first)), ("b", freeze(second))]
    both = VotingClassifier(parts, voting="soft").fit(X, y).predict_proba(X)
    alone = [clone(few).fit(X, y).predict_proba(X) for _, few in parts]
    np.testing.assert_allclose(both, np.mean(alone, axis=0))


def test_many_threads():
    meta, X, y = fitted("maml")
    few = freeze(meta)
    cv = KFold(6)
    expected = cross_val_score(few, X, y, cv=cv)
    with joblib.parallel_backend("threading"):
        for _ in range(3):
            np.testing.assert_array_equal(
                cross_val_score(few, X, y, cv=cv, n_jobs=4), expected
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maml-classifier", "ridge", "hierarchical"])
def test_two_processes(name):
    meta, X, y = fitted(name)
    # More than a megabyte of support reaches the workers as a read-only memory map.
    rows = np.tile(X, (5000, 1)) + 0.1
    meta.adapt(rows, np.tile(y, 5000), groups=["large"] * len(rows))
    few = freeze(meta)
    expected = cross_val_score(few, X, y, cv=KFold(3))
    with joblib.parallel_backend("loky"):
        two = cross_val_score(few, X, y, cv=KFold(3), n_jobs=2)
    np.testing.assert_allclose(two, expected)


# -------------------------------------------------------------------- columns, images
def frame_of(X):
    """Three numbers and a category."""
    return pd.DataFrame(X, columns=FEATURES).assign(
        city=["a", "b", "a"] * (len(X) // 3)
    )


def column_pipeline(group_column=None):
    steps = [
        (StandardScaler(), FEATURES),
        (OneHotEncoder(sparse_output=False), ["city"]),
    ]
    if group_column is not None:
        steps.append(("passthrough", [group_column]))
    columns = make_column_transformer(*steps, verbose_feature_names_out=False)
    meta = tiny(RidgeHeadRegressor, group_column=group_column)
    return make_pipeline(columns.set_output(transform="pandas"), meta)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_pipeline_that_selects_columns(library):
    tasks = regression_tasks()
    X, y, groups = long_format(tasks[:-1])
    rows, target = tasks[-1]
    new = frame_of(rows)
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = column_pipeline().fit(frame_of(X), y, groups=groups)
    few = freeze(pipe)
    given = pl.from_pandas(new) if library == "polars" else new
    few.fit(given[:6], target[:6])
    inside = pipe[0].transform(new)
    by_hand = copy.copy(pipe[-1]).adapt(inside[:6], target[:6]).predict(inside)
    np.testing.assert_allclose(few.predict(given), by_hand)
    assert few.feature_names_in_.tolist() == [*FEATURES, "city"]
    with pytest.raises(ValueError, match="feature names"):
        few.predict(given[["city", *FEATURES]])
    with pytest.raises(ValueError, match="feature names"):
        few.partial_fit(given[FEATURES], target)


def test_the_column_of_ids_is_ignored():
    """Rows of a new store come with its id; they are one task whatever it says."""
    tasks = regression_tasks()
    X, y, groups = long_format(tasks[:-1])
    rows, target = tasks[-1]
    pipe = column_pipeline("user").fit(frame_of(X).assign(user=groups), y)
    new = frame_of(rows).assign(user=99)
    few = freeze(pipe).fit(new[:6], target[:6])
    inside = pipe[0].transform(new).drop(columns="user")
    meta = copy.copy(pipe[-1]).set_params(group_column=None)
    by_hand = meta.adapt(inside[:6], target[:6]).predict(inside)
    np.testing.assert_allclose(few.predict(new), by_hand)
    np.testing.assert_allclose(few.predict(new.assign(user=0)), by_hand)
    few.partial_fit(new[6:], target[6:])
    assert pipe[-1].group_column == "user"


@pytest.mark.parametrize("with_id", [True, False])
@pytest.mark.parametrize("form", ["column", "index", "position"])
def test_ids_without_a_pipeline(form, with_id):
    tasks = regression_tasks()
    X, y, groups = long_format(tasks[:-1])
    rows, target = tasks[-1]
    expected = freeze(HierarchicalRegressor().fit(X, y, groups=groups))
    expected = expected.fit(rows[:6], target[:6]).predict(rows)

    def given(X, ids):
        if form == "position":
            return np.column_stack([X, ids]) if with_id or len(X) > 12 else X
        frame = pd.DataFrame(X, columns=FEATURES).assign(user=ids)
        if not with_id and len(X) == 12:
            return frame[FEATURES]
        return frame.set_index("user") if form == "index" else frame

    column = 3 if form == "position" else "user"
    meta = HierarchicalRegressor(group_column=column).fit(given(X, groups), y)
    new = given(rows, np.full(len(rows), 99))
    few = freeze(meta).fit(new[:6], target[:6])
    np.testing.assert_allclose(few.predict(new), expected)


def test_names_of_columns_are_those_of_the_meta_learner():
    tasks = [(pd.DataFrame(X, columns=FEATURES), y) for X, y in regression_tasks()]
    few = freeze(HierarchicalRegressor().fit(tasks[:-1]))
    X, y = tasks[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few.fit(X, y).predict(X)
    with pytest.raises(ValueError, match="feature names"):
        clone(few).fit(X[FEATURES[::-1]], y)


def test_lists_of_numbers():
    meta, X, y = fitted("hierarchical")
    few = freeze(make_pipeline(PerTask(StandardScaler()), meta).fit(regression_tasks()))
    expected = few.fit(X, y).predict(X)
    np.testing.assert_array_equal(
        few.fit(X.tolist(), list(y)).predict(X.tolist()), expected
    )


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_images(shape):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 5)
    X = rng.normal(size=(20, *shape)) + y.reshape(-1, *[1] * len(shape))
    meta = tiny(
        ProtoNetClassifier,
        Conv4,
        net={"module__width": 4, "module__n_blocks": 1},
        n_ways=2,
        n_episodes=4,
    ).fit(X, y)
    few = freeze(meta).fit(X[::2], y[::2])
    by_hand = copy.copy(meta).adapt(X[::2], y[::2])
    np.testing.assert_array_equal(few.predict(X), by_hand.predict(X))
    assert cross_val_score(few, X, y, cv=2, error_score="raise").shape == (2,)
    with pytest.raises(ValueError, match="shape"):
        few.predict(X[..., :4])


def test_repr_html():
    meta, X, y = fitted("protonet")
    for few in (freeze(meta), freeze(meta).fit(X, y)):
        html = few._repr_html_()
        assert "ProtoNetClassifier" in html and "AdaptedClassifier" in html


def test_tensors_and_token_ids():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.EmbeddingBag(20, 4)

        def forward(self, X):
            return self.tokens(X)

    rng = np.random.default_rng(0)
    y = np.arange(12) % 2
    tasks = [(rng.integers(0, 20, size=(12, 5)), y) for _ in range(6)]
    few = freeze(tiny(ProtoNetClassifier, Bag).fit(tasks[:-1]))
    X = tasks[-1][0]
    expected = few.fit(X, y).predict_proba(X)
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    np.testing.assert_array_equal(few.fit(*tensors).predict_proba(tensors[0]), expected)


def test_not_adapted_error_is_a_not_fitted_error():
    meta, X, _ = fitted("protonet-per-task")
    with pytest.raises(NotAdaptedError) as caught:
        meta.predict(X)
    assert isinstance(caught.value, NotFittedError)


def test_adapted_estimators_are_expected_to_score_as_what_is_in_them():
    for meta in (HierarchicalRegressor(), ConvCNPRegressor()):
        own = get_tags(meta).regressor_tags.poor_score
        for inner in (meta, FrozenEstimator(make_pipeline(StandardScaler(), meta))):
            assert get_tags(AdaptedRegressor(inner)).regressor_tags.poor_score == own
    assert not get_tags(AdaptedRegressor(None)).regressor_tags.poor_score
