"""Baselines, against what they are made of: scikit-learn, statsmodels, closed forms."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from _tiny import classification_tasks, long_format, regression_tasks
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
)
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmeta import NotAdaptedError, freeze
from skmeta.base._shrinkage import fit_shrinkage
from skmeta.baselines import (
    LocalClassifier,
    LocalRegressor,
    MixedModelRegressor,
    PooledClassifier,
    PooledRegressor,
    ShrunkOffsetRegressor,
    TaskEncodedClassifier,
    TaskEncodedRegressor,
    _mixed_model,
)
from skmeta.baselines._task_encoded import random_support
from skmeta.tasks._table import table_from_codes


def offset_tasks(n_tasks=40, n_rows=12, sd=2.0, noise=0.5, seed=0):
    """The same line in every task, and an offset of its own."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        X = rng.normal(size=(n_rows, 2))
        y = X @ [1.0, -1.0] + sd * rng.normal() + noise * rng.normal(size=n_rows)
        tasks.append((X, y))
    return tasks


def share_tasks(n_tasks=60, n_rows=30, seed=0):
    """Labels that depend on the task alone: one class is rare in one half of them."""
    rng = np.random.default_rng(seed)
    shares = np.where(np.arange(n_tasks) % 2, 0.15, 0.85)
    return [
        (rng.normal(size=(n_rows, 2)), np.where(rng.random(n_rows) < p, "yes", "no"))
        for p in shares
    ]


class NeedsRows(TransformerMixin, BaseEstimator):
    """Refuses to be fitted on fewer rows."""

    def __init__(self, at_least=2):
        self.at_least = at_least

    def fit(self, X, y=None):
        if len(X) < self.at_least:
            raise ValueError("Too few.")
        return self

    def transform(self, X):
        return X


# ------------------------------------------------------------------------------ pooled
def test_pooled_regressor_is_the_model_of_all_rows():
    tasks = regression_tasks()
    X, y, groups = long_format(tasks)
    model = PooledRegressor(Ridge(2.0)).fit(tasks)
    expected = Ridge(2.0).fit(X, y).predict(X)
    assert_allclose(model.predict(X, groups=groups), expected)
    assert_allclose(model.predict(X, groups=["new"] * len(X)), expected)
    model.adapt(X[:5], y[:5] + 100)
    assert_allclose(model.predict(X), expected)


def test_pooled_classifier_is_the_model_of_all_rows():
    tasks = [(X, np.array(["b", "a"])[y]) for X, y in classification_tasks()]
    X, y, groups = long_format(tasks)
    model = PooledClassifier().fit(tasks)
    expected = HistGradientBoostingClassifier(random_state=0).fit(X, y)
    proba = model.predict_proba(X, groups=groups)
    assert_allclose(proba, expected.predict_proba(X))
    assert_array_equal(model.predict(X, groups=groups), expected.predict(X))
    assert list(model.classes_) == ["a", "b"]


def test_pooled_goes_on_with_all_rows():
    tasks = regression_tasks()
    X, y, groups = long_format(tasks)
    model = PooledRegressor(Ridge())
    model.partial_fit(X[:30], y[:30], groups=groups[:30])  # tasks 0, 1 and half of 2
    model.partial_fit(X[30:], y[30:], groups=groups[30:])
    assert_allclose(model.estimator_.coef_, Ridge().fit(X, y).coef_)
    assert len(model.states_) == len(tasks)


def test_estimator_without_probabilities_is_certain():
    tasks = classification_tasks()
    X, y, groups = long_format(tasks)
    proba = PooledClassifier(RidgeClassifier()).fit(tasks).predict_proba(X, groups)
    expected = RidgeClassifier().fit(X, y).predict(X)
    assert_array_equal(proba, np.eye(2)[expected])


@pytest.mark.parametrize("classes", [None, ["a", "b", "c"]])
def test_class_that_the_model_has_not_seen_has_probability_zero(classes):
    tasks = [(X, np.array(["a", "c"])[y]) for X, y in classification_tasks()]
    model = PooledClassifier(LogisticRegression())
    model.partial_fit(tasks, classes=classes)
    proba = model.predict_proba(tasks[0][0])
    assert proba.shape[1] == (2 if classes is None else 3)
    assert_allclose(proba.sum(axis=1), 1)
    assert classes is None or (proba[:, 1] == 0).all()


def test_score_judges_the_same_query_rows_as_other_learners():
    tasks = offset_tasks(10)
    model = PooledRegressor(LinearRegression()).fit(tasks[:5])
    support = PooledRegressor(LinearRegression(), support="first", n_shots=4)
    y = np.concatenate([y[4:] for _, y in tasks[5:]])
    predicted = model.predict(np.concatenate([X[4:] for X, _ in tasks[5:]]), ["x"] * 40)
    score = support.fit(tasks[:5]).score(tasks[5:])
    assert_allclose(score, r2_score(y, predicted))


def test_nested_parameters_are_searched():
    X, y, groups = long_format(offset_tasks())
    rows = np.column_stack([X, groups])
    search = GridSearchCV(
        LocalRegressor(Ridge(), group_column=2), {"estimator__alpha": [0.1, 1e4]}, cv=3
    )
    assert search.fit(rows, y).best_params_ == {"estimator__alpha": 0.1}


# ------------------------------------------------------------------------------- local
def test_local_regressor_is_one_model_per_task():
    tasks = regression_tasks()
    model = LocalRegressor().fit(tasks)
    for t, (X, y) in enumerate(tasks):
        expected = make_pipeline(StandardScaler(), Ridge()).fit(X, y).predict(X)
        assert_allclose(model.predict(X, groups=[t] * len(X)), expected)
    X, y = regression_tasks(seed=1)[0]
    expected = make_pipeline(StandardScaler(), Ridge()).fit(X[:5], y[:5]).predict(X)
    assert_allclose(model.adapt(X[:5], y[:5]).predict(X), expected)


def test_local_regressor_without_rows_and_with_one():
    tasks = regression_tasks()[:2]
    tasks[0] = tasks[0][0][:3], tasks[0][1][:3]  # tasks, not rows, weigh the same
    model = LocalRegressor().fit(tasks)
    X, y = regression_tasks(seed=1)[0]
    expected = np.mean([tasks[0][1].mean(), tasks[1][1].mean()])
    assert_allclose(model.predict(X, groups=["new"] * len(X)), expected)
    assert_allclose(model.adapt(X[:1], y[:1]).predict(X), y[0])


def test_local_classifier_is_one_model_per_task():
    tasks = classification_tasks()
    model = LocalClassifier().fit(tasks)
    assert model.label_space_ == "shared"
    for t, (X, y) in enumerate(tasks):
        local = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        expected = local.fit(X, y).predict_proba(X)
        assert_allclose(model.predict_proba(X, groups=[t] * len(X)), expected)


def test_local_classifier_smooths_frequencies():
    X = np.arange(6.0)[:, None]
    shares = [np.array(list(labels)) for labels in ("aaabbb", "abbccc")]
    model = LocalClassifier(label_space="shared").fit([(X, y) for y in shares])
    prior = np.mean([[3, 3, 0], [1, 2, 3]], axis=0) / 6
    assert_allclose(model.predict_proba(X, groups=["new"] * 6), np.tile(prior, (6, 1)))
    model.adapt(X[:2], ["c", "c"])
    expected = (np.array([0, 0, 2]) + 3 * prior) / 5
    assert_allclose(model.predict_proba(X), np.tile(expected, (6, 1)))


def test_local_classifier_with_labels_of_their_own():
    tasks = [
        (X, np.array([f"{t}x", f"{t}y"])[y])
        for t, (X, y) in enumerate(classification_tasks())
    ]
    model = LocalClassifier().fit(tasks)
    assert model.label_space_ == "per_task"
    X, y = classification_tasks(seed=1)[0]
    names = np.array(["q", "p", "r"])[np.where(np.arange(len(y)) < 3, 2, y)]
    proba = model.adapt(X, names).predict_proba(X)
    expected = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    columns = np.searchsorted(model.classes_, ["p", "q", "r"])
    assert_allclose(proba[:, columns], expected.fit(X, names).predict_proba(X))
    assert_allclose(proba.sum(axis=1), 1)
    with pytest.raises(NotAdaptedError):
        model.predict(X, groups=["new"] * len(X))


def test_local_task_of_one_class_of_its_own_is_that_class():
    tasks = classification_tasks()
    odd = tasks[0][0], np.full(len(tasks[0][0]), 7)
    model = LocalClassifier(label_space="per_task").fit([*tasks, odd])
    assert set(model.predict(odd[0], groups=[len(tasks)] * len(odd[0]))) == {7}


def test_local_error_names_the_task():
    X, y, groups = long_format(classification_tasks())
    model = LocalClassifier(KNeighborsClassifier(5)).fit(X, y, groups=groups)
    few = np.r_[np.flatnonzero(y == 0)[:2], np.flatnonzero(y == 1)[:2]]
    model.adapt(X[few], y[few], groups=["small"] * 4)
    with pytest.raises(ValueError, match="cannot predict task 'small': .*n_neighbors"):
        model.predict(X, groups=["small"] * len(X))
    model.predict(X, groups=groups)


def test_local_task_without_a_model_does_no_harm_to_others():
    X, y, groups = long_format(regression_tasks())
    rows = np.flatnonzero((groups != 3) | (np.arange(len(X)) % 4 == 0))
    picky = make_pipeline(NeedsRows(5), Ridge())
    model = LocalRegressor(picky).fit(X[rows], y[rows], groups=groups[rows])
    expected = clone(picky).fit(X[:12], y[:12]).predict(X[:12])
    assert_allclose(model.predict(X[:12], groups=groups[:12]), expected)
    with pytest.raises(ValueError, match="on the 3 rows of task 3: Too few.\nPass"):
        model.predict(X[groups == 3], groups=groups[groups == 3])
    with pytest.raises(ValueError, match="on the 2 rows of task 'new': Too few."):
        model.adapt(X[:2], y[:2], groups=["new"] * 2)
    assert "new" not in model.states_


def test_local_refuses_tasks_of_one_row_with_their_own_labels():
    X, y, _ = long_format(classification_tasks())
    with pytest.raises(ValueError, match="at least two rows"):
        LocalClassifier(label_space="per_task").fit(X, y, groups=np.arange(len(X)))


# ----------------------------------------------------------------------- task encoding
def test_random_support_leaves_the_row_out():
    """Sums of powers of two show which rows are in the support."""
    counts = [1, 2, 7, 12]
    codes = np.repeat(np.arange(4), counts)
    place = np.concatenate([np.arange(n) for n in counts])
    table = table_from_codes(np.zeros((22, 1)), 2.0**place, codes, list("abcd"))
    rng = np.random.RandomState(0)  # noqa: NPY002, as of check_random_state
    sizes = set()
    for _ in range(200):
        sums, k = random_support(table.y[:, None], table, rng)
        members = np.round(sums[:, 0]).astype(int)
        assert_allclose(members, sums[:, 0], atol=1e-8)
        assert_array_equal([bin(m).count("1") for m in members], k)
        assert not (members & (1 << place)).any()
        assert (members < 2 ** np.array(counts)[codes]).all()
        sizes.update(k[codes == 3].tolist())
    assert sizes == set(range(12))


def test_encoded_columns_are_what_the_model_sees():
    tasks = offset_tasks(20)
    model = TaskEncodedRegressor(LinearRegression(), random_state=0).fit(tasks)
    X, y = offset_tasks(1, seed=1)[0]
    shrink = model.shrinkage_
    weight = shrink.between / (shrink.between + shrink.within / 5)
    mean = shrink.center[0] + weight * (y[:5].mean() - shrink.center[0])
    columns = np.column_stack([X, np.full(12, mean), np.full(12, np.log(6))])
    predicted = model.adapt(X[:5], y[:5]).predict(X)
    assert_allclose(predicted, model.estimator_.predict(columns))
    none = np.column_stack([X, np.full(12, shrink.center[0]), np.zeros(12)])
    assert_allclose(model.predict(X, ["new"] * 12), model.estimator_.predict(none))


def test_encoded_classifier_sees_frequencies_of_each_class():
    tasks = share_tasks()
    model = TaskEncodedClassifier(LogisticRegression(), random_state=0).fit(tasks)
    X, y = tasks[0]
    model.adapt(X[:4], y[:4])
    shrink = model.shrinkage_
    weight = shrink.between / (shrink.between + shrink.within / 4)
    own = np.array([(y[:4] == "no").mean(), (y[:4] == "yes").mean()])
    mean = shrink.center + weight * (own - shrink.center)
    columns = np.column_stack([X, np.tile(mean, (30, 1)), np.full(30, np.log(5))])
    expected = model.estimator_.predict_proba(columns)
    assert_allclose(model.predict_proba(X), expected)


@pytest.mark.parametrize("n_shots", [2, 8])
def test_encoding_helps_where_means_differ(n_shots):
    tasks, new = offset_tasks(), offset_tasks(20, seed=1)
    params = {"n_shots": n_shots}
    pooled = PooledRegressor(**params).fit(tasks).score(new)
    encoded = TaskEncodedRegressor(random_state=0, **params).fit(tasks).score(new)
    assert pooled < 0.5
    assert encoded > pooled + 0.25


def test_encoding_helps_where_classes_differ_in_frequency():
    tasks, new = share_tasks(), share_tasks(seed=1)
    pooled = PooledClassifier().fit(tasks).score(new)
    encoded = TaskEncodedClassifier(random_state=0).fit(tasks).score(new)
    assert pooled < 0.6
    assert encoded > 0.75


# ------------------------------------------------------------------------------ offset
def test_variance_components_are_found():
    tasks = offset_tasks(2000, n_rows=6, sd=2.0, noise=0.5)
    X, y, codes = long_format(tasks)
    kept = np.sort(np.random.default_rng(0).permutation(len(X))[:9000])  # unbalanced
    codes = np.unique(codes[kept], return_inverse=True)[1]
    values = (y - X @ [1.0, -1.0])[kept]
    found = fit_shrinkage(values[:, None], codes, codes.max() + 1)
    assert_allclose(found.between, 4.0, rtol=0.1)
    assert_allclose(found.within, 0.25, rtol=0.05)


def moments(residual, codes):
    """Balanced one-way layout, as in a textbook."""
    rows = residual.reshape(codes.max() + 1, -1)
    within = rows.var(axis=1, ddof=1).mean()
    return rows.mean(axis=1).var(ddof=1) - within / rows.shape[1], within


def test_offset_is_the_closed_form():
    tasks = offset_tasks()
    X, y, codes = long_format(tasks)
    model = ShrunkOffsetRegressor(LinearRegression()).fit(tasks)
    splits = list(GroupKFold(5).split(X, groups=codes))
    held_out = cross_val_predict(LinearRegression(), X, y, cv=splits)
    between, within = moments(y - held_out, codes)
    assert_allclose([model.between_, model.within_], [between, within])

    X_new, y_new = offset_tasks(1, seed=1)[0]
    pooled = LinearRegression().fit(X, y)
    weight = between / (between + within / 5)
    offset = weight * (y_new - pooled.predict(X_new))[:5].mean()
    mean, std = model.adapt(X_new[:5], y_new[:5]).predict(X_new, return_std=True)
    assert_allclose(mean, pooled.predict(X_new) + offset)
    assert_allclose(std, np.sqrt(between * (1 - weight) + within))
    prior, std = model.predict(X_new, ["new"] * 12, return_std=True)
    assert_allclose(prior, pooled.predict(X_new))
    assert_allclose(std, np.sqrt(between + within))


def test_known_tasks_are_predicted_by_the_model_of_their_fold():
    tasks = offset_tasks()
    X, y, codes = long_format(tasks)
    model = ShrunkOffsetRegressor(LinearRegression()).fit(tasks)
    train, test = next(GroupKFold(5).split(X, groups=codes))
    fold = LinearRegression().fit(X[train], y[train])
    own = codes == codes[test[0]]
    residual = (y - fold.predict(X))[own]
    weight = model.between_ / (model.between_ + model.within_ / 12)
    expected = fold.predict(X[own]) + weight * residual.mean()
    assert_allclose(model.predict(X[own], groups=codes[own]), expected)


def test_offset_of_a_task_that_the_features_give_away():
    """The pooled model knows the task by heart; its offset must not count twice."""
    rng = np.random.default_rng(0)
    tasks = [
        (np.column_stack([X, np.full(len(X), rng.normal())]), y)
        for X, y in offset_tasks(30, n_rows=30, sd=3.0)
    ]
    X, y, codes = long_format([(X[:20], y[:20]) for X, y in tasks])
    later, truth, late = long_format([(X[20:], y[20:]) for X, y in tasks])
    model = ShrunkOffsetRegressor().fit(X, y, groups=codes)
    assert r2_score(truth, model.predict(later, groups=late)) > 0.9


def test_list_of_new_tasks_has_no_folds():
    """Its ids 0, 1, ... are not those of training tasks."""
    tasks, new = offset_tasks(), offset_tasks(5, seed=1)
    X, y, groups = long_format(new)
    model = ShrunkOffsetRegressor(LinearRegression()).fit(tasks)
    assert_allclose(model.score(new), model.score(X, y, groups=groups + 100))


@pytest.mark.parametrize("make", [ShrunkOffsetRegressor, MixedModelRegressor])
def test_intervals_cover(make):
    model = make().fit(offset_tasks(60))
    X, y, groups = long_format(offset_tasks(300, n_rows=4, seed=1))
    groups = groups + 1000
    first = np.arange(len(X)) % 4 < 2
    model.adapt(X[first], y[first], groups=groups[first])
    for ids in (groups, groups + 1000):  # adapted, and unknown
        mean, std = model.predict(X[~first], ids[~first], return_std=True)
        assert 0.92 < (np.abs(mean - y[~first]) < 1.96 * std).mean() < 0.98


@pytest.mark.filterwarnings("ignore::skmeta.SingleTaskWarning")
@pytest.mark.parametrize("make", [ShrunkOffsetRegressor, MixedModelRegressor])
def test_one_task_has_no_offset(make):
    X, y = offset_tasks(1)[0]
    model = make().fit(X, y)
    prior = model.predict(X, groups=["new"] * len(X))
    assert_allclose(model.adapt(X, y + 100).predict(X), prior)


# ------------------------------------------------------------------------- mixed model
def frame_of(tasks):
    X, y, groups = long_format(tasks)
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(y=y, g=groups)


@pytest.mark.parametrize("slopes", [None, ["b"], [0, 2]])
def test_mixed_model_is_that_of_statsmodels(slopes):
    tasks = regression_tasks(40, n_rows=15)
    data = frame_of(tasks)
    X, y, g = data[["a", "b", "c"]], data["y"], data["g"]
    chosen = [X.columns[s] if isinstance(s, int) else s for s in slopes or ()]
    # Scaled as ours, so that the covariances can be compared.
    scaled = ((X - X.mean()) / X.std(ddof=0)).assign(y=y)
    formula = "~" + "+".join(["1", *chosen])
    reference = smf.mixedlm("y ~ a + b + c", scaled, groups=g, re_formula=formula)
    reference = reference.fit(method=["bfgs", "lbfgs"])
    model = MixedModelRegressor(slopes).fit(X, y, groups=g)
    fitted = model.predict(X, groups=g)
    assert_allclose(fitted, reference.fittedvalues, atol=1e-3)
    assert_allclose(model.covariance_, reference.cov_re, atol=2e-3)
    assert_allclose(model.noise_variance_, reference.scale, rtol=1e-3)
    effect = model.states_.blocks[0].state["effect"] * y.std(ddof=0)
    assert_allclose(effect, pd.DataFrame(reference.random_effects).T, atol=1e-3)
    prior = model.predict(X, groups=["new"] * len(X))
    assert_allclose(prior, reference.predict(scaled), atol=1e-3)
    assert_allclose(X @ model.coef_ + model.intercept_, prior)


def test_new_task_of_a_mixed_model_is_the_conditional_mean():
    """Gaussian conditioning with the covariance of all rows, written out."""
    model = MixedModelRegressor([1]).fit(regression_tasks(40))
    X, y = regression_tasks(seed=1)[0]
    Z = np.column_stack([np.ones(12), (X[:, 1] - model._mean[1]) / model._scale[1]])
    joint = Z @ model.covariance_ @ Z.T + model.noise_variance_ * np.eye(12)
    center = X @ model.coef_ + model.intercept_
    gain = joint[4:, :4] @ np.linalg.inv(joint[:4, :4])
    mean, std = model.adapt(X[:4], y[:4]).predict(X[4:], return_std=True)
    assert_allclose(mean, center[4:] + gain @ (y - center)[:4])
    assert_allclose(std**2, np.diag(joint[4:, 4:] - gain @ joint[:4, 4:]))


def test_mixed_model_takes_collinear_and_constant_columns():
    tasks = regression_tasks(30)
    odd = [(np.column_stack([X, X @ [1, 2, 3], np.full(12, 5.0)]), y) for X, y in tasks]
    plain, model = MixedModelRegressor().fit(tasks), MixedModelRegressor([4]).fit(odd)
    X, groups = long_format(tasks)[0], long_format(tasks)[2]
    expected = plain.predict(X, groups=groups)
    predicted = model.predict(long_format(odd)[0], groups=groups)
    assert_allclose(predicted, expected, atol=1e-3)
    assert_array_equal(model.covariance_[1], 0)


@pytest.mark.filterwarnings("ignore::skmeta.SingleTaskWarning")
def test_mixed_model_without_groups_is_least_squares():
    X, y, _ = long_format(regression_tasks())
    expected = LinearRegression().fit(X, y)
    for groups in (None, np.arange(len(X))):
        model = MixedModelRegressor().fit(X, y, groups=groups)
        assert_allclose(model.coef_, expected.coef_)
        assert_allclose(model.intercept_, expected.intercept_)
        assert_array_equal(model.covariance_, 0)


class NeverConverges:
    """Stands for statsmodels' model: fails at REML, and gives up at ML."""

    def __init__(self, *arguments, **options):
        pass

    def fit(self, method, reml):
        if reml:
            raise np.linalg.LinAlgError("Singular matrix")
        found = {"fe_params": [0.0] * 4, "cov_re": [[1.0]], "scale": 1.0}
        return SimpleNamespace(converged=False, **found)


def test_mixed_model_that_does_not_converge_is_least_squares(monkeypatch):
    monkeypatch.setattr(_mixed_model, "_import_mixed_lm", lambda: NeverConverges)
    X, y, groups = long_format(regression_tasks())
    with pytest.warns(ConvergenceWarning, match="predictions are those of least squ"):
        model = MixedModelRegressor().fit(X, y, groups=groups)
    assert_allclose(model.predict(X, groups), LinearRegression().fit(X, y).predict(X))


def test_mixed_model_names_the_slope_that_is_not_there():
    tasks = regression_tasks()
    for slopes in (["q"], [3], [1.5], [-4]):
        with pytest.raises(ValueError, match=r"slopes contains .*position of one of 3"):
            MixedModelRegressor(slopes).fit(tasks)


def test_mixed_model_says_how_to_get_statsmodels(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    with pytest.raises(ImportError, match=r"pip install skmeta\[examples\]"):
        MixedModelRegressor().fit(regression_tasks())


# -------------------------------------------------------------------------- all of them
@pytest.mark.parametrize(
    "model",
    [
        PooledRegressor(Ridge()),
        LocalRegressor(),
        TaskEncodedRegressor(Ridge(), random_state=0),
        ShrunkOffsetRegressor(Ridge()),
        MixedModelRegressor([0]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_partial_fit_is_fit_on_everything(model):
    X, y, groups = long_format(regression_tasks(12))
    half = groups < 6
    whole = clone(model).fit(X, y, groups=groups)
    parts = clone(model).partial_fit(X[half], y[half], groups=groups[half])
    parts.predict(X, groups=groups)
    parts.partial_fit(X[~half], y[~half], groups=groups[~half])
    assert_allclose(parts.predict(X, groups), whole.predict(X, groups), atol=1e-6)


def test_frozen_baseline_is_an_ordinary_estimator():
    model = ShrunkOffsetRegressor(LinearRegression()).fit(offset_tasks())
    X, y = offset_tasks(1, seed=1)[0]
    frozen = freeze(model).fit(X[:4], y[:4])
    assert_allclose(frozen.predict(X), model.adapt(X[:4], y[:4]).predict(X))
