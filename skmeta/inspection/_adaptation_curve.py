"""Score against support rows as a picture."""

from __future__ import annotations

import numpy as np

from ..adapted import unwrap
from ..model_selection import ShotCurve, shot_curve
from ..model_selection._curves import summary
from ._plotting import (
    GREY,
    axes,
    check_matplotlib,
    is_negated,
    line_style,
    score_label,
)

_CURVE, _BASELINE = "skmeta-adaptation-curve", "skmeta-adaptation-baseline"
_HARM = "skmeta-adaptation-harm"


class AdaptationCurveDisplay:
    """Score of tasks that were not seen, against their number of support rows.

    The band is a 95 % interval of the mean over tasks. The dashed line is the baseline
    on the same rows, and the row of numbers above the axes is the harm rate: the share
    of tasks for which the baseline was better. A mean may hide them. Made by
    `from_estimator`, or by `from_curve` from what `shot_curve` found.

    Parameters
    ----------
    curve : ShotCurve
        Scores of tasks against their number of support rows.
    estimator_name : str, default=None
        What the legend calls the curve.
    baseline_name : str, default="baseline"
        What the legend calls what it is compared with.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure with the axes.
    line_ : matplotlib Line2D
        Mean over tasks.
    band_ : matplotlib PolyCollection
        The 95 % interval.
    baseline_line_ : matplotlib Line2D or None
        The baseline; None without one, or where the same line had been drawn before.
    harm_ : list of matplotlib Text
        Harm rate for each number of support rows.
    shots : ndarray of shape (n_shots,)
        Support rows.
    mean, low, high : ndarray of shape (n_shots,)
        Mean score over tasks, and the limits of its interval; higher is better.
    baseline_mean : ndarray of shape (n_shots,) or None
        Mean score of the baseline.
    harm_rate : ndarray of shape (n_shots,) or None
        Share of tasks whose score is below that of the baseline.

    See Also
    --------
    skmeta.model_selection.shot_curve : Computes the scores.
    TaskScoresDisplay : The tasks behind one point of the curve.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skmeta import HierarchicalRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.inspection import AdaptationCurveDisplay
    >>> tasks = make_regression_tasks(30, 12, random_state=0)
    >>> display = AdaptationCurveDisplay.from_estimator(
    ...     HierarchicalRegressor(), tasks, shots=[0, 2, 5], scoring="r2"
    ... )
    >>> display.harm_rate.shape
    (3,)

    A second curve in the same axes:

    >>> low_rank = HierarchicalRegressor(covariance="low_rank")
    >>> _ = AdaptationCurveDisplay.from_estimator(
    ...     low_rank, tasks, shots=[0, 2, 5], scoring="r2",
    ...     name="low rank", ax=display.ax_
    ... )  # fmt: skip
    >>> plt.close(display.figure_)
    """

    def __init__(self, curve, *, estimator_name=None, baseline_name="baseline"):
        self.curve = curve
        self.estimator_name = estimator_name
        self.baseline_name = baseline_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        groups=None,
        *,
        shots=(0, 1, 2, 5, 10, 20),
        scoring=None,
        cv=5,
        n_draws=5,
        support="random",
        per_class="auto",
        baseline="pooled",
        n_jobs=None,
        random_state=0,
        name=None,
        negate_score="auto",
        score_name=None,
        show_harm=True,
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
        shots : sequence of int, default=(0, 1, 2, 5, 10, 20)
            Support rows of each held-out task, or of each of its classes.
        scoring : str or callable, default=None
            Any scorer of scikit-learn; accuracy, or the negative root mean squared
            error, where None.
        cv : int, splitter, iterable or "prefit", default=5
            Folds over tasks, as for `shot_curve`.
        n_draws : int, default=5
            Random supports of each task.
        support : {"random", "first"}, default="random"
            Random draws, or the first rows in row order.
        per_class : bool or "auto", default="auto"
            Whether shots are counted per class.
        baseline : meta-learner, "pooled" or None, default="pooled"
            What to compare with.
        n_jobs : int, default=None
            Jobs of joblib, one for each fold.
        random_state : int, RandomState instance or None, default=0
            Seed of folds and draws.
        name : str, default=None
            What the legend calls the curve; the class of the meta-learner where None.
        negate_score : bool or "auto", default="auto"
            Whether to turn the sign. "auto" turns that of a negative error, so that
            the error is drawn.
        score_name : str, default=None
            Label of the axis, with its unit; made of `scoring` where None.
        show_harm : bool, default=True
            Whether to write the harm rate above the axes.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.plot`` for the curve.

        Returns
        -------
        display : AdaptationCurveDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        curve = shot_curve(
            estimator,
            X,
            y,
            groups,
            shots=shots,
            scoring=scoring,
            cv=cv,
            n_draws=n_draws,
            support=support,
            per_class=per_class,
            baseline=baseline,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        if baseline is not None and not isinstance(baseline, str):
            baseline = type(unwrap(baseline)[1]).__name__
        return cls.from_curve(
            curve,
            name=type(unwrap(estimator)[1]).__name__ if name is None else name,
            baseline_name=baseline or "baseline",
            negate_score=negate_score,
            score_name=score_name,
            show_harm=show_harm,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_curve(
        cls,
        curve,
        *,
        name=None,
        baseline_name="baseline",
        negate_score="auto",
        score_name=None,
        show_harm=True,
        ax=None,
        **kwargs,
    ):
        """Draw what `shot_curve` has found.

        Parameters
        ----------
        curve : ShotCurve
            Scores.
        name : str, default=None
            What the legend calls the curve.
        baseline_name : str, default="baseline"
            What the legend calls the baseline.
        negate_score : bool or "auto", default="auto"
            Whether to turn the sign. "auto" turns that of a negative error, so that
            the error is drawn.
        score_name : str, default=None
            Label of the axis, with its unit.
        show_harm : bool, default=True
            Whether to write the harm rate above the axes.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.plot`` for the curve.

        Returns
        -------
        display : AdaptationCurveDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_curve")
        if not isinstance(curve, ShotCurve):
            raise TypeError(
                f"curve must be what shot_curve returns, a ShotCurve; got {curve!r}."
            )
        display = cls(curve, estimator_name=name, baseline_name=baseline_name)
        return display.plot(
            ax=ax,
            negate_score=negate_score,
            score_name=score_name,
            show_harm=show_harm,
            **kwargs,
        )

    @property
    def shots(self):
        return self.curve.shots

    @property
    def mean(self):
        return self._column("mean")

    @property
    def low(self):
        return self._column("low")

    @property
    def high(self):
        return self._column("high")

    @property
    def baseline_mean(self):
        if self.curve.baseline is None:
            return None
        return np.array(
            [summary(scores)["mean"] for scores in self.curve.baseline.mean(axis=1)]
        )

    @property
    def harm_rate(self):
        return None if self.curve.baseline is None else self._column("harm_rate")

    def _column(self, name):
        base = self.curve.baseline
        base = [None] * len(self.shots) if base is None else base.mean(axis=1)
        rows = zip(self.curve.per_task, base, strict=True)
        return np.array([summary(*row).get(name, np.nan) for row in rows])

    def plot(
        self,
        ax=None,
        *,
        name=None,
        negate_score="auto",
        score_name=None,
        show_harm=True,
        **kwargs,
    ):
        """Draw the curve, into axes that may hold others already.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        name : str, default=None
            What the legend calls the curve; `estimator_name` where None.
        negate_score : bool or "auto", default="auto"
            Whether to turn the sign. "auto" turns that of a negative error, so that
            the error is drawn.
        score_name : str, default=None
            Label of the axis, with its unit.
        show_harm : bool, default=True
            Whether to write the harm rate above the axes.
        **kwargs : dict
            Passed to ``ax.plot`` for the curve.

        Returns
        -------
        display : AdaptationCurveDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        self.ax_ = ax = axes(ax)
        self.figure_ = ax.figure
        style, number = line_style(ax, _CURVE, kwargs)
        style.setdefault("label", self.estimator_name if name is None else name)
        negate = negate_score
        if negate == "auto":
            negate = is_negated(self.curve.scoring)
        sign = -1 if negate else 1
        if number == 0:
            self._prepare(ax)
        self._plot_baseline(ax, sign, style)
        (self.line_,) = ax.plot(self.shots, sign * self.mean, **style)
        self.band_ = ax.fill_between(
            self.shots,
            sign * self.low,
            sign * self.high,
            color=self.line_.get_color(),
            alpha=0.15,
            linewidth=0,
        )
        self.harm_ = []
        if show_harm and self.curve.baseline is not None:
            self._write_harm(ax)
        self._label(ax, negate, score_name)
        return self

    @staticmethod
    def _prepare(ax):
        """Few rows differ more than many: the axis is that of ``log(1 + shots)``."""
        ax.set_xscale(
            "function",
            functions=(lambda x: np.log1p(np.maximum(x, -0.99)), np.expm1),
        )
        ax.set(xlabel="Support rows of the new task")
        ax.minorticks_off()

    def _label(self, ax, negate, score_name):
        if score_name is None:
            better = "lower" if negate else "higher"
            name = score_label(self.curve.scoring, negate)
            score_name = f"{name} ({better} is better)"
        ax.set(ylabel=score_name)
        curves = [line for line in ax.lines if line.get_gid() == _CURVE]
        ticks = np.unique(np.concatenate([line.get_xdata() for line in curves]))
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        if ax.get_legend_handles_labels()[1]:
            ax.legend(frameon=False)

    def _plot_baseline(self, ax, sign, style):
        """The baseline once, however many curves are compared with it."""
        self.baseline_line_ = None
        if self.curve.baseline is None:
            return
        values = np.column_stack([self.shots, sign * self.baseline_mean])
        others = [line for line in ax.lines if line.get_gid() == _BASELINE]
        for line in others:
            if np.array_equal(line.get_xydata(), values, equal_nan=True):
                return
        color, label = GREY, self.baseline_name
        if others:
            # Judged on other rows, so it belongs to this curve alone.
            color, label = style["color"], f"{label} ({style['label']})"
        (self.baseline_line_,) = ax.plot(
            *values.T,
            color=color,
            linestyle="--",
            label=label,
            gid=_BASELINE,
            zorder=1.9,
        )

    def _write_harm(self, ax):
        """One row of numbers for each curve, under what they mean."""
        from matplotlib.transforms import blended_transform_factory

        headers = [text for text in ax.texts if text.get_gid() == _HARM]
        rows = {text.get_gid() for text in ax.texts} - {None, _HARM}
        n_rows = sum(row.startswith(_HARM) for row in rows)
        style = {"fontsize": "small", "va": "bottom"}
        if not headers:
            text = f"Tasks that are worse than {self.baseline_name}:"
            headers = [ax.text(0, 1, text, transform=ax.transAxes, gid=_HARM, **style)]
        headers[0].set_y(1.015 + 0.055 * (n_rows + 1))
        under = blended_transform_factory(ax.transData, ax.transAxes)
        self.harm_ = [
            ax.text(
                k,
                1.015 + 0.055 * n_rows,
                f"{100 * rate:.0f} %",
                transform=under,
                color=self.line_.get_color(),
                ha="center",
                gid=f"{_HARM} {n_rows}",
                **style,
            )
            for k, rate in zip(self.shots, self.harm_rate, strict=True)
            if np.isfinite(rate)
        ]
