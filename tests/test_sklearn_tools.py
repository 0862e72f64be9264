"""Pipelines, searches, curves and callbacks of scikit-learn, in every input form."""

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from _tiny import classification_tasks, long_format, regression_tasks, tiny, tiny_net
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta import (
    HierarchicalClassifier,
    HierarchicalRegressor,
    MAMLClassifier,
    MAMLRegressor,
    NotAdaptedError,
    PerTask,
    ProtoNetClassifier,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
    SingleTaskWarning,
)
from skmeta.modules import MLP

FEATURES = ["x0", "x1", "x2"]
FORMS = ["list", "routed", "column", "index", "polars"]


def routing():
    return sklearn.config_context(enable_metadata_routing=True)


def in_form(form, tasks):
    """The same tasks as a search sees them: data, folds, what is in front."""
    X, y, groups = long_format(tasks)
    cv = GroupKFold(2)
    if form == "list":
        folds = [
            (np.unique(groups[train]), np.unique(groups[test]))
            for train, test in cv.split(X, y, groups)
        ]
        return SimpleNamespace(
            X=tasks,
            y=None,
            fit={},
            cv=folds,
            before=PerTask(StandardScaler()),
            group_column=None,
            context=nullcontext,
        )
    given = SimpleNamespace(
        X=X,
        y=y,
        fit={"groups": groups},
        cv=cv,
        before=StandardScaler(),
        group_column=None,
        context=routing,
    )
    if form == "routed":
        return given
    given.context = nullcontext
    given.group_column = "user"
    frame = pd.DataFrame(X, columns=FEATURES).assign(user=groups)
    columns = make_column_transformer(
        (StandardScaler(), FEATURES),
        ("passthrough", ["user"]),
        verbose_feature_names_out=False,
    )
    if form == "column":
        given.X, given.before = frame, columns.set_output(transform="pandas")
    elif form == "index":
        given.X = frame.set_index("user")
        given.before = StandardScaler().set_output(transform="pandas")
    else:
        given.X = pl.from_pandas(frame)
        given.before = columns.set_output(transform="polars")
    return given


def search_in(form, meta, grid, tasks):
    """A grid search whose pipeline is ("before", "meta")."""
    given = in_form(form, tasks)
    meta = clone(meta).set_params(group_column=given.group_column)
    pipe = Pipeline([("before", given.before), ("meta", meta)])
    grid = {f"meta__{name}": values for name, values in grid.items()}
    with given.context():
        search = GridSearchCV(pipe, grid, cv=given.cv, error_score="raise")
        return search.fit(given.X, given.y, **given.fit)


def scores_of(search):
    results = search.cv_results_
    return np.column_stack([results["split0_test_score"], results["split1_test_score"]])


GRIDS = {
    "inner": (MAMLClassifier, {"inner_lr": [0.01, 1.0], "inner_steps": [1, 3]}),
    "net": (
        ProtoNetClassifier,
        {"estimator__lr": [1e-4, 0.1], "estimator__batch_size": [1, 8]},
    ),
    "architecture": (
        RidgeHeadClassifier,
        {"estimator__module__hidden": [(2,), (16, 8)], "n_shots": [1, 3]},
    ),
    "metric": (ProtoNetClassifier, {"metric": ["euclidean", "cosine"]}),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_search_is_the_same_in_every_form_and_by_hand(grid):
    estimator, grid = GRIDS[grid]
    # Rows enough that two settings do not have the same accuracy by chance.
    meta, tasks = tiny(estimator), classification_tasks(n_rows=24, seed=1)
    searches = {form: search_in(form, meta, grid, tasks) for form in FORMS}
    expected = scores_of(searches["list"])
    for form in FORMS[1:]:
        np.testing.assert_allclose(scores_of(searches[form]), expected, err_msg=form)
    # A parameter that did nothing would give the same score everywhere.
    assert len(np.unique(expected.round(12), axis=0)) > 1

    search = searches["list"]
    for params, scores in zip(search.cv_results_["params"], expected, strict=True):
        for (train, test), score in zip(search.cv, scores, strict=True):
            pipe = clone(search.estimator).set_params(**params)
            pipe.fit([tasks[t] for t in train])
            assert pipe.score([tasks[t] for t in test]) == pytest.approx(score)


def test_search_over_optimizers_and_their_parameters():
    tasks = classification_tasks()
    sgd, nadam = torch.optim.SGD, torch.optim.NAdam
    base = {"estimator__optimizer": [sgd], "estimator__optimizer__momentum": [0.9]}
    grid = [
        {"estimator__optimizer": [nadam]},
        {**base, "estimator__optimizer__nesterov": [False, True]},
    ]
    search = GridSearchCV(tiny(ProtoNetClassifier), grid, cv=2, error_score="raise")
    search.fit(tasks)
    trained = []
    for params in search.cv_results_["params"]:
        net = clone(search.estimator).set_params(**params).fit(tasks).net_
        trained.append(net)
        assert type(net.optimizer_) is params["estimator__optimizer"]
    assert [n.optimizer_.defaults.get("nesterov") for n in trained[1:]] == [False, True]
    weights = [n.module_.learner.backbone[1].weight.detach() for n in trained]
    assert not any(torch.equal(weights[i - 1], weights[i]) for i in range(3))


def test_parameters_reach_the_trained_net():
    search = GridSearchCV(
        tiny(MAMLClassifier),
        {
            "estimator__module__hidden": [(5, 4)],
            "estimator__batch_size": [3],
            "estimator__lr": [0.02],
            "inner_lr": [0.3],
            "inner_steps": [2],
        },
        cv=2,
    ).fit(classification_tasks())
    best = search.best_estimator_
    assert [p.shape[0] for p in best.learner_.backbone.parameters()] == [5, 5, 4, 4]
    assert best.net_.optimizer_.param_groups[0]["lr"] == 0.02
    assert best.history_[0, "batches", 0, "train_batch_size"] == 3
    assert best.learner_.inner_steps == 2
    assert best.get_params()["inner_lr"] == 0.3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", [HierarchicalRegressor, RidgeHeadRegressor])
def test_cross_validation_of_regressors(estimator, form):
    tasks = regression_tasks()
    given = in_form(form, tasks)
    meta = HierarchicalRegressor() if estimator is HierarchicalRegressor else None
    meta = tiny(estimator) if meta is None else meta
    pipe = make_pipeline(given.before, meta.set_params(group_column=given.group_column))
    expected = []
    X, y, groups = long_format(tasks)
    for train, test in GroupKFold(2).split(X, y, groups):
        scaler = StandardScaler().fit(X[train])
        model = clone(meta).set_params(group_column=None)
        model.fit(scaler.transform(X[train]), y[train], groups=groups[train])
        rows = scaler.transform(X[test])
        expected.append(model.score(rows, y[test], groups=groups[test]))
    with given.context():
        params = {"params": given.fit} if form == "routed" else given.fit
        result = cross_validate(pipe, given.X, given.y, cv=given.cv, **params)
    np.testing.assert_allclose(result["test_score"], expected)
    assert min(expected) > 0.5 or estimator is RidgeHeadRegressor


def test_group_folds_hold_out_whole_tasks():
    """What is searched for is quality on tasks that were never seen."""
    X, y, groups = long_format(classification_tasks())
    seen = []

    class Recorder(ProtoNetClassifier):
        def score(self, X, y=None, groups=None):
            seen.append((set(self.states_), set(groups)))
            return super().score(X, y, groups=groups)

    with routing():
        meta = Recorder(tiny_net(), n_episodes=4, random_state=0)
        search = GridSearchCV(meta, {"n_shots": [1, 2]}, cv=GroupKFold(4))
        search.fit(X, y, groups=groups)
        search.score(X, y, groups=groups)
    assert len(seen) == 2 * 4 + 1
    for known, judged in seen[:-1]:
        assert not known & judged and known | judged == set(range(8))
    assert seen[-1][0] == set(range(8))


def test_routing_reaches_predict_and_predict_proba():
    X, y, groups = long_format(classification_tasks())
    with routing():
        pipe = make_pipeline(StandardScaler(), tiny(ProtoNetClassifier))
        pipe.fit(X, y, groups=groups)
        alone = pipe[-1].predict_proba(pipe[:-1].transform(X), groups=groups)
        np.testing.assert_array_equal(pipe.predict_proba(X, groups=groups), alone)
        labels = pipe.predict(X, groups=groups)
        np.testing.assert_array_equal(labels, alone.argmax(axis=1))
        assert pipe.score(X, y, groups=groups) == pytest.approx(np.mean(labels == y))


def test_a_request_can_be_turned_off():
    X, y, groups = long_format(regression_tasks())
    with routing():
        meta = HierarchicalRegressor().set_fit_request(groups=False)
        with pytest.warns(SingleTaskWarning):
            make_pipeline(StandardScaler(), meta).fit(X, y)
        with pytest.raises(TypeError, match="groups"):
            make_pipeline(StandardScaler(), meta).fit(X, y, groups=groups)


def test_string_scorers_and_cross_val_predict_with_a_column():
    """Known users: rows are split, the id in the frame tells whose they are."""
    X, y, groups = long_format(regression_tasks(n_rows=30))
    frame = pd.DataFrame(X, columns=FEATURES).assign(user=groups)
    meta, cv = HierarchicalRegressor(group_column="user"), KFold(3, shuffle=True)
    cv.random_state = 0
    result = cross_validate(
        meta, frame, y, cv=cv, scoring=["r2", "neg_mean_absolute_error"]
    )
    assert result["test_r2"].min() > 0.98
    predicted = cross_val_predict(meta, frame, y, cv=cv)
    error = [np.abs(predicted - y)[test].mean() for _, test in cv.split(frame)]
    np.testing.assert_allclose(result["test_neg_mean_absolute_error"], -np.array(error))


def test_dropped_id_column_is_explained():
    X, y, groups = long_format(regression_tasks())
    frame = pd.DataFrame(X, columns=FEATURES).assign(user=groups)
    pipe = make_pipeline(StandardScaler(), HierarchicalRegressor(group_column="user"))
    with pytest.raises(ValueError, match=r"set_output\(transform='pandas'\)"):
        pipe.fit(frame, y)


# ------------------------------------------------------------------ lists of tasks
def test_lists_of_tasks_are_split_and_scored():
    tasks = regression_tasks(n_tasks=10)
    train, test = train_test_split(tasks, test_size=0.3, random_state=0)
    assert len(train) == 7 and len(test) == 3
    assert all(any(task is other for other in tasks) for task in train + test)
    places = [[any(t is s for s in part) for t in tasks] for part in (train, test)]
    folds = [tuple(np.flatnonzero(place) for place in places)]
    by_hand = HierarchicalRegressor().fit([tasks[i] for i in folds[0][0]])
    score = by_hand.score([tasks[i] for i in folds[0][1]])
    assert cross_val_score(HierarchicalRegressor(), tasks, cv=folds)[0] == score


def test_learning_curve_counts_tasks():
    tasks = classification_tasks(n_tasks=10)
    sizes, train, test = learning_curve(
        tiny(ProtoNetClassifier), tasks, None, train_sizes=[2, 4], cv=2
    )
    assert list(sizes) == [2, 4] and train.shape == test.shape == (2, 2)
    by_hand = tiny(ProtoNetClassifier).fit(tasks[5:7])
    assert test[0, 0] == pytest.approx(by_hand.score(tasks[:5]))
    assert train[0, 0] == pytest.approx(by_hand.score(tasks[5:7]))


def test_validation_curve_of_inner_steps():
    tasks = regression_tasks()
    train, test = validation_curve(
        tiny(MAMLRegressor, inner_lr=0.05),
        tasks,
        None,
        param_name="inner_steps",
        param_range=[1, 4],
        cv=2,
    )
    assert train.shape == (2, 2) and np.isfinite(train).all()
    model = tiny(MAMLRegressor, inner_lr=0.05, inner_steps=4).fit(tasks[4:])
    assert test[1, 0] == pytest.approx(model.score(tasks[:4]))


@pytest.mark.parametrize("resource", ["estimator__max_epochs", "n_samples"])
def test_halving_search(resource):
    tasks = classification_tasks(n_tasks=16)
    limits = {"estimator__max_epochs": (1, 4), "n_samples": (4, 16)}[resource]
    search = HalvingGridSearchCV(
        tiny(ProtoNetClassifier),
        {"estimator__lr": [1e-3, 1e-2, 1e-1]},
        resource=resource,
        min_resources=limits[0],
        max_resources=limits[1],
        factor=2,
        cv=2,
        random_state=0,
        error_score="raise",
    ).fit(tasks)
    assert search.n_candidates_[:2] == [3, 2]
    assert search.n_resources_[:2] == [limits[0], 2 * limits[0]]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    if resource == "estimator__max_epochs":
        assert len(search.best_estimator_.history_) == search.n_resources_[-1]


def test_halving_search_with_routing():
    X, y, groups = long_format(classification_tasks())
    with routing():
        search = HalvingGridSearchCV(
            make_pipeline(StandardScaler(), tiny(ProtoNetClassifier)),
            {"protonetclassifier__metric": ["euclidean", "cosine"]},
            resource="protonetclassifier__estimator__max_epochs",
            max_resources=2,
            cv=GroupKFold(2),
            factor=2,
            error_score="raise",
        ).fit(X, y, groups=groups)
    assert len(search.best_estimator_[-1].states_) == 8


@pytest.mark.parametrize("form", ["list", "routed", "column"])
def test_nested_cross_validation(form):
    tasks = classification_tasks()
    given = in_form(form, tasks)
    meta = tiny(ProtoNetClassifier, group_column=given.group_column)
    inner = GroupKFold(2) if form == "routed" else 2
    search = GridSearchCV(
        make_pipeline(given.before, meta),
        {"protonetclassifier__metric": ["euclidean", "cosine"]},
        cv=inner,
        error_score="raise",
    )
    with given.context():
        params = {"params": given.fit} if form == "routed" else given.fit
        scores = cross_val_score(search, given.X, given.y, cv=given.cv, **params)
    assert scores.shape == (2,) and scores.mean() > 0.55
    if form == "list":
        for (train, test), score in zip(given.cv, scores, strict=True):
            inner = clone(search).fit([tasks[t] for t in train])
            assert inner.score([tasks[t] for t in test]) == score


def test_two_processes_give_what_one_gives():
    tasks = classification_tasks()
    meta = tiny(ProtoNetClassifier)
    one = cross_val_score(meta, tasks, cv=4)
    two = cross_val_score(meta, tasks, cv=4, n_jobs=2)
    np.testing.assert_array_equal(one, two)


# --------------------------------------------------------------------- silent trap
@pytest.mark.parametrize(
    "meta, tasks",
    [
        (HierarchicalRegressor(), regression_tasks()),
        (HierarchicalClassifier(), classification_tasks()),
        (tiny(RidgeHeadRegressor), regression_tasks()),
        (tiny(ProtoNetClassifier), classification_tasks()),
        (tiny(MAMLClassifier, label_space="shared"), classification_tasks()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_groups_that_only_split_are_warned_about(meta, tasks):
    """Without routing, a search gives `groups` to its splitter and to nobody else."""
    X, y, groups = long_format(tasks)
    with pytest.warns(SingleTaskWarning, match="enable_metadata_routing=True"):
        cross_val_score(meta, X, y, groups=groups, cv=GroupKFold(2))
    with routing(), warnings.catch_warnings():
        warnings.simplefilter("error")
        cross_val_score(meta, X, y, params={"groups": groups}, cv=GroupKFold(2))


def pool(n_classes, n_rows=6, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), n_rows)
    return rng.normal(size=(len(y), 3)) + 3 * y[:, None], y


@pytest.mark.parametrize(
    "n_classes, n_ways, warns",
    [(5, 5, True), (3, 5, True), (6, 5, False), (3, 2, False), (4, (2, 4), False)],
)
def test_pool_of_classes(n_classes, n_ways, warns):
    """A pool is many tasks if episodes can choose between its classes."""
    X, y = pool(n_classes)
    meta = tiny(ProtoNetClassifier, n_ways=n_ways)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        meta.fit(X, y)
    assert [w.category for w in caught] == [SingleTaskWarning] * warns
    if warns:
        assert caught[0].filename == __file__
        assert f"{n_classes} classes" in str(caught[0].message)


@pytest.mark.parametrize("meta", [HierarchicalRegressor(), tiny(RidgeHeadRegressor)])
def test_single_task_warning_points_at_the_caller(meta):
    X, y = regression_tasks(n_tasks=1)[0]
    search = GridSearchCV(make_pipeline(StandardScaler(), meta), {}, cv=2)
    for call in (meta.fit, clone(meta).partial_fit, search.fit):
        with pytest.warns(SingleTaskWarning, match="single task") as caught:
            call(X, y)
        assert {w.filename for w in caught} == {__file__}


def test_one_more_task_later_is_no_single_task():
    tasks = regression_tasks()
    meta = tiny(RidgeHeadRegressor).fit(tasks[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        meta.partial_fit(tasks[-1:])


# ----------------------------------------------------------------------- callbacks
class Recorder:
    """Counts what scikit-learn's callbacks are told."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.begun, self.ended, self.calls = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((type(estimator).__name__, context.task_name))

    def on_fit_task_end(self, estimator, context):
        self.ended.append((type(estimator).__name__, context.task_name))
        n_epochs = sum(name == "epoch" for _, name in self.ended)
        return self.stop_after is not None and n_epochs >= self.stop_after

    def teardown(self, estimator, context):
        self.calls.append("teardown")


class PropagatedRecorder(Recorder):
    """Set on a search or pipeline, told of everything inside."""

    max_propagation_depth = None


needs_callbacks = pytest.mark.skipif(
    not hasattr(tiny(ProtoNetClassifier), "set_callbacks"),
    reason="scikit-learn before 1.9 has no callbacks",
)


@needs_callbacks
def test_callbacks_see_every_epoch():
    recorder = Recorder()
    meta = tiny(ProtoNetClassifier, net={"max_epochs": 3}).set_callbacks(recorder)
    meta.fit(classification_tasks())
    name = "ProtoNetClassifier"
    assert recorder.begun == [(name, "fit")] + [(name, "epoch")] * 3
    assert recorder.ended == [(name, "epoch")] * 3 + [(name, "fit")]
    assert recorder.calls == ["setup", "teardown"]
    assert len(meta.history_) == 3
    assert not any("scikit-learn" in name for name, _ in meta.net_.callbacks_)


@needs_callbacks
def test_callback_stops_training():
    tasks = classification_tasks()
    recorder = Recorder(stop_after=2)
    meta = tiny(ProtoNetClassifier, net={"max_epochs": 9}).set_callbacks(recorder)
    meta.fit(tasks)
    assert len(meta.history_) == 2
    short = tiny(ProtoNetClassifier, net={"max_epochs": 2}).fit(tasks)
    X, _, groups = long_format(tasks)
    np.testing.assert_array_equal(
        meta.predict_proba(X, groups=groups), short.predict_proba(X, groups=groups)
    )


@needs_callbacks
def test_callbacks_change_nothing_and_are_torn_down_after_errors():
    tasks = classification_tasks()
    X, _, groups = long_format(tasks)
    plain = tiny(ProtoNetClassifier).fit(tasks)
    recorder = Recorder()
    meta = tiny(ProtoNetClassifier).set_callbacks(recorder).fit(tasks)
    np.testing.assert_array_equal(
        meta.predict_proba(X, groups=groups), plain.predict_proba(X, groups=groups)
    )

    class Fails(Recorder):
        def on_fit_task_end(self, estimator, context):
            raise OSError("disk full")

    failing = Fails()
    meta = tiny(ProtoNetClassifier).set_callbacks(failing)
    with pytest.raises(OSError, match="disk full"):
        meta.fit(tasks)
    assert failing.calls == ["setup", "teardown"] and not hasattr(meta, "states_")


@needs_callbacks
def test_callbacks_under_a_search():
    recorder = PropagatedRecorder()
    meta = tiny(ProtoNetClassifier)
    search = GridSearchCV(
        Pipeline([("meta", meta)]),
        {"meta__metric": ["euclidean", "cosine"]},
        cv=2,
        error_score="raise",
    ).set_callbacks(recorder)
    search.fit(classification_tasks())
    epochs = [name for name, task in recorder.ended if task == "epoch"]
    assert epochs == ["ProtoNetClassifier"] * 2 * (2 * 2 + 1)
    assert recorder.calls == ["setup", "teardown"]


@needs_callbacks
def test_progress_bar(capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    meta = tiny(ProtoNetClassifier).set_callbacks(ProgressBar())
    meta.fit(classification_tasks())
    assert "ProtoNetClassifier" in capsys.readouterr().out


# ------------------------------------------------------------------------- PerTask
def test_per_task_is_the_transformer_of_all_rows():
    tasks = regression_tasks()
    X, _, groups = long_format(tasks)
    lift = PerTask(StandardScaler()).fit(tasks)
    expected = StandardScaler().fit_transform(X)
    for t, (rows, y) in enumerate(lift.transform(tasks)):
        np.testing.assert_allclose(rows, expected[groups == t])
        assert y is tasks[t][1]
    own = PerTask(StandardScaler(), refit=True).fit(tasks).transform(tasks)
    for rows, _ in own:
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-12)


def test_base_estimator_is_searchable():
    search = GridSearchCV(
        HierarchicalClassifier(LogisticRegression()),
        {"base_estimator__C": [0.1, 1.0], "covariance": ["intercept", "diagonal"]},
        cv=2,
        error_score="raise",
    ).fit(classification_tasks())
    assert search.best_score_ > 0.7


@pytest.mark.parametrize("estimator", [None, MLP, MLP((8,))])
def test_settings_of_a_net_need_a_net(estimator):
    meta = MAMLClassifier(estimator)
    with pytest.raises(ValueError, match="estimator__lr is a setting of a net, but"):
        meta.set_params(estimator__lr=0.1)
    with pytest.raises(ValueError, match="NeuralNet.*CrossEntropyLoss"):
        GridSearchCV(meta, {"estimator__lr": [0.1]}, cv=2, error_score="raise").fit(
            classification_tasks()
        )
    meta.set_params(estimator=tiny_net(), estimator__lr=0.3)
    assert meta.estimator.lr == 0.3


def test_search_predicts_after_adapting_its_best_estimator():
    tasks = classification_tasks()
    search = GridSearchCV(
        tiny(ProtoNetClassifier, label_space="per_task"), {"n_shots": [1, 2]}, cv=2
    ).fit(tasks)
    X, y = tasks[0]
    with pytest.raises(NotAdaptedError):
        search.best_estimator_.predict(X, groups=["new"] * len(X))
    search.best_estimator_.adapt(X, y)
    assert np.mean(search.predict(X) == y) > 0.7
