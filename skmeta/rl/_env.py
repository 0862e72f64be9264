"""Environments that step a whole batch of tasks as tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from sklearn.utils import check_random_state
from torch import Tensor

from ._actions import Actions


class TensorEnv(ABC):
    """A distribution of tasks, and how a batch of them is stepped.

    A task is a row of numbers, such as the place of a goal. All methods are pure
    functions over a leading task axis, and every random number comes from the
    generator that they are given, so thousands of tasks step in one call and the same
    seed gives the same episodes. Subclass it for an environment of your own.

    Attributes
    ----------
    n_features : int
        Width of an observation.
    actions : DiscreteActions or BoxActions
        What an action is.
    horizon : int
        Steps of an episode at the most.
    limit : float
        Bound on the size of the numbers of an observation, for spaces of gymnasium.
    """

    limit: float = math.inf
    n_features: int
    actions: Actions
    horizon: int

    @abstractmethod
    def sample_tasks(self, n_tasks: int, generator: torch.Generator) -> Tensor:
        """Draw tasks, a tensor of shape (n_tasks, n_numbers)."""

    @abstractmethod
    def initial_state(self, tasks: Tensor, generator: torch.Generator) -> Tensor:
        """State at the start of an episode, of shape (n_tasks, n_numbers)."""

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """Observations of shape (n_tasks, n_features)."""

    @abstractmethod
    def step(
        self, tasks: Tensor, state: Tensor, action: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State after an action, its reward, and whether the episode has ended."""

    def make(self, n_tasks: int = 1, random_state=None) -> TensorEnvBatch:
        """Tasks drawn once, to adapt to or to step by hand.

        Parameters
        ----------
        n_tasks : int, default=1
            Number of tasks.
        random_state : int, RandomState instance or None, default=None
            Seed of the tasks and of everything that happens in them.

        Returns
        -------
        TensorEnvBatch
            With ``reset()`` and ``step(action)``.
        """
        generator = generator_of(random_state)
        return TensorEnvBatch(self, self.sample_tasks(n_tasks, generator), generator)


class TensorEnvBatch:
    """Some tasks of a `TensorEnv`, with the state of their current episode.

    Parameters
    ----------
    env : TensorEnv
        Dynamics.
    tasks : Tensor of shape (n_tasks, n_numbers)
        What each task is.
    generator : torch.Generator
        Source of all random numbers.
    """

    def __init__(self, env: TensorEnv, tasks: Tensor, generator: torch.Generator):
        self.env = env
        self.tasks = tasks
        self.generator = generator

    def __repr__(self):
        n = self.n_tasks
        return f"<{n} task{'s' if n != 1 else ''} of {type(self.env).__name__}>"

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.tasks)

    @property
    def n_features(self) -> int:
        """Width of an observation."""
        return self.env.n_features

    @property
    def actions(self) -> Actions:
        """What an action is."""
        return self.env.actions

    @property
    def horizon(self) -> int:
        """Steps of an episode at the most."""
        return self.env.horizon

    def reset(self) -> Tensor:
        """Start an episode in every task; observations (n_tasks, n_features)."""
        self.state = self.env.initial_state(self.tasks, self.generator)
        return self.env.observe(self.state)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observations, rewards and whether the episode has ended, of every task."""
        self.state, reward, ended = self.env.step(
            self.tasks, self.state, action, self.generator
        )
        return self.env.observe(self.state), reward, ended

    def seeded(self, generator: torch.Generator) -> TensorEnvBatch:
        """The same tasks with another source of random numbers."""
        return TensorEnvBatch(self.env, self.tasks, generator)

    def take(self, tasks: Tensor) -> TensorEnvBatch:
        """The tasks at the given positions."""
        return TensorEnvBatch(self.env, self.tasks[tasks], self.generator)

    def repeat(self, n: int) -> TensorEnvBatch:
        """Every task `n` times, next to each other."""
        tasks = self.tasks.repeat_interleave(n, dim=0)
        return TensorEnvBatch(self.env, tasks, self.generator)


def generator_of(random_state) -> torch.Generator:
    """A generator of its own; Torch's global one is left alone."""
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    return torch.Generator().manual_seed(seed)
