"""Ridge regression for several regularisations at once, and what each leaves out."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_path(
    features: Tensor, targets: Tensor, alphas: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights of ridge regression, and the residual of each row when it is left out.

    By the smaller of two systems, that of rows or that of features.

    Parameters
    ----------
    features : Tensor of shape (n_tasks, n_rows, n_features)
        Rows; those of padding are zero.
    targets : Tensor of shape (n_tasks, n_rows, n_outputs)
        Targets, zero for padding.
    alphas : Tensor of shape (n_tasks, n_alphas)
        Regularisations of each task.

    Returns
    -------
    weights : Tensor of shape (n_tasks, n_alphas, n_features, n_outputs)
        Solutions.
    left_out : Tensor of shape (n_tasks, n_alphas, n_rows, n_outputs)
        Target minus the prediction of ridge regression on all other rows.
    """
    F, y = features.unsqueeze(1), targets.unsqueeze(1)
    alphas = alphas[:, :, None, None]
    if features.shape[1] < features.shape[2]:
        inverse = _inverse(features @ features.transpose(1, 2), alphas)
        dual = inverse @ y
        left_out = dual / inverse.diagonal(dim1=2, dim2=3).unsqueeze(-1)
        return F.transpose(2, 3) @ dual, left_out
    inverse = _inverse(features.transpose(1, 2) @ features, alphas)
    weights = inverse @ (F.transpose(2, 3) @ y)
    leverage = (F @ inverse * F).sum(dim=-1, keepdim=True)
    return weights, (y - F @ weights) / (1 - leverage).clamp(min=1e-6)


def _inverse(gram: Tensor, alphas: Tensor) -> Tensor:
    """Inverse of the regularised matrices; NaN for a task that has diverged."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram.unsqueeze(1) + alphas * eye)
    factor = factor.masked_fill(failed.bool()[..., None, None], torch.nan)
    return torch.cholesky_inverse(factor)
