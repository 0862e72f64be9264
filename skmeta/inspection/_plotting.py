"""What the displays share. matplotlib is optional, so it is imported inside."""

from __future__ import annotations

#: Okabe and Ito, in an order in which neighbours differ most: told apart by everyone.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv*P"
GREY = "#777777"


def check_matplotlib(caller):
    """Say which extra to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib, which is not installed. Install it by: "
            "pip install 'skmeta[plot]'"
        ) from error


def axes(ax):
    """The axes, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    return ax


def line_style(ax, kind, given):
    """Style of the next line of its kind in these axes, and how many there are.

    Parameters
    ----------
    ax : Axes
        Where the line is to be drawn.
    kind : str
        Lines of one kind are counted together; set as the line's ``gid``.
    given : dict
        What the user wants; wins.

    Returns
    -------
    style : dict
        Keyword arguments of ``ax.plot``.
    number : int
        Lines of this kind in the axes so far.
    """
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    number = sum(line.get_gid() == kind for line in ax.lines)
    style = {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "gid": kind,
    }
    return style | normalize_kwargs(given, Line2D), number


def is_negated(scoring):
    """Whether a score is an error with its sign turned."""
    return scoring.startswith("neg_")


def score_label(scoring, negate):
    """Name of a score, or of the error that it is the negative of."""
    name = scoring
    if is_negated(scoring):
        name = scoring.removeprefix("neg_")
        name = name if negate else f"negative {name}"
    return "R²" if name == "r2" else name.replace("_", " ").capitalize()
