"""Model-agnostic meta-learning as a Torch learner."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from ..inner_loop import add_loss, objective_of, share_of_rows
from ..outer_loop import one_hot
from ..tasks._batch import TaskBatch
from ._gradient_learner import HEAD_BIAS, HEAD_WEIGHT, GradientLearner


class MAML(GradientLearner):
    """Learns initial parameters from which a few gradient steps lead to a good model.

    The outer loss is differentiated through the inner loop [1]_. Variants are choices
    of what is adapted and how: learned rates are Meta-SGD [2]_, a prototype head is
    Proto-MAML [3]_, the head alone ANIL [4]_, the body alone BOIL [5]_; rates per
    layer and step, losses of all steps and first order to begin with are MAML++ [6]_.

    Parameters
    ----------
    backbone : nn.Module
        Maps rows to features. Its batch norms become episodic, in a copy that shares
        the parameters; parameters that need no gradient are not adapted.
    n_features : int
        Number of features.
    n_classes : int, default=None
        Size of a label space that all tasks share, whose head is an ordinary linear
        layer. None for regression and for labels that exist only inside their task.
    task : {"classification", "regression"}, default="classification"
        Regression has one output.
    inner_lr : float, sequence of float or str, default=0.1
        One rate, one for each step (the last is repeated), or what is learned,
        starting from rates of 0.1: "learned" a rate for each number of each parameter,
        "per_layer" one for each parameter and step [6]_, "curvature" a matrix for
        each axis of a gradient [7]_, "alfa" a net that gives rates and weight
        decay [8]_.
    inner_steps : int, default=5
        Number of steps in training mode.
    adapt_steps : int, default=None
        Number of steps in evaluation mode; None takes `inner_steps`.
    first_order : bool or int, default=False
        Take inner gradients as constants; a number does so in as many first steps of
        training, as `begin_step` counts them.
    multi_step_loss : int, default=0
        Number of first steps of training in which the query loss after every inner
        step counts, with equal weights to begin with that move linearly to the last.
        Losses before the last are those of the inner loop, averaged over rows.
    adapt : {"all", "head", "body"}, default="all"
        What is adapted.
    head_init : {"shared", "prototype"}, default="shared"
        For labels that exist only inside their task. "shared" starts every class from
        the same vector, "prototype" from its class mean, so that the first logits are
        negative squared distances. With ``adapt="body"`` it is always the
        prototypes: a head that does not tell classes apart gives the body no gradient.
    proximal : float, default=0.0
        Strength of a quadratic pull to the initial parameters in the inner loop.
    transductive : bool, default=False
        Whether query rows are normalised by their own statistics.
    strategy : {"auto", "batched", "vmap", "loop"}, default="auto"
        How the backbone is evaluated, see `TaskForward`.

    References
    ----------
    .. [1] Finn, Abbeel and Levine. "Model-agnostic meta-learning for fast adaptation
       of deep networks", ICML 2017.
    .. [2] Li, Zhou, Chen and Li. "Meta-SGD: learning to learn quickly for few-shot
       learning", arXiv:1707.09835, 2017.
    .. [3] Triantafillou et al. "Meta-Dataset: a dataset of datasets for learning to
       learn from few examples", ICLR 2020.
    .. [4] Raghu, Raghu, Bengio and Vinyals. "Rapid learning or feature reuse? Towards
       understanding the effectiveness of MAML", ICLR 2020.
    .. [5] Oh, Yoo, Kim and Yun. "BOIL: towards representation change for few-shot
       learning", ICLR 2021.
    .. [6] Antoniou, Edwards and Storkey. "How to train your MAML", ICLR 2019.
    .. [7] Park and Oliva. "Meta-curvature", NeurIPS 2019.
    .. [8] Baik, Choi, Choi, Kim and Lee. "Meta-learning with adaptive
       hyperparameters", NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from skmeta.gradient import MAML
    >>> from skmeta.modules import MLP
    >>> from skmeta.tasks import TaskBatch
    >>> backbone = MLP(hidden=(32,))
    >>> X = torch.randn(3, 10, 2)  # three tasks of ten rows
    >>> n_features = backbone(X[0]).shape[1]
    >>> learner = MAML(backbone, n_features, task="regression")
    >>> state = learner.adapt(TaskBatch(X, X.sum(2)))
    >>> learner.predict(state, TaskBatch(torch.randn(3, 7, 2))).shape
    torch.Size([3, 7])
    """

    n_begun: Tensor | None

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
        first_order: bool | int = False,
        multi_step_loss: int = 0,
        adapt: str = "all",
        head_init: str = "shared",
        proximal: float = 0.0,
        transductive: bool = False,
        strategy: str = "auto",
    ):
        super().__init__(
            backbone,
            n_features,
            n_classes=n_classes,
            task=task,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            adapt_steps=adapt_steps,
            adapt=adapt,
            proximal=proximal,
            transductive=transductive,
            strategy=strategy,
        )
        self.first_order = bool(first_order)
        self.n_first_order = 0 if isinstance(first_order, bool) else int(first_order)
        self.multi_step_loss = multi_step_loss
        self.head_init = "prototype" if adapt == "body" else head_init
        anneals = bool(self.n_first_order or multi_step_loss)
        n_begun = torch.zeros((), dtype=torch.int64) if anneals else None
        self.register_buffer("n_begun", n_begun)

    def begin_step(self) -> None:
        """Count the steps of training."""
        if self.n_begun is None:
            return
        self.n_begun += 1
        if self.n_first_order:
            self.first_order = int(self.n_begun) <= self.n_first_order

    def episode(self, support: TaskBatch, query: TaskBatch) -> Tensor:
        """Query predictions; they carry the losses of earlier steps that count."""
        weight = self._weight_of_early_steps()
        if not self.training or weight == 0 or query.y is None:
            return super().episode(support, query)
        problem = self.problem(support)
        *outputs, output = (
            self.predict(self.state(problem, fast, support), query)
            for fast in islice(self.path(problem, self.inner_steps), 1, None)
        )
        total = torch.stack([_mean_loss(early, query) for early in outputs]).sum()
        total = weight * share_of_rows() * total
        return add_loss(output, total, 1 - weight * len(outputs))

    def _weight_of_early_steps(self) -> float:
        """Weight of the query loss after each inner step before the last."""
        if self.n_begun is None or not self.multi_step_loss or self.inner_steps == 1:
            return 0.0
        progress = max(0, int(self.n_begun) - 1) / self.multi_step_loss
        return max(0.0, 1 - progress) / self.inner_steps

    def initial_head(
        self, support: TaskBatch, features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Head of each task before the inner loop."""
        if self.head is not None or self.head_init == "shared":
            return super().initial_head(support, features)
        if features is None:
            features = self._forward({}, support)
        return prototype_head(features, support)


def _mean_loss(output: Tensor, query: TaskBatch) -> Tensor:
    """Mean over the query rows of all tasks."""
    if query.n_classes is None:
        output = output.unsqueeze(-1)
    n_rows = query.weights.sum(1).to(output.dtype)
    return (objective_of(query, output.dtype)(output) * n_rows).sum() / n_rows.sum()


def prototype_head(features: Tensor, support: TaskBatch) -> dict[str, Tensor]:
    """Linear head whose logits are negative squared distances to class means.

    Up to the squared norm of the row, which is the same for every class.
    """
    members = one_hot(support, features.dtype)
    counts = members.sum(1).unsqueeze(-1).clamp(min=1)
    means = torch.bmm(members.transpose(1, 2), features) / counts
    return {HEAD_WEIGHT: 2 * means, HEAD_BIAS: -means.square().sum(-1)}
