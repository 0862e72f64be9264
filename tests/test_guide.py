"""The code on the pages of the user guide runs and gives what it says."""

import doctest
import re
from pathlib import Path

import pytest

PAGES = sorted(Path(__file__).parents[1].joinpath("docs", "guide").glob("*.md"))
BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if BLOCK.search(page.read_text())],
    ids=lambda p: p.stem,
)
def test_page(page):
    text = page.read_text(encoding="utf-8")
    # Prose becomes empty lines, so that a failure names the line of the page.
    code, end = "", 0
    for block in BLOCK.finditer(text):
        code += "\n" * text.count("\n", end, block.start(1)) + block[1]
        end = block.end(1)
    test = doctest.DocTestParser().get_doctest(code, {}, page.stem, str(page), 0)
    report = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
        test, out=report.append
    )
    assert result.failed == 0, "".join(report)
