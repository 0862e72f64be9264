"""Meta-learners whose backbone is pre-trained by ordinary supervised learning."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ..outer_loop import (
    Heads,
    RowDataset,
    RowLoader,
    RowSampler,
    SupervisedFactory,
    episodic,
)
from ..tasks._batch import TaskBatch
from ..tasks._sampler import encode_classes
from ._checks import warn_single_task
from ._neural import NeuralMetaEstimator

_ROWS_AT_A_TIME = 1024


class SupervisedMetaEstimator(NeuralMetaEstimator):
    """Trains a backbone on the rows of all tasks, without episodes.

    A classifier learns the classes of all tasks at once: shared ones under one head;
    those that exist only inside their task as the union of all pairs of task and
    class. With a head for each task, a row is told from the classes of its own task.
    """

    _parameter_constraints: dict = {
        "estimator": "no_validation",
        "n_shots": [Interval(Integral, 1, None, closed="left")],
        "support": [StrOptions({"random", "first"})],
        "group_column": [str, Integral, None],
        "random_state": ["random_state"],
    }

    #: Rows of a step where the user gave no net.
    _batch_size = 64

    #: Whether each training task has a head of its own.
    _heads_per_task = False

    @property
    def _own_classes(self):
        """Whether classes exist only inside their task."""
        return self._is_classifier and self.label_space_ == "per_task"

    @property
    def _head_kind(self):
        """Kind of the heads in pre-training."""
        return "linear"

    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._start(table, classes)
            if not self._tells_many_classes(table):
                warn_single_task(table)
        if self._own_classes and table.counts.max() < 2:
            raise ValueError(
                f"{type(self).__name__} needs a task of at least two rows, but each of "
                f"the {table.n_tasks} tasks has a single one. Does groups= name tasks, "
                "and not rows?"
            )
        summary = self._encode(table)
        dataset = RowDataset(self._row_sampler(summary), self._next_step)
        self._train(dataset, resume)
        self._next_step = dataset.step
        return summary

    def _tells_many_classes(self, table):
        """Whether there is a pool whose classes teach what classes are."""
        return self._own_classes and len(table.labels) > 2

    def _row_sampler(self, summary):
        """Rows with their outputs and heads; sets the shape of the heads."""
        codes, n_tasks = summary.codes, summary.n_tasks
        table, exists = self._targets(summary), None
        n_outputs = self._n_shared_classes or 1
        if self._own_classes:
            offsets = encode_classes(codes, summary.y)[2]
            counts = np.diff(offsets)
            if self._heads_per_task:
                n_outputs = int(counts.max())
                exists = np.arange(n_outputs) < counts[:, None]
                exists = None if exists.all() else exists
            else:
                n_outputs = int(offsets[-1])
                table = table.with_y(table.y + offsets[codes])
        n_heads, head = 1, np.zeros_like(codes)
        if self._heads_per_task:
            n_heads, head = n_tasks, codes
        self._heads = Heads(
            n_heads, n_outputs, self._head_kind, self._is_classifier, exists
        )
        return RowSampler(table, head, self._seed)

    def _trainable(self, net, sample):
        factory = SupervisedFactory(
            net.module, self._build_learner, sample, lambda: self._heads
        )
        n_outputs = self._heads.n_outputs if self._is_classifier else None
        return episodic(net, factory, n_outputs, RowLoader)

    def _resume(self, net):
        """A head that all tasks share goes on; others were those of other tasks."""
        if self._heads_per_task or self._own_classes:
            net.module_.start(self._heads)
            net.initialize_optimizer()

    def _row_features(self, table):
        """Features of the rows of all tasks: ``(n_rows, n_features)``."""
        parts = []
        for rows in np.array_split(table.X, max(1, len(table.X) // _ROWS_AT_A_TIME)):
            batch = self._to_device(TaskBatch(torch.from_numpy(rows[None])))
            with torch.no_grad():
                features = self.learner_.backbone(batch.X[0]).flatten(1)
            parts.append(features.cpu().numpy().astype(float))
        return np.concatenate(parts)
