"""What the verbs promise, beyond `skmeta.utils.estimator_checks`."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from _tiny import META, classification_tasks, long_format, regression_tasks, tiny
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError

from skmeta import (
    HierarchicalClassifier,
    HierarchicalRegressor,
    MAMLClassifier,
    NotAdaptedError,
    ProtoNetClassifier,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
)
from skmeta.base import _neural, _states

SHARED_OR_REAL = [name for name in META if "per-task" not in name]


def tasks_for(meta, **params):
    is_regressor = not is_classifier(meta)
    return (regression_tasks if is_regressor else classification_tasks)(**params)


def fitted(name, **params):
    meta = META[name]()
    return meta.fit(tasks_for(meta, **params))


def output(meta, X, groups=None):
    if is_classifier(meta):
        return meta.predict_proba(X, groups=groups)
    return meta.predict(X, groups=groups)


# ------------------------------------------------------------------------------ fleets
@pytest.mark.parametrize("name", META)
def test_fleet_of_300_users(name):
    """One call for all of them is one call for each, in whatever order rows come."""
    meta = fitted(name)
    tasks = tasks_for(meta, n_tasks=300, seed=1)
    tasks = [(X[: 4 + t % 9], y[: 4 + t % 9]) for t, (X, y) in enumerate(tasks)]
    tasks = [(X, y if len(set(y)) > 1 else 1 - np.arange(len(y)) % 2) for X, y in tasks]
    X, y, groups = long_format(tasks)
    users = np.array([f"user {g:03d}" for g in groups])
    shuffled = np.random.default_rng(0).permutation(len(X))
    stable = shuffled[np.argsort(groups[shuffled], kind="stable")]
    fleet = copy.copy(meta).adapt(X[stable], y[stable], groups=users[stable])
    assert len(fleet.states_) == 300 + 8
    together = output(fleet, X[shuffled], users[shuffled])
    for g in range(0, 300, 29):
        rows = stable[groups[stable] == g]
        alone = copy.copy(meta).adapt(X[rows], y[rows])
        mine = groups[shuffled] == g
        np.testing.assert_allclose(
            together[mine], output(alone, X[shuffled][mine]), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("name", META)
def test_many_small_blocks_become_one(name, monkeypatch):
    """Users who come one by one are answered as if they had come together."""
    monkeypatch.setattr(_states, "_MAX_BLOCKS", 8)
    meta = fitted(name)
    tasks = tasks_for(meta, n_tasks=20, seed=1)
    X, y, groups = long_format(tasks)
    together = copy.copy(meta).adapt(X, y, groups=groups + 100)
    one_by_one = copy.copy(meta)
    for g in range(20):
        rows = np.flatnonzero(groups == g)
        ids = groups[rows] + 100
        one_by_one.adapt(X[rows[:6]], y[rows[:6]], groups=ids[:6])
        one_by_one.partial_adapt(X[rows[6:]], y[rows[6:]], groups=ids[6:])
        assert len(one_by_one.states_.blocks) <= 9
    np.testing.assert_allclose(
        output(one_by_one, X, groups + 100),
        output(together, X, groups + 100),
        rtol=1e-6,
        atol=1e-9,
    )


def test_states_beyond_the_memory_bound_are_not_kept(monkeypatch):
    meta = fitted("maml")
    X, y, groups = long_format(regression_tasks(seed=1))
    kept = copy.copy(meta).adapt(X, y, groups=groups + 50)
    expected = kept.predict(X, groups=groups + 50)
    assert kept.states_[50][0].state is not None
    monkeypatch.setattr(_neural, "MAX_STATE_BYTES", 0)
    lazy = copy.copy(meta).adapt(X, y, groups=groups + 50)
    np.testing.assert_allclose(lazy.predict(X, groups=groups + 50), expected)
    some = groups > 5
    predicted = lazy.predict(X[some], groups=groups[some] + 50)
    np.testing.assert_allclose(predicted, expected[some])
    assert lazy.states_[50][0].state is None


def test_states_are_a_mapping_with_a_readable_form():
    meta = fitted("hierarchical")
    assert repr(meta.states_) == "<states of 8 tasks>"
    assert list(meta.states_) == list(range(8)) and 3 in meta.states_
    meta = HierarchicalRegressor().fit(*two_users(), groups=["a", "b"] * 10)
    assert repr(meta.adapt(*two_users(), groups=["a"] * 20).states_) == (
        "<states of 2 tasks>"
    )


def two_users():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2))
    return X, X.sum(axis=1)


# ------------------------------------------------------------- which task a row is of
@pytest.mark.parametrize("name", META)
def test_rows_without_an_id_are_of_the_current_task(name):
    meta = fitted(name)
    (X, y), (X_other, y_other) = tasks_for(meta, n_tasks=2, seed=1)
    meta.adapt(X, y)
    expected = output(meta, X_other)
    meta.adapt(X_other, y_other, groups=["other"] * len(y_other))
    np.testing.assert_array_equal(output(meta, X_other), expected)
    of_other = output(meta, X_other, ["other"] * len(y_other))
    assert not np.allclose(of_other, expected)
    meta.adapt(X_other, y_other)  # replaces the current task
    np.testing.assert_allclose(output(meta, X_other), of_other, rtol=1e-6)


def test_rows_without_an_id_are_of_the_only_task():
    (X, y), (X_new, _) = regression_tasks(n_tasks=2)
    with pytest.warns(UserWarning, match="single task"):
        meta = HierarchicalRegressor(covariance="diagonal")
        meta.fit(X, y, groups=["store"] * len(y))
    expected = meta.predict(X_new, groups=["store"] * len(X_new))
    np.testing.assert_array_equal(meta.predict(X_new), expected)
    meta.adapt(X, y, groups=["second"] * len(y))  # now there are two
    prior = meta.predict(X_new, groups=["never seen"] * len(X_new))
    np.testing.assert_array_equal(meta.predict(X_new), prior)
    assert not np.allclose(prior, expected)


@pytest.mark.parametrize("name", SHARED_OR_REAL)
def test_known_and_unknown_rows_in_one_call(name):
    meta = fitted(name)
    X, _, groups = long_format(tasks_for(meta))
    known = output(meta, X, groups)
    ids = np.where(groups % 2, groups, -1 - groups)
    prior = output(meta, X, ["new"] * len(X))
    expected = np.where(
        (groups % 2 == 1).reshape(-1, *[1] * (known.ndim - 1)), known, prior
    )
    np.testing.assert_allclose(output(meta, X, ids), expected, rtol=1e-9)
    if is_classifier(meta):
        np.testing.assert_allclose(expected.sum(axis=1), 1)


def test_labels_of_a_task_have_no_prior():
    meta = fitted("protonet-per-task")
    X, y = classification_tasks(seed=1)[0]
    for groups, named in ((None, "the task of"), (["lost"] * len(X), "task 'lost'")):
        with pytest.raises(NotAdaptedError, match=named) as caught:
            meta.predict(X, groups=groups)
        assert isinstance(caught.value, NotFittedError)
    mixed = [0] * 6 + ["lost"] * 6
    with pytest.raises(NotAdaptedError, match="task 'lost'"):
        meta.predict(X, groups=np.array(mixed, dtype=object))
    with pytest.raises(NotAdaptedError):
        meta.predict_proba(X)
    assert set(meta.adapt(X, y).predict(X)) <= {0, 1}


@pytest.mark.parametrize(
    "ids",
    [
        np.array(["b", "a", "c"]),
        np.array([2.5, -1.0, 7.0]),
        np.array([b"x", b"y", b"z"]),
        np.array(["2024-01-01", "2023-01-01", "2022-01-01"], dtype="datetime64[D]"),
        np.array(["a", 1, (2, 3)], dtype=object),
        pd.Categorical(["v", "u", "w"]),
        pd.Series(["p", "q", "r"], dtype="string"),
    ],
    ids=lambda ids: str(ids.dtype),
)
def test_ids_of_any_type(ids):
    X, y, groups = long_format(regression_tasks(n_tasks=3, n_rows=20))
    expected = HierarchicalRegressor().fit(X, y, groups=groups)
    taken = ids.take(groups) if isinstance(ids, pd.Categorical) else ids[groups]
    meta = HierarchicalRegressor().fit(X, y, groups=taken)
    assert len(meta.states_) == 3
    np.testing.assert_allclose(
        meta.predict(X, groups=taken), expected.predict(X, groups=groups), rtol=1e-5
    )


@pytest.mark.parametrize("name", META)
def test_adapting_a_known_task_starts_afresh_and_partial_adapt_goes_on(name):
    meta = fitted(name)
    tasks = tasks_for(meta)
    X, y = tasks_for(meta, seed=1)[0]
    ids = [0] * len(y)
    afresh = copy.copy(meta).adapt(X, y, groups=ids)
    alone = copy.copy(meta).adapt(X, y)
    np.testing.assert_allclose(output(afresh, X, ids), output(alone, X), rtol=1e-7)
    if name == "hierarchical":
        return  # its training posterior counts rows once; tested with its own values
    more = copy.copy(meta).partial_adapt(X, y, groups=ids)
    rows, labels = np.r_[tasks[0][0], X], np.r_[tasks[0][1], y]
    union = copy.copy(meta).adapt(rows, labels)
    np.testing.assert_allclose(output(more, X, ids), output(union, X), rtol=1e-6)
    unknown = copy.copy(meta).partial_adapt(X, y)
    np.testing.assert_array_equal(output(unknown, X), output(alone, X))


@pytest.mark.parametrize("name", META)
def test_buffers_may_be_used_again(name):
    """What was adapted to is kept, not where it stood."""
    tasks = tasks_for(META[name](), seed=2)
    X, y, groups = long_format(tasks)
    new, target = tasks_for(META[name](), seed=3)[0]
    meta = META[name]().fit(X, y, groups=groups)
    expected = output(meta, new, [0] * len(new))
    buffers = X.copy(), y.copy()
    again = META[name]().fit(*buffers, groups=groups)
    buffers[0][:], buffers[1][:] = 7, 0
    np.testing.assert_array_equal(output(again, new, [0] * len(new)), expected)
    meta.adapt(new[:8], target[:8]).partial_adapt(new[8:], target[8:])
    expected = output(meta, new)
    rows, labels = new[:8].copy(), target[:8].copy()
    again.adapt(rows, labels)
    rows[:4], labels[:4] = new[8:], target[8:]
    again.partial_adapt(rows[:4], labels[:4])
    np.testing.assert_array_equal(output(again, new), expected)


@pytest.mark.parametrize("name", META)
def test_read_only_arrays(name, tmp_path):
    X, y, groups = long_format(tasks_for(META[name]()))
    expected = META[name]().fit(X, y, groups=groups)
    files = []
    for i, array in enumerate((X, y, groups)):
        np.save(tmp_path / f"{i}.npy", array)
        files.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    meta = META[name]().fit(files[0], files[1], groups=files[2])
    np.testing.assert_array_equal(
        output(meta, files[0], files[2]), output(expected, X, groups)
    )
    meta.adapt(files[0][:12], files[1][:12])


# ------------------------------------------------------------------------ label spaces
def labelled(n_tasks, labels_of):
    rng = np.random.default_rng(0)
    tasks = []
    for t in range(n_tasks):
        y = np.repeat(labels_of(t), 4)
        X = rng.normal(size=(len(y), 3)) + 2 * (np.arange(len(y)) // 4)[:, None]
        tasks.append((X, y))
    return tasks


@pytest.mark.parametrize(
    "labels_of, expected",
    [
        (lambda t: [0, 1], "shared"),
        (lambda t: ["no", "yes"], "shared"),
        (lambda t: np.arange(6)[t % 3 : t % 3 + 3], "shared"),  # 3 of 5 classes
        (lambda t: [2 * t, 2 * t + 1], "per_task"),  # characters of alphabets
        (lambda t: [f"{t}-a", f"{t}-b", "other"], "per_task"),
        (lambda t: [t % 8, (t + 1) % 8], "per_task"),  # 2 of 8
    ],
)
@pytest.mark.parametrize(
    "estimator", [ProtoNetClassifier, RidgeHeadClassifier, MAMLClassifier]
)
def test_label_space_is_decided_by_the_tasks(estimator, labels_of, expected):
    tasks = labelled(8, labels_of)
    meta = tiny(estimator, n_episodes=4, net={"max_epochs": 1}).fit(tasks)
    assert meta.label_space_ == expected
    every = np.unique(np.concatenate([y for _, y in tasks]))
    np.testing.assert_array_equal(meta.classes_, every)
    X, y, groups = long_format(tasks)
    proba = meta.predict_proba(X, groups=groups)
    assert proba.shape == (len(X), len(every))
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    if expected == "per_task":
        for t, (_, labels) in enumerate(tasks):
            absent = ~np.isin(every, labels)
            assert (proba[groups == t][:, absent] == 0).all()
            assert (proba[groups == t][:, ~absent] > 0).all()
    predicted = meta.predict(X, groups=groups)
    np.testing.assert_array_equal(predicted, every[proba.argmax(axis=1)])
    assert predicted.dtype == y.dtype


def test_one_pool_has_labels_of_its_own():
    X, y = labelled(1, lambda t: list("abcdef"))[0]
    assert tiny(ProtoNetClassifier, n_ways=3).fit(X, y).label_space_ == "per_task"


def test_label_space_can_be_set():
    tasks = classification_tasks()
    meta = tiny(ProtoNetClassifier, label_space="per_task").fit(tasks)
    assert meta.label_space_ == "per_task" and not meta.learner_.shared
    meta = tiny(ProtoNetClassifier, label_space="shared")
    meta.fit(labelled(4, lambda t: [2 * t, 2 * t + 1]))
    assert meta.label_space_ == "shared" and meta.learner_.prior.shape[0] == 8
    # What is adapted to may then lack nearly all classes; they stay possible.
    X, y = labelled(1, lambda t: [0])[0]
    assert (meta.adapt(X, y).predict_proba(X) > 0).all()
    with pytest.raises(ValueError, match="not seen: 9"):
        meta.adapt(X, y + 9)


@pytest.mark.parametrize("dtype", [str, object, bool, np.int8, np.float64])
@pytest.mark.parametrize("name", ["protonet", "protonet-per-task", "maml-classifier"])
def test_labels_come_back_as_they_were(name, dtype):
    def renamed(y):
        if dtype in (str, object):
            return np.where(y == 1, "yes", "no").astype(dtype)
        return y.astype(dtype)

    tasks = classification_tasks()
    expected = fitted(name)
    meta = META[name]().fit([(X, renamed(y)) for X, y in tasks])
    X, y = classification_tasks(seed=1)[0]
    np.testing.assert_array_equal(
        meta.adapt(X, renamed(y)).predict(X), renamed(expected.adapt(X, y).predict(X))
    )
    np.testing.assert_array_equal(meta.predict_proba(X), expected.predict_proba(X))
    assert meta.predict(X).dtype == renamed(y).dtype
    assert meta.score(tasks_with(renamed)) == expected.score(classification_tasks())


def tasks_with(renamed):
    return [(X, renamed(y)) for X, y in classification_tasks()]


def test_numbers_and_words_are_not_mixed():
    """As an array both would be words, and no number would ever be right again."""
    meta = fitted("protonet-per-task")
    X, y = classification_tasks(seed=1)[0]
    before = meta.states_
    with pytest.raises(TypeError, match="different types"):
        meta.adapt(X, np.where(y == 1, "yes", "no"))
    assert meta.states_ is before


def test_any_number_of_ways():
    meta = fitted("protonet-per-task")
    for n_ways in (2, 3, 7):
        X, y = labelled(1, lambda t, n=n_ways: np.arange(n) + 10)[0]
        meta.adapt(X, y)
        assert set(meta.predict(X)) <= set(y)
        np.testing.assert_allclose(meta.predict_proba(X).sum(axis=1), 1)


# ------------------------------------------------------------------------------- score
def by_hand(meta, tasks, n_shots, classes=False):
    """Few-shot scores of support="first", one task after the other."""
    judged = []
    for X, y in tasks:
        labels = y if classes else np.zeros(len(y))
        support = np.zeros(len(y), dtype=bool)
        for label in np.unique(labels):
            support[np.flatnonzero(labels == label)[:n_shots]] = True
        model = copy.copy(meta).adapt(X[support], y[support])
        judged.append((y[~support], model.predict(X[~support])))
    return judged


def test_score_of_unknown_classes_of_a_pool_is_few_shot():
    X, y = labelled(1, lambda t: np.arange(10))[0]
    old = y < 6
    meta = tiny(ProtoNetClassifier, n_ways=3, support="first").fit(X[old], y[old])
    ((truth, predicted),) = by_hand(meta, [(X[~old], y[~old])], 2, classes=True)
    before = meta.states_
    expected = np.mean(truth == predicted)
    assert meta.score(X[~old], y[~old]) == pytest.approx(expected, rel=1e-12)
    assert meta.states_ is before and meta.classes_.max() == 5
    as_it_is = np.mean(meta.predict(X[old]) == y[old])
    assert meta.score(X[old], y[old]) == pytest.approx(as_it_is, rel=1e-12)


def test_score_of_classes_weighs_tasks_equally():
    meta = fitted("protonet").set_params(support="first", n_shots=2)
    tasks = classification_tasks(n_tasks=5, seed=1)
    tasks[0] = tuple(part[:8] for part in tasks[0])
    expected = [np.mean(t == p) for t, p in by_hand(meta, tasks, 2, classes=True)]
    assert meta.score(tasks) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("n_shots", [1, 4, 11])
def test_support_first_is_the_history_of_the_task(n_shots):
    """Chronological: the first rows are known, the later ones are judged."""
    meta = HierarchicalRegressor(support="first", n_shots=n_shots)
    meta.fit(regression_tasks())
    tasks = regression_tasks(n_tasks=4, seed=1)
    judged = by_hand(meta, tasks, n_shots)
    truth = np.concatenate([t for t, _ in judged])
    error = truth - np.concatenate([p for _, p in judged])
    expected = 1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2)
    assert meta.score(tasks) == pytest.approx(expected)
    X, y, groups = long_format(tasks)
    assert meta.score(X, y, groups=groups + 70) == pytest.approx(expected)
    with pytest.raises(AssertionError):
        reversed_rows = [(X[::-1], y[::-1]) for X, y in tasks]
        assert meta.score(reversed_rows) == pytest.approx(expected, abs=1e-6)


def test_r2_weighs_tasks_equally():
    meta = HierarchicalRegressor(support="first", n_shots=2).fit(regression_tasks())
    tasks = regression_tasks(n_tasks=3, n_rows=30, seed=1)
    tasks[0] = tuple(part[:5] for part in tasks[0])
    judged = by_hand(meta, tasks, 2)
    weight = np.concatenate([np.full(len(t), 1 / len(t)) for t, _ in judged])
    truth = np.concatenate([t for t, _ in judged])
    error = truth - np.concatenate([p for _, p in judged])
    center = np.average(truth, weights=weight)
    spread = np.average((truth - center) ** 2, weights=weight)
    expected = 1 - np.average(error**2, weights=weight) / spread
    assert meta.score(tasks) == pytest.approx(expected)


def test_known_tasks_are_scored_as_they_are():
    meta = fitted("ridge")
    X, y, groups = long_format(regression_tasks())
    residual = np.sum((y - meta.predict(X, groups=groups)) ** 2)
    expected = 1 - residual / np.sum((y - y.mean()) ** 2)
    assert meta.score(X, y, groups=groups) == pytest.approx(expected)
    # A list gives no identity: its tasks are new, whatever their position.
    assert meta.score(regression_tasks()) != pytest.approx(expected)
    new = np.where(groups == 7, 99, groups)
    mixed = meta.score(X, y, groups=new)
    assert mixed != pytest.approx(expected) and np.isfinite(mixed)


@pytest.mark.parametrize(
    "name", ["protonet", "hierarchical", "hierarchical-classifier"]
)
def test_score_takes_weights_of_rows(name):
    meta = fitted(name)
    X, y, groups = long_format(tasks_for(meta))
    ones = meta.score(X, y, groups=groups)
    weight = np.full(len(y), 3.0)
    assert meta.score(X, y, groups=groups, sample_weight=weight) == pytest.approx(ones)
    kept = np.arange(len(y)) % 3 > 0
    some = meta.score(X, y, groups=groups, sample_weight=kept.astype(float))
    expected = meta.score(X[kept], y[kept], groups=groups[kept])
    assert some == pytest.approx(expected) and some != pytest.approx(ones)
    listed = meta.score(tasks_for(meta), sample_weight=weight)
    assert listed == pytest.approx(meta.score(tasks_for(meta)))
    for wrong, message in (
        (-weight, "[Nn]egative"),
        (weight[1:], "sample_weight"),
        (0 * weight, "sample_weight|zero"),
    ):
        with pytest.raises(ValueError, match=message):
            meta.score(X, y, groups=groups, sample_weight=wrong)


def test_nothing_left_to_judge():
    meta = HierarchicalClassifier(n_shots=3).fit(classification_tasks())
    with pytest.raises(ValueError, match="No new task has rows left"):
        meta.score([(X[:1], y[:1]) for X, y in classification_tasks(seed=1)])


# ---------------------------------------------------------------------- later changes
@pytest.mark.parametrize("name", META)
def test_more_tasks_of_a_list_are_new_tasks(name):
    first, second = (tasks_for(META[name](), seed=s) for s in (0, 1))
    meta = META[name]().partial_fit(first).partial_fit(second)
    assert list(meta.states_) == list(range(16))
    X, _, groups = long_format(second)
    adapted = copy.copy(meta).adapt(*long_format(second)[:2], groups=groups + 50)
    if name != "hierarchical":  # whose training posterior is not that of adapt
        np.testing.assert_allclose(
            output(meta, X, groups + 8), output(adapted, X, groups + 50), rtol=1e-6
        )


@pytest.mark.parametrize("estimator", [HierarchicalRegressor, HierarchicalClassifier])
def test_a_closed_form_prior_is_learned_from_all_tasks(estimator):
    first, second = (tasks_for(estimator(), seed=s) for s in (0, 1))
    # The scaling of features is that of the first call: make both agree.
    second = [(X[::-1], y[::-1]) for X, y in first]
    apart = estimator(covariance="diagonal").partial_fit(first).partial_fit(second)
    together = estimator(covariance="diagonal").fit(first + second)
    X = tasks_for(estimator(), seed=2)[0][0]
    np.testing.assert_allclose(
        output(apart, X, ["new"] * 12), output(together, X, ["new"] * 12), rtol=1e-3
    )


def test_partial_fit_knows_classes_that_come_later():
    X, y, groups = long_format(classification_tasks())
    early = np.where(y == 1, "b", "a")
    for name in ("protonet", "hierarchical-classifier", "maml-classifier"):
        meta = META[name]()
        if "label_space" in meta.get_params():
            meta.set_params(label_space="shared")
        meta.partial_fit(X, early, groups=groups, classes=["c", "b", "a"])
        assert meta.classes_.tolist() == ["a", "b", "c"]
        assert meta.predict_proba(X, groups=groups).shape == (len(X), 3)
        late = np.where(y == 1, "c", "a")
        meta.partial_fit(X, late, groups=groups + 8)
        proba = meta.predict_proba(X, groups=groups + 8)
        assert proba[y == 1, 2].mean() > proba[y == 0, 2].mean()
        with pytest.raises(ValueError, match="has not seen: 'z'"):
            meta.partial_fit(X, np.where(y == 1, "z", "a"), groups=groups)
        with pytest.raises(ValueError, match="not in classes"):
            clone(meta).partial_fit(X, early, groups=groups, classes=["a", "c"])


@pytest.mark.parametrize("name", META)
def test_fit_forgets_everything(name):
    meta = fitted(name)
    X, y = tasks_for(meta, seed=1)[0]
    meta.adapt(X, y, groups=["gone"] * len(y))
    wide = [(np.c_[X, X[:, :1]], y) for X, y in tasks_for(meta, n_tasks=5, seed=2)]
    meta.fit(wide)
    assert list(meta.states_) == list(range(5)) and meta.n_features_in_ == 4
    fresh = META[name]().fit(wide)
    X, _, groups = long_format(wide)
    np.testing.assert_array_equal(output(meta, X, groups), output(fresh, X, groups))


@pytest.mark.parametrize(
    "name, params",
    [
        ("protonet", {"estimator__module__hidden": (3,), "metric": "cosine"}),
        ("ridge", {"estimator__module__hidden": (3, 3), "n_shots": 1}),
        ("maml", {"estimator__module__hidden": (5,), "inner_lr": "learned"}),
        ("protonet", {"estimator": None, "augment": lambda s, q: None}),
        ("hierarchical", {"covariance": "none"}),
    ],
)
def test_parameters_set_later_change_nothing_until_the_next_fit(name, params):
    meta = fitted(name)
    X, y, groups = long_format(tasks_for(meta))
    expected = output(meta, X, groups)
    adapted = output(copy.copy(meta).adapt(X[:12], y[:12]), X)
    meta.set_params(**params)
    for other in (meta, copy.deepcopy(meta)):
        np.testing.assert_allclose(output(other, X, groups), expected)
        np.testing.assert_allclose(
            output(copy.copy(other).adapt(X[:12], y[:12]), X), adapted
        )
    if "augment" not in params:
        other = pickle.loads(pickle.dumps(meta))
        np.testing.assert_allclose(output(other, X, groups), expected)
        other.partial_fit(tasks_for(meta, seed=1))


def test_group_column_set_later():
    X, y, groups = long_format(regression_tasks())
    meta = HierarchicalRegressor().fit(X, y, groups=groups)
    expected = meta.predict(X, groups=groups)
    meta.set_params(group_column=3)
    np.testing.assert_array_equal(meta.predict(np.c_[X, groups]), expected)
    with pytest.raises(ValueError, match="given twice"):
        meta.predict(np.c_[X, groups], groups=groups)


@pytest.mark.parametrize("name", META)
def test_html(name):
    for meta in (META[name](), fitted(name)):
        html = meta._repr_html_()
        assert type(meta).__name__ in html and "fitted" in html.lower()
    assert type(META[name]()).__name__ in repr(META[name]())


@pytest.mark.parametrize("name", META)
def test_groups_are_requested_by_default(name):
    with sklearn.config_context(enable_metadata_routing=True):
        requests = META[name]().get_metadata_routing()
    verbs = ["fit", "partial_fit", "predict", "score"]
    if is_classifier(META[name]()):
        verbs.append("predict_proba")
    for verb in verbs:
        assert getattr(requests, verb).requests["groups"] is True, verb


@pytest.mark.parametrize("name", META)
def test_verbs_before_fit(name):
    meta, (X, y) = META[name](), tasks_for(META[name]())[0]
    for call in (meta.adapt, meta.partial_adapt, meta.score):
        with pytest.raises(NotFittedError):
            call(X, y)
    with pytest.raises(NotFittedError):
        meta.predict(X)


def test_std_of_many_tasks_in_the_order_of_the_rows():
    for meta in (fitted("hierarchical"), fitted("ridge")):
        X, _, groups = long_format(regression_tasks())
        mean, std = meta.predict(X, groups=groups, return_std=True)
        order = np.random.default_rng(0).permutation(len(X))
        shuffled = meta.predict(X[order], groups=groups[order], return_std=True)
        np.testing.assert_allclose(shuffled, [mean[order], std[order]])
        assert (std > 0).all()


def test_more_rows_make_a_posterior_narrower():
    for estimator in (HierarchicalRegressor(), tiny(RidgeHeadRegressor)):
        meta = estimator.fit(regression_tasks())
        X, y = regression_tasks(seed=1, n_rows=30)[0]
        stds = [meta.predict(X, groups=["new"] * 30, return_std=True)[1]]
        for k in (1, 5, 20):
            stds.append(meta.adapt(X[:k], y[:k]).predict(X, return_std=True)[1])
        assert all((b < a).all() for a, b in zip(stds, stds[1:], strict=False))
