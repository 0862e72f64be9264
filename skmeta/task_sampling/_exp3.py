"""Exp3: rewards a task for what a step on it brings to the validation tasks."""

from __future__ import annotations

import numpy as np

from ._base import POSITIVE, TaskSampler

#: Steps whose gains say which gain is large.
_WINDOW = 500


class Exp3Sampler(TaskSampler):
    """Draws the tasks after which the loss of the validation tasks has fallen.

    The tasks of a meta-batch are rewarded, or penalised, with the fall of the
    validation loss in the step on them, scaled by the gains of the steps before to lie
    between -1 and 1 [2]_. A task is credited by how rarely it is drawn, so that scores
    are unbiased [1]_. One number for a whole meta-batch is little to learn from: it
    takes many steps, the more the more tasks there are. Costs two forward passes a
    step.

    Experimental: see the guide for what it has been worth.

    Parameters
    ----------
    learning_rate : float, default=0.3
        How fast scores follow the rewards.
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

    See Also
    --------
    GradientAlignmentSampler : Compares gradients, task by task.

    References
    ----------
    .. [1] Auer, Cesa-Bianchi, Freund and Schapire. "The nonstochastic multiarmed bandit
       problem", SIAM Journal on Computing, 2002.
    .. [2] Graves, Bellemare, Menick, Munos and Kavukcuoglu. "Automated curriculum
       learning for neural networks", ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta.task_sampling import Exp3Sampler
    >>> sampler = Exp3Sampler(exploration=0.2).start(["a", "b"])
    >>> sampler.scores_ = np.log([3.0, 1.0])
    >>> sampler.probabilities_
    array([0.7, 0.3])
    """

    _parameter_constraints: dict = {
        **TaskSampler._parameter_constraints,
        "learning_rate": POSITIVE,
    }

    def __init__(self, learning_rate=0.3, sources=None, exploration=0.1):
        super().__init__(sources, exploration)
        self.learning_rate = learning_rate

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
        self._gains = []
        return super().start(tasks)

    def before_step(self, trial):
        """Remember the loss of the validation tasks.

        Parameters
        ----------
        trial : skmeta.outer_loop.Trial
            The step that follows.
        """
        self._loss = trial.validation_loss()

    def after_step(self, trial):
        """Credit the tasks of the step with what it has brought.

        Parameters
        ----------
        trial : skmeta.outer_loop.Trial
            The step that was taken.
        """
        gain = self._loss - trial.validation_loss()
        if not np.isfinite(gain):
            return
        self._gains = [*self._gains[1 - _WINDOW :], gain]
        drawn, n_tasks = self._source_of[trial.tasks], len(self.tasks_)
        # How often a task was drawn, over how often it would be by chance alone.
        weight = 1 / (len(drawn) * n_tasks * self.probabilities_[trial.tasks])
        credit = np.bincount(drawn, weight, minlength=len(self.scores_))
        self.scores_ = self.scores_ + self.learning_rate * self._scaled(gain) * credit

    def _scaled(self, gain):
        """The gain, such that the middle three fifths of all lie between -1 and 1."""
        low, high = np.percentile(self._gains, [20, 80])
        if low == high:
            return 0.0
        return float(np.clip(2 * (gain - low) / (high - low) - 1, -1, 1))
