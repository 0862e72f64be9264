"""Augmentations against what they promise of every single row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from _tiny import classification_tasks, regression_tasks, tiny
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils.class_weight import compute_class_weight

from skmeta import ProtoNetClassifier, RidgeHeadRegressor
from skmeta.augmentation import (
    ClassRotation,
    Compose,
    Cutout,
    GaussianNoise,
    Mixup,
    RandomCrop,
    RandomFlip,
    Resample,
    TimeShift,
    TokenDropout,
)
from skmeta.tasks import TaskBatch


def images(n_tasks=3, n_rows=8, side=6, n_classes=4, channels=()):
    """Every pixel says what it is: no two are alike."""
    shape = (n_tasks, n_rows, *channels, side, side)
    X = 1 + torch.arange(np.prod(shape), dtype=torch.float32).view(shape)
    y = torch.arange(n_rows).remainder(n_classes).expand(n_tasks, -1).clone()
    mask = torch.ones(n_tasks, n_rows, dtype=torch.bool)
    mask[-1, 5:] = False
    X[~mask], y[~mask] = 0, 0
    return TaskBatch(X, y, mask, n_classes)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


ROWS = {
    "crop": RandomCrop(2),
    "flip": RandomFlip(),
    "noise": GaussianNoise(),
    "cutout": Cutout(3),
    "tokens": TokenDropout(0.5),
    "mixup": Mixup(),
    "resample": Resample(),
    "time": TimeShift(2),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("part", ["both", "support", "query"])
def test_changes_the_part_it_is_told_to_and_edits_nothing(name, part):
    augment = clone(ROWS[name]).set_params(part=part)
    batch = images()
    before = batch.X.clone()
    support, query = augment(batch, batch)
    assert torch.equal(batch.X, before)
    assert torch.equal(support.X, before) == (part == "query")
    assert torch.equal(query.X, before) == (part == "support")
    for side in (support, query):
        assert side.X.shape == before.shape and side.X.dtype == before.dtype
        assert (side.X[~side.mask] == 0).all()  # padding stays blank
        assert side.y.shape == batch.y.shape
    with pytest.raises(ValueError, match="part must be"):
        clone(augment).set_params(part="all")(batch, batch)


@pytest.mark.parametrize("channels", [(), (2,)])
def test_crop_is_a_window_of_the_padded_image(channels):
    batch = images(channels=channels)
    cropped = RandomCrop(2).augment(batch)
    shifts = set()
    for t, i in batch.mask.nonzero().tolist():
        padded = torch.nn.functional.pad(batch.X[t, i], (2, 2, 2, 2))
        found = [
            (a, b)
            for a in range(5)
            for b in range(5)
            if torch.equal(padded[..., a : a + 6, b : b + 6], cropped.X[t, i])
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 10  # every image its own


@pytest.mark.parametrize("channels", [(), (3,)])
def test_time_shift_moves_all_channels_together(channels):
    X = 1 + torch.arange(2 * 9 * 7 * (channels[0] if channels else 1)).float()
    batch = TaskBatch(X.view(2, 9, 7, *channels))
    moved = TimeShift(3).augment(batch).X
    shifts = []
    for t in range(2):
        for i in range(9):
            row = batch.X[t, i]
            for s in range(-3, 4):
                expected = torch.zeros_like(row)
                expected[max(s, 0) : 7 + min(s, 0)] = row[max(-s, 0) : 7 - max(s, 0)]
                if torch.equal(expected, moved[t, i]):
                    shifts.append(s)
    assert len(shifts) == 18 and len(set(shifts)) > 3


@pytest.mark.parametrize(("direction", "dim"), [("horizontal", -1), ("vertical", -2)])
def test_flip(direction, dim):
    batch = images(n_rows=200)
    flipped = RandomFlip(direction, p=0.25).augment(batch).X
    real = batch.mask.nonzero().tolist()
    turned = [torch.equal(flipped[t, i], batch.X[t, i].flip(dim - 0)) for t, i in real]
    same = [torch.equal(flipped[t, i], batch.X[t, i]) for t, i in real]
    assert all(a != b for a, b in zip(turned, same, strict=True))
    assert 0.18 < np.mean(turned) < 0.32
    with pytest.raises(ValueError, match="direction"):
        RandomFlip("left").augment(batch)


def test_cutout_blanks_one_square():
    batch = images(n_rows=50)
    cut = Cutout(3).augment(batch).X
    for t, i in batch.mask.nonzero().tolist():
        gone = cut[t, i] == 0
        rows, columns = gone.any(1).nonzero().flatten(), gone.any(0).nonzero().flatten()
        assert 2 <= len(rows) <= 3 and 2 <= len(columns) <= 3
        assert gone.sum() == len(rows) * len(columns)
        assert torch.equal(cut[t, i][~gone], batch.X[t, i][~gone])


def test_noise_has_its_standard_deviation():
    batch = TaskBatch(torch.zeros(10, 100, 30))
    noisy = GaussianNoise(0.5).augment(batch).X
    assert abs(float(noisy.std()) - 0.5) < 0.01 and abs(float(noisy.mean())) < 0.01


def test_token_dropout_leaves_padding():
    ids = torch.randint(2, 50, (4, 20, 30))
    ids[..., 20:] = 0
    dropped = TokenDropout(0.3).augment(TaskBatch(ids)).X
    assert dropped.dtype == torch.int64 and (dropped[..., 20:] == 0).all()
    words, gone = ids[..., :20], dropped[..., :20] == 1
    assert torch.equal(dropped[..., :20][~gone], words[~gone])
    assert 0.25 < gone.float().mean() < 0.35


def test_tokens_go_together_with_their_n_grams():
    ids = torch.randint(2, 50, (4, 20, 30, 5))
    ids[:, :, 20:] = 0
    dropped = TokenDropout(0.3).augment(TaskBatch(ids)).X
    gone = dropped[..., 0] == 1
    assert 0.15 < gone.float().mean() < 0.25
    assert torch.equal(dropped[~gone], ids[~gone]) and (dropped[gone][:, 1:] == 0).all()


def test_classes_rotate_together():
    support, query = images(n_tasks=30), images(n_tasks=30)
    turned_support, turned_query = ClassRotation()(support, query)
    kinds = set()
    for t in range(30):
        for c in range(4):
            turns = set()
            for batch, turned in ((support, turned_support), (query, turned_query)):
                for i in ((batch.y[t] == c) & batch.mask[t]).nonzero().flatten():
                    turns.add(
                        tuple(
                            torch.equal(turned.X[t, i], batch.X[t, i].rot90(k, (0, 1)))
                            for k in range(4)
                        )
                    )
            assert len(turns) == 1 and sum(*turns) == 1
            kinds |= turns
    assert len(kinds) == 4


def test_mixup_of_classes_stays_inside_the_class():
    batch = images(n_rows=40)
    mixed = Mixup(1.0).augment(batch)
    assert torch.equal(mixed.y, batch.y)
    for t, i in batch.mask.nonzero().tolist():
        mates = batch.mask[t] & (batch.y[t] == batch.y[t, i])
        low, high = batch.X[t][mates].amin(0), batch.X[t][mates].amax(0)
        assert ((mixed.X[t, i] >= low) & (mixed.X[t, i] <= high)).all()
    assert not torch.equal(mixed.X, batch.X)


def test_mixup_of_targets_mixes_them_like_rows():
    """Where targets are linear in the rows, mixed ones are too."""
    X = torch.randn(5, 30, 4, dtype=torch.float64)
    mask = torch.ones(5, 30, dtype=torch.bool)
    mask[0, 20:] = False
    X[~mask] = 0
    w = torch.randn(4, dtype=torch.float64)
    mixed = Mixup(0.5).augment(TaskBatch(X, X @ w, mask))
    torch.testing.assert_close(mixed.y, mixed.X @ w)
    assert not torch.equal(mixed.X, X)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4))
def test_resampled_classes_are_balanced(counts):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    X = torch.arange(len(y)).float().view(1, -1, 1).expand(200, -1, -1)
    batch = TaskBatch(X, y.expand(200, -1), None, len(counts))
    drawn = Resample().augment(batch)
    assert torch.equal(y[drawn.X.long().squeeze(-1)], drawn.y)  # rows keep their label
    share = torch.nn.functional.one_hot(drawn.y, len(counts)).float().mean((0, 1))
    assert (share - 1 / len(counts)).abs().max() < 0.2 / min(len(y) ** 0.5, 10) + 0.05


def test_in_an_estimator():
    """Deterministic, searchable, and without a trace in the prediction."""
    augment = Compose([GaussianNoise(0.3), Resample("support")])
    tasks = classification_tasks()
    meta = tiny(ProtoNetClassifier, augment=augment).fit(tasks)
    again = clone(meta).fit(tasks)
    plain = clone(meta).set_params(augment=None).fit(tasks)
    X, y = tasks[0]
    p = meta.adapt(X, y).predict_proba(X)
    np.testing.assert_array_equal(p, again.adapt(X, y).predict_proba(X))
    np.testing.assert_array_equal(p, meta.predict_proba(X))
    assert not np.allclose(p, plain.adapt(X, y).predict_proba(X))
    search = GridSearchCV(
        tiny(ProtoNetClassifier, augment=GaussianNoise()),
        {"augment__std": [0.01, 1.0]},
        cv=2,
    ).fit(tasks)
    assert len(search.cv_results_["params"]) == 2


class Exchange:
    """The other class, or the opposite target, for all query rows."""

    def __call__(self, support, query):
        y = 1 - query.y if query.n_classes else -query.y
        return support, replace(query, y=y)


@pytest.mark.parametrize("estimator", [ProtoNetClassifier, RidgeHeadRegressor])
def test_outer_loss_sees_augmented_targets(estimator):
    """Targets that an augmentation changes are those that are learned."""
    is_classifier = estimator is ProtoNetClassifier
    tasks = classification_tasks() if is_classifier else regression_tasks()
    net = {"max_epochs": 1, "lr": 0.0}  # the loss of the first weights
    plain, changed = (
        tiny(estimator, net=net, augment=augment).fit(tasks)
        for augment in (None, Exchange())
    )
    losses = [meta.history_[0, "train_loss"] for meta in (plain, changed)]
    assert losses[1] > losses[0] + 0.05


def test_rare_classes_by_weights_and_resampling():
    """Five rows of sixty are positive; both find more of them."""
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(40):
        X = rng.normal(size=(60, 4))
        level = X @ (1 + 0.3 * rng.normal(size=4)) + rng.normal(size=60)
        tasks.append((X, (level > np.quantile(level, 0.92)).astype(int)))
    y = np.concatenate([y for _, y in tasks[:25]])
    weight = compute_class_weight("balanced", classes=np.unique(y), y=y)

    def recall(net=(), **params):
        net = {"max_epochs": 8, **dict(net)}
        meta = tiny(ProtoNetClassifier, net=net, **params)
        meta.set_params(n_shots=10, n_queries=15, n_episodes=80).fit(tasks[:25])
        found = [meta.adapt(X[:20], y[:20]).predict(X[20:]) for X, y in tasks[25:]]
        truth = [y[20:] for _, y in tasks[25:]]
        return recall_score(np.concatenate(truth), np.concatenate(found))

    as_they_come = recall(class_balanced=False)
    weighted = recall(
        {"criterion__weight": torch.tensor(weight).float()}, class_balanced=False
    )
    resampled = recall(class_balanced=False, augment=Resample("query"))
    assert min(weighted, resampled) > as_they_come + 0.2


@pytest.mark.parametrize("augment", [RandomCrop(), RandomFlip(), Cutout()])
def test_images_only(augment):
    with pytest.raises(ValueError, match=f"{type(augment).__name__} needs images"):
        augment.augment(TaskBatch(torch.zeros(2, 3, 4)))


def test_what_cannot_be_turned_or_balanced():
    with pytest.raises(ValueError, match="square"):
        batch = TaskBatch(torch.zeros(1, 2, 4, 5), torch.zeros(1, 2).long(), None, 1)
        ClassRotation()(batch, batch)
    regression = TaskBatch(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2))
    for augment in (ClassRotation(), Resample()):
        with pytest.raises(ValueError, match="classification"):
            augment(regression, regression)
