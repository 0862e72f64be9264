"""Metric learners against loops over tasks, rows and classes."""

import copy

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, long_format, tiny, tiny_net
from torch import nn

from skmeta import (
    DualProtoNetClassifier,
    MatchingNetClassifier,
    ProtoNetClassifier,
    RelationNetClassifier,
    SimpleShotClassifier,
)
from skmeta.datasets import load_digits_tasks
from skmeta.metric import MatchingNet, ProtoNet, RelationNet, SimpleShot
from skmeta.tasks import TaskBatch

EXACT = {"rtol": 1e-10, "atol": 1e-11}
N_CLASSES, N_FEATURES = 3, 4
SUPPORT, QUERY = (7, 3, 5), (4, 6, 2)
LEARNERS = {
    "proto": lambda *a, **k: ProtoNet(*a, **k),
    "cosine": lambda *a, **k: ProtoNet(*a, metric="cosine", **k),
    "mahalanobis": lambda *a, **k: ProtoNet(*a, metric="mahalanobis", **k),
    "relation": lambda *a, **k: RelationNet(*a, width=5, **k),
    "simpleshot": lambda *a, **k: SimpleShot(*a, **k),
    "matching": lambda *a, **k: MatchingNet(*a, **k),
    "matching-euclidean": lambda *a, **k: MatchingNet(*a, metric="euclidean", **k),
}
PROTOTYPES = ["proto", "cosine", "mahalanobis", "relation", "simpleshot"]


def make_batch(counts, seed=0, exists=None):
    """Padded rows; classes in turn, of those that the task has."""
    generator = torch.Generator().manual_seed(seed)
    width = max(counts)
    X = torch.randn(len(counts), width, 2, generator=generator).double()
    n_own = torch.full((len(counts), 1), N_CLASSES)
    if exists is not None:
        n_own = exists.sum(1, keepdim=True)
    y = torch.arange(width) % n_own
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    X[~mask], y[~mask] = 0, 0
    return TaskBatch(X, y, mask, N_CLASSES, exists)


def make_learner(name, shared, refine=0):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(2, N_FEATURES), nn.Tanh())
    options = {"refine": refine} if refine else {}
    n_classes = N_CLASSES if shared else None
    learner = LEARNERS[name](backbone, N_FEATURES, n_classes, **options).double()
    if name == "simpleshot":
        rows = torch.randn(20, N_FEATURES).double()
        learner.see(rows, torch.arange(20) % N_CLASSES)
    elif shared:
        with torch.no_grad():
            learner.log_strength.fill_(0.3)
    return learner


def rows_of(batch, t):
    keep = batch.mask[t]
    return batch.X[t][keep], batch.y[t][keep]


# ------------------------------------------------ references: one query row at a time
def embedded(learner, X):
    features = learner.backbone(X)
    if isinstance(learner, SimpleShot):
        features = features - learner.mean
        features = torch.stack([f / f.norm() for f in features])
    return features


def class_mean(learner, features, y, c):
    rows = [f for f, label in zip(features, y, strict=True) if label == c]
    if not learner.shared:
        return sum(rows) / len(rows), len(rows)
    strength = learner.log_strength.exp()
    weight = len(rows) + strength
    return (sum(rows) + strength * learner.prior[c]) / weight, weight


def covariance(rows):
    if len(rows) == 0:
        return torch.zeros(N_FEATURES, N_FEATURES).double()
    centred = rows - rows.mean(0)
    return sum(torch.outer(r, r) for r in centred) / len(rows)


def logit_alone(learner, f, mean, features, y, c):
    if isinstance(learner, RelationNet):
        pair = torch.cat([f, mean])
        joint = torch.cat([learner.of_row.weight, learner.of_class.weight], dim=1)
        return learner.score(joint @ pair + learner.of_row.bias)[0]
    if isinstance(learner, SimpleShot):
        # The squared norm of the row is the same for every class.
        return -10 * ((f - mean).square().sum() - f.square().sum())
    if learner.metric == "cosine":
        cosine = f @ mean / (f.norm() * mean.norm())
        return learner.log_scale.exp() * cosine
    if learner.metric == "mahalanobis":
        own = features[y == c]
        weight = len(own) / (len(own) + 1)
        total = weight * covariance(own) + (1 - weight) * covariance(features)
        total = total + learner.log_ridge.exp() * torch.eye(N_FEATURES)
        gap = f - mean
        return -gap @ torch.linalg.inv(total) @ gap / 2
    return -((f - mean).square().sum() - f.square().sum())


def prototypes_alone(learner, X, y, X_query, classes):
    features, rows = embedded(learner, X), embedded(learner, X_query)
    start = [class_mean(learner, features, y, c) for c in classes]
    means = [mean for mean, _ in start]

    def logits():
        return torch.stack(
            [
                torch.stack(
                    [
                        logit_alone(learner, f, means[i], features, y, c)
                        for i, c in enumerate(classes)
                    ]
                )
                for f in rows
            ]
        )

    for _ in range(learner.refine):
        share = logits().softmax(1)
        means = [
            (n * mean + sum(s * f for s, f in zip(share[:, i], rows, strict=True)))
            / (n + share[:, i].sum())
            for i, (mean, n) in enumerate(start)
        ]
    return logits()


def matching_alone(learner, X, y, X_query, classes):
    features, voters = learner.backbone(X), []
    for f, label in zip(features, y, strict=True):
        voters.append((f, int(label), 1.0))
    if learner.shared:
        strength = learner.log_strength.exp()
        voters += [(p, c, strength) for c, p in enumerate(learner.prior)]
    found = []
    for f in learner.backbone(X_query):
        votes = dict.fromkeys(classes, 0.0)
        for key, label, weight in voters:
            if learner.metric == "cosine":
                score = learner.log_scale.exp() * f @ key / (f.norm() * key.norm())
            else:
                score = -(f - key).square().sum()
            votes[label] = votes[label] + weight * score.exp()
        found.append(torch.stack([votes[c] for c in classes]).log())
    return torch.stack(found)


def alone(name, learner, X, y, X_query, classes):
    reference = matching_alone if "matching" in name else prototypes_alone
    return reference(learner, X, y, X_query, classes)


def check_against_loop(name, learner, support, query):
    output = learner.predict(learner.adapt(support), query)
    for t in range(support.n_tasks):
        X, y = rows_of(support, t)
        classes = list(range(N_CLASSES))
        if support.class_mask is not None:
            classes = support.class_mask[t].nonzero().flatten().tolist()
        n_rows = int(query.mask[t].sum())
        expected = alone(name, learner, X, y, query.X[t, :n_rows], classes)
        found = output[t, :n_rows, classes]
        torch.testing.assert_close(found.softmax(1), expected.softmax(1), **EXACT)
        others = [c for c in range(N_CLASSES) if c not in classes]
        assert (output[t, :n_rows][:, others] == -torch.inf).all()


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per task"])
def test_padded_tasks_are_a_loop(name, shared):
    learner = make_learner(name, shared)
    exists = (
        None if shared else torch.arange(N_CLASSES) < torch.tensor([3, 2, 3])[:, None]
    )
    support = make_batch(SUPPORT, exists=exists)
    check_against_loop(name, learner, support, make_batch(QUERY, seed=1))


@pytest.mark.parametrize("name", PROTOTYPES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per task"])
def test_refinement_is_soft_k_means_on_the_query_rows_of_the_task(name, shared):
    learner = make_learner(name, shared, refine=2)
    exists = (
        None if shared else torch.arange(N_CLASSES) < torch.tensor([3, 2, 3])[:, None]
    )
    support = make_batch(SUPPORT, exists=exists)
    check_against_loop(name, learner, support, make_batch(QUERY, seed=1))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_task_without_rows_has_the_prior(name):
    learner = make_learner(name, shared=True)
    support, query = make_batch((4, 0, 1)), make_batch(QUERY, seed=1)
    output = learner.predict(learner.adapt(support), query)
    assert output.isfinite().all()
    empty = TaskBatch(query.X[:, :0], query.y[:, :0], None, N_CLASSES)
    prior = learner.predict(learner.adapt(empty), query)
    torch.testing.assert_close(output[1].softmax(1), prior[1].softmax(1), **EXACT)
    assert (output[0, :4].softmax(1) - prior[0, :4].softmax(1)).abs().max() > 1e-3


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("refine", [0, 2])
def test_gradients(name, refine):
    """Exact with respect to all weights, of padded tasks with missing classes."""
    if "matching" in name and refine:
        pytest.skip("attention has no class means to refine")
    learner = make_learner(name, shared=False, refine=refine)
    exists = torch.arange(N_CLASSES) < torch.tensor([3, 2])[:, None]
    support, query = make_batch((5, 3), exists=exists), make_batch((2, 3), seed=1)
    names, weights = zip(*learner.named_parameters(), strict=True)

    def function(*values):
        parameters = dict(zip(names, values, strict=True))
        module = lambda: torch.func.functional_call(  # noqa: E731
            _Episode(learner),
            {f"learner.{k}": v for k, v in parameters.items()},
            (support, query),
        )
        output = module()
        return output.masked_fill(~exists.unsqueeze(1), 0)[query.mask]

    assert torch.autograd.gradcheck(function, weights, fast_mode=True)


class _Episode(nn.Module):
    def __init__(self, learner):
        super().__init__()
        self.learner = learner

    def forward(self, support, query):
        return self.learner.predict(self.learner.adapt(support), query)


def test_one_row_per_class_makes_matching_a_prototypical_network():
    proto = make_learner("proto", shared=False)
    matching = make_learner("matching-euclidean", shared=False)
    support, query = make_batch((3, 3)), make_batch((5, 5), seed=1)
    outputs = [
        m.predict(m.adapt(support), query).softmax(-1) for m in (proto, matching)
    ]
    torch.testing.assert_close(*outputs, **EXACT)


def test_mahalanobis_of_a_task_without_spread_is_euclidean():
    """One row per class and task: what is left of the covariance is the ridge."""
    support, query = make_batch((1, 1)), make_batch((5, 5), seed=1)
    one = TaskBatch(support.X, support.y, None, N_CLASSES)
    mahalanobis = make_learner("mahalanobis", shared=True)
    with torch.no_grad():
        mahalanobis.log_ridge.fill_(-np.log(2))  # halves of squares, under a half
    euclidean = make_learner("proto", shared=True)
    outputs = [
        m.predict(m.adapt(one), query).softmax(-1) for m in (mahalanobis, euclidean)
    ]
    torch.testing.assert_close(*outputs, **EXACT)


def test_means_of_simpleshot_are_those_of_all_rows_seen():
    learner = make_learner("simpleshot", shared=True)
    rows, y = torch.randn(30, N_FEATURES).double(), torch.arange(30) % N_CLASSES
    fresh = SimpleShot(nn.Identity(), N_FEATURES, N_CLASSES).double()
    fresh.see(rows, y)
    torch.testing.assert_close(fresh.mean, rows.mean(0), **EXACT)
    unit = (rows - rows.mean(0)) / (rows - rows.mean(0)).norm(dim=1, keepdim=True)
    for c in range(N_CLASSES):
        torch.testing.assert_close(fresh.prior[c], unit[y == c].mean(0), **EXACT)
    before = learner.mean.clone()
    learner.see(rows, y)
    torch.testing.assert_close(
        learner.mean, (20 * before + 30 * rows.mean(0)) / 50, **EXACT
    )
    assert (learner.n_seen_of_class.sum(), learner.n_seen) == (50, 50)


# -------------------------------------------------------------------------- estimators
def test_simpleshot_without_training_is_a_nearest_centroid():
    digits = load_digits_tasks(flatten=True)
    X, y = digits.X_test[:80], digits.y_test[:80]
    meta = SimpleShotClassifier(pretrain=False, random_state=0)
    meta.fit(digits.X_train, digits.y_train).adapt(X[:40], y[:40])
    centre = digits.X_train.mean(axis=0)

    def unit(rows):
        return (rows - centre) / np.linalg.norm(rows - centre, axis=1, keepdims=True)

    labels = np.unique(y[:40])
    means = np.stack([unit(X[:40])[y[:40] == c].mean(axis=0) for c in labels])
    distance = ((unit(X[40:])[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_array_equal(meta.predict(X[40:]), labels[distance.argmin(axis=1)])
    assert list(meta.learner_.backbone.parameters()) == []
    assert len(meta.history_) == 0


def test_pretrained_weights_are_left_alone_without_training():
    backbone = nn.Linear(3, 4)
    meta = SimpleShotClassifier(backbone, pretrain=False, random_state=0)
    meta.fit(classification_tasks())
    weight = meta.learner_.backbone.weight
    torch.testing.assert_close(weight, backbone.weight.detach().double())
    trained = SimpleShotClassifier(tiny_net(backbone), random_state=0)
    trained.fit(classification_tasks())
    assert (trained.learner_.backbone.weight - weight).abs().max() > 1e-3


@pytest.mark.parametrize("refine", [0, 2])
def test_only_refined_predictions_depend_on_the_other_rows(refine):
    tasks = classification_tasks(n_rows=30)
    X, y = classification_tasks(n_rows=30, seed=1)[0]
    for estimator in (
        DualProtoNetClassifier,
        ProtoNetClassifier,
        RelationNetClassifier,
        SimpleShotClassifier,
    ):
        meta = estimator(tiny_net(), refine=refine, random_state=0)
        meta.fit(tasks).adapt(X[:4], y[:4])
        together = meta.predict_proba(X[4:])
        apart = np.concatenate([meta.predict_proba(row[None]) for row in X[4:]])
        assert np.allclose(together, apart, atol=1e-9) == (refine == 0)


def test_refinement_sees_the_rows_of_its_own_task_alone():
    tasks = classification_tasks(n_rows=30)
    X, y, groups = long_format(classification_tasks(3, n_rows=30, seed=1))
    first = np.arange(len(X)) % 30 < 4
    meta = tiny(ProtoNetClassifier, refine=2).fit(tasks)
    meta.adapt(X[first], y[first], groups=groups[first] + 100)
    together = meta.predict_proba(X, groups=groups + 100)
    for g in range(3):
        alone = meta.predict_proba(X[groups == g], groups=groups[groups == g] + 100)
        np.testing.assert_allclose(alone, together[groups == g], **EXACT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny(ProtoNetClassifier, metric="mahalanobis"),
        lambda: tiny(ProtoNetClassifier, refine=1),
        lambda: tiny(MatchingNetClassifier, metric="euclidean"),
        lambda: tiny(MatchingNetClassifier),
        lambda: tiny(RelationNetClassifier, n_episodes=80),
        lambda: SimpleShotClassifier(tiny_net(max_epochs=10), random_state=0),
    ],
    ids=["mahalanobis", "refined", "matching", "matching cosine", "relation", "simple"],
)
def test_a_fleet_is_a_loop_and_adapting_pays(make):
    meta = make().fit(classification_tasks(20, n_rows=20))
    X, y, groups = long_format(classification_tasks(6, n_rows=20, seed=1))
    keep = (np.arange(len(X)) % 20) < 8 + groups  # ragged
    fleet = copy.copy(meta).adapt(X[keep], y[keep], groups=groups[keep] + 50)
    together = fleet.predict_proba(X, groups=groups + 50)
    for g in range(6):
        rows = keep & (groups == g)
        alone = copy.copy(meta).adapt(X[rows], y[rows])
        found = alone.predict_proba(X[groups == g])
        np.testing.assert_allclose(found, together[groups == g], rtol=1e-8, atol=1e-10)
    assert (fleet.predict(X, groups=groups + 50) == y).mean() > 0.6
