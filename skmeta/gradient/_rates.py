"""Step sizes and directions of the inner loop that are learned with the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..inner_loop import Gradients, Rates

Parameters = Mapping[str, Tensor]

#: Where learned step sizes start.
INITIAL_RATE = 0.1


class RatePerNumber(nn.ParameterDict):
    """One rate for each number of each parameter (Meta-SGD).

    Parameters
    ----------
    own : dict of str to Tensor
        A tensor of the shape of the rates for each adapted parameter.
    """

    def __init__(self, own: Parameters):
        rates = {_key(k): torch.full_like(v, INITIAL_RATE) for k, v in own.items()}
        super().__init__({k: nn.Parameter(v) for k, v in rates.items()})
        self._names = tuple(own)

    def schedule(self) -> Rates:
        """What the inner loop takes."""
        return {name: self[_key(name)] for name in self._names}


class RatePerLayer(nn.ParameterDict):
    """One rate for each parameter tensor and step (MAML++ [1]_).

    Parameters
    ----------
    own : dict of str to Tensor
        Adapted parameters.
    n_steps : int
        Steps that have rates of their own; the last are repeated.

    References
    ----------
    .. [1] Antoniou, Edwards and Storkey. "How to train your MAML", ICLR 2019.
    """

    def __init__(self, own: Parameters, n_steps: int):
        rates = {_key(k): v.new_full((n_steps,), INITIAL_RATE) for k, v in own.items()}
        super().__init__({k: nn.Parameter(v) for k, v in rates.items()})
        self._names = tuple(own)

    def schedule(self) -> Rates:
        """What the inner loop takes."""
        columns = {name: self[_key(name)].unbind() for name in self._names}
        steps = zip(*columns.values(), strict=True)
        return [dict(zip(columns, rates, strict=True)) for rates in steps]


class Curvature(nn.Module):
    """Multiplies each axis of a gradient by a learned matrix (Meta-Curvature [1]_).

    The axes are those of output, of input and of the positions of a kernel. The
    matrices start at the identity, their product with the gradient is followed at a
    fixed rate.

    Parameters
    ----------
    own : dict of str to Tensor
        Adapted parameters. An axis that is missing in front, the classes of a task
        of which there may be any number, has no matrix.

    References
    ----------
    .. [1] Park and Oliva. "Meta-curvature", NeurIPS 2019.
    """

    def __init__(self, own: Parameters):
        super().__init__()
        self.axes = nn.ModuleDict(
            {
                _key(name): nn.ParameterList(
                    torch.eye(n) for n in _joined_kernel(tensor[None]).shape[1:]
                )
                for name, tensor in own.items()
            }
        )

    def schedule(self) -> Rates:
        """What the inner loop takes."""
        return self.step

    def step(self, fast: Parameters, gradients: Gradients) -> dict[str, Tensor]:
        """The parameters after one step."""
        after = dict(fast)
        for name, gradient in gradients.items():
            if gradient is not None:
                turned = self._turned(name, _joined_kernel(gradient))
                after[name] = fast[name] - INITIAL_RATE * turned.reshape(gradient.shape)
        return after

    def _turned(self, name: str, gradient: Tensor) -> Tensor:
        matrices = self.axes[_key(name)]
        for axis, matrix in zip(range(-len(matrices), 0), matrices, strict=True):
            gradient = (gradient.movedim(axis, -1) @ matrix).movedim(-1, axis)
        return gradient


class Alfa(nn.Module):
    """Rates and weight decay from a net that sees the task (ALFA [1]_).

    In every step a small net maps the means of the weights and gradients of all
    layers to a factor of the rate and a decay for each layer. It starts as plain
    gradient descent with one rate for each layer and step, which are learned too.

    Parameters
    ----------
    own : dict of str to Tensor
        Adapted parameters.
    n_steps : int
        Steps that have rates of their own; the last are repeated.
    seen : sequence of str
        Parameters whose means the net sees.

    References
    ----------
    .. [1] Baik, Choi, Choi, Kim and Lee. "Meta-learning with adaptive
       hyperparameters", NeurIPS 2020.
    """

    def __init__(self, own: Parameters, n_steps: int, seen: Sequence[str]):
        super().__init__()
        if not seen:
            raise ValueError(
                "inner_lr='alfa' sees the means of weights and gradients, which say "
                "nothing of a head with labels per task. Adapt the body as well."
            )
        self._names, self._seen = tuple(own), tuple(seen)
        self.rates = nn.Parameter(torch.full((n_steps, len(own)), INITIAL_RATE))
        n_inputs, n_outputs = 2 * len(self._seen), 2 * len(own)
        last = nn.Linear(n_inputs, n_outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(n_inputs, n_inputs), nn.ReLU(), last)

    def schedule(self) -> Rates:
        """What the inner loop takes."""
        return [partial(self.step, rates) for rates in self.rates]

    def step(
        self, rates: Tensor, fast: Parameters, gradients: Gradients
    ) -> dict[str, Tensor]:
        """The parameters after one step from base rates ``(n_parameters,)``."""
        seen = [tensors[name] for name in self._seen for tensors in (fast, gradients)]
        n_tasks = len(next(iter(fast.values())))
        means = [
            rates.new_zeros(n_tasks) if t is None else t.flatten(1).mean(1)
            for t in seen
        ]
        factors, decays = self.net(torch.stack(means, 1)).chunk(2, 1)
        steps = rates * (1 + factors)
        after = dict(fast)
        for i, name in enumerate(self._names):
            gradient = gradients[name]
            if gradient is not None:
                shape = (-1,) + (1,) * (gradient.ndim - 1)
                kept = fast[name] * (1 - decays[:, i].view(shape))
                after[name] = kept - steps[:, i].view(shape) * gradient
        return after


LearnedRates = RatePerNumber | RatePerLayer | Curvature | Alfa


def learned_rates(
    kind: str, own: Parameters, n_steps: int, seen: Sequence[str]
) -> LearnedRates:
    """What `inner_lr` names; parameters as there."""
    if kind == "learned":
        return RatePerNumber(own)
    if kind == "per_layer":
        return RatePerLayer(own, n_steps)
    if kind == "curvature":
        return Curvature(own)
    if kind == "alfa":
        return Alfa(own, n_steps, seen)
    raise ValueError(
        "inner_lr must be a number, a sequence of numbers, 'learned', 'per_layer', "
        f"'curvature' or 'alfa'; got {kind!r}."
    )


def _joined_kernel(tensor: Tensor) -> Tensor:
    """Positions of a kernel as one axis."""
    return tensor.flatten(3) if tensor.ndim > 3 else tensor


def _key(name: str) -> str:
    """A parameter's name as a key of a ParameterDict, which may have no dots."""
    return name.replace(".", "/")
