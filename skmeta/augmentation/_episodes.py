"""Changes that mix or redraw the rows of a task."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.distributions import Beta

from ..tasks._batch import TaskBatch
from ._base import Augmentation, each, with_rows


class Mixup(Augmentation):
    """Mix each row with another one of its task.

    In regression targets are mixed like rows [1]_ [2]_. In classification a row is
    mixed with one of its own class, so that labels stay labels.

    Parameters
    ----------
    alpha : float, default=0.2
        The share of the other row is drawn from a Beta(alpha, alpha) distribution:
        nearly none or all of it for small values, one half for large ones.
    part : {"both", "support", "query"}, default="both"
        Rows to change.

    References
    ----------
    .. [1] Zhang, Cisse, Dauphin and Lopez-Paz. "mixup: beyond empirical risk
       minimization", ICLR 2018.
    .. [2] Yao et al. "Improving generalization in meta-learning via task
       augmentation", ICML 2021.
    """

    def __init__(self, alpha: float = 0.2, part: str = "both"):
        super().__init__(part)
        self.alpha = alpha

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Mix the rows of one side of an episode."""
        X, y = batch.X, batch.y
        assert y is not None
        real = batch.weights > 0
        may = real.unsqueeze(1).expand(-1, X.shape[1], -1)
        if batch.n_classes is not None:
            may = may & (y.unsqueeze(1) == y.unsqueeze(2))
        # Rows of padding have no partner; any will do, for they are blanked again.
        weight = may.float().flatten(0, 1)
        weight[weight.sum(dim=1) == 0] = 1.0
        other = torch.multinomial(weight, 1).view(X.shape[:2])
        share = Beta(self.alpha, self.alpha).sample(X.shape[:2]).to(X)
        share = torch.minimum(share, 1 - share)
        partner = X.take_along_dim(each(other, X), dim=1)
        mixed = with_rows(batch, torch.lerp(X, partner, each(share, X)))
        if batch.n_classes is None:
            target = torch.lerp(y, y.gather(1, other), share.to(y))
            mixed = replace(mixed, y=target * real)
        return mixed


class Resample(Augmentation):
    """Draw rows anew, with replacement, such that classes are equally frequent.

    Balances what a task brings out of balance: rare classes are repeated, frequent
    ones thinned out. Where episodes can be drawn balanced in the first place
    (``class_balanced=True``), prefer that.

    Parameters
    ----------
    part : {"both", "support", "query"}, default="both"
        Rows to change.
    """

    def __init__(self, part: str = "both"):
        super().__init__(part)

    def augment(self, batch: TaskBatch) -> TaskBatch:
        """Redraw the rows of one side of an episode."""
        if batch.n_classes is None:
            raise ValueError("Resample is for classification.")
        assert batch.y is not None
        real = batch.weights > 0
        member = torch.nn.functional.one_hot(batch.y, batch.n_classes) * real[..., None]
        frequency = member.sum(dim=1).gather(1, batch.y)
        weight = real / frequency.clamp(min=1)
        empty = ~real.any(dim=1)
        weight[empty] = 1.0
        drawn = torch.multinomial(weight, real.shape[1], replacement=True)
        # As many real rows as before, in the same places.
        drawn = torch.where(
            real, drawn, torch.arange(real.shape[1], device=drawn.device)
        )
        X = batch.X.take_along_dim(each(drawn, batch.X), dim=1)
        return replace(with_rows(batch, X), y=batch.y.gather(1, drawn) * real)
