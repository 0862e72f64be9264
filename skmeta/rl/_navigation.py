"""A point in the plane that has to find a goal."""

from __future__ import annotations

import torch

from ._actions import BoxActions
from ._env import TensorEnv


class PointNavigation(TensorEnv):
    """A point starts at 0 and is punished for its distance to a goal it cannot see.

    A task is a goal, uniform on a square around the start. An observation is the
    position; an action in [-1, 1]^2 moves by at most `step_size` in each direction;
    the reward is the negative distance to the goal after the move [1]_.

    Parameters
    ----------
    n_steps : int, default=100
        Steps of an episode.
    step_size : float, default=0.1
        Largest move in each direction.
    reach : float, default=0.5
        Goals have both coordinates in [-reach, reach].

    References
    ----------
    .. [1] C. Finn, P. Abbeel and S. Levine, "Model-agnostic meta-learning for fast
       adaptation of deep networks", ICML 2017.

    Examples
    --------
    >>> import torch
    >>> from skmeta.rl import PointNavigation
    >>> plane = PointNavigation().make(2, random_state=0)
    >>> plane.reset().tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    >>> position, reward, ended = plane.step(torch.tensor([[1.0, 0.0], [0.0, -9.0]]))
    >>> [[round(x, 6) for x in row] for row in position.tolist()]
    [[0.1, 0.0], [0.0, -0.1]]
    """

    n_features = 2
    actions = BoxActions(2)

    def __init__(self, n_steps=100, step_size=0.1, reach=0.5):
        self.n_steps = n_steps
        self.step_size = step_size
        self.reach = reach

    @property
    def horizon(self):
        """Steps of an episode."""
        return self.n_steps

    @property
    def limit(self):
        """As far as all steps in one direction lead."""
        return self.n_steps * self.step_size

    def sample_tasks(self, n_tasks, generator):
        """Goals of shape (n_tasks, 2)."""
        return (2 * torch.rand(n_tasks, 2, generator=generator) - 1) * self.reach

    def initial_state(self, tasks, generator):
        """All start at 0."""
        return torch.zeros_like(tasks)

    def observe(self, state):
        """The position."""
        return state

    def step(self, tasks, state, action, generator):
        """Move, and measure the distance to the goal."""
        state = state + self.step_size * action.clamp(-1, 1)
        reward = -torch.linalg.vector_norm(state - tasks, dim=1)
        return state, reward, torch.zeros(len(state), dtype=torch.bool)
