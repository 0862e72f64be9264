"""Seconds of one outer step of MAML, beside a plain loop, higher and torchopt.

All contenders start from the same weights, compute the same meta-gradient (checked)
and take the same Adam step. They run in turns of a few steps, on one thread, in one
process, so that a busy machine slows all of them, and each step but the first finds
the caches as training does. What is reported are medians of CPU time.

    python benchmarks/outer_step.py --settings sinusoid_25_5 table_second
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from skmeta.gradient import MAML
from skmeta.outer_loop import Episode
from skmeta.outer_loop._episode import as_inputs
from skmeta.tasks import TaskBatch

RESULTS = Path(__file__).parent / "results" / "outer_step.json"


@dataclass(frozen=True)
class Setting:
    """One line of the table; `target` is what "ours" has to reach."""

    kind: str
    n_tasks: int
    n_support: int
    n_query: int
    n_steps: int = 5
    first_order: bool = False
    repeats: int = 12
    block: int = 5
    target: float | None = None
    target_compiled: float | None = None


SETTINGS = {
    "sinusoid_25_1": Setting("sinusoid", 25, 10, 10, n_steps=1),
    "sinusoid_25_5": Setting("sinusoid", 25, 10, 10, target=10, target_compiled=20),
    "sinusoid_100_5": Setting("sinusoid", 100, 10, 10, repeats=6),
    "table_second": Setting("table", 32, 25, 25, repeats=8, target=5),
    "table_first": Setting("table", 32, 25, 25, first_order=True, repeats=8, target=5),
    "table_75_second": Setting("table", 32, 25, 75, repeats=8),
    "conv4": Setting("conv4", 4, 5, 75, repeats=7, block=1, target=0.95),
}


def make_problem(setting: Setting):
    """Backbone, head, rows, criterion and inner rate."""
    torch.manual_seed(0)
    shape = setting.n_tasks, setting.n_support, setting.n_query
    if setting.kind == "sinusoid":
        body = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU())
        return body, nn.Linear(40, 1), sinusoids(*shape), nn.MSELoss(), 0.01
    if setting.kind == "table":
        body = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        rows = classes(*shape, (20,))
        return body, nn.Linear(64, 5), rows, nn.CrossEntropyLoss(), 0.1
    blocks = [block for i in range(4) for block in conv_block(1 if i == 0 else 64)]
    rows = classes(*shape, (1, 28, 28))
    body = nn.Sequential(*blocks, nn.Flatten())
    return body, nn.Linear(64, 5), rows, nn.CrossEntropyLoss(), 0.1


def conv_block(n_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_channels, 64, 3, padding=1),
        nn.BatchNorm2d(64, track_running_stats=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def sinusoids(n_tasks: int, *counts: int):
    amplitude, phase = torch.rand(2, n_tasks, 1)
    batches = []
    for n in counts:
        X = 10 * torch.rand(n_tasks, n, 1) - 5
        y = (0.1 + 4.9 * amplitude) * torch.sin(X.squeeze(2) + 3.1 * phase)
        batches.append(TaskBatch(X, y))
    return tuple(batches)


def classes(n_tasks: int, n_support: int, n_query: int, shape):
    return tuple(
        TaskBatch(
            torch.rand(n_tasks, n, *shape),
            torch.arange(n).expand(n_tasks, n) % 5,
            None,
            5,
        )
        for n in (n_support, n_query)
    )


# ------------------------------------------------------------------------ contenders
def ours(setting, body, head, batches, criterion, rate, compiled=False):
    regression = setting.kind == "sinusoid"
    learner = MAML(
        copy.deepcopy(body),
        head.in_features,
        n_classes=None if regression else 5,
        task="regression" if regression else "classification",
        inner_lr=rate,
        inner_steps=setting.n_steps,
        first_order=setting.first_order,
        transductive=True,  # as the others are
    )
    learner.head.load_state_dict(head.state_dict())
    episode = Episode(learner)
    module = torch.compile(episode) if compiled else episode
    support, query = (as_inputs(batch) for batch in batches)
    target = batches[1].y.flatten()

    def meta_gradient():
        criterion(module(support=support, query=query), target).backward()

    return episode, meta_gradient


def plain_loop(setting, body, head, batches, criterion, rate):
    model = nn.Sequential(*copy.deepcopy(body), copy.deepcopy(head))
    names = [name for name, _ in model.named_parameters()]
    support, query = batches

    def output(fast, X):
        return functional_call(model, fast, (X,))

    def meta_gradient():
        total = 0
        for t in range(setting.n_tasks):
            fast = dict(model.named_parameters())
            for _ in range(setting.n_steps):
                loss = task_loss(criterion, output(fast, support.X[t]), support.y[t])
                found = torch.autograd.grad(
                    loss, [*fast.values()], create_graph=not setting.first_order
                )
                pairs = zip(names, found, strict=True)
                fast = {name: fast[name] - rate * g for name, g in pairs}
            total = total + task_loss(criterion, output(fast, query.X[t]), query.y[t])
        (total / setting.n_tasks).backward()

    return model, meta_gradient


def with_higher(setting, body, head, batches, criterion, rate):
    import higher

    model = nn.Sequential(*copy.deepcopy(body), copy.deepcopy(head))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    support, query = batches

    def meta_gradient():
        for t in range(setting.n_tasks):
            with higher.innerloop_ctx(
                model,
                optimizer,
                copy_initial_weights=setting.first_order,
                track_higher_grads=not setting.first_order,
            ) as (fast, inner):
                for _ in range(setting.n_steps):
                    inner.step(task_loss(criterion, fast(support.X[t]), support.y[t]))
                loss = task_loss(criterion, fast(query.X[t]), query.y[t])
                loss = loss / setting.n_tasks
                if setting.first_order:
                    found = torch.autograd.grad(loss, [*fast.parameters()])
                    add_gradients(model, found)
                else:
                    loss.backward()

    return model, meta_gradient


def with_torchopt(setting, body, head, batches, criterion, rate):
    if setting.first_order:
        return None  # has no first order
    import torchopt

    model = nn.Sequential(*copy.deepcopy(body), copy.deepcopy(head))
    inner = torchopt.MetaSGD(model, lr=rate)
    support, query = batches
    leaves = dict(model.named_parameters())

    def meta_gradient():
        start = torchopt.extract_state_dict(model, by="reference")
        inner_start = torchopt.extract_state_dict(inner, by="reference")
        for t in range(setting.n_tasks):
            for _ in range(setting.n_steps):
                inner.step(task_loss(criterion, model(support.X[t]), support.y[t]))
            loss = task_loss(criterion, model(query.X[t]), query.y[t])
            (loss / setting.n_tasks).backward()
            torchopt.recover_state_dict(model, start)
            torchopt.recover_state_dict(inner, inner_start)

    assert all(p.is_leaf for p in leaves.values())
    return model, meta_gradient


def task_loss(criterion, output, y):
    return criterion(output.squeeze(1) if output.shape[1] == 1 else output, y)


def add_gradients(model, gradients):
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad += gradient


# ----------------------------------------------------------------------- measurement
def make_contenders(setting, compiled):
    problem = setting, *make_problem(setting)
    built = {
        "ours": ours(*problem),
        "plain loop": plain_loop(*problem),
        "higher": with_higher(*problem),
        "torchopt": with_torchopt(*problem),
    }
    if compiled:
        built["ours compiled"] = ours(*problem, compiled=True)
    return {name: pair for name, pair in built.items() if pair is not None}


def make_step(module, meta_gradient):
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        meta_gradient()
        optimizer.step()

    return step


def in_double(make, *args, **params):
    """What `make` builds, in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        return make(*args, **params)
    finally:
        torch.set_default_dtype(torch.float32)


def check_same_gradient(setting):
    """In double precision, since many steps through kinks amplify rounding."""
    contenders = in_double(make_contenders, setting, compiled=False)
    expected = gradient_of(*contenders["plain loop"])
    for name, pair in contenders.items():
        difference = distance(gradient_of(*pair), expected)
        assert difference < 1e-9, f"{name} is off by {difference:.1e}"


def gradient_of(module, meta_gradient):
    module.zero_grad()
    meta_gradient()
    return [parameter.grad for parameter in module.parameters()]


def distance(gradients, expected):
    """Relative to the largest one, since some vanish (biases before batch norm)."""
    largest = max(g.abs().max() for g in expected)
    pairs = zip(gradients, expected, strict=True)
    return max(float((one - other).abs().max() / largest) for one, other in pairs)


def compile_seconds(contenders):
    start = time.perf_counter()
    compiled = gradient_of(*contenders["ours compiled"])
    seconds = time.perf_counter() - start
    assert distance(compiled, gradient_of(*contenders["ours"])) < 1e-3
    return seconds


def measure(setting, compiled):
    check_same_gradient(setting)
    torch._dynamo.reset()
    contenders = make_contenders(setting, compiled)
    seconds_to_compile = compile_seconds(contenders) if compiled else 0.0
    steps = {name: make_step(*pair) for name, pair in contenders.items()}
    seconds = {name: [] for name in steps}
    for turn in range(setting.repeats + 1):
        for name, step in steps.items():
            for _ in range(setting.block):
                start = time.process_time()
                step()
                if turn:
                    seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    others = {k: v for k, v in medians.items() if not k.startswith("ours")}
    best = min(others, key=others.get)
    row = {
        "milliseconds": {k: round(1e3 * v, 4) for k, v in medians.items()},
        "best of the others": best,
        "speed-up": round(others[best] / medians["ours"], 2),
        "target": setting.target,
    }
    if compiled:
        row["speed-up compiled"] = round(others[best] / medians["ours compiled"], 2)
        row["target compiled"] = setting.target_compiled
        row["seconds to compile"] = round(seconds_to_compile, 1)
    return row


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            x.split(":")[1].strip() for x in lines if x.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--repeats", type=int, help="turns, instead of each setting's")
    parser.add_argument("--dry-run", action="store_true", help="write no results")
    options = parser.parse_args()
    # Compile times are those of a first run.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch._logging.set_logs(dynamo=40)
    started = time.perf_counter()
    rows = {}
    for name in options.settings:
        setting = SETTINGS[name]
        if options.repeats:
            setting = Setting(**{**vars(setting), "repeats": options.repeats})
        compiled = not options.no_compile and setting.kind != "conv4"
        rows[name] = measure(setting, compiled)
        print(name, json.dumps(rows[name]), flush=True)
    packages = ("torch", "higher", "torchopt", "numpy")
    report = {
        "what": "median CPU time of one outer step, one thread, in turns",
        "cpu": cpu_model(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "seconds": round(time.perf_counter() - started, 1),
        "settings": rows,
    }
    if not options.dry_run:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
