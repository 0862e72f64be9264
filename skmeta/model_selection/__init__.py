"""How well a task that was not seen is predicted, and which learner does it best."""

from ._ask import ask
from ._compare import Comparison, compare, default_baselines
from ._conformal_classifier import ConformalClassifier
from ._conformal_regressor import ConformalRegressor
from ._curves import ShotCurve, TaskLearningCurve, shot_curve, task_learning_curve
from ._guard import GuardedClassifier, GuardedRegressor
from ._novelty import TaskNovelty
from ._scorer import FewShotScorer
from ._split import FewShotKFold

__all__ = [
    "Comparison",
    "ConformalClassifier",
    "ConformalRegressor",
    "FewShotKFold",
    "FewShotScorer",
    "GuardedClassifier",
    "GuardedRegressor",
    "ShotCurve",
    "TaskLearningCurve",
    "TaskNovelty",
    "ask",
    "compare",
    "default_baselines",
    "shot_curve",
    "task_learning_curve",
]
