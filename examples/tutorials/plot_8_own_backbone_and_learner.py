"""
Your own backbone, your own learner
===================================

skmeta separates three things that meta-learning papers tend to mix:

- the **backbone**, a Torch module that turns a row into features;
- the **learner**, the algorithm: how support rows become the state of a task, and how
  that state predicts;
- the **estimator**, which reads data, draws episodes, trains, keeps the states of
  thousands of tasks, and speaks scikit-learn.

You can bring your own backbone in one line and your own learner in about forty. This
tutorial does both.
"""

# %%
# The problem
# -----------
# 200 machines, each with a sensor. The reading is a curve of load and temperature that
# all machines share, plus an offset of the machine, which was calibrated badly. No
# network knows the offset of a new machine, but a few readings show it.

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(0)


def machine(n_rows=20):
    X = rng.uniform(-2, 2, size=(n_rows, 2))  # load and temperature, standardised
    curve = 3 * np.sin(2 * X[:, 0]) * np.exp(-0.5 * X[:, 1] ** 2)
    return X, curve + rng.normal(0, 2) + rng.normal(0, 0.3, size=n_rows)


tasks = [machine() for _ in range(200)]
new_tasks = [machine() for _ in range(200)]

# %%
# Your own backbone
# -----------------
# Any :class:`torch.nn.Module` that maps a batch of rows to features is one. Lazy layers
# infer their input size from the data. Do not add an output layer: the head belongs to
# the learner.

import torch
from skorch import NeuralNet
from torch import nn


class Fourier(nn.Module):
    """Sines and cosines of learned frequencies, for smooth curves."""

    def __init__(self, n_frequencies=32, width=32):
        super().__init__()
        self.frequencies = nn.LazyLinear(n_frequencies)
        self.mix = nn.Sequential(nn.Linear(2 * n_frequencies, width), nn.Tanh())

    def forward(self, X):
        angle = self.frequencies(X)
        return self.mix(torch.cat([angle.sin(), angle.cos()], dim=1))


# %%
# Give it to skorch, and the net to any neural meta-learner. ``module__*`` sets its
# parameters, which a search can reach as ``estimator__module__*``.

from skmeta import RidgeHeadRegressor

net = NeuralNet(
    Fourier,
    nn.MSELoss,
    module__n_frequencies=24,
    optimizer=torch.optim.Adam,
    lr=1e-2,
    max_epochs=15,
    batch_size=16,
    train_split=None,
    verbose=0,
)
ridge = RidgeHeadRegressor(net, n_shots=3, n_queries=15, n_episodes=320, random_state=0)
ridge.fit(tasks)
print(f"Fourier features, ridge head: R² = {ridge.score(new_tasks):.3f}")

# %%
# Your own learner
# ----------------
# We know that machines differ by an offset only. A learner that says so has less to
# find out from three rows than a full linear head. It predicts by one network for all
# machines, plus an offset for each: the mean residual of its support rows, shrunk
# towards zero by a strength that is learned.
#
# A :class:`~skmeta.outer_loop.Learner` is two functions over **many tasks at once**.
# ``adapt`` gets a :class:`~skmeta.tasks.TaskBatch` of support rows, with ``X`` of shape
# ``(n_tasks, n_rows, ...)`` padded to the largest task and ``weights`` that are 0 for
# padding. It returns a dictionary of tensors, each with the tasks as its first axis.
# ``predict`` gets that dictionary and query rows.

from skmeta.outer_loop import Learner


class OffsetLearner(Learner):
    """One network for all tasks, and a shrunken offset for each."""

    def __init__(self, backbone, n_features):
        super().__init__(backbone)
        self.head = nn.Linear(n_features, 1)
        self.log_strength = nn.Parameter(torch.zeros(()))

    def common(self, batch):
        return self.head(self.embed(batch)).squeeze(-1)

    def adapt(self, support):
        residual = (support.y - self.common(support)) * support.weights
        n_rows = support.weights.sum(dim=1)
        return {"offset": residual.sum(dim=1) / (n_rows + self.log_strength.exp())}

    def predict(self, state, query):
        return self.common(query) + state["offset"].unsqueeze(1)


# %%
# That is the whole algorithm. A task with no rows gets an offset of zero, so the prior
# needs no special case. Everything is differentiable, so training is
# ``loss(predict(adapt(support), query))``, which the outer loop does for you: the
# network learns a curve that is good *once the offset is taken out*.
#
# The estimator
# -------------
# A class that lists the parameters and builds the learner. What they mean is inherited,
# and so is everything else.

from skmeta.base import MetaRegressorMixin, NeuralMetaEstimator


class OffsetRegressor(MetaRegressorMixin, NeuralMetaEstimator):
    """A network for all tasks, and an offset for each."""

    def __init__(
        self,
        estimator=None,
        *,
        n_shots=5,
        n_queries=15,
        n_episodes=None,
        support="random",
        augment=None,
        chunk_size=None,
        group_column=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_shots = n_shots
        self.n_queries = n_queries
        self.n_episodes = n_episodes
        self.support = support
        self.augment = augment
        self.chunk_size = chunk_size
        self.group_column = group_column
        self.random_state = random_state

    def _build_learner(self, backbone, n_features):
        return OffsetLearner(backbone, n_features)


# %%
# It now has ``adapt``, ``partial_adapt``, fleets, data frames, pipelines, searches and
# ``freeze``:

offset = OffsetRegressor(net, n_shots=3, n_queries=15, n_episodes=320, random_state=0)
offset.fit(tasks)
print(f"Fourier features, offset:     R² = {offset.score(new_tasks):.3f}")

# %%
# Same network, same training, only the learner differs. The general ridge head has to
# find out by itself that machines differ by an offset, and it does, so on accuracy the
# two are about equal. What the specialised learner gives is a state that you can read:
# one number for each machine, which is its calibration error.

shots = [1, 2, 3, 5, 10]
curves = {
    name: [model.set_params(n_shots=k).score(new_tasks) for k in shots]
    for name, model in {"OffsetRegressor": offset, "RidgeHeadRegressor": ridge}.items()
}
for name, scores in curves.items():
    print(f"{name:20}", "".join(f"{score:8.3f}" for score in scores))

fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (name, scores), style, color in zip(
    curves.items(), ("o-", "s--"), ("#0072B2", "#D55E00"), strict=True
):
    ax.plot(shots, scores, style, color=color, label=name)
ax.set(
    xlabel="known rows of a new machine",
    ylabel="R² on its other rows\n(200 new machines)",
    xticks=shots,
)
ax.legend(frameon=False)
plt.show()

# %%
offset.adapt(*new_tasks[0])
block, position = offset.states_[None]
print(f"offset of the first new machine: {block.state['offset'][position]:.2f}")

# %%
# Is it right?
# ------------
# The same checks that guard skmeta's own estimators guard yours: padding changes
# nothing, the order of tasks changes nothing, ``adapt`` then ``partial_adapt`` equals
# ``adapt`` on all rows, copies are independent, also in threads, and so on. They are
# silent where all is well. (They want the same bits from every thread, so run them with
# one thread of linear algebra: set ``OMP_NUM_THREADS=1`` before Python starts.)

from skmeta.utils.estimator_checks import check_meta_estimator

small = net.set_params(max_epochs=2)
check_meta_estimator(OffsetRegressor(small, n_queries=5, random_state=0))

# %%
# For a classifier take :class:`~skmeta.base.MetaClassifierMixin` and let the learner
# return logits ``(n_tasks, n_rows, n_classes)``; :class:`skmeta.metric.ProtoNet` is a
# good one to start from, at seventy lines. An algorithm with another meta-gradient
# overrides ``Learner.episode``.
