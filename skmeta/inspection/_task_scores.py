"""Which tasks gain by adapting, and which lose."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, root_mean_squared_error
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from ..adapted import unwrap
from ..model_selection import ShotCurve, shot_curve
from ..model_selection._rows import read_task_rows
from ..tasks._door import _factorize
from ._plotting import COLORS, axes, check_matplotlib, score_label

#: More bars than this are not named.
_MAX_NAMED = 25


class TaskScoresDisplay:
    """Gain of every task over the baseline, as sorted bars.

    A mean gain may come from many tasks that gain a little and a few that lose a lot.
    Bars above zero are tasks for which adapting paid, bars below are tasks that would
    have been better off with the baseline. Made by `from_estimator`, by `from_curve`
    from what `shot_curve` found, or by `from_predictions`.

    Parameters
    ----------
    gains : array-like of shape (n_tasks,)
        Score of each task minus that of the baseline; tasks with NaN are left out.
    ids : sequence, default=None
        Task ids; positions where None.
    score_name : str, default="score"
        What the gain is a gain of.
    baseline_name : str, default="baseline"
        What it is a gain over.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.
    figure_ : matplotlib Figure
        Figure with the axes.
    bars_ : matplotlib BarContainer
        One bar for each task, the largest gain first.
    mean_line_ : matplotlib Line2D
        Mean gain.
    ids_ : list
        Task ids in the order of the bars.
    harm_rate : float
        Share of tasks below zero.

    See Also
    --------
    AdaptationCurveDisplay : Means over tasks against the number of support rows.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.inspection import TaskScoresDisplay
    >>> tasks = make_regression_tasks(40, 20, random_state=0)
    >>> display = TaskScoresDisplay.from_estimator(
    ...     HierarchicalRegressor(), tasks, n_shots=5
    ... )
    >>> len(display.bars_)
    40
    >>> plt.close(display.figure_)
    """

    def __init__(
        self, gains, ids=None, *, score_name="score", baseline_name="baseline"
    ):
        self.gains = gains
        self.ids = ids
        self.score_name = score_name
        self.baseline_name = baseline_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        groups=None,
        *,
        n_shots=5,
        scoring=None,
        cv=5,
        n_draws=5,
        support="random",
        per_class="auto",
        baseline="pooled",
        n_jobs=None,
        random_state=0,
        ax=None,
        **kwargs,
    ):
        """Cross-validate over tasks with `shot_curve`, and draw.

        Parameters
        ----------
        estimator : meta-learner, or Pipeline or search that ends in one
            Cloned and fitted on the training tasks of each fold.
        X : list of (X, y) tuples, or array-like of shape (n_samples, n_features)
            Tasks, or rows.
        y : array-like of shape (n_samples,), default=None
            Targets; None for a list.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row; None for a list or with a `group_column`.
        n_shots : int, default=5
            Support rows of each held-out task, or of each of its classes.
        scoring : str or callable, default=None
            Any scorer of scikit-learn; accuracy, or the negative root mean squared
            error, where None.
        cv : int, splitter, iterable or "prefit", default=5
            Folds over tasks, as for `shot_curve`.
        n_draws : int, default=5
            Random supports of each task, whose scores are averaged.
        support : {"random", "first"}, default="random"
            Random draws, or the first rows in row order.
        per_class : bool or "auto", default="auto"
            Whether shots are counted per class.
        baseline : meta-learner or "pooled", default="pooled"
            What the gain is over; with "prefit" a fitted meta-learner.
        n_jobs : int, default=None
            Jobs of joblib, one for each fold.
        random_state : int, RandomState instance or None, default=0
            Seed of folds and draws.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.bar``.

        Returns
        -------
        display : TaskScoresDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        curve = shot_curve(
            estimator,
            X,
            y,
            groups,
            shots=[n_shots],
            scoring=scoring,
            cv=cv,
            n_draws=n_draws,
            support=support,
            per_class=per_class,
            baseline=baseline,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        if not isinstance(baseline, str) and baseline is not None:
            baseline = type(unwrap(baseline)[1]).__name__
        ids = read_task_rows(estimator, X, y, groups).ids
        return cls.from_curve(curve, ids=ids, baseline_name=baseline, ax=ax, **kwargs)

    @classmethod
    def from_curve(
        cls,
        curve,
        *,
        n_shots=None,
        ids=None,
        baseline_name="baseline",
        ax=None,
        **kwargs,
    ):
        """Draw one point of what `shot_curve` has found.

        Parameters
        ----------
        curve : ShotCurve
            Scores, with a baseline.
        n_shots : int, default=None
            Which number of support rows; the largest where None.
        ids : sequence, default=None
            Task ids, in the order of the curve; positions where None.
        baseline_name : str, default="baseline"
            What the gain is over.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.bar``.

        Returns
        -------
        display : TaskScoresDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_curve")
        if not isinstance(curve, ShotCurve):
            raise TypeError(
                f"curve must be what shot_curve returns, a ShotCurve; got {curve!r}."
            )
        if curve.baseline is None:
            raise ValueError(
                "There is no baseline to gain over: labels that belong to their task "
                "cannot be pooled, and a fitted estimator brings none. Pass baseline= "
                "another meta-learner."
            )
        shots = curve.shots.tolist()
        n_shots = shots[-1] if n_shots is None else n_shots
        if n_shots not in shots:
            raise ValueError(f"n_shots={n_shots!r} is none of the shots {shots}.")
        place = shots.index(n_shots)
        display = cls(
            (curve.scores - curve.baseline)[place].mean(axis=0),
            ids,
            score_name=score_label(curve.scoring, negate=True),
            baseline_name=baseline_name,
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        y_base,
        groups,
        *,
        score=None,
        score_name=None,
        baseline_name="baseline",
        ax=None,
        **kwargs,
    ):
        """Score two sets of predictions task by task, and draw.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Targets.
        y_pred : array-like of shape (n_samples,)
            Predictions of adapted models.
        y_base : array-like of shape (n_samples,)
            Predictions of the baseline.
        groups : array-like of shape (n_samples,)
            Task id of each row.
        score : callable, default=None
            ``score(y_true, y_pred)``, higher is better. Where None, the negative root
            mean squared error if any of the values is no whole number, or else
            accuracy.
        score_name : str, default=None
            What the gain is a gain of, with its unit.
        baseline_name : str, default="baseline"
            What the gain is over.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.bar``.

        Returns
        -------
        display : TaskScoresDisplay
            The picture and its numbers.

        Examples
        --------
        >>> import matplotlib.pyplot as plt
        >>> from skmeta.inspection import TaskScoresDisplay
        >>> display = TaskScoresDisplay.from_predictions(
        ...     y_true=[0, 1, 1, 0],
        ...     y_pred=[0, 1, 1, 1],
        ...     y_base=[0, 0, 1, 0],
        ...     groups=["a", "a", "b", "b"],
        ... )
        >>> display.gains.tolist()
        [0.5, -0.5]
        >>> plt.close(display.figure_)
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        check_consistent_length(y_true, y_pred, y_base, groups)
        y_true, y_pred, y_base = map(column_or_1d, (y_true, y_pred, y_base))
        if score is None:
            score, found = _score_for(y_true, y_pred, y_base)
            score_name = found if score_name is None else score_name
        codes, ids = _factorize(groups, len(y_true))
        gains = []
        for task in range(len(ids)):
            rows = codes == task
            own = score(y_true[rows], y_pred[rows])
            gains.append(own - score(y_true[rows], y_base[rows]))
        display = cls(
            np.array(gains),
            ids,
            score_name=score_name or getattr(score, "__name__", "score"),
            baseline_name=baseline_name,
        )
        return display.plot(ax=ax, **kwargs)

    @property
    def harm_rate(self):
        gains = self._sorted()[0]
        # Rounding is no harm.
        return float(np.mean(gains < -1e-12))

    def _sorted(self):
        gains = np.asarray(self.gains, dtype=float)
        order = np.argsort(-gains, kind="stable")
        order = order[np.isfinite(gains[order])]
        ids = range(len(gains)) if self.ids is None else list(self.ids)
        return gains[order], [ids[i] for i in order]

    def plot(self, ax=None, *, score_name=None, **kwargs):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        score_name : str, default=None
            What the gain is a gain of, with its unit.
        **kwargs : dict
            Passed to ``ax.bar``.

        Returns
        -------
        display : TaskScoresDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        gains, self.ids_ = self._sorted()
        if not len(gains):
            raise ValueError("No task has a score; pass larger tasks.")
        self.ax_ = ax = axes(ax)
        self.figure_ = ax.figure
        n_tasks, harmed = len(gains), gains < -1e-12
        style = {
            "color": np.where(harmed, COLORS[1], COLORS[0]).tolist(),
            "width": 0.8 if n_tasks <= 60 else 1.0,
        }
        self.bars_ = ax.bar(np.arange(n_tasks), gains, **(style | kwargs))
        ax.axhline(0, color="black", linewidth=0.8)
        self.mean_line_ = ax.axhline(gains.mean(), color="black", linestyle=":")
        self._label(ax, gains, harmed, score_name or self.score_name)
        return self

    def _label(self, ax, gains, harmed, score_name):
        from matplotlib.patches import Patch

        entries = {
            f"better in {np.sum(~harmed)} tasks": Patch(color=COLORS[0]),
            f"worse in {harmed.sum()} tasks ({100 * harmed.mean():.0f} %)": Patch(
                color=COLORS[1]
            ),
            f"mean gain {gains.mean():.3g}": self.mean_line_,
        }
        ax.legend(entries.values(), entries.keys(), frameon=False)
        ax.set(
            xlabel="Tasks, sorted",
            ylabel=f"{score_name}:\ngain over {self.baseline_name}",
            xticks=[],
        )
        ax.margins(x=0.01)
        if len(gains) <= _MAX_NAMED:
            names = [str(task) for task in self.ids_]
            rotation = 90 if max(map(len, names)) > 2 else 0
            ax.set_xticks(np.arange(len(gains)), names, rotation=rotation)


def _score_for(*values):
    """A score, and its name, by what the values look like."""
    if any(type_of_target(part).startswith("continuous") for part in values):
        return _negative_rmse, "Root mean squared error"
    return accuracy_score, "Accuracy"


def _negative_rmse(y_true, y_pred):
    return -root_mean_squared_error(y_true, y_pred)
