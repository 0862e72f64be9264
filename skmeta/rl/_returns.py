"""Returns, baselines and advantages of padded episodes."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_returns(reward: Tensor, gamma: float) -> Tensor:
    """Discounted sum of this reward and all later ones; time is the last axis.

    Padding has to be zero and stand at the end.
    """
    returns, total = torch.empty_like(reward), torch.zeros_like(reward[..., 0])
    for t in reversed(range(reward.shape[-1])):
        total = reward[..., t] + gamma * total
        returns[..., t] = total
    return returns


def generalised_advantages(
    reward: Tensor, value: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimates [1]_; time is the last axis.

    Parameters
    ----------
    reward, value : Tensor of shape (..., n_steps)
        Rewards, and predicted returns before each of the steps.
    mask : bool Tensor of shape (..., n_steps)
        False for padding, which stands at the end. Nothing comes after the last step.
    gamma : float
        Discount of later rewards.
    gae_lambda : float
        From 0 (one step, then the predicted return) to 1 (all rewards as they were).

    References
    ----------
    .. [1] J. Schulman et al., "High-dimensional continuous control using generalized
       advantage estimation", ICLR 2016.
    """
    weight = mask.to(reward.dtype)
    value = value * weight
    later = torch.cat([value[..., 1:], torch.zeros_like(value[..., :1])], dim=-1)
    surprise = (reward + gamma * later - value) * weight
    return discounted_returns(surprise, gamma * gae_lambda)


def linear_baseline(features: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Ridge regression of the target on features, task by task.

    Parameters
    ----------
    features : Tensor of shape (n_tasks, n_rows, n_features)
        Rows, a constant among the columns.
    target : Tensor of shape (n_tasks, n_rows)
        Returns.
    mask : bool Tensor of shape (n_tasks, n_rows)
        False for padding.

    Returns
    -------
    Tensor of shape (n_tasks, n_rows)
        Fitted values.
    """
    weighted = features * mask.to(features.dtype)[..., None]
    # In float64: powers of time are nearly collinear.
    weighted, target = weighted.double(), target.double()
    gram = weighted.mT @ weighted
    ridge = 1e-5 * torch.eye(gram.shape[-1], dtype=gram.dtype)
    weights = torch.linalg.solve(gram + ridge, weighted.mT @ target[..., None])
    return (features.double() @ weights)[..., 0].to(features.dtype)


def standardised(values: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean 0 and standard deviation 1 over real steps, padding 0."""
    weight = mask.to(values.dtype)
    count = weight.sum(dims, keepdim=True).clamp(min=1)
    centred = (values - (values * weight).sum(dims, keepdim=True) / count) * weight
    scale = (centred.square().sum(dims, keepdim=True) / count).sqrt()
    return centred / (scale + 1e-8)
