"""What the loaders share."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch


def import_optional(module, needed_by, install):
    """Import a package that only some loaders need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{needed_by} needs {module.partition('.')[0]}, which is not installed. "
            f"Install it by: pip install {install}"
        ) from error


def check_choice(name, value, choices):
    """Tell a value of a list parameter that is not among the known ones."""
    unknown = [item for item in value if item not in choices]
    if unknown:
        raise ValueError(
            f"{name} must be taken from {list(choices)}. Got {unknown[0]!r}."
        )


class GroupedTable(NamedTuple):
    """Rows in long format, with a task id per row."""

    data: np.ndarray
    target: np.ndarray
    groups: np.ndarray
    feature_names: list
    target_name: str
    group_name: str

    def deliver(self, needed_by, *, as_frame, return_X_y_groups, **more):
        """Hand the table over in the form that the caller asked for."""
        data, target, groups, frame = self.data, self.target, self.groups, None
        if as_frame:
            pandas = import_optional(
                "pandas", f"{needed_by} with as_frame=True", "skmeta[plot]"
            )
            frame = pandas.DataFrame(data, columns=self.feature_names)
            frame.insert(0, self.group_name, groups)
            frame[self.target_name] = target
            data, target = frame[self.feature_names], frame[self.target_name]
            groups = frame[self.group_name]
        if return_X_y_groups:
            return data, target, groups
        return Bunch(
            data=data,
            target=target,
            groups=groups,
            frame=frame,
            feature_names=self.feature_names,
            **more,
        )
