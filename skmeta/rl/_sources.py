"""The one door through which environments come in, whatever form they have."""

from __future__ import annotations

import numpy as np
import torch

from ._env import TensorEnv, TensorEnvBatch


def as_source(envs, horizon=None):
    """Something that draws batches of tasks.

    Parameters
    ----------
    envs : TensorEnv, TensorEnvBatch, gymnasium vector environment, gymnasium \
            environment, factory, or a list of the last two
        Where tasks come from.
    horizon : int, default=None
        Longest episode, for environments of gymnasium without a limit of their own.

    Returns
    -------
    source
        With ``n_features``, ``actions`` and ``draw(n_tasks, generator)``.
    """
    if isinstance(envs, TensorEnv):
        return Distribution(envs)
    if isinstance(envs, TensorEnvBatch):
        return Collection(envs, envs.n_tasks)
    if hasattr(envs, "draw") and hasattr(envs, "actions"):
        return envs
    from ._gymnasium import VectorEnvBatch, is_vector, vector_of

    if is_vector(envs):
        batch = VectorEnvBatch(envs, horizon)
        return Collection(batch, batch.n_tasks)
    if isinstance(envs, np.ndarray):
        envs = envs.tolist()
    if not isinstance(envs, (list, tuple)):
        envs = [envs]
    if not envs:
        raise ValueError("envs is an empty list: 0 tasks.")
    return Collection(VectorEnvBatch(vector_of(envs), horizon), len(envs))


class Distribution:
    """Fresh tasks in every draw.

    Parameters
    ----------
    env : TensorEnv
        Where they come from.
    """

    def __init__(self, env):
        self.env = env
        self.n_features, self.actions = env.n_features, env.actions

    def draw(self, n_tasks, generator):
        """So many new tasks."""
        return TensorEnvBatch(
            self.env, self.env.sample_tasks(n_tasks, generator), generator
        )

    def all(self, n_tasks, generator):
        """Tasks to be judged on."""
        return self.draw(n_tasks, generator)


class Collection:
    """The same tasks in every draw, all of them or a random part.

    Parameters
    ----------
    batch : TensorEnvBatch or VectorEnvBatch
        All tasks.
    n_tasks : int
        Their number.
    """

    def __init__(self, batch, n_tasks):
        self.batch, self.n_tasks = batch, n_tasks
        self.n_features, self.actions = batch.n_features, batch.actions

    def draw(self, n_tasks, generator):
        """At most so many of the tasks; all of those that step together."""
        batch = self.batch.seeded(generator)
        if n_tasks >= self.n_tasks or not hasattr(batch, "take"):
            return batch
        return batch.take(torch.randperm(self.n_tasks, generator=generator)[:n_tasks])

    def all(self, n_tasks, generator):
        """All tasks, whatever number is asked for."""
        return self.batch.seeded(generator)
