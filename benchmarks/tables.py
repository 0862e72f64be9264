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


LABELS = {
    "protonet": "`ProtoNetClassifier`, Conv4 width 32",
    "protonet_long": "`ProtoNetClassifier`, Conv4 width 64",
}


def omniglot():
    entries = {name: load(f"omniglot_{name}") for name in LABELS}
    entries = {name: entry for name, entry in entries.items() if entry}
    if not entries:
        return ""
    settings = ["5w1s", "5w5s", "20w1s", "20w5s"]
    rows = []
    for name, entry in entries.items():
        cells = [entry["results"][s] for s in settings]
        minutes = f"{entry['cpu_seconds'] / 60:.0f} CPU-minutes"
        rows.append(
            [f"{LABELS[name]}, {minutes}"]
            + [f"{c['accuracy']:.1f} ± {c['interval']:.1f}" for c in cells]
        )
    for label, key in (
        ("nearest class mean of raw pixels", "pixel_centroid"),
        ("published, ProtoNet (Snell et al. 2017)", "published"),
    ):
        rows.append([label, *(f"{c[key]:.1f}" for c in cells)])
    return (
        "**Omniglot**, held-out alphabets with rotations: accuracy in %, mean and 95 % "
        "interval over 1,000 episodes\n\n" + table(["", *settings], rows)
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


def main():
    text = "\n\n".join(t for t in (grouped(), omniglot(), sinusoid(), fleet()) if t)
    readme = ROOT / "README.md"
    start, end = "<!-- results -->", "<!-- /results -->"
    before, rest = readme.read_text().split(start)
    after = rest.split(end)[1]
    readme.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    main()
