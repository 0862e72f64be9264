"""What an action is, and the distribution that a policy draws it from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class DiscreteActions:
    """One of `n` actions, drawn from a categorical distribution.

    Parameters
    ----------
    n : int
        Number of actions; an action is an integer tensor in ``range(n)``.
    """

    n: int

    @property
    def n_outputs(self) -> int:
        """Numbers that a network has to give: one logit for each action."""
        return self.n

    #: Numbers of the distribution that do not depend on the observation.
    n_free = 0

    @property
    def n_encoded(self) -> int:
        """Width of an encoded action."""
        return self.n

    def encode(self, action: Tensor) -> Tensor:
        """Actions as inputs of a network: one-hot rows."""
        return F.one_hot(action, self.n).float()

    def clipped(self, action: Tensor) -> Tensor:
        """Actions as an environment takes them."""
        return action

    def sample(self, output: Tensor, free: Tensor, generator) -> Tensor:
        """Draw one action per row of logits."""
        rows = output.softmax(-1).reshape(-1, self.n)
        drawn = torch.multinomial(rows, 1, generator=generator)
        return drawn.reshape(output.shape[:-1])

    def mode(self, output: Tensor) -> Tensor:
        """Most probable action of every row."""
        return output.argmax(-1)

    def log_prob(self, output: Tensor, free: Tensor, action: Tensor) -> Tensor:
        """Log-probability of every action."""
        return output.log_softmax(-1).gather(-1, action[..., None])[..., 0]

    def entropy(self, output: Tensor, free: Tensor) -> Tensor:
        """Entropy of the distribution of every row."""
        log_p = output.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


@dataclass(frozen=True)
class BoxActions:
    """A vector of numbers in [-1, 1], drawn from a normal distribution.

    The network gives the mean; the logarithm of the standard deviation is free and
    the same for all observations. What is drawn outside of [-1, 1] counts as drawn, and
    the environment clips it.

    Parameters
    ----------
    size : int
        Number of coordinates.
    """

    size: int

    @property
    def n_outputs(self) -> int:
        """Numbers that a network has to give: the mean."""
        return self.size

    @property
    def n_free(self) -> int:
        """Numbers that do not depend on the observation: log standard deviations."""
        return self.size

    @property
    def n_encoded(self) -> int:
        """Width of an encoded action."""
        return self.size

    def encode(self, action: Tensor) -> Tensor:
        """Actions as inputs of a network: as the environment takes them."""
        return self.clipped(action)

    def clipped(self, action: Tensor) -> Tensor:
        """Actions as an environment takes them."""
        return action.clamp(-1, 1)

    def sample(self, output: Tensor, free: Tensor, generator) -> Tensor:
        """Draw one action per row of means."""
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        return output + free.exp() * noise

    def mode(self, output: Tensor) -> Tensor:
        """Most probable action of every row."""
        return output

    def log_prob(self, output: Tensor, free: Tensor, action: Tensor) -> Tensor:
        """Log-density of every action."""
        z = (action - output) * (-free).exp()
        return -(0.5 * z.square() + free + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, output: Tensor, free: Tensor) -> Tensor:
        """Entropy of the distribution, the same for every row."""
        one = (free + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
        return one.expand(output.shape[:-1])


Actions = DiscreteActions | BoxActions
