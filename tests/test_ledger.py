"""The figures of the documents are those of the ledger, and still come out."""

from pathlib import Path

import pytest

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
