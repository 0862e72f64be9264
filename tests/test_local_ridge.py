"""Ridge regressions on the support rows alone, mixed; and what corrects them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from _tiny import tiny_net
from torch import nn

from skmeta import HeterogeneousClassifier
from skmeta.heterogeneous import _local_ridge
from skmeta.heterogeneous._columns_learner import cells_of, columns_of
from skmeta.heterogeneous._local_ridge import LocalRidge
from skmeta.tasks._batch import TaskBatch


def local_ridge(classifier, seed=0):
    """With what is learned away from where it starts, which is zero for most."""
    torch.manual_seed(seed)
    model = LocalRidge(classifier, class_balanced=False).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def one_task(classifier, n_rows=9, seed=0):
    rng = torch.Generator().manual_seed(seed)
    X = torch.randn(1, n_rows, 4, generator=rng, dtype=torch.float64)
    y = X[..., 0] + torch.randn(1, n_rows, generator=rng, dtype=torch.float64)
    if classifier:
        y = torch.bucketize(y, torch.tensor([-0.5, 0.5]).double())
        y[0, :3] = torch.arange(3)
    support = TaskBatch(X, y, None, 3 if classifier else None)
    query = TaskBatch(torch.randn(1, 5, 4, generator=rng, dtype=torch.float64))
    return support, query


def adapted(model, support, query):
    """State, and the cells of the rows to predict."""
    state = columns_of(support)
    targets = support.y.unsqueeze(-1)
    if model.classifier:
        targets = nn.functional.one_hot(support.y, 3).double()
    state |= model.adapt(cells_of(state, support)[0], targets, state, support, 1)
    return state, cells_of(state, query)[0]


def local_by_hand(model, cells, query, y, classifier, limit):
    """Experts, each solved for each row that is left out; one task."""
    (n_rows, d), n_classes = cells.shape, 3
    size = torch.tensor([1, math.log(n_rows / 10), math.log(d / 8)]).double()
    alphas = (5.0 * model.log_alpha @ size).exp()
    stretch, before = (model.log_stretch @ size).exp(), model.log_before @ size
    order = cells.abs().sum(dim=1).argsort()
    marks = cells
    if n_rows > limit:
        marks = cells[order[torch.tensor([0, 1, 3, 4, 6, 7])]]  # 9 rows, 6 of them

    def similar(A, B):
        distance = (A[:, None] - B).abs().mean(dim=-1)
        return (-distance / model.log_width.exp()).exp()

    among = similar(marks, marks) + 1e-4 * torch.eye(len(marks)).double()

    def kernels(A, B):
        return A @ B.T / d + 1, similar(A, marks) @ torch.linalg.solve(
            among, similar(marks, B)
        ) + 1

    Y = nn.functional.one_hot(y, 3).double() if classifier else y[:, None]
    centred = Y - 1 / n_classes if classifier else Y

    def said(rows, A):
        """Outputs of all experts for rows `A`, from some rows of the support."""
        outputs, counts = [], Y[rows].sum(dim=0)
        frequency = ((counts + 1) / (len(rows) + 3)).log()
        for kind in range(2):
            K = kernels(cells[rows], cells[rows])[kind]
            for multiple in (0.01, 0.1, 1.0, 10.0):
                e = len(outputs)
                solved = K + multiple * alphas[kind] * torch.eye(len(rows)).double()
                solved = torch.linalg.solve(solved, centred[rows])
                output = stretch[e] * kernels(A, cells[rows])[kind] @ solved
                if classifier:
                    output = output + model.by_frequency[e] * frequency
                outputs.append(output)
        return torch.stack(outputs)

    everything = list(range(n_rows))
    told = torch.stack(
        [
            said([j for j in everything if j != i], cells[i : i + 1])[:, 0]
            for i in everything
        ],
        dim=1,
    )
    if classifier:
        likelihood = told.log_softmax(-1)[:, everything, y].sum(dim=1)
    else:
        error = (Y - told).square().mean(dim=(1, 2))
        likelihood = -0.5 * n_rows * (error + 1e-6).log()
    belief = (before + model.log_trust.exp() * likelihood).softmax(0)
    assert belief.max() < 0.99  # more than one has a say
    outputs = said(everything, query)
    if classifier:
        return torch.einsum("e,enc->nc", belief, outputs.softmax(-1)).log()
    return torch.einsum("e,eno->no", belief, outputs)


@pytest.mark.parametrize("classifier", [True, False])
@pytest.mark.parametrize("limit", [256, 6], ids=["all rows", "landmarks"])
def test_local_ridge_by_hand(classifier, limit, monkeypatch):
    """A mixture of regressions, by how each tells the rows left out."""
    monkeypatch.setattr(_local_ridge, "MAX_LANDMARKS", limit)
    model = local_ridge(classifier)
    support, query = one_task(classifier)
    state, cells = adapted(model, support, query)
    correction = torch.randn(1, 5, 3 if classifier else 1).double()
    found = model.corrected(state, cells, correction)
    known = cells_of(state, support)[0][0]
    expected = local_by_hand(model, known, cells[0], support.y[0], classifier, limit)
    # One of four columns is known.
    size = torch.tensor([1, math.log(0.9), math.log(0.5), 0.25]).double()
    share = (model.log_share @ size).exp()
    if classifier:
        expected = expected + share * (0.03 + correction[0].softmax(-1)).log()
    else:
        share = share / (share + 9 / 10)
        expected = (1 - share) * expected + share * correction[0]
    torch.testing.assert_close(found[0], expected, rtol=1e-8, atol=1e-8)


def test_a_correction_is_bounded():
    """However sure a network is, it moves no log-odds by more than its share of 3.5."""
    model = local_ridge(classifier=True)
    state, cells = adapted(model, *one_task(classifier=True))
    alone = model.corrected(state, cells, torch.zeros(1, 5, 3).double())
    sure = torch.tensor([1e6, 0.0, 0.0]).double().expand(1, 5, 3)
    moved = model.corrected(state, cells, sure) - alone
    gained = (moved[..., 0] - moved[..., 1]) / state["local share"]
    expected = torch.full_like(gained, math.log(1.03 / 0.03))
    torch.testing.assert_close(gained, expected)


def test_one_cell_far_out_says_little():
    """Of eight columns that say the class, one may be wrong by any amount."""
    rng = np.random.default_rng(0)
    y = np.arange(16) % 2
    X = rng.normal(size=(16, 8)) + 2 * y[:, None]
    model = LocalRidge(classifier=True).double().requires_grad_(False)
    model.log_before[:4] = -100.0  # the kernel alone
    spoilt = X + 0
    spoilt[:, 3] -= 20 * (2 * y - 1)
    support = TaskBatch(torch.from_numpy(X)[None], torch.from_numpy(y)[None], None, 2)
    query = TaskBatch(torch.from_numpy(spoilt)[None])
    state = columns_of(support)
    targets = nn.functional.one_hot(support.y, 2).double()
    state |= model.adapt(cells_of(state, support)[0], targets, state, support, 1)
    found = model.corrected(
        state, cells_of(state, query)[0], torch.zeros(1, 16, 2).double()
    )
    assert found.argmax(-1).tolist() == [y.tolist()]


@pytest.mark.parametrize("balanced", [True, False])
def test_frequencies_are_learned_where_episodes_have_them(balanced):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)))
    y = np.repeat([0, 1], [24, 6])
    model = HeterogeneousClassifier(
        tiny_net(),
        n_shots=3,
        n_queries=3,
        n_episodes=8,
        label_space="per_task",
        class_balanced=balanced,
        random_state=0,
    ).fit([(X, y), (2 * X, y)])
    start = torch.tensor(_local_ridge._BY_FREQUENCY).double()
    found = model.learner_.local.by_frequency
    assert torch.allclose(found, start, atol=1e-6) == balanced
