"""Calibrated intervals and sets, the alarm for strange tasks, which rows to label."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
from _tiny import META, classification_tasks, long_format, regression_tasks, tiny
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmeta import (
    HierarchicalClassifier,
    HierarchicalRegressor,
    MAMLRegressor,
    PerTask,
    ProtoNetClassifier,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
    freeze,
)
from skmeta.baselines import LocalRegressor
from skmeta.datasets import make_regression_tasks
from skmeta.exceptions import NotAdaptedError
from skmeta.hierarchical._misfit import with_misfit
from skmeta.model_selection import (
    ConformalClassifier,
    ConformalRegressor,
    FewShotScorer,
    TaskNovelty,
    ask,
)
from skmeta.model_selection._ask import k_center, most_telling
from skmeta.model_selection._conformal import ScoreDistribution
from skmeta.model_selection._likelihood import Unrelated, log_ratios
from skmeta.model_selection._rows import HeldOut, read_task_rows
from skmeta.tasks._sampler import support_mask
from skmeta.utils.estimator_checks import parametrize_with_meta_checks

pytestmark = [
    pytest.mark.filterwarnings("ignore::skmeta.SingleTaskWarning"),
    pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix:UserWarning"),
]

WRAPPERS = [ConformalRegressor, ConformalClassifier]


def tasks_for(wrapper, **options):
    if wrapper is ConformalClassifier:
        return classification_tasks(**options)
    return regression_tasks(**options)


def binary(tasks):
    return [(X, (y > 0).astype(int)) for X, y in tasks]


@pytest.fixture(autouse=True)
def array_api(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


# ---------------------------------------------------------------------------- contract
@parametrize_with_checks([wrapper() for wrapper in WRAPPERS])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([wrapper() for wrapper in WRAPPERS])
def test_sklearn_checks_with_routing(estimator, check):
    with sklearn.config_context(enable_metadata_routing=True):
        check(estimator)


@parametrize_with_meta_checks(
    [wrapper(shots=[0, 2, 5], n_draws=1, cv=2) for wrapper in WRAPPERS]
)
def test_meta_checks(estimator, check):
    check(estimator)


# ------------------------------------------------------------------------ conformal
class TestScoreDistribution:
    def test_tasks_have_equal_weight(self):
        # Nine tasks of one small score each, one of a thousand large ones.
        values = np.append(np.arange(9.0), np.full(1000, 50.0))
        codes = np.append(np.arange(9), np.full(1000, 9))
        distribution = ScoreDistribution.of_tasks(values, codes)
        assert distribution.n_tasks == 10
        assert distribution.quantile(0.5, "hcp") == 5.0

    @pytest.mark.parametrize("n_tasks", [5, 9, 19, 40])
    def test_with_one_score_a_task_it_is_split_conformal(self, n_tasks):
        values = np.random.default_rng(0).permutation(n_tasks) + 1.0
        distribution = ScoreDistribution.of_tasks(values, np.arange(n_tasks))
        rank = 0.9 * (n_tasks + 1)
        expected = np.ceil(rank - 1e-9) if n_tasks >= 9 else np.inf
        assert distribution.quantile(0.9, "hcp") == expected
        # Between two ranks, as no one of them covers exactly as often as wanted; only
        # the last rank of nine has no other above it.
        expected = rank if n_tasks >= 9 else np.inf
        found = distribution.quantile(0.9, "leave_one_out")
        exact = 0.025 if n_tasks > 9 else 0.12
        assert found == pytest.approx(expected, abs=exact)

    def test_leave_one_out_by_its_definition(self):
        """Each row is judged by the other tasks, and the window averaged, in loops."""
        rng = np.random.default_rng(0)
        sizes = rng.integers(5, 40, size=14)
        codes = np.repeat(np.arange(14), sizes)
        values = rng.exponential(size=14)[codes] + rng.exponential(size=len(codes))
        distribution = ScoreDistribution.of_tasks(values, codes)

        def share(task, value):
            own = values[codes == task]
            return ((own < value).sum() + (own == value).sum() / 2) / len(own)

        def weighted(points, place):
            """Value that this number of tasks lies below, mid-ranks interpolated."""
            points = sorted(points)
            below = np.cumsum([weight for _, weight in points])
            middle = [b - w / 2 for b, (_, w) in zip(below, points, strict=True)]
            return np.interp(place, middle, [value for value, _ in points])

        rows = list(zip(codes, values, strict=True))
        among_others = [
            (np.mean([share(t, v) for t in range(14) if t != c]), 1 / sizes[c])
            for c, v in rows
        ]
        scores = [(v, 1 / sizes[c]) for c, v in rows]
        window = np.linspace(-0.5, 0.5, 11)
        for level in (0.5, 0.8, 0.9):
            reached = np.mean([weighted(among_others, 14 * level + u) for u in window])
            expected = np.mean([weighted(scores, 14 * reached + u) for u in window])
            found = distribution.quantile(level, "leave_one_out")
            assert found == pytest.approx(expected, rel=1e-9)

    def test_infinite_scores_of_unseen_classes(self):
        values = np.append(np.arange(90.0), np.full(10, np.inf))
        distribution = ScoreDistribution.of_tasks(values, np.arange(100) % 10)
        assert np.isfinite(distribution.quantile(0.5, "leave_one_out"))
        assert distribution.quantile(0.9, "leave_one_out") == np.inf

    @pytest.mark.parametrize("kind", ["rows differ", "tasks differ", "both"])
    def test_leave_one_out_has_the_right_size(self, kind):
        """Few tasks, and what differs are rows, tasks or both."""
        rng, covered = np.random.default_rng(0), []
        for _ in range(1200):
            values = rng.exponential(size=(72, 20)) * (kind != "tasks differ")
            values += rng.exponential(size=(72, 1)) * (kind != "rows differ")
            if kind == "tasks differ":
                values += 0.1 * rng.random((72, 20))
            codes = np.repeat(np.arange(12), 20)
            known = ScoreDistribution.of_tasks(values[:12].ravel(), codes)
            levels = (known.quantile(0.9, c) for c in ("leave_one_out", "hcp"))
            covered.append([(values[12:] <= level).mean() for level in levels])
        ours, hcp = np.mean(covered, axis=0)
        assert abs(ours - 0.9) < 0.015
        assert hcp > ours - 1e-3

    def test_hcp_by_its_definition(self):
        rng = np.random.default_rng(0)
        codes = rng.integers(0, 30, size=300)
        values = rng.exponential(size=300)
        found = ScoreDistribution.of_tasks(values, codes).quantile(0.8, "hcp")

        def covered(score):
            return sum((values[codes == t] <= score).mean() for t in range(30)) / 31

        assert covered(found) >= 0.8 > covered(found - 1e-9)

    def test_adding_is_pooling(self):
        rng = np.random.default_rng(0)
        codes, values = np.repeat(np.arange(20), 5), rng.normal(size=100)
        whole = ScoreDistribution.of_tasks(values, codes)
        parts = [
            ScoreDistribution.of_tasks(values[p], codes[p])
            for p in (codes < 8, codes >= 8)
        ]
        joined = parts[0] + parts[1]
        for level in (0.3, 0.9):
            for correction in ("hcp", "leave_one_out"):
                found = joined.quantile(level, correction)
                assert found == whole.quantile(level, correction)


def coverage(meta, tasks, n_shots, judge, seed=0):
    """Mean over tasks of the share of covered query rows, and of sizes."""
    X, y, groups = long_format(tasks)
    mask = support_mask(groups, None, n_shots, seed=seed)
    groups = groups + 10_000
    model = copy.copy(meta)
    if n_shots:
        model.adapt(X[mask], y[mask], groups=groups[mask])
    values = judge(model, X[~mask], y[~mask], groups[~mask])
    _, codes = np.unique(groups[~mask], return_inverse=True)
    return [float(np.mean(np.bincount(codes, v) / np.bincount(codes))) for v in values]


def interval(model, X, y, groups):
    _, ends = model.predict_interval(X, groups)
    inside = (ends[:, 0, 0] <= y) & (y <= ends[:, 1, 0])
    return inside, ends[:, 1, 0] - ends[:, 0, 0]


def in_set(model, X, y, groups):
    _, sets = model.predict_set(X, groups)
    column = np.searchsorted(model.classes_, y)
    return sets[np.arange(len(y)), column, 0], sets[..., 0].sum(1)


@pytest.mark.parametrize("conformity_score", ["normalized", "absolute"])
def test_intervals_cover_new_tasks(conformity_score):
    """Heavy tails and a scale of noise of its own in each task: nothing is Gaussian."""
    found = []
    for seed in range(3):
        tasks = make_regression_tasks(280, (25, 45), n_features=3, random_state=seed)
        rng = np.random.default_rng(seed)
        tasks = [
            (X, y + rng.exponential() * rng.standard_t(3, size=len(y)))
            for X, y in tasks
        ]
        meta = ConformalRegressor(
            conformity_score=conformity_score, random_state=seed
        ).fit(tasks[:80])
        found.append(
            [coverage(meta, tasks[80:], k, interval)[0] for k in (0, 1, 3, 20)]
        )
    assert np.all(np.abs(np.mean(found, axis=0) - 0.9) < 0.03), found


@pytest.mark.parametrize("conformity_score", ["lac", "aps"])
def test_sets_cover_new_tasks(conformity_score):
    tasks = make_regression_tasks(260, 40, n_features=3, random_state=1)
    tasks = [(X, np.digitize(y, [-1, 1])) for X, y in tasks]
    meta = ConformalClassifier(conformity_score=conformity_score, shots=[0, 5, 20])
    meta.set_params(n_draws=2).fit(tasks[:60])
    found = [coverage(meta, tasks[60:], k, in_set) for k in (0, 5, 20)]
    covered, sizes = np.transpose(found)
    assert np.all(covered > 0.87)
    # Steps of a set of classes are coarse where they hold one class or two.
    assert np.all(covered < 0.95)
    assert sizes[2] < sizes[1] < sizes[0] < 3


def test_raw_intervals_of_a_wrong_model_do_not_cover():
    """The sine waves are no linear functions: standard deviations are too small."""
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(160):
        X = rng.uniform(-1, 1, size=(30, 1))
        tasks.append((X, X[:, 0] + rng.exponential(3) * rng.normal(size=30) ** 3))
    meta = ConformalRegressor(HierarchicalRegressor()).fit(tasks[:60])
    assert abs(coverage(meta, tasks[60:], 5, interval)[0] - 0.9) < 0.03


def test_levels_shapes_and_order():
    tasks = regression_tasks(n_tasks=30)
    meta = ConformalRegressor(confidence_level=[0.5, 0.8]).fit(tasks[:29])
    X, y = tasks[29]
    mean, ends = meta.adapt(X[:4], y[:4]).predict_interval(X[4:])
    assert ends.shape == (8, 2, 2)
    np.testing.assert_allclose(mean, meta.predict(X[4:]))
    np.testing.assert_allclose(ends.mean(axis=1), np.column_stack([mean, mean]))
    assert (np.diff(ends[:, 1], axis=1) > 0).all()
    meta.set_params(confidence_level=0.8)
    np.testing.assert_allclose(meta.predict_interval(X[4:])[1][..., 0], ends[..., 1])
    shuffled = np.random.default_rng(0).permutation(8)
    np.testing.assert_allclose(
        meta.predict_interval(X[4:][shuffled])[1][..., 0], ends[shuffled][..., 1]
    )


def test_the_number_of_support_rows_is_counted():
    tasks = regression_tasks(n_tasks=30)
    meta = ConformalRegressor(conformity_score="absolute").fit(tasks[:29])
    X, y = tasks[29]

    def width():
        _, ends = meta.predict_interval(X, np.full(len(X), "new"))
        return float(np.ptp(ends[0]))

    widths = [width()]
    for row in range(8):
        group = np.array(["new"])
        meta.partial_adapt(X[row : row + 1], y[row : row + 1], groups=group)
        widths.append(width())
    meta.adapt(X[:8], y[:8], groups=np.full(8, "new"))
    assert width() == pytest.approx(widths[-1], rel=1e-12)
    assert widths[-1] < widths[2] < widths[0]
    known = dict(zip(meta.shots_.tolist(), meta.score_distributions_, strict=True))
    for k in (0, 1, 2, 5):
        expected = 2 * known[k].quantile(0.9, "leave_one_out")
        np.testing.assert_allclose(widths[k], expected)
    low, high = np.log1p([2, 5])
    share = (np.log1p(3) - low) / (high - low)
    expected = (1 - share) * widths[2] + share * widths[5]
    np.testing.assert_allclose(widths[3], expected)


def test_too_few_tasks_give_infinite_intervals_and_full_sets():
    tasks = regression_tasks(n_tasks=8)
    meta = ConformalRegressor().fit(tasks)
    with pytest.warns(UserWarning, match="at least 9 calibration tasks"):
        mean, ends = meta.predict_interval(tasks[0][0], np.zeros(12, dtype=int))
    assert np.isfinite(mean).all() and np.isinf(ends).all()
    meta.set_params(confidence_level=0.8)
    ends = meta.predict_interval(tasks[0][0], np.zeros(12, dtype=int))[1]
    assert np.isfinite(ends).all()
    tasks = classification_tasks(n_tasks=8)
    meta = ConformalClassifier().fit(tasks)
    with pytest.warns(UserWarning, match="Sets hold all classes"):
        assert meta.predict_set(tasks[0][0], np.zeros(12, dtype=int))[1].all()


def test_fewer_rows_than_calibrated_for_are_not_covered():
    tasks = regression_tasks(n_tasks=30)
    meta = ConformalRegressor(shots=[3, 5]).fit(tasks)
    with pytest.warns(UserWarning, match="smaller numbers in shots"):
        ends = meta.predict_interval(tasks[0][0], np.full(12, "unknown"))[1]
    assert np.isinf(ends).all()


def test_small_tasks_say_nothing_of_large_supports():
    tasks = regression_tasks(n_tasks=30, n_rows=4) + regression_tasks(n_tasks=3)
    meta = ConformalRegressor().fit(tasks)
    counts = [part.n_tasks if part else 0 for part in meta.score_distributions_]
    assert dict(zip(meta.shots_.tolist(), counts, strict=True)) == {
        0: 33,
        1: 33,
        2: 33,
        5: 3,
        10: 3,
        20: 0,
        50: 0,
    }
    X, y = regression_tasks(n_tasks=1, seed=9)[0]
    assert np.isfinite(meta.adapt(X[:6], y[:6]).predict_interval(X[6:])[1]).all()


def test_partial_fit_judges_before_it_learns():
    tasks = regression_tasks(n_tasks=40)
    meta = ConformalRegressor().partial_fit(tasks[:30])
    before = copy.copy(meta)
    meta.partial_fit(tasks[30:])
    assert [part.n_tasks for part in meta.score_distributions_[:3]] == [40, 40, 40]
    assert [part.n_tasks for part in before.score_distributions_[:3]] == [30, 30, 30]
    X, y = tasks[30]
    late = copy.copy(before).adapt(X[:1], y[:1])
    error = np.abs(y[1:] - late.predict(X[1:]))
    scores = meta.score_distributions_[1].values
    assert np.isfinite(error).all() and len(scores) == 40 * 11 * 5
    # More rows of a known task are no new task.
    X, y, groups = long_format(tasks[:2])
    meta.partial_fit(X, y, groups=groups)
    assert meta.score_distributions_[0].n_tasks == 40
    meta.set_params(shots=[1])
    with pytest.raises(ValueError, match="cannot change between calls"):
        meta.partial_fit(X, y, groups=groups + 100)


@pytest.mark.parametrize("name", sorted(META))
def test_every_learner_can_be_wrapped(name):
    inner = META[name]()
    classifier = hasattr(inner, "classes_") or "lassifier" in type(inner).__name__
    wrapper = ConformalClassifier if classifier else ConformalRegressor
    tasks = tasks_for(wrapper, n_tasks=12)
    meta = wrapper(inner, confidence_level=0.8, shots=[0, 2], n_draws=1, cv=2)
    meta.fit(tasks[:-1])
    X, y = tasks[-1]
    few = support_mask(np.zeros(12, dtype=int), y if classifier else None, 2)
    meta.adapt(X[few], y[few])
    verb = meta.predict_set if classifier else meta.predict_interval
    predicted, region = verb(X[~few])
    np.testing.assert_array_equal(predicted, meta.predict(X[~few]))
    other = pickle.loads(pickle.dumps(meta))
    verb = other.predict_set if classifier else other.predict_interval
    np.testing.assert_allclose(verb(X[~few])[1], region)
    plain = clone(inner).fit(tasks[:-1]).adapt(X[few], y[few])
    if not classifier:
        np.testing.assert_allclose(plain.predict(X[~few]), predicted)
        assert np.isfinite(region).all()
    else:
        np.testing.assert_allclose(
            plain.predict_proba(X[~few]), meta.predict_proba(X[~few])
        )


def test_labels_that_belong_to_their_task():
    names = ["abc", "de", "fgh", "ij"]
    tasks = []
    for t in range(24):
        X, y = classification_tasks(1, 18, seed=t)[0]
        labels = np.array(list(names[t % 4]))
        tasks.append(
            (X, labels[np.argsort(np.argsort(X @ [1, 2, 3])) * len(labels) // 18])
        )
    meta = ConformalClassifier(
        tiny(ProtoNetClassifier), shots=[0, 1, 3], n_draws=1, cv=2
    ).fit(tasks[:-1])
    assert meta.label_space_ == "per_task"
    assert meta.shots_.tolist() == [1, 3]
    X, y = tasks[-1]
    few = support_mask(np.zeros(18, dtype=int), np.searchsorted(["i", "j"], y), 3)
    predicted, sets = meta.adapt(X[few], y[few]).predict_set(X[~few])
    assert set(predicted) <= {"i", "j"}
    assert not sets[:, ~np.isin(meta.classes_, ["i", "j"])].any()
    assert sets.any()
    with pytest.raises(NotAdaptedError, match="never"):
        meta.predict_set(X, groups=["never"] * 18)


def test_a_class_of_one_task_only_is_no_obstacle():
    tasks = classification_tasks(n_tasks=12)
    tasks[3] = (tasks[3][0], np.where(tasks[3][0][:, 0] > 1, 2, tasks[3][1]))
    assert 2 in tasks[3][1]
    meta = ConformalClassifier(shots=[0, 2], n_draws=1).fit(tasks)
    assert meta.predict_set(tasks[0][0], np.zeros(12, int))[1].shape == (12, 3, 1)


def test_pipelines_searches_and_wrappers_of_wrappers():
    tasks = regression_tasks(n_tasks=20)
    model = make_pipeline(PerTask(StandardScaler()), ConformalRegressor())
    model.fit(tasks[:16])
    assert np.isfinite(FewShotScorer("r2", n_shots=3)(model, tasks[16:]))
    meta = ConformalRegressor().fit(tasks[:16])
    X, y = tasks[17]
    few = freeze(meta).fit(X[:5], y[:5])
    np.testing.assert_allclose(
        few.predict(X), copy.copy(meta).adapt(X[:5], y[:5]).predict(X)
    )
    assert meta.n_shots == HierarchicalRegressor().n_shots


def test_predictive_standard_deviations_are_those_of_the_estimator():
    tasks = regression_tasks(n_tasks=12)
    X, y, groups = long_format(tasks)
    meta, plain = ConformalRegressor().fit(tasks), HierarchicalRegressor().fit(tasks)
    expected = plain.predict(X, groups, return_std=True)
    np.testing.assert_allclose(meta.predict(X, groups, return_std=True), expected)
    other = ConformalRegressor(tiny(MAMLRegressor), cv=2, n_draws=1, shots=[2])
    other.fit(tasks)
    with pytest.raises(ValueError, match="probabilistic"):
        other.predict(X, groups, return_std=True)
    with pytest.raises(ValueError, match="standard deviations"):
        other.set_params(conformity_score="normalized").fit(tasks)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"confidence_level": 1.0}, ValueError, "confidence_level"),
        ({"confidence_level": [0.5, 2]}, ValueError, "between 0 and 1"),
        ({"confidence_level": []}, ValueError, "one or more numbers"),
        ({"shots": [3, 1]}, ValueError, "increasing"),
        ({"estimator": HierarchicalClassifier()}, TypeError, "regressor"),
        ({"estimator": HierarchicalRegressor(group_column=0)}, ValueError, "group_col"),
        ({"correction": "none"}, ValueError, "correction"),
        ({"conformity_score": "lac"}, ValueError, "conformity_score"),
        ({"estimator": Ridge()}, ValueError, "estimator"),
    ],
)
def test_bad_parameters(params, error, message):
    with pytest.raises(error, match=message):
        ConformalRegressor(**params).fit(regression_tasks())


def test_bad_input_names_the_task():
    tasks = regression_tasks(n_tasks=12)
    tasks[4][0][2, 1] = np.nan
    with pytest.raises(ValueError, match="task 4, row 2, column 1"):
        ConformalRegressor().fit(tasks)


# -------------------------------------------------------------------------- novelty
@pytest.mark.parametrize("classes", [False, True])
def test_shuffled_labels_raise_an_alarm(classes):
    tasks = make_regression_tasks(160, 40, n_features=4, random_state=0)
    tasks = binary(tasks) if classes else tasks
    novelty = TaskNovelty(n_shots=[5, 15, 25], n_draws=2).fit(tasks[:60])
    rng = np.random.default_rng(0)
    new = [(X[:25], y[:25]) for X, y in tasks[60:]]
    shuffled = [(X, rng.permutation(y)) for X, y in new]
    scores = np.append(novelty.score_samples(new), novelty.score_samples(shuffled))
    assert roc_auc_score(np.arange(200) < 100, scores) > 0.95
    assert (novelty.predict(new) == -1).mean() < 0.12
    assert (novelty.predict(shuffled) == -1).mean() > 0.7


def test_p_values_are_those_of_ordinary_tasks():
    """Whatever the number of rows, and however large the training tasks were."""
    sizes, found = (2, 5, 11, 40), []
    for seed in range(3):
        tasks = make_regression_tasks(200, (15, 60), n_features=2, random_state=seed)
        novelty = TaskNovelty(n_shots=[2, 5, 10], n_draws=2, n_permutations=8)
        novelty.fit(tasks[:60])
        p = [novelty.p_values([(X[:n], y[:n]) for X, y in tasks[60:]]) for n in sizes]
        assert np.min(p) >= 1 / 61
        found.append([[(q <= alpha).mean() for alpha in (0.1, 0.3)] for q in p])
    assert np.all(np.abs(np.mean(found, axis=0) - [0.1, 0.3]) < 0.08)


def test_the_ratio_of_likelihoods_is_that_of_the_learned_prior():
    """Of one row, and of a second given the first: together that of both."""
    tasks = make_regression_tasks(40, 30, n_features=3, random_state=0)
    meta = HierarchicalRegressor().fit(tasks[:30])
    rows = read_task_rows(meta, [(X[:2], y[:2]) for X, y in tasks[30:]])
    unrelated = Unrelated.of(np.concatenate([y for _, y in tasks]), False, False)
    used, rank = np.ones(20, dtype=bool), np.tile([0, 1], 10)
    found = log_ratios(
        HeldOut(meta, rows), used, rank, unrelated, None, 40, np.random.default_rng(0)
    )

    def log_density(X, y):
        """Of both rows at once; a support row may count less than a whole one."""
        F, prior = meta._design.features(X), meta.prior_
        latent = F @ prior.factor
        cov = latent @ latent.T
        noise = np.diag([prior.row_noise, prior.noise])
        first = norm.logpdf(
            meta._design.encode(y)[0], F[0] @ prior.mean,
            np.sqrt(cov[0, 0] + prior.noise),
        )  # fmt: skip
        gain = cov[1, 0] / (cov[0, 0] + noise[0, 0])
        mean = F[1] @ prior.mean + gain * (
            meta._design.encode(y)[0] - F[0] @ prior.mean
        )
        spread = cov[1, 1] - gain * cov[0, 1] + prior.noise
        second = norm.logpdf(meta._design.encode(y)[1], mean, np.sqrt(spread))
        scale = meta._design.decode(np.array([1.0])) - meta._design.decode(
            np.array([0.0])
        )
        return first + second - 2 * np.log(scale[0])

    for (X, y), (exchanged, nothing) in zip(tasks[30:], found, strict=True):
        X, y = X[:2], y[:2]
        own, other = log_density(X, y), log_density(X[::-1], y)
        # Of two rows there are two orders: the share of exchanges is a coin's.
        low, high = np.sort([0.0, other - own])
        assert low - 1e-9 <= exchanged <= high + 1e-9
        z = (y - unrelated.center) / unrelated.spread
        expected = student.logpdf(z, 4).sum() - 2 * np.log(unrelated.spread) - own
        assert nothing == pytest.approx(expected)
        share = (np.exp(exchanged) - 1) / (np.exp(other - own) - 1)
        assert 0.2 < share < 0.8 and 40 * share == pytest.approx(round(40 * share))


@pytest.mark.parametrize("n_labels", [2, 3])
def test_classes_are_judged_by_what_was_said_of_them(n_labels):
    """Losses of blocks in loops over tasks; the copies are exchanges of rows."""
    tasks = make_regression_tasks(30, 20, n_features=2, random_state=1)
    cuts = np.linspace(-1, 1, n_labels + 1)[1:-1]
    tasks = [(X, np.digitize(y, cuts)) for X, y in tasks]
    meta = HierarchicalClassifier().fit(tasks[:25])
    rows = read_task_rows(meta, [(X[:7], y[:7]) for X, y in tasks[25:]])
    unrelated = Unrelated.of(rows.y, True, False)
    found = log_ratios(
        HeldOut(meta, rows), np.ones(35, dtype=bool), np.tile(np.arange(7), 5),
        unrelated, None, 1, np.random.default_rng(0),
    )  # fmt: skip
    for (X, y), (_, nothing) in zip(tasks[25:], found, strict=True):
        own = 0.0
        for low, high in ((0, 1), (1, 2), (2, 4), (4, 7)):
            model = copy.copy(meta)
            name = np.full(7, "new")
            if low:
                model.adapt(X[:low], y[:low], groups=name[:low])
            proba = model.predict_proba(X[low:high], groups=name[low:high])
            chosen = proba[np.arange(high - low), y[low:high]]
            own += np.log(0.98 * chosen + 0.02 / n_labels).sum()
        shares = np.bincount(rows.y) / 35
        expected = np.log(0.98 * shares[y[:7]] + 0.02 / n_labels).sum() - own
        assert nothing == pytest.approx(expected)


def test_learners_without_a_standard_deviation_are_given_one():
    tasks = regression_tasks(n_tasks=30, n_rows=20)
    local = LocalRegressor(Ridge())
    novelty = TaskNovelty(local, n_shots=[4, 10], n_draws=1, n_permutations=5, cv=3)
    novelty.fit(tasks[:24])
    # Blocks 0, 1, 2-3, 4-7 and 8-9, each from the rows before it.
    assert novelty._scales.shape == (5,)
    assert novelty._scales[-1] < novelty._scales[0]
    shuffled = [(X, np.random.default_rng(0).permutation(y)) for X, y in tasks[24:]]
    usual, strange = map(novelty.score_samples, (tasks[24:], shuffled))
    assert usual.mean() > strange.mean()


def test_another_level_is_seen_by_the_prior():
    tasks = regression_tasks(n_tasks=60, n_rows=20)
    novelty = TaskNovelty(n_shots=[2, 10]).fit(tasks[:50])
    far = [(X, y + 30) for X, y in tasks[50:]]
    assert (novelty.predict(far) == -1).all()


def test_novelty_takes_all_forms_of_tasks():
    tasks = regression_tasks(n_tasks=30, n_rows=15)
    novelty = TaskNovelty(alpha=0.1).fit(tasks[:24])
    X, y, groups = long_format(tasks)
    other = TaskNovelty(HierarchicalRegressor(group_column=3), alpha=0.1)
    other.fit(np.column_stack([X, groups])[groups < 24], y[groups < 24])
    long = TaskNovelty(alpha=0.1).fit(
        X[groups < 24], y[groups < 24], groups[groups < 24]
    )
    np.testing.assert_allclose(other.statistics_, novelty.statistics_)
    np.testing.assert_allclose(long.statistics_, novelty.statistics_)
    new = groups >= 24
    expected = novelty.score_samples(tasks[24:])
    np.testing.assert_allclose(
        long.score_samples(X[new], y[new], groups[new]), expected
    )
    found = other.score_samples(np.column_stack([X, groups])[new], y[new])
    np.testing.assert_allclose(found, expected)
    one = novelty.score_samples(*tasks[24])
    assert one.shape == (1,)
    assert set(novelty.predict(tasks[24:])) <= {-1, 1}
    copied = pickle.loads(pickle.dumps(clone(novelty).fit(tasks[:24])))
    np.testing.assert_allclose(copied.score_samples(tasks[24:]), expected)


def test_novelty_of_tasks_with_labels_of_their_own():
    tasks = classification_tasks(n_tasks=24, n_rows=16)
    tasks = [
        (X, np.array([f"{t} no", f"{t} yes"])[y]) for t, (X, y) in enumerate(tasks)
    ]
    novelty = TaskNovelty(tiny(ProtoNetClassifier), n_shots=[2, 4], n_draws=1, cv=2)
    novelty.set_params(alpha=0.2).fit(tasks[:18])
    assert novelty.predict(tasks[18:]).shape == (6,)


def test_novelty_says_what_it_cannot_do():
    tasks = regression_tasks(n_tasks=12)
    novelty = TaskNovelty().fit(tasks)
    with pytest.warns(UserWarning, match="No alarm is possible at alpha=0.05"):
        assert (novelty.predict(tasks) == 1).all()
    X, y, _ = long_format(tasks[:2])
    with pytest.raises(ValueError, match="Task 'b' has 1 rows"):
        novelty.p_values(X[:5], y[:5], ["a"] * 4 + ["b"])
    with pytest.raises(ValueError, match="at least 2"):
        TaskNovelty(n_shots=[1, 5]).fit(tasks)
    with pytest.raises(ValueError, match="n_shots=20"):
        TaskNovelty(n_shots=[20]).fit(tasks)
    with pytest.raises(ValueError, match="no task ids"):
        TaskNovelty().fit(*tasks[0])


# ------------------------------------------------------------------------------ ask
@pytest.mark.parametrize("random_state", [0, 1, 2])
def test_ask_is_brute_force_greedy_for_line_and_deviation(random_state):
    """A Gaussian process of the whole pool, conditioned on every candidate."""
    tasks = make_regression_tasks(30, 22, n_features=3, random_state=random_state)
    meta = HierarchicalRegressor(covariance="full").fit(tasks[:-1])
    X, y = tasks[-1]
    meta.adapt(X[:2], y[:2])
    pool, unit = X[2:], meta._design.target_scale**2
    observed, noise = unit * meta.prior_.noise, unit * meta.prior_.row_noise

    def variance(rows):
        return np.square(meta.predict(rows, return_std=True)[1])

    # A line half-way between two rows has their mean, which tells the covariance.
    size = variance(pool)
    middle = variance((pool[:, None] + pool).reshape(-1, 3) / 2).reshape(20, 20)
    apart = 2 * (size[:, None] + size) - 4 * middle
    np.fill_diagonal(apart, 0)
    line = 2 * middle - (size[:, None] + size) / 2 - observed
    typical = np.median(apart[apart > 1e-9])
    a = min(0.6 * noise, 0.15 * typical)
    whole, chosen = line + a * np.exp(-2 * apart / typical), []
    for _ in range(6):

        def left(row):
            rows = [*chosen, row]
            known = whole[np.ix_(rows, rows)] + (noise - a) * np.eye(len(rows))
            cross = whole[rows]
            return np.trace(whole - cross.T @ np.linalg.solve(known, cross))

        rest = [row for row in range(len(pool)) if row not in chosen]
        chosen.append(min(rest, key=left))
    assert ask(meta, pool, 6).tolist() == chosen


@pytest.mark.parametrize("known", [0, 3])
def test_ask_of_a_ridge_head_is_brute_force_greedy(known):
    tasks = regression_tasks(n_tasks=10)
    meta = tiny(RidgeHeadRegressor).fit(tasks[:-1])
    X, y = tasks[-1]
    meta.states_ = type(meta.states_)()
    if known:
        meta.adapt(X[:known], y[:known])
    chosen = []
    for _ in range(3):

        def left(row):
            rows = [*chosen, row]
            model = copy.copy(meta).partial_adapt(X[rows], np.zeros(len(rows)))
            return np.square(model.predict(X, return_std=True)[1]).sum()

        rest = [row for row in range(len(X)) if row not in chosen]
        chosen.append(min(rest, key=left))
    assert ask(meta, X, 3).tolist() == chosen


def test_most_telling_is_exact_with_noise_and_weights_of_each_row():
    rng = np.random.default_rng(0)
    latent, noise = rng.normal(size=(2, 8, 3)), rng.uniform(0.5, 2, size=(2, 8))
    weight = rng.uniform(size=(2, 8))

    def left(rows):
        total = 0.0
        for Z, s, w in zip(latent, noise, weight, strict=True):
            inner = np.eye(3) + (Z[rows].T / s[rows]) @ Z[rows]
            total += w @ np.einsum("nr,rs,ns->n", Z, np.linalg.inv(inner), Z)
        return total

    chosen = []
    for _ in range(5):
        rest = [row for row in range(8) if row not in chosen]
        chosen.append(min(rest, key=lambda row: left([*chosen, row])))
    assert most_telling(latent, noise, weight, 5).tolist() == chosen


@pytest.mark.parametrize("classes", [False, True])
def test_ask_beats_random_rows(classes):
    tasks = make_regression_tasks(140, 40, n_features=4, random_state=0)
    tasks = binary(tasks) if classes else tasks
    learner = HierarchicalClassifier if classes else HierarchicalRegressor
    meta = learner().fit(tasks[:60])
    rng, gains = np.random.default_rng(0), []
    for X, y in tasks[60:]:
        pool, judged = slice(0, 25), slice(25, 40)

        def loss(rows, X=X, y=y, judged=judged):
            model = copy.copy(meta).adapt(X[rows], y[rows])
            if not classes:
                return np.square(y[judged] - model.predict(X[judged])).mean()
            proba = model.predict_proba(X[judged])[np.arange(15), y[judged]]
            return -np.log(proba).mean()

        asked = ask(meta, X[pool], 5, groups=["new"] * 25)
        chance = np.mean([loss(rng.permutation(25)[:5]) for _ in range(5)])
        gains.append(chance - loss(asked))
    assert np.mean(gains) > 2 * np.std(gains) / len(gains) ** 0.5


def test_ask_goes_to_the_middle_of_a_bent_pool():
    """Without a deviation only the first of six rows is not at one of the ends."""
    rng = np.random.default_rng(0)
    times = np.linspace(0, 1, 31)
    tasks = [
        (times[:, None], slope * times + bend * np.sin(6 * times))
        for slope, bend in rng.normal(size=(40, 2)) * [3, 1]
    ]
    meta = HierarchicalRegressor().fit(tasks)
    asked = times[ask(meta, times[:, None], 6, groups=["new"] * 31)]
    assert ((asked > 0.15) & (asked < 0.85)).sum() >= 3


def test_deviation_of_a_large_pool_is_that_of_a_small_one(monkeypatch):
    """What the marks cannot tell of a row stays noise of its own."""
    latent = np.random.default_rng(0).normal(size=(60, 2))
    whole, noise = with_misfit(latent)
    monkeypatch.setattr("skmeta.hierarchical._misfit.N_MARKS", 40)
    few, rest = with_misfit(latent)
    assert whole.shape == (60, 62) and few.shape == (60, 42)
    total = np.square(latent).sum(1) + 1
    np.testing.assert_allclose(np.square(whole).sum(1) + noise, total)
    np.testing.assert_allclose(np.square(few).sum(1) + rest, total)
    np.testing.assert_allclose(few @ few.T, whole @ whole.T, atol=0.05)
    alike, noise = with_misfit(np.ones((5, 2)))
    assert (alike == 1).all() and alike.shape == (5, 2) and (noise == 1).all()


def test_ask_spreads_where_there_is_no_posterior():
    tasks = regression_tasks(n_tasks=8)
    meta = tiny(MAMLRegressor).fit(tasks[:-1])
    X, y = tasks[-1]
    rows = ask(meta, X, 4, groups=["new"] * 12)
    assert len(set(rows)) == 4
    meta.adapt(X[rows[:2]], y[rows[:2]], groups=["new"] * 2)
    # What is labelled already is the farthest from being asked for.
    assert not set(ask(meta, X, 3, groups=["new"] * 12)) & set(rows[:2])


def test_k_center():
    pool = np.array([[0.0], [1.0], [5.0], [10.0]])
    assert k_center(pool, np.array([[0.0]]), 3).tolist() == [3, 2, 1]
    assert k_center(pool, pool[:0], 4).tolist() == [2, 0, 3, 1]


def test_ask_of_many_tasks_pipelines_and_wrappers():
    tasks = regression_tasks(n_tasks=20)
    model = make_pipeline(PerTask(StandardScaler()), HierarchicalRegressor())
    model.fit(tasks[:17])
    X, _, groups = long_format(tasks[17:])
    order = np.random.default_rng(0).permutation(len(X))
    found = ask(model, X[order], 2, groups=groups[order] + 100)
    np.testing.assert_array_equal(groups[order][found], [0, 0, 1, 1, 2, 2])
    plain = HierarchicalRegressor().fit(tasks[:17])
    wrapped = ConformalRegressor().fit(tasks[:17])
    X, y = tasks[18]
    rows = ask(plain.adapt(X[:3], y[:3]), X, 3)
    np.testing.assert_array_equal(ask(wrapped.adapt(X[:3], y[:3]), X, 3), rows)


@pytest.mark.parametrize("space", ["shared", "per_task"])
def test_ask_of_classifiers(space):
    tasks = classification_tasks(n_tasks=10)
    meta = tiny(RidgeHeadClassifier, label_space=space).fit(tasks[:-1])
    X = tasks[-1][0]
    assert len(set(ask(meta, X, 5, groups=["new"] * 12))) == 5
    meta = tiny(ProtoNetClassifier, label_space=space).fit(tasks[:-1])
    assert len(set(ask(meta, X, 5, groups=["new"] * 12))) == 5


def test_ask_refuses_what_it_cannot_give():
    tasks = regression_tasks(n_tasks=8)
    meta = HierarchicalRegressor().fit(tasks)
    X, _, groups = long_format(tasks[:2])
    with pytest.raises(ValueError, match="pool of task 'b' has 12 rows"):
        ask(meta, X, 13, groups=np.array(["b", "c"])[groups])
    with pytest.raises(ValueError, match="positive number of rows"):
        ask(meta, X, 0, groups=groups)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        ask(HierarchicalRegressor(), X, 1)
