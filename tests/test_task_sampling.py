"""Training tasks chosen by reward."""

import copy
import pickle

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, regression_tasks, tiny
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch.nn import functional as F

from skmeta import (
    MAMLRegressor,
    ProtoNetClassifier,
    RidgeHeadRegressor,
)
from skmeta.persistence import load, save
from skmeta.task_sampling import Exp3Sampler, GradientAlignmentSampler, TaskSampler
from skmeta.tasks._sampler import EpisodeSampler
from skmeta.tasks._table import table_from_codes

SAMPLERS = [Exp3Sampler(), GradientAlignmentSampler()]


def last_third(n_tasks):
    """A split that validates on the last third of the tasks."""
    return ValidSplit(PredefinedSplit(np.arange(n_tasks) // (2 * n_tasks // 3) - 1))


def rewarding(estimator, sampler, n_tasks=12, net=(), **params):
    net = {"train_split": last_third(n_tasks), **dict(net)}
    return tiny(estimator, net=net, task_sampler=sampler, **params)


def ragged(tasks):
    """Tasks of different sizes, so that episodes are padded."""
    return [(X[: 4 + i], y[: 4 + i]) for i, (X, y) in enumerate(tasks)]


# ----------------------------------------------------------------------------- draws
def test_a_task_is_drawn_as_often_as_its_share_says():
    sampler = Exp3Sampler(exploration=0.2).start(range(5))
    sampler.scores_ = np.log([8.0, 4.0, 2.0, 1.0, 1.0])
    shares = 0.8 * np.array([8, 4, 2, 1, 1]) / 16 + 0.2 / 5
    assert_allclose(sampler.probabilities_, shares)
    rng = np.random.default_rng(0)
    counts = np.array(
        [np.bincount(sampler.draw(rng, 7), minlength=5) for _ in range(2000)]
    )
    assert (counts >= np.floor(7 * shares)).all()
    assert (counts <= np.ceil(7 * shares)).all()
    assert_allclose(counts.mean(0), 7 * shares, atol=0.05)


def test_tasks_are_distinct_to_begin_with():
    sampler, rng = GradientAlignmentSampler().start(range(9)), np.random.default_rng(0)
    seen = np.zeros((9, 9))
    for _ in range(300):
        drawn = sampler.draw(rng, 4)
        assert len(set(drawn)) == 4
        seen[np.ix_(drawn, drawn)] += 1
    assert (seen > 0).all()  # whichever two tasks, they meet


def test_episodes_of_given_tasks():
    codes = np.repeat(np.arange(4), [6, 7, 8, 9])
    X = codes[:, None] + np.arange(30)[:, None] / 100
    table = table_from_codes(X, X[:, 0], codes, list("abcd"))
    sampler = EpisodeSampler(table, None, False, 1, 2, 3, "random", True, seed=0)
    chosen = [3, 1, 1]
    support, query = sampler.episodes(7, chosen)
    for t, task in enumerate(chosen):
        rows = torch.cat([support.X[t, :, 0], query.X[t, :, 0]])
        assert (rows.floor() == task).all()
        assert len(rows.unique()) == 5  # no row is support and query
    again, other = sampler.episodes(7, chosen), sampler.episodes(8, chosen)
    assert_array_equal(again[0].X, support.X)
    assert not torch.equal(other[0].X, support.X)


def test_tasks_of_a_source_have_one_score():
    sources = {"a1": "a", "b1": "b", "b2": "b", "unused": "c"}
    sampler = Exp3Sampler(0.5, sources=sources, exploration=0.4).start(
        ["b1", "a1", "b2"]
    )
    assert sampler.sources_ == ["b", "a"]
    sampler.scores_ = np.log([1.0, 2.0])
    assert_allclose(sampler.probabilities_, 0.6 * np.array([1, 2, 1]) / 4 + 0.4 / 3)
    aligned = GradientAlignmentSampler(sources=sources).start(["b1", "a1", "b2"])
    trial = Told(np.array([0, 2, 1]), None, None)
    trial.alignment = lambda: (np.array([0.2, 0.4, -0.1]), 0.4)
    aligned.before_step(trial)
    past = (0.01 * 1.0 + 0.99 * 0.01 * 0.5) / (0.01 + 0.99 * 0.01)
    total = (0.0199 * past - 0.01 * 0.25) / 0.0299
    found = [(0.0199 * past + 0.01 * total) / 0.0299, (-0.0025 + 0.01 * total) / 0.02]
    assert_allclose(aligned.alignment_, found)
    with pytest.raises(ValueError, match="sources of Exp3Sampler has no entry for"):
        clone(sampler).start(["b1", "elsewhere"])


# ---------------------------------------------------------------------- what is seen
class Checks(TaskSampler):
    """Compares what a trial says with a slow reference; nothing is learned."""

    #: Found and expected; of the class, since estimators clone what they are given.
    pairs: list = []

    def before_step(self, trial):
        module = trial._net.module_
        before = copy.deepcopy(module.state_dict())
        found = (trial.validation_loss(), *trial.alignment())
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name])
        support, query = trial._episodes
        own = [reference(module, support.take([t]), query.take([t]))
               for t in range(support.n_tasks)]  # fmt: skip
        half = len(own) // 2
        n_rows = query.weights.sum(1)

        def mean(part):  # the outer loss is that of all query rows
            share = n_rows[part] / n_rows[part].sum()
            loss, gradient = zip(*own[part], strict=True)
            return share @ torch.stack(loss), share @ torch.stack(gradient)

        _, way = mean(slice(half))
        weights = torch.cat([p.detach().flatten() for p in module.parameters()])
        way = 0.001 * weights.norm() * way / way.norm()
        inputs, _ = trial._batch
        falls = []
        for t in range(len(trial.tasks)):
            one = [{k: v[[t]] for k, v in inputs[side].items()} for side in inputs]
            _, gradient = reference_of(module, *one)
            falls.append(way @ gradient)
        _, gradient = mean(slice(half, None))
        total, _ = mean(slice(None))
        expected = (total, torch.stack(falls), way @ gradient)
        self.pairs.append((found, expected))


def reference(module, support, query):
    from skmeta.outer_loop._loader import inputs_of

    inputs, _ = inputs_of(support, query)
    return reference_of(module, inputs["support"], inputs["query"])


def reference_of(module, support, query):
    """Query loss of one episode and its gradient, by way of skorch's module."""
    module.eval()
    output, mask = module(support, query), query.get("mask")
    y = query["y"].flatten() if mask is None else query["y"][mask]
    loss = F.mse_loss(output, y) if output.ndim == 1 else F.cross_entropy(output, y)
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    parts = zip(found, module.parameters(), strict=True)
    gradient = [torch.zeros_like(p) if g is None else g for g, p in parts]
    return loss.detach(), torch.cat([g.flatten() for g in gradient])


@pytest.mark.parametrize(
    "estimator", [MAMLRegressor, RidgeHeadRegressor, ProtoNetClassifier]
)
def test_alignment_is_the_inner_product_of_meta_gradients(estimator):
    tasks = (
        classification_tasks if estimator is ProtoNetClassifier else regression_tasks
    )(12)
    Checks.pairs.clear()
    net = {"module__activation": torch.nn.Tanh}  # differences of relu have kinks
    rewarding(estimator, Checks(), net=net, n_episodes=16).fit(ragged(tasks))
    assert len(Checks.pairs) == 8
    for (loss, falls, own), expected in Checks.pairs:
        assert loss == pytest.approx(expected[0].item(), rel=1e-5)
        scale = expected[1].abs().max().item()
        assert_allclose(falls, expected[1], rtol=0.01, atol=0.01 * scale)
        assert own == pytest.approx(expected[2].item(), rel=0.01, abs=0.01 * scale)


class Told:
    """A trial whose validation loss falls by what its tasks are worth."""

    def __init__(self, tasks, worth, level):
        self.tasks, self.worth, self.level = tasks, worth, level

    def validation_loss(self):
        self.level[0] -= self.worth[self.tasks].mean() if self.level[1] else 0
        self.level[1] = not self.level[1]
        return self.level[0]


def test_exp3_rewards_what_lowers_the_validation_loss():
    worth, level = np.array([0.3, 0.0, 0.0, -0.3]), [0.0, False]
    sampler, rng = Exp3Sampler(1.0).start("abcd"), np.random.default_rng(0)
    for _ in range(150):
        trial = Told(sampler.draw(rng, 2), worth, level)
        sampler.before_step(trial)
        sampler.after_step(trial)
    assert sampler.tasks_ == ["a", "b", "c", "d"]
    assert sampler.probabilities_.argmax() == 0
    assert sampler.probabilities_[0] > 0.8
    assert sampler.scores_.argmin() == 3


def test_the_credit_of_exp3_is_the_same_however_rare_a_task():
    sampler = Exp3Sampler(learning_rate=0.5, exploration=0.5).start("ab")
    sampler.scores_ = np.log([3.0, 1.0])  # shares of 5/8 and 3/8
    sampler._gains = [-1.0, 1.0, -1.0]  # the next gain is large
    before, level = sampler.scores_, iter([2.0, 1.0])
    trial = Told(np.array([0, 1, 1, 1]), None, None)
    trial.validation_loss = lambda: next(level)
    sampler.before_step(trial)
    sampler.after_step(trial)
    credit = np.array([1 / 4 / (2 * 5 / 8), 3 / 4 / (2 * 3 / 8)])
    assert_allclose(sampler.scores_ - before, 0.5 * credit)


def test_alignment_is_averaged_and_shrunk():
    sampler = GradientAlignmentSampler(temperature=0.5, decay=0.8).start("abc")
    assert_array_equal(sampler.probabilities_, np.full(3, 1 / 3))
    told = iter([([0.1, 0.2], 0.2), ([0.4], 0.4), ([0.1], np.nan), ([0.1], -9.0)])
    trial = Told(np.array([0, 1]), None, None)
    trial.alignment = lambda: [np.asarray(x) for x in next(told)]
    sampler.before_step(trial)
    assert_allclose(sampler.alignment_, [(0.1 + 0.15) / 0.4, (0.2 + 0.15) / 0.4, 0.75])
    trial.tasks = np.array([0])
    sampler.before_step(trial)
    yardstick = (0.8 * 0.04 + 0.2 * 0.4) / (0.8 * 0.2 + 0.2)
    relative = 0.4 / yardstick
    sums = np.array([0.8 * 0.1 + 0.2 * relative, 0.2])
    weights = np.array([0.8 * 0.2 + 0.2, 0.2])
    mean = sums.sum() / weights.sum()
    expected = np.append((sums + 0.2 * mean) / (weights + 0.2), mean)
    assert_allclose(sampler.alignment_, expected)
    assert_allclose(sampler.scores_, expected / 0.5)
    for _ in range(2):  # neither NaN nor validation tasks that disagree teach anything
        sampler.before_step(trial)
    assert_allclose(sampler.alignment_, expected)


# ------------------------------------------------------------------------ in training
def test_tasks_that_help_are_drawn_more_often():
    """Half of the training tasks have the slopes of the validation tasks, reversed."""
    rng = np.random.default_rng(0)
    tasks = []
    for sign in np.r_[np.ones(6), -np.ones(6), np.ones(6)]:
        X = rng.normal(size=(20, 2))
        tasks.append((X, sign * X.sum(1) + 0.1 * rng.normal(size=20)))
    meta = rewarding(
        MAMLRegressor,
        GradientAlignmentSampler(),
        18,
        net={"max_epochs": 10},
        n_episodes=24,
    ).fit(tasks)
    assert meta.task_sampler_.tasks_ == [*range(12)]
    helpful, hurtful = np.split(meta.task_sampler_.alignment_, 2)
    assert helpful.mean() > hurtful.mean() + 0.3
    assert meta.task_sampler_.probabilities_[:6].sum() > 0.7


def weights(meta):
    return np.concatenate([p.numpy().ravel() for p in meta.learner_.parameters()])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_a_seed_says_everything(sampler):
    tasks = ragged(regression_tasks(12))
    before = torch.random.get_rng_state()
    meta = rewarding(MAMLRegressor, sampler).fit(tasks)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not hasattr(sampler, "scores_")
    again = clone(meta).fit(tasks)
    assert_array_equal(weights(again), weights(meta))
    assert_array_equal(again.task_sampler_.scores_, meta.task_sampler_.scores_)
    assert np.ptp(meta.task_sampler_.scores_) > 0
    uniform = clone(meta).set_params(task_sampler=None).fit(tasks)
    assert uniform.task_sampler_ is None
    assert not np.array_equal(weights(uniform), weights(meta))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_training_goes_on_after_pickling(sampler):
    tasks = regression_tasks(12)
    stop = EarlyStopping(patience=1)
    meta = rewarding(MAMLRegressor, sampler, net={"callbacks": [stop]}).fit(tasks)
    loaded = pickle.loads(pickle.dumps(meta))
    assert_array_equal(loaded.task_sampler_.scores_, meta.task_sampler_.scores_)
    n_epochs = len(meta.history_)
    meta.partial_fit(tasks)
    assert len(meta.history_) > n_epochs
    assert meta.task_sampler_ is not loaded.task_sampler_
    assert meta.net_.callbacks_[-1][0] != "task_sampler"
    loaded.partial_fit(tasks)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_a_file_without_code_keeps_what_was_learned(sampler, tmp_path):
    sampler = clone(sampler).set_params(sources={i: i % 2 for i in range(8)})
    meta = rewarding(RidgeHeadRegressor, sampler).fit(regression_tasks(12))
    save(meta, tmp_path / "meta.skmeta")
    again = load(tmp_path / "meta.skmeta", estimator=meta.estimator)
    assert again.task_sampler.sources == sampler.sources
    found, expected = again.task_sampler_, meta.task_sampler_
    assert found.sources_ == [0, 1]
    assert_array_equal(found.probabilities_, expected.probabilities_)


def test_a_search_reaches_the_parameters():
    search = GridSearchCV(
        rewarding(RidgeHeadRegressor, GradientAlignmentSampler(), n_episodes=4),
        {"task_sampler__temperature": [0.1, 1.0]},
        cv=[(np.arange(12), np.arange(4))],
    ).fit(regression_tasks(12))
    best = search.best_estimator_.task_sampler_
    assert best.temperature == search.best_params_["task_sampler__temperature"]


def test_all_tasks_in_every_step():
    meta = rewarding(MAMLRegressor, Checks(), net={"batch_size": -1})
    Checks.pairs.clear()
    meta.fit(regression_tasks(12))
    assert {len(falls) for (_, falls, _), _ in Checks.pairs} == {8}


# ----------------------------------------------------------------------------- errors
def test_without_validation_tasks_there_is_nothing_to_learn_from():
    meta = tiny(MAMLRegressor, task_sampler=Exp3Sampler())
    with pytest.raises(ValueError, match=r"validation tasks, .*train_split=.*ValidSpl"):
        meta.fit(regression_tasks())


def test_one_pool_has_no_tasks_to_choose_from():
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 8
    meta = tiny(ProtoNetClassifier, n_ways=3, task_sampler=Exp3Sampler())
    with pytest.raises(ValueError, match="task_sampler chooses between tasks"):
        meta.fit(X, y)


@pytest.mark.parametrize(
    "sampler",
    [
        Exp3Sampler(learning_rate=0),
        Exp3Sampler(exploration=1.5),
        GradientAlignmentSampler(temperature="low"),
        GradientAlignmentSampler(decay=-0.1),
    ],
)
def test_parameters_out_of_range(sampler):
    with pytest.raises(ValueError, match=f"parameter of {type(sampler).__name__} must"):
        rewarding(MAMLRegressor, sampler).fit(regression_tasks(12))
