"""The outer loop: one Torch module that skorch trains, whatever the algorithm."""

from ._density import DensityLearner, GaussianLikelihood
from ._episode import Episode, EpisodeFactory, row_dtype, warn_diverged
from ._learner import Learner, TaskState, one_hot, only_existing, which_classes
from ._loader import EpisodeDataset, EpisodeLoader
from ._supervised import (
    Heads,
    RowDataset,
    RowLoader,
    RowSampler,
    Supervised,
    SupervisedFactory,
)
from ._task_sampling import Trial, rewarded
from ._training import as_net, episodic, seeded

__all__ = [
    "DensityLearner",
    "Episode",
    "EpisodeDataset",
    "EpisodeFactory",
    "EpisodeLoader",
    "GaussianLikelihood",
    "Heads",
    "Learner",
    "RowDataset",
    "RowLoader",
    "RowSampler",
    "Supervised",
    "SupervisedFactory",
    "TaskState",
    "Trial",
    "as_net",
    "episodic",
    "one_hot",
    "only_existing",
    "rewarded",
    "row_dtype",
    "seeded",
    "warn_diverged",
    "which_classes",
]
