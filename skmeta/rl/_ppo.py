"""The clipped objective of proximal policy optimisation."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    log_prob: Tensor, old: Tensor, advantage: Tensor, clip: float
) -> Tensor:
    """What is to be gained by a new policy, without reward for moving far [1]_.

    Parameters
    ----------
    log_prob, old : Tensor
        Log-probabilities of the actions under the new policy and the one that acted.
    advantage : Tensor
        How much better each action was than expected.
    clip : float
        A ratio of probabilities beyond ``1 +- clip`` brings nothing more.

    References
    ----------
    .. [1] J. Schulman et al., "Proximal policy optimization algorithms",
       arXiv:1707.06347 (2017).
    """
    ratio = (log_prob - old).exp()
    limited = ratio.clamp(1 - clip, 1 + clip)
    return torch.minimum(ratio * advantage, limited * advantage)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over real steps."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)
