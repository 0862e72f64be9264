"""Pictures of what was learned across tasks, and of what adapting is worth.

Displays work as those of scikit-learn: a class method computes and draws, `plot` draws
again, also into other axes. They need matplotlib, which comes with ``skmeta[plot]``.

A frozen meta-learner is an ordinary estimator, so scikit-learn's own displays take it:
``CalibrationDisplay.from_estimator(freeze(meta).fit(X, y), X_query, y_query)`` says
whether the probabilities of an adapted classifier can be believed.
"""

from ._adaptation_curve import AdaptationCurveDisplay
from ._learning_rate import LearningRateDisplay
from ._meta_training import MetaTrainingDisplay
from ._task_map import TaskMapDisplay
from ._task_scores import TaskScoresDisplay

__all__ = [
    "AdaptationCurveDisplay",
    "LearningRateDisplay",
    "MetaTrainingDisplay",
    "TaskMapDisplay",
    "TaskScoresDisplay",
]
