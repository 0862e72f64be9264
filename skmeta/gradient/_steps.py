"""How many steps to adapt for: what worked on tasks with as many support rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ..inner_loop import objective_of
from ..outer_loop import one_hot
from ..tasks._batch import TaskBatch
from ..tasks._sampler import EpisodeSampler
from ._gradient_learner import GradientLearner

#: Numbers of shots that are tried, as far as tasks have as many rows.
_SHOTS = (1, 2, 3, 5, 10, 20, 50)
#: Episodes of each number of shots: so many meta-batches of so many tasks.
_N_BATCHES, _N_TASKS = 2, 64
#: Steps that are tried: twice those of training, and this many at the least.
_MOST_STEPS = 50
#: A loss counts as so many times that before adapting at the most: a few rows can lead
#: astray by orders of magnitude, and one such episode would outweigh all others.
_CAP = 10.0
_HUGE = 1e30
#: Episodes are keyed apart from those of training and of validation.
_KEY = 2**42
#: Standard errors by which a gain must exceed zero.
_BEYOND_CHANCE = 2.0


def best_steps(
    learner: GradientLearner,
    sampler: EpisodeSampler,
    units: np.ndarray,
    place: Callable[[TaskBatch], TaskBatch],
) -> dict[float, int]:
    """Number of steps for each number of shots.

    Every episode is adapted once, for the largest number of steps, and its query rows
    are predicted after each of them. Another number of steps than that of training is
    taken only for a gain in the mean query loss that is beyond chance.

    Parameters
    ----------
    learner : GradientLearner
        Trained, in evaluation mode.
    sampler : EpisodeSampler
        Draws the episodes.
    units : ndarray
        Tasks (classes of a pool) to draw from.
    place : callable
        Moves a batch to where the learner is.

    Returns
    -------
    dict of float to int
        Keys are support rows per class, or per task in regression.
    """
    usual = learner.inner_steps
    most, found = max(2 * usual, _MOST_STEPS), {}
    for n_shots in _SHOTS:
        enough = units[sampler.n_shots_of(units) >= n_shots]
        if not len(enough):
            break
        drawn = replace(sampler, n_shots=n_shots).stream(_KEY, enough, _N_TASKS)
        shots, losses = [], []
        for support, query in islice(drawn, _N_BATCHES):
            support, query = place(support), place(query)
            shots.append(shots_of(support))
            losses.append(_curve(learner, support, query, most))
        curve = np.concatenate(losses)  # (n_episodes, n_steps + 1)
        curve = np.minimum(curve, _CAP * curve[:, 0].mean())
        best = int(curve.mean(0).argmin())
        gain = curve[:, usual] - curve[:, best]
        error = gain.std(ddof=1) / len(gain) ** 0.5
        if not gain.mean() > _BEYOND_CHANCE * error:
            best = usual
        found[float(np.concatenate(shots).mean())] = best
    return found


def nearest_steps(table: Mapping[float, int], shots: np.ndarray) -> np.ndarray:
    """Entries of the table whose number of shots is nearest as a ratio."""
    known = np.log(list(table))
    gaps = np.abs(np.log(np.maximum(shots, 1e-9))[:, None] - known)
    return np.array([*table.values()])[gaps.argmin(1)]


def shots_of(support: TaskBatch) -> np.ndarray:
    """Support rows of each task, per class that they have: ``(n_tasks,)``."""
    n_rows = support.weights.sum(1)
    if support.n_classes is None:
        return n_rows.cpu().numpy()
    n_classes = (one_hot(support, n_rows.dtype).sum(1) > 0).sum(1)
    return (n_rows / n_classes.clamp(min=1)).cpu().numpy()


@torch.no_grad()
def _curve(
    learner: GradientLearner, support: TaskBatch, query: TaskBatch, n_steps: int
) -> np.ndarray:
    """Query loss of each task after every number of steps; diverged ones are huge."""
    states = learner.states(support, n_steps)
    losses = torch.stack([_losses(learner.predict(s, query), query) for s in states], 1)
    return losses.double().nan_to_num(_HUGE, _HUGE).cpu().numpy()


def _losses(output: Tensor, query: TaskBatch) -> Tensor:
    if query.n_classes is None:
        output = output.unsqueeze(-1)
    return objective_of(query, output.dtype)(output)
