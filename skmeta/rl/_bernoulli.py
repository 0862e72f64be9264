"""Bandits with Bernoulli rewards."""

from __future__ import annotations

import torch

from ._actions import DiscreteActions
from ._env import TensorEnv


class BernoulliBandits(TensorEnv):
    """Slot machines: every arm pays 1 with a probability of its own, else 0.

    A task is a machine, whose probabilities are uniform on [0, 1]. An episode is a
    fixed number of pulls; there is nothing to observe but what was paid.

    Parameters
    ----------
    n_arms : int, default=5
        Number of arms.
    n_pulls : int, default=10
        Pulls of an episode.

    Examples
    --------
    >>> import torch
    >>> from skmeta.rl import BernoulliBandits
    >>> machines = BernoulliBandits(n_arms=3).make(1000, random_state=0)
    >>> _ = machines.reset()
    >>> _, reward, _ = machines.step(torch.zeros(1000, dtype=torch.long))
    >>> reward.shape
    torch.Size([1000])
    """

    n_features = 1
    limit = 1.0

    def __init__(self, n_arms=5, n_pulls=10):
        self.n_arms = n_arms
        self.n_pulls = n_pulls

    @property
    def actions(self):
        """One of the arms."""
        return DiscreteActions(self.n_arms)

    @property
    def horizon(self):
        """Pulls of an episode."""
        return self.n_pulls

    def sample_tasks(self, n_tasks, generator):
        """Probabilities of shape (n_tasks, n_arms)."""
        return torch.rand(n_tasks, self.n_arms, generator=generator)

    def initial_state(self, tasks, generator):
        """Nothing is remembered from one pull to the next."""
        return torch.zeros(len(tasks), 1)

    def observe(self, state):
        """The same number always."""
        return state

    def step(self, tasks, state, action, generator):
        """Pull one arm of every machine."""
        p = tasks.gather(1, action[:, None])[:, 0]
        reward = (torch.rand(len(p), generator=generator) < p).float()
        return state, reward, torch.zeros(len(p), dtype=torch.bool)
