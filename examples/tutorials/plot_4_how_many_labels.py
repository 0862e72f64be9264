"""
How many labels does a new task need?
=====================================

Every label costs: a measurement in the laboratory, a phone call, a customer who is
asked to rate one more thing. Before you pay, you want to know what the first label of a
new task buys, what the fifth does, and when to stop. A meta-learner can tell you from
the tasks you have, because each of them can play the new one.

This tutorial draws that curve, reads the number of labels off it, and then halves the
number by choosing *which* rows to label.
"""

# %%
# The table
# ---------
# The table is that of :doc:`the second tutorial <plot_2_dataframe_with_user_column>`:
# 569 tumours, the cell nuclei of each measured in eight ways, and the question how far
# the worst nuclei lie above the mean. A task is a tumour, a row is one way of measuring
# it, and a label is a measurement that somebody has to make.

import matplotlib.pyplot as plt
import numpy as np

from skmeta import HierarchicalRegressor
from skmeta.datasets import load_breast_cancer_tasks

frame = load_breast_cancer_tasks(as_frame=True).frame
y = frame.pop("log worst")
meta = HierarchicalRegressor(group_column="tumour")
frame.head(8).T

# %%
# Score against labels
# --------------------
# :func:`~skmeta.model_selection.shot_curve` cross-validates over tasks. Tumours are
# held out; of each, ``k`` random rows are shown and the others are judged, for every
# ``k`` in ``shots`` and for several draws. Beside it runs a *baseline*, on the same
# rows: one boosting model for all tumours, which is what you would use without skmeta
# and which makes nothing of the ``k`` rows.

from skmeta.model_selection import shot_curve

curve = shot_curve(meta, frame, y, shots=[0, 1, 2, 3, 4, 5, 6])
curve.to_frame().round(3)

# %%
# Scores follow scikit-learn's rule that higher is better, so these are *negative* root
# mean squared errors. Targets are logarithms: an error of 0.05 is about 5 %.
#
# The last columns are worth as much as the mean. ``worst_decile`` is what the
# unluckiest tenth of tumours gets. ``harm_rate`` is the share of tumours that the
# baseline predicts better. With no label it is near one half, as it should be: neither
# model knows anything of the tumour. One label is enough to bring it far down, but it
# does not reach zero. A mean that improves does not mean that every task does.
#
# :class:`~skmeta.inspection.AdaptationCurveDisplay` draws all of it:

from skmeta.inspection import AdaptationCurveDisplay

display = AdaptationCurveDisplay.from_curve(
    curve, name="skmeta, random rows", baseline_name="pooled boosting"
)
display.figure_.set_size_inches(7, 4.5)
plt.show()

# %%
# Reading the number off
# ----------------------
# ``labels_needed`` inverts the curve: how many labels give a wanted mean score, with an
# interval that comes from resampling tumours.

for error in (0.07, 0.05, 0.04, 0.02):
    n, low, high = curve.labels_needed(-error)
    print(
        f"error of {error:.2f}: {n:3.1f} labels, 90 % interval {low:3.1f} to {high:.1f}"
    )

# %%
# Three labels bring the error to 5 %, six to 4 %. The interval of the latter has no
# upper end: with another draw of tumours the curve may never get there. And 2 % is not
# to be had by labels, since the curve flattens out above it. What would help is a
# better feature or a better model, not a larger budget.
#
# Numbers *beyond* the shots that you measured come from going on with the curve, and
# the interval does not know whether the curve goes on as it began. Trust them less, and
# measure again once you have the labels.
#
# More old tasks instead?
# -----------------------
# The other way to spend a budget is on more *training* tasks.
# :func:`~skmeta.model_selection.task_learning_curve` holds the labels of a new task
# fixed and varies how many tasks are learned from.

from skmeta.model_selection import task_learning_curve

more_tasks = task_learning_curve(
    meta, frame, y, n_shots=3, n_draws=2, train_sizes=[10, 30, 100, 300, 455]
)
more_tasks.to_frame().round(3)

# %%
# The first hundred tumours pay, the next few hundred hardly do. From here on one more
# label of each new tumour is worth more than more old tumours.
#
# Not all labels are equal
# ------------------------
# So far the labelled rows were drawn at random. In practice they often are simply the
# first ones, and then the answer may be another: say ``support="first"``. The first
# rows of a tumour are its radius, texture, perimeter and area. The perimeter says again
# what the radius said, so the third label is wasted.

shots = [0, 1, 2, 3, 4]
display = AdaptationCurveDisplay.from_estimator(
    meta, frame, y, shots=shots, name="random rows"
)
AdaptationCurveDisplay.from_estimator(
    meta, frame, y, shots=shots, support="first", name="first rows", ax=display.ax_
)
display.figure_.set_size_inches(7, 4.5)
plt.show()

# %%
# Both dashed lines are the same pooled model, judged on what is left in either case: in
# this table the last rows of a tumour are the harder ones to predict. Compare each
# curve with its own.
#
# Asking for the right rows
# -------------------------
# Can we do better than random? The meta-learner knows which rows vary together across
# tumours, so it knows which label would tell the most about the others.
# :func:`~skmeta.model_selection.ask` gives their positions in a pool of unlabelled
# rows. It needs no label, so it can be asked before anything is measured.

from skmeta.model_selection import ask

tumours = np.random.default_rng(0).choice(frame["tumour"].unique(), 150, replace=False)
new = frame["tumour"].isin(tumours)
X_new, y_new = frame[new].reset_index(drop=True), y[new].reset_index(drop=True)
meta.fit(frame[~new], y[~new])

ways = np.array(["radius", *frame.columns[2:]])
asked = ask(meta, X_new, 3).reshape(-1, 3)  # three rows of each tumour
for place in range(3):
    chosen, counts = np.unique(ways[asked[:, place] % 8], return_counts=True)
    order = counts.argsort()[::-1][:2]
    print(f"{place + 1}.", ", ".join(f"{chosen[i]} ({counts[i]} times)" for i in order))

# %%
# First what differs most between tumours, the compactness; then the size, mostly by
# *one* of perimeter and area; then the symmetry. What is that worth? We label one to
# four rows of each of the 150 tumours, chosen in three ways, and predict the rest.

import copy

rng = np.random.default_rng(0)
first_row = np.arange(0, len(X_new), 8)


def error_on_the_rest(rows):
    """Root mean squared error of a tumour, averaged over tumours."""
    adapted = copy.copy(meta).adapt(X_new.loc[rows], y_new[rows])
    rest = X_new.index.difference(rows)
    squared = (y_new[rest] - adapted.predict(X_new.loc[rest])) ** 2
    return squared.groupby(X_new["tumour"]).mean().pow(0.5).mean()


def random_rows(n):
    return np.concatenate([start + rng.permutation(8)[:n] for start in first_row])


budgets = [1, 2, 3, 4]
errors = {"first": [], "random": [], "asked": []}
for n in budgets:
    first = (first_row[:, None] + np.arange(n)).ravel()
    errors["first"].append(error_on_the_rest(first))
    draws = [error_on_the_rest(random_rows(n)) for _ in range(5)]
    errors["random"].append(np.mean(draws))
    errors["asked"].append(error_on_the_rest(ask(meta, X_new, n)))

fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
styles = zip(
    errors.items(), ("^:", "s--", "o-"), ("#D55E00", "#009E73", "#0072B2"), strict=True
)
for (name, values), style, color in styles:
    ax.plot(budgets, values, style, color=color, label=f"{name} rows")
ax.set(
    xlabel="labelled rows of each new tumour",
    ylabel="error on its other rows\n(root mean square, log scale of target)",
    xticks=budgets,
    ylim=(0, None),
)
ax.legend(frameon=False)
plt.show()

# %%
for name, values in errors.items():
    print(f"{name:8}" + "".join(f"{value:8.3f}" for value in values))

# %%
# Two rows that were asked for leave a smaller error than four random ones. Part of it
# is that ``ask`` has those rows labelled that are hard to predict, so that easier ones
# are left; if you need all values of a tumour, measured or predicted, that is what you
# want.
#
# To take home
# ------------
# - ``shot_curve`` on the tasks you have answers "how many labels?" before you buy any.
# - Look at the harm rate as well as at the mean.
#   :doc:`Tutorial 6 <plot_6_never_worse_than_pooled>` is about getting it down.
# - Say ``support="first"`` if the labels will not be a random choice.
# - ``ask`` which rows to label, if you have the choice.
