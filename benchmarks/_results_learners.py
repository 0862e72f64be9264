"""Sections of docs/results.md that set one learner beside another."""

from pathlib import Path

from _ledger import RESULTS, load, table

#: Accuracies of Omniglot as published, by kind of ledger.
PUBLISHED = {
    "short": {
        "published: ProtoNet (Snell et al. 2017)": {
            "5w1s": 98.8, "5w5s": 99.7, "20w1s": 96.0, "20w5s": 98.9,
        },
        "published: MAML (Finn et al. 2017)": {
            "5w1s": 98.7, "5w5s": 99.9, "20w1s": 95.8, "20w5s": 98.9,
        },
        "published: Reptile (Nichol et al. 2018)": {
            "5w1s": 95.4, "5w5s": 98.9, "20w1s": 88.1, "20w5s": 96.7,
        },
    },
    "lake": {},
}  # fmt: skip
#: What is said of both kinds.
TOLD = {
    "short": "Every learner had three minutes of one processor, those that are "
    "published tens of thousands of steps.",
    "lake": "Three minutes of one processor for each; MAML, ANIL and Reptile train on "
    "20-way episodes.",
}


def leaves():
    """Every view of the leaves: accuracy of all methods on the same episodes."""
    for view in ("margin", "shape", "texture", "images"):
        entry = load(f"leaves_{view}")
        if entry is None:
            continue
        settings = [k for k in next(iter(entry["results"].values())) if "w" in k]
        body = [
            [
                name,
                *(_cell(row[s]) for s in settings),
                f"{row['cpu_seconds']:.0f}",
            ]
            for name, row in entry["results"].items()
        ]
        yield (
            f"## Leaves by {view}\n\n{entry['protocol']}; {len(entry['seeds'])} "
            "seeds. Accuracy in %, and seconds of training.\n\n"
            + table(["", *settings, "CPU s"], body)
        )


def learners():
    """Omniglot under one budget, a file for each learner."""
    for kind, title in (
        ("short", "Omniglot, the same time for every learner"),
        ("lake", "Omniglot within alphabets"),
    ):
        paths = sorted(Path(RESULTS).glob(f"omniglot_{kind}_*.json"))
        entries = [load(path.stem) for path in paths]
        if not entries:
            continue
        settings = list(dict.fromkeys(s for e in entries for s in e["results"]))
        body = [
            [
                f"{entry['learner']}, {entry['n_steps']:,} steps",
                *(_cell(entry["results"].get(s)) for s in settings),
            ]
            for entry in entries
        ]
        pixels = [
            next(e["results"][s] for e in entries if s in e["results"])
            for s in settings
        ]
        cells = [f"{cell['pixel_centroid']:.1f}" for cell in pixels]
        body.append(["nearest class mean of pixels", *cells])
        body += [
            [name, *(f"{row[s]:.1f}" if s in row else "-" for s in settings)]
            for name, row in PUBLISHED[kind].items()
        ]
        yield (
            f"## {title}\n\n{entries[0]['protocol']}; seed {entries[0]['seeds'][0]}. "
            f"Accuracy in %. {TOLD[kind]}\n\n" + table(["", *settings], body)
        )


def _cell(cell):
    if cell is None:
        return "-"
    return f"{cell['accuracy']:.1f} ± {cell['interval']:.1f}"


def columns():
    """Tables with other columns, paired with logistic regression."""
    entry = load("columns")
    if entry is None:
        return
    rows = entry["results"]
    cells = {(r["data"], r["labels"], r["model"]): r for r in rows}
    labels = list(dict.fromkeys(r["labels"] for r in rows))
    yield (
        f"## Tables with different columns\n\n{entry['protocol']}; "
        f"{len(entry['seeds'])} seeds. Accuracy in %, and points above logistic "
        "regression on the support rows alone, on the same episodes."
    )
    new = [d for d in dict.fromkeys(r["data"] for r in rows) if "new column" in d]
    whole = [d for d in dict.fromkeys(r["data"] for r in rows) if d not in new]
    if whole:
        yield _mean_of_tables(whole, labels, cells)
        yield _gain_by_table(whole, labels, cells)
    for data in whole + new:
        models = dict.fromkeys(r["model"] for r in rows if r["data"] == data)
        header = ["", *(f"{n} labels" for n in labels), *(f"gain, {n}" for n in labels)]
        body = [
            [
                model,
                *(_cell(cells[data, n, model]) for n in labels),
                *(_gain(cells[data, n, model]) for n in labels),
            ]
            for model in models
        ]
        yield f"### {data.capitalize()}\n\n" + table(header, body)


def _gain_by_table(names, labels, cells):
    """What each learner gains on each table, where the mean hides a loss."""
    learners = ("HeterogeneousClassifier", "InContextClassifier")
    header = ["", *(f"{model}, {n}" for model in learners for n in labels)]
    body = [
        [name, *(_gain(cells[name, n, model]) for model in learners for n in labels)]
        for name in names
    ]
    return "### Gain by table\n\n" + table(header, body)


def _mean_of_tables(names, labels, cells):
    """The same over all tables that were not trained on."""
    columns = (
        ("accuracy", "interval", ".1f"),
        ("over logistic regression", "interval of that", "+.1f"),
    )
    body = []
    for model in dict.fromkeys(model for data, _, model in cells if data in names):
        row = [model]
        for key, interval, form in columns:
            for n in labels:
                parts = [cells[data, n, model] for data in names]
                mean = sum(part[key] for part in parts) / len(parts)
                half = sum(part[interval] ** 2 for part in parts) ** 0.5
                half /= len(parts)
                row.append(f"{mean:{form}} ± {half:.1f}")
        body.append(row)
    header = ["", *(f"{n} labels" for n in labels), *(f"gain, {n}" for n in labels)]
    return f"### Mean of {len(names)} tables\n\n" + table(header, body)


def _gain(row):
    return f"{row['over logistic regression']:+.1f} ± {row['interval of that']:.1f}"


def activities():
    """Activities of new users, paired with a forest that is refitted."""
    entry = load("activities")
    if entry is None:
        return
    shots = [key for key in next(iter(entry["results"].values())) if "class" in key]
    body = [
        [
            name,
            *(_cell(row[k]) for k in shots),
            *(
                f"{row[k]['over forest refitted']:+.1f} ± "
                f"{row[k]['interval of that']:.1f}"
                for k in shots
            ),
            f"{row['cpu_seconds']:.0f}",
        ]
        for name, row in entry["results"].items()
    ]
    header = ["", *shots, *(f"over forest refitted, {k}" for k in shots), "CPU s"]
    yield (
        f"## Activities of new users\n\n{entry['protocol']}; "
        f"{len(entry['seeds'])} seeds. Accuracy in %.\n\n" + table(header, body)
    )


def gradient_family():
    """Cost of an outer step, and what is reached in as many steps or seconds."""
    entry = load("gradient_family")
    if entry is None:
        return
    yield (
        "## The gradient family\n\n"
        f"{entry['protocol']}; {len(entry['seeds'])} seeds. Milliseconds of CPU on one "
        "thread and megabytes of tensors of an outer step."
    )
    for title, part in entry["results"].items():
        digits = 3 if part["figure"] == "mse" else 1
        body = [
            [
                name,
                f"{row['milliseconds']:.1f}",
                f"{row['megabytes']:.1f}",
                _spread(row["at steps"], digits),
                _spread(row["at seconds"], digits),
                f"{row['steps_in_time']:,.0f}",
            ]
            for name, row in part["learners"].items()
        ]
        base = part["baseline"]
        body.append([base["name"], "-", "-", *[_spread(base, digits)] * 2, "-"])
        unit = "mean squared error" if part["figure"] == "mse" else "accuracy in %"
        header = ["", "ms", "MB", f"{unit}, same steps", "same time", "steps in it"]
        yield f"### {title[0].upper() + title[1:]}\n\n" + table(header, body)


def _spread(cell, digits):
    lost = cell.get("n_diverged")
    return f"{cell['mean']:.{digits}f} ± {cell['interval']:.{digits}f}" + (
        f", {lost} diverged" if lost else ""
    )
