"""
A drop-in for small data
========================

Forty labelled images, four classes: that is all there is. You would cross-validate a
logistic regression and hope. But if there is *related* data, with other classes, a
meta-learner can learn from it what tells images of this kind apart, and your forty
images only have to say which classes there are.

:func:`~skmeta.freeze` turns a fitted meta-learner into an ordinary scikit-learn
estimator: its ``fit`` adapts. Everything that takes an estimator takes it.
"""

# %%
# Related data to learn from
# --------------------------
# The small problem is to tell the handwritten digits 6, 7, 8 and 9 apart. Plenty of
# labelled images exist for 0 to 5, which seem to be of no use: an ordinary classifier
# trained on them can only answer "0" to "5".

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from skmeta.datasets import load_digits_tasks

digits = load_digits_tasks()
print(f"{len(digits.X_train)} images of {digits.train_classes}")
print(f"{len(digits.X_test)} images of {digits.test_classes}, to draw small sets from")

fig, axes = plt.subplots(2, 8, figsize=(7, 2.1), layout="constrained")
rng = np.random.default_rng(0)
for row, (X, name) in zip(
    axes, [(digits.X_train, "learned from"), (digits.X_test, "new")], strict=True
):
    for ax, image in zip(row, X[rng.permutation(len(X))], strict=False):
        ax.imshow(image, cmap="gray_r")
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
plt.show()

# %%
# Meta-training
# -------------
# ``fit(X, y)`` on one labelled pool draws **episodes** from it: some of its classes, a
# few support images of each, and query images to be judged on. Each episode is one
# small classification problem, and the network is trained to be good at small
# classification problems. :class:`~skmeta.ProtoNetClassifier` compares an image with
# the mean of each class, in an embedding that it learns.
#
# Six classes are few for that. A cheap trick makes more: a digit turned by 90 degrees
# or mirrored is one more class to tell apart.

from skmeta import ProtoNetClassifier, freeze


def more_classes(X, y):
    views = [np.rot90(Z, k, axes=(1, 2)) for Z in (X, X[:, :, ::-1]) for k in range(4)]
    return np.concatenate(views), np.concatenate([y + 10 * i for i in range(8)])


meta = ProtoNetClassifier(n_ways=10, n_shots=1, n_queries=5, random_state=0)
meta.fit(*more_classes(digits.X_train, digits.y_train))
print(f"trained for {sum(meta.history_[:, 'dur']):.0f} s")

# %%
# An ordinary estimator
# ---------------------
# From here on nothing is meta any more. ``few`` has ``fit``, ``predict`` and
# ``predict_proba``; ``clone`` keeps what it has learned; cross-validation adapts it in
# every fold to the training part and judges it on the rest.

from sklearn.model_selection import cross_val_score

few = freeze(meta)


def draw(n_per_class, seed):
    """A small data set: this many images of each of the four digits."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(digits.y_test == c), n_per_class, replace=False)
        for c in digits.test_classes
    ]
    rows = rng.permutation(np.concatenate(rows))
    return digits.X_test[rows], digits.y_test[rows]


X_small, y_small = draw(10, seed=0)
print(cross_val_score(few, X_small, y_small).mean())

# %%
# Against what you would have used
# --------------------------------
# Ten draws of the small set (three for boosting, which is slow), four sizes, five-fold
# cross-validation each. On images as small and well aligned as these, the nearest
# neighbour among raw pixels is a strong baseline.

from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

models = {
    "skmeta, frozen": (few, False),
    "logistic regression": (LogisticRegression(max_iter=1000), True),
    "nearest neighbour": (KNeighborsClassifier(1), True),
    "boosting": (HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=2), True),
}
sizes = [5, 10, 20, 40]
accuracy = {name: [] for name in models}
for n_per_class in sizes:
    for name, (model, flat) in models.items():
        scores = []
        for seed in range(3 if name == "boosting" else 10):
            X, y = draw(n_per_class, seed)
            X = X.reshape(len(X), -1) if flat else X
            cv = StratifiedKFold(5, shuffle=True, random_state=seed)
            scores.append(cross_val_score(model, X, y, cv=cv).mean())
        accuracy[name].append(scores)

# %%
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
styles = zip(
    accuracy.items(),
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    ("o-", "s--", "^:", "D-."),
    strict=True,
)
for (name, scores), color, style in styles:
    mean = [100 * np.mean(s) for s in scores]
    error = [196 * np.std(s) / np.sqrt(len(s)) for s in scores]
    ax.errorbar(sizes, mean, error, fmt=style, color=color, capsize=3, label=name)
ax.set(
    xscale="log",
    xlabel="labelled images of each digit (four fifths of them to fit on)",
    ylabel="cross-validated accuracy in %",
)
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

# %%
for name, scores in accuracy.items():
    cells = "".join(f"{100 * np.mean(s):8.1f}" for s in scores)
    print(f"{name:22}{cells}")

# %%
# Read the table from the left. With four images of each digit to fit on, what was
# learned from other digits is worth the most; with thirty-two, the small data set
# speaks for itself, and a nearest neighbour among its raw pixels is better. That
# crossing is typical: **meta-learning is for the left side of the curve**, and where
# the crossing lies is for you to measure, as here.
#
# Two things to remember
# ----------------------
# - The related data may come from anywhere, but **not from the small set's own test
#   rows**. Here the classes are disjoint, so nothing leaks.
# - Freezing keeps what was learned and adapts a copy. ``few.partial_fit`` takes more
#   rows, and new classes, later; ``freeze`` also takes a fitted pipeline or search that
#   ends in a meta-learner.

few.fit(X_small[y_small != 9], y_small[y_small != 9])
print(few.classes_)
few.partial_fit(X_small[y_small == 9], y_small[y_small == 9])
print(few.classes_)
