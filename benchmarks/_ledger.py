"""Where results go: one JSON file per command, with what is needed to repeat it."""

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch")


def shared_data():
    """Folder of real data sets; the command ends with a reason where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKMETA_SHARED_DATA", default))
    if not folder.is_dir():
        raise SystemExit("No real data: set SKMETA_SHARED_DATA to their folder.")
    return folder


def record(name, **entry):
    """Write ``results/<name>.json`` with versions, processor and date."""
    entry["versions"] = {package: version(package) for package in _PACKAGES}
    entry["python"] = platform.python_version()
    entry["processor"] = processor()
    entry["date"] = datetime.date.today().isoformat()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(entry, indent=1, default=_plain) + "\n")
    print(f"wrote {path.relative_to(RESULTS.parent.parent)}")


def load(name):
    """What the command wrote, or None where it has not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(header, rows):
    """Rows of text as a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def processor():
    """Model of the processor, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _plain(value):
    """Numbers of numpy as numbers, rounded to what is worth printing."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
