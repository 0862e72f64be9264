"""Make benchmarks/results anew, one command after the other, then the tables.

python benchmarks/ledger.py          # minutes
python benchmarks/ledger.py --long   # hours
python benchmarks/ledger.py --list
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """A command, about how many CPU-minutes it takes and whether it reads real data."""

    arguments: str
    minutes: float
    needs_data: bool = False

    @property
    def script(self):
        return FOLDER / self.arguments.split()[0]


RUNS = (
    Run("adapt_fleet.py", 1),
    Run("serve_fleet.py", 1),
    Run("step_overhead.py", 3),
    Run("sinusoid.py", 5),
    Run("grouped_tables.py", 8, needs_data=True),
    Run("interval_coverage.py", 8, needs_data=True),
    Run("pooling_guard.py", 30, needs_data=True),
    Run("ask_rows.py", 5, needs_data=True),
    Run("labels_needed.py", 14, needs_data=True),
    Run("task_alarm.py", 8, needs_data=True),
    Run("label_noise.py", 5, needs_data=True),
    Run("personal.py", 8, needs_data=True),
    Run("leaves.py --views margin shape texture", 6, needs_data=True),
    Run("leaves.py --views images", 6, needs_data=True),
    Run("columns.py", 12, needs_data=True),
    Run("columns_numbers.py", 3, needs_data=True),
    Run("activities.py", 4, needs_data=True),
    Run("gradient_family.py", 14, needs_data=True),
    Run("banking77.py", 40, needs_data=True),
    Run("neural_process.py", 10),
    Run("bandits.py", 8),
    Run("rl.py", 6),
    Run("task_sampling.py", 5),
    Run("adapt_steps.py", 3, needs_data=True),
    Run("outer_step.py", 11),
    Run("omniglot.py --recipe protonet", 10, needs_data=True),
    Run("omniglot.py --recipe maml --minutes 12", 14, needs_data=True),
    Run("omniglot.py --recipe maml-first-order --minutes 12", 14, needs_data=True),
    Run("omniglot.py --recipe protonet-long", 60, needs_data=True),
)
# One learner a command, three minutes of training and up to two of judging.
OMNIGLOT = ("ProtoNet", "SimpleShot", "Baseline++", "MatchingNet", "RelationNet")
OMNIGLOT += ("RidgeHead", "ANIL", "MAML", "Reptile")
RUNS += tuple(
    Run(f"omniglot_learners.py --learner {name}{lake}", 5, needs_data=True)
    for lake in ("", " --lake")
    for name in OMNIGLOT
)
LONG = 9.0  # minutes


def has_data():
    default = FOLDER.parents[1] / "shared" / "data"
    return Path(os.environ.get("SKMETA_SHARED_DATA", default)).is_dir()


def reason_to_skip(run, long):
    if not run.script.exists():
        return "no such script"
    if run.minutes > LONG and not long:
        return f"takes {run.minutes:.0f} CPU-minutes; --long runs it"
    if run.needs_data and not has_data():
        return "no real data: set SKMETA_SHARED_DATA to their folder"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--list", action="store_true", help="run nothing")
    options = parser.parse_args()
    # Small networks are slower on two threads than on one.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    failed = []
    for run in RUNS:
        reason = reason_to_skip(run, options.long)
        print(f"{run.arguments}: {reason or f'{run.minutes} CPU-minutes'}", flush=True)
        if reason or options.list:
            continue
        _, *arguments = run.arguments.split()
        start = time.perf_counter()
        command = [sys.executable, str(run.script), *arguments]
        if subprocess.run(command, env={**os.environ, **threads}).returncode:
            failed.append(run.arguments)
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    if not options.list:
        subprocess.run([sys.executable, str(FOLDER / "tables.py")], check=True)
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
