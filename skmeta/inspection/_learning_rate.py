"""Loss against an outer learning rate that grows from step to step."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import clone
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import LambdaLR

from ..base import NeuralMetaEstimator
from ..exceptions import DivergenceWarning
from ..outer_loop import as_net
from ._plotting import axes, check_matplotlib, line_style

_LINE = "skmeta-learning-rate"
#: Smoothing of the loss: the weight of what came before in a running mean.
_MEMORY = 0.9


class LearningRateDisplay:
    """Loss while the outer learning rate grows from step to step [1]_.

    One short training tells the range of rates worth searching: too small a rate
    leaves the loss where it is, too large a one throws it up, and a good one lies some
    way below the lowest loss. Made by `from_estimator`.

    Parameters
    ----------
    rates : array-like of shape (n_steps,)
        Learning rate of each outer step, increasing.
    losses : array-like of shape (n_steps,)
        Loss on query rows at that step; NaN once training has diverged.
    estimator_name : str, default=None
        What the legend calls the learner.

    Attributes
    ----------
    suggested_rate : float
        A tenth of the rate at which the smoothed loss is lowest: a place to start
        from, not an optimum. (Where the loss falls fastest, the other rule in use, is
        a matter of noise, since every step has other tasks.)
    smoothed : ndarray of shape (n_steps,)
        Running mean of the losses.
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure with the axes.
    line_ : matplotlib Line2D
        Smoothed loss.
    suggested_ : matplotlib Line2D
        Mark of the suggested rate.

    References
    ----------
    .. [1] Smith. "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skmeta import RidgeHeadRegressor
    >>> from skmeta.datasets import make_sinusoid_tasks
    >>> from skmeta.inspection import LearningRateDisplay
    >>> from skmeta.modules import MLP
    >>> tasks = make_sinusoid_tasks(40, 20, random_state=0)
    >>> meta = RidgeHeadRegressor(MLP, random_state=0)
    >>> display = LearningRateDisplay.from_estimator(meta, tasks)
    >>> 1e-4 < display.suggested_rate < 1e-1
    True
    >>> plt.close(display.figure_)
    """

    def __init__(self, rates, losses, *, estimator_name=None):
        self.rates = np.asarray(rates, dtype=float)
        self.losses = np.asarray(losses, dtype=float)
        self.estimator_name = estimator_name
        self.smoothed = _running_mean(self.losses)
        self.suggested_rate = _tenth_of_lowest(self.rates, self.smoothed)

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        groups=None,
        limits=(1e-5, 1.0),
        n_steps=100,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Train a copy for a few steps with a growing rate, and draw its loss.

        Parameters
        ----------
        estimator : meta-learner with a network
            Not changed, and need not be fitted.
        X, y, groups
            Training tasks, in any form that `fit` takes.
        limits : (float, float), default=(1e-5, 1.0)
            First and last learning rate; those between are equally far apart on a
            logarithmic scale.
        n_steps : int, default=100
            Outer steps.
        name : str, default=None
            What the legend calls the learner; its class where None.
        ax : matplotlib Axes, default=None
            Where to draw; in a new figure where None.
        **kwargs : dict
            Passed to ``ax.plot``.

        Returns
        -------
        display : LearningRateDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        if not isinstance(estimator, NeuralMetaEstimator):
            raise TypeError(
                f"{type(estimator).__name__} is not trained by steps, so it has no "
                "learning rate."
            )
        low, high = limits
        if not 0 < low < high:
            raise ValueError(
                f"limits must be two rates, 0 < first < last; got {limits!r}."
            )
        if n_steps < 10:
            raise ValueError(f"n_steps must be at least 10; got {n_steps!r}.")
        meta = clone(estimator)
        net = _ramp(_net_of(meta, X, y, groups), low, high, n_steps)
        meta.set_params(estimator=net, n_episodes=n_steps * net.batch_size)
        with warnings.catch_warnings():
            # What diverges is part of the answer.
            warnings.simplefilter("ignore", DivergenceWarning)
            meta.fit(X, y, groups=groups)
        losses = np.full(n_steps, np.nan)
        seen = meta.history_[-1, "batches", :, "train_loss"]
        losses[: len(seen)] = seen
        display = cls(
            np.geomspace(low, high, n_steps),
            losses,
            estimator_name=type(meta).__name__ if name is None else name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, name=None, **kwargs):
        """Draw the smoothed loss and the suggested rate.

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
        display : LearningRateDisplay
            The picture and its numbers.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        self.ax_ = ax = axes(ax)
        self.figure_ = ax.figure
        name = self.estimator_name if name is None else name
        style, _ = line_style(ax, _LINE, {"marker": "", **kwargs})
        label = style.pop("label", name)
        # What follows an explosion would hide all that comes before it.
        best, first = np.nanmin(self.smoothed), self.smoothed[0]
        top = first + 2 * max(first - best, 0.05 * abs(first))
        shown = np.where(self.smoothed <= top, self.smoothed, np.nan)
        (self.line_,) = ax.plot(self.rates, shown, label=label, **style)
        at = np.interp(self.suggested_rate, self.rates, self.smoothed)
        (self.suggested_,) = ax.plot(
            self.suggested_rate,
            at,
            "o",
            color=self.line_.get_color(),
            label=f"suggested: {self.suggested_rate:.1e}",
        )
        ax.set_xscale("log")
        ax.set(xlabel="Outer learning rate", ylabel="Loss on query rows, smoothed")
        ax.legend(frameon=False)
        return self


def _net_of(meta, X, y, groups):
    """The user's net, whatever form it came in, and even if it is to be made."""
    rows = meta._read(X, y, groups, reset=True).X
    return as_net(
        meta.estimator, meta._default_backbone(rows.shape[1:]), meta._criterion
    )


def _ramp(net, low, high, n_steps):
    """One epoch whose learning rate grows with every step."""
    growth = (high / low) ** (1 / (n_steps - 1))
    schedule = LRScheduler(
        LambdaLR, lr_lambda=lambda step: growth**step, step_every="batch"
    )
    return net.set_params(
        lr=low, max_epochs=1, train_split=None, callbacks=[("ramp", schedule)]
    )


def _running_mean(losses):
    """Exponential mean without the bias of its start; NaN stays NaN."""
    total, weight, means = 0.0, 0.0, []
    for loss in losses:
        total = _MEMORY * total + (1 - _MEMORY) * loss
        weight = _MEMORY * weight + (1 - _MEMORY)
        means.append(total / weight)
    return np.array(means)


def _tenth_of_lowest(rates, losses):
    if not np.isfinite(losses).any():
        return np.nan
    # The first means are of few steps and jump.
    start = min(len(losses) // 10, int(np.isfinite(losses).sum()) - 1)
    return float(rates[start + int(np.nanargmin(losses[start:]))] / 10)
