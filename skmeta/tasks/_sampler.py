"""Episodes: support and query rows, drawn for a whole meta-batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ._batch import TaskBatch
from ._table import TaskTable, ranges, row_positions


def encode_classes(codes, labels):
    """Class index of each row within its task.

    Parameters
    ----------
    codes : int ndarray of shape (n_rows,)
        Task of each row.
    labels : ndarray of shape (n_rows,)
        Labels of any sortable type.

    Returns
    -------
    local : int ndarray of shape (n_rows,)
        Index of the row's class among the sorted classes of its task.
    values : ndarray of shape (n_segments,)
        Classes of all tasks, one task after the other.
    offsets : int ndarray of shape (n_tasks + 1,)
        Classes of task ``t`` are ``values[offsets[t]:offsets[t + 1]]``.
    """
    classes, global_code = np.unique(labels, return_inverse=True)
    pairs, segment = np.unique(
        codes.astype(np.int64) * len(classes) + global_code, return_inverse=True
    )
    task = pairs // len(classes)
    n_tasks = int(codes.max()) + 1 if len(codes) else 0
    offsets = np.append(0, np.cumsum(np.bincount(task, minlength=n_tasks)))
    return segment - offsets[codes], classes[pairs % len(classes)], offsets


#: Sorting all candidates costs less than drawing one by one up to this many for each
#: draw (measured for 5 to 50 draws in 25 to 500 rows).
_SORTED_PER_DRAW = 8


def draw_without_replacement(rng, counts, size):
    """Uniform draws of distinct integers below each count, all rows at once.

    The order of random keys where counts are small; otherwise Robert Floyd's algorithm
    (Bentley & Floyd 1987), whose cost does not depend on the counts.

    Returns
    -------
    draws : int ndarray of shape (*counts.shape, size)
        The first ``min(count, size)`` entries are valid, the others are -1.
    """
    flat = np.asarray(counts).ravel()
    widest = int(flat.max(initial=0))
    small = widest <= _SORTED_PER_DRAW * size
    draws = (_draw_by_keys if small else _draw_by_floyd)(rng, flat, size, widest)
    return draws.reshape(*np.shape(counts), size)


def _draw_by_keys(rng, counts, size, widest):
    beyond = np.arange(widest) >= counts[:, None]
    order = (rng.random(beyond.shape) + beyond).argsort(axis=1)[:, :size]
    order[np.arange(order.shape[1]) >= counts[:, None]] = -1
    return np.pad(order, [(0, 0), (0, size - order.shape[1])], constant_values=-1)


def _draw_by_floyd(rng, counts, size, widest):
    k = np.minimum(counts, size)
    draws = np.full((len(counts), size), -1, dtype=np.int64)
    uniform = rng.random((size, len(counts)))
    for i in range(size):
        top = counts - k + i
        pick = (uniform[i] * (top + 1)).astype(np.int64)
        taken = (draws[:, :i] == pick[:, None]).any(axis=1)
        draws[:, i] = np.where(i < k, np.where(taken, top, pick), -1)
    # Floyd's set is uniform, its order is not.
    keys = rng.random(draws.shape) + (draws < 0)
    return np.take_along_axis(draws, keys.argsort(axis=1), axis=1)


def split_support(table: TaskTable, labels, n_shots, *, support="random", seed=0):
    """Split every task once into support rows and all other rows.

    Parameters
    ----------
    table : TaskTable
        Rows by task.
    labels : int ndarray of shape (n_rows,) or None
        Class codes; then ``n_shots`` rows of each class of a task are support.
    n_shots : int
        Support rows per class, or per task where `labels` is None.
    support : {"random", "first"}, default="random"
        Whether support rows are drawn at random or are the first in row order.
    seed : int, default=0
        Seed of the draw.

    Returns
    -------
    support, query : TaskTable
        Both hold every task. A segment of a single row is support where there are
        classes (its class must be known) and query where there are none.
    """
    is_support = support_mask(table.codes, labels, n_shots, support=support, seed=seed)
    return table.take_rows(np.flatnonzero(is_support)), table.take_rows(
        np.flatnonzero(~is_support)
    )


def support_mask(codes, labels, n_shots, *, support="random", seed=0):
    """True for the support rows; parameters as in `split_support`.

    The support of fewer shots is part of that of more shots, seed for seed.
    """
    if labels is None:
        segment = codes
    else:
        n_labels = int(labels.max(initial=0)) + 1
        segment = np.unique(codes * n_labels + labels, return_inverse=True)[1]
    drawn = support == "random"
    key = np.random.default_rng(seed).random(len(codes)) if drawn else None
    rank = row_positions(segment, key)
    counts = np.bincount(segment)
    at_least = 0 if labels is None else 1
    k = np.clip(counts - 1, np.minimum(at_least, n_shots), n_shots)
    return rank < k[segment]


#: Meta-batches are drawn together up to so many numbers: what one alone costs is mostly
#: the calls, which took a seventh of a step of training.
_NUMBERS_AT_ONCE, _STEPS_AT_ONCE = 2**18, 32


@dataclass
class EpisodeSampler:
    """Draws meta-batches of episodes, many steps as one vectorised index operation.

    Parameters
    ----------
    table : TaskTable
        Training rows; `y` holds class indices or targets.
    n_classes : int or None
        Width of the shared label space; None for regression and for labels that
        exist only inside their task.
    classifier : bool
        Whether `y` holds class indices.
    n_ways : int or (int, int)
        Classes of an episode where labels are per task; a pair is a range, from
        which each meta-batch draws.
    n_shots, n_queries : int or (int, int)
        Support and query rows of an episode, per class where there are classes.
    support : {"random", "first"}
        Which rows of a task are support.
    class_balanced : bool
        Draw the same number of rows of each class; False draws as many in all, as
        frequent as they are in the task. Where labels are per task, that is among the
        classes of the episode, of which each has a support row.
    seed : int
        With the number of a step and the size of its meta-batch it determines the
        meta-batch, wherever a run starts and ends.
    dtype : torch.dtype or None, default=torch.float32
        Type of the rows handed out; None keeps that of the table.
    """

    table: TaskTable
    n_classes: int | None
    classifier: bool
    n_ways: int | tuple[int, int]
    n_shots: int | tuple[int, int]
    n_queries: int | tuple[int, int]
    support: str
    class_balanced: bool
    seed: int
    dtype: torch.dtype | None = torch.float32

    def __post_init__(self):
        table = self.table
        self.per_task = self.classifier and self.n_classes is None
        self.segmented = self.classifier and (self.per_task or self.class_balanced)
        if self.segmented:
            width = int(table.y.max()) + 1
            key = table.codes * width + table.y
            self.rows = np.argsort(key, kind="stable")
            pairs, self.counts = np.unique(key, return_counts=True)
            self.segment_task, self.segment_label = pairs // width, pairs % width
        else:
            self.rows = np.arange(len(table.X))
            keep = table.counts > 0
            self.counts = table.counts[keep]
            self.segment_task = np.flatnonzero(keep)
            self.segment_label = np.zeros(len(self.counts), dtype=np.int64)
        self.starts = np.append(0, np.cumsum(self.counts))[:-1]
        bounds = np.arange(table.n_tasks + 1)
        self.task_offsets = np.searchsorted(self.segment_task, bounds)
        self.width = self.n_classes or 1
        self.pooled = self.per_task and table.n_tasks == 1

    @property
    def units(self):
        """What a validation split divides: tasks, or the classes of one pool.

        Only units that can give an episode with at least one query row.
        """
        if self.pooled:
            return np.arange(len(self.counts) if self.counts.max() > 1 else 0)
        at_least = 2 if self.segmented else 1
        has_query = np.zeros(self.table.n_tasks, dtype=bool)
        np.logical_or.at(has_query, self.segment_task, self.counts >= at_least)
        n_segments = np.diff(self.task_offsets)
        return np.flatnonzero(has_query & (n_segments >= (2 if self.per_task else 1)))

    def n_shots_of(self, units) -> np.ndarray:
        """Support rows that units can have beside a query row, per class.

        Of classes of different sizes, what half of them can have; per task where there
        are no classes.
        """
        if self.pooled:
            return self.counts[units] - 1
        if self.segmented:
            parts = (slice(*self.task_offsets[[t, t + 1]]) for t in units)
            return np.array([np.median(self.counts[part]) for part in parts]) - 1
        n_rows = self.counts[self.task_offsets[units]]
        return (n_rows - 1) // (self.width if self.classifier else 1)

    @property
    def max_classes(self) -> int:
        """Largest number of classes that an episode has."""
        if not self.per_task:
            return self.width
        return int(min(np.max(self.n_ways), np.diff(self.task_offsets).max()))

    @property
    def rows_per_episode(self) -> int:
        """Largest number of rows that an episode shows."""
        rows = np.max(self.n_shots) + np.max(self.n_queries)
        if self.per_task:
            return int(rows * np.max(self.n_ways))
        return int(rows * self.width)

    def sample(self, step: int, units, n_tasks: int):
        """Support and query of `n_tasks` episodes drawn from `units`."""
        return next(self.stream(step, units, n_tasks))

    def episodes(self, step: int, tasks):
        """Support and query of one episode of each of these tasks.

        Keyed by the step alone, one meta-batch at a time: which tasks come later is not
        known yet.
        """
        (episodes,) = self._draw(step, None, len(tasks), 1, tasks=np.asarray(tasks))
        return episodes

    def stream(self, step: int, units, n_tasks: int):
        """What `sample` gives for this step and all after it."""
        units, n_steps = np.asarray(units), self._steps_at_once(n_tasks)
        block, start = divmod(step, n_steps)
        while True:
            yield from self._draw(block, units, n_tasks, n_steps)[start:]
            block, start = block + 1, 0

    def _steps_at_once(self, n_tasks):
        """Steps of a block; one where meta-batches differ in their shape."""
        if any(np.ndim(size) for size in (self.n_ways, self.n_shots, self.n_queries)):
            return 1
        n_segments = np.diff(self.task_offsets)
        if self.per_task and not self.pooled and n_segments.min() < self.n_ways:
            return 1
        numbers = n_tasks * self.rows_per_episode * self.table.X[:1].size
        return int(np.clip(_NUMBERS_AT_ONCE // max(numbers, 1), 1, _STEPS_AT_ONCE))

    def _draw(self, block, units, n_tasks, n_steps, tasks=None):
        """Support and query of every step of a block, of `tasks` where given."""
        rng = np.random.default_rng([self.seed, block])
        n_shots, n_queries = _number(rng, self.n_shots), _number(rng, self.n_queries)
        if self.classifier and not self.segmented:
            n_shots, n_queries = n_shots * self.width, n_queries * self.width
        if self.pooled:
            segments = self._of_pool(rng, units, n_tasks * n_steps)
        else:
            if tasks is None:
                tasks = _choose(rng, units, n_tasks, n_steps)
            segments = self._segments(rng, tasks)
        counts = np.where(segments < 0, 0, self.counts[segments])
        if self.per_task and not self.class_balanced:
            k, q = _as_frequent(rng, counts, n_shots, n_queries)
            n_shots, n_queries = k.max(), q.max()
        else:
            k = self._support_sizes(counts, n_shots)
            q = np.minimum(counts - k, n_queries)
        rows = self._rows(rng, segments, counts, n_shots + n_queries, k)
        sides = self._batches(rows, segments, k, q, n_shots, n_queries)
        return list(zip(*(_by_step(side, n_steps) for side in sides), strict=True))

    def _of_pool(self, rng, units, n_episodes):
        """Classes of each episode of a pool, ``(n_episodes, n_ways)``."""
        n_ways = min(_number(rng, self.n_ways), len(units))
        counts = np.full(n_episodes, len(units))
        segments = units[draw_without_replacement(rng, counts, n_ways)]
        return self._with_query(rng, segments, lambda i: units)

    def _segments(self, rng, tasks):
        """Segments of an episode of each task, -1 for none, ``(n_episodes, most)``."""
        first, n_segments = self.task_offsets[tasks], np.diff(self.task_offsets)[tasks]
        if self.per_task:
            n_ways = min(_number(rng, self.n_ways), int(n_segments.max()))
            drawn = draw_without_replacement(rng, n_segments, n_ways)
            segments = np.where(drawn < 0, -1, first[:, None] + drawn)
            return self._with_query(
                rng, segments, lambda i: np.arange(first[i], first[i] + n_segments[i])
            )
        if not self.segmented:
            return first[:, None]
        segments = np.full((len(tasks), self.width), -1)
        task = np.repeat(np.arange(len(tasks)), n_segments)
        members = ranges(first, n_segments)
        segments[task, self.segment_label[members]] = members
        return segments

    def _with_query(self, rng, segments, choices):
        """Segments of which one at least has a second row: every episode has a query.

        Without query rows the mean of an outer loss is NaN.
        """
        single = (segments < 0) | (self.counts[segments] < 2)
        for i in np.flatnonzero(single.all(axis=1)):
            large = choices(i)[self.counts[choices(i)] > 1]
            if len(large):
                segments[i, 0] = rng.choice(large)
        return segments

    def _support_sizes(self, counts, n_shots):
        """Support rows of each segment: all but one at the most, if there are two."""
        at_least = np.minimum(counts, 1) if self.segmented else 0
        return np.minimum(np.maximum(counts - 1, at_least), n_shots).clip(0)

    def _rows(self, rng, segments, counts, size, k):
        """Positions within the segment: support rows first, then query rows."""
        if self.support == "random":
            return draw_without_replacement(rng, counts, size)
        first = np.broadcast_to(np.arange(size), (*counts.shape, size))
        rest = draw_without_replacement(rng, counts - k, size) + k[..., None]
        shifted = np.take_along_axis(rest, np.maximum(first - k[..., None], 0), axis=-1)
        return np.where(first < k[..., None], first, shifted)

    def _batches(self, rows, segments, k, q, n_shots, n_queries):
        slot = np.arange(n_shots + n_queries)
        k = k[..., None]
        index = self.rows[
            np.minimum(self.starts[segments][..., None] + rows, len(self.rows) - 1)
        ]
        is_support = slot < k
        query_slot = np.minimum(k + np.arange(n_queries), len(slot) - 1)
        query_index = np.take_along_axis(index, query_slot, axis=-1)
        is_query = np.arange(n_queries) < q[..., None]
        labels = self._labels(segments)
        return (
            self._batch(
                index[..., :n_shots], is_support[..., :n_shots], labels, segments
            ),
            self._batch(query_index, is_query, labels, segments),
        )

    def _labels(self, segments):
        if not self.segmented:
            return None
        if self.per_task:
            return np.broadcast_to(np.arange(segments.shape[1]), segments.shape)
        return np.broadcast_to(np.arange(self.width), segments.shape)

    def _batch(self, index, valid, labels, segments):
        n_tasks = len(index)
        flat, mask = index.reshape(n_tasks, -1), valid.reshape(n_tasks, -1)
        if labels is not None:
            y = np.repeat(labels[..., None], index.shape[-1], axis=-1)
            y = y.reshape(n_tasks, -1)
        else:
            y = self.table.y[flat]
        if self.per_task and not self.class_balanced:
            flat, y, mask = _compact(flat, y, mask)
        n_classes = segments.shape[1] if self.per_task else self.width
        exists = segments >= 0
        batch = TaskBatch(
            torch.from_numpy(self.table.X[flat]).to(self.dtype),
            self._targets(y),
            None if mask.all() else torch.from_numpy(np.ascontiguousarray(mask)),
            n_classes if self.classifier else None,
            torch.from_numpy(exists) if self.per_task and not exists.all() else None,
        )
        return batch if batch.mask is None else _blank(batch)

    def _targets(self, y):
        dtype = torch.int64 if self.classifier else self.dtype
        return torch.from_numpy(np.ascontiguousarray(y)).to(dtype)


def _as_frequent(rng, counts, n_shots, n_queries):
    """Support and query rows of each class, each ``(n_episodes, n_ways)``.

    So many per class on average, drawn from the rows of all classes of an episode: at
    least one support row of each class, and a query row.
    """
    k = np.minimum(counts, 1)
    n_ways, others = k.sum(axis=1), (counts - k).sum(axis=1)
    k = k + _share_out(rng, counts - k, np.minimum((n_shots - 1) * n_ways, others - 1))
    others = (counts - k).sum(axis=1)
    return k, _share_out(rng, counts - k, np.minimum(n_queries * n_ways, others))


def _share_out(rng, counts, size):
    """Of each class, how many are among `size` rows drawn from those of all."""
    drawn, others = np.zeros_like(counts), counts.sum(axis=1)
    for j, ours in enumerate(counts.T):
        others = others - ours
        drawn[:, j] = rng.hypergeometric(ours, others, size)
        size = size - drawn[:, j]
    return drawn


def _compact(index, y, mask):
    """Real rows first, and no more padding than the episode of most rows needs."""
    order = np.argsort(~mask, axis=1, kind="stable")[:, : mask.sum(axis=1).max()]
    return tuple(np.take_along_axis(a, order, axis=1) for a in (index, y, mask))


def _blank(batch):
    """Zeros in place of the rows that padding happened to point at."""
    shape = batch.mask.shape + (1,) * (batch.X.ndim - 2)
    batch.X.masked_fill_(~batch.mask.view(shape), 0)
    batch.y.masked_fill_(~batch.mask, 0)
    return batch


def _number(rng, value):
    """A number, or a draw from a closed range."""
    if isinstance(value, (tuple, list)):
        return int(rng.integers(value[0], value[1] + 1))
    return int(value)


def _choose(rng, units, n_tasks, n_steps):
    """Distinct units in a step where there are enough, else all about equally often."""
    repeats, rest = divmod(n_tasks, len(units))
    counts = np.full(n_steps, len(units))
    parts = [
        units[draw_without_replacement(rng, counts, size)]
        for size in [len(units)] * repeats + [rest]
    ]
    return np.concatenate(parts, axis=1).ravel()


def _by_step(batch, n_steps):
    """The episodes of each step as a batch of its own."""
    if n_steps == 1:
        return [batch]

    def parts(tensor):
        if tensor is None:
            return [None] * n_steps
        return tensor.unflatten(0, (n_steps, -1)).unbind()

    def masks(tensor):
        return [None if part is None or part.all() else part for part in parts(tensor)]

    fields = parts(batch.X), parts(batch.y), masks(batch.mask), masks(batch.class_mask)
    return [
        TaskBatch(X, y, mask, batch.n_classes, exists)
        for X, y, mask, exists in zip(*fields, strict=True)
    ]
