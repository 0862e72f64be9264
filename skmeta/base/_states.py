"""What is known of each task: its support, and the state that adapting produced."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: States of gradient learners are kept up to this size and recomputed beyond it.
MAX_STATE_BYTES = 256 * 2**20
#: More single-task blocks than this are joined into one.
_MAX_BLOCKS = 64


class Block:
    """Tasks that were adapted together.

    Parameters
    ----------
    support : object with ``ids`` and ``take(positions)``
        What the states are computed from: support rows or their statistics. It does
        not depend on what `fit` learned.
    state : dict of str to ndarray, default=None
        Stacked states, leading axis the tasks; None until first needed.
    """

    def __init__(self, support, state=None):
        self.support = support
        self.state = state

    @property
    def ids(self):
        return self.support.ids

    def take(self, positions):
        """Block of the tasks at the given positions."""
        state = self.state
        if state is not None:
            state = {name: values[positions] for name, values in state.items()}
        return Block(self.support.take(positions), state)


class TaskStates(Mapping):
    """Task id to its place in a block. Never edited: updating gives a new object.

    Parameters
    ----------
    index : dict, default=None
        Task id to ``(block, position)``.
    """

    def __init__(self, index=None):
        self._index = {} if index is None else index

    def __getitem__(self, task):
        return self._index[task]

    def __iter__(self):
        return iter(self._index)

    def __len__(self):
        return len(self._index)

    def __repr__(self):
        n = len(self)
        return f"<states of {n} task{'s' if n != 1 else ''}>"

    @property
    def blocks(self):
        """Distinct blocks that some task lives in."""
        return list({id(block): block for block, _ in self._index.values()}.values())

    def updated(self, block, join=None):
        """With the tasks of `block` added or replaced.

        Parameters
        ----------
        block : Block
            Newly adapted tasks.
        join : callable, default=None
            Joins a list of supports, so that many small blocks become one.
        """
        index = dict(self._index)
        index.update((task, (block, i)) for i, task in enumerate(block.ids))
        states = TaskStates(index)
        if join is not None and len(block.ids) == 1:
            return states._compacted(join)
        return states

    def without(self, ids):
        """Without the given tasks, of which no block keeps anything."""
        ids, index = set(ids), {}
        for block in self.blocks:
            kept = [
                i
                for i, task in enumerate(block.ids)
                if task not in ids and self._index.get(task) == (block, i)
            ]
            # A block may still hold what has been replaced in another.
            if not ids.isdisjoint(block.ids):
                block = block.take(np.array(kept, dtype=np.intp))
                kept = range(len(kept))
            index.update((block.ids[i], (block, i)) for i in kept)
        return TaskStates({task: index[task] for task in self._index if task in index})

    def unsolved(self):
        """The same supports without states, for when `fit` has learned more."""
        fresh = {id(block): Block(block.support) for block in self.blocks}
        return TaskStates(
            {task: (fresh[id(block)], i) for task, (block, i) in self._index.items()}
        )

    def supports(self, ids, join):
        """Support of the given known tasks, in that order."""
        pieces = [
            block.support.take(positions) for block, positions, _ in self.by_block(ids)
        ]
        order = np.concatenate([where for _, _, where in self.by_block(ids)])
        return join(pieces).take(np.argsort(order, kind="stable"))

    def by_block(self, ids):
        """Yield ``(block, positions in block, places in ids)`` for known ids."""
        places = {}
        for place, task in enumerate(ids):
            block, position = self._index[task]
            entry = places.setdefault(id(block), (block, [], []))
            entry[1].append(position)
            entry[2].append(place)
        return [(b, np.array(p), np.array(w)) for b, p, w in places.values()]

    def _compacted(self, join):
        blocks = self.blocks
        if len(blocks) <= _MAX_BLOCKS:
            return self
        small = [b for b in blocks if len(b.ids) == 1]
        if len(small) <= _MAX_BLOCKS // 2:
            return self
        merged = Block(join([b.support for b in small]))
        return self.updated(merged)
