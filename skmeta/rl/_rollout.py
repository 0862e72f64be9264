"""Episodes as they are collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Episode(NamedTuple):
    """One recorded episode of one task, to adapt to without an environment.

    Parameters
    ----------
    observations : array-like of shape (n_steps, n_features)
        What was observed before each action.
    actions : array-like of shape (n_steps,) or (n_steps, n_coordinates)
        What was done.
    rewards : array-like of shape (n_steps,)
        What each action brought.
    """

    observations: object
    actions: object
    rewards: object


@dataclass(frozen=True)
class Rollout:
    """Episodes of several tasks, padded at the end.

    Parameters
    ----------
    observation : Tensor of shape (n_tasks, n_episodes, n_steps, n_features)
    action : Tensor of shape (n_tasks, n_episodes, n_steps, ...)
    reward : Tensor of shape (n_tasks, n_episodes, n_steps)
        Zero for padding.
    mask : bool Tensor of shape (n_tasks, n_episodes, n_steps)
        True for steps that were taken.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    mask: Tensor

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.reward)

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of every episode, (n_tasks, n_episodes)."""
        return self.reward.sum(-1)

    @property
    def n_steps(self) -> int:
        """Steps that were taken in all tasks together."""
        return int(self.mask.sum())


def run_episode(batch, act) -> Rollout:
    """One episode in every task.

    Parameters
    ----------
    batch : TensorEnvBatch or another batch of environments
        Tasks.
    act : callable
        ``act(observation, alive)`` gives the actions of all tasks, and is called once
        more with ``act.reward`` by those who learn from rewards; see `RecurrentActor`.
    """
    observation, alive = batch.reset(), torch.ones(batch.n_tasks, dtype=torch.bool)
    steps = []
    for _ in range(batch.horizon):
        action = act(observation, alive)
        following, reward, ended = batch.step(action)
        reward = torch.where(alive, reward, 0.0)
        steps.append((observation, action, reward, alive))
        if hasattr(act, "learn"):
            act.learn(reward, alive)
        observation, alive = following, alive & ~ended
        if not alive.any():
            break
    columns = (torch.stack(column, dim=1) for column in zip(*steps, strict=True))
    return Rollout(*(column[:, None] for column in columns))


def run_episodes(batch, act, n_episodes: int) -> Rollout:
    """Several episodes of every task under a policy that does not change.

    Tasks that can be copied run all of their episodes side by side.
    """
    if hasattr(batch, "repeat"):
        shape = (batch.n_tasks, n_episodes)
        wide = run_episode(batch.repeat(n_episodes), act)
        return Rollout(
            *(
                field[:, 0].reshape(*shape, *field.shape[2:])
                for field in (wide.observation, wide.action, wide.reward, wide.mask)
            )
        )
    return joined([run_episode(batch, act) for _ in range(n_episodes)])


def joined(parts: Sequence[Rollout]) -> Rollout:
    """Episodes of the same tasks, one part after the other."""
    length = max(part.reward.shape[2] for part in parts)

    def pad(field):
        missing = length - field.shape[2]
        filler = field.new_zeros((*field.shape[:2], missing, *field.shape[3:]))
        return torch.cat([field, filler], dim=2) if missing else field

    names = ("observation", "action", "reward", "mask")
    return Rollout(
        *(torch.cat([pad(getattr(p, name)) for p in parts], dim=1) for name in names)
    )


def recorded(episodes: Sequence[Episode], n_features: int, actions) -> Rollout:
    """Recorded episodes of one task as a padded rollout of one task."""
    parts = []
    for i, episode in enumerate(episodes):
        observation = torch.as_tensor(np.asarray(episode[0], dtype=np.float32))
        action = torch.as_tensor(np.asarray(episode[1]))
        reward = torch.as_tensor(np.asarray(episode[2], dtype=np.float32))
        action = action.long() if actions.n_free == 0 else action.float()
        n_steps, width = len(reward), () if actions.n_free == 0 else (actions.size,)
        if n_steps == 0:
            raise ValueError(f"Episode {i} is empty: it has 0 steps.")
        if observation.shape != (n_steps, n_features) or action.shape != (
            n_steps,
            *width,
        ):
            raise ValueError(
                f"Episode {i}: expected observations of shape {(n_steps, n_features)} "
                f"and actions of shape {(n_steps, *width)} beside {n_steps} rewards; "
                f"got {tuple(observation.shape)} and {tuple(action.shape)}."
            )
        if not (observation.isfinite().all() and reward.isfinite().all()):
            raise ValueError(f"Episode {i} contains NaN or infinity.")
        mask = torch.ones(n_steps, dtype=torch.bool)
        fields = observation, action, reward, mask
        parts.append(Rollout(*(field[None, None] for field in fields)))
    return joined(parts)
