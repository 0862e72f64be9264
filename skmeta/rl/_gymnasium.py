"""To and from environments of gymnasium; imported only where they are used."""

from __future__ import annotations

import numpy as np
import torch

try:
    import gymnasium as gym
    from gymnasium.spaces.utils import flatdim, flatten
    from gymnasium.vector.utils import iterate
except ImportError as error:
    raise ImportError(
        "Environments of gymnasium need the package gymnasium; install it with "
        "pip install skmeta[rl]."
    ) from error

from ._actions import BoxActions, DiscreteActions
from ._env import TensorEnv, TensorEnvBatch


class GymnasiumEnv(gym.Env):
    """One task of a `TensorEnv` with the interface of gymnasium.

    Parameters
    ----------
    env : TensorEnv
        Dynamics.
    task : Tensor of shape (n_numbers,), default=None
        What the task is; drawn by every ``reset`` if None.
    """

    metadata = {"render_modes": []}

    def __init__(self, env: TensorEnv, task=None):
        self.env, self.task = env, task
        self.render_mode = None
        limit = np.full(env.n_features, env.limit, dtype=np.float32)
        self.observation_space = gym.spaces.Box(-limit, limit, dtype=np.float32)
        if isinstance(env.actions, DiscreteActions):
            self.action_space = gym.spaces.Discrete(env.actions.n)
        else:
            self.action_space = gym.spaces.Box(
                -1.0, 1.0, (env.actions.size,), dtype=np.float32
            )

    def reset(self, *, seed=None, options=None):
        """Start an episode."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31))
        generator = torch.Generator().manual_seed(seed)
        tasks = (
            self.env.sample_tasks(1, generator)
            if self.task is None
            else self.task[None]
        )
        self._batch = TensorEnvBatch(self.env, tasks, generator)
        self._n_steps = 0
        return self._batch.reset()[0].numpy().copy(), {}

    def step(self, action):
        """Take an action."""
        discrete = isinstance(self.env.actions, DiscreteActions)
        action = torch.as_tensor(np.asarray(action))[None]
        observation, reward, ended = self._batch.step(
            action.long() if discrete else action.float()
        )
        self._n_steps += 1
        truncated = self._n_steps >= self.env.horizon
        row = observation[0].numpy().copy()
        return row, float(reward[0]), bool(ended[0]), truncated, {}


class VectorEnvBatch:
    """A vector environment of gymnasium, every part of which is a task.

    Parameters
    ----------
    envs : gymnasium.vector.VectorEnv
        Environments that step together, with any mode of starting anew.
    horizon : int, default=None
        Longest episode; by default the time limit of the environments.
    """

    def __init__(self, envs, horizon=None):
        self.envs = envs
        self.n_tasks = envs.num_envs
        self.horizon = horizon or _time_limit(envs)
        space = envs.single_observation_space
        if not space.is_np_flattenable:
            raise TypeError(f"observations of {space} are not rows of fixed width.")
        self.n_features = flatdim(space)
        self.actions = _actions_of(envs.single_action_space)
        self._seed = None

    def seeded(self, generator):
        """The same environments, which start from a new seed."""
        new = VectorEnvBatch(self.envs, self.horizon)
        new._seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        return new

    def reset(self):
        """Start an episode everywhere."""
        observation, _ = self.envs.reset(seed=self._seed)
        self._seed = None  # later episodes go on with the same random numbers
        self._done = np.zeros(self.n_tasks, dtype=bool)
        return self._rows(observation)

    def step(self, action):
        """Take an action everywhere; what ends is not looked at again."""
        mode = str(getattr(self.envs.metadata.get("autoreset_mode"), "value", ""))
        if mode == "Disabled" and self._done.any():
            self.envs.reset(options={"reset_mask": self._done.copy()})
        observation, reward, ended, cut, _ = self.envs.step(self._native(action))
        self._done = ended | cut
        reward = torch.as_tensor(np.asarray(reward, dtype=np.float32))
        return self._rows(observation), reward, torch.as_tensor(self._done.copy())

    def _rows(self, observation):
        space = self.envs.single_observation_space
        if isinstance(space, gym.spaces.Box):
            rows = np.reshape(observation, (self.n_tasks, -1))
        else:
            parts = iterate(self.envs.observation_space, observation)
            rows = np.stack([flatten(space, part) for part in parts])
        return torch.as_tensor(rows.astype(np.float32))

    def _native(self, action):
        space = self.envs.single_action_space
        if isinstance(space, gym.spaces.Discrete):
            return action.numpy() + space.start
        unit = (action.clamp(-1, 1).numpy() + 1) / 2
        low, high = space.low.ravel(), space.high.ravel()
        scaled = low + unit * (high - low)
        return scaled.reshape(self.n_tasks, *space.shape).astype(space.dtype)


def _actions_of(space):
    if isinstance(space, gym.spaces.Discrete):
        return DiscreteActions(int(space.n))
    if isinstance(space, gym.spaces.Box) and space.is_bounded():
        return BoxActions(int(np.prod(space.shape)))
    raise TypeError(f"actions must be Discrete or a bounded Box; got {space}.")


def _time_limit(envs):
    parts = [env.unwrapped for env in getattr(envs, "envs", [])]
    if parts and all(isinstance(part, GymnasiumEnv) for part in parts):
        return max(part.env.horizon for part in parts)
    specs = [getattr(env, "spec", None) for env in getattr(envs, "envs", [])]
    specs = specs or [getattr(envs, "spec", None)]
    limits = [getattr(spec, "max_episode_steps", None) for spec in specs]
    if any(limit is None for limit in limits):
        raise ValueError(
            "The environments have no time limit; set horizon, the longest episode."
        )
    return max(limits)


def is_vector(envs) -> bool:
    """Whether it is a vector environment of gymnasium."""
    return isinstance(envs, gym.vector.VectorEnv)


def vector_of(envs):
    """Environments, or factories of them, that step together."""
    for i, env in enumerate(envs):
        if not (isinstance(env, gym.Env) or callable(env)):
            raise TypeError(
                f"envs must hold gymnasium environments or factories; got {env!r} at "
                f"position {i}."
            )

    def factory(env):
        return (lambda: env) if isinstance(env, gym.Env) else env

    return gym.vector.SyncVectorEnv([factory(env) for env in envs])
