"""docs/results.md: every figure of the ledger beside its baselines."""

from pathlib import Path

import numpy as np
from _ledger import RESULTS, load, table
from _results_learners import activities, columns, gradient_family, learners, leaves
from scipy.stats import t

HEAD = """# Results

Made by `python benchmarks/tables.py` from `benchmarks/results`; do not edit.
`make ledger` repeats the measurements, `make ledger LONG=1` those of hours too.

A baseline is judged on the same rows in the same run. Intervals are 95 % of the mean,
over splits for grouped tables, over episodes or waves otherwise.
"""
# Methods of grouped_tables.json whose names begin so are this library's.
OURS = ("learned prior", "learned leaves", "guarded")
# Learner and paper of the ledgers of omniglot.py.
OMNIGLOT = {
    "protonet": (
        "`ProtoNetClassifier`, Conv4 width 32",
        "ProtoNet (Snell et al. 2017)",
    ),
    "protonet_long": (
        "`ProtoNetClassifier`, Conv4 width 64",
        "ProtoNet (Snell et al. 2017)",
    ),
    "maml": ("`MAMLClassifier`, Conv4 width 32", "MAML (Finn et al. 2017)"),
    "maml_first_order": (
        "`MAMLClassifier` first order, Conv4 width 32",
        "first-order MAML (Nichol et al. 2018)",
    ),
}
# The combined learner of banking77.json, and the reference of neural_process.json.
TEXT, TRUTH = "TextCNN + TF-IDF of n-grams", "true posterior"
REFINED, UNEVEN, LATER = ", refined", ", uneven queries", ", later queries"
_NONE = {"mean": 0.0}
SINUSOID_BASELINES = (
    "Gaussian process of each wave alone",
    "mean of the training targets",
)
COLUMNS = (
    "data",
    "protocol",
    "seeds",
    "learner",
    "published",
    "ours",
    "best baseline",
    "seconds",
)


def page():
    """Text of the page."""
    parts = [HEAD, "## Accuracy at a glance", table(COLUMNS, glance())]
    for make in (
        grouped,
        text,
        densities,
        leaves,
        learners,
        columns,
        columns_numbers,
        activities,
        gradient_family,
        guard,
        intervals,
        foretold,
        alarm,
        asked,
        personal,
        wrong_labels,
        steps,
        rewards,
        speed,
        overhead,
        fleet,
        served,
        runs,
    ):
        parts += make()
    return "\n\n".join(part.strip() for part in parts) + "\n"


# ------------------------------------------------------------------- accuracy
def glance():
    return [
        *glance_grouped(),
        *glance_omniglot(),
        *glance_text(),
        *glance_sinusoid(),
        *glance_densities(),
    ]


def glance_grouped():
    rows = (load("grouped_tables") or {"results": []})["results"]
    for data, k in dict.fromkeys((r["data"], r["k"]) for r in rows if r["k"]):
        cell = [r for r in rows if (r["data"], r["k"]) == (data, k)]
        best = max if cell[0]["metric"] == "accuracy" else min
        others = [r for r in cell if not r["method"].startswith(OURS)]
        base = best(others, key=lambda r: r["mean"])
        for r in cell:
            if r["method"].startswith(OURS):
                yield [
                    f"{_words(data)}, k={k}",
                    f"{r['protocol']}, {r['metric']}",
                    f"{len(r['seeds'])}",
                    r["method"],
                    "-",
                    _with_interval(r),
                    f"{base['method']}: {_with_interval(base)}",
                    f"{r['seconds_per_seed']:.2f}",
                ]


def glance_omniglot():
    for name in OMNIGLOT:
        entry = load(f"omniglot_{name}")
        for setting, c in (entry["results"] if entry else {}).items():
            yield [
                f"Omniglot {setting}",
                f"{entry['protocol']}, accuracy in %",
                f"{len(entry['seeds'])}",
                omniglot_label(name, entry),
                f"{OMNIGLOT[name][1]}: {c['published']:.1f}",
                f"{c['accuracy']:.1f} ± {c['interval']:.1f}",
                f"nearest class mean of pixels: {c['pixel_centroid']:.1f}",
                f"{entry['cpu_seconds']:.0f}",
            ]


def glance_text():
    """The combined learner beside the best of the others."""
    entry = load("banking77")
    if entry is None:
        return
    results = entry["results"]
    both = results[TEXT]
    others = {
        name: row
        for name, row in results.items()
        if not name.startswith("TextCNN + ") and not name.endswith(REFINED)
    }
    for key in [key for key in both if key.endswith("accuracy")]:
        base = max(others, key=lambda name: others[name].get(key, _NONE)["mean"])
        yield [
            f"Banking77 {key.removesuffix(' accuracy')}",
            f"{len(entry['folds'])} {entry['protocol']}, accuracy in %",
            f"{len(entry['seeds'])}",
            f"`DualProtoNetClassifier`, {TEXT}",
            "-",
            _percent(both[key]),
            f"{base}: {_percent(others[base][key])}",
            f"{both['cpu_seconds']:.0f} a fold",
        ]


def glance_densities():
    """The best learner of each kind of function beside the truth."""
    entry = load("neural_process")
    for world, results in (entry["results"] if entry else {}).items():
        ours = {n: r for n, r in results.items() if n != TRUTH}
        for shots in _shots(results):
            best = max(ours, key=lambda name: ours[name][shots]["log_density"])
            yield [
                f"{world}, {shots}",
                entry["protocol"],
                f"{len(entry['seeds'])}",
                f"`{best}`",
                "-",
                _density(ours[best][shots]),
                f"{TRUTH}: {_density(results[TRUTH][shots])}",
                f"{ours[best]['cpu_seconds']:.0f}",
            ]


def _lost(cell):
    lost, of = cell["diverged"], cell["n_waves"]
    return f", without {lost} of {of:,} waves, which diverge" if lost else ""


def glance_sinusoid():
    entry = load("sinusoid")
    if entry is None:
        return
    results = entry["results"]
    for shots in ("5 shots", "10 shots"):
        base = min(SINUSOID_BASELINES, key=lambda name: results[name][shots]["mse"])
        for name, row in results.items():
            if name not in SINUSOID_BASELINES:
                seconds = row["cpu_seconds"]
                yield [
                    f"sinusoids, {shots}",
                    f"{entry['protocol']}, mean squared error",
                    f"{len(entry['seeds'])}",
                    name,
                    "-",
                    f"{row[shots]['mse']:.5f} ± {row[shots]['interval']:.5f}"
                    + _lost(row[shots]),
                    f"{base}: {results[base][shots]['mse']:.5f}",
                    "as above" if seconds is None else f"{seconds:.0f}",
                ]


def omniglot_label(name, entry):
    """Learner and what it was given."""
    minutes = f"{entry['cpu_seconds'] / 60:.0f} CPU-minutes"
    steps = f", {entry['n_steps']:,} steps" if "n_steps" in entry else ""
    return f"{OMNIGLOT[name][0]}, {minutes}{steps}"


def grouped():
    """All methods of each data set: mean, interval, harm and worst groups."""
    entry = load("grouped_tables")
    if entry is None:
        return
    yield (
        "## Grouped tables\n\nMean over splits after k rows of a new group. Harm is "
        "the share of groups that fare worse than with the first method of the table; "
        "worst, the figure of the tenth of groups that a method predicts worst."
    )
    rows = entry["results"]
    for data in dict.fromkeys(r["data"] for r in rows):
        part = [r for r in rows if r["data"] == data]
        shots = sorted({r["k"] for r in part})
        cells = {(r["method"], r["k"]): r for r in part}
        few = [k for k in shots if k]
        header = ["", *(f"k={k}" for k in shots), *(f"harm, k={k}" for k in few)]
        header += [f"worst, k={k}" for k in few]
        body = [
            [
                method,
                *(_with_interval(cells.get((method, k))) for k in shots),
                *(_share(cells.get((method, k))) for k in few),
                *(_worst(cells.get((method, k))) for k in few),
            ]
            for method in dict.fromkeys(r["method"] for r in part)
        ]
        yield (
            f"### {_words(data)}\n\n{part[0]['metric']}, {part[0]['protocol']}, "
            f"{len(part[0]['seeds'])} splits\n\n{table(header, body)}"
        )


def text():
    """Accuracy of every method, and what the combination of both is better by."""
    entry = load("banking77")
    if entry is None:
        return
    results = entry["results"]
    keys = [key for key in results[TEXT] if key.endswith("accuracy")]
    header = ["", *(key.removesuffix(" accuracy") for key in keys)]
    accuracies = [
        [name, *(_percent(row.get(key)) for key in keys), f"{row['cpu_seconds']:.0f}"]
        for name, row in results.items()
    ]
    yield (
        f"## Banking77\n\n{len(entry['folds'])} {entry['protocol']}; accuracy in %, "
        "mean of the folds, and CPU-seconds of training a fold. Refined methods see "
        "all queries of an episode at once, without their intents. Of uneven queries "
        "there are 0 to 10 of each intent. Later queries are asked one at a time; "
        "refined, after adapting to five others of each intent and the intents that "
        "were predicted for them.\n\n" + table([*header, "seconds"], accuracies)
    )
    alone = {
        name: row
        for name, row in results.items()
        if not name.endswith((REFINED, UNEVEN, LATER))
    }
    for what, best, rows in (
        ("gain", TEXT, alone),
        ("refined gain", f"{TEXT}{REFINED}", results),
    ):
        gains = [key.replace("accuracy", what) for key in keys]
        differences = [
            [name, *(_by_fold(row.get(key)) for key in gains)]
            for name, row in rows.items()
            if gains[0] in row
        ]
        if differences:
            told = f"Points by which {best} is better on the same episodes"
            if best != TEXT:
                told += " (than uneven and later ones: the same, refined)"
            yield (
                f"{told}: mean, and least and most of the folds.\n\n"
                + table(header, differences)
            )


def _percent(cell):
    return "-" if cell is None else f"{cell['mean']:.1f} ± {cell['interval']:.1f}"


def _by_fold(cell):
    if cell is None:
        return "-"
    low, high = min(cell["by_fold"]), max(cell["by_fold"])
    return f"{_percent(cell)} ({low:.1f} to {high:.1f})"


def densities():
    """Log-density of every learner, and how far it stays below the truth."""
    entry = load("neural_process")
    for world, results in (entry["results"] if entry else {}).items():
        shots = _shots(results)
        body = [
            [
                name,
                *(_density(row[k]) for k in shots),
                *(f"{row[k]['below_truth']:.3f}" for k in shots),
                "-" if name == TRUTH else f"{row['cpu_seconds']:.0f}",
            ]
            for name, row in results.items()
        ]
        header = ["", *shots, *(f"below truth, {k}" for k in shots), "seconds"]
        yield (
            f"## Log-density: {world}\n\n{entry['protocol']}; "
            f"{len(entry['seeds'])} seeds.\n\n" + table(header, body)
        )


def _shots(results):
    return [key for key in results[TRUTH] if key.endswith("shots")]


def _density(cell):
    return f"{cell['log_density']:.3f} ± {cell['interval']:.3f}"


def _with_interval(row):
    if row is None:
        return "-"
    half = row["interval95"]
    return f"{row['mean']:.3f}" + ("" if half is None else f" ± {half:.3f}")


def _share(row):
    return "-" if row is None else f"{100 * row['harm_rate']:.0f} %"


def _worst(row):
    return "-" if row is None else f"{row['worst_tenth']:.3f}"


def _words(name):
    return name.replace("_", " ")


def guard():
    """Excess of the guarded model over the better of pooled and local."""
    entry = load("pooling_guard")
    if entry is None:
        return
    rows = entry["results"]
    shots = sorted({r["k"] for r in rows})
    cells = {(r["data"], r["k"]): r for r in rows}
    body = [
        [
            _words(data),
            str(cells[data, shots[0]]["splits"]),
            str(cells[data, shots[0]]["test_tasks"]),
            *(_excess(cells.get((data, k))) for k in shots),
        ]
        for data in dict.fromkeys(r["data"] for r in rows)
    ]
    worse = [r for r in rows if r["excess"] > 0.01]
    clear = [r for r in worse if r["excess"] - r["excess_interval95"] > 0.01]
    mean = np.mean([r["excess"] for r in rows])
    n_data = len({r["data"] for r in rows})
    absent = "" if n_data == 14 else f" {14 - n_data} of 14 data sets are not measured."
    yield (
        "## The guard\n\nHow much worse (positive) or better (negative) the guarded "
        "model is than the better of the pooled and the local model, which is known "
        "only afterwards: share of the RMSE, or points of accuracy, with 95 % "
        f"intervals paired over test tasks. {len(worse)} of {len(rows)} cells are "
        f"worse by more than 1 %, {len(clear)} of them by more than 1 % beyond their "
        f"interval; the mean of all cells is {100 * mean:+.1f} %.{absent}\n\n"
        + table(["", "splits", "tasks", *(f"k={k}" for k in shots)], body)
    )


def _excess(row):
    if row is None:
        return "-"
    unit = " points" if row["metric"] == "accuracy" else " %"
    half = f" ± {100 * row['excess_interval95']:.1f}"
    return f"{100 * row['excess']:+.1f}{half}{unit}"


def intervals():
    """Coverage of calibrated and raw intervals."""
    entry = load("interval_coverage")
    if entry is None:
        return
    body = [
        [
            _words(r["data"]),
            r["method"],
            str(r["splits"]),
            str(r["n_groups"]),
            str(r["k"]),
            f"{100 * r['coverage']:.1f} %",
            f"{100 * r['raw_coverage']:.1f} %" if r.get("raw_coverage") else "-",
            f"{r['width']:.3g}",
            f"{r['raw_width']:.3g}" if r.get("raw_width") else "-",
            f"{100 * r['share_of_groups_below_0.8']:.0f} %",
        ]
        for r in entry["results"]
    ]
    header = ["", "method", "splits", "groups", "k"]
    header += ["coverage", "raw", "width", "raw width", "below 80 %"]
    yield (
        "## Intervals for new groups\n\nCoverage of nominal 90 % intervals and sets "
        "after k rows of a new group, all groups weighing the same; raw are the "
        "learner's own; the last column is the share of groups of which less than "
        "80 % of the rows are covered.\n\n"
        "![Share of rows covered, by data set and number of support rows](coverage.png)"
        "\n\nOf single groups intervals cover more or less than of all together "
        "(orange): the box holds half of the groups, the whiskers nine in ten.\n\n"
        + table(header, body)
    )


def foretold():
    return _plain("labels_needed", "How many labels")


def alarm():
    return _plain("task_alarm", "The alarm")


def asked():
    return _plain("ask_rows", "Asking for rows")


def columns_numbers():
    return _plain("columns_numbers", "Half of the columns, numbers")


def personal():
    return _plain("personal", "Personal options")


def wrong_labels():
    return _plain("label_noise", "Wrong labels")


def steps():
    return _plain("adapt_steps", "Number of steps in adapt")


def _plain(name, title):
    """A ledger of flat records as it is."""
    entry = load(name)
    rows = entry["results"] if entry else None
    if not isinstance(rows, list) or not rows:
        return
    columns = [
        key for key, value in rows[0].items() if not isinstance(value, list | dict)
    ]
    body = [[_words(str(row.get(key, "-"))) for key in columns] for row in rows]
    protocol = entry.get("protocol", "")
    header = [_words(key) for key in columns]
    yield f"## {title}\n\n{protocol}\n\n" + table(header, body)


# -------------------------------------------------------------------- rewards
def rewards():
    """Regret of bandits, coverage of off-policy intervals, return of policies."""
    entry = load("bandits")
    if entry:
        names = [
            k for k in entry["regret"][0] if k.startswith(("true", "flat", "learned"))
        ]
        body = [
            [f"arms move {_ARMS[row['covariance']]}", f"{row['noise']:g}"]
            + [f"{row[name]['mean']:.2f}" for name in names]
            for row in entry["regret"]
        ]
        cover = entry["interval_coverage"]
        share = ", ".join(f"{m} {cover[m]:.3f}" for m in ("ips", "snips", "dr"))
        yield (
            f"## Bandits\n\n{entry['protocol']}; Thompson sampling with the true "
            "prior, a flat one, and those learned from logs of so many tasks; "
            f"mean of {len(entry['seeds'])} seeds of {entry['n_tasks']} tasks.\n\n"
            + table(["", "noise", *names], body)
            + f"\n\nOff-policy intervals of {cover['level']:.0%} cover the true value "
            f"in {cover['runs']} simulated logs: {share}."
        )
    yield from policies()
    yield from chosen_tasks()


def chosen_tasks():
    """Errors of ways to choose training tasks, beside validation tasks alone."""
    entry = load("task_sampling")
    if entry is None:
        return
    bases = "uniform", "validation tasks alone"
    errors = {name: np.array(row["mse"]) for name, row in entry["results"].items()}

    def above(name, base):
        return "" if name == base else _over_seeds(errors[name] - errors[base])

    body = [
        [
            name,
            _over_seeds(errors[name]),
            *(above(name, base) for base in bases),
            f"{np.mean(row['relevant']):.2f}" if "relevant" in row else "",
            f"{np.mean(row['seconds']):.0f}",
        ]
        for name, row in entry["results"].items()
    ]
    header = ["training tasks", "error", *(f"minus that of {base}" for base in bases)]
    yield (
        f"## Training tasks chosen by reward\n\n{entry['protocol']}; mean of "
        f"{len(entry['seeds'])} seeds.\n\n"
        + table([*header, "relevant share of the last draws", "CPU s"], body)
    )


def _over_seeds(values):
    """Mean and interval by Student's t."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.2f} ± {half:.2f}"


def policies():
    """Returns of policies in new tasks, and how fast environments step."""
    entry = load("rl")
    if entry is None:
        return
    results = entry["results"]
    for part, title, told in _POLICIES:
        if not results.get(part):
            continue
        stages = [k for k, v in results[part][0].items() if isinstance(v, dict)]
        body = [
            [
                str(seed),
                *(_interval(run[stage]) for stage in stages),
                f"{run['cpu_seconds']:.0f}",
                f"{run['training_steps'] / 1e6:.1f} million",
            ]
            for seed, run in enumerate(results[part])
        ]
        header = ["seed", *stages, "seconds of training", "steps of training"]
        yield f"## {title}\n\n{told}\n\n" + table(header, body)
    for row in results.get("strategies", [])[:1]:
        earned = ", ".join(f"{name} {value:.2f}" for name, value in row.items())
        yield f"## Navigation without learning\n\nMean return: {earned}."
    for row in results.get("speed", [])[:1]:
        yield (
            "## Steps of navigation in a second\n\n"
            f"{row['tensors']:,} as tensors (4,096 tasks at once), "
            f"{row['SyncVectorEnv']:,} in gymnasium's `SyncVectorEnv` (64 tasks, the "
            f"same tensors row by row): {row['ratio']:,.0f} times as many."
        )


def _interval(run):
    return f"{run['return']:.2f} ± {1.96 * run['standard_error']:.2f}"


_POLICIES = [
    (
        "bandits",
        "Bernoulli bandits",
        "Mean return of `RL2Policy` in new tasks, 5 arms and 10 pulls. The exact "
        "optimum of Bayes is 6.66.",
    ),
    (
        "maml",
        "Navigation by gradient steps",
        "Mean return of `MAMLPolicy`, trained for one step, at new goals after steps "
        "on 20 episodes each.",
    ),
    (
        "rl2",
        "Navigation by memory",
        "Mean return of `RL2Policy`, trained on two episodes, at new goals in these "
        "and in a third.",
    ),
]
_ARMS = {"own": "each by itself", "shared": "together"}


# ---------------------------------------------------------------------- speed
def speed():
    entry = load("outer_step")
    if entry is None:
        return
    settings = entry["settings"]
    names = dict.fromkeys(n for row in settings.values() for n in row["milliseconds"])
    body = [
        [
            _words(setting),
            *(_milliseconds(row["milliseconds"].get(name)) for name in names),
            f"{row['speed-up']:.1f}",
            f"{row['speed-up compiled']:.1f}" if "speed-up compiled" in row else "-",
        ]
        for setting, row in settings.items()
    ]
    header = ["", *names, "speed-up", "speed-up compiled"]
    yield (
        "## An outer step of MAML\n\nMilliseconds of CPU on one thread, medians; all "
        "compute the same meta-gradient. Speed-up is over the best of the others.\n\n"
        + table(header, body)
    )


def overhead():
    entry = load("step_overhead")
    if entry is None:
        return
    body = [
        [
            name,
            *(_milliseconds(row[key]) for key in ("whole", "bare", "sampling")),
            f"{100 * row['share']:.1f} %",
            f"{100 * row['share of sampling']:.1f} %",
        ]
        for name, row in entry["results"].items()
    ]
    header = ["", "whole step", "bare step", "sampling", "share lost", "by sampling"]
    yield (
        "## What sampling and skorch add\n\nMilliseconds of CPU on one thread: a step "
        "of `fit`, the learner's own part of it, and drawing the episodes.\n\n"
        + table(header, body)
    )


def _milliseconds(value):
    return "-" if value is None else f"{value:.2f}"


def fleet():
    entry = load("adapt_fleet")
    if entry is None:
        return
    body = [
        [
            f"`{name}`",
            *(f"{row[key]:.2f}" for key in ("adapt", "predict")),
            quality(row),
        ]
        for name, row in entry["results"].items()
    ]
    yield (
        f"## A fleet\n\n{entry['protocol']}.\n\n"
        + table(["", "adapt", "predict", "quality"], body)
    )


def served():
    """A million rows by id, events one by one, one file."""
    entry = load("serve_fleet")
    if entry is None:
        return
    names = list(entry["results"])
    steps = list(entry["results"][names[0]]["seconds"])
    body = [
        [
            step,
            *(f"{entry['results'][n]['seconds'][step]['cpu']:.2f} s" for n in names),
        ]
        for step in steps
    ]
    for key, label, form in (
        ("file_bytes_per_task", "bytes of the file per task", "{:,}"),
        ("streamed_minus_batch", "streamed minus batch, at the most", "{:.0e}"),
    ):
        body.append([label, *(form.format(entry["results"][n][key]) for n in names)])
    yield (
        f"## A fleet at work\n\n{entry['protocol']}. Seconds are of the processor.\n\n"
        + table(["", *(f"`{name}`" for name in names)], body)
    )


def quality(row):
    key = "accuracy" if "accuracy" in row else "r2"
    return f"{key} {row[key]:.3f}"


# ----------------------------------------------------------------------- runs
def runs():
    """When and with what each file was made."""
    body = []
    for path in sorted(Path(RESULTS).glob("*.json")):
        entry = load(path.stem)
        versions = entry["versions"] | entry.get("other_versions", {})
        body.append(
            [
                f"`{path.name}`",
                entry.get("protocol", "-"),
                ", ".join(f"{name} {number}" for name, number in versions.items()),
                f"Python {entry['python']}",
                entry.get("processor") or entry.get("cpu") or "-",
                entry.get("date", "-"),
            ]
        )
    header = ["file", "protocol", "versions", "", "processor", "date"]
    yield "## Runs\n\n" + table(header, body)
