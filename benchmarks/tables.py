"""Write the tables of README.md from benchmarks/results.

    python benchmarks/tables.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def load(name):
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def omniglot():
    settings = ["5w1s", "5w5s", "20w1s", "20w5s"]
    rows, pixels, published = [], None, None
    for name in ("protonet", "protonet_long", "maml", "maml_first_order"):
        entry = load(f"omniglot_{name}")
        if entry is None:
            continue
        cells = [
            f"{entry['results'][s]['accuracy']:.1f} ± {entry['results'][s]['interval']:.1f}"
            for s in settings
            if s in entry["results"]
        ]
        cells += ["-"] * (len(settings) - len(cells))
        label = f"{entry['label']}, {entry['cpu_seconds'] / 60:.0f} CPU-minutes"
        rows.append([label, *cells])
        if name == "protonet":
            pixels = [f"{entry['results'][s]['pixel_centroid']:.1f}" for s in settings]
            published = [f"{entry['results'][s]['published']:.1f}" for s in settings]
    if not rows:
        return ""
    rows.append(["nearest class mean of raw pixels", *pixels])
    rows.append(["published ProtoNet (Snell et al. 2017)", *published])
    return (
        "**Omniglot**, held-out alphabets with rotations, accuracy in % over 1,000 "
        "episodes\n\n" + table(["", *settings], rows)
    )


def sinusoid():
    entry = load("sinusoid")
    if entry is None:
        return ""
    rows = [
        [name, *(f"{row[k]['mse']:.4f}" for k in ("5 shots", "10 shots"))]
        for name, row in entry["results"].items()
    ]
    return "**Sinusoids**, mean squared error on 1,000 new waves\n\n" + table(
        ["", "5 shots", "10 shots"], rows
    )


def grouped():
    entry = load("grouped_tables")
    return "" if entry is None else grouped_tables(entry)


def grouped_tables(entry):
    """One table per unit: the rows are methods, the columns data sets."""
    parts = []
    for title, problems in entry["tables"].items():
        methods = list(dict.fromkeys(m for p in problems.values() for m in p))
        rows = [
            [m, *(f"{p[m]['mean']:.3f}" if m in p else "-" for p in problems.values())]
            for m in methods
        ]
        parts.append(f"**{title}**\n\n" + table(["", *problems], rows))
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
        "**A fleet**: seconds to adapt to 10,000 new tasks of ten rows in one call, and "
        "to predict 100,000 rows\n\n" + table(["", "adapt", "predict"], rows)
    )


def main():
    text = "\n\n".join(t for t in (grouped(), omniglot(), sinusoid(), fleet()) if t)
    readme = ROOT / "README.md"
    start, end = "<!-- results -->", "<!-- /results -->"
    before, rest = readme.read_text().split(start)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    main()
