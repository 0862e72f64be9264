"""Errors and warnings of skmeta."""

import sys
import warnings

from sklearn.exceptions import NotFittedError

#: Where a warning is no help: between the user's line and the line that warns.
_INSIDE = {"skmeta", "sklearn", "joblib", "contextlib"}


class NotAdaptedError(NotFittedError):
    """A prediction was asked for a task that was never adapted to.

    Raised where the meta-learner has no prior to fall back on, as when classes exist
    only inside their task.
    """


class DivergenceError(FloatingPointError, ValueError):
    """Adapting to a task gave values that are not finite."""


class SingleTaskWarning(UserWarning):
    """``fit`` saw one task, so there was nothing to learn across tasks."""


class DivergenceWarning(UserWarning):
    """Some training episodes diverged and were left out of the meta-gradient."""


def warn_caller(message, category):
    """Warn at the line of the user's own code, also through a pipeline or a search."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _INSIDE:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
