"""Loss of meta-training by epoch."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..adapted import unwrap
from ..base import NeuralMetaEstimator
from ._plotting import axes, check_matplotlib, line_style

_LINE, _DIVERGED = "skmeta-meta-training", "skmeta-diverged"


class MetaTrainingDisplay:
    """Loss on query rows after adapting, by epoch of meta-training.

    Says whether training has converged, and, where the net holds out tasks with its
    `train_split`, whether what was learned across tasks holds for others. The axis is
    logarithmic where losses differ by more than a factor of 50. Made by
    `from_estimator`.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Mean loss on the query rows of training tasks.
    valid_loss : array-like of shape (n_epochs,), default=None
        The same of tasks held out by the net.
    n_diverged : int, default=0
        Episodes that diverged and were left out.
    estimator_name : str, default=None
        What the legend calls the learner.
    loss_name : str, default="loss"
        Name of the loss.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure with the axes.
    line_ : matplotlib Line2D
        Loss of training tasks.
    valid_line_ : matplotlib Line2D or None
        Loss of held-out tasks.
    diverged_ : matplotlib Text or None
        Number of diverged episodes, where there are any.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skmeta import RidgeHeadRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> from skmeta.inspection import MetaTrainingDisplay
    >>> tasks = make_sinusoid_tasks(40, 20, random_state=0)
    >>> meta = RidgeHeadRegressor(random_state=0).fit(tasks)
    >>> display = MetaTrainingDisplay.from_estimator(meta)
    >>> len(display.train_loss)
    20
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        train_loss,
        valid_loss=None,
        *,
        n_diverged=0,
        estimator_name=None,
        loss_name="loss",
    ):
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.n_diverged = n_diverged
        self.estimator_name = estimator_name
        self.loss_name = loss_name

    @classmethod
    def from_estimator(cls, estimator, *, name=None, ax=None, **kwargs):
        """Draw what skorch has recorded.

        Parameters
        ----------
        estimator : fitted meta-learner, or Pipeline or search that ends in one
            One with a network, which is trained by epochs.
        name : str, default=None
            What the legend calls the learner; its class where None.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : MetaTrainingDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        meta = unwrap(estimator)[1]
        if not isinstance(meta, NeuralMetaEstimator):
            raise TypeError(
                f"{type(meta).__name__} is not trained by epochs, so there is no "
                "history to draw."
            )
        check_is_fitted(meta)
        epochs = meta.history_
        if not len(epochs):
            raise ValueError("The history is empty: meta-training had no epoch.")
        valid = None
        if any("valid_loss" in epoch for epoch in epochs):
            valid = _losses(epochs, "valid_loss")
        criterion = meta.net_.criterion
        display = cls(
            _losses(epochs, "train_loss"),
            valid,
            n_diverged=meta.n_diverged_,
            estimator_name=type(meta).__name__ if name is None else name,
            loss_name=getattr(criterion, "__name__", type(criterion).__name__),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, name=None, **kwargs):
        """Draw the losses, into axes that may hold others already.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        name : str, default=None
            What the legend calls the learner; `estimator_name` where None.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : MetaTrainingDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        self.ax_ = ax = axes(ax)
        self.figure_ = ax.figure
        name = self.estimator_name if name is None else name
        prefix = "" if name is None else f"{name}, "
        style, _ = line_style(ax, _LINE, kwargs)
        style = {"markersize": 4} | style
        label = style.pop("label", f"{prefix}training tasks")
        epochs = np.arange(1, len(self.train_loss) + 1)
        (self.line_,) = ax.plot(epochs, self.train_loss, label=label, **style)
        self.valid_line_ = None
        if self.valid_loss is not None:
            style |= {
                "color": self.line_.get_color(),
                "linestyle": "--",
                "markerfacecolor": "white",
                "label": f"{prefix}held-out tasks",
                "gid": None,
            }
            (self.valid_line_,) = ax.plot(epochs, self.valid_loss, **style)
        self._label(ax)
        return self

    def _label(self, ax):
        from matplotlib.ticker import MaxNLocator

        self.diverged_ = None
        if self.n_diverged:
            plural = "s" if self.n_diverged > 1 else ""
            text = f"{self.n_diverged} diverged episode{plural} left out"
            self.diverged_ = ax.text(
                0,
                1.015 + 0.055 * sum(t.get_gid() == _DIVERGED for t in ax.texts),
                text,
                transform=ax.transAxes,
                color=self.line_.get_color(),
                fontsize="small",
                gid=_DIVERGED,
            )
        losses = np.concatenate([line.get_ydata() for line in ax.lines])
        losses = losses[np.isfinite(losses)]
        if len(losses) and 0 < losses.min() < losses.max() / 50:
            ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(
            xlabel="Epoch of meta-training",
            ylabel=f"Loss on query rows ({self.loss_name})",
        )
        ax.legend(frameon=False)


def _losses(epochs, name):
    return np.array([epoch.get(name, np.nan) for epoch in epochs], dtype=float)
