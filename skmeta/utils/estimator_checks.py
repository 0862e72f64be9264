"""Checks of the meta-learning contract, for skmeta's estimators and for yours.

They stand beside `sklearn.utils.estimator_checks`, which knows no tasks.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from inspect import signature

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.utils import get_tags

from ..exceptions import NotAdaptedError

N_THREADS, N_ADAPTS = 8, 200


def meta_estimator_checks(estimator):
    """Yield every check that applies to `estimator`.

    Parameters
    ----------
    estimator : meta-learner
        Not fitted, with an integer `random_state` if it has one.

    Yields
    ------
    check : callable
        To be called with `estimator`; raises AssertionError.
    """
    yield from _CHECKS
    if "sample_weight" in signature(estimator.adapt).parameters:
        yield check_sample_weight
    if is_classifier(estimator):
        yield check_unseen_class
        if "per_task" in _label_spaces(estimator):
            yield check_labels_per_task
    else:
        yield check_prior_prediction


def check_meta_estimator(estimator):
    """Run every check of the meta-learning contract.

    Parameters
    ----------
    estimator : meta-learner
        Not fitted, with an integer `random_state` if it has one.

    Raises
    ------
    AssertionError
        Where the contract is broken.

    Examples
    --------
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.utils.estimator_checks import check_meta_estimator
    >>> check_meta_estimator(HierarchicalRegressor())
    """
    for check in meta_estimator_checks(estimator):
        check(estimator)


def parametrize_with_meta_checks(estimators):
    """Pytest decorator that runs each check on each estimator.

    Parameters
    ----------
    estimators : list of meta-learners
        Not fitted.

    Returns
    -------
    decorator : pytest.mark.parametrize
    """
    import pytest

    cases = [
        pytest.param(
            clone(estimator), check, id=f"{type(estimator).__name__}-{check.__name__}"
        )
        for estimator in estimators
        for check in meta_estimator_checks(estimator)
    ]
    return pytest.mark.parametrize("estimator, check", cases)


# ------------------------------------------------------------------------------- data
def ragged_tasks(estimator, n_tasks=8, n_features=3, seed=0, labels=(0, 1)):
    """Related tasks of different sizes, classes shared by all.

    Parameters
    ----------
    estimator : meta-learner
        A classifier or a regressor.
    n_tasks, n_features, seed : int
        Size and seed.
    labels : sequence
        Classes; each has at least two rows in every task.

    Returns
    -------
    list of (X, y) tuples
    """
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        X = rng.normal(size=(int(rng.integers(6, 14)), n_features))
        w = np.arange(1, n_features + 1) + rng.normal(size=n_features)
        if is_classifier(estimator):
            # Rank along a direction of the task: classes are balanced and present.
            rank = np.argsort(np.argsort(X @ w))
            y = np.asarray(labels)[rank * len(labels) // len(X)]
        else:
            y = X @ w + rng.normal() + 0.1 * rng.normal(size=len(X))
        tasks.append((X, y))
    return tasks


def to_long(tasks):
    """Rows, targets and task ids (positions) of a list of tasks."""
    X = np.concatenate([X for X, _ in tasks])
    y = np.concatenate([y for _, y in tasks])
    return X, y, np.repeat(np.arange(len(tasks)), [len(y) for _, y in tasks])


def _fitted(estimator, tasks=None, **params):
    tasks = ragged_tasks(estimator) if tasks is None else tasks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(estimator).set_params(**params).fit(tasks)


def _output(estimator, X, groups=None):
    if is_classifier(estimator):
        return estimator.predict_proba(X, groups=groups)
    return estimator.predict(X, groups=groups)


def _label_spaces(estimator):
    constraint = estimator._parameter_constraints.get("label_space")
    return set() if constraint is None else constraint[0].options


def _learned(estimator):
    """Everything that fit has learned, as bytes; task states are left out."""
    state = {
        name: value
        for name, value in estimator.__getstate__().items()
        if name not in ("states_", "classes_")
    }
    return pickle.dumps(state)


def _close(a, b, tolerance=1e-8):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ----------------------------------------------------------------------------- checks
def check_input_forms(estimator):
    """A list, long format and a column of ids give the same model."""
    tasks = ragged_tasks(estimator)
    X, y, groups = to_long(tasks)
    expected = _output(_fitted(estimator, tasks), X, groups)
    names = [f"x{j}" for j in range(X.shape[1])]
    _close(_output(clone(estimator).fit(X, y, groups=groups), X, groups), expected)
    inside = np.column_stack([X, groups])
    model = clone(estimator).set_params(group_column=X.shape[1]).fit(inside, y)
    _close(_output(model, inside), expected)
    tensors = torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(groups)
    model = clone(estimator).fit(tensors[0], tensors[1], groups=tensors[2])
    _close(_output(model, tensors[0], tensors[2]), expected)
    for frame in _frames(X, groups, names):
        model = clone(estimator).set_params(group_column="task").fit(frame, y)
        _close(_output(model, frame), expected)
        assert list(model.feature_names_in_) == names


def _frames(X, groups, names):
    """The same rows as a frame of each library that is installed."""
    columns = {name: X[:, j] for j, name in enumerate(names)} | {"task": groups}
    for library in ("pandas", "polars"):
        try:
            module = __import__(library)
        except ImportError:
            continue
        frame = module.DataFrame(columns)
        yield frame
        if library == "pandas":
            yield frame.set_index("task")


def check_task_order(estimator):
    """The order of tasks changes neither what fit learns nor what adapt finds."""
    X, y, groups = to_long(ragged_tasks(estimator))
    order = np.argsort(-groups, kind="stable")
    model = clone(estimator).fit(X, y, groups=groups)
    other = clone(estimator).fit(X[order], y[order], groups=groups[order])
    expected = _output(model, X, groups)
    _close(_output(other, X, groups), expected)
    _close(_output(model, X[order], groups[order]), expected[order])
    new = [f"new {g}" for g in groups]
    model.adapt(X, y, groups=new)
    adapted = _output(model, X, new)
    model.adapt(X[order], y[order], groups=np.array(new)[order])
    _close(_output(model, X, new), adapted)


def check_adapt_is_pure(estimator):
    """Adapting leaves what fit learned bit-equal, and other tasks as they were."""
    model = _fitted(estimator)
    X, y, groups = to_long(ragged_tasks(estimator))
    before, known = _learned(model), _output(model, X, groups)
    (X_new, y_new), *_ = ragged_tasks(estimator, seed=1)
    assert model.adapt(X_new, y_new) is model
    model.partial_adapt(X_new, y_new)
    assert _learned(model) == before
    np.testing.assert_array_equal(_output(model, X, groups), known)


def check_adapt_starts_afresh(estimator):
    """Adapting twice is adapting once, whatever came between."""
    model = _fitted(estimator)
    (X, y), (X_other, y_other), *_ = ragged_tasks(estimator, seed=1)
    once = _output(model.adapt(X, y), X)
    np.testing.assert_array_equal(_output(model.adapt(X, y), X), once)
    model.adapt(X_other, y_other)
    np.testing.assert_array_equal(_output(model.adapt(X, y), X), once)


def check_partial_adapt(estimator):
    """adapt(A) and partial_adapt(B) is adapt(A and B), known and new tasks mixed."""
    model = _fitted(estimator)
    X, y, groups = to_long(ragged_tasks(estimator, n_tasks=3, seed=1))
    groups = groups + 100
    first = (np.arange(len(X)) % 3 > 0) & (groups < 102)
    together = copy.copy(model).adapt(X, y, groups=groups)
    apart = copy.copy(model).adapt(X[first], y[first], groups=groups[first])
    apart.partial_adapt(X[~first], y[~first], groups=groups[~first])
    _close(_output(apart, X, groups), _output(together, X, groups))


def check_sample_weight(estimator):
    """A weight is a number of rows: twice is 2, absent is 0, half and half is 1."""
    model = _fitted(estimator)
    X, y, groups = to_long(ragged_tasks(estimator, n_tasks=3, seed=1))
    groups = groups + 100
    times = np.arange(len(X)) % 4 + (groups == 101)
    weighted = copy.copy(model).adapt(X, y, groups=groups, sample_weight=times)
    rows = np.repeat(np.arange(len(X)), times)
    repeated = copy.copy(model).adapt(X[rows], y[rows], groups=groups[rows])
    expected = _output(repeated, X, groups)
    _close(_output(weighted, X, groups), expected)
    order = np.argsort(-groups, kind="stable")
    halves = copy.copy(model)
    for _ in range(2):
        halves.partial_adapt(
            X[order], y[order], groups=groups[order], sample_weight=times[order] / 2
        )
    _close(_output(halves, X, groups), expected)
    for wrong in (-np.ones(len(X)), np.ones(len(X) - 1), groups != 100):
        try:
            model.adapt(X, y, groups=groups, sample_weight=wrong)
        except ValueError:
            continue
        raise AssertionError(f"adapt takes sample_weight={wrong!r}.")


def check_forget(estimator):
    """A forgotten task is as if it had never come; others stay."""
    model = _fitted(estimator)
    X, y, groups = to_long(ragged_tasks(estimator, n_tasks=3, seed=1))
    groups = groups + 100
    kept = groups < 102
    both = copy.copy(model).adapt(X, y, groups=groups)
    never = copy.copy(model).adapt(X[kept], y[kept], groups=groups[kept])
    both.adapt(X[~kept], y[~kept], groups=groups[~kept])
    states = both.states_
    assert both.forget(groups[~kept]) is both
    assert set(both.states_) == set(never.states_)
    assert all(102 not in block.ids for block in both.states_.blocks)
    assert 102 in states
    _close(_output(both, X[kept], groups[kept]), _output(never, X[kept], groups[kept]))
    try:
        expected = _output(never, X, groups)
    except NotAdaptedError:
        pass
    else:
        _close(_output(both, X, groups), expected)
    X_own, y_own = ragged_tasks(estimator, seed=2)[0]
    assert None not in model.adapt(X_own, y_own).forget().states_
    try:
        model.forget(["never seen"])
    except ValueError as error:
        assert "never seen" in str(error)
    else:
        raise AssertionError("A task that is not known was forgotten.")
    model.forget(list(model.states_))
    assert len(model.states_) == 0
    model.partial_fit(ragged_tasks(estimator, seed=3))
    assert len(model.states_) == 8


def check_copies(estimator):
    """A shallow copy adapts on its own and shares what fit learned."""
    model = _fitted(estimator)
    (X, y), (X_other, y_other), *_ = ragged_tasks(estimator, seed=1)
    expected = _output(model.adapt(X, y), X)
    alone = _output(copy.deepcopy(model).adapt(X_other, y_other), X)
    other = copy.copy(model).adapt(X_other, y_other)
    np.testing.assert_array_equal(_output(model, X), expected)
    np.testing.assert_array_equal(_output(other, X), alone)


def _mostly(label, X, y):
    """Rows of a class, and two of every other."""
    keep = [np.flatnonzero(y == c)[: None if c == label else 2] for c in np.unique(y)]
    rows = np.sort(np.concatenate(keep))
    return X[rows], y[rows]


def check_adapting_matters(estimator):
    """What is predicted depends on the support rows, unless nothing is adapted."""
    tasks = ragged_tasks(estimator, n_tasks=12)
    if is_classifier(estimator):  # classes are as frequent as the task wants
        tasks = [_mostly(t % 2, X, y) for t, (X, y) in enumerate(tasks)]
    model = _fitted(estimator, tasks)
    (X, y), *_ = ragged_tasks(estimator, seed=1)
    other = _mostly(1, X, y) if is_classifier(estimator) else (X, y + 3)
    outputs = [
        _output(copy.copy(model).adapt(*support), X) for support in ((X, y), other)
    ]
    assert np.array_equal(*outputs) == (not estimator._adapts)


def check_ragged(estimator):
    """Many ragged tasks in one call are the same as one call for each."""
    model = _fitted(estimator)
    tasks = ragged_tasks(estimator, n_tasks=5, seed=1)
    X, y, groups = to_long(tasks)
    groups = groups + 100
    fleet = copy.copy(model).adapt(X, y, groups=groups)
    together = _output(fleet, X, groups)
    for t, (X_t, y_t) in enumerate(tasks):
        alone = _output(copy.copy(model).adapt(X_t, y_t), X_t)
        _close(alone, together[groups == t + 100])


def check_one_row_task(estimator):
    """A task of one row is fitted and adapted to like any other."""
    tasks = ragged_tasks(estimator)
    shared = {"label_space": "shared"} if _label_spaces(estimator) else {}
    model = _fitted(estimator, [*tasks, (tasks[0][0][:1], tasks[0][1][:1])], **shared)
    X, y = ragged_tasks(estimator, seed=1)[0]
    output = _output(model.adapt(X[:1], y[:1]), X)
    assert np.isfinite(output).all()


def check_pickle_and_clone(estimator):
    """Pickled, deep-copied and cloned estimators predict and go on adapting."""
    model = _fitted(estimator)
    X, y, groups = to_long(ragged_tasks(estimator))
    expected = _output(model, X, groups)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        _close(_output(other, X, groups), expected, 1e-12)
        adapted = _output(copy.copy(model).adapt(X[:6], y[:6]), X)
        _close(_output(other.adapt(X[:6], y[:6]), X), adapted, 1e-12)
        other.partial_fit(ragged_tasks(estimator, seed=2))
    again = clone(model)
    assert not hasattr(again, "states_")
    _close(_output(again.fit(ragged_tasks(estimator)), X, groups), expected)


def check_global_random_state(estimator):
    """An integer `random_state` leaves the global random numbers untouched."""
    # The legacy state is what is global.
    numpy_before = np.random.get_state()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    model = _fitted(estimator)
    X, y = ragged_tasks(estimator, seed=1)[0]
    _output(model.adapt(X, y), X)
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state()  # noqa: NPY002
    assert all(
        np.array_equal(a, b) for a, b in zip(numpy_before, numpy_after, strict=True)
    )


def check_threads(estimator):
    """Copies that adapt in several threads at once give what they give in turn."""
    model = _fitted(estimator)
    tasks = ragged_tasks(estimator, n_tasks=N_THREADS, seed=1)

    def adapt(X, y):
        return _output(copy.copy(model).adapt(X, y), X)

    serial = [adapt(*task) for task in tasks]
    n_threads = torch.get_num_threads()

    def repeat(task, expected):
        torch.set_num_threads(n_threads)  # a new thread does not inherit it
        return sum(not np.array_equal(adapt(*task), expected) for _ in range(N_ADAPTS))

    with ThreadPoolExecutor(N_THREADS) as pool:
        wrong = sum(pool.map(repeat, tasks, serial))
    assert wrong == 0, f"{wrong} of {N_THREADS * N_ADAPTS} concurrent adapts differ."


def check_partial_fit(estimator):
    """More tasks can be learned from later; the old ones stay known."""
    tasks = ragged_tasks(estimator)
    model = clone(estimator).partial_fit(tasks[:4])
    X, y = tasks[0]
    model.partial_fit(*to_long(tasks[4:])[:2], groups=to_long(tasks[4:])[2] + 4)
    assert len(model.states_) == len(tasks)
    assert np.isfinite(_output(model, X, np.zeros(len(X), dtype=int))).all()


def check_errors_change_nothing(estimator):
    """A refused call leaves the estimator as it was."""
    model = _fitted(estimator)
    X, y = ragged_tasks(estimator, seed=1)[0]
    model.adapt(X, y)
    before = dict(vars(model))
    bad = X.copy()
    # Where a missing value is welcome, an infinite one is not.
    bad[1, 2] = np.inf if get_tags(estimator).input_tags.allow_nan else np.nan
    for call in (model.fit, model.adapt, model.partial_adapt, model.partial_fit):
        try:
            call(bad, y)
        except ValueError:
            assert vars(model) == before
        else:
            raise AssertionError(f"{call.__name__} takes {bad[1, 2]}.")


def check_few_shot_score(estimator):
    """The score of new tasks is that of adapting to their support by hand."""
    model = _fitted(estimator)
    tasks = ragged_tasks(estimator, seed=1)
    before = _learned(model)
    score = model.score(tasks)
    assert np.isfinite(score)
    assert score == model.score(tasks)
    X, y, groups = to_long(tasks)
    _close(model.score(X, y, groups=groups + 100), score)
    assert _learned(model) == before


def check_unseen_class(estimator):
    """A label that fit has not seen is refused where labels are shared."""
    shared = {"label_space": "shared"} if _label_spaces(estimator) else {}
    model = _fitted(estimator, **shared)
    X, y = ragged_tasks(estimator, seed=1, labels=(0, 5))[0]
    try:
        model.adapt(X, y)
    except ValueError as error:
        assert "5" in str(error)
    else:
        raise AssertionError("adapt takes a class that fit has not seen.")


def check_labels_per_task(estimator):
    """Labels of their own: any number, any order, and no prior."""
    names = (("a", "b", "c"), ("d", "e"), ("f", "g", "h"))
    tasks = [
        ragged_tasks(estimator, 1, seed=t, labels=names[t % 3])[0] for t in range(9)
    ]
    model = _fitted(estimator, tasks, label_space="per_task")
    X, y = ragged_tasks(estimator, 1, seed=9, labels=("q", "p", "r", "s"))[0]
    assert set(model.adapt(X, y).predict(X)) <= {"p", "q", "r", "s"}
    renamed = np.array(["z" if label == "p" else label for label in y])
    columns = np.searchsorted(model.classes_, ["q", "p", "r", "s"])
    proba = model.predict_proba(X)[:, columns]
    model.adapt(X, renamed)
    columns = np.searchsorted(model.classes_, ["q", "z", "r", "s"])
    _close(model.predict_proba(X)[:, columns], proba, 1e-7)
    try:
        model.predict(X, groups=["never seen"] * len(X))
    except NotAdaptedError as error:
        assert "never seen" in str(error)
    else:
        raise AssertionError("A task without labels was predicted.")


def check_prior_prediction(estimator):
    """An unknown task is predicted by the prior, the same for every such task."""
    model = _fitted(estimator)
    X = ragged_tasks(estimator, seed=1)[0][0]
    prior = model.predict(X, groups=["a"] * len(X))
    assert np.isfinite(prior).all()
    np.testing.assert_array_equal(model.predict(X, groups=["b"] * len(X)), prior)


_CHECKS = [
    check_input_forms,
    check_task_order,
    check_adapt_is_pure,
    check_adapt_starts_afresh,
    check_partial_adapt,
    check_forget,
    check_copies,
    check_adapting_matters,
    check_ragged,
    check_one_row_task,
    check_pickle_and_clone,
    check_global_random_state,
    check_threads,
    check_partial_fit,
    check_errors_change_nothing,
    check_few_shot_score,
]
