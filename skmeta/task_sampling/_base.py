"""What a task sampler is: scores of the training tasks, and draws that follow them."""

from __future__ import annotations

from abc import ABC
from numbers import Real

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

#: Constraints of a share and of a number above zero.
SHARE = [Interval(Real, 0, 1, closed="both")]
POSITIVE = [Interval(Real, 0, None, closed="neither")]


class TaskSampler(BaseEstimator, ABC):
    """Draws training tasks by scores that the validation tasks give them.

    An estimator clones what it is given as ``task_sampler``; the clone that has learned
    is its ``task_sampler_``.

    Subclasses implement ``before_step`` or ``after_step``, which see a training step as
    a `skmeta.outer_loop.Trial` and change ``scores_``.

    Parameters
    ----------
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
    """

    _parameter_constraints: dict = {"sources": [dict, None], "exploration": SHARE}

    def __init__(self, sources=None, exploration=0.1):
        self.sources = sources
        self.exploration = exploration

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
        self._validate_params()
        self.tasks_ = list(tasks)
        sources = [self._source(task) for task in self.tasks_]
        self.sources_ = list(dict.fromkeys(sources))
        place = {source: i for i, source in enumerate(self.sources_)}
        self._source_of = np.array([place[source] for source in sources])
        self.scores_ = np.zeros(len(self.sources_))
        return self

    @property
    def probabilities_(self):
        """Share of each task in the next meta-batch, ``(n_tasks,)``."""
        chosen = (1 - self.exploration) * softmax(self.scores_[self._source_of])
        return chosen + self.exploration / len(self.tasks_)

    def draw(self, rng, n_draws):
        """Positions of the tasks of a meta-batch.

        Systematic sampling: a task is drawn as often as its share says, rounded up or
        down, so that tasks are distinct where none of them has a large share.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of random numbers.
        n_draws : int
            Tasks to draw.

        Returns
        -------
        int ndarray of shape (n_draws,)
        """
        order = rng.permutation(len(self.tasks_))
        edges = np.cumsum(self.probabilities_[order])
        points = (np.arange(n_draws) + rng.random()) / n_draws * edges[-1]
        return order[np.searchsorted(edges[:-1], points, side="right")]

    def before_step(self, trial):
        """Learn from a meta-batch before the learner does.

        Parameters
        ----------
        trial : skmeta.outer_loop.Trial
            The step that follows.
        """

    def after_step(self, trial):
        """Learn from what a training step has changed.

        Parameters
        ----------
        trial : skmeta.outer_loop.Trial
            The step that was taken.
        """

    def _source(self, task):
        if self.sources is None:
            return task
        if task not in self.sources:
            raise ValueError(
                f"sources of {type(self).__name__} has no entry for task {task!r}."
            )
        return self.sources[task]
