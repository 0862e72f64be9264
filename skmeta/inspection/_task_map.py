"""Where known tasks lie beside each other."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from ..adapted import unwrap
from ..base._vectors import task_vectors
from ._plotting import COLORS, MARKERS, axes, check_matplotlib


class TaskMapDisplay:
    """Known tasks on a plane: near each other where adapting gave them like states.

    The state of a task (a posterior mean, prototypes, a head, adapted weights) is taken
    as one vector, and the vectors are projected on their first two principal
    components. The cross is the prior, a task of which nothing is known. Colours show
    any value of a task, as its score or its kind. Made by `from_estimator`.

    Parameters
    ----------
    points : array-like of shape (n_tasks, 2)
        Coordinates of the tasks.
    ids : sequence of length n_tasks
        Their ids.
    values : array-like of shape (n_tasks,), default=None
        A number or a kind for each task, shown by its colour.
    prior : array-like of shape (2,), default=None
        Coordinates of a task of which nothing is known.
    explained_variance_ratio : sequence of 2 floats, default=None
        Share of the variance of the states that each coordinate has.
    values_name : str, default=None
        What the values are, with their unit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the map.
    figure_ : matplotlib Figure
        Figure with the axes.
    scatter_ : list of matplotlib PathCollection
        The tasks; one for each kind where values are kinds.
    colorbar_ : matplotlib Colorbar or None
        What colours mean, where values are numbers.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.inspection import TaskMapDisplay
    >>> tasks, coef = make_regression_tasks(40, return_coef=True, random_state=0)
    >>> meta = HierarchicalRegressor().fit(tasks)
    >>> display = TaskMapDisplay.from_estimator(
    ...     meta, values=coef[:, 0], values_name="first weight"
    ... )
    >>> display.points.shape
    (40, 2)
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        points,
        ids,
        *,
        values=None,
        prior=None,
        explained_variance_ratio=None,
        values_name=None,
    ):
        self.points = points
        self.ids = ids
        self.values = values
        self.prior = prior
        self.explained_variance_ratio = explained_variance_ratio
        self.values_name = values_name

    @classmethod
    def from_estimator(
        cls, estimator, values=None, *, values_name=None, annotate=(), ax=None, **kwargs
    ):
        """Project the states of all tasks that a fitted meta-learner knows, and draw.

        Parameters
        ----------
        estimator : fitted meta-learner, or Pipeline or search that ends in one
            Its `states_` are the tasks seen by `fit` and those adapted to since.
        values : array-like of shape (n_tasks,) or mapping, default=None
            A number or a kind for each task, shown by its colour: in the order of
            ``list(states_)``, or by task id, as a dict or a pandas Series with the ids
            as its index.
        values_name : str, default=None
            What the values are, with their unit; the name of a Series where None.
        annotate : sequence, default=()
            Ids of tasks to be named on the map.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.scatter``.

        Returns
        -------
        display : TaskMapDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        meta = unwrap(estimator)[1]
        check_is_fitted(meta)
        ids = list(meta.states_)
        if len(ids) < 3:
            raise ValueError(
                f"A map needs at least three known tasks; this {type(meta).__name__} "
                f"knows {len(ids)}."
            )
        if values_name is None:
            values_name = getattr(values, "name", None)
        points, prior, explained = _project(*task_vectors(meta))
        display = cls(
            points,
            ids,
            values=_by_task(values, ids),
            prior=prior,
            explained_variance_ratio=explained,
            values_name=values_name,
        )
        return display.plot(ax=ax, annotate=annotate, **kwargs)

    def plot(self, ax=None, *, annotate=(), **kwargs):
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        annotate : sequence, default=()
            Ids of tasks to be named on the map.
        **kwargs : dict
            Passed to ``ax.scatter``.

        Returns
        -------
        display : TaskMapDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        unknown = [task for task in annotate if task not in self.ids]
        if unknown:
            raise ValueError(f"annotate has {unknown[0]!r}, which is no known task.")
        self.ax_ = ax = axes(ax)
        self.figure_ = ax.figure
        self.colorbar_ = None
        points = np.asarray(self.points)
        style = {"s": 28, "alpha": 0.85, "linewidths": 0} | kwargs
        values = None if self.values is None else np.asarray(self.values)
        if values is None:
            self.scatter_ = [ax.scatter(*points.T, **({"color": COLORS[0]} | style))]
        elif _are_numbers(values):
            style = {"cmap": "viridis"} | style
            self.scatter_ = [ax.scatter(*points.T, c=values.astype(float), **style)]
            self.colorbar_ = self.figure_.colorbar(
                self.scatter_[0], ax=ax, label=self.values_name
            )
        else:
            self.scatter_ = self._plot_kinds(ax, points, values, style)
        self._label(ax, annotate, points)
        return self

    def _plot_kinds(self, ax, points, values, style):
        kinds = list(dict.fromkeys(sorted(values.tolist(), key=str)))
        if len(kinds) > len(COLORS):
            raise ValueError(
                f"values has {len(kinds)} kinds, of which at most {len(COLORS)} can be "
                "told apart by colour; join some, or pass numbers."
            )
        return [
            ax.scatter(
                *points[[value == kind for value in values.tolist()]].T,
                **(
                    {"color": COLORS[i], "marker": MARKERS[i], "label": str(kind)}
                    | style
                ),
            )
            for i, kind in enumerate(kinds)
        ]

    def _label(self, ax, annotate, points):
        from matplotlib.patheffects import Normal, Stroke

        names = ["First principal component", "Second principal component"]
        if self.explained_variance_ratio is not None:
            shares = self.explained_variance_ratio
            names = [
                f"{name} ({100 * share:.0f} %)"
                for name, share in zip(names, shares, strict=True)
            ]
        ax.set(xlabel=names[0], ylabel=names[1])
        if self.prior is not None:
            ax.plot(*self.prior, "X", color="black", markersize=9, label="prior")
        for task in annotate:
            place = points[self.ids.index(task)]
            ax.plot(*place, "o", color="black", markersize=8, fillstyle="none")
            name = ax.annotate(
                str(task), place, xytext=(6, 5), textcoords="offset points"
            )
            name.set_path_effects([Stroke(linewidth=3, foreground="white"), Normal()])
        if ax.get_legend_handles_labels()[1]:
            ax.legend(frameon=False, title=self._legend_title())

    def _legend_title(self):
        return self.values_name if len(self.scatter_) > 1 else None


def _project(vectors, prior):
    """Coordinates of tasks and of the prior on two principal components."""
    n_components = min(2, *vectors.shape)
    pca = PCA(n_components, random_state=0)
    spread = np.ptp(vectors, axis=0).max()
    if spread == 0:
        raise ValueError("All known tasks have the same state, so there is no map.")
    points = pca.fit_transform(vectors)
    shares = np.zeros(2)
    shares[:n_components] = pca.explained_variance_ratio_
    place = None if prior is None else pca.transform(prior[np.newaxis])
    # One number for each task is a map too: all on a line.
    missing = [(0, 0), (0, 2 - n_components)]
    points = np.pad(points, missing)
    return points, None if place is None else np.pad(place, missing)[0], shares


def _by_task(values, ids):
    """Values in the order of the ids."""
    if values is None:
        return None
    if isinstance(values, Mapping) or hasattr(values, "loc"):
        missing = [task for task in ids if task not in values]
        if missing:
            raise ValueError(f"values has none for the task {missing[0]!r}.")
        get = (
            values.__getitem__
            if isinstance(values, Mapping)
            else values.loc.__getitem__
        )
        return np.asarray([get(task) for task in ids])
    values = np.asarray(values)
    if values.shape != (len(ids),):
        raise ValueError(
            f"values has shape {values.shape}; it needs one value for each of the "
            f"{len(ids)} known tasks, in the order of list(states_)."
        )
    return values


def _are_numbers(values):
    return values.dtype.kind in "fiu" or (
        values.dtype.kind == "O"
        and all(isinstance(value, numbers.Real) for value in values)
    )
