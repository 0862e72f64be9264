"""`adapt_steps="auto"`: as many steps as worked with as many rows."""

import copy
import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, regression_tasks, tiny
from numpy.testing import assert_allclose, assert_array_equal
from skorch.dataset import ValidSplit
from torch.nn import functional as F

from skmeta import (
    CAVIARegressor,
    ImplicitMAMLRegressor,
    MAMLClassifier,
    MAMLRegressor,
    ReptileClassifier,
    freeze,
)
from skmeta.gradient import _steps
from skmeta.gradient._steps import nearest_steps

LEARNERS = {
    "maml": (MAMLRegressor, {}),
    "learned rates": (MAMLRegressor, {"inner_lr": "per_layer"}),
    "implicit": (ImplicitMAMLRegressor, {"inner_steps": 3}),
    "cavia": (CAVIARegressor, {}),
    "shared classes": (MAMLClassifier, {"label_space": "shared"}),
    "own classes": (ReptileClassifier, {"label_space": "per_task"}),
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few steps, episodes and shots are enough to compare with a loop."""
    monkeypatch.setattr(_steps, "_MOST_STEPS", 8)
    monkeypatch.setattr(_steps, "_SHOTS", (1, 3, 20))
    monkeypatch.setattr(_steps, "_N_BATCHES", 2)
    monkeypatch.setattr(_steps, "_N_TASKS", 5)


def auto(estimator, n_rows=12, **params):
    is_classifier = "n_ways" in estimator().get_params()
    tasks = (classification_tasks if is_classifier else regression_tasks)(10, n_rows)
    return tiny(estimator, adapt_steps="auto", **params), tasks


def loss_after(learner, episodes, n_steps):
    """Query loss of each episode, adapted from the start for so many steps."""
    learner = copy.copy(learner)
    learner.adapt_steps = n_steps
    found = []
    for support, query in episodes:
        output = learner.predict(learner.adapt(support), query)
        for t in range(query.n_tasks):
            rows = slice(None) if query.mask is None else query.mask[t]
            loss = F.mse_loss if query.n_classes is None else F.cross_entropy
            found.append(loss(output[t, rows], query.y[t, rows]).item())
    return np.array(found)


@pytest.mark.parametrize("name", LEARNERS)
def test_steps_are_those_that_a_loop_finds(name, monkeypatch):
    estimator, params = LEARNERS[name]
    told = {}

    def spy(learner, sampler, units, place):
        told.update(sampler=sampler, units=units, place=place)
        return _steps.best_steps(learner, sampler, units, place)

    monkeypatch.setattr("skmeta.gradient._inner.best_steps", spy)
    meta, tasks = auto(estimator, **params)
    meta.fit(tasks)
    usual, expected = meta.inner_steps, []
    for n_shots in (1, 3):
        sampler = copy.copy(told["sampler"])
        sampler.n_shots = n_shots
        drawn = islice(sampler.stream(_steps._KEY, told["units"], 5), 2)
        episodes = [tuple(map(told["place"], episode)) for episode in drawn]
        most = max(2 * usual, 8)
        losses = [loss_after(meta.learner_, episodes, n) for n in range(most + 1)]
        best = int(np.argmin([loss.mean() for loss in losses]))
        gain = losses[usual] - losses[best]
        if gain.mean() <= 2 * gain.std(ddof=1) / 10**0.5:
            best = usual
        expected.append(best)
    assert list(meta.adapt_steps_.values()) == expected
    assert_allclose(list(meta.adapt_steps_), [1, 3])  # no task has 20 rows and a query


def test_every_task_takes_the_steps_of_its_own_number_of_rows():
    meta, tasks = auto(MAMLRegressor)
    meta.fit(tasks)
    meta.adapt_steps_ = {1.0: 0, 3.0: 5, 9.0: 2}
    sizes = [1, 2, 4, 5, 6, 12]
    nearest = [0, 5, 5, 5, 2, 2]  # as ratios, 2 is nearer to 3 than to 1
    assert_array_equal(nearest_steps(meta.adapt_steps_, np.array(sizes)), nearest)
    X = np.concatenate([tasks[i][0][:n] for i, n in enumerate(sizes)])
    y = np.concatenate([tasks[i][1][:n] for i, n in enumerate(sizes)])
    meta.adapt(X, y, groups=np.repeat(np.arange(6), sizes))
    query = tasks[9][0]
    for task, steps in enumerate(nearest):
        alone = copy.copy(meta).set_params(adapt_steps=steps)
        alone.adapt(tasks[task][0][: sizes[task]], tasks[task][1][: sizes[task]])
        found = meta.predict(query, groups=np.full(12, task))
        assert_allclose(found, alone.predict(query), atol=1e-10)


def test_rows_count_per_class():
    meta, tasks = auto(MAMLClassifier, label_space="per_task")
    meta.fit(tasks)
    meta.adapt_steps_ = {1.0: 0, 4.0: 3}
    X = np.concatenate([X for X, _ in tasks])[:8]
    eight_classes, two_classes = np.arange(8), np.arange(8) % 2
    for y, steps in ((eight_classes, 0), (two_classes, 3)):
        found = copy.copy(meta).adapt(X, y).predict_proba(X)
        given = copy.copy(meta).set_params(adapt_steps=steps).adapt(X, y)
        assert_allclose(found, given.predict_proba(X), atol=1e-12)


def test_other_steps_than_in_training_are_taken_for_gains_beyond_chance(monkeypatch):
    def curve(best, gain, noise):
        """Losses of which those after `best` steps are lower than after others."""
        losses = np.full((16, 9), 10.0)
        losses[:, best] += noise * (-1.0) ** np.arange(16) - gain
        losses[3, 7] = 1e30  # one episode diverges
        return losses

    meta, tasks = auto(MAMLRegressor)
    for best, gain, noise, expected in (
        (0, 1.0, 0.1, 0),
        (8, 1.0, 0.1, 8),
        (0, 0.1, 1.0, meta.inner_steps),
        (7, 9.0, 0.0, meta.inner_steps),
        (5, -1e9, 0.0, 0),  # all of them, with as many steps as in training
    ):
        losses = curve(best, gain, noise)
        monkeypatch.setattr(_steps, "_curve", lambda *_, found=losses: found)
        meta.fit(tasks)
        assert set(meta.adapt_steps_.values()) == {expected}
    monkeypatch.setattr(_steps, "_curve", lambda *_: curve(0, 1.0, 0.1))
    X, y = tasks[0]
    before = freeze(meta.fit(tasks), adapt_steps=0).fit(X, y).predict(X)
    assert_allclose(meta.adapt(X, y).predict(X), before)


def test_validation_tasks_decide_where_there_are_some(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "skmeta.gradient._inner.best_steps",
        lambda learner, sampler, units, place: seen.append(units) or {1.0: 2},
    )
    meta, tasks = auto(MAMLRegressor)
    meta.fit(tasks)
    meta.set_params(estimator__train_split=ValidSplit(5)).fit(tasks)
    assert_array_equal(seen[0], np.arange(10))
    assert_array_equal(seen[1], np.arange(2))
    meta.partial_fit(tasks)
    assert len(seen) == 3


def test_a_table_is_kept_and_can_be_set_aside():
    meta, tasks = auto(MAMLRegressor)
    meta.fit(tasks)
    X, y = tasks[0]
    loaded = pickle.loads(pickle.dumps(meta))
    assert loaded.adapt_steps_ == meta.adapt_steps_
    assert_allclose(loaded.adapt(X, y).predict(X), meta.adapt(X, y).predict(X))
    plain, _ = auto(MAMLRegressor)
    plain.set_params(adapt_steps=None).fit(tasks)
    assert plain.adapt_steps_ is None
    assert torch.equal(plain.learner_.head.weight, meta.learner_.head.weight)
    assert_allclose(
        plain.adapt(X, y).predict(X),
        meta.set_params(adapt_steps=None).adapt(X, y).predict(X),
    )
    with pytest.raises(ValueError, match="adapt_steps='auto' is learned in fit"):
        plain.set_params(adapt_steps="auto").adapt(X, y)


@pytest.mark.filterwarnings("ignore:fit saw a single task")
def test_a_single_task_is_trained_to_the_end():
    meta, tasks = auto(MAMLRegressor)
    X, y = tasks[0]
    meta.fit(X, y)
    assert meta.adapt_steps_ is None
    expected = freeze(meta, adapt_steps=100).fit(X, y).predict(X)
    assert_allclose(meta.adapt(X, y).predict(X), expected)
