"""Neural processes and deep kernels against loops over tasks and closed forms."""

import copy
import pickle

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, regression_tasks, tiny, tiny_net
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern
from torch import nn

from skmeta import (
    AttentiveNPRegressor,
    CNPRegressor,
    ConvCNPRegressor,
    DeepKernelClassifier,
    DeepKernelRegressor,
)
from skmeta.closed_form import DeepKernel, DeepKernelClassification
from skmeta.model_selection import ask
from skmeta.modules import MLP
from skmeta.neural_process import CNP, AttentiveNP, ConvCNP
from skmeta.neural_process._neural_process_learner import MIN_STD, HideSupport
from skmeta.outer_loop import GaussianLikelihood
from skmeta.tasks import TaskBatch

COUNTS, QUERIES = (6, 0, 3, 1), (3, 5, 2, 4)
EXACT = {"rtol": 1e-10, "atol": 1e-11}
KERNELS = ["rbf", "matern", "linear"]
LEARNERS = ["cnp", "attentive", "conv", *KERNELS]


def make_batch(counts, seed=0, n_features=2, n_classes=None):
    generator = torch.Generator().manual_seed(seed)
    width = max(counts)
    X = torch.randn(len(counts), width, n_features, generator=generator).double()
    y = X.sum(-1).sin() if n_classes is None else torch.arange(width) % n_classes
    y = y.expand(len(counts), width).clone()
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    X[~mask], y[~mask] = 0, 0
    return TaskBatch(X, y, None if bool(mask.all()) else mask, n_classes)


def make_learner(name, n_features=2):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(n_features, 6), nn.Tanh()).double()
    if name == "cnp":
        return CNP(backbone, 6, width=8).double()
    if name == "attentive":
        return AttentiveNP(backbone, 6, width=8, n_heads=2).double()
    if name == "conv":
        line = nn.Linear(n_features, 1).double()
        return ConvCNP(line, 0.2, width=4, n_layers=2).double()
    learner = DeepKernel(backbone, name)
    with torch.no_grad():
        for i, parameter in enumerate(learner.parameters()):
            if parameter.numel() == 1:
                parameter.fill_(0.1 * i - 0.05)
    return learner.double()


def one_task(batch, t):
    keep = slice(None) if batch.mask is None else batch.mask[t]
    return batch.X[t][keep], batch.y[t][keep]


def alone(batch, t):
    X, y = one_task(batch, t)
    return TaskBatch(X[None], y[None], None, batch.n_classes)


# --------------------------------------------------------- references for a single task
def positive(raw):
    return MIN_STD + np.log1p(np.exp(raw))


def cnp_alone(learner, X, y, X_query):
    """Row by row: encode, average, decode."""
    code = torch.zeros(8).double()
    for x, target in zip(X, y, strict=True):
        row = torch.cat([learner.backbone(x[None])[0], target[None]])
        code += learner.encoder(row) / len(X)
    rows = [torch.cat([learner.backbone(x[None])[0], code]) for x in X_query]
    return np.array([learner.decoder(row).detach().numpy() for row in rows])


def attentive_alone(learner, X, y, X_query):
    """Row by row and head by head."""
    found = []
    for x in X_query:
        query = learner.backbone(x[None])[0]
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores, values = [], []
            for row, target in zip(X, y, strict=True):
                feature = learner.backbone(row[None])[0]
                key = learner.to_key(feature)[head]
                scores.append(learner.to_query(query)[head] @ key / 2)
                code = learner.encoder(torch.cat([feature, target[None]]))
                values.append(learner.to_value(code)[head])
            if not scores:
                heads.append(torch.zeros(4).double())
                continue
            share = torch.stack(scores).exp()
            share = share / share.sum()
            heads.append(sum(s * v for s, v in zip(share, values, strict=True)))
        code = learner.to_code(torch.cat(heads))
        found.append(learner.decoder(torch.cat([query, code])).detach().numpy())
    return np.array(found)


def spline(distance):
    """Cubic B-spline of the distance in grid steps."""
    d = abs(distance)
    if d < 1:
        return 2 / 3 - d**2 + d**3 / 2
    return (2 - d) ** 3 / 6 if d < 2 else 0.0


def conv_alone(learner, X, y, X_query):
    """On one grid that is wide enough for everything, set convolutions as sums."""
    at = np.arange(-150, 151)
    position = learner.backbone(X).detach().numpy()[:, 0] / learner.spacing
    kernel = np.array([[spline(p - k) for p in position] for k in at]).reshape(
        len(at), len(X)
    )
    density = kernel.sum(axis=1)
    signal = kernel @ y.numpy() / (density + 1e-2)
    grid = torch.from_numpy(np.stack([np.log1p(density), signal])[None])
    with torch.no_grad():
        told = learner.network(grid)[0].numpy()
    inner = at[learner.network.reach : -learner.network.reach]
    found = []
    for x in X_query:
        p = float(learner.backbone(x[None]).detach()) / learner.spacing
        found.append(told @ np.array([spline(p - k) for k in inner]))
    return np.array(found)


@pytest.mark.parametrize(
    "name, reference",
    [("cnp", cnp_alone), ("attentive", attentive_alone), ("conv", conv_alone)],
)
def test_neural_processes_against_a_loop(name, reference):
    """Ragged tasks, one without rows, against each task alone, row by row."""
    learner = make_learner(name)
    support, query = make_batch(COUNTS), make_batch(QUERIES, 1)
    density = learner.density(learner.adapt(support), query).detach().numpy()
    for t, n in enumerate(QUERIES):
        raw = reference(learner, *one_task(support, t), query.X[t, :n])
        np.testing.assert_allclose(density[t, :n, 0], raw[:, 0], **EXACT)
        np.testing.assert_allclose(density[t, :n, 1], positive(raw[:, 1]), **EXACT)


def kernel_of(learner):
    """Scikit-learn's kernel of the same parameters."""
    scale, factor = learner.length_scale.item(), learner.variance.item()
    kernel = {
        "rbf": RBF(scale),
        "matern": Matern(scale, nu=2.5),
        "linear": DotProduct(scale),
    }[learner.kernel]
    return ConstantKernel(factor) * kernel


@pytest.mark.parametrize("kernel", KERNELS)
def test_deep_kernel_is_scikit_learns_process(kernel):
    """Mean, deviation and marginal likelihood of features, with fixed parameters."""
    learner = make_learner(kernel)
    support, query = make_batch(COUNTS), make_batch(QUERIES, 1)
    density = learner.density(learner.adapt(support), query).detach().numpy()
    joint = learner.episode(make_batch((0,) * 4, 2), query).detach()
    noise, mean = learner.noise.item(), learner.mean.item()
    for t, n in enumerate(QUERIES):

        def features(X):
            return learner.backbone(X).detach().numpy() / 6**0.5

        process = GaussianProcessRegressor(
            kernel_of(learner), alpha=noise, optimizer=None
        )
        X, y = one_task(support, t)
        if len(X):
            process.fit(features(X), y.numpy() - mean)
        found = process.predict(features(query.X[t, :n]), return_std=True)
        np.testing.assert_allclose(density[t, :n, 0], found[0] + mean, atol=1e-8)
        std = np.sqrt(found[1] ** 2 + noise)
        np.testing.assert_allclose(density[t, :n, 1], std, atol=1e-8)
        X, y = one_task(query, t)
        process.fit(features(X), y.numpy() - mean)
        total = -n * float(GaussianLikelihood()(joint[t, :n], y))
        assert total == pytest.approx(process.log_marginal_likelihood(), abs=1e-8)


def test_estimator_is_scikit_learns_process():
    """The same through fit, adapt and predict, in the user's units."""
    tasks = regression_tasks()
    model = tiny(DeepKernelRegressor, nn.Flatten, kernel="matern").fit(tasks)
    X, y = regression_tasks(seed=1)[0]
    y = 50 + 7 * y
    learner = model.learner_
    scale, center = model._y_scale, model._y_mean + model._y_scale * learner.mean.item()
    kernel = ConstantKernel(learner.variance.item() * scale**2) * Matern(
        learner.length_scale.item() * 3**0.5, nu=2.5
    )
    noise = learner.noise.item() * scale**2
    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    process.fit(X[:6], y[:6] - center)
    mean, std = process.predict(X[6:], return_std=True)
    found = model.adapt(X[:6], y[:6]).predict(X[6:], return_std=True)
    np.testing.assert_allclose(found[0], mean + center, rtol=1e-8)
    np.testing.assert_allclose(found[1], np.sqrt(std**2 + noise), rtol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_episode_is_the_likelihood_given_the_support(kernel):
    """The rows of an episode sum to the density of the query given the support."""
    learner = make_learner(kernel)
    support, query = make_batch((6, 1, 3)), make_batch((3, 5, 2), 1)
    density = learner.episode(support, query).detach()
    state = learner.adapt(support)
    covariance = learner.posterior_covariance(state, query).detach().numpy()
    mean = learner.predict(state, query).detach().numpy()
    noise = learner.noise.item()
    for t, n in enumerate((3, 5, 2)):
        y = query.y[t, :n]
        expected = multivariate_normal(
            mean[t, :n], covariance[t, :n, :n] + noise * np.eye(n)
        ).logpdf(y.numpy())
        found = -n * float(GaussianLikelihood()(density[t, :n], y))
        assert found == pytest.approx(expected, abs=1e-8)


def test_training_rows_are_all_of_the_likelihood():
    """An episode of deep kernel transfer has no row that is only given."""
    model = tiny(DeepKernelRegressor, n_shots=2, n_queries=(3, 4))
    model.fit(regression_tasks())
    table = model._targets(
        model._encode(model._read(regression_tasks(), None, None, reset=False))
    )
    support, query = model._sampler(table).sample(0, np.arange(4), 4)
    assert support.X.shape[:2] == (4, 0)
    assert query.X.shape[1] in (5, 6)


# --------------------------------------------------------------------- what all promise
@pytest.mark.parametrize("name", LEARNERS)
def test_ragged_is_a_loop(name):
    """Values and gradients of padded tasks are those of each task alone."""
    learner = make_learner(name)
    support, query = make_batch(COUNTS), make_batch(QUERIES, 1)

    def gradients(losses):
        learner.zero_grad()
        torch.stack(losses).sum().backward()
        return [p.grad.clone() for p in learner.parameters()]

    together = learner.episode(support, query)
    apart = [learner.episode(alone(support, t), alone(query, t))[0] for t in range(4)]
    for t, n in enumerate(QUERIES):
        torch.testing.assert_close(together[t, :n], apart[t], **EXACT)
    expected = gradients([output.square().sum() for output in apart])
    found = gradients([together[t, :n].square().sum() for t, n in enumerate(QUERIES)])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", LEARNERS)
def test_order_of_support_rows(name):
    learner = make_learner(name)
    support, query = make_batch((6, 6)), make_batch((3, 3), 1)
    turned = TaskBatch(support.X.flip(1), support.y.flip(1))
    torch.testing.assert_close(
        learner.density(learner.adapt(turned), query),
        learner.density(learner.adapt(support), query),
        **EXACT,
    )


@pytest.mark.parametrize("name", LEARNERS)
def test_gradcheck(name):
    """Derivatives by every parameter, padding and a task without rows included."""
    learner = make_learner(name)
    support, query = make_batch((3, 0, 2)), make_batch((2, 2, 2), 1)
    names, values = zip(*learner.named_parameters(), strict=True)

    def loss(*parameters):
        named = dict(zip(names, parameters, strict=True))
        output = torch.func.functional_call(_Episode(learner), named, (support, query))
        return GaussianLikelihood()(output.flatten(0, 1), query.y.flatten())

    values = [value.detach().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


class _Episode(nn.Module):
    """Calls `episode` under the parameters of the learner, by their own names."""

    def __init__(self, learner):
        super().__init__()
        self.__dict__["learner"] = learner
        self._modules.update(learner._modules)
        self._parameters.update(learner._parameters)
        learner._parameters = self._parameters

    def forward(self, support, query):
        return self.learner.episode(support, query)


def test_gaussian_likelihood():
    output = torch.tensor([[0.5, 0.1], [2.0, 3.0]])
    y = torch.tensor([0.4, -1.0])
    expected = -torch.distributions.Normal(output[:, 0], output[:, 1]).log_prob(y)
    torch.testing.assert_close(GaussianLikelihood()(output, y), expected.mean())


# -------------------------------------------------------------- convolutions on a grid
def test_translation_equivariance():
    """Rows that move by grid steps take their predictions with them, at any place."""
    learner = make_learner("conv", n_features=1)
    learner.backbone = nn.Flatten()
    support, query = make_batch((5, 2), 0, 1), make_batch((4, 3), 1, 1)

    def moved(batch, steps):
        X = batch.X + steps * learner.spacing
        return TaskBatch(X, batch.y, batch.mask)

    expected = learner.density(learner.adapt(support), query)
    real = query.mask
    for steps in (1, -7, 1000):
        state = learner.adapt(moved(support, steps))
        found = learner.density(state, moved(query, steps))
        torch.testing.assert_close(found[real], expected[real], rtol=1e-9, atol=1e-9)
        still = learner.density(state, query)
        assert not torch.allclose(still[real], expected[real])


def test_far_from_support_is_the_prior():
    learner = make_learner("conv", n_features=1)
    learner.backbone = nn.Flatten()
    support = make_batch((5,), 0, 1)
    far = TaskBatch(torch.tensor([[[-1e6], [50.0], [1e9]]]).double())
    prior = learner.density(learner.adapt(make_batch((0,), 0, 1)), far)
    torch.testing.assert_close(learner.density(learner.adapt(support), far), prior)
    assert len(prior.unique(dim=1)[0]) == 1


def test_an_outlier_does_not_fill_memory():
    """A support row far out lies at the bound of the grid; the others stay."""
    learner = make_learner("conv", n_features=1)
    learner.backbone = nn.Flatten()
    X = torch.tensor([[[0.0], [0.1], [0.3], [1e12]]]).double()
    state = learner.adapt(TaskBatch(X, torch.ones(1, 4).double()))
    assert state["told"].shape[1] < 5000
    assert state["told"].isfinite().all()


def test_grid_follows_the_scale_of_the_feature():
    """The same tasks in other units are predicted the same."""
    tasks = regression_tasks(n_features=1)
    options = {"n_shots": 4, "n_episodes": 8, "random_state": 0}
    net = tiny_net(nn.Flatten, nn.MSELoss)
    model = ConvCNPRegressor(net, **options).fit(tasks)
    scaled = ConvCNPRegressor(net, **options).fit([(1024 * X, y) for X, y in tasks])
    X, y = regression_tasks(n_features=1, seed=1)[0]
    found = scaled.adapt(1024 * X[:5], y[:5]).predict(1024 * X, return_std=True)
    expected = model.adapt(X[:5], y[:5]).predict(X, return_std=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_line_is_one_number():
    with pytest.raises(ValueError, match="one number for each row; it gives 8"):
        tiny(ConvCNPRegressor).fit(regression_tasks())


def test_several_features_are_projected():
    """The learned line moves during training, and predictions depend on it."""
    model = ConvCNPRegressor(n_episodes=16, random_state=0).fit(regression_tasks())
    weight = model.learner_.backbone[1].weight
    assert weight.shape == (1, 3)
    start = ConvCNPRegressor(
        tiny_net(
            MLP,
            nn.MSELoss,
            module__hidden=(1,),
            module__activation=nn.Identity,
            lr=0.0,
        ),
        n_episodes=16,
        random_state=0,
    ).fit(regression_tasks())
    assert not torch.equal(start.learner_.backbone[1].weight, weight)


# ---------------------------------------------------------------------------- training
REGRESSORS = [CNPRegressor, AttentiveNPRegressor, ConvCNPRegressor, DeepKernelRegressor]


def module_for(estimator):
    return nn.Flatten if estimator is ConvCNPRegressor else MLP


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_training_raises_the_likelihood(estimator):
    """On new tasks, against the same learner before training."""
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(60):
        X = rng.uniform(-2, 2, size=(20, 1))
        tasks.append((X, np.sin(3 * X[:, 0] + rng.normal()) + rng.normal(size=1)))

    def likelihood(**params):
        net = {"max_epochs": 20, "lr": 3e-3, **params}
        if module_for(estimator) is MLP:
            net["module__hidden"] = (32, 32)
        model = tiny(
            estimator, module_for(estimator), net=net, n_shots=10, n_episodes=40
        ).fit(tasks[:50])
        found = []
        for X, y in tasks[50:]:
            mean, std = model.adapt(X[:10], y[:10]).predict(X[10:], return_std=True)
            square = ((y[10:] - mean) / std) ** 2
            found.append(-(square / 2 + np.log(std)).mean())
        return np.mean(found)

    assert likelihood() > likelihood(lr=0.0) + 0.3


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_squared_error_gives_way_to_the_likelihood(estimator):
    """Also after unpickling; another criterion is kept and sees both numbers."""
    tasks = regression_tasks(n_features=1)
    model = tiny(estimator, module_for(estimator)).fit(tasks)
    for one in (model, pickle.loads(pickle.dumps(model))):
        assert isinstance(one.net_.criterion_, GaussianLikelihood)
    Absolute.shapes.clear()
    tiny(estimator, module_for(estimator), criterion=Absolute).fit(tasks)
    assert {shape[1:] for shape in Absolute.shapes} == {(2,)}


class Absolute(nn.Module):
    shapes: list = []

    def forward(self, output, y):
        self.shapes.append(output.shape)
        return (output[:, 0] - y).abs().mean()


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_chunks_have_the_same_gradient(estimator):
    """Whose support is hidden is drawn before a meta-batch is cut."""
    tasks = regression_tasks(n_features=1)
    X, y = tasks[0]
    found = [
        tiny(estimator, module_for(estimator), chunk_size=size)
        .fit(tasks)
        .predict(X, groups=np.zeros(len(X), dtype=int))
        for size in (None, 3)
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_hidden_support():
    """Rows become padding, for the share of tasks asked for; the user's comes first."""
    support, query = make_batch((4,) * 2000), make_batch((1,) * 2000)
    torch.manual_seed(0)
    hidden, same = HideSupport(share=0.25)(support, query)
    assert same is query
    shown = hidden.mask.any(dim=1)
    assert torch.equal(hidden.mask.all(dim=1), shown)
    assert 0.22 < 1 - shown.double().mean() < 0.28
    ragged = make_batch((4, 2) * 1000)
    hidden, _ = HideSupport(lambda *_: (ragged, query), share=0.25)(support, query)
    shown = hidden.mask.any(dim=1)
    assert torch.equal(hidden.mask[shown], ragged.mask[shown])
    assert HideSupport(share=0.0)(support, query)[0] is support


def test_deviation_is_in_the_users_units():
    tasks = regression_tasks(n_features=1)
    far = [(X, 10 * y + 100) for X, y in tasks]
    for estimator in REGRESSORS:
        model, other = (tiny(estimator, module_for(estimator)) for _ in range(2))
        X, y = tasks[0]
        mean, std = model.fit(tasks).adapt(X[:5], y[:5]).predict(X, return_std=True)
        y = 10 * y + 100
        found = other.fit(far).adapt(X[:5], y[:5]).predict(X, return_std=True)
        np.testing.assert_allclose(found[0], 10 * mean + 100, rtol=1e-3)
        np.testing.assert_allclose(found[1], 10 * std, rtol=1e-3)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="n_heads=3 must be a divisor of width=8"):
        tiny(AttentiveNPRegressor, width=8, n_heads=3).fit(regression_tasks())


# ------------------------------------------------------------------------- classifiers
@pytest.mark.parametrize("kernel", KERNELS)
def test_classification_is_one_process_against_the_rest(kernel):
    """Bayes' rule over one regression per class, by scikit-learn's processes."""
    torch.manual_seed(0)
    backbone = nn.Linear(2, 4).double()
    learner = DeepKernelClassification(backbone, kernel, 3).double()
    with torch.no_grad():
        learner.mean.copy_(torch.tensor([0.1, -0.3, 0.0]))
    counts = (7, 4, 0)
    support = make_batch(counts, n_classes=3)
    query = make_batch((3, 3, 3), 1)
    proba = learner.predict(learner.adapt(support), query).softmax(-1)
    noise = learner.noise.item()
    for t in range(len(counts)):
        X, y = one_task(support, t)
        likelihood = np.ones((3, 3))
        for c in range(3):
            mean = learner.mean[c].item()
            process = GaussianProcessRegressor(
                kernel_of(learner), alpha=noise, optimizer=None
            )
            if len(X):
                targets = np.where(y.numpy() == c, 1.0, -1.0) - mean
                process.fit(backbone(X).detach().numpy() / 2, targets)
            m, s = process.predict(
                backbone(query.X[t]).detach().numpy() / 2, return_std=True
            )
            for k in range(3):  # the label of class c is 1 if the truth is k = c
                label = 1 if k == c else -1
                gap = (label - m - mean) ** 2 / (s**2 + noise)
                likelihood[:, k] *= np.exp(-gap / 2)
        expected = likelihood / likelihood.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(proba[t].detach().numpy(), expected, atol=1e-8)


def test_classes_that_a_task_lacks():
    learner = DeepKernelClassification(nn.Linear(2, 4).double()).double()
    support = make_batch((6, 4), n_classes=2)
    wider = TaskBatch(
        support.X,
        support.y,
        support.mask,
        3,
        torch.tensor([[True, True, False]] * 2),
    )
    query = make_batch((3, 3), 1)
    expected = learner.predict(learner.adapt(support), query)
    found = learner.predict(learner.adapt(wider), query)
    torch.testing.assert_close(found[..., :2], expected, **EXACT)
    assert (found[..., 2] == -torch.inf).all()


# ---------------------------------------------------------------------- many rows, ask
def test_large_states_are_recomputed(monkeypatch):
    """States grow with the square of the support: beyond a bound none are kept."""
    tasks = regression_tasks()
    model = tiny(DeepKernelRegressor).fit(tasks)
    X = tasks[0][0]
    expected = model.predict(X, groups=np.zeros(len(X), dtype=int))
    monkeypatch.setattr("skmeta.closed_form._deep_kernel.MAX_STATE_BYTES", 8 * 12**2)
    other = tiny(DeepKernelRegressor).fit(tasks)
    found = other.predict(X, groups=np.zeros(len(X), dtype=int))
    np.testing.assert_allclose(found, expected)
    assert all(block.state is None for block in other.states_.blocks)


@pytest.mark.parametrize("estimator", [DeepKernelRegressor, DeepKernelClassifier])
def test_ask_lowers_the_variance_that_is_left(estimator):
    """The first row asked for is the one that a search by brute force finds."""
    is_regressor = estimator is DeepKernelRegressor
    tasks = (regression_tasks if is_regressor else classification_tasks)()
    model = tiny(estimator).fit(tasks)
    X, y = (regression_tasks if is_regressor else classification_tasks)(seed=1)[0]
    rows = ask(model, X, 3)
    learner = model.learner_

    def left(chosen):
        known, pool = (torch.from_numpy(X[i])[None] for i in (chosen, slice(None)))
        state = learner.inform(TaskBatch(known))
        covariance = learner.posterior_covariance(state, TaskBatch(pool))
        return float(covariance.diagonal(dim1=1, dim2=2).sum())

    for i in range(3):
        rest = np.setdiff1d(np.arange(len(X)), rows[:i])
        best = min(rest, key=lambda r: left([*rows[:i], r]))
        assert left([*rows[:i], best]) == pytest.approx(left(rows[: i + 1]), rel=1e-6)
    more = ask(copy.copy(model).adapt(X[rows], y[rows]), X, 1)
    assert more[0] not in rows
