"""Meta-learners whose learner is a Torch module and whose outer loop is skorch's."""

from __future__ import annotations

import copy
from abc import abstractmethod
from numbers import Integral

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch import nn

from ..exceptions import DivergenceError
from ..modules import default_backbone
from ..outer_loop import (
    EpisodeDataset,
    EpisodeFactory,
    as_net,
    episodic,
    rewarded,
    row_dtype,
    seeded,
    warn_diverged,
)
from ..tasks._batch import TaskBatch
from ..tasks._pack import as_tensor, pieces, to_batch, unpad
from ..tasks._sampler import EpisodeSampler, encode_classes
from ..tasks._table import append_rows, join_tables, ranges, table_from_codes
from ._base import MetaEstimator
from ._checks import check_device, check_range, warn_single_task
from ._progress import report_progress
from ._states import MAX_STATE_BYTES

COUNT = [Interval(Integral, 1, None, closed="left"), "array-like"]


class NeuralMetaEstimator(MetaEstimator):
    """Trains a `Learner` over episodes and evaluates it task by task.

    A family implements ``_build_learner``; parameters common to all are explained
    there.
    """

    #: Tasks of a family without episodes are not drawn.
    task_sampler = None

    #: Parameters of the net where the user gives none, in place of the usual ones.
    _net_settings: dict = {}

    _parameter_constraints: dict = {
        "estimator": "no_validation",
        "n_shots": COUNT,
        "n_queries": COUNT,
        "n_episodes": [Interval(Integral, 1, None, closed="left"), None],
        "support": [StrOptions({"random", "first"})],
        "augment": [callable, None],
        "task_sampler": [
            HasMethods(["start", "draw", "before_step", "after_step"]),
            None,
        ],
        "chunk_size": [Interval(Integral, 1, None, closed="left"), None],
        "group_column": [str, Integral, None],
        "random_state": ["random_state"],
    }

    def set_params(self, **params):
        """Set parameters, those of the net as ``estimator__lr`` and the like.

        Parameters
        ----------
        **params : dict
            As for any estimator of scikit-learn.

        Returns
        -------
        self : object
            The estimator.
        """
        nested = [name for name in params if name.startswith("estimator__")]
        net = params.get("estimator", self.estimator)
        if nested and not hasattr(net, "set_params"):
            raise ValueError(
                f"{nested[0]} is a setting of a net, but estimator={net!r} is none. "
                "Pass the net whose settings are to change, such as "
                "estimator=skorch.NeuralNet(skmeta.modules.MLP, "
                f"torch.nn.{'CrossEntropyLoss' if self._is_classifier else 'MSELoss'})."
            )
        return super().set_params(**params)

    @property
    def _n_shared_classes(self):
        """Size of a label space that all tasks share, else None."""
        shared = self._is_classifier and self.label_space_ == "shared"
        return len(self.classes_) if shared else None

    @property
    def _n_episode_classes(self):
        """Classes of an episode at the most, None for regression."""
        if not self._is_classifier:
            return None
        return self._n_shared_classes or int(np.max(self.n_ways))

    @abstractmethod
    def _build_learner(self, backbone, n_features):
        """The learner around a backbone that gives `n_features` features."""

    @staticmethod
    def _default_backbone(shape):
        """Class and parameters of the backbone where the user gave none."""
        return default_backbone(shape)

    def _as_input(self, X):
        """Rows as the backbone gets them."""
        return X

    # ---------------------------------------------------------------------- training
    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            self._start(table, classes)
        summary = self._encode(table)
        sampler = self._sampler(self._targets(summary))
        if self.task_sampler is not None and sampler.pooled:
            raise ValueError(
                "task_sampler chooses between tasks, but fit saw one pool of classes. "
                "Pass several tasks, or task_sampler=None."
            )
        self.task_sampler_ = clone(self.task_sampler, safe=False)
        dataset = EpisodeDataset(
            sampler, self.n_episodes, self._next_step, self.task_sampler_
        )
        if len(dataset) == 0:
            raise ValueError(
                "No task has rows for both a support and a query set; tasks need at "
                "least two rows (of each of two classes, where labels are per task)."
            )
        if not resume:  # more of the same task is more of the same lesson
            warn_single_task(table, sampler)
        self._train(dataset, resume)
        self._next_step = dataset.step
        return summary

    def _start(self, table, classes):
        """Everything that a first call to fit decides."""
        # What unpickling builds the module from, whatever `set_params` does later.
        self._fit_params = clone(self).get_params(deep=False)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._next_step = 0
        if self._is_classifier:
            self._decide_label_space(table, classes)
            if len(np.unique(table.y)) < 2:
                raise ValueError(
                    f"{type(self).__name__} needs samples of at least 2 classes in the "
                    f"data, but the data contains only one class: {table.y[0]!r}."
                )
        else:
            self._y_mean = float(table.y.mean())
            self._y_scale = float(table.y.std()) or 1.0

    def _sampler(self, table):
        ways = self.n_ways if self._is_classifier else 1
        for name, value in (
            ("n_ways", ways),
            ("n_shots", self.n_shots),
            ("n_queries", self.n_queries),
        ):
            check_range(name, value)
        return EpisodeSampler(
            table,
            n_classes=self._n_shared_classes,
            classifier=self._is_classifier,
            n_ways=ways,
            n_shots=self.n_shots,
            n_queries=self.n_queries,
            support=self.support,
            class_balanced=getattr(self, "class_balanced", True),
            seed=self._seed,
        )

    def _targets(self, table):
        """Encoded rows with targets as the learner sees them."""
        if not self._is_classifier:
            return table.with_y((table.y - self._y_mean) / self._y_scale)
        if self.label_space_ == "shared":
            return table
        return table.with_y(encode_classes(table.codes, table.y)[0])

    def _train(self, dataset, resume):
        before = self.learner_ if resume else None
        if not resume:
            sample = self._as_input(torch.from_numpy(dataset.sampler.table.X[:2]))
            self.net_ = self._make_net(sample)
        else:
            recipe = self.net_.module  # holds this estimator, which is not to be copied
            self.net_ = copy.deepcopy(self.net_, {id(recipe): recipe})
        net = self.net_
        with seeded(self._seed + dataset.step, net.device):
            if resume:
                self._resume(net)
            else:
                net.initialize()
                self._begin(net, dataset.sampler.table)
            sampler = dataset.sampler
            sampler.dtype = row_dtype(
                torch.from_numpy(sampler.table.X[:0]), net.module_.modules()
            )
            net.module_.n_diverged = 0
            with (
                report_progress(self, net),
                rewarded(net, getattr(dataset, "task_sampler", None)),
            ):
                net.partial_fit(dataset, y=None)
        episode = net.module_
        self.n_diverged_ = episode.n_diverged
        warn_diverged(self.n_diverged_)
        self.learner_ = self._frozen_learner(episode.learner)
        self._calibrate(self.learner_, dataset, before)
        episode.learner.load_state_dict(self.learner_.state_dict())

    def _begin(self, net, table):
        """Prepare a net that is to be trained on the tasks of a table."""

    def _resume(self, net):
        """Prepare a net that has been trained for other tasks."""

    def _calibrate(self, learner, dataset, before):
        """Estimate what the outer loss leaves undetermined.

        `before` is the learner that training went on from, None where it began.
        """

    def _make_net(self, sample, device=None):
        """The user's net around an episode, for rows like those of `sample`."""
        backbone = self._default_backbone(sample.shape[1:])
        net = as_net(self.estimator, backbone, self._criterion, **self._net_settings)
        if device is not None:
            net.set_params(device=device)
        check_device(net.device)
        return self._trainable(net, sample)

    def _trainable(self, net, sample):
        """The net, such that it trains episodes."""
        factory = EpisodeFactory(
            net.module, self._build_learner, sample, self.chunk_size
        )
        augment = self._episode_augment
        return episodic(net, factory, self._n_episode_classes, augment=augment)

    @property
    def _criterion(self):
        """Outer loss where the user's net brings none."""
        return nn.CrossEntropyLoss if self._is_classifier else nn.MSELoss

    @property
    def _episode_augment(self):
        """What is done to an episode before each training step."""
        return self.augment

    def _frozen_learner(self, learner):
        """A copy for adapting and predicting: float64 on the CPU, as it is elsewhere.

        Rows must not depend on what they are batched with; in float32 they would.
        """
        learner = copy.deepcopy(learner).eval().requires_grad_(False)
        device = next(learner.parameters(), torch.empty(0)).device
        return learner.double() if device.type == "cpu" else learner

    @property
    def history_(self):
        """What skorch records of meta-training: losses and seconds of every epoch."""
        return self.net_.history

    # ------------------------------------------------------------ adapting, predicting
    _combine = staticmethod(append_rows)
    _join = staticmethod(join_tables)

    def _prior_summary(self, ids):
        if self._is_classifier and self.label_space_ == "per_task":
            return None
        # Token ids stay integers.
        dtype = self.net_.module.sample.numpy().dtype
        X = np.zeros((0, *self._feature_shape), dtype=dtype)
        y = np.zeros(0, dtype=np.int64 if self._is_classifier else np.float64)
        return table_from_codes(X, y, np.zeros(0, dtype=np.intp), ids)

    def _keeps_state(self, support):
        if self.learner_.closed_form:
            return True
        n_weights = sum(p.numel() for p in self.learner_.parameters())
        return support.n_tasks * n_weights * 8 <= MAX_STATE_BYTES

    def _solve(self, table):
        labels = self._task_labels(table)
        table = self._targets(table)
        n_classes = None
        if self._is_classifier:
            n_classes = labels["labels"].shape[1] if labels else len(self.classes_)
        parts, places = [], []
        for tasks in pieces(table.counts, self._cells(table)):
            part = table.take(tasks)
            mask = None
            if labels:
                mask = np.arange(n_classes) < labels["n_labels"][tasks][:, None]
                mask = None if mask.all() else torch.from_numpy(mask)
            batch = to_batch(part, n_classes=n_classes, class_mask=mask)
            with torch.no_grad():
                state = self._adapt_batch(self._to_device(batch))
            parts.append({k: v.detach().cpu().numpy() for k, v in state.items()})
            places.append(tasks)
        return {**_stack(parts, np.concatenate(places)), **labels}

    def _adapt_batch(self, batch):
        return self.learner_.adapt(batch)

    def _task_labels(self, table):
        """Labels of each task, padded, where labels live in their task."""
        if not self._is_classifier or self.label_space_ == "shared":
            return {}
        _, values, offsets = encode_classes(table.codes, table.y)
        counts = np.diff(offsets)
        slot = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
        return {"labels": values[offsets[:-1, None] + slot], "n_labels": counts}

    def _check_state(self, state, ids):
        for name, values in state.items():
            if name not in ("labels", "n_labels"):
                finite = np.isfinite(values.reshape(len(ids), -1)).all(axis=1)
                self._refuse_diverged(finite, ids, name)

    def _check_output(self, output, table):
        """Refuse rows of a task that diverged; other tasks of `fit` are not harmed."""
        # The logit of a class that is not in the task is -inf.
        finite = output < np.inf if self._is_classifier else np.isfinite(output)
        finite = finite.reshape(len(output), -1).all(axis=1)
        if not finite.all():
            ids = [table.ids[code] for code in table.codes]
            self._refuse_diverged(finite, ids, "prediction")

    @staticmethod
    def _refuse_diverged(finite, ids, name):
        if finite.all():
            return
        task = ids[int(np.argmin(finite))]
        which = "" if task is None else f" {task!r}"
        raise DivergenceError(
            f"Adapting to task{which} diverged ({name} is not finite). Lower inner_lr "
            "or adapt_steps, or scale the features; if what fit learned is not finite "
            "(see history_), lower estimator__lr."
        )

    def _forward(self, state, table, **options):
        tensors = {
            name: as_tensor(values)
            for name, values in state.items()
            if name not in ("labels", "n_labels")
        }
        out = None
        for tasks in pieces(table.counts, self._cells(table)):
            part = table.take(tasks).with_y(None)
            index = torch.from_numpy(tasks)
            chosen = {k: self._place(v[index]) for k, v in tensors.items()}
            with torch.no_grad():
                values = self._query(chosen, self._to_device(to_batch(part)), **options)
            values = unpad(values.cpu().numpy(), part)
            if out is None:
                out = np.empty((len(table.X), *values.shape[1:]), dtype=np.float64)
            out[_rows_of(table, tasks)] = values
        self._check_output(out, table)
        return self._finish(out, **options)

    def _query(self, state, batch, **options):
        return self.learner_.predict(state, batch)

    def _finish(self, output, **options):
        """Outputs in the user's units."""
        return output if self._is_classifier else output * self._y_scale + self._y_mean

    def _cells(self, table):
        """Numbers that a row costs: its features, or the backbone's widest layer."""
        return max(int(np.prod(table.X.shape[1:])), 64)

    def _to_device(self, batch):
        X = batch.X
        if row_dtype(X, self.learner_.modules()) is not None:
            X = self._place(X)
        device = self._device
        return TaskBatch(
            X.to(device),
            None if batch.y is None else self._place_targets(batch.y),
            None if batch.mask is None else batch.mask.to(device),
            batch.n_classes,
            None if batch.class_mask is None else batch.class_mask.to(device),
            None if batch.sample_weight is None else self._place(batch.sample_weight),
        )

    def _place(self, tensor):
        dtype = torch.float64 if self._device.type == "cpu" else torch.float32
        return tensor.to(device=self._device, dtype=dtype)

    def _place_targets(self, y):
        return y.to(self._device) if self._is_classifier else self._place(y)

    @property
    def _device(self):
        return next(self.learner_.parameters(), torch.empty(0)).device

    # ------------------------------------------------------------------------ pickling
    def __getstate__(self):
        """Weights as arrays by name, free of device and optimizer."""
        state = super().__getstate__().copy()
        net = state.pop("net_", None)
        state.pop("learner_", None)
        if net is not None:
            sample = net.module.sample
            state["_saved"] = {
                "weights": {
                    name: value.detach().cpu().numpy()
                    for name, value in net.module_.state_dict().items()
                },
                "sample": sample.numpy(),
                "history": list(net.history),
            }
        return state

    def __setstate__(self, state):
        state = dict(state)
        saved = state.pop("_saved", None)
        super().__setstate__(state)
        if saved is not None:
            self._rebuild(saved)

    def _rebuild(self, saved):
        """The module from its recipe, then its weights; on the CPU without a GPU."""
        origin = copy.copy(self)
        vars(origin).update(self._fit_params)
        wanted = getattr(origin.estimator, "device", "cpu")
        lost = str(wanted).startswith("cuda") and not torch.cuda.is_available()
        net = origin._make_net(as_tensor(saved["sample"]), "cpu" if lost else None)
        with seeded(0, net.device):
            self.net_ = net.initialize()
        weights = {k: torch.from_numpy(v.copy()) for k, v in saved["weights"].items()}
        self.net_.module_.load_state_dict(weights)
        self.net_.history_ = type(self.net_.history)(saved["history"])
        self.learner_ = self._frozen_learner(self.net_.module_.learner)


def _stack(parts, places):
    """States of all pieces in the order of the tasks, padded to one shape."""
    back = np.argsort(places, kind="stable")
    return {
        name: np.concatenate(_same_shape([part[name] for part in parts]))[back]
        for name in parts[0]
    }


def _same_shape(arrays):
    """Zeros in place of the rows of a state that small tasks do not have."""
    widest = np.max([a.shape[1:] for a in arrays], axis=0) if len(arrays) > 1 else ()
    return [
        a
        if a.shape[1:] == tuple(widest) or len(arrays) == 1
        else np.pad(
            a, [(0, 0), *((0, w - n) for w, n in zip(widest, a.shape[1:], strict=True))]
        )
        for a in arrays
    ]


def _rows_of(table, tasks):
    return ranges(table.offsets[tasks], table.counts[tasks])
