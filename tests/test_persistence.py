"""Fitted meta-learners in a file without code."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from _tiny import seeded, shortened
from numpy.testing import assert_array_equal
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.linear_model import Ridge
from skorch import NeuralNet

from skmeta import (
    HeterogeneousRegressor,
    HierarchicalClassifier,
    HierarchicalRegressor,
    ProtoNetClassifier,
    RidgeHeadRegressor,
)
from skmeta.datasets import make_regression_tasks
from skmeta.modules import MLP
from skmeta.persistence import load, save
from skmeta.utils.discovery import all_estimators
from skmeta.utils.estimator_checks import ragged_tasks, to_long

#: What scikit-learn has fitted stays scikit-learn's: these hold such an estimator.
HOLDS_ANOTHER = ("HierarchicalForest", "Local", "Pooled", "ShrunkOffset", "TaskEncoded")
LEARNERS = [
    shortened(seeded(estimator))
    for name, estimator in all_estimators()
    if not name.startswith(HOLDS_ANOTHER)
]
LEARNERS += [
    HierarchicalClassifier(covariance="diagonal"),
    ProtoNetClassifier(MLP, label_space="per_task", n_episodes=20, random_state=0),
]


def a_fleet(estimator):
    """A fitted estimator with adapted tasks, and rows of all of its tasks."""
    X, y, groups = to_long(ragged_tasks(estimator))
    names = np.array([f"user {g}" for g in groups])
    if hasattr(estimator, "label_space"):
        y = np.array(["no", "yes"])[y]
    meta = estimator.fit(X, y, groups=names)
    new = np.array([f"new {g}" for g in groups])
    return meta.adapt(X, y, groups=new), np.r_[X, X], np.r_[names, new], y


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("estimator", LEARNERS, ids=lambda e: type(e).__name__)
def test_a_fleet_is_the_same_after_a_round_trip(estimator, tmp_path):
    meta, X, groups, y = a_fleet(estimator)
    save(meta, tmp_path / "fleet")
    again = load(tmp_path / "fleet")
    assert list(again.states_) == list(meta.states_)
    assert repr(again.get_params()) == repr(meta.get_params())
    assert_array_equal(again.predict(X, groups=groups), meta.predict(X, groups=groups))
    half = len(y)
    for model in (meta, again):
        model.partial_adapt(X[:half], y, groups=groups[half:])
    assert_array_equal(again.predict(X, groups=groups), meta.predict(X, groups=groups))
    assert len(again.states_.blocks) == len(meta.states_.blocks)


@pytest.mark.parametrize("name", HOLDS_ANOTHER)
def test_what_scikit_learn_has_fitted_is_refused(name, tmp_path):
    for estimator in (e for n, e in all_estimators() if n.startswith(name)):
        meta, *_ = a_fleet(seeded(estimator))
        with pytest.raises(TypeError, match="holds"):
            save(meta, tmp_path / "fleet")
        assert not list(tmp_path.iterdir())


def test_columns_are_matched_by_name_after_a_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    tasks = []
    for names in ("ab", "bc", "abc"):
        X = pd.DataFrame(rng.normal(size=(20, len(names))), columns=list(names))
        tasks.append((X, X.sum(axis=1)))
    meta = HeterogeneousRegressor(n_episodes=2, random_state=0).fit(tasks)
    save(meta, tmp_path / "meta")
    X, y = tasks[2]
    X = X[["c", "a"]].assign(new=y)
    for model in (meta, again := load(tmp_path / "meta")):
        model.adapt(X, y)
    assert_array_equal(again.predict(X), meta.predict(X))


def test_the_file_holds_numbers_and_names_only(tmp_path):
    meta, *_ = a_fleet(HierarchicalRegressor())
    save(meta, tmp_path / "fleet")
    assert b"sklearn" not in (tmp_path / "fleet").read_bytes()
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        pickle.loads((tmp_path / "fleet").read_bytes())
    with safe_open(tmp_path / "fleet", "np") as file:
        tree = json.loads(file.metadata()["skmeta"])
    assert {o["class"] for o in tree["objects"]} == {
        *("Block", "Design", "HierarchicalRegressor", "Prior"),
        *("Statistics", "TaskStates", "TaskSupport", "TaskTable"),
    }


def test_blocks_and_supports_are_saved_once(tmp_path):
    tasks = make_regression_tasks(200, 10, random_state=0)
    meta = HierarchicalRegressor(covariance="diagonal").fit(tasks)
    save(meta, tmp_path / "fleet")
    n_features = 1 + tasks[0][0].shape[1]
    floats = 200 * (n_features**2 + n_features + 10 * (n_features + 2))
    assert (tmp_path / "fleet").stat().st_size < 8 * floats + 50_000
    again = load(tmp_path / "fleet")
    assert again.states_[0][0].support is again._training


def test_code_is_given_again(tmp_path):
    tasks = make_regression_tasks(10, 10, random_state=0)
    net = NeuralNet(MLP, torch.nn.MSELoss, max_epochs=1, module__hidden=(7,))
    meta = RidgeHeadRegressor(net, random_state=0).fit(tasks)
    save(meta, tmp_path / "meta")
    with pytest.raises(ValueError, match=r"load\(path, estimator=\.\.\.\)"):
        load(tmp_path / "meta")
    again = load(tmp_path / "meta", estimator=net)
    assert_array_equal(again.predict(tasks[0][0]), meta.predict(tasks[0][0]))


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path):
    tasks = make_regression_tasks(10, 10, random_state=0)
    path = tmp_path / "meta"
    save(HierarchicalRegressor().fit(tasks), path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"base_estimator_ holds Ridge\(\)"):
        save(HierarchicalRegressor(Ridge()).fit(tasks), path)
    with pytest.raises(TypeError, match="meta-learner"):
        save(Ridge(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["meta"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tree: tree.update(format=2), "format 2"),
        (lambda tree: tree["objects"][0].update({"class": "Popen"}), "unknown class"),
        (lambda tree: tree.update(root={"call": "os.system"}), "unknown kind"),
    ],
)
def test_a_file_that_asks_for_more_is_refused(change, message, tmp_path):
    meta = HierarchicalRegressor().fit(make_regression_tasks(10, 10, random_state=0))
    save(meta, tmp_path / "meta")
    with safe_open(tmp_path / "meta", "np") as file:
        tree = json.loads(file.metadata()["skmeta"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    change(tree)
    save_file(arrays, tmp_path / "meta", metadata={"skmeta": json.dumps(tree)})
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "meta")


def test_files_of_others(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("text" * 10)
    save_file({"a": np.zeros(2)}, tmp_path / "weights")
    for name in ("text", "weights"):
        with pytest.raises(ValueError, match="not a file that skmeta has saved"):
            load(tmp_path / name)


def test_meta_training_goes_on_after_loading(tmp_path):
    tasks = make_regression_tasks(20, 10, random_state=0)
    meta = HierarchicalRegressor().fit(tasks[:10])
    save(meta, tmp_path / "meta")
    X, y = tasks[0]
    expected = meta.partial_fit(tasks[10:]).predict(X, groups=[3] * len(X))
    again = load(tmp_path / "meta").partial_fit(tasks[10:])
    assert_array_equal(again.predict(X, groups=[3] * len(X)), expected)
