"""A minute's worth of the ledger: does any figure leave its interval?

    python benchmarks/check.py              # exits with 1 if one does
    python benchmarks/check.py --update     # store what is found now

Expectations are in expected.json. Figures that read real data are left out, and said
to be, where there are none.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

EXPECTED = Path(__file__).parent / "expected.json"


@dataclass(frozen=True)
class Check:
    """Figures by name, and how far they may be from what is stored."""

    figures: Callable[[], dict]
    relative: tuple = (0.01, 0.01)  # below and above, None for any
    needs_data: bool = False
    is_cheap: bool = False

    def interval(self, value):
        below, above = self.relative
        return [
            None if below is None else value - below * abs(value),
            None if above is None else value + above * abs(value),
        ]


def grouped_tables():
    """RMSE of the first split of two data sets, with that of a baseline."""
    from grouped_tables import (
        MAKERS,
        adapted,
        held_out,
        hierarchical,
        load,
        losses,
        pooled,
        ridge,
        support_mask,
    )

    found = {}
    for name, n_shots in (("hsb82", 5), ("radon", 3)):
        train, test = held_out(load(name)[0], 0)
        rng = np.random.default_rng(0)
        is_support = support_mask(test.groups, n_shots, "random", rng)
        parts = train, test[is_support], test[~is_support]
        for method, output in (
            ("learned prior", adapted(*parts, make=MAKERS[hierarchical, "random"])),
            ("pooled ridge", pooled(*parts, make=ridge)),
        ):
            loss, figure = losses(name, parts[2], output, train.y.std())
            found[f"{name}, {method}, rmse"] = figure(loss)
    return found


def fertility():
    """RMSE in births per woman after five years of a new country."""
    from skmeta import HierarchicalRegressor
    from skmeta.datasets import load_fertility_tasks

    X, y, country = load_fertility_tasks(return_X_y_groups=True)
    names = np.random.default_rng(0).permutation(np.unique(country))
    is_new = np.isin(country, names[: len(names) // 3])
    is_support = is_new & (X[:, 0] < X.min() + 5)
    is_query = is_new & ~is_support
    meta = HierarchicalRegressor().fit(X[~is_new], y[~is_new], groups=country[~is_new])
    meta.adapt(X[is_support], y[is_support], groups=country[is_support])
    found = meta.predict(X[is_query], groups=country[is_query])
    return {
        "fertility, learned prior, rmse": np.mean((found - y[is_query]) ** 2) ** 0.5
    }


def fleet():
    from adapt_fleet import measure

    from skmeta import HierarchicalRegressor

    return {"fleet, learned prior, r2": measure(HierarchicalRegressor(), False)["r2"]}


def neural_fleet():
    from adapt_fleet import measure

    from skmeta import ProtoNetClassifier

    quality = measure(ProtoNetClassifier(random_state=0), True)
    return {"fleet, ProtoNetClassifier, accuracy": quality["accuracy"]}


def sinusoid(name, n_steps):
    """Mean squared error after a tenth of the steps of the ledger."""
    import sinusoid as waves

    from skmeta.datasets import make_sinusoid_tasks

    build = {"RidgeHeadRegressor": waves.ridge, "MAMLRegressor": waves.maml}[name]
    meta = build(0, n_steps).fit(make_sinusoid_tasks(5000, 20, random_state=0))
    error = np.mean(waves.errors(meta, waves.test_waves(10)))
    return {f"sinusoids, {name}, {n_steps} steps, mse": error}


def outer_gradient():
    """Relative difference of the meta-gradient from that of a plain loop."""
    import outer_step as step

    found = {}
    for name in ("sinusoid_25_5", "table_first"):
        setting = step.SETTINGS[name]
        problem = step.in_double(step.make_problem, setting)
        ours = step.in_double(step.ours, setting, *problem)
        plain = step.in_double(step.plain_loop, setting, *problem)
        difference = step.distance(step.gradient_of(*ours), step.gradient_of(*plain))
        found[f"{name}, meta-gradient is that of a loop"] = float(difference < 1e-9)
    return found


def outer_speed():
    """CPU time of a plain loop over ours, in turns."""
    import outer_step as step

    setting = step.SETTINGS["sinusoid_25_5"]
    problem = setting, *step.make_problem(setting)
    steps = [step.make_step(*make(*problem)) for make in (step.ours, step.plain_loop)]
    seconds = [[], []]
    for turn in range(21):
        for i, take in enumerate(steps):
            start = time.process_time()
            take()
            if turn:
                seconds[i].append(time.process_time() - start)
    ours, plain = map(statistics.median, seconds)
    return {"sinusoid_25_5, speed-up over a loop": plain / ours}


def omniglot():
    """Accuracy of raw pixels, and of a network after a fiftieth of its training."""
    import omniglot as images

    images.N_EPISODES = 200
    X, y = images.load([2])
    meta = images.protonet(32, 30, 2, 2e-3, [], 0).set_params(estimator__verbose=0)
    meta.fit(*images.load([0]))
    ours = images.centroid_accuracy(images.embed(meta, X), y, 5, 1)
    return {
        "Omniglot 5w1s, pixels, accuracy": images.pixel_accuracy(X, y, 5, 1).mean(),
        "Omniglot 5w1s, ProtoNetClassifier, 200 steps, accuracy": ours.mean(),
    }


CHECKS = {
    "grouped_tables": Check(grouped_tables, needs_data=True, is_cheap=True),
    "fertility": Check(fertility, is_cheap=True),
    "fleet": Check(fleet, is_cheap=True),
    "outer_gradient": Check(outer_gradient, (0, 0), is_cheap=True),
    "neural_fleet": Check(neural_fleet, (0.05, 0.05)),
    "ridge_head": Check(partial(sinusoid, "RidgeHeadRegressor", 500), (None, 1.0)),
    "maml": Check(partial(sinusoid, "MAMLRegressor", 600), (0.3, 0.3)),
    "outer_speed": Check(outer_speed, (0.5, None)),
    "omniglot": Check(omniglot, (0.05, 0.05), needs_data=True),
}


def load_expected():
    return json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}


def outside(found, expected):
    """What is wrong with each figure that is not in its interval."""
    for name, value in found.items():
        if name not in expected:
            yield f"{name}: {value:.5g} is not in {EXPECTED.name}; --update stores it"
            continue
        low, high = expected[name]["interval"]
        below = low is not None and value < low
        above = high is not None and value > high
        if below or above or not np.isfinite(value):
            stored = expected[name]["value"]
            yield f"{name}: {value:.5g}, stored {stored:.5g}, interval [{low}, {high}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=[*CHECKS])
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    from ledger import has_data

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    expected, wrong = load_expected(), []
    for name in options.only:
        check = CHECKS[name]
        if check.needs_data and not has_data():
            print(f"{name}: left out, no real data (set SKMETA_SHARED_DATA)")
            continue
        start = time.process_time()
        found = {key: float(value) for key, value in check.figures().items()}
        print(f"{name} ({time.process_time() - start:.1f} s)")
        for key, value in found.items():
            print(f"  {key}: {value:.5g}")
            if options.update:
                expected[key] = {"value": value, "interval": check.interval(value)}
        wrong += outside(found, expected)
    if options.update:
        EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")
    if wrong:
        raise SystemExit("\n".join(["outside of their intervals:", *wrong]))


if __name__ == "__main__":
    main()
