"""The outer loop is skorch's: nets, callbacks, losses; and the losses are right."""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, long_format, regression_tasks, tiny, tiny_net
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from sklearn.linear_model import Ridge
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LoadInitState,
    LRScheduler,
)
from skorch.dataset import ValidSplit
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from skmeta import (
    DivergenceError,
    DivergenceWarning,
    MAMLClassifier,
    MAMLRegressor,
    ProtoNetClassifier,
    ReptileClassifier,
    ReptileRegressor,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
    SingleTaskWarning,
)
from skmeta.closed_form import RidgeHead
from skmeta.gradient import MAML
from skmeta.metric import ProtoNet
from skmeta.modules import MLP, Conv4
from skmeta.outer_loop import Episode
from skmeta.outer_loop._episode import as_inputs
from skmeta.tasks import TaskBatch

NEURAL = [
    ProtoNetClassifier,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
    MAMLClassifier,
    MAMLRegressor,
    ReptileClassifier,
    ReptileRegressor,
]


def tasks_for(estimator, **params):
    is_classifier = "n_ways" in estimator().get_params()
    return (classification_tasks if is_classifier else regression_tasks)(**params)


class Recorder:
    """An augmentation that changes nothing and keeps the training episodes."""

    def __init__(self):
        self.batches = []

    def __call__(self, support, query):
        self.batches.append((support, query))
        return support, query

    def __deepcopy__(self, memo):
        return self


def one_step(estimator, *, tasks=None, net=(), **params):
    """Fit for a single outer step; also the weights before it and its episode."""
    recorder = Recorder()
    net = {"max_epochs": 1, "batch_size": 4, "optimizer": torch.optim.SGD, **dict(net)}
    params = {"n_episodes": 4, "augment": recorder, **params}
    meta = tiny(estimator, net=net, **params)
    tasks = tasks_for(estimator) if tasks is None else tasks
    still = clone(meta).set_params(estimator__lr=0.0).fit(tasks)
    recorder.batches.clear()
    meta.fit(tasks)
    (episode,) = recorder.batches
    return meta, still.net_.module_, episode


# --------------------------------------------------------------- forms of estimator
def test_no_estimator_builds_a_backbone_of_the_right_size():
    X, y = np.random.default_rng(0).normal(size=(40, 7)), np.arange(40) % 4
    table = ProtoNetClassifier(n_ways=2, n_episodes=4, random_state=0).fit(X, y)
    assert isinstance(table.learner_.backbone, MLP)
    assert table.learner_.backbone[1].in_features == 7
    images = ProtoNetClassifier(
        n_ways=2, n_shots=1, n_queries=1, n_episodes=1, random_state=0
    ).fit(np.repeat(X[:, :1], 100, axis=1).reshape(40, 10, 10), y)
    assert isinstance(images.learner_.backbone, Conv4)
    assert images.net_.get_params()["max_epochs"] == 20
    assert len(images.history_) == 20


def test_module_class_gets_the_default_net():
    class Backbone(nn.Module):
        def __init__(self, width=6):
            super().__init__()
            self.layer = nn.Linear(3, width)

        def forward(self, X):
            return self.layer(X)

    meta = ProtoNetClassifier(Backbone, n_episodes=1, random_state=0)
    meta.fit(classification_tasks())
    assert isinstance(meta.learner_.backbone, Backbone)
    assert type(meta.net_) is NeuralNet
    assert type(meta.net_.optimizer_) is torch.optim.Adam
    assert meta.net_.optimizer_.param_groups[0]["lr"] == 1e-3


def test_module_instance_is_copied_and_its_weights_are_the_start():
    mine = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
    before = copy.deepcopy(mine.state_dict())
    meta = ProtoNetClassifier(mine, n_episodes=4, random_state=0)
    meta.fit(classification_tasks())
    after = mine.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(meta.net_.module_.learner.backbone[0].weight, mine[0].weight)
    still = tiny(ProtoNetClassifier, mine, net={"lr": 0.0}).fit(classification_tasks())
    assert torch.equal(still.net_.module_.learner.backbone[0].weight, mine[0].weight)


def test_net_is_held_and_never_touched():
    net = tiny_net()
    meta = ProtoNetClassifier(net, n_episodes=4, random_state=0)
    meta.fit(classification_tasks())
    assert meta.estimator is net and meta.net_ is not net
    assert not net.initialized_ and net.module is MLP
    assert net.iterator_train is not meta.net_.iterator_train


@pytest.mark.parametrize("n_ways", [2, (2, 3)])
@pytest.mark.parametrize("label_space", ["shared", "per_task"])
def test_neural_net_classifier_as_it_comes(label_space, n_ways):
    """NLLLoss, a stratified split and an accuracy for every epoch are its defaults."""
    net = NeuralNetClassifier(
        MLP, module__hidden=(8,), max_epochs=4, batch_size=8, lr=0.05, verbose=0
    )
    tasks = classification_tasks(n_tasks=16)
    tasks[::2] = [(X, (X[:, 0] > 0) + (X[:, 0] > 0.5)) for X, _ in tasks[::2]]
    meta = ProtoNetClassifier(
        net, n_ways=n_ways, n_episodes=32, label_space=label_space, random_state=0
    ).fit(tasks)
    assert type(meta.net_) is NeuralNetClassifier
    assert isinstance(meta.net_.criterion_, nn.CrossEntropyLoss)
    accuracies = np.array(meta.history_[:, "valid_acc"])
    assert ((accuracies >= 0) & (accuracies <= 1)).all()
    assert np.isfinite(meta.history_[:, "valid_loss"]).all()
    assert meta.history_[-1, "train_loss"] < meta.history_[0, "train_loss"]


def test_neural_net_regressor_as_it_comes():
    net = NeuralNetRegressor(
        MLP, module__hidden=(8,), max_epochs=8, batch_size=4, lr=0.05, verbose=0
    )
    tasks = regression_tasks(n_tasks=16)
    meta = RidgeHeadRegressor(net, n_episodes=32, random_state=0).fit(tasks)
    assert type(meta.net_) is NeuralNetRegressor
    assert meta.history_[-1, "valid_loss"] < meta.history_[0, "valid_loss"]
    assert meta.score(regression_tasks(seed=1)) > 0.5


@pytest.mark.parametrize("wrong", [3, "mlp", object(), Ridge(), lambda: None])
def test_other_estimators_are_refused(wrong):
    with pytest.raises(TypeError, match=r"nn.Module .* or a skorch NeuralNet"):
        ProtoNetClassifier(wrong).fit(classification_tasks())


def test_module_parameters_reach_the_backbone():
    net = tiny_net(module__hidden=(5, 4), module__activation=nn.Tanh)
    meta = RidgeHeadRegressor(net, n_episodes=4, random_state=0)
    meta.set_params(estimator__module__dropout=0.5).fit(regression_tasks())
    layers = [type(layer).__name__ for layer in meta.learner_.backbone]
    assert layers == ["Flatten"] + ["Linear", "Tanh", "Dropout"] * 2
    assert meta.learner_.prior.shape == (4 + 1, 1)
    with pytest.raises(ValueError, match="breadth"):
        meta.set_params(estimator__breadth=3)


# -------------------------------------------------------------------- outer training
@pytest.mark.parametrize("batch_size, n_steps", [(1, 12), (5, 3), (-1, 2)])
def test_batch_size_counts_tasks(batch_size, n_steps):
    recorder = Recorder()
    net = {"batch_size": batch_size, "max_epochs": 1}
    meta = tiny(ProtoNetClassifier, net=net, n_episodes=12, augment=recorder)
    if batch_size == -1:
        meta.set_params(n_episodes=16)
    meta.fit(classification_tasks(n_tasks=8))
    n_tasks = 8 if batch_size == -1 else batch_size
    assert [s.n_tasks for s, _ in recorder.batches] == [n_tasks] * n_steps
    assert len(meta.history_[0, "batches"]) == n_steps
    assert meta.history_[0, "batches", 0, "train_batch_size"] == n_tasks


def test_sgd_step_follows_the_loss_of_snell():
    """One outer step is -lr times the gradient of the loss of the 2017 paper."""
    meta, before, (support, query) = one_step(
        ProtoNetClassifier, net={"lr": 0.1}, label_space="per_task", n_ways=2
    )
    linear = before.learner.backbone[1]
    weight, bias = (p.detach().double().requires_grad_() for p in linear.parameters())

    def embed(X):
        return torch.relu(X.double() @ weight.T + bias)

    losses = []
    for t in range(4):
        rows, y = embed(support.X[t]), support.y[t]
        centers = torch.stack([rows[y == k].mean(dim=0) for k in range(2)])
        for x, k in zip(embed(query.X[t]), query.y[t], strict=True):
            distances = ((x - centers) ** 2).sum(dim=1)
            losses.append(distances[k] + torch.logsumexp(-distances, dim=0))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert meta.history_[0, "train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    moved = meta.net_.module_.learner.backbone[1].weight.detach() - linear.weight
    np.testing.assert_allclose(moved.detach(), -0.1 * weight.grad, rtol=1e-3, atol=1e-6)


CRITERIA = {
    "smoothing": (
        ProtoNetClassifier,
        nn.CrossEntropyLoss,
        {"criterion__label_smoothing": 0.2},
        lambda out, y: F.cross_entropy(out, y, label_smoothing=0.2),
    ),
    "class weights": (
        ProtoNetClassifier,
        nn.CrossEntropyLoss,
        {"criterion__weight": torch.tensor([0.5, 4.0])},
        lambda out, y: F.cross_entropy(out, y, weight=torch.tensor([0.5, 4.0])),
    ),
    "huber": (
        RidgeHeadRegressor,
        nn.HuberLoss,
        {"criterion__delta": 0.3},
        lambda out, y: F.huber_loss(out, y, delta=0.3),
    ),
    "l1": (MAMLRegressor, nn.L1Loss, {}, F.l1_loss),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion_is_the_users(name):
    estimator, criterion, params, loss = CRITERIA[name]
    meta, before, (support, query) = one_step(
        estimator, criterion=criterion, net={"lr": 0.1, **params}
    )
    before.learner.train()
    output = before.learner.episode(support, query).flatten(0, 1)
    expected = loss(output, query.y.flatten())
    assert meta.history_[0, "train_loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("estimator", [ProtoNetClassifier, RidgeHeadClassifier])
def test_label_smoothing_with_ragged_ways(estimator):
    """A class that a task does not have costs no infinite loss."""
    tasks = classification_tasks(n_tasks=6) + [
        (X, np.arange(len(X)) % 4) for X, _ in classification_tasks(n_tasks=6, seed=1)
    ]
    net = {"criterion__label_smoothing": 0.1, "train_split": ValidSplit(3)}
    meta = tiny(estimator, net=net, n_ways=(2, 4), label_space="per_task").fit(tasks)
    losses = meta.history_[:, ("train_loss", "valid_loss")]
    assert np.isfinite(losses).all() and np.max(losses) < 20
    assert meta.n_diverged_ == 0
    weights = [p.detach().numpy() for p in meta.learner_.parameters()]
    assert all(np.isfinite(w).all() for w in weights)


def test_optimizers_take_their_parameters():
    tasks = classification_tasks()
    nadam = tiny(ProtoNetClassifier, net={"optimizer": torch.optim.NAdam}).fit(tasks)
    assert type(nadam.net_.optimizer_) is torch.optim.NAdam
    net = {
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__nesterov": True,
        "optimizer__param_groups": [("*log_strength*", {"lr": 0.0})],
    }
    meta = tiny(ProtoNetClassifier, net=net).fit(tasks)
    groups = meta.net_.optimizer_.param_groups
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in groups)
    assert meta.learner_.log_strength == 0
    still = tiny(ProtoNetClassifier, net={"lr": 0.0}).fit(tasks)
    assert not torch.equal(meta.learner_.prior, still.learner_.prior)


class SeesTasks(nn.Module):
    """The first feature is the number of the task; keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.seen = {True: set(), False: set()}

    def forward(self, X):
        if X.dtype == torch.float32:  # training and validation, not prediction
            self.seen[self.training] |= set(X[:, 0].tolist())
        return self.layer(X / 100)


def test_validation_holds_out_whole_tasks():
    tasks = [
        (np.c_[np.full(12, t), X[:, 1:]], y)
        for t, (X, y) in enumerate(classification_tasks(n_tasks=20))
    ]
    net = {"train_split": ValidSplit(5), "max_epochs": 3}
    meta = tiny(ProtoNetClassifier, SeesTasks, net=net, n_episodes=40).fit(tasks)
    seen = meta.net_.module_.learner.backbone.seen
    # A first forward pass in evaluation mode sizes the learner, on the first rows.
    valid = seen[False] - {0.0}
    assert len(valid) in (3, 4) and not valid & seen[True]
    assert valid | seen[True] | {0.0} == set(map(float, range(20)))


def test_early_stopping():
    net = {
        "lr": 0.0,
        "max_epochs": 9,
        "train_split": ValidSplit(5),
        "callbacks": [EarlyStopping(patience=3)],
    }
    meta = tiny(ProtoNetClassifier, net=net).fit(classification_tasks(n_tasks=20))
    # Validation episodes are the same in every epoch, so the loss stands still.
    assert len(set(meta.history_[:, "valid_loss"])) == 1
    assert len(meta.history_) == 1 + 3


def test_checkpoint_goes_back_to_the_best_epoch(tmp_path):
    tasks = classification_tasks(n_tasks=20)
    net = {
        "optimizer": torch.optim.SGD,
        "lr": 3.0,
        "max_epochs": 6,
        "train_split": ValidSplit(5),
        "callbacks": [Checkpoint(dirname=tmp_path, load_best=True)],
    }
    meta = tiny(ProtoNetClassifier, net=net).fit(tasks)
    best = len(meta.history_)  # load_best rewinds the history as well
    assert best < 6 and meta.history_[-1, "valid_loss_best"]
    net = {**net, "callbacks": None, "max_epochs": best}
    short = tiny(ProtoNetClassifier, net=net).fit(tasks)
    X, _, groups = long_format(tasks)
    np.testing.assert_array_equal(
        meta.predict_proba(X, groups=groups), short.predict_proba(X, groups=groups)
    )


def test_learning_rate_schedule():
    schedule = LRScheduler("CosineAnnealingLR", T_max=4)
    net = {"lr": 0.1, "max_epochs": 4, "callbacks": [schedule]}
    meta = tiny(ProtoNetClassifier, net=net).fit(classification_tasks())
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose(meta.history_[:, "event_lr"], expected)


def test_gradient_clipping():
    clip = GradientNormClipping(1e-3)
    meta, before, _ = one_step(MAMLRegressor, net={"lr": 1.0, "callbacks": [clip]})
    after = dict(meta.net_.module_.named_parameters())
    step = [(after[k] - p).detach().flatten() for k, p in before.named_parameters()]
    assert torch.cat(step).norm() == pytest.approx(1e-3, rel=1e-2)


def test_scores_of_an_epoch():
    """Any metric of validation episodes; predictions are reused, not made again."""

    def accuracy(net, dataset, y):
        return float((net.predict_proba(dataset).argmax(axis=1) == y).mean())

    scoring = EpochScoring(accuracy, name="acc", lower_is_better=False)
    net = {"train_split": ValidSplit(4), "callbacks": [scoring], "max_epochs": 3}
    meta = tiny(ProtoNetClassifier, net=net).fit(classification_tasks(n_tasks=16))
    assert all(0 < acc <= 1 for acc in meta.history_[:, "acc"])


def test_history_and_partial_fit_go_on():
    tasks = classification_tasks(n_tasks=16)
    meta = tiny(ProtoNetClassifier).fit(tasks[:8])
    first = meta.history_[0, "train_loss"]
    meta.partial_fit(tasks[8:])
    assert meta.history_[:, "epoch"] == [1, 2, 3, 4]
    assert meta.history_[0, "train_loss"] == first
    assert all(seconds > 0 for seconds in meta.history_[:, "dur"])


def test_save_and_load(tmp_path):
    tasks = classification_tasks()
    X, _, groups = long_format(tasks)
    meta = tiny(ProtoNetClassifier).fit(tasks)
    files = {"f_params": tmp_path / "w.pt", "f_history": tmp_path / "h.json"}
    meta.net_.save_params(**files)
    other = tiny(ProtoNetClassifier, random_state=7, net={"lr": 0.0}).fit(tasks)
    other.net_.load_params(**files)
    assert other.history_[:, "train_loss"] == meta.history_[:, "train_loss"]
    # Predictions come from a frozen copy, which the next (idle) training renews.
    other.partial_fit(tasks[:1])
    np.testing.assert_array_equal(
        other.predict_proba(X[groups > 0], groups=groups[groups > 0]),
        meta.predict_proba(X[groups > 0], groups=groups[groups > 0]),
    )


def test_training_starts_from_a_checkpoint(tmp_path):
    tasks = classification_tasks()
    X, _, groups = long_format(tasks)
    checkpoint = Checkpoint(dirname=tmp_path, monitor=None, f_optimizer=None)
    meta = tiny(ProtoNetClassifier, net={"callbacks": [checkpoint]}).fit(tasks)
    net = {"callbacks": [LoadInitState(checkpoint)], "max_epochs": 1, "lr": 0.0}
    other = tiny(ProtoNetClassifier, net=net, random_state=5).fit(tasks)
    np.testing.assert_array_equal(
        other.predict_proba(X, groups=groups), meta.predict_proba(X, groups=groups)
    )
    assert len(other.history_) == len(meta.history_) + 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("estimator", [ProtoNetClassifier, MAMLRegressor])
def test_compile(estimator):
    tasks = tasks_for(estimator)
    X, _, groups = long_format(tasks)
    plain = tiny(estimator).fit(tasks)
    compiled = tiny(estimator, net={"compile": True}).fit(tasks)
    np.testing.assert_allclose(
        compiled.history_[:, "train_loss"], plain.history_[:, "train_loss"], rtol=1e-4
    )
    values = compiled.predict(X, groups=groups)
    assert np.isfinite(values.astype(float)).all()


# --------------------------------------------------------------------------- backbones
class Bag(nn.Module):
    """Embeds sequences of token ids."""

    def __init__(self, n_tokens=30, width=8):
        super().__init__()
        self.tokens = nn.EmbeddingBag(n_tokens, width)
        self.layer = nn.Linear(width, 6)

    def forward(self, X):
        assert X.dtype == torch.int64
        return self.layer(self.tokens(X))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 5, batch_first=True)

    def forward(self, X):
        return self.gru(X)[1][-1]


def sequences(n_tasks=8, seed=0):
    """Class 1 has many tokens below 5."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        X, y = rng.integers(5, 30, size=(12, 6)), np.arange(12) % 2
        X[y == 1, :4] = rng.integers(0, 5, size=(6, 4))
        tasks.append((X, y))
    return tasks


@pytest.mark.parametrize("label_space", ["shared", "per_task"])
@pytest.mark.parametrize(
    "estimator", [ProtoNetClassifier, RidgeHeadClassifier, ReptileClassifier]
)
def test_token_ids_stay_integers(estimator, label_space):
    net = {"lr": 0.05, "max_epochs": 5}
    meta = tiny(estimator, Bag, net=net, label_space=label_space).fit(sequences())
    X, y = sequences(1, seed=1)[0]
    adapted = copy.copy(meta).adapt(X[:6], y[:6])
    np.testing.assert_array_equal(adapted.predict(X[6:]), y[6:])
    if label_space == "shared":  # the prior has no rows, of integers too
        proba = meta.predict_proba(X, groups=["new"] * len(X))
        assert np.isfinite(proba).all()


@pytest.mark.parametrize("estimator", NEURAL)
def test_recurrent_backbone(estimator):
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(8):
        X = rng.normal(size=(10, 4, 2))
        total = X[:, :, 0].sum(axis=1)
        is_classifier = "n_ways" in estimator().get_params()
        tasks.append((X, total > np.median(total) if is_classifier else total))
    meta = tiny(estimator, Recurrent, n_episodes=4).fit(tasks[:-1])
    assert np.isfinite(meta.history_[:, "train_loss"]).all()
    X, y = tasks[-1]
    together = meta.adapt(X[:6], y[:6]).predict(X[6:])
    alone = np.concatenate([meta.predict(X[i : i + 1]) for i in range(6, 10)])
    if together.dtype.kind == "f":
        np.testing.assert_allclose(together, alone, rtol=1e-8)
    else:
        np.testing.assert_array_equal(together, alone)


# -------------------------------------------------------------------------- divergence
class Fragile(nn.Module):
    """NaN for rows that are too large."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, X):
        return self.layer(torch.where(X.abs() > 100, torch.nan, X))


def with_bad_task(estimator, bad=3):
    tasks = tasks_for(estimator)
    tasks[bad] = (np.full_like(tasks[bad][0], 1000.0), tasks[bad][1])
    return tasks


@pytest.mark.parametrize("estimator", NEURAL)
def test_a_task_that_diverges_kills_neither_fit_nor_other_tasks(estimator):
    tasks = with_bad_task(estimator)
    X, _, groups = long_format(tasks)
    meta = tiny(estimator, Fragile)
    with pytest.warns(DivergenceWarning, match="diverged and were left out") as caught:
        meta.fit(tasks)
    assert [w.filename for w in caught] == [__file__]
    # 2 epochs of 8 episodes over 8 tasks, 2 steps of 4: each task once or twice.
    assert 1 <= meta.n_diverged_ <= 4
    assert np.isfinite(meta.history_[:, "train_loss"]).all()
    for parameter in meta.learner_.parameters():
        assert parameter.isfinite().all()
    good = groups != 3
    values = meta.predict(X[good], groups=groups[good]).astype(float)
    assert np.isfinite(values).all()
    if hasattr(meta.learner_, "noise"):
        assert meta.learner_.noise.isfinite()
    with pytest.raises(DivergenceError, match="task 3 diverged"):
        meta.predict(X, groups=groups)
    before = meta.states_
    with pytest.raises(DivergenceError, match="Lower inner_lr or adapt_steps"):
        meta.adapt(*tasks[3])
    assert meta.states_ is before


def test_divergence_is_counted_per_fit_and_only_in_training():
    tasks = with_bad_task(ProtoNetClassifier)
    meta = tiny(ProtoNetClassifier, Fragile, net={"train_split": ValidSplit(4)})
    with pytest.warns(DivergenceWarning):
        meta.fit(tasks)
    count = meta.n_diverged_
    meta.partial_fit([tasks[0], tasks[1]])
    assert count > 0 and meta.n_diverged_ == 0


@pytest.mark.parametrize("ragged", [False, True])
def test_gradient_is_that_of_the_tasks_that_did_not_diverge(ragged):
    torch.manual_seed(0)
    learner = ProtoNet(Fragile(), 4).double()
    support, query = random_batches(n_tasks=4, ragged=ragged)
    bad = replace(support, X=support.X.clone())
    bad.X[1] = 1000
    episode = Episode(learner)
    output = episode(as_inputs(bad), as_inputs(query))
    F.cross_entropy(output, real(query)).backward()
    assert episode.n_diverged == 1
    kept = torch.tensor([0, 2, 3])
    expected = Episode(copy.deepcopy(learner))
    expected.zero_grad()
    output = expected(as_inputs(support.take(kept)), as_inputs(query.take(kept)))
    F.cross_entropy(output, real(query.take(kept))).backward()
    for mine, other in zip(learner.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-14)


def test_all_tasks_may_diverge():
    tasks = [(np.full_like(X, 1000.0), y) for X, y in classification_tasks()]
    with pytest.warns(DivergenceWarning):
        meta = tiny(ProtoNetClassifier, Fragile).fit(tasks)
    assert meta.n_diverged_ == 16
    assert all(p.isfinite().all() for p in meta.learner_.parameters())


def test_steps_that_are_too_long_are_an_error_that_says_so():
    tasks = regression_tasks()
    meta = tiny(MAMLRegressor, inner_lr=0.01).fit(tasks)
    meta.set_params(adapt_steps=300)
    meta.learner_._fixed_rates = 1e6
    with pytest.raises(DivergenceError, match="Lower inner_lr or adapt_steps"):
        meta.adapt(*tasks[0])


# -------------------------------------------------------------------------- chunk size
@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("estimator", NEURAL)
def test_chunks_train_the_same_weights(estimator, chunk_size):
    tasks = tasks_for(estimator)
    net = {"optimizer": torch.optim.SGD, "lr": 0.1, "batch_size": 8}
    whole = tiny(estimator, net=net).fit(tasks)
    chunked = tiny(estimator, net=net, chunk_size=chunk_size).fit(tasks)
    start = tiny(estimator, net={**net, "lr": 0.0}).fit(tasks)
    moved = False
    for name, expected in whole.learner_.named_parameters():
        torch.testing.assert_close(
            chunked.learner_.get_parameter(name), expected, rtol=1e-4, atol=1e-6
        )
        moved |= not torch.equal(start.learner_.get_parameter(name), expected)
    assert moved


# ------------------------------------------------------------------ values of learners
def random_batches(n_tasks=3, n_classes=3, ragged=False, n_features=3, y=None, seed=0):
    """Support and query rows in float64; ragged ones lack rows and classes."""
    generator = torch.Generator().manual_seed(seed)

    def batch(n_rows):
        X = torch.randn(n_tasks, n_rows, n_features, generator=generator).double()
        if y == "regression":
            target = torch.randn(n_tasks, n_rows, generator=generator).double()
        else:
            target = torch.arange(n_rows).expand(n_tasks, n_rows) % n_classes
        mask = class_mask = None
        if ragged:
            counts = torch.arange(n_tasks) + n_rows - n_tasks + 1
            mask = torch.arange(n_rows) < counts[:, None]
            X, target = X * mask.unsqueeze(-1), target * mask
        if ragged and y != "regression":
            class_mask = torch.ones(n_tasks, n_classes, dtype=torch.bool)
            class_mask[0, -1] = False
            target = torch.where(target == n_classes - 1, 0, target)
            target = torch.where(class_mask[:, -1:], target, target)
        n = None if y == "regression" else n_classes
        return TaskBatch(X, target, mask, n, class_mask)

    return batch(7), batch(5)


def real(batch):
    return batch.y.flatten() if batch.mask is None else batch.y[batch.mask]


def one_task(batch, t):
    """A task alone: no padding, and only the classes that it has."""
    rows = slice(None) if batch.mask is None else batch.mask[t]
    n_classes = batch.n_classes
    if batch.class_mask is not None:
        n_classes = int(batch.class_mask[t].sum())
    return TaskBatch(batch.X[t, rows][None], batch.y[t, rows][None], None, n_classes)


def backbone():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()


LEARNERS = {
    "protonet": lambda: ProtoNet(backbone(), 4),
    "protonet-cosine": lambda: ProtoNet(backbone(), 4, metric="cosine"),
    "protonet-shared": lambda: ProtoNet(backbone(), 4, 3),
    "ridge": lambda: RidgeHead(backbone(), 4, classifier=True),
    "ridge-shared": lambda: RidgeHead(backbone(), 4, 3, classifier=True),
    "ridge-regression": lambda: RidgeHead(backbone(), 4),
    "maml": lambda: MAML(backbone(), 4, inner_lr=0.3, inner_steps=2),
    "maml-regression": lambda: MAML(
        backbone(), 4, task="regression", inner_lr=0.3, inner_steps=2
    ),
}


def learner_and_batches(name, ragged):
    torch.manual_seed(0)
    learner = LEARNERS[name]().double()
    kind = "regression" if "regression" in name else None
    support, query = random_batches(ragged=ragged, y=kind)
    if "shared" in name:
        support, query = (
            TaskBatch(b.X, b.y, b.mask, b.n_classes) for b in (support, query)
        )
    return learner, support, query


def loss_of(output, y):
    if output.ndim == 1:
        return F.mse_loss(output, y, reduction="sum")
    return F.cross_entropy(output, y, reduction="sum")


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("training", [True, False])
def test_padded_and_masked_is_a_loop_over_tasks(name, training):
    learner, support, query = learner_and_batches(name, ragged=True)
    learner.train(training)
    output = learner.episode(support, query)
    loss = loss_of(output[query.mask], real(query))
    together = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
    total, outputs = 0.0, []
    for t in range(support.n_tasks):
        alone = learner.episode(one_task(support, t), one_task(query, t))[0]
        outputs.append(alone)
        total = total + loss_of(alone, query.y[t, query.mask[t]])
    loop = torch.autograd.grad(total, list(learner.parameters()), allow_unused=True)
    for t, alone in enumerate(outputs):
        values = output[t, query.mask[t]]
        if support.class_mask is not None:
            assert (values[:, ~support.class_mask[t]] == -torch.inf).all()
            values = values[:, support.class_mask[t]]
        torch.testing.assert_close(values, alone, rtol=1e-10, atol=1e-10)
    for mine, expected in zip(together, loop, strict=True):
        if expected is not None:
            torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(
    "name", ["protonet", "protonet-shared", "ridge", "ridge-shared", "ridge-regression"]
)
def test_gradients_of_episode_losses(name, ragged):
    """Derivatives by every parameter and by the rows, against finite differences."""
    learner, support, query = learner_and_batches(name, ragged)
    names = [n for n, _ in learner.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in learner.parameters()]

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.learner = learner

        def forward(self, X_support, X_query):
            s = TaskBatch(X_support, support.y, support.mask, support.n_classes)
            q = TaskBatch(X_query, query.y, query.mask, query.n_classes)
            output = self.learner.episode(s, q)
            output = output.flatten(0, 1) if q.mask is None else output[q.mask]
            return loss_of(output, real(query))

    def loss(X_support, X_query, *parameters):
        named = {f"learner.{n}": p for n, p in zip(names, parameters, strict=True)}
        return functional_call(Loss(), named, (X_support, X_query))

    X = [b.X.clone().requires_grad_() for b in (support, query)]
    assert torch.autograd.gradcheck(loss, (*X, *values), fast_mode=True)


@pytest.mark.parametrize("n_rows", [2, 20])
def test_ridge_head_is_ridge_regression(n_rows):
    """Few rows take the dual system, many the primal one; both are sklearn's Ridge."""
    torch.manual_seed(0)
    learner = RidgeHead(backbone(), 4).double()
    with torch.no_grad():
        learner.log_alpha.fill_(-0.2)
        learner.prior.normal_()
    X, y = torch.randn(1, n_rows, 3).double(), torch.randn(1, n_rows).double()
    query = TaskBatch(torch.randn(1, 6, 3).double())

    def rows(X):
        return np.c_[backbone_of(learner, X) / 2, np.ones(len(X))]

    prior = learner.prior.detach().numpy()[:, 0]
    phi = rows(X[0])
    ridge = Ridge(alpha=learner.alpha.item(), fit_intercept=False)
    ridge.fit(phi, y[0].numpy() - phi @ prior)
    expected = rows(query.X[0]) @ (ridge.coef_ + prior)
    for training in (True, False):
        learner.train(training)
        mean = learner.predict(learner.adapt(TaskBatch(X, y)), query)[0]
        np.testing.assert_allclose(mean.detach(), expected, rtol=1e-9)


def backbone_of(learner, X):
    with torch.no_grad():
        return learner.backbone(X).numpy()


def test_ridge_regressor_is_a_gaussian_process_on_its_features():
    """Mean and standard deviation, in the user's units, after real training."""
    tasks = regression_tasks(n_tasks=9)
    meta = tiny(RidgeHeadRegressor, net={"max_epochs": 5}).fit(tasks[:-1])
    X, y = tasks[-1]
    mean, std = meta.adapt(X[:5], 3 * y[:5]).predict(X, return_std=True)

    learner = meta.learner_
    alpha, noise = learner.alpha.item(), learner.noise.item()
    features = backbone_of(learner, torch.from_numpy(X))
    width = features.shape[1]
    # alpha is the variance of the noise over that of the prior of the weights.
    kernel = ConstantKernel(noise / alpha / width, "fixed") * DotProduct(
        width**0.5, "fixed"
    )
    prior = learner.prior.detach().numpy()[:, 0]
    offset = np.c_[features / width**0.5, np.ones(len(X))] @ prior
    y_train = np.concatenate([y for _, y in tasks[:-1]])
    center, scale = y_train.mean(), y_train.std()
    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    process.fit(features[:5], (3 * y[:5] - center) / scale - offset[:5])
    residual, deviation = process.predict(features, return_std=True)
    np.testing.assert_allclose(mean, (residual + offset) * scale + center, rtol=1e-6)
    expected = np.sqrt(deviation**2 + noise) * scale
    np.testing.assert_allclose(std, expected, rtol=1e-6)
    prior_mean, prior_std = meta.predict(X, groups=["new"] * 12, return_std=True)
    np.testing.assert_allclose(prior_mean, offset * scale + center, rtol=1e-8)
    variance = noise * (1 + (features**2).sum(axis=1) / width / alpha + 1 / alpha)
    np.testing.assert_allclose(prior_std, np.sqrt(variance) * scale, rtol=1e-8)


def test_shared_prototypes_start_from_their_prior():
    """A learned number of pseudo-rows: the posterior mean of a class mean."""
    torch.manual_seed(0)
    learner = ProtoNet(nn.Identity(), 3, 2).double()
    with torch.no_grad():
        learner.log_strength.fill_(np.log(2.5))
    X = torch.randn(1, 4, 3).double()
    y = torch.zeros(1, 4, dtype=torch.int64)
    prototypes = learner.adapt(TaskBatch(X, y, None, 2))["prototypes"][0]
    expected = (X[0].sum(dim=0) + 2.5 * learner.prior[0]) / 6.5
    torch.testing.assert_close(prototypes[0], expected)
    torch.testing.assert_close(prototypes[1], learner.prior[1])


def test_nets_that_train_in_threads_are_those_that_train_in_turn():
    tasks = regression_tasks()
    nets = [tiny(RidgeHeadRegressor, random_state=seed) for seed in range(6)]
    serial = [clone(net).fit(tasks).predict(tasks[0][0], [0] * 12) for net in nets]
    with ThreadPoolExecutor(6) as pool:
        fits = list(pool.map(lambda net: clone(net).fit(tasks), nets))
    for fitted, expected in zip(fits, serial, strict=True):
        assert_array_equal(fitted.predict(tasks[0][0], [0] * 12), expected)


@pytest.mark.parametrize(("n_classes", "alone"), [(6, False), (3, True)])
def test_a_pool_of_classes_is_many_tasks(n_classes, alone):
    X = np.random.default_rng(0).normal(size=(8 * n_classes, 3))
    y = np.repeat(np.arange(n_classes), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingleTaskWarning)
        meta = tiny(MAMLClassifier, n_ways=3, inner_steps=2).fit(X, y)
    support = X[y < 2], y[y < 2]
    expected = copy.copy(meta).set_params(adapt_steps=100 if alone else 2)
    assert_array_equal(
        meta.adapt(*support).predict_proba(X[:8]),
        expected.adapt(*support).predict_proba(X[:8]),
    )
