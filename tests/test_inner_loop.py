"""The inner-loop engine against a plain loop over tasks, in double precision."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import weight_norm

from skmeta.inner_loop import (
    Affine,
    CrossEntropy,
    EpisodicBatchNorm,
    SquaredError,
    TaskForward,
    as_stack,
    in_chunks,
    objective_of,
    replace_gradient,
    sgd,
    share_of_tasks,
    stack_sgd,
    without_running_statistics,
)
from skmeta.modules import Recurrent, TemporalConv
from skmeta.tasks import TaskBatch

RAGGED = (4, 1, 6), (3, 5, 2)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


# --------------------------------------------------------------------------- modules
class Last(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, X):
        return self.layer(X)[0][:, -1]


class Mean(nn.Module):
    def forward(self, X):
        return X.mean(1)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, X):
        return self.attention(X, X, X, need_weights=False)[0]


class Branching(nn.Module):
    """Reads a value, which vmap cannot."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 4)

    def forward(self, X):
        out = self.linear(X)
        return out.tanh() if out.sum() > 0 else out.sigmoid()


class Selecting(Branching):
    """Selects by a mask, which gives a shape that depends on values."""

    def forward(self, X):
        out = self.linear(X)
        return out + out[out > 0].sum()


class Shifted(Branching):
    """Has a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, X):
        return (self.linear(X) + self.shift).tanh()


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, X):
        return self.second(self.first(X).tanh())


class Tokens(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embedding = nn.Embedding(7, 3, **options)
        self.linear = nn.Linear(3, 4)

    def forward(self, X):
        return self.linear(self.embedding(X).mean(1)).tanh()


def stack(*layers):
    return nn.Sequential(*layers)


def reused():
    activation = nn.Tanh()
    return stack(nn.Linear(5, 6), activation, nn.Linear(6, 4), activation)


def sized(backbone, shape):
    """A backbone that has seen its first rows, in double precision from then on."""
    with torch.no_grad():
        backbone.eval()(torch.zeros(2, *shape))
    return backbone.train()


#: Name: constructor, shape of a row. Where batched products apply it is noted below.
MODULES = {
    "linear": (lambda: stack(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)), (5,)),
    "smooth": (
        lambda: stack(
            nn.Flatten(), nn.Linear(6, 6), nn.Tanh(), stack(nn.Linear(6, 5), nn.GELU())
        ),
        (2, 3),
    ),
    "no bias": (lambda: stack(nn.Linear(5, 4, bias=False), nn.Sigmoid()), (5,)),
    "in place": (lambda: stack(nn.Linear(5, 4), nn.ELU(inplace=True)), (5,)),
    "more axes": (lambda: stack(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2)), (2, 3)),
    "reused": (reused, (5,)),
    "layer norm": (
        lambda: stack(nn.Linear(5, 6), nn.LayerNorm(6), nn.ELU(), nn.Linear(6, 4)),
        (5,),
    ),
    "dropout": (
        lambda: stack(nn.Linear(5, 6), nn.Dropout(0.0), nn.Mish(), nn.Linear(6, 4)),
        (5,),
    ),
    "softmax": (lambda: stack(nn.Linear(5, 6), nn.Softmax(dim=1)), (5,)),
    "tied": (Tied, (5,)),
    "buffer": (Shifted, (5,)),
    "weight norm": (lambda: stack(weight_norm(nn.Linear(5, 4)), nn.Tanh()), (5,)),
    "prelu": (lambda: stack(nn.Linear(5, 4), nn.PReLU()), (5,)),
    "group norm": (
        lambda: stack(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh()),
        (2, 5),
    ),
    "instance norm": (
        lambda: stack(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, affine=True), nn.Tanh()),
        (2, 6),
    ),
    "instance norm 2d": (
        lambda: stack(nn.Conv2d(1, 2, 2), nn.InstanceNorm2d(2, affine=True), nn.Tanh()),
        (1, 4, 4),
    ),
    "conv1d": (
        lambda: stack(nn.Conv1d(2, 3, 3, padding=1), nn.Tanh(), nn.AvgPool1d(2)),
        (2, 6),
    ),
    "conv2d": (
        lambda: stack(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)),
        (1, 4, 4),
    ),
    "adaptive pool": (
        lambda: stack(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1)),
        (1, 4, 4),
    ),
    "embedding": (Tokens, (4,)),
    "attention": (SelfAttention, (3, 6)),
    "transformer": (
        lambda: stack(
            nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True), Mean()
        ),
        (3, 6),
    ),
    "rnn": (lambda: Last(nn.RNN(3, 4, batch_first=True)), (4, 3)),
    "gru": (lambda: Last(nn.GRU(3, 4, batch_first=True)), (4, 3)),
    "lstm": (lambda: Last(nn.LSTM(3, 4, batch_first=True)), (4, 3)),
    "recurrent": (
        lambda: sized(Recurrent(3, "lstm", bidirectional=True, pooling="mean"), (4, 2)),
        (4, 2),
    ),
    "temporal conv": (
        lambda: sized(TemporalConv(3, 2, pooling="attention"), (4, 2)),
        (4, 2),
    ),
    "branching": (Branching, (5,)),
    "selecting": (Selecting, (5,)),
}
BATCHED = {
    *("linear", "smooth", "no bias", "in place", "more axes", "reused", "layer norm"),
    "dropout",
}
LOOP_ONLY = {
    *("rnn", "gru", "lstm", "recurrent", "branching", "selecting"),
    "weight norm",
}
NORMS = {
    "batch norm": (
        lambda: stack(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)),
        (5,),
    ),
    "batch norm 1d": (
        lambda: stack(nn.Conv1d(2, 4, 2), nn.BatchNorm1d(4), nn.Tanh()),
        (2, 5),
    ),
    "batch norm 2d": (
        lambda: stack(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Tanh()),
        (1, 4, 4),
    ),
}


def cases():
    for name in MODULES:
        strategies = ["auto", "loop"]
        strategies += [] if name in LOOP_ONLY else ["vmap"]
        strategies += ["batched"] if name in BATCHED else []
        yield from (pytest.param(name, s, id=f"{name}-{s}") for s in strategies)


def make(name):
    torch.manual_seed(0)
    build, shape = {**MODULES, **NORMS}[name]
    return build().double(), shape


def make_batch(shape, counts, seed, integers=False):
    """A padded batch; None instead of the mask where nothing is padded."""
    generator = torch.Generator().manual_seed(seed)
    width = max(counts)
    X = torch.randn(len(counts), width, *shape, generator=generator).double()
    if integers:
        X = torch.randint(7, X.shape, generator=generator)
    y = torch.randn(len(counts), width, generator=generator).double()
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    X[~mask], y[~mask] = 0, 0
    return TaskBatch(X, y, None if bool(mask.all()) else mask)


def projection(n_features):
    return torch.linspace(-1, 1.5, n_features).double().unsqueeze(1)


# ------------------------------------------------------------------------- references
def plain_loss(module, parameters, X, y):
    out = functional_call(module, parameters, (X,)).flatten(1)
    return ((out @ projection(out.shape[1])).squeeze(1) - y).square().mean()


def rows_of(batch, t):
    keep = slice(None) if batch.mask is None else batch.mask[t]
    return batch.X[t][keep], batch.y[t][keep]


def plain_loop(module, support, query, n_steps, rate, first_order):
    """Outer loss and meta-gradient, one task after the other."""
    initial = dict(module.named_parameters())
    total = 0.0
    for t in range(support.n_tasks):
        fast = dict(initial)
        for _ in range(n_steps):
            loss = plain_loss(module, fast, *rows_of(support, t))
            gradients = torch.autograd.grad(
                loss, list(fast.values()), create_graph=not first_order
            )
            pairs = zip(fast.items(), gradients, strict=True)
            fast = {name: p - rate * g.to_dense() for (name, p), g in pairs}
        total = total + plain_loss(module, fast, *rows_of(query, t))
    return total, torch.autograd.grad(total, list(initial.values()))


def engine(module, strategy, support, query, n_steps, rate, first_order):
    forward = TaskForward(module, strategy)

    def outputs(fast, batch):
        features = forward(fast, batch)
        return features @ projection(features.shape[-1]).to(features)

    objective = objective_of(support, torch.float64)
    initial = {
        k: p.expand(support.n_tasks, *p.shape) for k, p in module.named_parameters()
    }
    fast = sgd(
        lambda fast: objective(outputs(fast, support)),
        initial,
        rate,
        n_steps,
        first_order,
    )
    total = objective_of(query, torch.float64)(outputs(fast, query)).sum()
    return total, torch.autograd.grad(total, list(module.parameters()))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, **TOLERANCE)


# ---------------------------------------------------------------------- meta-gradients
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("name, strategy", list(cases()))
def test_meta_gradient_equals_plain_loop(name, strategy, first_order):
    module, shape = make(name)
    for support_counts, query_counts in (RAGGED, ((3, 3, 3), (2, 2, 2))):
        support = make_batch(shape, support_counts, 1, "embedding" in name)
        query = make_batch(shape, query_counts, 2, "embedding" in name)
        arguments = support, query, 2, 0.05, first_order
        with sdpa_kernel(SDPBackend.MATH):
            expected = plain_loop(module, *arguments)
        assert_close(engine(module, strategy, *arguments), expected)


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_sparse_embedding(first_order):
    module, shape = make("embedding")
    batches = (
        make_batch(shape, (4, 1, 6), 1, True),
        make_batch(shape, (2,) * 3, 2, True),
    )
    expected = plain_loop(module, *batches, 2, 0.05, first_order)
    module.embedding.sparse = True
    assert_close(engine(module, "auto", *batches, 2, 0.05, first_order), expected)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_layer_under_two_names(strategy):
    class Twice(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, X):
            return self.layer(self.layer(X).tanh())

    module = Twice(nn.Linear(5, 5).double())
    batches = make_batch((5,), (4, 1, 6), 1), make_batch((5,), (2, 2, 2), 2)
    expected = plain_loop(module, *batches, 2, 0.05, False)
    module.again = module.layer
    assert_close(engine(module, strategy, *batches, 2, 0.05, False), expected)


@pytest.mark.parametrize(
    "name, strategy",
    [
        *(("linear", "batched"), ("in place", "batched"), ("reused", "batched")),
        *(("conv2d", "loop"), ("instance norm", "loop"), ("group norm", "loop")),
        *(("attention", "vmap"), ("transformer", "vmap"), ("embedding", "vmap")),
        *(("softmax", "vmap"), ("tied", "vmap"), ("batch norm", "vmap")),
        *((name, "loop") for name in sorted(LOOP_ONLY)),
    ],
)
def test_strategy_is_found_and_remembered(name, strategy):
    module, shape = make(name)
    forward = TaskForward(without_running_statistics(module))
    batch = make_batch(shape, (3, 2), 1, "embedding" in name)
    before = torch.get_rng_state()
    assert forward.plan(batch) == strategy
    assert torch.equal(torch.get_rng_state(), before)
    forward._find = None  # not asked again
    assert forward.plan(batch) == strategy


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["linear", "conv2d", "transformer"])
def test_meta_gradient_on_a_gpu(name):
    module, shape = make(name)
    batches = [make_batch(shape, counts, 1) for counts in RAGGED]
    with sdpa_kernel(SDPBackend.MATH):
        expected = plain_loop(module, *batches, 2, 0.05, False)
    module.cuda()
    batches = [
        TaskBatch(batch.X.cuda(), batch.y.cuda(), batch.mask.cuda())
        for batch in batches
    ]
    plan = "batched" if name == "linear" else "vmap"
    assert TaskForward(module).plan(batches[0]) == plan
    total, gradients = engine(module, "auto", *batches, 2, 0.05, False)
    assert_close((total.cpu(), tuple(g.cpu() for g in gradients)), expected)


def test_strategy_that_does_not_apply():
    with pytest.raises(ValueError, match="needs an nn.Sequential"):
        TaskForward(nn.Conv1d(1, 1, 1), "batched")
    with pytest.raises(ValueError, match="must be one of"):
        TaskForward(nn.Linear(1, 1), "scan")


def test_hooks_are_not_skipped():
    module, _ = make("linear")
    module[0].register_forward_hook(lambda module, inputs, output: output + 1)
    forward = TaskForward(module)
    batch = make_batch((5,), (3, 3), 1)
    fast = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}
    assert_close(forward(fast, batch)[1], module(batch.X[1]))


def test_only_some_parameters_are_fast():
    module, shape = make("transformer")
    batch = make_batch(shape, (3, 2), 1)
    own = dict(module.named_parameters())
    name = "0.linear1.weight"
    fast = {name: torch.stack([own[name], 2 * own[name]])}
    results = [TaskForward(module, s)(fast, batch) for s in ("vmap", "loop")]
    expected = functional_call(module, {name: 2 * own[name]}, (batch.X[1][:2],))
    for result in results:
        assert_close(result[1, :2], expected)


@pytest.mark.parametrize("name", ["attention", "transformer"])
def test_attention_without_gradients(name):
    module, shape = make(name)
    module.eval().requires_grad_(False)
    batch = make_batch(shape, (3, 3), 1)
    forward = TaskForward(module, "vmap")
    fast = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}
    with torch.no_grad():
        out = forward(fast, batch)
        expected = torch.stack([module(X).flatten(1) for X in batch.X])
    assert not out.requires_grad
    torch.testing.assert_close(out, expected)
    assert torch.backends.cuda.flash_sdp_enabled()


def test_dropout_differs_between_tasks_and_ends_in_evaluation():
    module = stack(nn.Linear(50, 50), nn.Dropout(), nn.Softmax(dim=1)).double()
    X = torch.ones(1, 1, 50).double().expand(2, 1, 50)
    fast = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}
    forward = TaskForward(module, "vmap")
    first, second = forward(fast, TaskBatch(X))
    assert not torch.equal(first, second)
    module.eval()
    first, second = forward(fast, TaskBatch(X))
    assert torch.equal(first, second)


def test_buffers_are_left_alone():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, X):
            self.calls += 1
            return self.linear(X)

    module = Counter()
    forward = TaskForward(module)
    fast = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}
    forward(fast, TaskBatch(torch.zeros(2, 3, 5)))
    assert module.calls == 0


# -------------------------------------------------------------------------- batch norm
class PlainNorm(nn.Module):
    """Batch norm with statistics that can be given, for the reference."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias, self.given = weight, bias, None

    def forward(self, X):
        axes = [0, *range(2, X.ndim)]
        self.seen = X.mean(axes), X.var(axes, unbiased=False)
        mean, variance = self.seen if self.given is None else self.given
        shape = (-1,) + (1,) * (X.ndim - 2)
        scaled = (X - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
        return scaled * self.weight.view(shape) + self.bias.view(shape)


def plain_norm_loop(module, support, query, transductive):
    """Statistics of the support rows under the final parameters judge query rows."""
    module = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    place = next(i for i, m in enumerate(module) if "BatchNorm" in type(m).__name__)
    norm = PlainNorm(module[place].weight, module[place].bias)
    module[place] = norm
    initial, total = dict(module.named_parameters()), 0.0
    for t in range(support.n_tasks):
        fast, norm.given = dict(initial), None
        X, y = rows_of(support, t)
        for _ in range(2):
            loss = plain_loss(module, fast, X, y)
            found = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            pairs = zip(fast.items(), found, strict=True)
            fast = {name: p - 0.05 * g for (name, p), g in pairs}
        functional_call(module, fast, (X,))
        norm.given = None if transductive else norm.seen
        total = total + plain_loss(module, fast, *rows_of(query, t))
    return total, torch.autograd.grad(total, list(initial.values()))


@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize("strategy", ["auto", "vmap", "loop"])
@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_is_episodic(name, strategy, transductive):
    module, shape = make(name)
    nn.init.uniform_(module[1].weight)
    nn.init.uniform_(module[1].bias)
    for counts in (((4, 2, 6), (3, 5, 2)), ((3, 3, 3), (2, 2, 2))):
        support, query = (
            make_batch(shape, counts[0], 1),
            make_batch(shape, counts[1], 2),
        )
        expected = plain_norm_loop(module, support, query, transductive)
        episodic = without_running_statistics(module)
        forward = TaskForward(episodic, strategy)
        matrix = projection(forward({}, support).shape[-1])
        objective = objective_of(support, torch.float64)
        initial = {k: p.expand(3, *p.shape) for k, p in module.named_parameters()}
        fast = sgd(lambda f: objective(forward(f, support) @ matrix), initial, 0.05, 2)  # noqa: B023
        moments = None if transductive else forward.with_statistics(fast, support)[1]
        out = forward(fast, query, moments) @ matrix
        total = objective_of(query, torch.float64)(out).sum()
        found = torch.autograd.grad(total, list(module.parameters()))
        assert_close((total, found), expected)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_batch_norm_without_rows(strategy):
    module, _ = make("batch norm")
    forward = TaskForward(without_running_statistics(module), strategy)
    batch = make_batch((5,), (0, 3), 1)
    fast = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}
    features, moments = forward.with_statistics(fast, batch)
    assert features.isfinite().all()
    assert_close(moments["1.mean"][0], torch.zeros(4).double())
    assert_close(moments["1.variance"][0], torch.ones(4).double())
    nothing = TaskBatch(batch.X[:, :0], batch.y[:, :0])
    features, moments = forward.with_statistics(fast, nothing)
    assert features.shape == (2, 0, 3)
    assert_close(moments["1.variance"], torch.ones(2, 4).double())


def test_one_row_has_statistics():
    norm = EpisodicBatchNorm(nn.BatchNorm1d(3)).double()
    assert_close(norm(torch.randn(1, 3).double()), torch.zeros(1, 3).double())


def test_replacing_batch_norm_shares_parameters_and_edits_nothing():
    norm = nn.BatchNorm2d(2)
    module = stack(
        nn.Conv2d(1, 2, 1), norm, stack(norm), nn.BatchNorm2d(2, affine=False)
    )
    episodic = without_running_statistics(module)
    assert [*episodic.state_dict()] == [k for k, _ in module.named_parameters()] + [
        "2.0.weight",
        "2.0.bias",
    ]
    assert episodic[1] is episodic[2][0]
    assert all(
        a is b for a, b in zip(module.parameters(), episodic.parameters(), strict=True)
    )
    assert isinstance(module[1], nn.BatchNorm2d) and "num_features" not in repr(
        episodic
    )
    assert without_running_statistics(module[0]) is module[0]
    instance = nn.InstanceNorm1d(2, affine=True, track_running_stats=True)
    assert not without_running_statistics(instance)._buffers.get("running_mean")
    assert instance.running_mean is not None


# ---------------------------------------------------- derivatives that are written out
def random_stack(activation, task, seed=0):
    torch.manual_seed(seed)
    module = stack(
        nn.Linear(5, 6), activation, nn.Linear(6, 4, bias=False), activation
    ).double()
    module.append(nn.Linear(4, 3 if task == "classes" else 1).double())
    batch = make_batch((5,), (4, 1, 6), seed)
    if task == "classes":
        exists = torch.tensor([[True] * 3, [True, True, False], [True] * 3])
        y = torch.randint(2, batch.y.shape) * batch.mask
        batch = TaskBatch(batch.X, y, batch.mask, 3, exists)
    return module, batch


@pytest.mark.parametrize("rates", ["one", "each", "learned"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("task", ["classes", "numbers"])
@pytest.mark.parametrize(
    "activation",
    [
        *(nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU()),
        nn.Dropout(0.0),
    ],
    ids=lambda module: type(module).__name__,
)
def test_written_out_equals_automatic(activation, task, first_order, rates):
    module, batch = random_stack(activation, task)
    parameters = dict(module.named_parameters())
    step_sizes = {
        "one": 0.3,
        "each": (0.3, 0.1),
        "learned": {
            k: (0.1 + 0.1 * torch.rand_like(p)).requires_grad_()
            for k, p in parameters.items()
        },
    }[rates]
    inputs = [*parameters.values()]
    inputs += step_sizes.values() if rates == "learned" else []
    rows = batch.X.clone().requires_grad_()
    # In first order nothing comes through the rows.
    inputs += [] if first_order else [rows]
    stack_layers = as_stack(TaskForward(module).layers)
    objective = objective_of(batch, torch.float64)
    initial = {k: p.expand(3, *p.shape) for k, p in parameters.items()}

    def loss(fast):
        X = rows
        for layer in TaskForward(module).layers:
            X = layer(X, fast)
        return objective(X)

    options = initial, step_sizes, 3, first_order
    automatic = sgd(loss, *options)
    written = stack_sgd(
        stack_layers, objective, rows, initial, {}, step_sizes, 3, first_order
    )
    results = []
    for fast in (automatic, written):
        total = sum((p * (i + 1)).square().sum() for i, p in enumerate(fast.values()))
        results.append((fast, torch.autograd.grad(total, inputs)))
    assert_close(*results)
    with torch.no_grad():
        silent = stack_sgd(
            stack_layers, objective, rows, initial, {}, step_sizes, 3, first_order
        )
    assert_close(silent, automatic)


@pytest.mark.parametrize("fixed", [["0.weight"], ["4.weight", "4.bias"], ["2.weight"]])
def test_written_out_with_fixed_parameters(fixed):
    module, batch = random_stack(nn.Tanh(), "classes")
    parameters = {k: p.expand(3, *p.shape) for k, p in module.named_parameters()}
    initial = {k: p for k, p in parameters.items() if k not in fixed}
    rest = {k: parameters[k] for k in fixed}
    objective = objective_of(batch, torch.float64)
    layers = TaskForward(module).layers

    def loss(fast):
        X = batch.X
        for layer in layers:
            X = layer(X, {**rest, **fast})
        return objective(X)

    results = []
    for fast in (
        sgd(loss, initial, 0.3, 2),
        stack_sgd(as_stack(layers), objective, batch.X, initial, rest, 0.3, 2),
    ):
        total = sum(p.square().sum() for p in fast.values())
        results.append((fast, torch.autograd.grad(total, list(module.parameters()))))
    assert_close(*results)


def test_as_stack_only_where_derivatives_are_known():
    def known(module):
        return as_stack(TaskForward(module).layers) is not None

    assert known(stack(nn.Flatten(), nn.Linear(2, 2), nn.Identity(), nn.Dropout(0.0)))
    assert not known(stack(nn.Linear(2, 2), nn.Dropout(0.5)))
    assert known(stack(nn.Linear(2, 2), nn.Dropout(0.5)).eval())
    assert not known(stack(nn.Linear(2, 2), nn.Softplus()))
    assert not known(stack(nn.Linear(2, 2), nn.LayerNorm(2)))
    assert not known(stack(nn.GELU(approximate="tanh")))


@pytest.mark.parametrize("objective", ["classes", "numbers"])
def test_objectives(objective):
    _, batch = random_stack(nn.Tanh(), objective)
    found = objective_of(batch, torch.float64)
    kind = CrossEntropy if objective == "classes" else SquaredError
    assert isinstance(found, kind)
    outputs = torch.randn(3, 6, 3 if objective == "classes" else 1).double()
    outputs.requires_grad_()
    expected = []
    for t in range(3):
        rows = outputs[t][batch.mask[t]]
        y = batch.y[t][batch.mask[t]]
        if objective == "classes":
            rows = rows.masked_fill(~batch.class_mask[t], -torch.inf)
            expected.append(nn.functional.cross_entropy(rows, y))
        else:
            expected.append(nn.functional.mse_loss(rows.squeeze(1), y))
    assert_close(found(outputs), torch.stack(expected))
    gradient, memory = found.gradient(outputs)
    (automatic,) = torch.autograd.grad(found(outputs).sum(), outputs, create_graph=True)
    assert_close(gradient, automatic)
    direction = torch.randn_like(outputs)
    (product,) = torch.autograd.grad((automatic * direction).sum(), outputs)
    assert_close(found.tangent(memory, direction), product)


# --------------------------------------------------------------------- steps and graphs
def quadratic(fast):
    return (fast["a"] ** 2).sum(1) / 2


def test_rates_of_steps():
    start = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    assert_close(sgd(quadratic, start, 0.5, 2)["a"], start["a"] / 4)
    assert_close(sgd(quadratic, start, [0.5, 0.1], 3)["a"], start["a"] * 0.5 * 0.81)
    each = {"a": torch.tensor([0.5, 1.0])}
    assert_close(sgd(quadratic, start, each, 1)["a"], start["a"] * (1 - each["a"]))
    assert sgd(quadratic, start, 0.5, 0)["a"] is start["a"]


def test_unused_parameter_stays():
    start = {"a": torch.ones(2, 1), "b": torch.ones(2, 3)}
    assert sgd(quadratic, start, 0.5, 2)["b"] is start["b"]


def test_gradcheck_of_learned_rates():
    def final(start, rate):
        loss = lambda fast: fast["a"].sin().sum(1)  # noqa: E731
        return sgd(loss, {"a": start.expand(2, 3)}, {"a": rate}, 2)["a"]

    values = torch.rand(3).double().requires_grad_(), torch.rand(3).double()
    assert torch.autograd.gradcheck(final, (values[0], values[1].requires_grad_()))


def graph_size(tensor):
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [child for child, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("strategy", ["batched", "vmap", "loop"])
def test_first_order_builds_no_second_order_graph(strategy):
    module, shape = make("linear")
    support, query = make_batch(shape, (3, 3), 1), make_batch(shape, (2, 2), 2)

    def size(n_steps, first_order):
        with torch.enable_grad():
            return graph_size(
                engine(module, strategy, support, query, n_steps, 0.1, first_order)[0]
            )

    assert size(3, True) - size(2, True) == len([*module.parameters()])
    assert size(3, False) - size(2, False) > 30


@pytest.mark.parametrize("strategy", ["batched", "vmap", "loop"])
def test_no_grad_gives_the_same_parameters_without_a_graph(strategy):
    module, shape = make("linear")
    batch = make_batch(shape, (3, 1), 1)
    forward = TaskForward(module, strategy)
    objective = objective_of(batch, torch.float64)
    initial = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}
    loss = lambda fast: objective(forward(fast, batch) @ projection(4))  # noqa: E731
    expected = sgd(loss, initial, 0.1, 2)
    module.requires_grad_(False)
    with torch.no_grad():
        found = sgd(loss, initial, 0.1, 2)
    assert not any(p.requires_grad for p in found.values())
    assert_close(found, {k: p.detach() for k, p in expected.items()})


@pytest.mark.parametrize("name", ["linear", "layer norm", "batch norm", "transformer"])
def test_task_without_rows_stays_at_the_start(name):
    module, shape = make(name)
    module = without_running_statistics(module)
    forward = TaskForward(module)
    for counts in ((0, 3), (0, 0)):
        batch = make_batch(shape, counts, 1)
        objective = objective_of(batch, torch.float64)
        initial = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}

        def loss(fast, batch=batch, objective=objective):
            features = forward(fast, batch)
            return objective(features @ projection(features.shape[-1]))

        fast = sgd(loss, initial, 0.1, 2)
        for key in fast:
            assert torch.equal(fast[key][0], initial[key][0])
        total = sum(p.square().sum() for p in fast.values())
        for gradient in torch.autograd.grad(total, list(module.parameters())):
            assert gradient.isfinite().all()


# ------------------------------------------------------------------ threads and copies
@pytest.mark.parametrize("name", ["linear", "softmax", "batch norm", "gru"])
def test_threads_equal_serial_bit_for_bit(name):
    module, shape = make(name)
    module = without_running_statistics(module)
    forward = TaskForward(module)

    def adapt(seed):
        torch.set_num_threads(1)
        batch = make_batch(shape, (3, 2), seed)
        objective = objective_of(batch, torch.float64)
        initial = {k: p.expand(2, *p.shape) for k, p in module.named_parameters()}

        def loss(fast):
            features = forward(fast, batch)
            return objective(features @ projection(features.shape[-1]))

        return sgd(loss, initial, 0.1, 2)

    serial = [adapt(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(adapt, range(40)))
    for one, other in zip(serial, threaded, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_are_independent(duplicate):
    module, _ = make("softmax")
    forward = TaskForward(module)
    batch = make_batch((5,), (3, 3), 1)
    fast = {"0.bias": torch.zeros(2, 6).double()}
    expected = forward(fast, batch)
    other = duplicate(forward)
    assert other.module is not module
    assert torch.equal(other(fast, batch), expected)
    with torch.no_grad():
        other.module[0].weight.zero_()
    assert torch.equal(forward(fast, batch), expected)
    assert not torch.equal(other(fast, batch), expected)


# ------------------------------------------------------------- chunks, other gradients
@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_chunks_are_exact(size):
    torch.manual_seed(0)
    module = stack(
        nn.Linear(5, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2)
    ).double()
    unused = nn.Parameter(torch.zeros(3))
    parameters = [*module.parameters(), unused]
    forward = TaskForward(module)
    support = make_batch((5,), (4, 1, 6, 2, 3), 1)
    query = make_batch((5,), (2, 3, 1, 2, 4), 2)

    def episode(support, query):
        objective = objective_of(support, torch.float64)
        initial = {
            k: p.expand(support.n_tasks, *p.shape) for k, p in module.named_parameters()
        }
        fast = sgd(
            lambda fast: objective(forward(fast, support).sum(-1, True)),
            initial,
            0.1,
            2,
        )
        return forward(fast, query)

    def gradients(output):
        loss = (output.square() * torch.arange(1.0, 6.0)[:, None, None]).sum()
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    torch.manual_seed(1)
    step = range(0, 5, size)
    expected = torch.cat(
        [
            episode(support.take(slice(i, i + size)), query.take(slice(i, i + size)))
            for i in step
        ]
    )
    expected_gradients = gradients(expected)
    torch.manual_seed(1)
    found = in_chunks(episode, support, query, parameters, size)
    state = torch.get_rng_state()
    assert_close(found, expected)
    found_gradients = gradients(found)
    assert found_gradients[-1] is None
    for one, other in zip(found_gradients[:-1], expected_gradients[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)


def test_chunks_know_their_share():
    shares = []

    def episode(support, query):
        shares.append(share_of_tasks())
        return query.X

    batch = TaskBatch(torch.zeros(5, 1))
    in_chunks(episode, batch, batch, [], 2)
    assert shares == [0.4, 0.4, 0.2]
    assert share_of_tasks() == 1


def test_replaced_gradient():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    output = weight.sum().expand(3)
    derived = 2 * weight
    out = replace_gradient(output, [derived], [torch.tensor([5.0, 7.0])])
    assert torch.equal(out, output)
    (1000 * out).sum().backward()
    assert torch.equal(weight.grad, torch.tensor([10.0, 14.0]))
    with torch.no_grad():
        assert not replace_gradient(output, [weight], [weight]).requires_grad


def test_affine_is_part_of_the_public_names():
    assert Affine("weight", None)(
        torch.ones(1, 1, 2), {"weight": torch.ones(1, 3, 2)}
    ).shape == (1, 1, 3)
