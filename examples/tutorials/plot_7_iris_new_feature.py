"""
Iris, and a measurement that is new
===================================

A botanist tells three species of iris apart by four measurements of a flower. Say that
the width of the petal has never been measured before. What do the other three teach
about it?

Each measurement can be made a task of its own: *tell the species from this one number*.
A meta-learner that has seen how three measurements bear on the species needs only a few
labelled flowers to learn how a fourth does.
"""

# %%
# Tasks of feature subsets
# ------------------------
# :func:`~skmeta.datasets.load_iris_tasks` makes one task of every subset of the
# measurements, and holds one subset out. With ``subset_size=1`` that is the petal
# width.

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from skmeta.datasets import load_iris_tasks

iris = load_iris_tasks(subset_size=1)
print("known:", iris.feature_names)
print("new:  ", iris.test_feature_names)

# %%
# All tasks describe the same 150 flowers. To be judged on new *flowers* as well as a
# new measurement, we learn from one half of them and test on the other. Measurements
# are brought to one scale, each by its own mean and spread, which needs no labels.

known_flowers = np.arange(150) // 3 % 2 == 0


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


tasks = [(standardised(X)[known_flowers], y[known_flowers]) for X, y in iris.tasks]
X_new, y_new = iris.test_tasks[0]
X_new, y_new = standardised(X_new)[~known_flowers], y_new[~known_flowers]

fig, axes = plt.subplots(1, 4, figsize=(8.5, 2.6), sharey=True, layout="constrained")
names = [*(name for (name,) in iris.feature_names), "petal width (new)"]
for ax, name, (X, y) in zip(axes, names, [*tasks, (X_new, y_new)], strict=True):
    for c, marker, color in zip(
        range(3), "osD", ("#0072B2", "#D55E00", "#009E73"), strict=True
    ):
        ax.plot(y[y == c], X[y == c], marker, color=color, alpha=0.4)
    ax.set(title=name, xticks=range(3), xlim=(-0.5, 2.5))
    ax.set_xticklabels(iris.target_names, rotation=30, ha="right")
axes[0].set_ylabel("measurement in\nstandard deviations")
plt.show()

# %%
# Two things are common to the measurements: the species lie side by side, and mostly in
# one order. The width of the sepal is the odd one out. That is what there is to learn,
# from three tasks.
#
# Learning from three measurements
# --------------------------------
# Species mean the same in every task, so the label space is *shared*. ``fit`` notices
# that by itself. ``n_shots=(1, 5)`` draws episodes of one to five labelled flowers of
# each species.

from skmeta import HierarchicalClassifier, ProtoNetClassifier, freeze

proto = ProtoNetClassifier(n_shots=(1, 5), n_queries=5, random_state=0).fit(tasks)
linear = HierarchicalClassifier().fit(tasks)
print(proto.label_space_)

# %%
# With no labelled flower at all
# ------------------------------
# Where labels are shared there is a prior: a guess for a measurement of which nothing
# is known but its values. It says "as petals and sepals usually go".

guess = proto.predict(X_new, groups=["petal width"] * len(X_new))
print(f"right without any label: {np.mean(guess == y_new):.0%}, by chance: 33%")

# %%
# With a few
# ----------
# Fifty draws of the labelled flowers, the others judged. Beside the meta-learners, what
# one would do with the new measurement alone.

from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

models = {
    "skmeta ProtoNetClassifier": freeze(proto),
    "skmeta HierarchicalClassifier": freeze(linear),
    "logistic regression alone": LogisticRegression(),
    "nearest neighbour alone": KNeighborsClassifier(1),
}
shots = [1, 2, 5, 10]
accuracy = {name: [] for name in models}
for n_shots in shots:
    rng = np.random.default_rng(0)
    draws = [
        np.concatenate(
            [
                rng.choice(np.flatnonzero(y_new == c), n_shots, replace=False)
                for c in range(3)
            ]
        )
        for _ in range(50)
    ]
    for name, model in models.items():
        scores = []
        for rows in draws:
            others = np.setdiff1d(np.arange(len(y_new)), rows)
            model.fit(X_new[rows], y_new[rows])
            scores.append(model.score(X_new[others], y_new[others]))
        accuracy[name].append(100 * np.array(scores))

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
colors = ("#0072B2", "#56B4E9", "#D55E00", "#009E73")
for i, (name, scores) in enumerate(accuracy.items()):
    ax.errorbar(
        np.arange(len(shots)) + 0.06 * (i - 1.5),
        [s.mean() for s in scores],
        [1.96 * s.std() / np.sqrt(len(s)) for s in scores],
        fmt=("o-", "v-", "s--", "^:")[i],
        color=colors[i],
        capsize=3,
        label=name,
    )
ax.set(
    xlabel="labelled flowers of each species",
    ylabel="accuracy in % on other flowers\n(mean and 95 % interval of 50 draws)",
)
ax.set_xticks(range(len(shots)), shots)
ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2)
plt.show()

# %%
for name, scores in accuracy.items():
    print(f"{name:30}", "".join(f"{s.mean():7.1f}" for s in scores))

# %%
# One flower of each species is enough for the prototypical network: it has learned that
# a species is an interval of a measurement, and how wide such intervals are. The linear
# :class:`~skmeta.HierarchicalClassifier` starts well and then gets no better: in a
# single measurement the middle species lies *between* two others, which no linear "one
# against the rest" can say. A learned embedding can. Looking at both is cheap.
#
# The new measurement beside the old ones
# ---------------------------------------
# So far every task had one column. A botanist would rather *add* the new measurement
# to those that are there. Tasks are now tables of any of the known measurements: one,
# two or all three of them, as frames with names.
# :class:`~skmeta.HeterogeneousClassifier` matches columns by name, and describes one
# that it does not know by what the labelled flowers say of it.

from itertools import combinations

import pandas as pd

from skmeta import HeterogeneousClassifier

measurements = ["sepal length", "sepal width", "petal length", "petal width"]
everything = load_iris_tasks(subset_size=4, test_subsets=[]).tasks[0]
flowers = pd.DataFrame(everything.X, columns=measurements)
species = everything.y

subsets = [list(s) for n in (1, 2, 3) for s in combinations(measurements[:3], n)]
tables = [(flowers.loc[known_flowers, s], species[known_flowers]) for s in subsets]
print([" + ".join(s) for s in subsets])

mixed = HeterogeneousClassifier(
    n_shots=(1, 5), n_queries=5, n_episodes=160, random_state=0
).fit(tables)
print(mixed.feature_names_in_)

# %%
# A new task arrives: flowers of which the two measurements of the *sepal* are known,
# and with them the length or the width of the petal. The width has no meaning yet;
# adapting gives it one, and nothing is refitted.

new_flowers = flowers[~known_flowers].reset_index(drop=True)
stages = {
    "sepal": measurements[:2],
    "sepal, petal width (new)": ["sepal length", "sepal width", "petal width"],
    "sepal, petal length": measurements[:3],
    "all four": measurements,
}
rng = np.random.default_rng(1)
draws = [
    np.concatenate([rng.choice(np.flatnonzero(y_new == c), 2, False) for c in range(3)])
    for _ in range(30)
]
alone = make_pipeline(StandardScaler(), LogisticRegression())
found = {name: {"skmeta": [], "alone": []} for name in stages}
for rows in draws:
    others = np.setdiff1d(np.arange(len(y_new)), rows)
    for name, columns in stages.items():
        X = new_flowers[columns]
        mixed.adapt(X.iloc[rows], y_new[rows])
        guess = mixed.predict(X.iloc[others])
        found[name]["skmeta"].append(np.mean(guess == y_new[others]))
        guess = alone.fit(X.iloc[rows], y_new[rows]).predict(X.iloc[others])
        found[name]["alone"].append(np.mean(guess == y_new[others]))

print("two labelled flowers of each species", f"{'skmeta':>8} {'alone':>8}")
for name, scores in found.items():
    print(f"{name:36}", *(f"{np.mean(values):8.1%}" for values in scores.values()))

# %%
gain = np.array(found["sepal, petal width (new)"]["skmeta"]) - np.array(
    found["sepal"]["skmeta"]
)
interval = 1.96 * gain.std() / np.sqrt(len(gain))
print(
    f"what the new column adds: {100 * gain.mean():.1f} ± {100 * interval:.1f} points"
)

# %%
# The new column raises the score at once, by the same labelled flowers. Where the
# length of the petal is known already, which training has seen, there is little left
# for the width to say.
#
# :doc:`The guide <../../guide/columns>` tells how it works, and what was measured on
# other tables.
