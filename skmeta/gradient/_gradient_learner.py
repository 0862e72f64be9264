"""A backbone, a linear head and an inner loop: what gradient learners share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..inner_loop import (
    Affine,
    Curve,
    InnerLoss,
    ModuleLoss,
    Rates,
    StackLoss,
    TaskForward,
    as_stack,
    descend,
    objective_of,
    path,
    takes_vectors,
    without_running_statistics,
)
from ..outer_loop import Learner, TaskState, only_existing, which_classes
from ..tasks._batch import TaskBatch
from ._rates import LearnedRates, learned_rates

BODY = "backbone."
MOMENTS = "statistics."
HEAD_NAMES = HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
HEAD = Affine(HEAD_WEIGHT, HEAD_BIAS)
#: Numbers in the parameters of the tasks that are adapted at a time: about as many as
#: fit the cache, and no more memory with thousands of tasks.
MAX_NUMBERS = 300_000


@dataclass(frozen=True)
class InnerProblem:
    """What the inner loop minimises, and from where.

    Parameters
    ----------
    loss : ModuleLoss or StackLoss
        Loss of the support rows.
    initial : dict of str to Tensor of shape (n_tasks, *parameter)
        What is adapted, before the first step.
    head : dict of str to Tensor
        Head of each task, adapted or not.
    moments : dict of str to Tensor, default=None
        Statistics of batch norm; None where they depend on what is adapted.
    """

    loss: InnerLoss
    initial: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] | None = None


class GradientLearner(Learner):
    """Adapts backbone and head by gradient descent on the support rows.

    The state of a task holds the parameters that were adapted, its head where labels
    are per task, and the statistics of batch norm under the adapted parameters.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features. Its batch norms become episodic, in a copy that shares
        the parameters; parameters that need no gradient are not adapted.
    n_features : int
        Number of features.
    n_classes : int, default=None
        Size of a label space that all tasks share; None for regression and for labels
        that exist only inside their task.
    task : {"classification", "regression"}, default="classification"
        Regression has one output.
    inner_lr : float, sequence of float or str, default=0.1
        One rate, one for each step (the last is repeated), or the name of what is
        learned, see `learned_rates`. Learned rates of a head with labels per task are
        shared by its classes.
    inner_steps : int, default=5
        Number of steps in training mode.
    adapt_steps : int, default=None
        Number of steps in evaluation mode; None takes `inner_steps`.
    adapt : {"all", "head", "body"}, default="all"
        What is adapted.
    proximal : float, default=0.0
        Strength of a quadratic pull to the initial parameters in the inner loop.
    transductive : bool, default=False
        Whether query rows are normalised by their own statistics.
    strategy : {"auto", "batched", "vmap", "loop"}, default="auto"
        How the backbone is evaluated, see `TaskForward`.
    """

    closed_form = False
    first_order = False

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        *,
        n_classes: int | None = None,
        task: str = "classification",
        inner_lr: float | Sequence[float] | str = 0.1,
        inner_steps: int = 5,
        adapt_steps: int | None = None,
        adapt: str = "all",
        proximal: float = 0.0,
        transductive: bool = False,
        strategy: str = "auto",
    ):
        super().__init__(without_running_statistics(backbone))
        self.n_features = n_features
        self.task = task
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.adapt_steps = adapt_steps
        self.adapted = adapt
        self.proximal = proximal
        self.transductive = transductive
        self.head: nn.Linear | None = None
        if n_classes is not None or task == "regression":
            self.head = nn.Linear(n_features, n_classes or 1)
        self._forward = TaskForward(self.backbone, strategy)
        names = dict(self.backbone.named_parameters())
        free = [name for name, p in names.items() if p.requires_grad]
        self._body_names = [] if adapt == "head" else free
        self._fixed_names = [name for name in names if name not in self._body_names]
        self.rates: LearnedRates | None = None
        if isinstance(inner_lr, str):
            own = self._adaptable()
            # Gradients of a head with labels per task sum to zero over the classes.
            seen = [k for k in own if self.head is not None or k not in HEAD_NAMES]
            self.rates = learned_rates(inner_lr, own, inner_steps, seen)
        elif isinstance(inner_lr, Sequence):
            self._fixed_rates: Rates = tuple(map(float, inner_lr))
        else:
            self._fixed_rates = float(inner_lr)

    def adapt(self, support: TaskBatch) -> TaskState:
        """Parameters after the inner loop; the initial ones for a task without rows."""
        if torch.is_grad_enabled():
            return self._adapt(support)
        n_numbers = sum(p.numel() for p in self.parameters())
        size = max(1, MAX_NUMBERS // max(1, n_numbers))
        parts = [
            self._adapt(support.take(slice(start, start + size)))
            for start in range(0, support.n_tasks, size)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""
        moments = None if self.transductive else _within(state, MOMENTS)
        features = self._forward(_within(state, BODY), query, moments)
        if HEAD_WEIGHT in state:
            output = HEAD(features, state)
        else:
            assert self.head is not None
            output = self.head(features)
        if self.task == "regression":
            return output.squeeze(-1)
        return only_existing(output, state)

    def initial_head(
        self, support: TaskBatch, features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Head of each task before the inner loop.

        Where labels are per task it is zero. That stands for any vector that the
        classes share: it would add the same to every logit, which changes neither
        probabilities nor gradients, so there is nothing in it to learn.
        """
        if self.head is not None:
            shared = {HEAD_WEIGHT: self.head.weight, HEAD_BIAS: self.head.bias}
            return _expanded(shared, support.n_tasks)
        assert support.n_classes is not None
        shape = (support.n_tasks, support.n_classes)
        like = next(self.backbone.parameters(), support.X)
        return {
            HEAD_WEIGHT: like.new_zeros(*shape, self.n_features),
            HEAD_BIAS: like.new_zeros(shape),
        }

    def problem(self, support: TaskBatch) -> InnerProblem:
        """What the inner loop of some tasks does."""
        if not self._body_names:
            features, moments = self._forward.with_statistics({}, support)
            head = self.initial_head(support, features)
            initial = {} if self.adapted == "body" else head
            objective = objective_of(support, features.dtype)
            loss = StackLoss([HEAD], objective, features, {})
            return InnerProblem(loss, initial, head, moments)
        head = self.initial_head(support)
        body = self._of_body(self._body_names, support.n_tasks)
        if self.adapted == "body":
            return InnerProblem(self._loss(support, head), body, head)
        return InnerProblem(self._loss(support, {}), {**body, **head}, head)

    def descend(self, problem: InnerProblem, n_steps: int) -> dict[str, Tensor]:
        """Adapted parameters of each task after the inner loop."""
        return descend(
            problem.loss,
            problem.initial,
            self._schedule(),
            n_steps,
            self.first_order,
            self.proximal,
        )

    def path(self, problem: InnerProblem, n_steps: int) -> Iterator[dict[str, Tensor]]:
        """Adapted parameters of each task at the start and after every step."""
        return path(
            problem.loss,
            problem.initial,
            self._schedule(),
            n_steps,
            self.first_order,
            self.proximal,
        )

    def states(self, support: TaskBatch, n_steps: int) -> Iterator[TaskState]:
        """State of every task at the start and after every step."""
        problem = self.problem(support)
        for fast in self.path(problem, n_steps):
            yield self.state(problem, fast, support)

    def state(
        self, problem: InnerProblem, fast: dict[str, Tensor], support: TaskBatch
    ) -> TaskState:
        """What is kept of tasks whose parameters were adapted."""
        state = {**problem.head, **fast} if self.head is None else dict(fast)
        if not self.transductive:
            moments = problem.moments
            if moments is None:
                moments = self._moments(fast, support)
            state.update({MOMENTS + name: tensor for name, tensor in moments.items()})
        state.update(which_classes(support, next(iter(problem.head.values()))))
        return state

    def _adapt(self, support: TaskBatch) -> TaskState:
        n_steps = self.inner_steps
        if not self.training and self.adapt_steps is not None:
            n_steps = self.adapt_steps
        problem = self.problem(support)
        return self.state(problem, self.descend(problem, n_steps), support)

    def _loss(self, support: TaskBatch, fixed: Mapping[str, Tensor]) -> InnerLoss:
        """Loss of the support rows; `fixed` is a head that is not adapted."""
        dtype = next(self.backbone.parameters()).dtype
        objective = objective_of(support, dtype)
        stack = self._stack(support)
        if stack is not None:
            rest = self._of_body(self._fixed_names, support.n_tasks)
            return StackLoss(stack, objective, support.X.flatten(2), {**rest, **fixed})

        def loss(fast: dict[str, Tensor]) -> Tensor:
            features = self._forward(_within(fast, BODY), support)
            return objective(HEAD(features, {**fixed, **fast}))

        return ModuleLoss(loss)

    def _moments(
        self, state: Mapping[str, Tensor], support: TaskBatch
    ) -> dict[str, Tensor]:
        if not self._forward.has_statistics:
            return {}
        return self._forward.with_statistics(_within(state, BODY), support)[1]

    def _stack(self, support: TaskBatch) -> list[Affine | Curve] | None:
        """Backbone and head as layers whose derivatives are known, if they are."""
        layers = self._forward.layers
        if layers is None or self._forward.plan(support) != "batched":
            return None
        if not takes_vectors(layers, support.X):
            return None
        stack = as_stack(layers, BODY)
        return None if stack is None else [*stack, HEAD]

    def _of_body(self, names: Sequence[str], n_tasks: int) -> dict[str, Tensor]:
        if not names:
            return {}
        own = dict(self.backbone.named_parameters())
        return _expanded({BODY + name: own[name] for name in names}, n_tasks)

    def _schedule(self) -> Rates:
        return self._fixed_rates if self.rates is None else self.rates.schedule()

    def _adaptable(self) -> dict[str, Tensor]:
        """A tensor of the shape of each adapted parameter.

        Of a head with labels per task it has no axis of classes.
        """
        own = dict(self.backbone.named_parameters())
        found: dict[str, Tensor] = {BODY + name: own[name] for name in self._body_names}
        if self.adapted == "body":
            return found
        if self.head is not None:
            return {**found, **dict(self.head.named_parameters(prefix="head"))}
        empty = {HEAD_WEIGHT: torch.zeros(self.n_features), HEAD_BIAS: torch.zeros(())}
        return {**found, **empty}


def _expanded(parameters: Mapping[str, Tensor], n_tasks: int) -> dict[str, Tensor]:
    return {k: p.expand(n_tasks, *p.shape) for k, p in parameters.items()}


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries whose name has the prefix, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _joined(states: Sequence[TaskState]) -> TaskState:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
