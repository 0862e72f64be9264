"""Pre-training, fine-tuning and joint training against plain loops."""

import copy
import pickle

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, long_format, regression_tasks, tiny_net
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn
from torch.func import functional_call

from skmeta import (
    MultiTaskClassifier,
    MultiTaskRegressor,
    NotAdaptedError,
    SimpleShotClassifier,
    TransferClassifier,
    TransferRegressor,
    freeze,
)
from skmeta.modules import MLP, Conv4
from skmeta.outer_loop import Heads, RowDataset, RowLoader, RowSampler, Supervised
from skmeta.tasks import TaskBatch
from skmeta.tasks._table import table_from_codes
from skmeta.transfer import FineTune

EXACT = {"rtol": 1e-9, "atol": 1e-10}
ESTIMATORS = [
    TransferClassifier,
    TransferRegressor,
    MultiTaskClassifier,
    MultiTaskRegressor,
]
COUNTS, N_CLASSES = (6, 0, 3, 1), 3


def make(estimator, **params):
    criterion = nn.CrossEntropyLoss if is_classifier(estimator()) else nn.MSELoss
    net = tiny_net(criterion=criterion, batch_size=32)
    return estimator(net, **{"adapt_steps": 10, "random_state": 0, **params})


def tasks_for(estimator, **params):
    kind = classification_tasks if is_classifier(estimator()) else regression_tasks
    return kind(**params)


def output(meta, X, groups=None):
    kind = "predict_proba" if is_classifier(meta) else "predict"
    return getattr(meta, kind)(X, groups=groups)


# ----------------------------------------------------- the learner, one task at a time
def make_batch(counts, seed=0, task="classification", exists=None):
    generator = torch.Generator().manual_seed(seed)
    width = max(counts)
    X = torch.randn(len(counts), width, 2, generator=generator).double()
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    if task == "regression":
        y, n_classes = X.sum(-1).sin(), None
    else:
        n_own = torch.full((len(counts), 1), N_CLASSES)
        n_own = n_own if exists is None else exists.sum(1, keepdim=True)
        y, n_classes = torch.arange(width) % n_own, N_CLASSES
    X[~mask], y[~mask] = 0, 0
    return TaskBatch(X, y, mask, n_classes, exists)


def make_learner(task="classification", shared=True, **params):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    n_classes = N_CLASSES if shared and task == "classification" else None
    options = {"inner_lr": 0.5, "adapt_steps": 6, "proximal": 0.1, **params}
    learner = FineTune(backbone, 4, n_classes=n_classes, task=task, **options).double()
    if learner.weight is not None:
        learner.weight.normal_()
        learner.bias.normal_()
    return learner.eval()


def alone(learner, X, y, X_query, n_own):
    """Descent on one task by hand: a step that does not lower the loss is halved."""
    body = dict(learner.backbone.named_parameters())
    features = learner.backbone(X).detach()
    if learner.weight is not None:
        head = {"w": learner.weight, "b": learner.bias}
    elif learner.head == "cosine":
        sums = [features[y == c].sum(0) for c in range(n_own)]
        head = {"w": torch.stack([s / s.norm() for s in sums])}
    else:
        head = {"w": torch.zeros(n_own, 4).double(), "b": torch.zeros(n_own).double()}
    if learner.head == "cosine":
        head = {"w": head["w"]}
    start = {**head, **(body if learner.adapted == "all" else {})}

    def predicted(at, rows):
        rows = functional_call(
            learner.backbone, {k: at.get(k, body[k]) for k in body}, (rows,)
        )
        if learner.head == "linear":
            return rows @ at["w"].T + at["b"]
        rows = rows / rows.norm(dim=1, keepdim=True)
        classes = at["w"] / at["w"].norm(dim=1, keepdim=True)
        return learner.log_scale.exp() * rows @ classes.T

    def loss(at):
        if len(X) == 0:
            return sum(p.sum() for p in at.values()) * 0
        out = predicted(at, X)
        if learner.task == "regression":
            return (out[:, 0] - y).square().mean()
        return nn.functional.cross_entropy(out, y)

    def height(at):
        pull = sum((at[k] - start[k]).square().sum() for k in at)
        return loss(at) + learner.proximal / 2 * pull

    at = {k: v.detach().clone() for k, v in start.items()}
    start, rate = {k: v.detach() for k, v in start.items()}, learner.inner_lr
    for _ in range(learner.adapt_steps):
        leaves = {k: v.clone().requires_grad_() for k, v in at.items()}
        found = torch.autograd.grad(height(leaves), list(leaves.values()))
        tried = {k: at[k] - rate * g for k, g in zip(at, found, strict=True)}
        if height(tried) < height(at):
            at = tried
        else:
            rate = rate / 2
    return predicted(at, X_query).detach()


CASES = {
    "shared": {},
    "shared-all": {"adapted": "all"},
    "shared-cosine": {"head": "cosine"},
    "per-task": {"shared": False},
    "per-task-all": {"shared": False, "adapted": "all"},
    "per-task-cosine": {"shared": False, "head": "cosine"},
    "cosine-all": {"shared": False, "head": "cosine", "adapted": "all"},
    "regression": {"task": "regression"},
    "regression-all": {"task": "regression", "adapted": "all"},
}


@pytest.mark.parametrize("case", CASES)
def test_padded_tasks_are_a_loop_by_hand(case):
    learner = make_learner(**CASES[case])
    exists, counts = None, COUNTS
    if learner.weight is None:
        exists, counts = torch.arange(N_CLASSES) < torch.tensor([[3], [2]]), (6, 4)
    support = make_batch(counts, task=learner.task, exists=exists)
    query = make_batch((5,) * len(counts), seed=1, task=learner.task)
    with torch.no_grad():
        found = learner.predict(learner.adapt(support), query)
    for t, n_rows in enumerate(counts):
        n_own = N_CLASSES if exists is None else int(exists[t].sum())
        X, y = support.X[t, :n_rows], support.y[t, :n_rows]
        expected = alone(learner, X, y, query.X[t], n_own)
        if learner.task == "regression":
            torch.testing.assert_close(found[t], expected[:, 0], **EXACT)
        else:
            torch.testing.assert_close(found[t, :, :n_own], expected, **EXACT)
            assert (found[t, :, n_own:] == -torch.inf).all()


def test_many_tasks_with_bodies_are_adapted_a_few_at_a_time(monkeypatch):
    from skmeta.transfer import _transfer_learner

    learner = make_learner(adapted="all")
    support = make_batch((4, 5, 2, 3, 1))
    with torch.no_grad():
        expected = learner.adapt(support)
        monkeypatch.setattr(_transfer_learner, "_MAX_NUMBERS", 1)
        found = learner.adapt(support)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **EXACT)


def test_batch_norm_keeps_the_statistics_of_pre_training():
    """A row does not depend on others, whatever is adapted."""
    torch.manual_seed(0)
    backbone = Conv4(width=3, n_blocks=2)
    backbone(torch.randn(8, 8, 8))
    learner = FineTune(backbone, 12, n_classes=2, adapted="all", adapt_steps=2)
    learner = learner.double().eval()
    X = torch.randn(2, 6, 8, 8).double()
    support = TaskBatch(X, torch.arange(6).expand(2, 6) % 2, None, 2)
    before = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        state = learner.adapt(support)
        together = learner.predict(state, support)
        rows = [learner.predict(state, TaskBatch(X[:, i : i + 1])) for i in range(6)]
    torch.testing.assert_close(torch.cat(rows, 1), together, **EXACT)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


# ---------------------------------------------------------------- supervised training
@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_every_row_is_predicted_by_its_own_head(kind, n_heads):
    torch.manual_seed(0)
    learner = FineTune(nn.Linear(2, 4), 4)
    exists = np.arange(3) < np.array([3, 2, 3])[:n_heads, None]
    module = Supervised(learner, 4, Heads(n_heads, 3, kind, True, exists))
    if module.bias is not None:
        nn.init.normal_(module.bias)
    X, head = torch.randn(7, 2), torch.arange(7) % n_heads
    out = module(X, head)
    for i in range(7):
        f, w = learner.backbone(X[i]), module.weight[head[i]]
        if kind == "cosine":
            cosine = w @ f / (w.norm(dim=1) * f.norm())
            expected = module.log_scale.exp() * cosine
        else:
            expected = w @ f + module.bias[head[i]]
        own = torch.from_numpy(exists[head[i]])
        torch.testing.assert_close(out[i][own], expected[own], rtol=1e-5, atol=1e-6)
        assert (out[i][~own] == -100).all()


def test_an_epoch_shows_every_row_about_equally_often():
    table = table_from_codes(
        np.arange(50.0)[:, None], np.arange(50.0), np.zeros(50, int), [0]
    )
    dataset = RowDataset(RowSampler(table, np.zeros(50, dtype=np.int64), seed=3))
    loader = RowLoader(dataset, 16)
    batches = [y for _, y in loader]
    assert [len(y) for y in batches] == [16] * 5
    assert np.bincount(torch.cat(batches).long(), minlength=50).tolist().count(0) == 0
    again = RowLoader(RowDataset(dataset.sampler), 16)
    for first, second in zip(batches, (y for _, y in again), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(batches[0], next(iter(loader))[1])  # another epoch
    valid = RowLoader(dataset, 16, training=False)
    assert torch.equal(torch.cat([y for _, y in valid]).long(), torch.arange(50))


def test_what_pre_training_tells_apart():
    names = (("a", "b", "c"), ("a", "b"), ("d", "e"))
    rng = np.random.default_rng(0)
    tasks = [
        (rng.normal(size=(12, 3)), np.resize(np.array(names[t % 3]), 12))
        for t in range(3)
    ]
    transfer = make(TransferClassifier, label_space="per_task").fit(tasks)
    # All pairs of task and class, although two tasks have classes of the same name.
    assert transfer.net_.module_.weight.shape[:2] == (1, 7)
    several = make(MultiTaskClassifier, label_space="per_task").fit(tasks)
    assert several.net_.module_.weight.shape[:2] == (3, 3)
    expected = [[True, True, True], [True, True, False], [True, True, False]]
    assert several.net_.module_.exists.tolist() == expected
    shared = make(TransferClassifier, label_space="shared").fit(tasks)
    assert shared.net_.module_.weight.shape[:2] == (1, 5)
    assert shared.learner_.weight.shape == (5, 8)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pre_training_is_ordinary_training(estimator):
    """The same steps by hand lead to the same weights."""
    tasks = tasks_for(estimator)
    meta = make(estimator).fit(tasks)
    X, y, groups = long_format(tasks)
    several = "MultiTask" in estimator.__name__
    head = groups if several else np.zeros_like(groups)
    if not is_classifier(meta):
        y = (y - y.mean()) / y.std()
    table = table_from_codes(X, y, groups, list(range(len(tasks))))
    dataset = RowDataset(RowSampler(table, head, meta._seed))
    still = make(estimator).estimator.set_params(lr=0.0, max_epochs=1)
    module = estimator(still, random_state=0).fit(tasks).net_.module_
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss() if is_classifier(meta) else nn.MSELoss()
    for _ in range(2):
        for inputs, target in RowLoader(dataset, 32):
            optimizer.zero_grad()
            criterion(module(**inputs), target).backward()
            optimizer.step()
    for name, tensor in meta.net_.module_.named_parameters():
        found = dict(module.named_parameters())[name]
        torch.testing.assert_close(found, tensor, rtol=1e-4, atol=1e-5)


def test_parameters_of_the_net_keep_their_meaning():
    net = NeuralNetClassifier(
        MLP,
        module__hidden=(8,),
        max_epochs=3,
        batch_size=16,
        train_split=ValidSplit(4),
        verbose=0,
    )
    meta = TransferClassifier(net, random_state=0).fit(classification_tasks())
    history = meta.history_
    assert history[:, "train_batch_count"] == [5, 5, 5]  # of 72 of 96 rows
    assert history[:, "valid_batch_count"] == [2, 2, 2]
    assert np.isfinite(history[:, "valid_loss"]).all()
    assert all(0 < accuracy <= 1 for accuracy in history[:, "valid_acc"])


# --------------------------------------------------------------------------- the verbs
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("adapted", ["head", "all"])
def test_a_fleet_is_a_loop(estimator, adapted):
    meta = make(estimator, adapted=adapted).fit(tasks_for(estimator))
    X, y, groups = long_format(tasks_for(estimator, n_tasks=6, seed=1))
    keep = (np.arange(len(X)) % 12) < 4 + groups
    fleet = copy.copy(meta).adapt(X[keep], y[keep], groups=groups[keep] + 50)
    together = output(fleet, X, groups + 50)
    for g in range(6):
        rows = keep & (groups == g)
        one = copy.copy(meta).adapt(X[rows], y[rows])
        found = output(one, X[groups == g])
        np.testing.assert_allclose(found, together[groups == g], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_prior_is_the_pre_trained_head_or_the_mean_of_heads(estimator):
    meta = make(estimator).fit(tasks_for(estimator))
    X = np.random.default_rng(1).normal(size=(5, 3))
    module = meta.net_.module_
    with torch.no_grad():
        features = module.learner.backbone(torch.from_numpy(X).float())
        out = features @ module.weight.mean(0).T + module.bias.mean(0)
    expected = out.softmax(1).numpy()
    if not is_classifier(meta):
        expected = out[:, 0].numpy() * meta._y_scale + meta._y_mean
    found = output(meta, X, ["never seen"] * 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_more_steps_fit_the_support_better_and_a_pull_less(estimator):
    meta = make(estimator).fit(tasks_for(estimator))
    X, y = tasks_for(estimator, seed=1)[0]

    def loss(**params):
        model = copy.copy(meta).set_params(**params).adapt(X, y)
        if is_classifier(meta):
            return -np.log(model.predict_proba(X)[np.arange(len(y)), y]).mean()
        return ((model.predict(X) - y) ** 2).mean()

    none, some = loss(adapt_steps=0), loss(adapt_steps=10, proximal=0)
    many, pulled = loss(adapt_steps=60, proximal=0), loss(adapt_steps=60, proximal=10)
    assert none > some > many
    assert none > pulled > many
    assert loss(adapt_steps=60, proximal=0, adapted="all") < many
    kind = "predict_proba" if is_classifier(meta) else "predict"
    frozen = getattr(freeze(meta, adapt_steps=0).fit(X, y), kind)(X)
    still = copy.copy(meta).set_params(adapt_steps=0).adapt(X, y)
    np.testing.assert_allclose(frozen, output(still, X), **EXACT)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_partial_fit_goes_on_with_other_tasks(estimator):
    meta = make(estimator).fit(tasks_for(estimator))
    body = copy.deepcopy(meta.learner_.backbone.state_dict())
    n_epochs = len(meta.history_)
    meta.partial_fit(tasks_for(estimator, n_tasks=3, seed=2))
    assert len(meta.states_) == 11
    assert len(meta.history_) == n_epochs + 2
    changed = [
        not torch.equal(tensor, body[name])
        for name, tensor in meta.learner_.backbone.state_dict().items()
    ]
    assert all(changed)
    if "MultiTask" in estimator.__name__:
        assert len(meta.net_.module_.weight) == 3
    other = pickle.loads(pickle.dumps(meta))
    X, _, groups = long_format(tasks_for(estimator))
    np.testing.assert_allclose(output(other, X, groups), output(meta, X, groups))


def test_more_classes_of_their_tasks_get_a_head_of_their_own():
    def tasks(labels, seed):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(3, 16, 3))
        return [(rows, np.resize(np.array(labels), 16)) for rows in X]

    for estimator in (TransferClassifier, SimpleShotClassifier):
        meta = estimator(
            tiny_net(batch_size=32), label_space="per_task", random_state=0
        )
        meta.fit(tasks(["a", "b"], 0))
        assert meta.net_.module_.weight.shape[1] == 6
        before = meta.net_.module_.weight
        meta.partial_fit(tasks(["c", "d", "e"], 1))
        assert meta.net_.module_.weight.shape[1] == 9
        assert before.shape[1] == 6  # the old net is left alone
        X, y = tasks(["p", "q"], 2)[0]
        assert set(meta.adapt(X, y).predict(X)) <= {"p", "q"}


# ----------------------------------------------------------------------- sklearn heads
@pytest.mark.parametrize("label_space", ["shared", "per_task"])
@pytest.mark.parametrize(
    "head", [LogisticRegression(), KNeighborsClassifier(2), LinearSVC()]
)
def test_any_classifier_on_frozen_features(head, label_space):
    tasks = classification_tasks(n_rows=20)
    meta = make(TransferClassifier, head=head, label_space=label_space).fit(tasks)
    X, y, groups = long_format(classification_tasks(4, n_rows=20, seed=1))
    keep = (np.arange(len(X)) % 20) < 8 + groups
    meta.adapt(X[keep], y[keep], groups=groups[keep] + 50)
    proba = meta.predict_proba(X, groups=groups + 50)
    with torch.no_grad():
        features = meta.learner_.backbone(torch.from_numpy(X)).numpy()
    for g in range(4):
        rows = keep & (groups == g)
        model = type(head)(**head.get_params()).fit(features[rows], y[rows])
        if hasattr(model, "predict_proba"):
            expected = model.predict_proba(features[groups == g])
        else:
            expected = np.eye(2)[model.predict(features[groups == g])]
        np.testing.assert_allclose(proba[groups == g], expected, rtol=1e-6, atol=1e-8)
    assert np.isfinite(meta.score(classification_tasks(3, seed=2)))
    other = pickle.loads(pickle.dumps(meta))
    np.testing.assert_allclose(other.predict_proba(X, groups=groups + 50), proba)


def test_a_task_with_one_class_keeps_the_pre_trained_head():
    meta = make(TransferClassifier, head=LogisticRegression(), label_space="shared")
    meta.fit(classification_tasks())
    X, y = classification_tasks(seed=1)[0]
    prior = meta.predict_proba(X, groups=["never seen"] * len(X))
    one = meta.adapt(X[y == 1], y[y == 1])
    np.testing.assert_allclose(one.predict_proba(X), prior, **EXACT)


def test_any_regressor_on_frozen_features():
    meta = make(TransferRegressor, head=Ridge(0.1)).fit(regression_tasks())
    X, y = regression_tasks(seed=1)[0]
    with torch.no_grad():
        features = meta.learner_.backbone(torch.from_numpy(X)).numpy()
    scaled = (y[:8] - meta._y_mean) / meta._y_scale
    model = Ridge(0.1).fit(features[:8], scaled)
    expected = model.predict(features) * meta._y_scale + meta._y_mean
    np.testing.assert_allclose(meta.adapt(X[:8], y[:8]).predict(X), expected, **EXACT)
    prior = make(TransferRegressor).fit(regression_tasks())
    unseen = ["never seen"] * len(X)
    np.testing.assert_allclose(
        meta.predict(X, groups=unseen), prior.predict(X, groups=unseen), **EXACT
    )


def test_a_head_that_cannot_be_fitted_names_the_task():
    meta = make(TransferClassifier, head=KNeighborsClassifier(9), label_space="shared")
    meta.fit(classification_tasks())
    X, y, groups = long_format(classification_tasks(3, seed=1))
    meta.adapt(X, y, groups=[f"user {g}" for g in groups])
    with pytest.raises(ValueError, match="cannot predict task 'few'"):
        meta.adapt(X[:4], [0, 1, 0, 1], groups=["few"] * 4)
        meta.predict(X[:4], groups=["few"] * 4)


def test_a_fitted_head_and_a_trained_body_exclude_each_other():
    meta = make(TransferClassifier, head=LogisticRegression(), adapted="all")
    with pytest.raises(ValueError, match="adapted='all' trains the body and a head"):
        meta.fit(classification_tasks())


def test_labels_of_their_own_have_no_prior():
    meta = make(MultiTaskClassifier, label_space="per_task").fit(classification_tasks())
    with pytest.raises(NotAdaptedError, match="never seen"):
        meta.predict(np.zeros((2, 3)), groups=["never seen"] * 2)


def test_joint_training_knows_what_pooling_cannot():
    """Tasks whose slopes differ in sign have no common regression."""
    rng = np.random.default_rng(0)

    def tasks(n_tasks):
        for _ in range(n_tasks):
            X = rng.uniform(-2, 2, size=(40, 1))
            yield X, rng.choice([-1, 1]) * np.sin(2 * X[:, 0])

    known, new = list(tasks(40)), list(tasks(10))
    scores = {}
    for estimator in (TransferRegressor, MultiTaskRegressor):
        net = tiny_net(MLP, nn.MSELoss, max_epochs=20, batch_size=64)
        net.set_params(module__hidden=(32, 8))
        meta = estimator(net, n_shots=8, random_state=0)
        scores[estimator] = meta.fit(known).score(new)
    assert scores[MultiTaskRegressor] > 0.2
    assert scores[TransferRegressor] < 0.1


pytestmark = pytest.mark.filterwarnings(
    f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}"
)
