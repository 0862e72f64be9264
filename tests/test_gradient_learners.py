"""MAML and Reptile against plain loops over tasks, in double precision."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.func import functional_call

from skmeta.gradient import MAML, Reptile, _gradient_learner
from skmeta.inner_loop import in_chunks
from skmeta.tasks import TaskBatch

TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}
SUPPORT, QUERY = (6, 4, 5), (3, 5, 2)
N_FEATURES = 4


def backbone(kind="linear"):
    torch.manual_seed(0)
    layers = {
        "linear": [nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, N_FEATURES)],
        "softmax": [nn.Linear(5, N_FEATURES), nn.Softmax(dim=1)],
        "norm": [nn.Linear(5, N_FEATURES), nn.BatchNorm1d(N_FEATURES), nn.ReLU()],
        "rows": [nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Flatten()],
    }[kind]
    return nn.Sequential(*layers).double()


def make_batch(counts, seed, n_classes=None, class_counts=None):
    generator = torch.Generator().manual_seed(seed)
    width, n_tasks = max(counts), len(counts)
    X = torch.randn(n_tasks, width, 5, generator=generator).double()
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    class_mask = None
    if n_classes is None:
        y = X.sum(-1).sin()
    else:
        ways = torch.tensor(class_counts or [n_classes] * n_tasks)
        y = torch.arange(width) % ways[:, None]
        if class_counts:
            class_mask = torch.arange(n_classes) < ways[:, None]
    X[~mask], y[~mask] = 0, 0
    mask = None if bool(mask.all()) else mask
    return TaskBatch(X, y, mask, n_classes, class_mask)


def make_learner(kind="linear", task="per_task", **options):
    torch.manual_seed(1)
    options = {"inner_lr": 0.3, "inner_steps": 2, **options}
    settings = {
        "per_task": {},
        "shared": {"n_classes": 3},
        "regression": {"task": "regression"},
    }[task]
    cls = options.pop("cls", MAML)
    return cls(backbone(kind), N_FEATURES, **settings, **options).double()


def make_batches(task, ragged=True):
    counts = (SUPPORT, QUERY) if ragged else ((6,) * 3, (4,) * 3)
    if task == "regression":
        return make_batch(counts[0], 1), make_batch(counts[1], 2)
    ways = [3, 2, 3] if task == "per_task" and ragged else None
    return tuple(make_batch(c, s, 3, ways) for c, s in zip(counts, (1, 2), strict=True))


# ------------------------------------------------------------------------- references
def one_task(batch, t):
    """Real rows, targets and number of classes of one task."""
    keep = slice(None) if batch.mask is None else batch.mask[t]
    ways = batch.n_classes
    if batch.class_mask is not None:
        ways = int(batch.class_mask[t].sum())
    return batch.X[t][keep], batch.y[t][keep], ways


def row_losses(output, y, task):
    if task == "regression":
        return (output.squeeze(1) - y).square()
    return nn.functional.cross_entropy(output, y, reduction="none")


def start_of_head(learner, X, y, ways):
    if learner.head is not None:
        return learner.head.weight, learner.head.bias
    if getattr(learner, "head_init", "shared") == "prototype":
        features = learner.backbone(X).flatten(1)
        means = torch.stack([features[y == c].mean(0) for c in range(ways)])
        return 2 * means, -means.square().sum(1)
    zeros = torch.zeros(ways, N_FEATURES).double(), torch.zeros(ways).double()
    return tuple(z.requires_grad_() for z in zeros)


def plain_adapt(learner, X, y, ways, task, rate_of):
    """Inner loop of one task, by hand; rate_of maps step and name to a rate."""
    body = dict(learner.backbone.named_parameters())
    head = dict(zip(("w", "b"), start_of_head(learner, X, y, ways), strict=True))
    names = {"all": [*body, *head], "head": [*head], "body": [*body]}[learner.adapted]
    # Views, so that no gradient comes through a head that was made from the body.
    fast = {k: p.view_as(p) for k, p in {**body, **head}.items()}
    for step in range(learner.inner_steps):
        features = functional_call(learner.backbone, {k: fast[k] for k in body}, (X,))
        loss = row_losses(features.flatten(1) @ fast["w"].T + fast["b"], y, task).mean()
        inputs = [fast[name] for name in names]
        found = torch.autograd.grad(
            loss, inputs, create_graph=not learner.first_order, allow_unused=True
        )
        for name, gradient in zip(names, found, strict=True):
            if gradient is not None:
                fast[name] = fast[name] - rate_of(step, name) * gradient
    return fast


def plain_episode(learner, support, query, task, rate_of):
    """Sum over tasks of the mean query loss."""
    total = 0.0
    for t in range(support.n_tasks):
        X, y, ways = one_task(support, t)
        fast = plain_adapt(learner, X, y, ways, task, rate_of)
        X, y, _ = one_task(query, t)
        body = {k: v for k, v in fast.items() if k not in "wb"}
        features = functional_call(learner.backbone, body, (X,)).flatten(1)
        total = total + row_losses(features @ fast["w"].T + fast["b"], y, task).mean()
    return total


def episode_loss(learner, support, query, task):
    output = learner.episode(support, query)
    total = 0.0
    for t in range(support.n_tasks):
        _, y, ways = one_task(query, t)
        rows = slice(None) if query.mask is None else query.mask[t]
        kept = output[t][rows]
        if task == "regression":
            kept = kept.unsqueeze(1)
        else:
            assert (kept[:, ways:] == -torch.inf).all()
        total = total + row_losses(kept, y, task).mean()
    return total


def gradients(loss, learner):
    found = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(learner.named_parameters(), found, strict=True)
    }


def assert_equal_losses(learner, batches, task, rate_of):
    found = episode_loss(learner, *batches, task)
    expected = plain_episode(learner, *batches, task, rate_of)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    torch.testing.assert_close(
        gradients(found, learner), gradients(expected, learner), **TOLERANCE
    )


# ------------------------------------------------------------------------------- MAML
@pytest.mark.parametrize("ragged", [True, False], ids=["ragged", "full"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("adapt", ["all", "head", "body"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", ["per_task", "prototype", "shared", "regression"])
def test_maml_equals_plain_loop(task, kind, adapt, first_order, ragged):
    options = {"adapt": adapt, "first_order": first_order}
    if task == "prototype":
        task, options["head_init"] = "per_task", "prototype"
    learner = make_learner(kind, task, **options)
    batches = make_batches(task, ragged)
    assert_equal_losses(learner, batches, task, lambda step, name: 0.3)


def test_rates_per_step():
    learner = make_learner(task="regression", inner_lr=[0.3, 0.1], inner_steps=3)
    rates = [0.3, 0.1, 0.1]
    batches = make_batches("regression")
    assert_equal_losses(learner, batches, "regression", lambda step, _: rates[step])


@pytest.mark.parametrize("adapt", ["all", "head", "body"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", ["per_task", "shared", "regression"])
def test_learned_rates(task, kind, adapt):
    learner = make_learner(kind, task, inner_lr="learned", adapt=adapt)
    for rate in learner.rates.values():
        torch.testing.assert_close(rate, torch.full_like(rate, 0.1))
        nn.init.uniform_(rate, 0.1, 0.3)

    def rate_of(step, name):
        names = {"w": "head/weight", "b": "head/bias"}
        return learner.rates[names.get(name, f"backbone/{name}".replace(".", "/"))]

    assert_equal_losses(learner, make_batches(task), task, rate_of)
    assert any(key.startswith("rates.") for key in learner.state_dict())


@pytest.mark.parametrize("adapt", ["all", "body"])
def test_prototype_head_starts_from_distances(adapt):
    learner = make_learner(head_init="prototype", adapt=adapt, inner_steps=0)
    support, query = make_batches("per_task", ragged=False)
    logits = learner.episode(support, query)
    features, rows = learner.backbone(support.X[0]), learner.backbone(query.X[0])
    means = torch.stack([features[support.y[0] == c].mean(0) for c in range(3)])
    distances = torch.cdist(rows, means).square()
    torch.testing.assert_close(logits[0].softmax(1), (-distances).softmax(1))


def test_zero_head_stands_for_any_shared_vector():
    learner = make_learner()
    support, query = make_batches("per_task", ragged=False)
    expected = learner.episode(support, query).softmax(-1)
    vector = torch.randn(N_FEATURES).double().requires_grad_()
    plain = MAML.initial_head

    def initial_head(self, support, features=None):
        head = plain(self, support, features)
        return {**head, "head.weight": head["head.weight"] + vector}

    learner.initial_head = initial_head.__get__(learner)
    found = learner.episode(support, query).softmax(-1)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    (gradient,) = torch.autograd.grad(found.square().sum(), vector)
    assert gradient.abs().max() < 1e-12


def test_body_alone_learns():
    learner = make_learner(adapt="body")
    support, query = make_batches("per_task")
    state = learner.adapt(support)
    moved = state["backbone.0.weight"] - learner.backbone[0].weight
    assert moved.flatten(1).norm(dim=1).min() > 1e-3
    assert "head.weight" in state  # the prototypes cannot be had without the rows


@pytest.mark.parametrize("cls", [MAML, Reptile])
def test_classes_in_another_order(cls):
    learner = make_learner(cls=cls).eval()
    support, query = make_batches("per_task", ragged=False)
    order = torch.tensor([2, 0, 1])
    other = TaskBatch(support.X, order[support.y], None, 3)
    first = learner.predict(learner.adapt(support), query)
    second = learner.predict(learner.adapt(other), query)
    torch.testing.assert_close(second[..., order], first, **TOLERANCE)


def test_any_number_of_classes():
    learner = make_learner().eval()
    for ways in (2, 7):
        support = make_batch((14, 14), 1, ways)
        logits = learner.predict(learner.adapt(support), make_batch((2, 2), 2))
        assert logits.shape == (2, 2, ways)


@pytest.mark.parametrize("head_init", ["shared", "prototype"])
def test_padding_classes_and_rows_change_nothing(head_init):
    learner = make_learner(head_init=head_init).eval()
    support, query = make_batches("per_task")
    joint = learner.predict(learner.adapt(support), query)
    for t in range(3):
        X, y, ways = one_task(support, t)
        state = learner.adapt(TaskBatch(X[None], y[None], None, ways))
        alone = learner.predict(state, TaskBatch(one_task(query, t)[0][None]))[0]
        torch.testing.assert_close(joint[t, : len(alone), :ways], alone, **TOLERANCE)


@pytest.mark.parametrize("cls", [MAML, Reptile])
@pytest.mark.parametrize("kind", ["linear", "softmax", "norm"])
@pytest.mark.parametrize("task", ["per_task", "shared", "regression"])
def test_task_without_rows_has_the_prior(task, kind, cls):
    learner = make_learner(kind, task, cls=cls).eval()
    n_classes = None if task == "regression" else 3
    some = make_batch((0, 6), 1, n_classes)
    none = TaskBatch(some.X[:1, :0], some.y[:1, :0], None, n_classes)
    query = make_batch((3, 3), 2)
    mixed = learner.predict(learner.adapt(some), query)
    alone = learner.predict(learner.adapt(none), query.take(slice(1)))
    torch.testing.assert_close(mixed[:1], alone, **TOLERANCE)
    if kind != "norm" and task != "per_task":
        prior = learner.head(learner.backbone(query.X[0]))
        torch.testing.assert_close(alone[0].reshape(prior.shape), prior, **TOLERANCE)
    loss = mixed.square().sum()
    assert all(g.isfinite().all() for g in gradients(loss, learner).values())


def test_steps_of_training_and_of_adapting():
    learner = make_learner(task="regression", inner_steps=1, adapt_steps=4)
    support, query = make_batches("regression")
    same = make_learner(task="regression", inner_steps=4)
    expected = same.predict(same.adapt(support), query)
    assert not torch.allclose(learner.episode(support, query), expected)
    found = learner.eval().episode(support, query)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    learner.adapt_steps = 0
    features = learner.backbone(query.X)
    start = learner.head(features).squeeze(-1)
    torch.testing.assert_close(learner.episode(support, query), start, **TOLERANCE)


@pytest.mark.parametrize("adapt", ["all", "head", "body"])
def test_query_rows_do_not_depend_on_each_other(adapt):
    support, query = make_batches("shared", ragged=False)
    for transductive in (False, True):
        learner = make_learner("norm", "shared", adapt=adapt, transductive=transductive)
        state = learner.adapt(support)
        assert ("statistics.1.mean" in state) is not transductive
        assert all(len(tensor) == 3 for tensor in state.values())
        first = TaskBatch(query.X[:, :1])
        joint, alone = learner.predict(state, query), learner.predict(state, first)
        assert torch.allclose(joint[:, :1], alone) is not transductive


def test_frozen_parameters_are_not_adapted():
    module = backbone()
    module[0].requires_grad_(False)
    torch.manual_seed(1)
    learner = MAML(module, N_FEATURES, task="regression", inner_steps=2).double()
    support, query = make_batches("regression")
    results = []
    for strategy in ("batched", "loop"):
        learner._forward.strategy = strategy
        state = learner.adapt(support)
        assert [*state] == ["backbone.2.weight", "backbone.2.bias"] + [
            "head.weight",
            "head.bias",
        ]
        results.append(learner.predict(state, query)[query.mask])
    torch.testing.assert_close(*results, **TOLERANCE)


def test_backbone_with_more_axes():
    module = backbone("rows")
    learner = MAML(module, 8, task="regression").double()
    X = torch.randn(2, 4, 1, 5).double()
    state = learner.adapt(TaskBatch(X, torch.randn(2, 4).double()))
    assert learner.predict(state, TaskBatch(X)).shape == (2, 4)


def test_backbone_without_parameters():
    learner = MAML(nn.Flatten(), 5, n_classes=3)
    support = make_batch((6, 6), 1, 3)
    support = TaskBatch(support.X.float(), support.y, None, 3)
    assert learner.episode(support, support).shape == (2, 6, 3)


@pytest.mark.parametrize("cls", [MAML, Reptile])
def test_many_tasks_are_adapted_in_pieces(cls, monkeypatch):
    learner = make_learner(cls=cls).eval()
    support, _ = make_batches("per_task")
    with torch.no_grad():
        expected = learner.adapt(support)
        monkeypatch.setattr(_gradient_learner, "MAX_NUMBERS", 1)
        found = learner.adapt(support)
    assert [*found] == [*expected]
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **TOLERANCE)


@pytest.mark.parametrize("cls", [MAML, Reptile])
@pytest.mark.parametrize("kind", ["linear", "norm"])
def test_adapting_edits_nothing(kind, cls):
    learner = make_learner(kind, cls=cls)
    before = copy.deepcopy(learner.state_dict())
    learner.episode(*make_batches("per_task"))
    after = learner.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None for p in learner.parameters())


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
@pytest.mark.parametrize("kind", ["linear", "softmax", "norm"])
def test_copies(kind, duplicate):
    learner = make_learner(kind, inner_lr="learned")
    batches = make_batches("per_task")
    expected = learner.episode(*batches)
    other = duplicate(learner)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.zero_()
    assert torch.equal(other.episode(*batches), expected)


@pytest.mark.parametrize("kind", ["linear", "softmax", "norm"])
def test_threads_equal_serial_bit_for_bit(kind):
    learner = make_learner(kind, "regression").eval().requires_grad_(False)

    def adapt(seed):
        torch.set_num_threads(1)
        with torch.no_grad():
            return learner.adapt(make_batch(SUPPORT, seed))

    serial = [adapt(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(adapt, range(40)))
    for one, other in zip(serial, threaded, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_frozen_learner_adapts_as_a_training_one():
    learner = make_learner(task="regression")
    support, query = make_batches("regression")
    expected = learner.episode(support, query).detach()
    learner.eval().requires_grad_(False)
    with torch.no_grad():
        found = learner.episode(support, query)
    torch.testing.assert_close(found, expected, **TOLERANCE)


# ---------------------------------------------------------------------------- Reptile
def reptile_gradient(learner, support, query, task):
    """Mean over tasks of the way from the end of the inner loop to its start."""
    learner.first_order = True
    start = {**dict(learner.backbone.named_parameters())}
    if learner.head is not None:
        start.update(w=learner.head.weight, b=learner.head.bias)
    total = {name: torch.zeros_like(p) for name, p in start.items()}
    for t in range(support.n_tasks):
        X, y, ways = one_task(support, t)
        if query.y is not None:
            more_X, more_y, _ = one_task(query, t)
            X, y = torch.cat([X, more_X]), torch.cat([y, more_y])
        end = plain_adapt(learner, X, y, ways, task, lambda step, name: 0.3)
        for name in total:
            total[name] += (start[name] - end[name]).detach()
    way = 0.3 * learner.inner_steps
    names = {"w": "head.weight", "b": "head.bias"}
    return {
        names.get(name, f"backbone.{name}"): tensor / (way * support.n_tasks)
        for name, tensor in total.items()
    }


@pytest.mark.parametrize("ragged", [True, False], ids=["ragged", "full"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", ["per_task", "shared", "regression"])
def test_reptile_gradient(task, kind, ragged):
    learner = make_learner(kind, task, cls=Reptile, inner_steps=3)
    support, query = make_batches(task, ragged)
    output = learner.episode(support, query)
    found = gradients(output[output.isfinite()].sum() * 1000, learner)
    expected = reptile_gradient(learner, support, query, task)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    plain = learner.predict(learner.adapt(support), query)
    torch.testing.assert_close(output, plain.detach(), **TOLERANCE)


def test_reptile_without_query_targets():
    learner = make_learner(task="regression", cls=Reptile)
    support, query = make_batches("regression")
    query = TaskBatch(query.X, None, query.mask)
    found = gradients(learner.episode(support, query).sum(), learner)
    expected = reptile_gradient(learner, support, query, "regression")
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("cls", [MAML, Reptile])
def test_chunks(cls, size):
    learner = make_learner("norm", "regression", cls=cls)
    support, query = make_batches("regression")
    parameters = [*learner.parameters()]
    found = in_chunks(learner.episode, support, query, parameters, size)
    expected = learner.episode(support, query)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    pairs = [gradients(out.square().sum(), learner) for out in (found, expected)]
    torch.testing.assert_close(*pairs, **TOLERANCE)


def test_reptile_shows_that_a_task_diverged():
    learner = make_learner(task="regression", cls=Reptile, inner_lr=1e3, inner_steps=9)
    support, query = make_batches("regression", ragged=False)
    quiet = TaskBatch(0 * support.X, 0 * support.y)
    query.X[1], query.y[1] = 1e200, 1e200
    output = learner.episode(quiet, query)
    assert not output[1].isfinite().any()


def test_reptile_in_evaluation_mode_is_plain():
    learner = make_learner(task="regression", cls=Reptile).eval()
    support, query = make_batches("regression")
    expected = learner.predict(learner.adapt(support), query)
    assert torch.equal(learner.episode(support, query), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler about itself
@pytest.mark.parametrize("kind", ["linear", "norm"])
@pytest.mark.parametrize("cls", [MAML, Reptile])
def test_compiled_episode(cls, kind):
    learner = make_learner(kind, cls=cls)
    batches = make_batches("per_task")
    results = []
    for episode in (learner.episode, torch.compile(learner.episode)):
        output = episode(*batches)
        loss = output[output.isfinite()].square().sum()
        results.append((output, gradients(loss, learner)))
    torch.testing.assert_close(*results, **TOLERANCE)
