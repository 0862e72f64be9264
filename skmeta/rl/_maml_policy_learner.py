"""Policy gradient as the inner loop of a meta-learner, in Torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..inner_loop import TaskForward
from ..tasks._batch import TaskBatch
from ._actions import Actions
from ._ppo import clipped_surrogate, masked_mean
from ._returns import (
    discounted_returns,
    generalised_advantages,
    linear_baseline,
    standardised,
)
from ._rollout import Rollout

#: Parameters of the policy, each with a leading task axis.
Weights = dict[str, Tensor]
_FREE = "log_std"
#: Logarithm of the standard deviation of what the shared policy does.
_SPREAD = 0.5


class Phase(NamedTuple):
    """Episodes between two steps, with what learning from them takes.

    Parameters
    ----------
    episodes : Rollout
        What happened.
    advantage, old : Tensor of shape (n_tasks, n_rows)
        Advantages, and log-probabilities under the policy that acted.
    """

    episodes: Rollout
    advantage: Tensor
    old: Tensor


class PolicyLearner(nn.Module):
    """A small policy network, and how the policy of a task is learned from episodes.

    Parameters
    ----------
    n_features : int
        Width of an observation.
    actions : DiscreteActions or BoxActions
        What the policy chooses from.
    hidden : sequence of int
        Widths of the layers.
    inner_lr : float
        Length of the first gradient step of a task.
    later_lr : float
        Length of the following steps.
    gamma, gae_lambda : float
        Discount of rewards, and of their differences from the baseline.
    """

    def __init__(
        self,
        n_features: int,
        actions: Actions,
        hidden: Sequence[int],
        inner_lr: float,
        later_lr: float,
        gamma: float,
        gae_lambda: float,
    ):
        super().__init__()
        self.actions = actions
        self.inner_lr, self.later_lr = inner_lr, later_lr
        self.gamma, self.gae_lambda = gamma, gae_lambda
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(n_features, width), nn.Tanh()]
            n_features = width
        last = nn.Linear(n_features, actions.n_outputs)
        nn.init.orthogonal_(last.weight, 0.01)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last)
        # The shared policy has to find out and spreads widely; adapted ones have to get
        # there. That spread is not learned: the surrogate gives no credit for what
        # wide trying shows, and would narrow it to what pays where it is already.
        self.free = nn.Buffer(torch.full((actions.n_free,), _SPREAD))
        self.narrowing = nn.Parameter(torch.full((actions.n_free,), -_SPREAD - 1))
        self._forward = TaskForward(self.network)

    def shared(self, n_tasks: int) -> Weights:
        """The meta-learned policy, once for every task."""
        named = dict(self.network.named_parameters())
        weights = {k: v.expand(n_tasks, *v.shape) for k, v in named.items()}
        # Tasks change their spread by gradient as well, from the same start.
        return weights | {_FREE: self.free.repeat(n_tasks, 1).requires_grad_()}

    def outputs(self, weights: Weights, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of every task's own policy, and its numbers that are free.

        Parameters
        ----------
        weights : dict of str to Tensor
            Policies.
        observation : Tensor of shape (n_tasks, n_rows, n_features)
        """
        fast = {k: v for k, v in weights.items() if k != _FREE}
        output = self._forward(fast, TaskBatch(observation))
        return output, weights[_FREE][:, None]

    def log_prob(self, weights: Weights, episodes: Rollout) -> Tensor:
        """Log-probabilities of what was done, (n_tasks, n_rows)."""
        output, free = self.outputs(weights, episodes.observation.flatten(1, 2))
        return self.actions.log_prob(output, free, episodes.action.flatten(1, 2))

    def advantages(self, episodes: Rollout) -> Tensor:
        """Advantages over a baseline that is linear in position and time [1]_.

        Standardised task by task; (n_tasks, n_rows).

        References
        ----------
        .. [1] Y. Duan et al., "Benchmarking deep reinforcement learning for continuous
           control", ICML 2016.
        """
        reward, mask = episodes.reward, episodes.mask
        target = discounted_returns(reward, self.gamma).flatten(1)
        features = baseline_features(episodes)
        baseline = linear_baseline(features, target, mask.flatten(1))
        value = baseline.view_as(reward)
        advantage = generalised_advantages(
            reward, value, mask, self.gamma, self.gae_lambda
        )
        return standardised(advantage.flatten(1), mask.flatten(1), (1,))

    def improved(
        self,
        weights: Weights,
        episodes: Rollout,
        advantage: Tensor,
        old: Tensor,
        step: int,
        *,
        keep_graph: bool = False,
    ) -> Weights:
        """Weights after one step of policy gradient in every task.

        Parameters
        ----------
        weights : dict of str to Tensor
            Policies to start from.
        episodes : Rollout
            What happened under policies near by.
        advantage, old : Tensor of shape (n_tasks, n_rows)
            Advantages, and log-probabilities under the policies that acted: their
            ratio weighs the rows where `weights` have moved since [1]_.
        step : int
            Number of the step, from 0 on.
        keep_graph : bool, default=False
            Whether the outer loop will differentiate through the step.

        References
        ----------
        .. [1] J. Rothfuss et al., "ProMP: proximal meta-policy search", ICLR 2019.
        """
        mask = episodes.mask.flatten(1).to(advantage.dtype)
        ratio = (self.log_prob(weights, episodes) - old).exp()
        gain = (ratio * advantage * mask).sum(1) / mask.sum(1).clamp(min=1)
        names = list(weights)
        gradients = torch.autograd.grad(
            gain.sum(),
            [weights[k] for k in names],
            create_graph=keep_graph,
            allow_unused=True,  # discrete actions have no numbers that are free
            materialize_grads=True,
        )
        rate = self.inner_lr if step == 0 else self.later_lr
        after = {
            k: weights[k] + rate * g for k, g in zip(names, gradients, strict=True)
        }
        if step == 0:
            after[_FREE] = after[_FREE] + self.narrowing
        return after

    def adapt(self, weights: Weights, episodes: Rollout, step: int) -> Weights:
        """The same, for episodes of these very policies and with nothing to train."""
        weights = {k: v.detach().requires_grad_() for k, v in weights.items()}
        old = self.log_prob(weights, episodes).detach()
        better = self.improved(weights, episodes, self.advantages(episodes), old, step)
        return {k: v.detach() for k, v in better.items()}

    def outer_loss(
        self, phases: Sequence[Phase], clip: float, entropy: float
    ) -> Tensor:
        """Loss of the meta-learned policy: how its adapted versions fare.

        Parameters
        ----------
        phases : sequence of Phase
            Episodes of the meta-learned policy, then those after each step.
        clip : float
            Of the surrogate.
        entropy : float
            Reward for the entropy of the meta-learned policy and of adapted ones.
        """
        policies = [self.shared(phases[0].episodes.n_tasks)]
        for step, phase in enumerate(phases[:-1]):
            better = self.improved(policies[-1], *phase, step, keep_graph=True)
            policies.append(better)
        episodes, advantage, old = phases[-1]
        log_prob = self.log_prob(policies[-1], episodes)
        gain = clipped_surrogate(log_prob, old, advantage, clip)
        loss = -masked_mean(gain, episodes.mask.flatten(1))
        if entropy:
            for weights, phase in zip(policies, phases, strict=True):
                loss = loss - entropy * self.entropy(weights, phase.episodes)
        return loss

    def entropy(self, weights: Weights, episodes: Rollout) -> Tensor:
        """Mean entropy of what policies would do where they have been."""
        output, free = self.outputs(weights, episodes.observation.flatten(1, 2))
        entropy = self.actions.entropy(output, free)
        return masked_mean(entropy, episodes.mask.flatten(1))


class PolicyActor:
    """Draws actions from the policy of every task, for `run_episode`.

    Rows of a batch are episodes, those of one task next to each other.
    """

    def __init__(self, learner: PolicyLearner, weights: Weights, generator):
        self.learner, self.weights, self.generator = learner, weights, generator

    @torch.no_grad()
    def __call__(self, observation: Tensor, alive: Tensor) -> Tensor:
        n_tasks = len(self.weights[_FREE])
        rows = observation.view(n_tasks, -1, observation.shape[-1])
        output, free = self.learner.outputs(self.weights, rows)
        return self.learner.actions.sample(output, free, self.generator).flatten(0, 1)


def baseline_features(episodes: Rollout) -> Tensor:
    """Observations, their squares, and powers of time: (n_tasks, n_rows, n_columns)."""
    observation = episodes.observation.clamp(-10, 10)
    time = torch.arange(observation.shape[2], dtype=observation.dtype) / 100
    powers = torch.stack([time**k for k in range(4)], dim=-1)
    powers = powers.expand(*observation.shape[:2], *powers.shape)
    columns = torch.cat([observation, observation.square(), powers], dim=-1)
    return columns.flatten(1, 2)
