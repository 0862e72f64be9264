"""The outer loop: one Torch module that skorch trains, whatever the algorithm."""

from ._episode import Episode, EpisodeFactory, row_dtype, warn_diverged
from ._learner import Learner, TaskState, one_hot
from ._loader import EpisodeDataset, EpisodeLoader
from ._training import as_net, episodic, seeded

__all__ = [
    "Episode",
    "EpisodeDataset",
    "EpisodeFactory",
    "EpisodeLoader",
    "Learner",
    "TaskState",
    "as_net",
    "episodic",
    "one_hot",
    "row_dtype",
    "seeded",
    "warn_diverged",
]
