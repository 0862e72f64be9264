"""Gradient alignment: tasks whose meta-gradient points where validation wants to go."""

from __future__ import annotations

import numpy as np

from ._base import POSITIVE, SHARE, TaskSampler

#: One draw says little, hence much: but a task that diverges must not say everything.
_MOST = 5.0


class GradientAlignmentSampler(TaskSampler):
    """Draws tasks whose meta-gradient agrees with that of the validation tasks.

    The inner product of the two is what a small step on a task would bring the
    validation tasks [1]_: positive where it helps them, negative where it hurts. It is
    divided by what a step on other rows of the validation tasks would bring, so that 1
    says that a task is as good as they are, and averaged over the draws
    of a task. Scores are this average over `temperature`.

    The gradient of each task is not needed for that, only its loss a little ahead and a
    little behind on the way that the validation tasks want to go: every task of a
    meta-batch is judged by two forward passes. With the gradient and the loss of the
    validation tasks, a step costs about three times as much.

    Experimental: see the guide for what it has been worth.

    Parameters
    ----------
    temperature : float, default=0.2
        Lower ones draw the best tasks more often.
    decay : float, default=0.99
        Weight of the past in the average of a source, at each of its tasks drawn.
    sources : dict, default=None
        Source of each task, by its id. Tasks of one source have one score, which is
        learned from all of them. None makes each task a source of its own.
    exploration : float, default=0.1
        Share of the draws in which all tasks are equally likely.

    Attributes
    ----------
    tasks_ : list of length n_tasks
        Ids of the training tasks.
    sources_ : list of length n_sources
        Sources of these tasks.
    scores_ : ndarray of shape (n_sources,)
        Logarithms of how much likelier the tasks of a source are drawn than others, up
        to a constant.
    probabilities_ : ndarray of shape (n_tasks,)
        Share of each task in the next meta-batch.
    alignment_ : ndarray of shape (n_sources,)
        What a step on a task of each source would bring, relative to one on validation
        tasks.

    See Also
    --------
    Exp3Sampler : Sees only what a step on a meta-batch has brought.

    References
    ----------
    .. [1] Fifty, Amid, Zhao, Yu, Anil and Finn. "Efficiently identifying task groupings
       for multi-task learning", NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta import RidgeHeadRegressor
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.task_sampling import GradientAlignmentSampler
    >>> from sklearn.model_selection import PredefinedSplit
    >>> from skorch import NeuralNet
    >>> from skorch.dataset import ValidSplit
    >>> from skmeta.modules import MLP
    >>> from torch import nn
    >>> tasks = make_regression_tasks(40, 20, random_state=0)
    >>> like_the_target = np.arange(40) >= 30
    >>> fold = np.where(like_the_target, 0, -1)  # the last ten are validation tasks
    >>> net = NeuralNet(
    ...     MLP,
    ...     nn.MSELoss,
    ...     max_epochs=3,
    ...     train_split=ValidSplit(PredefinedSplit(fold)),
    ...     verbose=0,
    ... )
    >>> meta = RidgeHeadRegressor(
    ...     net, task_sampler=GradientAlignmentSampler(), random_state=0
    ... )
    >>> meta = meta.fit(tasks)
    >>> meta.task_sampler_.probabilities_.shape
    (30,)
    """

    _parameter_constraints: dict = {
        **TaskSampler._parameter_constraints,
        "temperature": POSITIVE,
        "decay": SHARE,
    }

    def __init__(self, temperature=0.2, decay=0.99, sources=None, exploration=0.1):
        super().__init__(sources, exploration)
        self.temperature = temperature
        self.decay = decay

    def start(self, tasks):
        """Forget everything, and draw these tasks equally often.

        Parameters
        ----------
        tasks : sequence of length n_tasks
            Their ids.

        Returns
        -------
        self : object
            The sampler.
        """
        super().start(tasks)
        self._sums, self._weights = np.zeros((2, len(self.sources_)))
        self._yardstick = np.zeros(2)
        return self

    @property
    def alignment_(self):
        """What a step on each source would bring, relative to one on validation tasks.

        Shrunk to the mean of all sources by the evidence of one draw; that mean is
        also what a source has of which nothing was drawn.
        """
        if not self._weights.any():
            return self._weights
        mean, prior = self._sums.sum() / self._weights.sum(), 1 - self.decay
        return (self._sums + prior * mean) / (self._weights + prior)

    def before_step(self, trial):
        """Measure the tasks of the meta-batch.

        Parameters
        ----------
        trial : skmeta.outer_loop.Trial
            The step that follows.
        """
        gains, own = trial.alignment()
        if not (np.isfinite(gains).all() and np.isfinite(own)):
            return
        self._yardstick = self._later(self._yardstick, [own, 1])
        yardstick = self._yardstick[0] / self._yardstick[1]
        if yardstick <= 0:  # the validation tasks do not agree among themselves
            return
        relative = np.clip(gains / yardstick, -_MOST, _MOST)
        for source, value in zip(self._source_of[trial.tasks], relative, strict=True):
            past = self._sums[source], self._weights[source]
            self._sums[source], self._weights[source] = self._later(past, [value, 1])
        self.scores_ = self.alignment_ / self.temperature

    def _later(self, sums, values):
        """Exponentially decaying sums."""
        return self.decay * np.asarray(sums) + (1 - self.decay) * np.asarray(values)
