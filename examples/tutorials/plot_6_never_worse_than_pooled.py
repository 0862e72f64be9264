"""
Never worse than the model you have
===================================

You have one model for all users, and it works. Somebody proposes to adapt it to each
user. What if that makes it worse?

It can. Few rows mislead, a model of one user alone has seen too little, and a
meta-learner whose idea of a task is too simple gives away what the pooled model knew.
This is called **negative transfer**. This tutorial shows how to see it, task by task,
and how to keep the model of today as a candidate that must be beaten by evidence.
"""

# %%
# Couriers
# --------
# How long does a delivery take? That depends on distance, hour, floor and rain in a way
# that is the same for all couriers and far from linear: rush hours, stairs that only
# count from the third floor on. On top of it every courier has a pace of his own and
# some minutes that he always needs. 120 couriers have 20 to 50 recorded deliveries
# each.

import matplotlib.pyplot as plt
import numpy as np


def courier(rng, differ=1.0):
    n = rng.integers(20, 51)
    distance, hour = rng.gamma(3, 1, size=n), rng.uniform(8, 22, size=n)
    floor, rain = rng.integers(0, 6, size=n), rng.random(n) < 0.25
    rush = np.exp(-((hour - 12.5) ** 2) / 2) + 1.4 * np.exp(-((hour - 18.5) ** 2) / 3)
    minutes = 6 + distance * (3 + 2.2 * rush + 1.5 * rain) + 0.7 * floor * (floor > 2)
    pace, always = 1 + differ * rng.normal(0, 0.08), differ * rng.normal(0, 2.5)
    X = np.column_stack([distance, hour, floor, rain])
    return X, pace * minutes + always + rng.normal(0, 3, size=n)


rng = np.random.default_rng(0)
couriers = [courier(rng) for _ in range(120)]
new_couriers = [courier(rng) for _ in range(150)]

# %%
# The model of today is a boosting model for all couriers. skmeta keeps it, and three
# other models that people use, in :mod:`skmeta.baselines`: they have ``adapt`` like all
# learners, so that they can be compared.

from sklearn.ensemble import HistGradientBoostingRegressor

from skmeta import HierarchicalRegressor
from skmeta.baselines import LocalRegressor, PooledRegressor

boosting = HistGradientBoostingRegressor(max_iter=50, random_state=0)
pooled = PooledRegressor(boosting)

# %%
# One table for all candidates
# ----------------------------
# :func:`~skmeta.model_selection.compare` holds out couriers, shows the same random rows
# of them to every candidate, and judges all on the same other rows. ``difference`` is
# that to the pooled model, courier by courier, with its 95 % interval: positive is
# better, since scores are negative errors in minutes. ``harm_rate`` is the share of
# couriers for whom the pooled model was better.

from skmeta.model_selection import compare

found = compare(
    {
        "pooled": pooled,
        "local": LocalRegressor(),
        "hierarchical": HierarchicalRegressor(),
        "hierarchical on top": HierarchicalRegressor(boosting),
    },
    couriers,
    shots=[2, 5, 10],
    n_draws=2,
    baselines=False,
)
columns = ["mean", "worst_decile", "harm_rate", "difference", "difference_low"]
found.to_frame()[columns].round(2)

# %%
# - A model of the courier **alone** is a disaster with two rows and bad with ten.
# - :class:`~skmeta.HierarchicalRegressor` adapts a *linear* model. That is less than
#   the boosting model knows, and it is worse for seven couriers in ten.
# - ``HierarchicalRegressor(boosting)`` has the boosting model **inside**: its
#   predictions become a feature, and what is adapted is the correction to it. That is
#   better than either part.
#
# Had you tried only the second, you would have concluded that adapting does not pay.
#
# Look at every task
# ------------------
# :class:`~skmeta.inspection.TaskScoresDisplay` shows the gain of each courier. Here we
# fit on the 120 couriers and judge on 150 new ones, which is what ``cv="prefit"`` says.

from skmeta.inspection import TaskScoresDisplay

pooled.fit(couriers)
candidates = {
    "hierarchical": HierarchicalRegressor(),
    "hierarchical on top of boosting": HierarchicalRegressor(boosting),
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, (name, candidate) in zip(axes, candidates.items(), strict=True):
    TaskScoresDisplay.from_estimator(
        candidate.fit(couriers),
        new_couriers,
        cv="prefit",
        baseline=pooled,
        n_shots=5,
        n_draws=3,
        ax=ax,
    )
    ax.set(title=name, ylabel="minutes of error saved\nagainst the pooled model")
axes[1].set_ylabel(None)
plt.show()

# %%
# Let the evidence choose
# -----------------------
# Which candidate is best depends on the data and on how many rows a courier has, so do
# not guess. :class:`~skmeta.model_selection.GuardedRegressor` takes the pooled model of
# your choice, adds a local model and two hierarchical ones, and cross-validates all
# over the training tasks for several numbers of support rows. The safe choice is
# between the pooled and the local model, mixed where it is not clear which of them is
# better. The other two are believed as far as their gain over the safe choice, in
# couriers that had no part in choosing, is beyond chance.

from skmeta.model_selection import GuardedRegressor

guarded = GuardedRegressor(boosting, shots=[0, 2, 5, 10], n_draws=1).fit(couriers)
report = guarded.report()
weights = report.pivot(index="candidate", columns="n_shots", values="weight")
weights.dropna().round(2)

# %%
# ``report`` also says why: cross-validated squared error, and its difference to the
# pooled model with a 95 % interval over couriers. Negative is better here, as these are
# losses.

report.query("candidate == 'mixture'").drop(columns="weight").round(2)

# %%
# With no row of a courier there is nothing to adapt to, and the two are the same within
# the interval. From two rows on there is no doubt.

# %%
# It is an ordinary meta-learner: ``adapt`` to new couriers, ``predict``, put it in a
# pipeline or freeze it.

X, y = new_couriers[0]
guarded.adapt(X[:5], y[:5]).predict(X[5:]).round(1)[:5]

# %%
# Where there is nothing to gain
# ------------------------------
# Now suppose that couriers do *not* differ. Everything that an adapted model finds in
# the rows of one courier is noise. The linear learner and the local one lose as before,
# and the guard is asked again:

alike = [courier(rng, differ=0) for _ in range(120)]
guarded_alike = GuardedRegressor(boosting, shots=[0, 2, 5, 10], n_draws=1).fit(alike)
report_alike = guarded_alike.report().dropna()
report_alike.pivot(index="candidate", columns="n_shots", values="weight").round(2)

# %%
# No gain stands out from chance, so the pooled model keeps all the weight, and the
# guarded model is that of today. New couriers are not worse off:

from skmeta.model_selection import FewShotScorer

new_alike = [courier(rng, differ=0) for _ in range(150)]
scorer = FewShotScorer(n_shots=5, n_draws=3)
for name, model in {
    "pooled": PooledRegressor(boosting).fit(alike),
    "hierarchical": HierarchicalRegressor().fit(alike),
    "guarded": guarded_alike,
}.items():
    print(f"{name:14} {-scorer(model, new_alike):.2f} minutes")

# %%
# What "never worse" can mean
# ---------------------------
# On average over tasks, as far as the training tasks tell: with 120 of them that is
# far, with ten it is not, and the choice can be wrong. And not for every task: some new
# couriers are unlucky with their first rows.
# :class:`~skmeta.inspection.TaskScoresDisplay` shows how many, and how much they lose.
# Here it is one in four, and none of them loses more than half a minute, while others
# gain several:

display = TaskScoresDisplay.from_estimator(
    guarded, new_couriers, cv="prefit", baseline=pooled, n_shots=5, n_draws=3
)
display.figure_.set_size_inches(7, 4)
display.ax_.set_ylabel("minutes of error saved\nagainst the pooled model")
plt.show()

# %%
# So where a wrong prediction is expensive, say how wrong it may be.
# :class:`~skmeta.model_selection.ConformalRegressor` wraps any learner and calibrates
# its intervals on held-out tasks, for the number of rows that a task has. Nine in ten
# deliveries of a new courier should fall inside:

from skmeta.model_selection import ConformalRegressor

conformal = ConformalRegressor(
    HierarchicalRegressor(boosting), confidence_level=0.9, shots=[0, 2, 5, 10]
).fit(couriers)

for n_rows in (0, 2, 10):
    inside, width = [], []
    for X, y in new_couriers:
        if n_rows:
            conformal.adapt(X[:n_rows], y[:n_rows])
        # The couriers of `fit` are 0 to 119, so -1 is one that nothing is known of.
        groups = None if n_rows else np.full(len(y), -1)
        _, interval = conformal.predict_interval(X[n_rows:], groups=groups)
        low, high = interval[:, 0, 0], interval[:, 1, 0]
        inside.append(np.mean((low <= y[n_rows:]) & (y[n_rows:] <= high)))
        width.append(np.mean(high - low))
    print(
        f"{n_rows:2} rows known: {np.mean(inside):.0%} inside, "
        f"{np.mean(width):.1f} minutes wide"
    )

# %%
# The more rows of a courier are known, the narrower the promise, and it is kept either
# way. On average, again: here is the share of each courier, with 10 rows known. The
# black line is what luck alone does to the 11 to 40 deliveries that are judged, if
# every courier is covered nine times in ten. Here that explains nearly all of the
# spread; where tasks differ in how regular they are, it does not.

judged = np.array([len(y) - 10 for _, y in new_couriers])
luck = rng.binomial(judged, 0.9, size=(200, len(judged))) / judged
bins = np.linspace(0.475, 1.025, 12)
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.hist(inside, bins, color="C0", alpha=0.6, label="new couriers")
expected, _ = np.histogram(luck, bins)
ax.stairs(expected / len(luck), bins, color="k", label="luck alone")
ax.axvline(np.mean(inside), color="C3", ls="--", label="mean")
ax.set(xlabel="share of deliveries inside the interval", ylabel="couriers")
ax.legend(loc="upper left")
plt.show()

# %%
# To take home
# ------------
# - Adapting can hurt. ``harm_rate`` in ``compare`` and ``shot_curve`` says how often,
#   ``TaskScoresDisplay`` says whom.
# - Put the model you have *inside*: ``HierarchicalRegressor(model)``.
# - ``GuardedRegressor`` (and ``GuardedClassifier``) need no guess about which candidate
#   is best with how many rows; ``report`` shows the evidence.
# - "Never worse" holds on average. For single tasks there are intervals.
