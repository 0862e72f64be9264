"""One module, evaluated with one set of parameters per task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from ..tasks._batch import TaskBatch
from ._attention import plain_attention
from ._layers import Layer, batched_layers
from ._norm import EpisodicBatchNorm, Moments
from ._over_tasks import Evaluated, loop_over_tasks, vmap_over_tasks
from ._skeleton import Skeleton

STRATEGIES = ("auto", "batched", "vmap", "loop")


class TaskForward:
    """Evaluates a module for several tasks that each have their own parameters.

    How it is done follows from the module and its device: stacks of linear layers
    by batched products, convolutions on a CPU and whatever has no batching rule
    (recurrent layers, data-dependent branches) task by task, everything else by
    `torch.func.vmap` over the forward pass. Gradients are left to
    ``torch.autograd.grad`` outside: gradients taken inside ``vmap`` are silently
    wrong in second order for affine normalisation layers.

    Safe to call from several threads at once.

    Parameters
    ----------
    module : nn.Module
        Maps rows ``(n_rows, *features)`` to features; further axes are flattened.
        Read, never written. Its batch norms have to be episodic, see
        `without_running_statistics`.
    strategy : {"auto", "batched", "vmap", "loop"}, default="auto"
        For measurements and tests; "auto" decides by itself.
    """

    def __init__(self, module: nn.Module, strategy: str = "auto"):
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {STRATEGIES}; got {strategy!r}.")
        self.module = module
        self.strategy = strategy
        self.layers: list[Layer] | None = batched_layers(module)
        if strategy == "batched" and self.layers is None:
            raise ValueError(
                "strategy='batched' needs an nn.Sequential of linear layers, "
                f"activations and layer norms; got {type(module).__name__}."
            )
        modules = dict(module.named_modules())
        self._norms = [k for k, m in modules.items() if type(m) is EpisodicBatchNorm]
        self._aliases = _aliases(module)
        self._skeleton = Skeleton(module)
        self._found: dict[str, str] = {}

    @property
    def has_statistics(self) -> bool:
        """Whether rows of a task depend on each other through batch norm."""
        return bool(self._norms)

    def __call__(
        self,
        fast: Mapping[str, Tensor],
        batch: TaskBatch,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Features of all rows; those of padding rows are finite but meaningless.

        Parameters
        ----------
        fast : dict of str to Tensor of shape (n_tasks, *parameter)
            Parameters that differ between tasks, by their name in the module. The
            module's own ones serve for all others.
        batch : TaskBatch
            Rows of the tasks.
        statistics : dict of str to Tensor, default=None
            What `with_statistics` gave, to normalise by; None takes those of the
            rows.

        Returns
        -------
        Tensor of shape (n_tasks, n_rows, n_features)
        """
        return self._evaluate(fast, batch, statistics or {}, record=False)[0]

    def with_statistics(
        self, fast: Mapping[str, Tensor], batch: TaskBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features, and batch-norm statistics ``(n_tasks, n_channels)`` by name."""
        return self._evaluate(fast, batch, {}, record=bool(self._norms))

    def plan(self, batch: TaskBatch) -> str:
        """The strategy that rows like these take."""
        if self.strategy != "auto":
            return self.strategy
        if self.layers is not None:
            return "batched"
        device = batch.X.device.type
        if device not in self._found:
            self._found[device] = self._find(batch)
        return self._found[device]

    def _evaluate(
        self,
        fast: Mapping[str, Tensor],
        batch: TaskBatch,
        statistics: Mapping[str, Tensor],
        record: bool,
    ) -> Evaluated:
        if batch.X.shape[1] == 0:
            features, moments = self._evaluate(
                fast, _one_padding_row(batch), statistics, record
            )
            return features[:, :0], moments
        if not fast and not self._norms and self.strategy == "auto":
            return _rows_of_all_tasks(self.module, batch), {}
        plan = self.plan(batch)
        if plan == "batched" and self.layers is not None:
            is_whole = self._aliases.keys() <= fast.keys()
            X, parameters = batch.X, fast if is_whole else {**self._own(), **fast}
            for layer in self.layers:
                X = layer(X, parameters)
            return X.flatten(2), {}
        return self._run(plan, fast, batch, statistics, record)

    # Copies per thread, vmap and loops are nothing for a compiler to look into.
    @torch.compiler.disable
    def _run(
        self,
        plan: str,
        fast: Mapping[str, Tensor],
        batch: TaskBatch,
        statistics: Mapping[str, Tensor],
        record: bool,
    ) -> Evaluated:
        fast = {alias: fast[k] for alias, k in self._aliases.items() if k in fast}
        shared = {k: v for k, v in self._own().items() if k not in fast}
        # Made out here: a module cannot be copied inside vmap.
        task = partial(self._task, self._skeleton.get())
        over_tasks = vmap_over_tasks if plan == "vmap" else loop_over_tasks
        with plain_attention():
            return over_tasks(task, fast, shared, batch, statistics, record)

    def _task(
        self,
        skeleton: nn.Module,
        parameters: Mapping[str, Tensor],
        X: Tensor,
        is_real: Tensor | None,
        statistics: Mapping[str, Tensor],
        record: bool,
    ) -> Evaluated:
        """Features of the rows of one task, and their statistics if recorded."""
        norms = {
            name: cast(EpisodicBatchNorm, skeleton.get_submodule(name))
            for name in self._norms
        }
        for name, norm in norms.items():
            norm.prepare(is_real, _moments(statistics, name), record)
        try:
            out = functional_call(skeleton, dict(parameters), (X,), tie_weights=False)
            return out.flatten(1), _recorded(norms) if record else {}
        finally:
            for norm in norms.values():
                norm.prepare()

    def _own(self) -> dict[str, Tensor]:
        """Parameters and buffers of the module itself, under all of their names."""
        own: dict[str, Tensor] = {}
        for path, module in self.module.named_modules():
            for name, parameter in module.named_parameters(path, False, False):
                own[name] = parameter
            # Copies, so that a module that counts in place leaves no trace.
            for name, buffer in module.named_buffers(path, False, False):
                own[name] = buffer.clone()
        return own

    def _find(self, batch: TaskBatch) -> str:
        modules = list(self.module.modules())
        has_convolution = any(isinstance(m, _ConvNd) for m in modules)
        if has_convolution and batch.X.device.type == "cpu":
            return "loop"
        if any(isinstance(m, nn.RNNBase) for m in modules):
            return "loop"
        return "vmap" if self._has_batching_rules(batch.take(slice(2))) else "loop"

    def _has_batching_rules(self, batch: TaskBatch) -> bool:
        """Try vmap and two derivatives: an operation without a rule raises or warns."""
        fast = {
            name: parameter.detach().expand(batch.n_tasks, *parameter.shape).clone()
            for name, parameter in self.module.named_parameters()
        }
        leaves = [tensor.requires_grad_() for tensor in fast.values()]
        devices = [batch.X.device] if batch.X.is_cuda else []
        try:
            with (
                torch.enable_grad(),
                torch.random.fork_rng(devices=devices),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("error")
                out = self._run("vmap", fast, batch, {}, False)[0]
                first = _gradients(out.square().sum(), leaves)
                _gradients(sum(g.square().sum() for g in first), leaves)
        except (RuntimeError, TypeError, ValueError, Warning):
            return False
        return True


def _gradients(value: Tensor | int, leaves: list[Tensor]) -> list[Tensor]:
    if not isinstance(value, Tensor) or not value.requires_grad:
        return []
    found = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    return [g for g in found if g is not None]


def _aliases(module: nn.Module) -> dict[str, str]:
    """Every place where a parameter is, and the name that stands for it."""
    canonical = {id(p): name for name, p in module.named_parameters()}
    return {
        name: canonical[id(parameter)]
        for path, child in module.named_modules()
        for name, parameter in child.named_parameters(path, False, False)
    }


def _moments(statistics: Mapping[str, Tensor], name: str) -> Moments | None:
    if not statistics:
        return None
    return Moments(statistics[f"{name}.mean"], statistics[f"{name}.variance"])


def _recorded(norms: Mapping[str, EpisodicBatchNorm]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, norm in norms.items():
        # A layer that the forward pass never came to has nothing to remember.
        if norm.moments is not None:
            found[f"{name}.mean"], found[f"{name}.variance"] = norm.moments
    return found


def _one_padding_row(batch: TaskBatch) -> TaskBatch:
    shape = (batch.n_tasks, 1)
    return replace(
        batch,
        X=batch.X.new_zeros(*shape, *batch.X.shape[2:]),
        y=None if batch.y is None else batch.y.new_zeros(shape),
        mask=torch.zeros(shape, dtype=torch.bool, device=batch.X.device),
    )


def _rows_of_all_tasks(module: nn.Module, batch: TaskBatch) -> Tensor:
    """Features of real rows, zeros for padding, where no parameter differs."""
    if batch.mask is None:
        out = module(batch.X.flatten(0, 1)).flatten(1)
        return out.unflatten(0, batch.X.shape[:2])
    mask = batch.mask
    if not bool(mask.any()):
        mask = torch.ones_like(mask)
    out = module(batch.X[mask]).flatten(1)
    features = out.new_zeros(*mask.shape, out.shape[1])
    return features.masked_scatter(mask.unsqueeze(-1), out)
