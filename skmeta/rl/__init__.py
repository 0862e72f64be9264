"""Policies that learn a new task from a few episodes, and environments in batches.

Environments of gymnasium need the extra ``skmeta[rl]``; nothing else here does.
"""

from ._actions import BoxActions, DiscreteActions
from ._base import MetaPolicy, PolicyScore
from ._bernoulli import BernoulliBandits
from ._convert import from_gymnasium, to_gymnasium
from ._env import TensorEnv, TensorEnvBatch
from ._maml_policy import MAMLPolicy
from ._navigation import PointNavigation
from ._rl2 import RL2Policy
from ._rollout import Episode

__all__ = [
    "BernoulliBandits",
    "BoxActions",
    "DiscreteActions",
    "Episode",
    "MAMLPolicy",
    "MetaPolicy",
    "PointNavigation",
    "PolicyScore",
    "RL2Policy",
    "TensorEnv",
    "TensorEnvBatch",
    "from_gymnasium",
    "to_gymnasium",
]
