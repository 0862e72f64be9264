"""Write the tables of README.md and docs/results.md from benchmarks/results.

python benchmarks/tables.py
"""

from pathlib import Path

import _pictures
from _ledger import load, table
from _results_page import OMNIGLOT, omniglot_label, page

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "results.md"
START, END = "<!-- results -->", "<!-- /results -->"


def omniglot():
    entries = {name: load(f"omniglot_{name}") for name in OMNIGLOT}
    entries = {name: entry for name, entry in entries.items() if entry}
    if not entries:
        return ""
    settings = list(next(iter(entries.values()))["results"])

    def line(label, results, cell):
        cells = (cell(results[s]) if s in results else "-" for s in settings)
        return [label, *cells]

    rows, published = [], {}
    for name, entry in entries.items():
        results = entry["results"]
        rows.append(line(omniglot_label(name, entry), results, _accuracy))
        published[OMNIGLOT[name][1]] = line(
            f"published, {OMNIGLOT[name][1]}",
            results,
            lambda c: f"{c['published']:.1f}",
        )
    pixels = line(
        "nearest class mean of raw pixels",
        next(iter(entries.values()))["results"],
        lambda c: f"{c['pixel_centroid']:.1f}",
    )
    return (
        "**Omniglot**, held-out alphabets with rotations: accuracy in %, mean and 95 % "
        "interval over episodes\n\n"
        + table(["", *settings], [*rows, pixels, *published.values()])
    )


def _accuracy(cell):
    return f"{cell['accuracy']:.1f} ± {cell['interval']:.1f}"


def sinusoid():
    entry = load("sinusoid")
    if entry is None:
        return ""
    rows = [
        [name, *(_wave_error(row[k]) for k in ("5 shots", "10 shots"))]
        for name, row in entry["results"].items()
    ]
    return (
        "**Sinusoids**, mean squared error on 1,000 new waves, two seeds; those where "
        "gradient steps diverge are counted and left out\n\n"
        + table(["", "5 shots", "10 shots"], rows)
    )


def _wave_error(cell):
    lost = f" ({cell['diverged']} diverged)" if cell["diverged"] else ""
    return f"{cell['mse']:.4f}{lost}"


TITLES = {
    "rmse": "RMSE of query rows",
    "accuracy": "accuracy of query rows",
}


def grouped():
    """One row per method, one column per data set and number of support rows.

    The ledger also has k = 0, intervals, harm rates and seconds.
    """
    entry = load("grouped_tables")
    if entry is None:
        return ""
    parts = []
    for metric, title in TITLES.items():
        rows = [r for r in entry["results"] if r["metric"] == metric and r["k"]]
        rows = [r | {"method": r["method"].split(" of ")[0]} for r in rows]
        columns = list(dict.fromkeys((r["data"], r["k"]) for r in rows))
        cells = {(r["method"], r["data"], r["k"]): f"{r['mean']:.3f}" for r in rows}
        methods = dict.fromkeys(r["method"] for r in rows)
        body = [[m, *(cells.get((m, *c), "-") for c in columns)] for m in methods]
        header = ["", *(f"{n.replace('_', ' ')}, k={k}" for n, k in columns)]
        parts.append(
            f"**New groups**, {title} after k rows of the group, mean of "
            f"{len(rows[0]['seeds'])} splits\n\n" + table(header, body)
        )
    return "\n\n".join(parts)


def fleet():
    entry = load("adapt_fleet")
    if entry is None:
        return ""
    rows = [
        [f"`{name}`", f"{row['adapt']:.2f}", f"{row['predict']:.2f}"]
        for name, row in entry["results"].items()
    ]
    return (
        "**A fleet**: seconds to adapt to 10,000 new tasks of ten rows in one call, "
        "and to predict 100,000 rows\n\n" + table(["", "adapt", "predict"], rows)
    )


def readme(text):
    """The text of README.md with the tables between its markers made anew."""
    tables = "\n\n".join(t for t in (grouped(), omniglot(), sinusoid(), fleet()) if t)
    before, rest = text.split(START)
    return f"{before}{START}\n\n{tables}\n\n{END}{rest.split(END)[1]}"


def main():
    README.write_text(readme(README.read_text()))
    PAGE.write_text(page())
    _pictures.coverage(PAGE.with_name("coverage.png"))
    print(f"wrote {README.name} and {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
