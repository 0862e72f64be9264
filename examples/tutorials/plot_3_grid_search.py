"""
Searching meta-hyperparameters
==============================

An ordinary neural network has a learning rate, a batch size and an optimizer. A
meta-learner has them too, and they mean something slightly different:

- the **outer loop** learns across tasks. Its learning rate moves what all tasks share,
  its *batch size is a number of tasks*, and each of its steps shows one meta-batch of
  them;
- the **inner loop** adapts to one task. It has a learning rate and a number of steps of
  its own.

All of them are parameters like any others, so scikit-learn's own
:class:`~sklearn.model_selection.GridSearchCV` searches them.
"""

# %%
# A problem small enough to search on
# -----------------------------------
# Each task is a sine wave of its own amplitude and phase, the "hello world" of
# meta-learning. Ten points are known of a new wave.

import matplotlib.pyplot as plt
import torch
from sklearn.model_selection import GridSearchCV, KFold
from skorch import NeuralNet

from skmeta import MAMLRegressor
from skmeta.datasets import make_sinusoid_tasks
from skmeta.modules import MLP

tasks = make_sinusoid_tasks(240, 20, random_state=0)
new_tasks = make_sinusoid_tasks(300, 20, random_state=1)

# %%
# The learner is :class:`~skmeta.MAMLRegressor`, which looks for initial weights from
# which a few gradient steps lead to a good model of a new wave. Its outer loop is a
# :class:`skorch.net.NeuralNet`, passed in unmodified: whatever you know of skorch
# holds. We pass one rather than ``estimator=None``, since parameters of the net can
# only be searched where there is a net.

net = NeuralNet(
    MLP,
    torch.nn.MSELoss,
    optimizer=torch.optim.Adam,
    lr=3e-3,
    max_epochs=8,
    batch_size=16,
    module__hidden=(40, 40),
    train_split=None,
    verbose=0,
)
meta = MAMLRegressor(
    net, n_shots=10, n_queries=10, n_episodes=320, inner_lr=0.02, random_state=0
)

# %%
# Which rates are worth trying?
# -----------------------------
# A range test trains for a hundred steps while the outer learning rate grows from step
# to step. Where the loss begins to fall, rates begin to matter; where it shoots up,
# they are too large. A search goes between.

from skmeta.inspection import LearningRateDisplay

LearningRateDisplay.from_estimator(meta, tasks)
plt.show()

# %%
# The grid
# --------
# ``estimator__`` reaches into the net, as always in scikit-learn; names without it
# belong to the meta-learner. A *list of tasks* goes in as ``X`` with ``y=None``: the
# splitter divides tasks, not rows, and every candidate is scored on tasks that it has
# not seen, after adapting to ten rows of each.

grid = {
    "estimator__lr": [1e-3, 1e-2],
    "estimator__batch_size": [8, 32],
    "inner_steps": [1, 5],
}
search = GridSearchCV(meta, grid, cv=KFold(2))
search.fit(tasks)
print(search.best_params_)

# %%
# ``cv_results_`` is the table that you know.

import pandas as pd

results = pd.DataFrame(search.cv_results_)
columns = [f"param_{name}" for name in grid] + ["mean_test_score", "mean_fit_time"]
results[columns].sort_values("mean_test_score", ascending=False).round(3)

# %%
# The outer learning rate decides most, and more inner steps help once it is right. The
# scores are those of held-out waves, so they may be compared with each other. As with
# any search, the winner's own score is a little optimistic; the honest number comes
# from tasks that took no part:

print(f"best in the search: R² = {search.best_score_:.3f}")
print(f"on 300 new waves:   R² = {search.score(new_tasks):.3f}")

# %%
# The same on real measurements
# -----------------------------
# :func:`~skmeta.datasets.load_breast_cancer_tasks` has 569 tumours, each measured in
# eight ways. A tumour is a task: three of its rows are known, the others are to be
# predicted. 400 tumours are searched on, the rest is for the end.

import numpy as np

from skmeta.datasets import load_breast_cancer_tasks

X, y, tumour = load_breast_cancer_tasks(return_X_y_groups=True)
tumours = [(X[tumour == t], y[tumour == t]) for t in np.unique(tumour)]
tumours = [tumours[i] for i in np.random.default_rng(0).permutation(len(tumours))]
known, new = tumours[:400], tumours[400:]

# %%
# Learning rate and batch size belong on one grid. An epoch shows a fixed number of
# episodes, so large meta-batches mean few steps, each by a better gradient: they want a
# larger rate.

real = MAMLRegressor(
    net, n_shots=3, n_queries=5, n_episodes=320, inner_lr=0.05, random_state=0
)
real.set_params(estimator__max_epochs=4)
rates, sizes = [1e-3, 3e-3, 1e-2], [4, 16, 64]
on_tumours = GridSearchCV(
    real, {"estimator__lr": rates, "estimator__batch_size": sizes}, cv=KFold(2)
).fit(known)

# Parameters are tried in the order of their names: batch size first.
scores = on_tumours.cv_results_["mean_test_score"].reshape(len(sizes), len(rates))
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
image = ax.imshow(scores, cmap="Blues", aspect="auto")
for (i, j), score in np.ndenumerate(scores):
    dark = score > (scores.min() + scores.max()) / 2
    ax.text(j, i, f"{score:.3f}", ha="center", va="center", color="wk"[1 - dark])
ax.set(
    title="R² on held-out tumours",
    xlabel="outer learning rate",
    ylabel="tumours in a meta-batch",
    xticks=range(len(rates)),
    yticks=range(len(sizes)),
)
ax.set_xticklabels(f"{rate:g}" for rate in rates)
ax.set_yticklabels(sizes)
fig.colorbar(image)
plt.show()

# %%
# Which rate is best for which batch size, and what the winner reaches on tumours that
# took no part:

for size, row in zip(sizes, scores, strict=True):
    print(f"meta-batches of {size:2}: best rate {rates[row.argmax()]:g}")
print(f"best in the search: R² = {on_tumours.best_score_:.3f}")
print(f"on 169 new tumours: R² = {on_tumours.score(new):.3f}")

# %%
# Which optimizer?
# ----------------
# The optimizer is one more parameter of the net, and its own parameters are searched
# the same way: ``estimator__optimizer__momentum`` and so on. A list of grids keeps
# combinations apart that make no sense together; plain gradient descent with momentum
# diverges at rates that Adam takes. Back to the waves, where more is at stake:

grids = [
    {
        "estimator__optimizer": [
            torch.optim.Adam,
            torch.optim.NAdam,
            torch.optim.AdamW,
        ],
        "estimator__lr": [3e-3, 1e-2],
    },
    {
        "estimator__optimizer": [torch.optim.SGD],
        "estimator__optimizer__momentum": [0.9],
        "estimator__optimizer__nesterov": [False, True],
        "estimator__lr": [1e-3, 3e-3],
    },
]
best = search.best_params_
meta.set_params(
    estimator__batch_size=best["estimator__batch_size"], inner_steps=best["inner_steps"]
)
optimizers = GridSearchCV(meta, grids, cv=KFold(2), refit=False).fit(tasks)

table = pd.DataFrame(optimizers.cv_results_)
table["optimizer"] = [
    f"{p['estimator__optimizer'].__name__}"
    + (" + Nesterov" if p.get("estimator__optimizer__nesterov") else "")
    for p in table["params"]
]
table = table.rename(columns={"param_estimator__lr": "lr", "mean_test_score": "R²"})
table[["optimizer", "lr", "R²"]].sort_values("R²", ascending=False).round(3)

# %%
# Watching a meta-training
# ------------------------
# A final score says which one won, not how. The best rate of each optimizer, trained
# once more on all tasks: ``history_`` is skorch's record of every epoch.

winners = table.loc[table.groupby("optimizer")["R²"].idxmax()]
styles = ["-", "--", ":", "-.", (0, (5, 1))]
colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"]

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for row, style, color in zip(winners.itertuples(), styles, colors, strict=True):
    fitted = meta.set_params(estimator__optimizer=row.params["estimator__optimizer"])
    fitted.set_params(**row.params).fit(tasks)
    loss = fitted.history_[:, "train_loss"]
    ax.plot(
        range(1, len(loss) + 1),
        loss,
        linestyle=style,
        color=color,
        label=f"{row.optimizer}, lr {row.lr:g}",
    )
ax.set(
    xlabel="epoch (320 episodes each)",
    ylabel="outer loss: squared error of query rows\n(in variances of the target)",
)
ax.legend(frameon=False)
plt.show()

# %%
# Three habits that save time
# ---------------------------
# - Search the outer learning rate first, in factors of three. Most "meta-learning does
#   not work" is a learning rate.
# - Tune on few epochs and train the winner for long: ``max_epochs`` is
#   ``estimator__max_epochs``.
# - Ask whether the loop is needed. A head in closed form has no inner learning rate and
#   no inner steps at all, and on this problem it wins with no search:

from skmeta import RidgeHeadRegressor

ridge = RidgeHeadRegressor(
    net.set_params(batch_size=16), n_shots=10, n_queries=10, n_episodes=320
)
ridge.set_params(random_state=0).fit(tasks)
print(f"RidgeHeadRegressor on 300 new waves: R² = {ridge.score(new_tasks):.3f}")
