"""RL2 in Torch: a recurrent network that is its own learning algorithm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ._actions import Actions
from ._returns import generalised_advantages
from ._rollout import Rollout, run_episode


@dataclass(frozen=True)
class Memory:
    """What the network knows of every task.

    Parameters
    ----------
    hidden : Tensor of shape (1, n_tasks, n_hidden + width)
        Hidden state of the recurrent layer, and what the network saw last.
    action : Tensor of shape (n_tasks, n_encoded)
        Last action, encoded.
    reward : Tensor of shape (n_tasks,)
        What it brought.
    """

    hidden: Tensor
    action: Tensor
    reward: Tensor

    def where(self, chosen: Tensor, other: Memory) -> Memory:
        """Of this memory the chosen tasks, of the other one the rest."""
        return Memory(
            torch.where(chosen[None, :, None], self.hidden, other.hidden),
            torch.where(chosen[:, None], self.action, other.action),
            torch.where(chosen, self.reward, other.reward),
        )


class RL2Network(nn.Module):
    """A gated recurrent unit that sees observations, actions, rewards and starts.

    Parameters
    ----------
    n_features : int
        Width of an observation.
    actions : DiscreteActions or BoxActions
        What the policy chooses from.
    hidden : int
        Width of the recurrent layer.
    """

    def __init__(self, n_features: int, actions: Actions, hidden: int):
        super().__init__()
        self.actions = actions
        self.n_features = n_features
        width = n_features + actions.n_encoded + 2
        n_seen = width + n_features + 1
        self.recurrent = nn.GRU(n_seen, hidden, batch_first=True)
        self.policy = nn.Linear(hidden, actions.n_outputs)
        self.value = nn.Linear(hidden, 1)
        self.free = nn.Parameter(torch.full((actions.n_free,), -0.5))
        self.center = nn.Buffer(torch.zeros(n_seen))
        self.scale = nn.Buffer(torch.ones(n_seen))
        # All actions are tried alike at first, and nothing is expected.
        for head in (self.policy, self.value):
            nn.init.orthogonal_(head.weight, 0.01)
            nn.init.zeros_(head.bias)

    @torch.no_grad()
    def calibrate(self, inputs: Tensor, mask: Tensor) -> None:
        """Standardise what an untrained policy sees, apart from actions and starts.

        Parameters
        ----------
        inputs : Tensor of shape (n_tasks, n_steps, width)
            From `inputs_of`.
        mask : bool Tensor of shape (n_tasks, n_steps)
            False for padding.
        """
        rows = self._with_changes(inputs, inputs[:, :1])[mask]
        spread = rows.std(0)
        chosen = spread > 1e-6
        chosen[self.n_features : self.n_features + self.actions.n_encoded] = False
        chosen[inputs.shape[-1] - 1] = False
        self.center[chosen] = rows.mean(0)[chosen]
        self.scale[chosen] = spread[chosen]

    def _with_changes(self, inputs: Tensor, last: Tensor) -> Tensor:
        """Inputs, and the changes of observations and rewards within an episode.

        A step changes a distance by little, and it is that little which tells where to
        go: beside the distance itself it would hardly be seen.
        """
        before = torch.cat([last, inputs[:, :-1]], dim=1)
        changes = (inputs - before) * (1 - inputs[..., -1:])
        observation = changes[..., : self.n_features]
        # At the start of an episode nothing has been paid yet.
        reward = changes[..., -2:-1] * (1 - before[..., -1:])
        return torch.cat([inputs, observation, reward], dim=-1)

    def blank(self, n_tasks: int) -> Memory:
        """Memory of tasks of which nothing is known."""
        weight = self.value.weight
        n_encoded = self.actions.n_encoded
        width = self.n_features + n_encoded + 2
        return Memory(
            weight.new_zeros(1, n_tasks, self.recurrent.hidden_size + width),
            weight.new_zeros(n_tasks, n_encoded),
            weight.new_zeros(n_tasks),
        )

    def forward(self, inputs: Tensor, hidden: Tensor | None = None):
        """Outputs of the policy and predicted returns along sequences.

        Parameters
        ----------
        inputs : Tensor of shape (n_tasks, n_steps, width)
            From `inputs_of`.
        hidden : Tensor of shape (1, n_tasks, n_hidden + width), default=None
            As in `Memory`, before the first step.
        """
        hidden = self.blank(len(inputs)).hidden if hidden is None else hidden
        state, last = hidden.split([self.recurrent.hidden_size, inputs.shape[-1]], -1)
        seen = self._with_changes(inputs, last.transpose(0, 1))
        seen = (seen - self.center) / self.scale
        features, state = self.recurrent(seen, state.contiguous())
        hidden = torch.cat([state, inputs[:, -1:].transpose(0, 1)], dim=-1)
        return self.policy(features), self.value(features)[..., 0], hidden

    def act(self, memory: Memory, observation: Tensor, start: Tensor):
        """Outputs of the policy for one step of every task, and the hidden state."""
        flag = start.to(observation.dtype)[:, None]
        row = torch.cat(
            [observation, memory.action, memory.reward[:, None], flag], dim=1
        )
        output, _, hidden = self(row[:, None], memory.hidden)
        return output[:, 0], hidden


class RecurrentActor:
    """Draws actions and remembers what came of them, for `run_episode`."""

    def __init__(self, network: RL2Network, memory: Memory, generator):
        self.network, self.memory, self.generator = network, memory, generator
        self.start = torch.ones(len(memory.reward), dtype=torch.bool)

    def __call__(self, observation: Tensor, alive: Tensor) -> Tensor:
        output, hidden = self.network.act(self.memory, observation, self.start)
        actions = self.network.actions
        action = actions.sample(output, self.network.free, self.generator)
        following = Memory(hidden, actions.encode(action), self.memory.reward)
        self.memory = following.where(alive, self.memory)
        self.start = torch.zeros_like(self.start)
        return action

    def learn(self, reward: Tensor, alive: Tensor) -> None:
        """Take in the rewards of the last actions."""
        known = torch.where(alive, reward, self.memory.reward)
        self.memory = replace(self.memory, reward=known)


@torch.no_grad()
def run_trial(network, batch, n_episodes, generator, memory=None):
    """Episodes of every task one after the other, with one memory throughout.

    Returns
    -------
    episodes : list of Rollout
    memory : Memory
        What is known in the end.
    """
    memory = network.blank(batch.n_tasks) if memory is None else memory
    episodes = []
    for _ in range(n_episodes):
        actor = RecurrentActor(network, memory, generator)
        episodes.append(run_episode(batch, actor))
        memory = actor.memory
    return episodes, memory


def trial_of(episodes: Rollout) -> tuple[Rollout, Tensor]:
    """Episodes as one sequence for each task, without the gaps between them.

    Returns
    -------
    trial : Rollout
        With one "episode" for each task, padded at the end.
    start : bool Tensor of shape (n_tasks, n_steps)
        First steps of the episodes.
    """
    mask = episodes.mask.flatten(1)
    start = torch.zeros_like(episodes.mask)
    start[:, :, 0] = True
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    order = order[:, : int(mask.sum(1).max())]

    def pick(field):
        flat = field.flatten(1, 2)
        index = order.reshape(*order.shape, *[1] * (flat.ndim - 2))
        return flat.gather(1, index.expand(*order.shape, *flat.shape[2:]))

    fields = episodes.observation, episodes.action, episodes.reward, episodes.mask
    return Rollout(*(pick(field)[:, None] for field in fields)), pick(start)


def inputs_of(actions: Actions, trial: Rollout, start: Tensor) -> Tensor:
    """What the network saw at every step: (n_tasks, n_steps, width)."""
    encoded, reward = actions.encode(trial.action[:, 0]), trial.reward[:, 0]
    before = torch.cat([torch.zeros_like(encoded[:, :1]), encoded[:, :-1]], dim=1)
    paid = torch.cat([torch.zeros_like(reward[:, :1]), reward[:, :-1]], dim=1)
    flag = start.to(reward.dtype)
    columns = [trial.observation[:, 0], before, paid[..., None], flag[..., None]]
    return torch.cat(columns, dim=-1)


@torch.no_grad()
def replay(network: RL2Network, trial: Rollout, start: Tensor, memory: Memory):
    """Memory after steps that were recorded."""
    mask = trial.mask[:, 0]
    actor = RecurrentActor(network, memory, None)
    encoded = network.actions.encode(trial.action[:, 0])
    for t in range(mask.shape[1]):
        known = actor.memory
        _, hidden = network.act(known, trial.observation[:, 0, t], start[:, t])
        following = Memory(hidden, encoded[:, t], trial.reward[:, 0, t])
        actor.memory = following.where(mask[:, t], known)
    return actor.memory


def advantages_of(network, inputs, trial, scale, gamma, gae_lambda):
    """Log-probabilities of the policy that acted, advantages and value targets."""
    with torch.no_grad():
        output, value, _ = network(inputs)
        log_prob = network.actions.log_prob(output, network.free, trial.action[:, 0])
        advantage = generalised_advantages(
            trial.reward[:, 0] / scale, value, trial.mask[:, 0], gamma, gae_lambda
        )
    return log_prob, advantage, advantage + value
