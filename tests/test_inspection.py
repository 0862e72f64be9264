"""Displays: what is drawn is what was computed."""

import copy
import importlib
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibrationDisplay
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.dataset import ValidSplit

from skmeta import (
    AttentiveNPRegressor,
    ConvCNPRegressor,
    DeepKernelRegressor,
    HierarchicalClassifier,
    HierarchicalRegressor,
    MAMLClassifier,
    MAMLRegressor,
    PerTask,
    ProtoNetClassifier,
    ReptileRegressor,
    RidgeHeadRegressor,
    freeze,
)
from skmeta import inspection as inspection_module
from skmeta.base._vectors import task_vectors
from skmeta.baselines import LocalRegressor, PooledRegressor, ShrunkOffsetRegressor
from skmeta.datasets import make_regression_tasks
from skmeta.exceptions import DivergenceWarning
from skmeta.inspection import (
    AdaptationCurveDisplay,
    LearningRateDisplay,
    MetaTrainingDisplay,
    TaskMapDisplay,
    TaskScoresDisplay,
)
from skmeta.model_selection import shot_curve

plt = pytest.importorskip("matplotlib.pyplot")

SHOTS = [0, 2, 5]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def tasks():
    return make_regression_tasks(12, 14, n_features=3, random_state=0)


@pytest.fixture(scope="module")
def binary_tasks(tasks):
    return [(X, (y > 0).astype(int)) for X, y in tasks]


@pytest.fixture(scope="module")
def meta(tasks):
    return HierarchicalRegressor().fit(tasks)


@pytest.fixture(scope="module")
def curve(tasks):
    return shot_curve(
        HierarchicalRegressor(), tasks, shots=SHOTS, n_draws=2, cv=3,
        baseline=LocalRegressor(),
    )  # fmt: skip


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ------------------------------------------------------------------- adaptation curves
def test_curve_draws_the_numbers_of_the_frame(curve):
    display = AdaptationCurveDisplay.from_curve(curve, name="ours")
    frame = curve.to_frame()
    np.testing.assert_allclose(display.mean, frame["mean"])
    np.testing.assert_allclose(display.low, frame["low"])
    np.testing.assert_allclose(display.harm_rate, frame["harm_rate"])
    np.testing.assert_array_equal(display.line_.get_xdata(), SHOTS)
    # The score is a negative error, so the error is drawn.
    np.testing.assert_allclose(display.line_.get_ydata(), -frame["mean"])
    base = curve.baseline.mean(axis=(1, 2))
    np.testing.assert_allclose(display.baseline_line_.get_ydata(), -base)
    corners = display.band_.get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(-frame["high"].max())
    assert corners.max() == pytest.approx(-frame["low"].min())
    texts = [text.get_text() for text in display.harm_]
    assert texts == [f"{100 * rate:.0f} %" for rate in frame["harm_rate"]]
    assert legend_of(display.ax_) == ["baseline", "ours"]
    assert display.ax_.get_ylabel() == "Root mean squared error (lower is better)"
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == [
        "0",
        "2",
        "5",
    ]
    assert display.figure_ is display.ax_.figure
    display.figure_.draw_without_rendering()


def test_curve_keeps_the_sign_when_asked(curve):
    display = AdaptationCurveDisplay.from_curve(curve, negate_score=False)
    np.testing.assert_allclose(display.line_.get_ydata(), display.mean)
    assert display.ax_.get_ylabel().startswith("Negative root mean squared error")
    display.plot(score_name="RMSE (litres)")
    assert display.ax_.get_ylabel() == "RMSE (litres)"


def test_curves_in_one_axes(curve):
    """They share the baseline; colours, markers and rows of harm rates differ."""
    _, ax = plt.subplots()
    first = AdaptationCurveDisplay.from_curve(curve, name="a", ax=ax)
    second = AdaptationCurveDisplay.from_curve(curve, name="b", ax=ax)
    assert first.ax_ is second.ax_ is ax
    assert first.baseline_line_ is not None
    assert second.baseline_line_ is None
    assert legend_of(ax) == ["baseline", "a", "b"]
    assert first.line_.get_color() != second.line_.get_color()
    assert first.line_.get_marker() != second.line_.get_marker()
    heights = {text.get_position()[1] for text in ax.texts}
    assert len(heights) == 3  # two rows and what they mean
    third = second.plot(ax, color="black", linestyle=":", label="c")
    assert third.line_.get_color() == "black"
    assert legend_of(ax)[-1] == "c"


def test_curves_judged_on_other_rows_have_their_own_baseline(curve):
    _, ax = plt.subplots()
    AdaptationCurveDisplay.from_curve(curve, name="a", ax=ax)
    other = replace(curve, baseline=curve.baseline - 1)
    second = AdaptationCurveDisplay.from_curve(other, name="b", ax=ax)
    assert legend_of(ax) == ["baseline", "a", "baseline (b)", "b"]
    assert second.baseline_line_.get_color() == second.line_.get_color()


def test_curve_from_estimator(tasks):
    pipe = make_pipeline(StandardScaler(), HierarchicalRegressor())
    rows = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    ids = np.repeat(np.arange(len(tasks)), 14)
    display = AdaptationCurveDisplay.from_estimator(
        pipe, rows, y, ids, shots=SHOTS, scoring="r2", cv=3, n_draws=1,
        baseline=LocalRegressor(),
    )  # fmt: skip
    expected = shot_curve(
        pipe, rows, y, ids, shots=SHOTS, scoring="r2", cv=3, n_draws=1
    )
    np.testing.assert_allclose(display.line_.get_ydata(), expected.to_frame()["mean"])
    assert legend_of(display.ax_) == ["LocalRegressor", "HierarchicalRegressor"]
    assert display.ax_.get_ylabel() == "R² (higher is better)"


def test_curve_without_baseline(tasks, meta):
    fresh = make_regression_tasks(5, 14, n_features=3, random_state=1)
    display = AdaptationCurveDisplay.from_estimator(
        meta, fresh, shots=SHOTS, cv="prefit", n_draws=1
    )
    assert display.harm_rate is display.baseline_mean is display.baseline_line_ is None
    assert display.harm_ == []


def test_curve_refuses_other_things(meta):
    with pytest.raises(TypeError, match="a ShotCurve; got"):
        AdaptationCurveDisplay.from_curve(meta)


# ------------------------------------------------------------------------- task scores
def test_task_scores_are_sorted_gains(curve):
    display = TaskScoresDisplay.from_curve(curve, n_shots=2)
    gains = (curve.scores - curve.baseline)[1].mean(axis=0)
    heights = [bar.get_height() for bar in display.bars_]
    np.testing.assert_allclose(heights, np.sort(gains)[::-1])
    np.testing.assert_array_equal(display.ids_, np.argsort(-gains))
    assert display.harm_rate == np.mean(gains < 0)
    assert display.mean_line_.get_ydata()[0] == pytest.approx(gains.mean())
    names = [tick.get_text() for tick in display.ax_.get_xticklabels()]
    assert names == [str(task) for task in display.ids_]


def test_task_scores_from_estimator_agree_with_the_curve(tasks):
    X = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    ids = np.repeat([f"user {i:02}" for i in range(len(tasks))], 14)
    params = {"n_draws": 2, "cv": 3, "baseline": LocalRegressor()}
    display = TaskScoresDisplay.from_estimator(
        HierarchicalRegressor(), X, y, ids, n_shots=2, **params
    )
    curve = shot_curve(HierarchicalRegressor(), X, y, ids, shots=[2], **params)
    gains = (curve.per_task - curve.baseline.mean(axis=1))[0]
    np.testing.assert_allclose(display.gains, gains)
    assert display.ids_[0] == f"user {gains.argmax():02}"
    assert "gain over LocalRegressor" in display.ax_.get_ylabel()


def test_task_scores_from_predictions():
    groups = np.array(["b", "a", "b", "a"])
    display = TaskScoresDisplay.from_predictions(
        y_true=np.array([0.0, 0.0, 0.0, 0.0]),
        y_pred=np.array([1.0, 0.5, 1.0, 0.5]),
        y_base=np.array([2.0, 0.25, 2.0, 0.25]),
        groups=groups,
        baseline_name="boosting",
    )
    assert display.ids == ["a", "b"]
    np.testing.assert_allclose(display.gains, [-0.25, 1.0])
    assert display.ids_ == ["b", "a"]
    assert display.harm_rate == 0.5
    assert display.ax_.get_ylabel() == "Root mean squared error:\ngain over boosting"


def test_task_scores_from_predictions_with_own_score():
    def hits(y_true, y_pred):
        return np.sum(y_true == y_pred)

    display = TaskScoresDisplay.from_predictions(
        ["x", "y", "y"], ["x", "y", "x"], ["x", "x", "x"], [1, 1, 2], score=hits
    )
    np.testing.assert_array_equal(display.gains, [1, 0])
    assert display.score_name == "hits"
    # No harm where scores are equal.
    assert display.harm_rate == 0


def test_task_scores_refuse(curve, meta):
    with pytest.raises(ValueError, match=r"n_shots=3 is none of the shots \[0, 2, 5\]"):
        TaskScoresDisplay.from_curve(curve, n_shots=3)
    with pytest.raises(TypeError, match="a ShotCurve; got"):
        TaskScoresDisplay.from_curve(meta)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        TaskScoresDisplay.from_predictions([0, 1], [0, 1], [0], [0, 0])
    with pytest.raises(ValueError, match="No task has a score"):
        TaskScoresDisplay([np.nan]).plot()
    fresh = make_regression_tasks(5, 14, n_features=3, random_state=1)
    with pytest.raises(ValueError, match="no baseline to gain over"):
        TaskScoresDisplay.from_estimator(meta, fresh, cv="prefit")


def test_many_bars_have_no_names():
    display = TaskScoresDisplay(np.arange(40.0), score_name="Accuracy").plot()
    assert list(display.ax_.get_xticks()) == []


# ---------------------------------------------------------------------------- task map
def test_map_is_the_projection_of_the_states(tasks, meta):
    display = TaskMapDisplay.from_estimator(meta)
    ids = list(meta.states_)
    means = meta.states_[ids[0]][0].state["mean"]
    expected = PCA(2).fit(means)
    np.testing.assert_allclose(display.points, expected.transform(means))
    drawn = display.scatter_[0].get_offsets()
    np.testing.assert_allclose(drawn, display.points)
    assert display.ids == ids
    # A task of which no row is known is predicted by the prior.
    assert display.prior.shape == (2,)
    assert legend_of(display.ax_) == ["prior"]


def test_map_knows_tasks_adapted_later(tasks, meta):
    more = copy.copy(meta).adapt(*tasks[0], groups=np.full(14, 100))
    more.adapt(*tasks[1], groups=np.full(14, 200))
    display = TaskMapDisplay.from_estimator(more)
    assert display.ids == [*range(12), 100, 200]
    vectors, _ = task_vectors(more)
    before, _ = task_vectors(meta)
    np.testing.assert_allclose(vectors[:12], before)
    # The same rows, so nearly the same place.
    assert np.linalg.norm(vectors[12] - vectors[0]) < 0.5


def test_map_values_by_position_dict_or_series(meta):
    values = np.arange(12.0)
    drawn = [
        TaskMapDisplay.from_estimator(meta, values=given).scatter_[0].get_array()
        for given in (
            values,
            dict(enumerate(values)),
            pd.Series(values[::-1], index=range(11, -1, -1)),
        )
    ]
    for array in drawn:
        np.testing.assert_array_equal(array, values)


def test_map_colours_and_names(meta):
    series = pd.Series(np.arange(12.0), name="rows")
    display = TaskMapDisplay.from_estimator(meta, values=series, annotate=[3])
    assert display.colorbar_.ax.get_ylabel() == "rows"
    assert [text.get_text() for text in display.ax_.texts] == ["3"]
    kinds = ["north"] * 5 + ["south"] * 7
    display = TaskMapDisplay.from_estimator(meta, values=kinds, values_name="region")
    assert display.colorbar_ is None
    assert [len(part.get_offsets()) for part in display.scatter_] == [5, 7]
    assert legend_of(display.ax_) == ["north", "south", "prior"]
    assert display.ax_.get_legend().get_title().get_text() == "region"


@pytest.mark.parametrize(
    "learner",
    [MAMLRegressor, ReptileRegressor, RidgeHeadRegressor],
)
def test_map_of_neural_states(tasks, learner):
    meta = learner(random_state=0, n_episodes=16).fit(tasks)
    vectors, prior = task_vectors(meta)
    assert vectors.shape == (12, len(prior))
    assert np.isfinite(TaskMapDisplay.from_estimator(meta).points).all()


def test_map_of_classifiers(binary_tasks):
    meta = HierarchicalClassifier().fit(binary_tasks)
    assert TaskMapDisplay.from_estimator(meta).points.shape == (12, 2)
    protos = ProtoNetClassifier(label_space="shared", random_state=0, n_episodes=16)
    protos.fit(binary_tasks)
    vectors, _ = task_vectors(protos)
    assert vectors.shape == (12, 2 * 64)
    own = [(X, y + 10 * i) for i, (X, y) in enumerate(binary_tasks)]
    protos = ProtoNetClassifier(n_ways=2, random_state=0, n_episodes=16).fit(own)
    with pytest.raises(ValueError, match="Classes exist only inside their task"):
        TaskMapDisplay.from_estimator(protos)


def test_map_of_a_pipeline(tasks):
    pipe = make_pipeline(PerTask(StandardScaler()), HierarchicalRegressor()).fit(tasks)
    through = TaskMapDisplay.from_estimator(pipe)
    np.testing.assert_array_equal(
        through.points, TaskMapDisplay.from_estimator(pipe[-1]).points
    )


def test_map_of_states_that_are_one_number(tasks):
    meta = ShrunkOffsetRegressor().fit(tasks)
    display = TaskMapDisplay.from_estimator(meta)
    np.testing.assert_array_equal(display.points[:, 1], 0)
    assert np.ptp(display.points[:, 0]) > 0


def test_map_refuses(tasks, meta):
    with pytest.raises(NotFittedError):
        TaskMapDisplay.from_estimator(HierarchicalRegressor())
    with pytest.raises(TypeError, match="must be a meta-learner"):
        TaskMapDisplay.from_estimator(StandardScaler())
    with pytest.raises(ValueError, match="at least three known tasks"):
        TaskMapDisplay.from_estimator(HierarchicalRegressor().fit(tasks[:2]))
    with pytest.raises(ValueError, match=r"shape \(3,\); it needs one value for each"):
        TaskMapDisplay.from_estimator(meta, values=[1, 2, 3])
    with pytest.raises(ValueError, match="values has none for the task 1"):
        TaskMapDisplay.from_estimator(meta, values={0: 1.0})
    with pytest.raises(ValueError, match="12 kinds"):
        TaskMapDisplay.from_estimator(meta, values=list("abcdefghijkl"))
    with pytest.raises(ValueError, match="'nobody', which is no known task"):
        TaskMapDisplay.from_estimator(meta, annotate=["nobody"])
    with pytest.raises(ValueError, match="PooledRegressor keeps no numbers"):
        TaskMapDisplay.from_estimator(PooledRegressor().fit(tasks))


# ----------------------------------------------------------------------- meta-training
def net_with_validation(max_epochs=4):
    import torch
    from skorch import NeuralNet

    from skmeta.modules import MLP

    return NeuralNet(
        MLP, torch.nn.MSELoss, lr=1e-3, optimizer=torch.optim.Adam,
        max_epochs=max_epochs, batch_size=4, train_split=ValidSplit(3), verbose=0,
    )  # fmt: skip


def test_training_draws_the_history(tasks):
    meta = RidgeHeadRegressor(net_with_validation(), random_state=0).fit(tasks)
    display = MetaTrainingDisplay.from_estimator(meta)
    np.testing.assert_array_equal(display.line_.get_xdata(), [1, 2, 3, 4])
    history = meta.history_
    np.testing.assert_allclose(display.line_.get_ydata(), history[:, "train_loss"])
    np.testing.assert_allclose(
        display.valid_line_.get_ydata(), history[:, "valid_loss"]
    )
    assert legend_of(display.ax_) == [
        "RidgeHeadRegressor, training tasks",
        "RidgeHeadRegressor, held-out tasks",
    ]
    assert display.ax_.get_ylabel() == "Loss on query rows (MSELoss)"
    assert display.diverged_ is None


def test_training_of_two_learners_in_one_axes(tasks):
    _, ax = plt.subplots()
    colors = []
    for learner in (RidgeHeadRegressor, MAMLRegressor):
        meta = learner(random_state=0, n_episodes=16).fit(tasks)
        display = MetaTrainingDisplay.from_estimator(meta, ax=ax)
        assert display.valid_line_ is None
        colors.append(display.line_.get_color())
    assert colors[0] != colors[1]
    assert len(legend_of(ax)) == 2


def test_training_counts_what_diverged(tasks):
    meta = MAMLRegressor(inner_lr=1e4, inner_steps=10, random_state=0, n_episodes=16)
    with pytest.warns(DivergenceWarning):
        meta.fit(tasks)
    display = MetaTrainingDisplay.from_estimator(meta)
    text = display.diverged_.get_text()
    assert text == f"{meta.n_diverged_} diverged episodes left out"


def test_training_axis_is_logarithmic_where_losses_fall_far():
    assert MetaTrainingDisplay([100.0, 1.0]).plot().ax_.get_yscale() == "log"
    assert MetaTrainingDisplay([2.0, 1.0]).plot().ax_.get_yscale() == "linear"
    assert MetaTrainingDisplay([100.0, -1.0]).plot().ax_.get_yscale() == "linear"


def test_training_refuses(meta):
    with pytest.raises(TypeError, match="not trained by epochs"):
        MetaTrainingDisplay.from_estimator(meta)
    with pytest.raises(NotFittedError):
        MetaTrainingDisplay.from_estimator(MAMLClassifier())


@pytest.mark.parametrize(
    "estimator", [AttentiveNPRegressor, ConvCNPRegressor, DeepKernelRegressor]
)
def test_map_refuses_states_that_grow_with_the_rows(estimator, tasks):
    """They have no place of their own; the error says so, not one of PCA's."""
    meta = estimator(n_episodes=8, random_state=0)
    if estimator is ConvCNPRegressor:
        tasks = [(X[:, :1], y) for X, y in tasks]
    with pytest.raises(ValueError, match="keeps no numbers of a task"):
        TaskMapDisplay.from_estimator(meta.fit(tasks))


# ---------------------------------------------------------------------- learning rate
def test_learning_rate_grows_to_where_training_breaks(tasks):
    from skmeta.modules import MLP

    meta = RidgeHeadRegressor(MLP, random_state=0)
    before = dict(vars(meta))
    display = LearningRateDisplay.from_estimator(
        meta, tasks, limits=(1e-6, 10.0), n_steps=60
    )
    assert vars(meta) == before
    assert len(display.losses) == 60
    np.testing.assert_allclose(display.rates[[0, -1]], [1e-6, 10.0])
    assert 1e-4 < display.suggested_rate < 1.0
    # Untrained at first, best in between, broken at the end.
    assert np.nanmin(display.smoothed) < 0.9 * display.smoothed[0]
    assert not display.smoothed[-1] < 2 * display.smoothed[0]
    assert legend_of(display.ax_)[0] == "RidgeHeadRegressor"
    assert display.ax_.get_xscale() == "log"


def test_learning_rate_suggestion_is_a_tenth_of_the_lowest():
    rates = np.geomspace(1e-5, 1, 400)
    losses = 1 / (1 + (rates / 1e-2)) + 100 * np.maximum(rates - 0.1, 0)
    display = LearningRateDisplay(rates, losses)
    assert 0.009 < display.suggested_rate < 0.014  # the running mean may lag a little
    assert np.isnan(LearningRateDisplay(rates, losses * np.nan).suggested_rate)


def test_learning_rate_refuses(tasks):
    with pytest.raises(TypeError, match="no learning rate"):
        LearningRateDisplay.from_estimator(HierarchicalRegressor(), tasks)
    meta = RidgeHeadRegressor()
    with pytest.raises(ValueError, match="limits"):
        LearningRateDisplay.from_estimator(meta, tasks, limits=(1.0, 0.1))
    with pytest.raises(ValueError, match="n_steps"):
        LearningRateDisplay.from_estimator(meta, tasks, n_steps=3)


# ------------------------------------------------------------------ scikit-learn's own
def test_calibration_display_takes_a_frozen_learner(binary_tasks):
    meta = HierarchicalClassifier().fit(binary_tasks[:-1])
    X, y = binary_tasks[-1]
    few = freeze(meta).fit(X[:5], y[:5])
    display = CalibrationDisplay.from_estimator(few, X[5:], y[5:], n_bins=3)
    np.testing.assert_allclose(display.y_prob, few.predict_proba(X[5:])[:, 1])


# ------------------------------------------------------------------------ no matplotlib
@pytest.mark.parametrize(
    "draw",
    [
        lambda: AdaptationCurveDisplay.from_estimator(None, None),
        lambda: AdaptationCurveDisplay.from_curve(None),
        lambda: AdaptationCurveDisplay(None).plot(),
        lambda: TaskScoresDisplay.from_estimator(None, None),
        lambda: TaskScoresDisplay.from_curve(None),
        lambda: TaskScoresDisplay.from_predictions(None, None, None, None),
        lambda: TaskScoresDisplay([1.0]).plot(),
        lambda: TaskMapDisplay.from_estimator(None),
        lambda: TaskMapDisplay([[0, 0]], [0]).plot(),
        lambda: MetaTrainingDisplay.from_estimator(None),
        lambda: MetaTrainingDisplay([1.0]).plot(),
    ],
)
def test_a_missing_matplotlib_names_the_extra(monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Display\.\w+ needs .*'skmeta\[plot\]'"):
        draw()


def test_import_needs_no_matplotlib(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("skmeta.inspection"):
            monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    assert importlib.import_module("skmeta.inspection").TaskMapDisplay


def test_all_names_are_displays():
    for name in inspection_module.__all__:
        assert name.endswith("Display")
        assert callable(getattr(inspection_module, name).plot)
