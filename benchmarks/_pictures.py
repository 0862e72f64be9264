"""Pictures of the ledger for docs/results.md."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from _ledger import load

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by everyone (Okabe and Ito)
#: Groups below and above these shares are outside the whiskers.
_BOX = {"whislo": "0.05", "q1": "0.25", "med": "0.5", "q3": "0.75", "whishi": "0.95"}


def coverage(path):
    """How much of single groups intervals cover, for every data set and shots.

    Parameters
    ----------
    path : path-like
        Where to write the PNG.
    """
    rows = load("interval_coverage")["results"]
    rows = [r for r in rows if "leave_one_out" in r["method"] and r["k"]]
    names = list(dict.fromkeys(r["data"] for r in rows))
    shots = sorted({r["k"] for r in rows})
    figure, axes = plt.subplots(
        1, len(shots), figsize=(9, 0.34 * len(names) + 1.1), sharey=True, sharex=True
    )
    for ax, k in zip(axes, shots, strict=True):
        part = {r["data"]: r for r in rows if r["k"] == k}
        part = [part[name] for name in names]
        boxes = [
            {key: 100 * r["group_quantiles"][q] for key, q in _BOX.items()}
            for r in part
        ]
        ax.bxp(
            boxes,
            orientation="horizontal",
            positions=range(len(names)),
            showfliers=False,
            boxprops={"color": BLUE},
            whiskerprops={"color": BLUE},
            capprops={"color": BLUE},
            medianprops={"color": BLUE, "linewidth": 2},
        )
        means = [100 * r["coverage"] for r in part]
        ax.plot(means, range(len(names)), "D", color=ORANGE, markersize=4)
        ax.axvline(90, color="black", linewidth=0.8, linestyle=":")
        ax.set(title=f"{k} row{'s' * (k > 1)}", xlabel="% of rows covered")
        ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
