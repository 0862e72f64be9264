"""Objects as a tree of JSON and arrays by name, and back.

What may be built on the way back is a fixed set of classes of this library: a file
names one of them or is refused, and nothing in it is executed.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from .. import modules
from ..base import Block, MetaEstimator, TaskStates
from ..hierarchical._base import TaskSupport
from ..hierarchical._design import Design
from ..hierarchical._gaussian import Prior
from ..hierarchical._laplace import ClassFrequencies, LogisticPrior
from ..hierarchical._neighbors import Neighborhoods
from ..hierarchical._serial import SerialStatistics
from ..hierarchical._statistics import Statistics
from ..outer_loop._supervised import Heads
from ..task_sampling import Exp3Sampler, GradientAlignmentSampler
from ..tasks._columns import Columns
from ..tasks._table import TaskTable
from ..utils.discovery import all_estimators

_PARTS = (
    Block,
    ClassFrequencies,
    Columns,
    Design,
    Exp3Sampler,
    GradientAlignmentSampler,
    Heads,
    LogisticPrior,
    Neighborhoods,
    Prior,
    SerialStatistics,
    Statistics,
    TaskSupport,
    TaskTable,
)
_SCALARS = (bool, int, float, str, type(None))


@cache
def _estimators():
    return dict(all_estimators())


def _backbones():
    return {name: getattr(modules, name) for name in modules.__all__}


class Writer:
    """Encodes values; arrays are collected in `arrays` and objects only once.

    Attributes
    ----------
    arrays : dict of str to ndarray
        Arrays by the name that the tree gives them.
    objects : list
        Encoded objects, which the tree refers to by position.
    """

    def __init__(self):
        self.arrays, self.objects, self._seen = {}, [], {}

    def encode(self, value, where="the estimator"):
        """Value as JSON."""
        if type(value) in _SCALARS:
            return value
        if isinstance(value, np.ndarray | np.generic):
            return self._array(np.asarray(value), isinstance(value, np.generic), where)
        if isinstance(value, list | tuple):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.encode(v, where) for v in value]}
        if isinstance(value, dict):
            pairs = [
                [self.encode(k, where), self.encode(v, f"{where}, {k!r}")]
                for k, v in value.items()
            ]
            return {"dict": pairs}
        if isinstance(value, type) and value in _backbones().values():
            return {"backbone": value.__name__}
        return self._object(value, where)

    def _array(self, array, scalar, where):
        if array.dtype.kind in "OU":
            values = array.ravel().tolist()
            if not all(isinstance(v, str) for v in values):
                raise TypeError(f"{where} holds an array of objects, not of strings.")
            kind = "object" if array.dtype.kind == "O" else "str"
            return {"strings": values, "shape": list(array.shape), "dtype": kind}
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{where} holds an array of dtype {array.dtype}.")
        name = f"{len(self.arrays)}"
        self.arrays[name] = array.astype(array.dtype.newbyteorder("="), order="C")
        return {"scalar" if scalar else "array": name}

    def _object(self, value, where):
        if id(value) not in self._seen:
            self.objects.append(self._content(value, where))
            # The value is kept too: an id is unique only while its object lives.
            self._seen[id(value)] = len(self.objects) - 1, value
        return {"object": self._seen[id(value)][0]}

    def _content(self, value, where):
        name = type(value).__name__
        if isinstance(value, MetaEstimator) and _estimators().get(name) is type(value):
            return {"class": name, "state": self._estimator(value)}
        if isinstance(value, TaskStates):
            return {"class": name, "state": self._states(value)}
        if type(value) in _PARTS:
            names = (
                [field.name for field in dataclasses.fields(value)]
                if dataclasses.is_dataclass(value)
                else vars(value)
            )
            state = {n: self.encode(getattr(value, n), f"{name}.{n}") for n in names}
            return {"class": name, "state": state}
        raise TypeError(
            f"{where} holds {value!r}, a {name}, which is code of its own and cannot "
            "be part of a file that holds none. Pickle keeps it."
        )

    def _estimator(self, value):
        """State of an estimator; parameters that are code are left to the user."""
        params, name = value.get_params(deep=False), type(value).__name__
        state = {}
        for key, part in value.__getstate__().items():
            if key == "_fit_params":
                state[key] = {
                    "dict": [[k, self._parameter(k, v, name)] for k, v in part.items()]
                }
            elif key in params:
                state[key] = self._parameter(key, part, name)
            else:
                state[key] = self.encode(part, f"{name}.{key}")
        return state

    def _parameter(self, key, value, name):
        try:
            return self.encode(value, f"{name}.{key}")
        except TypeError:
            return {"given": key}

    def _states(self, states):
        blocks = states.blocks
        number = {id(block): i for i, block in enumerate(blocks)}
        places = [states[task] for task in states]
        index = [[number[id(block)], place] for block, place in places]
        return {
            "tasks": self.encode(list(states)),
            "blocks": self.encode(blocks),
            "index": self.encode(np.array(index, dtype=np.int64).reshape(-1, 2)),
        }


class Reader:
    """Decodes what a `Writer` has encoded.

    Parameters
    ----------
    objects : list
        Encoded objects.
    arrays : mapping of str to ndarray
        Arrays by name.
    given : dict
        Parameters of the estimator that are code, from the user.
    """

    def __init__(self, objects, arrays, given):
        self.objects, self.arrays, self.given = objects, arrays, given
        self._built = {}

    def decode(self, node):
        """Value of a node of the tree."""
        if not isinstance(node, dict):
            return node
        kind, content = next(iter(node.items()))
        if kind in ("list", "tuple"):
            values = [self.decode(v) for v in content]
            return values if kind == "list" else tuple(values)
        if kind == "dict":
            return {self.decode(k): self.decode(v) for k, v in content}
        if kind == "array":
            return self.arrays[content]
        if kind == "scalar":
            return self.arrays[content][()]
        if kind == "strings":
            return np.array(content, dtype=node["dtype"]).reshape(node["shape"])
        if kind == "backbone":
            return _backbones()[content]
        if kind == "given":
            return self._from_user(content)
        if kind == "object":
            if content not in self._built:
                found = self.objects[content]
                self._built[content] = self._build(found["class"], found["state"])
            return self._built[content]
        raise ValueError(f"The file holds a value of unknown kind {kind!r}.")

    def _from_user(self, name):
        if name not in self.given:
            raise ValueError(
                f"The parameter {name!r} was code of your own, which the file does not "
                f"hold: pass it again, as in load(path, {name}=...)."
            )
        return self.given[name]

    def _build(self, name, state):
        state = {key: self.decode(value) for key, value in state.items()}
        if name == "TaskStates":
            return TaskStates(
                {
                    task: (state["blocks"][block], place)
                    for task, (block, place) in zip(
                        state["tasks"], state["index"].tolist(), strict=True
                    )
                }
            )
        parts = {part.__name__: part for part in _PARTS}
        known = parts | _estimators()
        if name not in known:
            raise ValueError(f"The file holds an unknown class {name!r}.")
        value = known[name].__new__(known[name])
        if name in parts:
            vars(value).update(state)
        else:
            value.__setstate__(state)
        return value
