"""Variants of gradient learners against loops over tasks, in double precision."""

import copy
import pickle
import weakref

import numpy as np
import pytest
import torch
from sklearn.base import clone
from test_gradient_learners import (
    N_FEATURES,
    TOLERANCE,
    assert_equal_losses,
    backbone,
    episode_loss,
    gradients,
    make_batch,
    make_batches,
    make_learner,
    one_task,
    plain_adapt,
    row_losses,
    start_of_head,
)
from torch import nn
from torch.func import functional_call

from skmeta import (
    CAVIAClassifier,
    CAVIARegressor,
    ImplicitMAMLRegressor,
    MAMLClassifier,
    MAMLRegressor,
)
from skmeta.datasets import make_sinusoid_tasks
from skmeta.gradient import CAVIA, MAML, ImplicitMAML, Reptile
from skmeta.gradient._cavia_learner import widen
from skmeta.inner_loop import StackLoss, implicit, in_chunks, minimise, path
from skmeta.inner_loop._implicit import conjugate_gradients
from skmeta.outer_loop import Episode
from skmeta.outer_loop._episode import as_inputs
from skmeta.tasks import TaskBatch

TASKS = ["per_task", "shared", "regression"]
VARIANTS = ["learned", "per_layer", "curvature", "alfa"]


def key(name):
    """Name of a parameter of the plain loop as the learner calls it."""
    names = {"w": "head/weight", "b": "head/bias"}
    return names.get(name, f"backbone/{name}".replace(".", "/"))


def scatter(module, seed=0):
    """Move parameters of the step rule away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.rand(p.shape, generator=generator, dtype=torch.float64)
            p.add_(0.1 * noise)
    return module


# ------------------------------------------------------------------ references of rules
def plain_rule(learner, rule, ways):
    """One step by hand; maps step, parameters and gradients to new parameters."""
    rates = learner.rates

    def curvature(step, fast, found):
        after = {}
        for name, gradient in found.items():
            matrices = [*rates.axes[key(name)]]
            letters = "abcd"[: gradient.ndim - (gradient.ndim > len(matrices))]
            lead = "z" if gradient.ndim > len(matrices) else ""
            operands, inputs = [], [lead + letters]
            for letter, matrix in zip(letters, matrices, strict=True):
                inputs.append(letter + letter.upper())
                operands.append(matrix)
            equation = ",".join(inputs) + "->" + lead + letters.upper()
            turned = torch.einsum(equation, gradient, *operands)
            after[name] = fast[name] - 0.1 * turned
        return after

    def alfa(step, fast, found):
        seen = [k for k in found if learner.head is not None or k not in "wb"]
        means = [t for k in seen for t in (fast[k].mean(), found[k].mean())]
        out = rates.net(torch.stack(means))
        n = len(found)
        return {
            k: fast[k] * (1 - out[n + i])
            - rates.rates[step, i] * (1 + out[i]) * found[k]
            for i, k in enumerate(found)
        }

    return {"curvature": curvature, "alfa": alfa}[rule]


def rule_episode(learner, support, query, task, rule):
    """Sum over tasks of the mean query loss, by hand."""
    total = 0.0
    for t in range(support.n_tasks):
        X, y, ways = one_task(support, t)
        step_of = plain_rule(learner, rule, ways)
        body = dict(learner.backbone.named_parameters())
        head = dict(zip("wb", start_of_head(learner, X, y, ways), strict=True))
        names = {"all": [*body, *head], "head": [*head], "body": [*body]}
        names = names[learner.adapted]
        fast = {k: p.view_as(p) for k, p in {**body, **head}.items()}
        for step in range(learner.inner_steps):
            out = functional_call(learner.backbone, {k: fast[k] for k in body}, (X,))
            loss = row_losses(out @ fast["w"].T + fast["b"], y, task).mean()
            found = torch.autograd.grad(
                loss,
                [fast[k] for k in names],
                create_graph=not learner.first_order,
                materialize_grads=True,
                allow_unused=True,
            )
            fast.update(step_of(step, fast, dict(zip(names, found, strict=True))))
        X, y, _ = one_task(query, t)
        out = functional_call(learner.backbone, {k: fast[k] for k in body}, (X,))
        total = total + row_losses(out @ fast["w"].T + fast["b"], y, task).mean()
    return total


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("adapt", ["all", "head", "body"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rule", ["curvature", "alfa"])
def test_rules_equal_plain_loop(rule, task, kind, adapt, first_order):
    if (rule, task, adapt) == ("alfa", "per_task", "head"):
        return  # refused, see below
    learner = make_learner(
        kind, task, inner_lr=rule, adapt=adapt, first_order=first_order
    )
    scatter(learner.rates)
    batches = make_batches(task)
    found = episode_loss(learner, *batches, task)
    expected = rule_episode(learner, *batches, task, rule)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    torch.testing.assert_close(
        gradients(found, learner), gradients(expected, learner), **TOLERANCE
    )


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("adapt", ["all", "head", "body"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", TASKS)
def test_rates_per_layer_and_step(task, kind, adapt, first_order):
    learner = make_learner(
        kind,
        task,
        inner_lr="per_layer",
        inner_steps=3,
        adapt=adapt,
        first_order=first_order,
    )
    assert {rate.shape for rate in learner.rates.values()} == {(3,)}
    scatter(learner.rates)
    assert_equal_losses(
        learner,
        make_batches(task),
        task,
        lambda step, name: learner.rates[key(name)][step],
    )


@pytest.mark.parametrize("rule", VARIANTS)
def test_learned_rules_start_as_gradient_descent(rule):
    support, query = make_batches("shared")
    plain = make_learner(task="shared", inner_lr=0.1)
    learner = make_learner(task="shared", inner_lr=rule)
    # Parameters begin in single precision.
    torch.testing.assert_close(
        learner.episode(support, query),
        plain.episode(support, query),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("rule", VARIANTS)
def test_last_rates_are_repeated(rule):
    learner = make_learner(task="regression", inner_lr=rule, adapt_steps=5).eval()
    scatter(learner.rates)
    support, query = make_batches("regression")
    assert learner.episode(support, query)[query.mask].isfinite().all()
    two = learner.inner_steps
    if rule == "per_layer":
        longer = make_learner(task="regression", inner_lr=rule, inner_steps=5)
        for name, rates in longer.rates.items():
            own = learner.rates[name]
            rates.data = torch.cat([own, own[-1:].expand(5 - two)]).data
        torch.testing.assert_close(
            learner.episode(support, query), longer.episode(support, query), **TOLERANCE
        )


@pytest.mark.parametrize("kind", ["norm", "rows"])
@pytest.mark.parametrize("rule", VARIANTS)
def test_rules_with_other_layers_in_chunks(rule, kind):
    torch.manual_seed(0)
    n_features = 8 if kind == "rows" else N_FEATURES
    learner = MAML(
        backbone(kind), n_features, n_classes=3, inner_lr=rule, inner_steps=2
    ).double()
    scatter(learner.rates)
    support, query = make_batches("shared")
    if kind == "rows":
        rows = (b.X.unsqueeze(2) for b in (support, query))
        support, query = (
            TaskBatch(X, b.y, b.mask, b.n_classes)
            for X, b in zip(rows, (support, query), strict=True)
        )
    parameters = [*learner.parameters()]
    found = in_chunks(learner.episode, support, query, parameters, 2)
    expected = learner.episode(support, query)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    pairs = [
        gradients(out[query.mask].square().sum(), learner) for out in (found, expected)
    ]
    torch.testing.assert_close(*pairs, **TOLERANCE)


def test_alfa_needs_something_to_see():
    with pytest.raises(ValueError, match="alfa.*labels per task"):
        make_learner(inner_lr="alfa", adapt="head")


def test_unknown_rule():
    with pytest.raises(ValueError, match="per_layer.*got 'often'"):
        make_learner(inner_lr="often")
    with pytest.raises(ValueError, match="inner_lr"):
        MAMLRegressor(inner_lr="often").fit(make_sinusoid_tasks(3, random_state=0))


# --------------------------------------------------------------------------- proximal
@pytest.mark.parametrize("cls", [MAML, Reptile])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", TASKS)
def test_proximal_is_a_quadratic_in_the_loss(task, kind, cls):
    learner = make_learner(kind, task, cls=cls, proximal=0.7, inner_steps=3).eval()
    support, _ = make_batches(task)
    state = learner.adapt(support)
    for t in range(support.n_tasks):
        X, y, ways = one_task(support, t)
        body = dict(learner.backbone.named_parameters())
        head = dict(zip("wb", start_of_head(learner, X, y, ways), strict=True))
        start = {k: p.detach() for k, p in {**body, **head}.items()}
        fast = {k: p.clone().requires_grad_() for k, p in start.items()}
        for _ in range(3):
            out = functional_call(learner.backbone, {k: fast[k] for k in body}, (X,))
            loss = row_losses(out @ fast["w"].T + fast["b"], y, task).mean()
            pull = sum((fast[k] - start[k]).square().sum() for k in fast)
            found = torch.autograd.grad(loss + 0.35 * pull, [*fast.values()])
            steps = zip(fast.items(), found, strict=True)
            fast = {k: (p - 0.3 * g).detach().requires_grad_() for (k, p), g in steps}
        for name, tensor in fast.items():
            ours = state[key(name).replace("/", ".")][t]
            if name in "wb":
                ours = ours[:ways] if task != "regression" else ours
            torch.testing.assert_close(ours, tensor, **TOLERANCE)


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_proximal_meta_gradient(kind):
    """Through the loop, against finite differences."""
    learner = make_learner(kind, "regression", proximal=0.7, inner_steps=3)
    support, query = make_batches("regression")
    loss = episode_loss(learner, support, query, "regression")
    (bias,) = torch.autograd.grad(loss, learner.head.bias)
    values = []
    for way in (1e-5, -1e-5):
        other = copy.deepcopy(learner)
        other.head.bias.data += way
        values.append(episode_loss(other, support, query, "regression").item())
    assert bias.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


# -------------------------------------------------------------- losses of all the steps
def mean_loss(output, query, task):
    rows = torch.ones(query.y.shape, dtype=bool) if query.mask is None else query.mask
    output = output.unsqueeze(-1) if task == "regression" else output
    return row_losses(output[rows], query.y[rows], task).mean()


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("ragged", [True, False], ids=["ragged", "full"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", TASKS)
def test_multi_step_loss(task, kind, ragged, first_order):
    options = {"first_order": first_order, "inner_steps": 3}
    learner = make_learner(kind, task, multi_step_loss=4, **options)
    batches = make_batches(task, ragged)
    for weights in ([1, 1, 1], [0.75, 0.75, 1.5], [0.5, 0.5, 2], [0.25, 0.25, 2.5]):
        learner.begin_step()
        output = learner.episode(*batches)
        found = gradients(mean_loss(output, batches[1], task), learner)
        expected = 0.0
        for step, weight in enumerate(weights, 1):
            other = copy.copy(learner)
            other.inner_steps, other.multi_step_loss = step, 0
            alone = other.episode(*batches)
            expected += weight / 3 * mean_loss(alone, batches[1], task)
        torch.testing.assert_close(output, alone, **TOLERANCE)
        torch.testing.assert_close(found, gradients(expected, learner), **TOLERANCE)
    learner.begin_step()
    assert torch.equal(learner.episode(*batches), alone)
    assert learner._weight_of_early_steps() == 0


@pytest.mark.parametrize("size", [1, 2])
def test_multi_step_loss_in_chunks(size):
    learner = make_learner(task="regression", multi_step_loss=2)
    batches = make_batches("regression")  # query sets of different sizes
    parameters = [*learner.parameters()]
    found = in_chunks(learner.episode, *batches, parameters, size)
    outputs = found, learner.episode(*batches)
    pairs = [
        gradients(mean_loss(o, batches[1], "regression"), learner) for o in outputs
    ]
    torch.testing.assert_close(*pairs, **TOLERANCE)


def test_annealing_follows_the_training():
    learner = make_learner(task="regression", first_order=2, multi_step_loss=4)
    episode = Episode(learner)
    inputs = [as_inputs(batch) for batch in make_batches("regression")]
    seen = []
    for _ in range(4):
        episode(*inputs)
        seen.append((learner.first_order, learner._weight_of_early_steps()))
    assert seen == [(True, 0.5), (True, 0.375), (False, 0.25), (False, 0.125)]
    episode.eval()(*inputs)
    assert int(learner.n_begun) == 4
    again = make_learner(task="regression", first_order=2, multi_step_loss=4)
    again.load_state_dict(learner.state_dict())
    assert int(again.n_begun) == 4
    assert "n_begun" not in make_learner().state_dict()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_defaults_take_sinusoids(seed):
    """At a rate of 0.1, inputs up to 5 have it diverge; a warning would be an error."""
    *tasks, new = make_sinusoid_tasks(101, random_state=seed)
    meta = MAMLRegressor(n_episodes=80, random_state=seed).fit(tasks)
    assert meta.n_diverged_ == 0
    assert np.isfinite(meta.adapt(new.X[:5], new.y[:5]).predict(new.X)).all()


def test_annealing_survives_pickling_and_goes_on():
    tasks = make_sinusoid_tasks(20, random_state=0)
    meta = MAMLRegressor(
        n_episodes=32, multi_step_loss=3, first_order=2, random_state=0
    ).fit(tasks)
    begun = int(meta.learner_.n_begun)
    assert begun == 20 * 2  # epochs of two meta-batches
    other = pickle.loads(pickle.dumps(meta)).partial_fit(tasks)
    assert int(other.learner_.n_begun) == 2 * begun
    assert other.net_.module_.learner.first_order is False


# ------------------------------------------------------------------------------- CAVIA
def make_cavia(task, n_context=2, kind="linear", **options):
    torch.manual_seed(0)
    module = {
        "linear": nn.Sequential(
            nn.Linear(5 + n_context, 6), nn.Tanh(), nn.Linear(6, 4)
        ),
        "softmax": nn.Sequential(nn.Linear(5 + n_context, 4), nn.Softmax(dim=1)),
    }[kind]
    settings = {
        "per_task": {},
        "shared": {"n_classes": 3},
        "regression": {"task": "regression"},
    }[task]
    options = {"inner_lr": 0.5, "n_context": n_context, **settings, **options}
    return CAVIA(module.double(), 4, **options).double()


def plain_cavia(learner, support, query, task, rates):
    total = 0.0
    for t in range(support.n_tasks):
        X, y, ways = one_task(support, t)
        context = torch.zeros(learner.n_context).double().requires_grad_()

        def features(X, context):
            return learner.backbone(torch.cat([X, context.expand(len(X), -1)], 1))

        if learner.head is not None:
            w, b = learner.head.weight, learner.head.bias
        else:
            start = features(X, torch.zeros_like(context))
            means = torch.stack([start[y == c].mean(0) for c in range(ways)])
            w, b = 2 * means, -means.square().sum(1)
        for rate in rates:
            loss = row_losses(features(X, context) @ w.T + b, y, task).mean()
            (found,) = torch.autograd.grad(
                loss, context, create_graph=not learner.first_order
            )
            context = context - rate * found
        X, y, _ = one_task(query, t)
        total = total + row_losses(features(X, context) @ w.T + b, y, task).mean()
    return total


@pytest.mark.parametrize("ragged", [True, False], ids=["ragged", "full"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", TASKS)
def test_cavia_equals_plain_loop(task, kind, first_order, ragged):
    learner = make_cavia(task, kind=kind, first_order=first_order, inner_steps=3)
    batches = make_batches(task, ragged)
    found = episode_loss(learner, *batches, task)
    expected = plain_cavia(learner, *batches, task, [0.5] * 3)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    torch.testing.assert_close(
        gradients(found, learner), gradients(expected, learner), **TOLERANCE
    )


def test_cavia_learned_rates():
    learner = make_cavia("regression", inner_lr="learned")
    scatter(learner.rates)
    batches = make_batches("regression")
    found = episode_loss(learner, *batches, "regression")
    rates = [learner.rates["context"]] * 2
    expected = plain_cavia(learner, *batches, "regression", rates)
    torch.testing.assert_close(
        gradients(found, learner), gradients(expected, learner), **TOLERANCE
    )


def test_cavia_in_chunks():
    learner = make_cavia("regression")
    batches = make_batches("regression")
    parameters = [*learner.parameters()]
    outputs = (
        in_chunks(learner.episode, *batches, parameters, 2),
        learner.episode(*batches),
    )
    pairs = [gradients(o[batches[1].mask].square().sum(), learner) for o in outputs]
    torch.testing.assert_close(*pairs, **TOLERANCE)


def test_cavia_keeps_the_context_only():
    learner = make_cavia("regression")
    support, query = make_batches("regression")
    assert {k: v.shape for k, v in learner.adapt(support).items()} == {
        "context": (3, 2)
    }
    nothing = TaskBatch(support.X[:, :0], support.y[:, :0])
    assert not learner.adapt(nothing)["context"].any()
    tasks = make_sinusoid_tasks(20, random_state=0)
    meta = CAVIARegressor(random_state=0).fit(tasks)
    meta.predict(tasks[0].X, groups=[0] * len(tasks[0].X))
    (block,) = meta.states_.blocks
    assert block.state["context"].shape == (20, 5)


def test_context_as_columns_and_as_channels():
    context = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    vectors = widen(torch.zeros(2, 3, 5), context)
    assert vectors.shape == (2, 3, 7)
    assert torch.equal(vectors[1, 2], torch.tensor([0, 0, 0, 0, 0, 3.0, 4.0]))
    images = widen(torch.zeros(2, 3, 4, 4), context)
    assert images.shape == (2, 3, 3, 4, 4)
    assert (images[0, :, 2] == 2).all() and not images[:, :, 0].any()
    assert widen(torch.zeros(2, 3, 2, 4, 4), context).shape == (2, 3, 4, 4, 4)
    with pytest.raises(ValueError, match="numbers.*int64"):
        widen(torch.zeros(2, 3, 5, dtype=int), context)


def test_cavia_on_images():
    X = np.random.default_rng(0).normal(size=(60, 8, 8)).astype(np.float32)
    y = np.arange(60) % 6
    meta = CAVIAClassifier(n_ways=3, n_queries=5, random_state=0).fit(X, y)
    assert meta.adapt(X[:20], y[:20]).predict(X).shape == (60,)
    again = pickle.loads(pickle.dumps(meta))
    np.testing.assert_allclose(again.predict_proba(X), meta.predict_proba(X))


def test_cavia_refuses_batch_norm():
    with pytest.raises(ValueError, match="batch norm"):
        CAVIA(nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4)), 4)


# ----------------------------------------------------------------------- implicit MAML
def linear_problem(seed=0, ragged=True):
    """Ridge regression of each task; the backbone does nothing."""
    batch = make_batch((6, 4, 5) if ragged else (6,) * 3, seed)
    query = make_batch((3, 5, 2), seed + 1)
    learner = ImplicitMAML(
        nn.Flatten(), 5, task="regression", proximal=0.8, inner_steps=4000, cg_steps=9
    ).double()
    return learner, batch, query


def closed_form_loss(learner, support, query):
    """The minimum of squared error plus pull, solved, and its query loss."""
    start = torch.cat([learner.head.weight[0], learner.head.bias])
    total = 0.0
    for t in range(support.n_tasks):
        X, y, _ = one_task(support, t)
        A = torch.cat([X, torch.ones(len(X), 1).double()], 1)
        half = learner.proximal / 2
        left = A.T @ A / len(X) + half * torch.eye(6).double()
        solved = torch.linalg.solve(left, A.T @ y / len(X) + half * start)
        X, y, _ = one_task(query, t)
        total = total + (X @ solved[:5] + solved[5] - y).square().mean()
    return total


@pytest.mark.parametrize("ragged", [True, False], ids=["ragged", "full"])
def test_implicit_gradient_of_a_quadratic(ragged):
    learner, support, query = linear_problem(ragged=ragged)
    found = episode_loss(learner, support, query, "regression")
    expected = closed_form_loss(learner, support, query)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    implicit_gradients = gradients(found, learner)
    torch.testing.assert_close(
        implicit_gradients, gradients(expected, learner), rtol=1e-6, atol=1e-8
    )
    unrolled = MAML(
        nn.Flatten(),
        5,
        task="regression",
        proximal=0.8,
        inner_lr=0.1,
        inner_steps=400,
    ).double()
    unrolled.load_state_dict(learner.state_dict())
    other = gradients(episode_loss(unrolled, support, query, "regression"), unrolled)
    torch.testing.assert_close(implicit_gradients, other, rtol=1e-6, atol=1e-8)


def exact_implicit_gradient(learner, support, query, task):
    """Dense Hessians at the end of the inner loop, one task after the other."""
    state = learner.adapt(support)
    body = dict(learner.backbone.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in learner.named_parameters()}
    for t in range(support.n_tasks):
        X, y, ways = one_task(support, t)
        names = [*(f"backbone.{k}" for k in body), "head.weight", "head.bias"]
        values = {k: state[k][t].detach() for k in names}
        if task == "per_task":
            values = {k: v[:ways] if "head" in k else v for k, v in values.items()}
        sizes = [v.numel() for v in values.values()]

        def loss(flat, X, y, values=values, sizes=sizes):
            parts = zip(values.items(), flat.split(sizes), strict=True)
            fast = {k: part.view_as(v) for (k, v), part in parts}
            own = {k: fast[f"backbone.{k}"] for k in body}
            out = functional_call(learner.backbone, own, (X,))
            out = out @ fast["head.weight"].T + fast["head.bias"]
            return row_losses(out, y, task).mean()

        flat = torch.cat([v.flatten() for v in values.values()])
        args = X, y
        hessian = torch.autograd.functional.hessian(lambda p: loss(p, *args), flat)  # noqa: B023
        X, y, _ = one_task(query, t)
        (right,) = torch.autograd.grad(loss(flat.requires_grad_(), X, y), flat)
        left = torch.eye(len(flat)).double() + hessian / learner.proximal
        solved = torch.linalg.solve(left, right).split(sizes)
        for (name, value), part in zip(values.items(), solved, strict=True):
            if name in total:
                total[name] += part.view_as(value)
    return total


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("task", TASKS)
def test_implicit_gradient_equals_dense_solution(task, kind):
    options = {"inner_lr": 0.3, "proximal": 2.0, "inner_steps": 30, "cg_steps": 90}
    learner = make_learner(kind, task, cls=ImplicitMAML, **options)
    batches = make_batches(task)
    found = gradients(episode_loss(learner, *batches, task), learner)
    expected = exact_implicit_gradient(learner, *batches, task)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_implicit_without_conjugate_gradients_is_first_order():
    learner = make_learner(task="regression", cls=ImplicitMAML, cg_steps=0)
    batches = make_batches("regression")
    found = gradients(episode_loss(learner, *batches, "regression"), learner)
    first = make_learner(task="regression", first_order=True, proximal=learner.proximal)
    assert first.inner_steps == learner.inner_steps
    expected = gradients(episode_loss(first, *batches, "regression"), first)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def kept_numbers(learner, support, query):
    """Numbers that the graph of an episode keeps, its parameters left out."""
    own = {p.data_ptr() for p in learner.parameters()}
    kept = weakref.WeakSet()

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor
            if tensor.data_ptr() not in own:
                kept.add(self)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        output = learner.episode(support, query)
    assert output.requires_grad
    return sum(each.tensor.numel() for each in kept)


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_memory_of_the_inner_loop(kind):
    batches = make_batches("regression", ragged=False)

    def kept(n_steps, **options):
        learner = make_learner(kind, "regression", inner_steps=n_steps, **options)
        return kept_numbers(learner, *batches)

    assert kept(3, cls=ImplicitMAML) == kept(9, cls=ImplicitMAML)
    assert kept(3, first_order=True) == kept(9, first_order=True)
    assert kept(3, first_order=True, proximal=0.5) == kept(
        9, first_order=True, proximal=0.5
    )
    assert kept(9) > 2 * kept(3)


def test_minimise_never_rises():
    learner, support, _ = linear_problem()
    problem = learner.problem(support)
    start = minimise(problem.loss, problem.initial, 1e6, 0, 0.8)
    heights = [problem.loss.values(start)]
    for n_steps in (10, 40, 400):
        found = minimise(problem.loss, problem.initial, 1e6, n_steps, 0.8)
        pull = sum((found[k] - start[k]).square().flatten(1).sum(1) for k in found)
        heights.append(problem.loss.values(found) + 0.4 * pull)
    heights = torch.stack(heights)
    assert (heights.diff(dim=0) <= 1e-12).all()
    assert (heights[-1] < heights[0]).all()


def test_conjugate_gradients():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, 6, 6, generator=generator).double()
    A = A @ A.transpose(1, 2) + torch.eye(6)
    A[1] = torch.eye(6)  # solved at the start
    A[2] = -torch.eye(6)  # not positive definite
    right = torch.randn(3, 6, generator=generator).double()
    found = conjugate_gradients(lambda v: (A @ v[..., None])[..., 0], right, 50)
    expected = torch.linalg.solve(A[:2], right[:2])
    torch.testing.assert_close(found[:2], expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(found[2], right[2])


@pytest.mark.parametrize("kind", ["linear", "norm", "softmax"])
def test_implicit_in_chunks(kind):
    learner = make_learner(kind, "regression", cls=ImplicitMAML)
    batches = make_batches("regression")
    parameters = [*learner.parameters()]
    outputs = (
        in_chunks(learner.episode, *batches, parameters, 2),
        learner.episode(*batches),
    )
    pairs = [gradients(o[batches[1].mask].square().sum(), learner) for o in outputs]
    torch.testing.assert_close(*pairs, **TOLERANCE)


def test_implicit_names_and_orders_do_not_matter():
    learner, support, _ = linear_problem()
    problem = learner.problem(support)
    minimum = minimise(problem.loss, problem.initial, 0.1, 5, 0.8)
    swapped = dict(reversed(minimum.items()))
    results = []
    for order in (minimum, swapped):
        found = implicit(problem.loss, problem.initial, order, 0.8, 3)
        loss = sum(p.square().sum() for p in found.values())
        results.append(gradients(loss, learner))
    torch.testing.assert_close(*results, **TOLERANCE)


def test_implicit_adapts_with_a_huge_rate():
    tasks = make_sinusoid_tasks(20, random_state=0)
    meta = ImplicitMAMLRegressor(
        inner_lr=1e4, inner_steps=40, n_episodes=16, random_state=0
    )
    meta.fit(tasks)
    assert meta.n_diverged_ == 0
    assert np.isfinite(meta.adapt(*tasks[0]).predict(tasks[0].X)).all()


# ------------------------------------------------------------------------- step by step
@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_path_ends_where_the_descent_does(kind):
    learner = make_learner(kind, "regression", inner_steps=3)
    support, _ = make_batches("regression")
    problem = learner.problem(support)
    *_, end = learner.path(problem, 3)
    assert len([*learner.path(problem, 3)]) == 4
    torch.testing.assert_close(end, learner.descend(problem, 3), **TOLERANCE)
    X, y, ways = one_task(support, 0)
    plain = plain_adapt(learner, X, y, ways, "regression", lambda step, name: 0.3)
    torch.testing.assert_close(end["head.weight"][0], plain["w"], **TOLERANCE)


def test_written_out_gradient_as_an_operation():
    learner = make_learner(task="regression")
    support, _ = make_batches("regression")
    loss = learner.problem(support).loss
    assert isinstance(loss, StackLoss)
    initial = learner.problem(support).initial
    names = [*initial]
    values = [p.detach().clone().requires_grad_() for p in initial.values()]

    def gradient(*tensors):
        fast = dict(zip(names, tensors, strict=True))
        return tuple(loss.gradients(fast, second_order=True).values())

    assert torch.autograd.gradcheck(gradient, values)
    with torch.no_grad():
        silent = [*path(loss, initial, 0.1, 2)][-1]
    assert not any(p.requires_grad for p in silent.values())


@pytest.mark.filterwarnings("ignore::skmeta.DivergenceWarning")
@pytest.mark.parametrize("inner_lr", VARIANTS)
@pytest.mark.parametrize("estimator", [MAMLClassifier, MAMLRegressor, CAVIARegressor])
def test_estimators_with_learned_rules(estimator, inner_lr):
    is_classifier = "n_ways" in estimator().get_params()
    tasks = [
        (task.X, (task.y > np.median(task.y)).astype(int) if is_classifier else task.y)
        for task in make_sinusoid_tasks(10, 12, random_state=0)
    ]
    meta = estimator(inner_lr=inner_lr, n_episodes=16, random_state=0).fit(tasks)
    rows = [np.column_stack([X]) for X, _ in tasks]
    expected = meta.predict(rows[0], groups=[0] * 12)
    again = pickle.loads(pickle.dumps(meta))
    np.testing.assert_allclose(again.predict(rows[0], groups=[0] * 12), expected)
    more = clone(meta).set_params(n_episodes=64).fit(tasks)
    learned = [
        torch.cat([p.flatten() for p in model.learner_.rates.parameters()])
        for model in (meta, more)
    ]
    assert not torch.allclose(*learned)
