"""Tables with columns of their own: the door, both learners, and self-made tasks."""

import copy
import math
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from _tiny import tiny_net
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skmeta import (
    HeterogeneousClassifier,
    HeterogeneousRegressor,
    InContextClassifier,
    InContextRegressor,
    ProtoNetClassifier,
    SelfMadeTasks,
)
from skmeta.heterogeneous import ColumnSet, RowAndColumnTransformer, _local_ridge
from skmeta.heterogeneous._columns_learner import (
    NamedSlopes,
    cells_of,
    columns_of,
    named_share,
)
from skmeta.heterogeneous._in_common import common_logits, common_slopes
from skmeta.heterogeneous._ridge_path import ridge_path
from skmeta.modules import MLP
from skmeta.tasks._batch import TaskBatch
from skmeta.tasks._table import table_from_codes

pytestmark = pytest.mark.filterwarnings("ignore::skmeta.SingleTaskWarning")

CLASSIFIERS = [HeterogeneousClassifier, InContextClassifier]
REGRESSORS = [HeterogeneousRegressor, InContextRegressor]
ALL = CLASSIFIERS + REGRESSORS


def small(estimator, **params):
    """Little training: what is tested here holds for any weights."""
    is_classifier = estimator in CLASSIFIERS
    criterion = nn.CrossEntropyLoss if is_classifier else nn.MSELoss
    net = tiny_net(criterion=criterion)
    defaults = {"n_shots": 3, "n_queries": 3, "n_episodes": 8, "random_state": 0}
    return estimator(net, **{**defaults, **params})


def named_tasks(estimator, columns, seed=0, n_rows=14):
    """One task for each string, each letter a column."""
    rng = np.random.default_rng(seed)
    tasks = []
    for names in columns:
        X = pd.DataFrame(rng.normal(size=(n_rows, len(names))), columns=list(names))
        y = X.to_numpy() @ np.arange(1, len(names) + 1) + rng.normal()
        if estimator in CLASSIFIERS:
            y = (y > np.median(y)).astype(int)
        tasks.append((X, y))
    return tasks


def fitted(estimator, columns=("ab", "bc", "abc", "cb"), **params):
    return small(estimator, **params).fit(named_tasks(estimator, columns))


def output(model, X, groups=None):
    predict = getattr(model, "predict_proba", model.predict)
    return predict(X, groups=groups)


# ---------------------------------------------------------------------------- learners
def learner(kind, n_classes=None, classifier=True, n_names=0, seed=0):
    torch.manual_seed(seed)
    options = {"n_classes": n_classes, "classifier": classifier, "n_names": n_names}
    options["class_balanced"] = False
    if kind is ColumnSet:
        backbone = MLP(hidden=(8,))
        backbone(torch.zeros(1, 1 + 6))
        made = ColumnSet(backbone, 8, 6, **options)
    else:
        backbone = MLP(hidden=(8,))
        backbone(torch.zeros(1, 2))
        made = RowAndColumnTransformer(backbone, 8, 2, 2, **options)
    with torch.no_grad():  # these are learned from zero, which would hide them
        made.names.vectors.normal_()
        spoil(made.local)
        if kind is ColumnSet:
            for learned in ("log_alpha", "log_before", "by_rows", "log_stretch"):
                getattr(made, learned).normal_(0, 0.1)
        named = made.named if classifier else made.target_scale.named
        if named is not None:
            for learned in named.buffers():
                learned.add_(torch.rand(learned.shape))
        if not classifier:
            made.target_scale.variance.fill_(0.4)
    return made.double().eval()


def spoil(local):
    for learned in ("log_alpha", "log_stretch", "log_before", "log_share"):
        getattr(local, learned).add_(0.1 * torch.randn(getattr(local, learned).shape))


def batch(n_tasks=3, n_rows=8, n_columns=4, classifier=True, seed=0, mask=None):
    rng = torch.Generator().manual_seed(seed)
    X = torch.randn(n_tasks, n_rows, n_columns, generator=rng, dtype=torch.float64)
    y = torch.randn(n_tasks, n_rows, generator=rng, dtype=torch.float64)
    if classifier:
        y = torch.arange(n_rows).remainder(3).expand(n_tasks, -1).clone()
    return TaskBatch(X, y, mask, 3 if classifier else None)


KINDS = pytest.mark.parametrize("kind", [ColumnSet, RowAndColumnTransformer])
TARGETS = pytest.mark.parametrize("classifier", [True, False])


def predicted(model, support, query):
    return model.predict(model.adapt(support), query)


@KINDS
@TARGETS
def test_order_of_columns_rows_and_classes_does_not_matter(kind, classifier):
    model = learner(kind, classifier=classifier)
    support, query = batch(classifier=classifier), batch(seed=1, n_rows=5)
    expected = predicted(model, support, query)
    assert expected.std() > 1e-3  # not a constant

    columns, rows = torch.tensor([2, 0, 3, 1]), torch.randperm(8)
    shuffled = TaskBatch(
        support.X[:, rows][..., columns], support.y[:, rows], None, support.n_classes
    )
    moved = TaskBatch(query.X[..., columns])
    torch.testing.assert_close(
        predicted(model, shuffled, moved), expected, rtol=0, atol=1e-12
    )
    if classifier:
        new = torch.tensor([1, 2, 0])
        renamed = TaskBatch(support.X, new[support.y], None, 3)
        torch.testing.assert_close(
            predicted(model, renamed, query)[..., new], expected, rtol=0, atol=1e-12
        )


@KINDS
@TARGETS
def test_rows_to_predict_do_not_see_each_other(kind, classifier):
    model = learner(kind, classifier=classifier)
    support, query = batch(classifier=classifier), batch(seed=1, n_rows=5)
    expected = predicted(model, support, query)
    one = TaskBatch(query.X[:, 2:3])
    torch.testing.assert_close(
        predicted(model, support, one), expected[:, 2:3], rtol=0, atol=1e-12
    )


@KINDS
@TARGETS
def test_padded_tasks_are_as_a_loop_over_them(kind, classifier):
    """Ragged in rows, columns and classes, values and gradients."""
    model = learner(kind, classifier=classifier)
    widths, heights, ways = [4, 2, 3], [8, 3, 5], [3, 2, 3]
    support, query = batch(classifier=classifier), batch(seed=1, n_rows=5)
    for t, (width, height) in enumerate(zip(widths, heights, strict=True)):
        support.X[t, :, width:] = torch.nan
        support.X[t, height:] = 0
        query.X[t, :, width:] = torch.nan
    mask = torch.arange(8) < torch.tensor(heights)[:, None]
    exists = None
    if classifier:
        support.y[1] %= 2
        exists = torch.arange(3) < torch.tensor(ways)[:, None]
    padded = TaskBatch(support.X, support.y * mask, mask, support.n_classes, exists)
    together = predicted(model, padded, query)
    if classifier:
        together = together.masked_fill(~exists[:, None], 0)
    weights = torch.randn_like(together)
    parameters = [p for p in model.parameters() if p.numel()]
    wanted = torch.autograd.grad(
        (together * weights).sum(), parameters, allow_unused=True
    )
    alone = []
    for t, (width, height, n_ways) in enumerate(
        zip(widths, heights, ways, strict=True)
    ):
        one = TaskBatch(
            support.X[t : t + 1, :height, :width],
            support.y[t : t + 1, :height],
            None,
            n_ways if classifier else None,
        )
        found = predicted(model, one, TaskBatch(query.X[t : t + 1, :, :width]))
        padding = (0, 3 - n_ways) if classifier else (0, 0)
        alone.append(nn.functional.pad(found, padding))
    alone = torch.cat(alone)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)
    found = torch.autograd.grad((alone * weights).sum(), parameters, allow_unused=True)
    for a, b in zip(wanted, found, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@KINDS
@TARGETS
def test_gradients(kind, classifier):
    """Against finite differences, with missing values and shared classes."""
    model = learner(kind, 3 if classifier else None, classifier, n_names=2)
    support = batch(2, 6, 3, classifier)
    support.X[0, 1, 2] = torch.nan
    query = batch(2, 3, 3, seed=1)
    names = [n for n, p in model.named_parameters() if 0 < p.numel() <= 12]
    values = [dict(model.named_parameters())[n].detach() for n in names]
    assert len(names) > 3

    def loss(*parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            _Both(model), {f"model.{n}": p for n, p in given.items()}, (support, query)
        )

    inputs = [value.requires_grad_() for value in values]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-5, rtol=1e-3, fast_mode=True)


class _Both(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, support, query):
        return predicted(self.model, support, query).square().mean()


@KINDS
@TARGETS
def test_units_of_a_column_do_not_matter(kind, classifier):
    model = learner(kind, classifier=classifier)
    support, query = batch(classifier=classifier), batch(seed=1, n_rows=5)
    expected = predicted(model, support, query)
    scale = torch.tensor([1e3, 1e-3, 2.0, 1.0]).double()
    moved = TaskBatch(support.X * scale + 5, support.y, None, support.n_classes)
    torch.testing.assert_close(
        predicted(model, moved, TaskBatch(query.X * scale + 5)),
        expected,
        rtol=0,
        atol=1e-8,
    )


@KINDS
@TARGETS
def test_constant_and_empty_columns_are_not_there(kind, classifier):
    model = learner(kind, classifier=classifier)
    support, query = batch(classifier=classifier), batch(seed=1, n_rows=5)
    expected = predicted(model, support, query)
    nothing = torch.full_like(support.X[..., :1], torch.nan)
    constant = torch.full_like(support.X[..., :1], 7.5)
    wide = torch.cat([constant, support.X, nothing], dim=-1)
    X = torch.cat([query.X[..., :1], query.X, query.X[..., :1]], dim=-1)
    found = predicted(
        model, TaskBatch(wide, support.y, None, support.n_classes), TaskBatch(X)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_columns_and_cells_by_hand():
    nan = torch.nan
    X = torch.tensor([[[1.0, nan, 4.0], [3.0, nan, 4.0], [nan, nan, 4.0]]]).double()
    state = columns_of(TaskBatch(X))
    assert state["columns"].tolist() == [
        [0.0]
    ]  # the second is empty, the third constant
    assert state["center"].tolist() == [[2.0]] and state["scale"].tolist() == [[1.0]]
    cells, known = cells_of(state, TaskBatch(torch.tensor([[[5.0, 1.0, 1.0]]])))
    assert cells.tolist() == [[[3.0]]] and known.tolist() == [[[1.0]]]
    far, _ = cells_of(state, TaskBatch(torch.tensor([[[500.0, 1.0, 1.0]]])))
    assert far.tolist() == [[[10.0]]]
    cells, known = cells_of(state, TaskBatch(X))
    assert cells.tolist() == [[[-1.0], [1.0], [0.0]]]
    assert known.tolist() == [[[1.0], [1.0], [0.0]]]


@KINDS
def test_a_name_is_used_where_it_is_known(kind):
    """Two columns that change places are told apart by their names alone."""
    model = learner(kind, n_names=2)
    support, query = batch(n_columns=2), batch(seed=1, n_rows=5, n_columns=2)
    expected = predicted(model, support, query)
    swapped = TaskBatch(support.X.flip(-1), support.y, None, 3)
    found = predicted(model, swapped, TaskBatch(query.X.flip(-1)))
    assert (found - expected).abs().max() > 1e-3
    unknown = torch.full_like(support.X[..., :2], torch.nan)
    beyond = [
        predicted(
            model,
            TaskBatch(torch.cat([unknown, b.X], -1), b.y, None, 3),
            TaskBatch(torch.cat([unknown[:, :5], q.X], -1)),
        )
        for b, q in (
            (support, query),
            (swapped, TaskBatch(query.X.flip(-1))),
        )
    ]
    torch.testing.assert_close(*beyond, rtol=0, atol=1e-12)


def test_targets_are_seen_beside_slopes_in_common():
    """Slopes of named columns that a task has, level and spread, row by row."""
    model = learner(ColumnSet, classifier=False, n_names=2).target_scale
    named, strength = model.named, model.log_strength.exp()
    support = batch(2, 4, 3, classifier=False)
    support.X[1, 1, 0], support.X[1, :, 1] = torch.nan, torch.nan
    query = batch(2, 2, 3, classifier=False, seed=1)
    query.X[0, 0, 0], query.X[0, 1, 1] = torch.nan, 1e6
    targets, state = model(support)
    means = torch.randn(2, 2).double()
    found = model.undo(means, state, query)
    for t, columns in enumerate(((0, 1), (0,))):  # the other task lacks the second

        def common(row, columns=columns):
            total = named.constant[0].clone()
            for j in columns:
                if row[j].isfinite():
                    cell = (row[j] - named.center[j]) / named.scale[j]
                    total += named.slope[j, 0] * cell.clamp(-10, 10)
            return total

        rest = support.y[t] - torch.stack([common(row) for row in support.X[t]])
        level = rest.sum() / (4 + strength)
        squares = (rest - level).square().sum() + strength * 0.4
        spread = (squares / (4 + strength)).sqrt()
        torch.testing.assert_close(targets[t, :, 0], (rest - level) / spread)
        for row, mean, value in zip(query.X[t], means[t], found[t], strict=True):
            torch.testing.assert_close(value, mean * spread + level + common(row))


def test_slopes_in_common_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 50)
    X = rng.normal(3, [2, 5, 1], size=(2000, 3))
    level, noise = rng.normal(size=40)[codes], rng.normal(size=2000)
    y = 2 * X[:, 0] - X[:, 1] + 4 + 0.5 * level + 1.5 * noise
    X[codes < 10, 1] = np.nan  # counts as average
    table = table_from_codes(X, y, codes, np.arange(40))
    named, rest = common_slopes(table, 2)
    named = {name: part.numpy() for name, part in named.items()}
    np.testing.assert_allclose(named["center"], np.nanmean(X[:, :2], axis=0))
    np.testing.assert_allclose(named["scale"], np.nanstd(X[:, :2], axis=0))
    slopes = named["slope"][:, 0] / named["scale"]
    np.testing.assert_allclose(slopes, [2, -1], atol=0.1)
    moved = np.nan_to_num(X[:, :2] - named["center"])
    np.testing.assert_allclose(rest, y - moved @ slopes - named["constant"])
    assert rest[codes >= 10].var() == pytest.approx(0.5**2 + 1.5**2, rel=0.1)
    nothing, rest = common_slopes(table, 0)
    assert nothing["slope"].shape == (0, 1) and (rest == y).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logits_in_common_are_those_of_all_rows(n_classes):
    """Also of a class that no row has."""
    rng = np.random.default_rng(0)
    X = rng.normal(3, [2, 5], size=(300, 2))
    y = (X[:, 0] > 3).astype(int) + (n_classes > 2) * (X[:, 1] > 9)
    X[:30, 1] = np.nan
    table = table_from_codes(X, y, np.zeros(300, dtype=int), np.arange(1))
    named = NamedSlopes(2, n_classes + 1).double()
    named.load_state_dict(common_logits(table, 2, n_classes + 1, "balanced"))
    batch = TaskBatch(torch.from_numpy(X)[None])
    found = named(batch, torch.ones(1, 2).double())[0].softmax(1).numpy()
    # Scaled by the deviation of the values that there are.
    scale = np.nanstd(X, axis=0)
    scaled = make_pipeline(SimpleImputer(), LogisticRegression(class_weight="balanced"))
    expected = scaled.fit(X / scale, y).predict_proba(X / scale)
    np.testing.assert_allclose(
        found[:, :n_classes] / found[:, :n_classes].sum(1, keepdims=True),
        expected,
        atol=1e-3,
    )
    assert (found[:, n_classes] < 0.01).all()


def test_levels_are_shrunk_as_far_as_tasks_are_alike():
    rng = np.random.default_rng(0)
    tasks = []
    for level in rng.normal(size=40):
        X = pd.DataFrame(rng.normal(size=(50, 2)), columns=["a", "b"])
        tasks.append((X, X["a"] + 0.5 * level + 1.5 * rng.normal(size=50)))
    net = tiny_net(criterion=nn.MSELoss, lr=0.0)  # what training starts from
    meta = HeterogeneousRegressor(net, random_state=0).fit(tasks)
    scale = meta.learner_.target_scale
    assert float(scale.log_strength.exp()) == pytest.approx(9, rel=0.5)
    # In units of the targets: of variance 1 + 0.25 + 2.25, slopes explain 1.
    assert float(scale.variance) == pytest.approx(2.5 / 3.5, rel=0.1)
    # Further training keeps what is common.
    meta.partial_fit([(X, -y) for X, y in tasks])
    kept = meta.learner_.target_scale.named.slope
    torch.testing.assert_close(kept, scale.named.slope, rtol=0, atol=0)


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_names_say_much_of_few_rows(estimator):
    """Half of the columns of a task are known, and three of its rows."""
    rng = np.random.default_rng(0)

    def task(n_rows):
        X = pd.DataFrame(rng.normal(size=(n_rows, 6)), columns=list("abcdef"))
        y = X.to_numpy() @ [1, -1, 1, -1, 1, -1] + 3 * rng.normal()
        return X[rng.permutation(list("abcdef"))[:3]], y

    tasks, new = [task(20) for _ in range(40)], [task(103) for _ in range(10)]
    errors = {}
    for use_names in (True, False):
        options = {"n_shots": 3, "n_queries": 3, "random_state": 0}
        if estimator is InContextRegressor:  # slow, and learns as much from less
            options["n_episodes"] = 16
        model = estimator(use_names=use_names, **options).fit(tasks)
        left = [y[3:] - model.adapt(X[:3], y[:3]).predict(X[3:]) for X, y in new]
        errors[use_names] = np.square(left).mean()
    # Three columns of variance 1 are not known, and levels only by three rows.
    assert errors[True] < 5 and errors[False] > 1.3 * errors[True]


@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_names_say_much_of_two_rows(estimator):
    """Three of the four columns that decide are known, and a row of each class."""
    rng = np.random.default_rng(0)

    def task(n_rows):
        X = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=list("abcd"))
        y = (X.sum(axis=1) > 0).to_numpy().astype(int)
        return X[rng.permutation(list("abcd"))[:3]], y

    tasks, new = [task(20) for _ in range(20)], [task(104) for _ in range(5)]
    hits = {}
    for use_names in (True, False):
        options = {"n_shots": 2, "n_queries": 3, "random_state": 0}
        if estimator is InContextClassifier:  # slow, and learns as much from less
            options["n_episodes"] = 16
        model = estimator(use_names=use_names, **options).fit(tasks)
        assert model.label_space_ == "shared"
        found = []
        for X, y in new:
            known = [np.argmin(y), np.argmax(y)]
            found.append(model.adapt(X.iloc[known], y[known]).predict(X) == y)
        hits[use_names] = np.mean(found)
    assert hits[True] > 0.65 and hits[True] > hits[False] + 0.1


def test_names_are_hidden_in_training_alone():
    named = NamedSlopes(200, 1, hidden=0.3)
    support = batch(2, 4, 200, classifier=False)
    assert 0.6 < named.train().here(support).mean() < 0.8
    assert named.eval().here(support).all()
    state = {
        "columns": torch.tensor([[0.0, 2.0, 5.0, 0.0]]),
        "present": torch.tensor([[1.0, 1.0, 1.0, 0.0]]),
    }
    assert named_share(state, 3).tolist() == pytest.approx([2 / 3])
    state["named"] = torch.tensor([[0.0, 1.0, 1.0]])
    assert named_share(state, 3).tolist() == pytest.approx([1 / 3])
    assert named_share(state, 0).tolist() == [0]


@pytest.mark.parametrize("n_features", [3, 20])
def test_ridge_path_leaves_each_row_out(n_features):
    """Weights and residuals are those of a solution for each row and alpha."""
    rng = torch.Generator().manual_seed(0)
    F = torch.randn(2, 7, n_features, generator=rng, dtype=torch.float64)
    Y = torch.randn(2, 7, 2, generator=rng, dtype=torch.float64)
    alphas = torch.tensor([[0.1, 3.0], [0.01, 1.0]]).double()
    weights, left_out = ridge_path(F, Y, alphas)

    def solved(t, g, rows):
        A = F[t, rows].T @ F[t, rows] + alphas[t, g] * torch.eye(n_features)
        return torch.linalg.solve(A, F[t, rows].T @ Y[t, rows])

    for t, g in np.ndindex(2, 2):
        torch.testing.assert_close(weights[t, g], solved(t, g, slice(None)))
        for i in range(7):
            others = [j for j in range(7) if j != i]
            expected = Y[t, i] - F[t, i] @ solved(t, g, others)
            torch.testing.assert_close(left_out[t, g, i], expected)


@pytest.mark.parametrize("n_rows", [7, 24])
@pytest.mark.parametrize("n_classes", [None, 3], ids=["per task", "shared"])
def test_ridge_head_by_hand(n_rows, n_classes):
    """The head is the mean of ridge heads, by how they tell the rows left out."""
    model = learner(ColumnSet, n_classes)
    support, query = batch(1, n_rows), batch(1, 5, seed=1)

    def features(batch):
        return model._features(state, *cells_of(state, batch), batch)

    state = model.adapt(support)
    F = features(support)[0].detach()
    prior = torch.zeros(F.shape[1], 3).double()
    if n_classes is not None:  # of the embedding and the constant
        torch.nn.init.normal_(model.prior, 0, 0.1)
        prior[-len(model.prior) :] = model.prior
        state = model.adapt(support)
    Y = nn.functional.one_hot(support.y[0], 3).double()
    level, by_rows, by_columns = 5.0 * model.log_alpha
    by_rows = by_rows * math.log(n_rows / 10)
    alpha = (level + by_rows + by_columns * math.log(0.5)).exp()
    counts = Y.sum(dim=0)  # where these differ, classes weigh the same all the same
    S = torch.diag((Y / counts).sum(dim=1) * n_rows / 3)
    frequency = ((counts + 1) / (n_rows + 3)).log()

    def solved(multiple, rows):
        A = F[rows].T @ S[rows][:, rows] @ F[rows]
        A = A + multiple * alpha * torch.eye(F.shape[1])
        remaining = Y[rows] - 1 / 3 - F[rows] @ prior
        return torch.linalg.solve(A, F[rows].T @ S[rows][:, rows] @ remaining)

    def output(X, multiple, stretch, rows):
        weights = prior + stretch.exp() * solved(multiple, rows)
        return model.log_scale.exp() * X @ weights

    everything = list(range(n_rows))
    likelihood, found = [], []
    for multiple, stretch in zip((0.01, 0.1, 1, 10), model.log_stretch, strict=True):
        told = [
            output(F[i], multiple, stretch, [j for j in everything if j != i])
            for i in everything
        ]
        told = torch.stack(told) + frequency
        likelihood.append(told.log_softmax(-1)[everything, support.y[0]].sum())
        X = features(query)[0]
        found.append(output(X, multiple, stretch, everything))
    before = model.log_before + model.by_rows * math.log(n_rows / 10)
    belief = (before + model.log_trust.exp() * torch.stack(likelihood)).softmax(0)
    assert belief.max() < 0.99  # more than one has a say
    expected = torch.einsum("g,gnc->nc", belief, torch.stack(found))
    correction = model._correction(state, features(query))
    torch.testing.assert_close(correction[0], expected)


def test_long_supports_are_read_in_slices(monkeypatch):
    from skmeta.heterogeneous import _in_context_learner

    model = learner(RowAndColumnTransformer)
    support, query = batch(n_rows=12), batch(seed=1, n_rows=9)
    with torch.no_grad():
        expected = predicted(model, support, query)
        monkeypatch.setattr(_in_context_learner, "_MAX_SCORES", 200)
        found = predicted(model, support, query)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@KINDS
@TARGETS
def test_order_of_many_rows_does_not_matter(kind, classifier, monkeypatch):
    """Nor does padding, where some rows stand for all."""
    monkeypatch.setattr(_local_ridge, "MAX_LANDMARKS", 6)
    model = learner(kind, classifier=classifier)
    support = batch(n_rows=12, classifier=classifier)
    query = batch(seed=1, n_rows=5)
    expected = predicted(model, support, query)
    rows = torch.randperm(12)
    shuffled = TaskBatch(
        support.X[:, rows], support.y[:, rows], None, support.n_classes
    )
    found = predicted(model, shuffled, query)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    mask = torch.arange(12) < torch.tensor([12, 9, 4])[:, None]
    y = support.y * mask
    X = support.X * mask.unsqueeze(-1)
    found = predicted(model, TaskBatch(X, y, mask, support.n_classes), query)
    for t, n_rows in enumerate((12, 9, 4)):
        one = TaskBatch(
            X[t : t + 1, :n_rows], y[t : t + 1, :n_rows], None, support.n_classes
        )
        alone = predicted(model, one, TaskBatch(query.X[t : t + 1]))
        torch.testing.assert_close(found[t], alone[0], rtol=0, atol=1e-11)


# ---------------------------------------------------------------------------- the door
@pytest.mark.parametrize("estimator", ALL)
def test_frames_are_matched_by_name(estimator):
    """The order of the columns of a task in a list is its own affair."""
    tasks = named_tasks(estimator, ("ab", "bc", "abc"))
    model = small(estimator).fit(tasks)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.n_features_in_ == 3
    (X, y), *_ = named_tasks(estimator, ("bc",), seed=1)
    expected = output(model.adapt(X, y), X)
    np.testing.assert_allclose(output(model.adapt(X[["c", "b"]], y), X), expected)
    found = output(model.adapt([(X[["c", "b"]], y)]), X, [0] * len(X))
    np.testing.assert_allclose(found, expected)
    polars = pl.DataFrame(X.to_dict("list"))
    np.testing.assert_allclose(output(model.adapt(polars, y), polars), expected)


@pytest.mark.parametrize("estimator", ALL)
def test_a_list_is_one_wide_table(estimator):
    """In long format a column that is all NaN in a task is one it lacks."""
    tasks = named_tasks(estimator, ("ab", "bc", "abc"))
    wide = pd.concat([X for X, _ in tasks], ignore_index=True)
    y = np.concatenate([y for _, y in tasks])
    ids = np.repeat([0, 1, 2], [len(y) for _, y in tasks])
    assert np.isnan(wide).any(axis=None)
    listed = small(estimator).fit(tasks)
    long = small(estimator).fit(wide, y, groups=ids)
    expected = output(listed, wide, ids)
    np.testing.assert_allclose(output(long, wide, ids), expected, atol=1e-8)
    inside = small(estimator, group_column="task").fit(wide.assign(task=ids), y)
    np.testing.assert_allclose(
        output(inside, wide.assign(task=ids)), expected, atol=1e-8
    )


@pytest.mark.parametrize("estimator", ALL)
def test_a_new_task_brings_and_lacks_columns(estimator):
    model = fitted(estimator)
    before = {k: v.clone() for k, v in model.learner_.state_dict().items()}
    (X, y), *_ = named_tasks(estimator, (["a", "z"],), seed=3)
    model.adapt(X, y)
    with_new = output(model, X)
    assert model.n_features_in_ == 3  # as fit has seen it
    moved = X.assign(z=X["z"] + 1.5)
    assert not np.allclose(output(model, moved), with_new)
    without = output(copy.copy(model).adapt(X[["a"]], y), X[["a"]])
    assert not np.allclose(without, with_new)
    for name, value in model.learner_.state_dict().items():
        assert torch.equal(value, before[name])
    # A table of before stays what it was beside the wider one.
    (old, y_old), *_ = named_tasks(estimator, ("ab",), seed=4)
    expected = output(copy.copy(model).adapt(old, y_old), old)
    fleet = copy.copy(model).adapt(old, y_old, groups=["old"] * len(old))
    fleet.adapt(X, y, groups=["new"] * len(X))
    np.testing.assert_allclose(output(fleet, old, ["old"] * len(old)), expected)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(output(again, X), with_new)
    np.testing.assert_allclose(output(model, X[["z", "a"]]), with_new)


@pytest.mark.parametrize("estimator", ALL)
def test_partial_adapt_joins_rows_of_different_columns(estimator):
    model = fitted(estimator)
    (X, y), *_ = named_tasks(estimator, (["a", "z"],), seed=3)
    model.adapt(X[["a"]][:7], y[:7]).partial_adapt(X[7:], y[7:])
    holes = X.assign(z=X["z"].where(np.arange(len(X)) >= 7))
    together = copy.copy(model).adapt(holes, y)
    np.testing.assert_allclose(output(model, X), output(together, X))


@pytest.mark.parametrize("estimator", ALL)
def test_further_rows_need_the_columns_of_their_task(estimator):
    model = fitted(estimator)  # the columns of task 0 are a and b
    (X, y), *_ = named_tasks(estimator, ("acz",), seed=3)
    before = model.states_
    for call in (
        lambda: model.partial_adapt(X, y, groups=[0] * len(X)),
        lambda: model.partial_adapt([(X, y)]),
    ):
        with pytest.raises(
            ValueError, match=r"lacks the columns \['b'\] of the task 0"
        ):
            call()
    assert model.states_ is before
    more = X.assign(b=np.nan)  # known to be there, values are not
    assert len(copy.copy(model).partial_adapt([(more, y)]).states_) == 4
    assert len(copy.copy(model).partial_adapt(X, y, groups=["new"] * 14).states_) == 5
    arrays = [(X.to_numpy(), y) for X, y in named_tasks(estimator, ("ab", "ab", "ab"))]
    model = small(estimator).fit(arrays)
    for given in ((X.to_numpy(), y, [0] * len(X)), ([(X.to_numpy(), y)],)):
        with pytest.raises(ValueError, match="has 3 features, but .* expecting 2"):
            model.partial_adapt(*given)


@pytest.mark.parametrize("estimator", ALL)
def test_frames_of_a_list_may_have_the_columns_of_fit_in_any_order(estimator):
    model = fitted(estimator)
    (X, y), *_ = named_tasks(estimator, ("abc",), seed=3)
    expected = output(model.adapt([(X, y)]), X, [0] * len(X))
    found = output(model.adapt([(X[["c", "b", "a"]], y)]), X, [0] * len(X))
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert model.score([(X[["c", "a", "b"]], y)]) == model.score([(X, y)])


@pytest.mark.parametrize("estimator", ALL)
def test_arrays_of_different_widths(estimator):
    """No names: columns of two tasks have nothing to do with each other."""
    tasks = [
        (X.to_numpy(), y) for X, y in named_tasks(estimator, ("ab", "abc", "abcd"))
    ]
    model = small(estimator).fit(tasks)
    assert model.n_features_in_ == 4
    assert model.learner_.names.n_names == 0
    (X, y), *_ = named_tasks(estimator, ("abcde",), seed=3)
    X = X.to_numpy()
    expected = output(model.adapt(X, y), X)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(
        output(model.adapt(X[:, order], y), X[:, order]), expected, atol=1e-9
    )
    for width in (1, 2, 3):
        part = X[:, :width]
        assert np.isfinite(output(model.adapt(part, y), part)).all()
    model.adapt([(X[:, :2], y), (X[:, :3], y)])
    assert np.isfinite(output(model, X[:, :2], [0] * len(X))).all()
    with pytest.raises(ValueError, match="2 features.*the task 1 "):
        model.predict(X[:, :2], groups=[1] * len(X))


@pytest.mark.parametrize("estimator", ALL)
def test_arrays_of_one_width_have_the_same_columns(estimator):
    tasks = [(X.to_numpy(), y) for X, y in named_tasks(estimator, ("ab", "ab", "ab"))]
    model = small(estimator).fit(tasks)
    assert model.learner_.names.n_names == 2
    assert small(estimator, use_names=False).fit(tasks).learner_.names.n_names == 0
    # A width of its own is of other columns, whose positions mean nothing.
    (X, y), *_ = named_tasks(estimator, ("abc",), seed=3)
    X = X.to_numpy()
    expected = output(model.adapt(X, y), X)
    np.testing.assert_allclose(
        output(model.adapt(X[:, ::-1], y), X[:, ::-1]), expected, atol=1e-9
    )


@pytest.mark.parametrize("estimator", ALL)
def test_missing_values(estimator):
    tasks = named_tasks(estimator, ("ab", "bc", "abc"))
    tasks[0][0].loc[2:5, "a"] = np.nan
    model = small(estimator).fit(tasks)
    (X, y), *_ = named_tasks(estimator, ("abc",), seed=3)
    X.loc[:3, "b"] = None
    assert np.isfinite(output(model.adapt(X, y), X)).all()
    objects = X.astype(object).where(X.notna(), None)
    assert objects["b"][0] is None
    expected = output(model.adapt(X, y), X)
    np.testing.assert_allclose(output(model.adapt(objects, y), objects), expected)
    np.testing.assert_allclose(
        output(model.adapt([(objects, y)]), objects, [0] * len(X)), expected, atol=1e-8
    )
    empty = X.assign(b=np.nan)
    expected = output(model.adapt(X[["a", "c"]], y), X[["a", "c"]])
    np.testing.assert_allclose(output(model.adapt(empty, y), X), expected)


@pytest.mark.parametrize("estimator", ALL)
def test_score_and_partial_fit_with_other_columns(estimator):
    model = fitted(estimator)
    new = named_tasks(estimator, ("bz", "zq"), seed=5, n_rows=20)
    known = model._known_columns
    score = model.score(new)
    assert np.isfinite(score) and model._known_columns is known
    X, y = new[1]
    assert np.isfinite(model.score(X, y, groups=["new"] * len(X)))
    model.partial_fit(new)
    assert len(model.states_) == 6
    assert model.predict(new[1][0], groups=[5] * 20).shape == (20,)


@pytest.mark.parametrize("estimator", ALL)
def test_frame_with_the_columns_of_fit_keeps_their_order(estimator):
    model = fitted(estimator)
    (X, y), *_ = named_tasks(estimator, ("abc",), seed=3)
    with pytest.raises(ValueError, match="same order"):
        model.adapt(X[["c", "b", "a"]], y)


@pytest.mark.parametrize("estimator", ALL)
def test_faults_name_task_and_column(estimator):
    model = fitted(estimator)
    tasks = named_tasks(estimator, ("ab", "bc", "cd"))
    bad = tasks[1][0].astype(object)
    bad.loc[3, "c"] = "high"
    where = "(?s)could not convert.*task 1, row 3, column 'c' of X"
    for call in (small(estimator).fit, model.adapt, model.partial_fit, model.score):
        with pytest.raises(ValueError, match=where):
            call([tasks[0], (bad, tasks[1][1])])
    infinite = tasks[2][0].copy()
    infinite.loc[4, "d"] = np.inf
    with pytest.raises(ValueError, match="(?s)infinity.*row 4, column 'd' of X"):
        model.adapt(infinite, tasks[2][1])
    with pytest.raises(ValueError, match="Task 1: its columns have no names"):
        model.adapt([tasks[0], (tasks[1][0].to_numpy(), tasks[1][1])])
    twice = tasks[0][0].set_axis(["q", "q"], axis=1)
    with pytest.raises(ValueError, match="'q'"):
        model.adapt(twice, tasks[0][1])
    with pytest.raises(ValueError, match="requires y"):
        model.adapt(tasks[2][0])
    with pytest.raises(ValueError, match="Task 0: X has rows of shape"):
        small(estimator).fit([(np.zeros((4, 2, 2)), [0, 1, 0, 1])])
    assert list(model.states_) == [0, 1, 2, 3]
    X, y = named_tasks(estimator, (["a", "z"],), seed=3)[0]
    model.adapt(X, y, groups=["mine"] * len(X))
    with pytest.raises(
        ValueError, match=r"lacks the columns \['z'\] of the task 'mine'"
    ):
        model.predict(X[["a"]], groups=["mine"] * len(X))
    for value, match in ((np.inf, "infinity"), ("high", "could not convert")):
        spoilt = X.astype(object)
        spoilt.loc[4, "z"] = value
        where = f"(?s){match}.*task 'mine', row 4, column 'z' of X"
        for call in (model.predict, lambda Z, groups: model.adapt(Z, y, groups)):
            with pytest.raises(ValueError, match=where):
                call(spoilt, groups=["mine"] * len(X))
    with pytest.raises(ValueError, match="'q'"):
        model.predict(twice, groups=["mine"] * len(twice))
    with pytest.raises(NotFittedError):
        small(estimator).predict(X)


def test_backbone_and_heads_must_fit():
    with pytest.raises(ValueError, match="multiple of n_heads=3"):
        small(InContextClassifier, n_heads=3).fit(
            named_tasks(InContextClassifier, ("ab", "bc"))
        )


def test_a_new_column_helps():
    """The class shows in a column that training has never had."""
    rng = np.random.default_rng(0)

    def task(names, n_rows=40):
        y = np.arange(n_rows) % 2
        X = rng.normal(size=(n_rows, len(names)))
        X[:, -1] += 3 * y
        X = pd.DataFrame(X, columns=names)
        return X[sorted(names)], y

    tasks = [task(rng.permutation(list("abcd"))[:3].tolist()) for _ in range(30)]
    meta = HeterogeneousClassifier(
        tiny_net(max_epochs=5), n_queries=5, n_episodes=20, random_state=0
    ).fit(tasks)
    X, y = task(["a", "b", "new"], 200)
    few = np.arange(16)
    new = meta.adapt(X.iloc[few], y[few]).predict(X)
    known = X[["a", "b"]]
    old = meta.adapt(known.iloc[few], y[few]).predict(known)
    assert (new == y).mean() > 0.85
    assert (new == y).mean() > (old == y).mean() + 0.2


# --------------------------------------------------------------------- self-made tasks
def test_self_made_tasks_hide_their_targets():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 5)), columns=list("abcde"))
    tasks = SelfMadeTasks(6, random_state=0).make(table)
    assert len(tasks) == 6
    for X, y in tasks:
        assert X.columns.tolist() == list("abcde") and len(y) == 60
        assert 2 <= len(np.unique(y)) <= 5
        moved = [c for c in X if not np.array_equal(X[c], table[c])]
        assert 1 <= len(moved) <= 2 or len(moved) == 3  # 0.2 to 0.5 of five columns
        for column in X:  # shuffled, not changed
            np.testing.assert_array_equal(np.sort(X[column]), np.sort(table[column]))
    again = SelfMadeTasks(6, random_state=0).make(table)
    for (X, y), (X2, y2) in zip(tasks, again, strict=True):
        assert X.equals(X2) and np.array_equal(y, y2)


def test_self_made_classes_are_clusters_of_hidden_columns():
    rng = np.random.default_rng(0)
    cluster = np.repeat([0, 1], 30)
    table = rng.normal(size=(60, 3)) * 0.1 + 10 * cluster[:, None]
    for _, y in SelfMadeTasks(5, n_classes=2, random_state=1).make(table):
        assert len(np.unique(cluster * 2 + y)) == 2  # the same partition


def test_self_made_numbers():
    table = np.arange(40.0).reshape(20, 2) ** 2
    for X, y in SelfMadeTasks(3, kind="numbers", random_state=0).make([table, table]):
        assert X.shape == (20, 2)
        assert abs(y.mean()) < 1e-9 and abs(y.std() - 1) < 1e-9


def test_any_learner_can_learn_from_self_made_tasks():
    rng = np.random.default_rng(0)
    tasks = SelfMadeTasks(8, random_state=0).make(rng.normal(size=(50, 4)))
    model = ProtoNetClassifier(tiny_net(), label_space="per_task", random_state=0)
    assert len(model.fit(tasks).states_) == 8
    tables = [rng.normal(size=(30, d)) for d in (2, 5)]
    mixed = SelfMadeTasks(8, random_state=0).make(tables)
    assert [X.shape[1] for X, _ in mixed[:2]] == [2, 5]
    model = small(InContextClassifier, label_space="per_task").fit(mixed)
    assert len(model.states_) == 8


@pytest.mark.parametrize(
    "params, match",
    [
        ({"n_tasks": 0}, "n_tasks"),
        ({"kind": "words"}, "kind"),
        ({"n_classes": 1}, "n_classes"),
        ({"n_classes": (5, 2)}, "n_classes"),
        ({"share": 0.3}, "share"),
        ({"share": (0.5, 0.2)}, "share"),
        ({"n_rows": 1}, "n_rows"),
        ({"random_state": "seed"}, "random_state"),
    ],
)
def test_self_made_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        SelfMadeTasks(**params).make(np.zeros((8, 3)))


def test_self_made_tables_are_checked():
    with pytest.raises(ValueError, match="Table 1: .*1 feature"):
        SelfMadeTasks().make([np.zeros((8, 3)), np.zeros((8, 1))])
    holes = np.random.default_rng(0).normal(size=(30, 3))
    holes[::3, 1] = np.nan
    for X, y in SelfMadeTasks(4, random_state=0).make(holes):
        assert np.isnan(X).sum() == 10 and not np.isnan(y).any()
