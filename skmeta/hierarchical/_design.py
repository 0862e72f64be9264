"""Standardised design rows of the hierarchical models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg
from scipy.linalg import block_diag

from ._out_of_fold import folds


@dataclass(frozen=True)
class Design:
    """Map from raw rows and targets to standardised design rows and targets.

    Parameters
    ----------
    center, inverse_scale : ndarray of shape (n_inputs,)
        Standardisation; a column that was constant has an inverse scale of zero, so
        that it is ignored.
    directions : ndarray of shape (n_inputs, n_directions) or None
        Linear combinations of the standardised columns that the model sees instead of
        them, where they are many.
    target_center, target_scale : float
        Standardisation of the target.
    n_base : int
        How many of the last columns are predictions of a pooled model; they are kept
        as they are.
    n_task : int
        How many of the columns before these describe the task; they are kept too.
    slopes : ndarray of shape (n_slopes,) or None
        Columns whose slopes depend on what describes the task; each is multiplied by
        every column that does.
    """

    center: np.ndarray
    inverse_scale: np.ndarray
    directions: np.ndarray | None = None
    target_center: float = 0.0
    target_scale: float = 1.0
    n_base: int = 0
    n_task: int = 0
    slopes: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Number of columns besides the constant and the products."""
        return len(self.center) if self.directions is None else len(self.directions.T)

    @property
    def n_products(self) -> int:
        """Number of columns that are the product of two."""
        return 0 if self.slopes is None else self.n_task * len(self.slopes)

    @property
    def n_features(self) -> int:
        """Number of design columns: the constant, columns, products, pooled ones."""
        return 1 + self.width + self.n_products

    @property
    def task_columns(self) -> slice:
        """Design columns that describe the task."""
        end = 1 + self.width - self.n_base
        return slice(end - self.n_task, end)

    def pooled_weights(self) -> np.ndarray:
        """Weights that repeat the pooled model, one row for each of its columns.

        They are where the shared mean starts from: with few tasks, or nothing to be
        gained, a hierarchical model then predicts as the pooled one does.
        """
        weights = np.zeros((max(self.n_base, 1), self.n_features))
        for k in range(self.n_base):
            column = len(self.center) - self.n_base + k
            inverse = self.inverse_scale[column]
            weights[k, 0] = (self.center[column] - self.target_center) / (
                self.target_scale
            )
            weights[k, self.n_features - self.n_base + k] = (
                1 / (inverse * self.target_scale) if inverse else 0.0
            )
        return weights

    def features(self, X: np.ndarray) -> np.ndarray:
        """Design rows of shape (n_rows, n_features), the first column constant."""
        Z = (X - self.center) * self.inverse_scale
        if self.directions is not None:
            Z = Z @ self.directions
        return self.with_products(np.column_stack([np.ones(len(Z)), Z]))

    def with_products(self, Z: np.ndarray) -> np.ndarray:
        """Design rows with the products, which stand before the pooled columns."""
        if self.slopes is None:
            return Z
        products = Z[:, self.task_columns, None] * Z[:, None, self.slopes]
        own = self.task_columns.stop
        return np.column_stack([Z[:, :own], products.reshape(len(Z), -1), Z[:, own:]])

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Standardised targets."""
        return (y - self.target_center) / self.target_scale

    def decode(self, mean: np.ndarray, std: np.ndarray | None = None):
        """Predictions, and standard deviations if given, in units of the target."""
        mean = self.target_center + self.target_scale * mean
        return mean if std is None else (mean, self.target_scale * std)


def fit_design(
    X: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    n_base: int = 0,
    n_task: int = 0,
    max_features: int = 64,
) -> tuple[Design, np.ndarray]:
    """Learn the standardisation and, where columns are many, a smaller design.

    More than `max_features` columns are replaced by their leading principal components
    and by the pooled ridge prediction: the prior of the task weights is then low-rank,
    and the shared mean still uses every column. For the training rows that prediction
    comes from other tasks, because an in-sample one would be trusted too much.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_inputs)
        Training rows.
    y : ndarray of shape (n_rows,)
        Targets, or labels if `classes` is given.
    groups : ndarray of shape (n_rows,)
        Task of every row.
    classes : ndarray of shape (n_classes,), default=None
        Classes; the target is then not standardised.
    n_base : int, default=0
        How many of the last columns are predictions of a pooled model.
    n_task : int, default=0
        How many of the columns before these describe the task.
    max_features : int, default=64
        Largest number of design columns besides the constant and these. With products
        there are at most twice as many.

    Returns
    -------
    design : Design
        The map for new rows.
    features : ndarray of shape (n_rows, n_features)
        Design rows of the training rows.
    """
    # Two passes: with a large offset the one-pass variance is all rounding.
    center = X.mean(0)
    scale = np.sqrt(np.square(X - center).mean(0))
    constant = scale <= 1e-12 * np.maximum(np.abs(center), np.finfo(float).tiny)
    inverse = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, scale))
    target = (0.0, 1.0) if classes is not None else _target_scale(y)
    design = Design(center, inverse, None, *target, n_base, n_task)
    if n_task:
        max_features = min(max_features, max(2 * max_features // (1 + n_task), 1))
    if X.shape[1] - n_base - n_task <= max_features:
        features = design.features(X)
    else:
        design, features = _reduce(design, X, y, groups, classes, max_features)
    if not n_task:
        return design, features
    design = replace(design, slopes=_varying_within(features, groups))
    return design, design.with_products(features)


def _varying_within(features, groups) -> np.ndarray:
    """Columns that vary within some group, and so can have a slope of their own."""
    codes = np.unique(groups, return_inverse=True)[1]
    first = np.unique(codes, return_index=True)[1]
    return np.flatnonzero((features != features[first[codes]]).any(0))


def _target_scale(y) -> tuple[float, float]:
    center = float(y.mean())
    scale = float(np.sqrt(np.square(y - center).mean()))
    tiny = 1e-12 * max(abs(center), np.finfo(float).tiny)
    return center, scale if scale > tiny else 1.0


def _reduce(design, X, y, groups, classes, max_features):
    """Design of principal components and pooled ridge predictions."""
    n_kept = design.n_base + design.n_task
    n_raw = X.shape[1] - n_kept
    Z = ((X - design.center) * design.inverse_scale)[:, :n_raw]
    target = _target_columns(design, y, classes)
    ridge, out_of_fold = _ridge_directions(Z, target, groups)
    n_components = max(max_features - len(ridge.T), 1)
    _, components = linalg.eigh(
        Z.T @ Z, subset_by_index=[n_raw - n_components, n_raw - 1]
    )
    projected = np.hstack([out_of_fold, Z @ components])
    scale = np.sqrt(np.square(projected).mean(0))
    unit = np.where(scale > 1e-12, 1.0 / np.maximum(scale, 1e-12), 0.0)
    directions = block_diag(np.hstack([ridge, components]) * unit, np.eye(n_kept))
    reduced = replace(design, directions=directions)
    features = reduced.features(X)
    n_ridge = len(ridge.T)
    features[:, 1 : 1 + n_ridge] = out_of_fold * unit[:n_ridge]
    return reduced, features


def _target_columns(design, y, classes) -> np.ndarray:
    """Columns that the pooled ridge predicts: the target, or centred indicators."""
    if classes is None:
        return design.encode(y)[:, None]
    kept = classes[1:] if len(classes) == 2 else classes
    columns = (np.asarray(y)[:, None] == kept).astype(float)
    return columns - columns.mean(0)


def _ridge_directions(Z, target, groups, penalties=None):
    """Pooled ridge weights, their penalty chosen over tasks, and held-out predictions.

    Returns
    -------
    directions : ndarray of shape (n_inputs, n_columns)
    out_of_fold : ndarray of shape (n_rows, n_columns)
    """
    penalties = np.logspace(-1, 6, 15) if penalties is None else penalties
    held_out = np.zeros((len(penalties), *target.shape))
    for train, test in folds(groups, 5):
        weights = _ridge_path(Z[train], target[train], penalties)
        held_out[:, test] = Z[test] @ weights
    best = np.argmin(np.square(held_out - target).sum((1, 2)))
    return _ridge_path(Z, target, penalties[best : best + 1])[0], held_out[best]


def _ridge_path(Z, target, penalties) -> np.ndarray:
    """Ridge weights for every penalty from one eigendecomposition."""
    if len(Z) < len(Z.T):
        values, vectors = linalg.eigh(Z @ Z.T)
        basis, score = Z.T @ vectors, vectors.T @ target
    else:
        values, basis = linalg.eigh(Z.T @ Z)
        score = basis.T @ (Z.T @ target)
    shrunk = score / (np.maximum(values, 0) + penalties[:, None])[..., None]
    return basis @ shrunk
