"""Fine-tuning from pre-trained weights, as a Torch learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..inner_loop import (
    Affine,
    InnerLoss,
    ModuleLoss,
    StackLoss,
    TaskForward,
    minimise,
    objective_of,
)
from ..outer_loop import Learner, TaskState, one_hot, only_existing, which_classes
from ..tasks._batch import TaskBatch

BODY = "backbone."
HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"
LINEAR = Affine(HEAD_WEIGHT, HEAD_BIAS)
#: Numbers in the parameters of the tasks whose bodies are adapted at a time.
_MAX_NUMBERS = 300_000


class FineTune(Learner):
    """Trains a head, or everything, on the support rows, from pre-trained weights.

    Full-batch gradient descent that never raises the loss, see
    `skmeta.inner_loop.minimise`, with a quadratic pull back to where it started
    (L2-SP [1]_). The backbone is to be in evaluation mode: batch norm then keeps the
    statistics of its training, and a row does not depend on others.

    The head of a task starts from a prior head where classes are shared and in
    regression; a task without rows stays there. Where labels exist only inside their
    task, a linear head starts at zero and a cosine head [2]_ from the class means.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features.
    n_features : int
        Number of features.
    n_classes : int, default=None
        Size of a label space that all tasks share; None for regression and for labels
        that exist only inside their task.
    task : {"classification", "regression"}, default="classification"
        Regression has one output.
    head : {"linear", "cosine"}, default="linear"
        Cosine logits are scaled cosines of features and class vectors.
    adapted : {"head", "all"}, default="head"
        What is trained.
    inner_lr : float, default=0.1
        Rate of the first step; halved for a task whenever a step would raise its loss.
    adapt_steps : int, default=20
        Number of steps.
    proximal : float, default=0.01
        Strength of the pull to the start.

    References
    ----------
    .. [1] Li, Grandvalet and Davoine. "Explicit inductive bias for transfer learning
       with convolutional networks", ICML 2018.
    .. [2] Chen, Liu, Kira, Wang and Huang. "A closer look at few-shot
       classification", ICLR 2019.
    """

    weight: Tensor | None
    bias: Tensor | None
    log_scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        *,
        n_classes: int | None = None,
        task: str = "classification",
        head: str = "linear",
        adapted: str = "head",
        inner_lr: float = 0.1,
        adapt_steps: int = 20,
        proximal: float = 0.01,
    ):
        super().__init__(backbone)
        self.n_features = n_features
        self.task = task
        self.head = head
        self.adapted = adapted
        # Heads are small enough to keep those of any fleet.
        self.closed_form = adapted == "head"
        self.inner_lr = inner_lr
        self.adapt_steps = adapt_steps
        self.proximal = proximal
        n_outputs = 1 if task == "regression" else n_classes
        prior = None if n_outputs is None else torch.zeros(n_outputs, n_features)
        self.register_buffer("weight", prior)
        self.register_buffer("bias", None if prior is None else prior[:, 0].clone())
        self.register_buffer("log_scale", torch.tensor(10.0).log())
        named = self.backbone.named_parameters()
        self._body_names = [name for name, p in named if p.requires_grad]
        self._forward = TaskForward(self.backbone)

    def adapt(self, support: TaskBatch) -> TaskState:
        """Head, and body where it is adapted, of each task."""
        if self.adapted == "head":
            return self._adapt(support, ())
        n_numbers = sum(p.numel() for p in self.backbone.parameters())
        size = max(1, _MAX_NUMBERS // max(1, n_numbers))
        parts = [
            self._adapt(support.take(slice(start, start + size)), self._body_names)
            for start in range(0, support.n_tasks, size)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def predict(self, state: TaskState, query: TaskBatch) -> Tensor:
        """Logits ``(n_tasks, n_rows, n_classes)`` or means ``(n_tasks, n_rows)``."""
        output = self._outputs(self._features(state, query), state)
        if self.task == "regression":
            return output.squeeze(-1)
        return only_existing(output, state)

    def initial_head(self, support: TaskBatch, features: Tensor) -> TaskState:
        """Head of each task before it is trained."""
        n_tasks = support.n_tasks
        if self.weight is not None and self.bias is not None:
            weight = self.weight.expand(n_tasks, -1, -1)
            bias = self.bias.expand(n_tasks, -1)
        elif self.head == "cosine":
            members = one_hot(support, features.dtype)
            weight = nn.functional.normalize(members.transpose(1, 2) @ features, dim=-1)
            bias = weight[..., 0]
        else:
            assert support.n_classes is not None
            weight = features.new_zeros(n_tasks, support.n_classes, self.n_features)
            bias = weight[..., 0]
        if self.head == "cosine":
            return {HEAD_WEIGHT: weight}
        return {HEAD_WEIGHT: weight, HEAD_BIAS: bias}

    def _adapt(self, support: TaskBatch, body_names: Sequence[str]) -> TaskState:
        features = self.embed(support)
        start = self.initial_head(support, features)
        own = dict(self.backbone.named_parameters())
        for name in body_names:
            start[BODY + name] = own[name].expand(support.n_tasks, *own[name].shape)
        loss = self._loss(support, None if body_names else features)
        found = minimise(loss, start, self.inner_lr, self.adapt_steps, self.proximal)
        return {**found, **which_classes(support, features)}

    def _loss(self, support: TaskBatch, features: Tensor | None) -> InnerLoss:
        """Loss of the support rows; `features` where the body is not adapted."""
        objective = objective_of(support, self.log_scale.dtype)
        if features is not None and self.head == "linear":
            return StackLoss([LINEAR], objective, features, {})

        def loss(fast: dict[str, Tensor]) -> Tensor:
            rows = self._features(fast, support) if features is None else features
            return objective(self._outputs(rows, fast))

        return ModuleLoss(loss)

    def _features(self, state: Mapping[str, Tensor], batch: TaskBatch) -> Tensor:
        body = {k[len(BODY) :]: v for k, v in state.items() if k.startswith(BODY)}
        return self._forward(body, batch) if body else self.embed(batch)

    def _outputs(self, features: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        if self.head == "linear":
            return LINEAR(features, state)
        rows = self.log_scale.exp() * nn.functional.normalize(features, dim=-1)
        classes = nn.functional.normalize(state[HEAD_WEIGHT], dim=-1)
        return rows @ classes.transpose(1, 2)
