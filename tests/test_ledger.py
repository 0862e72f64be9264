"""The figures of the documents are those of the ledger, and still come out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from _tiny import tiny
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor

from skmeta import DualProtoNetClassifier
from skmeta.modules import TextCNN

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
HELPERS = {"check.py", "ledger.py", "tables.py"}

pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="benchmarks/ is part of a checkout only"
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize("name", ["fertility", "fleet", "outer_gradient"])
def test_figures_stay_in_their_intervals(name):
    import check

    found = check.CHECKS[name].figures()
    assert found
    assert not list(check.outside(found, check.load_expected()))


def test_figures_of_real_tables_stay_in_their_intervals(shared_data, monkeypatch):
    import check

    monkeypatch.setenv("SKMETA_SHARED_DATA", str(shared_data))
    found = check.CHECKS["grouped_tables"].figures()
    assert len(found) == 4
    assert not list(check.outside(found, check.load_expected()))


def test_a_figure_outside_of_its_interval_is_named():
    import check

    expected = {"error": {"value": 1.0, "interval": [None, 2.0]}}
    assert not list(check.outside({"error": 0.1}, expected))
    assert [text[:5] for text in check.outside({"error": 2.1}, expected)] == ["error"]
    assert list(check.outside({"error": float("nan")}, expected))
    assert "--update" in next(check.outside({"new": 1.0}, expected))


def test_readme_has_the_figures_of_the_ledger():
    import tables

    text = tables.README.read_text()
    assert tables.readme(text) == text, "run: python benchmarks/tables.py"


def test_results_page_has_the_figures_of_the_ledger():
    import tables

    assert tables.page() == tables.PAGE.read_text(), "run: python benchmarks/tables.py"


def test_the_ledger_knows_every_benchmark():
    import ledger

    scripts = {path.name for path in BENCHMARKS.glob("[a-z]*.py")} - HELPERS
    assert scripts == {run.script.name for run in ledger.RUNS}


def queries(n_intents, n_texts=15):
    """Texts of intents that speak of two things each, and their intents."""
    rng = np.random.default_rng(0)
    return [
        (f"{rng.choice(['see', 'use'])} thing{c} part{c} at {rng.integers(5)}", f"i{c}")
        for c in range(n_intents)
        for _ in range(n_texts)
    ]


def test_banking77_learns_words_of_known_intents_alone():
    pytest.importorskip("gensim")
    import banking77

    rows = queries(6)
    known, new = {"i0", "i1", "i2"}, {"i3", "i4", "i5"}
    others = [
        (f"see thing0 quite another {i}", intent)
        if intent in new and i != 3 * 15
        else (text, intent)
        for i, (text, intent) in enumerate(rows)
    ]
    one, other = (banking77.Fold.learned_on(r, known, new) for r in (rows, others))
    for name in ("X", "y", "vectors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    # The one new text that is the same in both gets the same ids and term weights.
    assert (one.X_new[0] == other.X_new[0]).all() and (one.X_new[1:] > 0).any()
    np.testing.assert_array_equal(one.terms_new[0], other.terms_new[0])
    changed = [(text + " thing9" * (i == 0), c) for i, (text, c) in enumerate(rows)]
    changed = banking77.Fold.learned_on(changed, known, new)
    assert len(changed.vectors) > len(one.vectors)


@pytest.mark.parametrize("refine", [0, 3])
def test_banking77_judges_as_adapting_does(monkeypatch, refine):
    """Embedding every row once gives the accuracies that the public verbs give."""
    pytest.importorskip("gensim")
    import banking77

    monkeypatch.setattr(banking77, "N_EPISODES", 12)
    known, new = ({f"i{c}" for c in part} for part in (range(8), range(8, 20)))
    data = banking77.Fold.learned_on(queries(20), known, new)
    net = {"module__embedding": data.vectors, "max_epochs": 3, "module__n_filters": 4}
    meta = tiny(DualProtoNetClassifier, TextCNN, net=net, n_ways=4, refine=refine)
    meta.set_params(label_space="per_task").fit(data.X, data.y)
    meta.learner_.mixture[2] -= 2  # both spaces have a say
    judged = banking77.judged_by(banking77.BOTH, meta, data.X_new)
    for setting, n_shots in (("5w1s", 1), ("10w5s", 5)):
        episodes = data.episodes(setting)
        quick, alone = (
            banking77.accuracy(judged[name](n_shots), *episodes, refine)
            for name in (banking77.BOTH, banking77.CNN)
        )
        found = banking77.adapted(meta, data.X_new, *episodes)
        np.testing.assert_allclose(quick, found, atol=0.021)
        assert abs(quick - alone).any()

    support, *halves = episodes[0][:3], *np.split(episodes[1][:3], 2, axis=2)
    quick = banking77.later_accuracy(judged[banking77.BOTH], support, *halves, refine)
    for s, (e, q), expected in zip(
        support, zip(*halves, strict=True), quick, strict=True
    ):
        meta.adapt(data.X_new[s.ravel()], np.repeat(np.arange(len(s)), s.shape[1]))
        shares = meta.predict_proba(data.X_new[e.ravel()])
        guess, weight = shares.argmax(axis=1), shares.max(axis=1)
        meta.partial_adapt(data.X_new[e.ravel()], guess, sample_weight=weight)
        given = [meta.predict(data.X_new[[row]])[0] for row in q.ravel()]
        truth = np.repeat(np.arange(len(q)), q.shape[1])
        assert np.mean(given == truth) == pytest.approx(expected, abs=0.021)


def test_uneven_queries_are_some_of_them():
    import banking77

    support, query = (np.arange(200 * 2 * n).reshape(200, 2, n) for n in (1, 10))
    some = banking77.uneven(query)
    n_kept = (some >= 0).sum(axis=2)
    assert n_kept.min() == 0 and n_kept.max() == 10 and (n_kept.sum(axis=1) > 0).all()
    assert np.isin(some, [-1, *query.flat]).all()
    # Always the first class: right for as many of the queries as are of it.
    first = lambda rows: lambda weights: np.tile([1.0, 0.0], (len(rows), 1))  # noqa: E731
    found = banking77.accuracy(first, support, some)
    np.testing.assert_allclose(found, n_kept[:, 0] / n_kept.sum(axis=1))


def test_true_posteriors_of_neural_process_benchmark():
    """The Gaussian process is scikit-learn's; that of sinusoids integrates to one."""
    import neural_process as bench

    (X, y), rest = bench.gp_tasks(1, 12, seed=0)[0], slice(5, None)
    kernel, noise = bench.RBF(bench.LENGTH), bench.NOISE**2
    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    mean, std = process.fit(X[:5], y[:5]).predict(X[rest], return_std=True)
    expected = norm.logpdf(y[rest], mean, np.sqrt(std**2 + noise))
    np.testing.assert_allclose(bench.gp_truth(X[:5], y[:5], X[rest], y[rest]), expected)

    X, y = bench.sinusoid_tasks(1, 4, seed=0)[0]
    grid = np.linspace(-8, 8, 4001)
    found = bench.sinusoid_truth(X[:3], y[:3], np.repeat(X[3:], len(grid), 0), grid)
    assert np.exp(found).sum() * 0.004 == pytest.approx(1, abs=1e-3)
    # Around the value that is observed, up to noise and what is not known yet.
    assert abs(grid[found.argmax()] - y[3]) < 1


def test_peak_of_a_step_is_what_its_tensors_hold():
    import gradient_family as bench

    profile = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    )
    with profile:
        first, second = (torch.empty(1000, 100) for _ in range(2))
        del first
        third = torch.empty(1000, 50)
    assert 800_000 <= bench.peak_bytes(profile) < 900_000
    del second, third


def test_support_of_activities_is_of_every_user_and_activity(shared_data, monkeypatch):
    monkeypatch.setenv("SKMETA_SHARED_DATA", str(shared_data))
    import activities as bench

    groups, y = np.repeat([0, 1], 7), np.array(list("aaabbbb" + "aaaaaac"))
    rows = bench.Rows(np.zeros((14, 1)), y, groups)
    drawn = [bench.support_mask(rows, 3, np.random.default_rng(s)) for s in (0, 1)]
    for mask in drawn:
        chosen = list(zip(groups[mask], y[mask], strict=True))
        found = {cell: chosen.count(cell) for cell in set(chosen)}
        # One row of each is left to predict; an activity with one row has no support.
        assert found == {(0, "a"): 2, (0, "b"): 3, (1, "a"): 3}
    assert (drawn[0] != drawn[1]).any()
