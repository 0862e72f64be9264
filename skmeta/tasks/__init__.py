"""Tasks: how data come in, and how episodes are drawn from them."""

from ._batch import TaskBatch
from ._door import (
    drop_group_column,
    is_task_list,
    read_rows,
    read_tasks,
    split_group_column,
)
from ._lift import PerTask
from ._table import TaskTable
from ._task import Task

__all__ = [
    "PerTask",
    "Task",
    "TaskBatch",
    "TaskTable",
    "drop_group_column",
    "is_task_list",
    "read_rows",
    "read_tasks",
    "split_group_column",
]
