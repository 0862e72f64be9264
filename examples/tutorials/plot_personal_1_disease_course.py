"""
The course of a disease, patient by patient
===========================================

A new patient comes for the third visit. How will the disease go on? Three
measurements are too few for a line of this patient's own, and the average of all
patients is nobody's course. :class:`~skmeta.HierarchicalRegressor` has learned from
earlier patients how courses differ, and says how sure it is.
"""

# %%
# Earlier patients
# ----------------
# A score of motor symptoms, every three months for four years; higher is worse.
# Patients start at different levels and decline at different rates, the older ones
# faster, and a dose that changes from visit to visit helps some more than others. A bad
# season is in several visits: errors that follow each other are alike.

# sphinx_gallery_thumbnail_number = 1
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

N_VISITS = 16


def patients(n, first_id, rng):
    """Visits of new patients, one row each, in the order of time."""
    age = rng.uniform(45, 80, size=n)
    level, rate, effect = rng.normal(size=(3, n, 1))
    rate = 2.5 + 0.12 * (age[:, None] - 60) + rate
    years = np.tile(np.arange(N_VISITS) / 4, (n, 1))
    dose = rng.uniform(0, 2, size=years.shape)
    error = rng.normal(size=years.shape)
    for visit in range(1, N_VISITS):
        error[:, visit] = 0.7 * error[:, visit - 1] + 0.7 * error[:, visit]
    score = 22 + 5 * level + rate * years - (1.5 + 0.8 * effect) * dose + 1.5 * error
    table = pd.DataFrame(
        {"years": years.ravel(), "dose": dose.ravel(), "age": np.repeat(age, N_VISITS)}
    )
    return table, score.ravel(), np.repeat(np.arange(first_id, first_id + n), N_VISITS)


rng = np.random.default_rng(0)
rows, score, patient = patients(150, 0, rng)
print(rows.assign(patient=patient, score=score).head().round(2).to_string())

# %%
# One fit
# -------
# ``support="first"`` says that a new patient comes with the first visits, in order; fit
# then also learns how errors of consecutive visits are related. ``task_features`` names
# what describes a patient: age may bear on the rate, and not on the level alone.

from skmeta import HierarchicalRegressor

meta = HierarchicalRegressor(support="first", task_features=["age"])
meta.fit(rows, score, groups=patient)
print(f"correlation of the errors of two visits: {meta.prior_.serial}")

# %%
# New patients, before and after three visits
# -------------------------------------------
# ``predict(return_std=True)`` gives the expected score and its standard deviation,
# noise included; 1.645 of them to both sides should hold nine of ten measurements.
# Before the first visit the band is that of all patients of this age. Three visits move
# it to the patient, and make it narrower.

new_rows, new_score, new_patient = patients(100, 1000, rng)
visit = np.tile(np.arange(N_VISITS), 100)
first, later = visit < 3, visit >= 3


def course(meta):
    """Expected scores and half the width of a 90 % interval."""
    mean, std = meta.predict(new_rows, groups=new_patient, return_std=True)
    return mean, 1.645 * std


before = course(meta)
meta.adapt(new_rows[first], new_score[first], groups=new_patient[first])
after = course(meta)

shown = [1000, 1001, 1002, 1003]
fig, axes = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
for ax, who in zip(axes, shown, strict=True):
    own = new_patient == who
    years = new_rows["years"][own]
    for (mean, half), color, label in (
        (before, "tab:gray", "before any visit"),
        (after, "tab:blue", "after three visits"),
    ):
        low, high = mean[own] - half[own], mean[own] + half[own]
        ax.fill_between(years, low, high, color=color, alpha=0.25, lw=0)
        ax.plot(years, mean[own], color=color, label=label)
    ax.plot(years[later[own]], new_score[own & later], "k.", label="what came")
    ax.plot(years[first[own]], new_score[own & first], "ro", ms=5, label="known")
    ax.set(title=f"{new_rows['age'][own].iloc[0]:.0f} years old", xlabel="years")
axes[0].set_ylabel("score of symptoms")
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=4)
plt.show()

# %%
# How good is that?
# -----------------
# Judged on the later visits of a hundred new patients, beside one model of all patients
# and a line through the three visits of each.

from sklearn.linear_model import LinearRegression

pooled = LinearRegression().fit(rows, score).predict(new_rows)
lines = np.empty(len(new_score))
for who in np.unique(new_patient):
    own = new_patient == who
    line = LinearRegression().fit(
        new_rows[["years"]][own & first], new_score[own & first]
    )
    lines[own] = line.predict(new_rows[["years"]][own])


def error(predicted):
    return np.sqrt(np.mean((predicted - new_score)[later] ** 2))


print(f"one model of all patients:  {error(pooled):.1f}")
print(f"a line of their own:        {error(lines):.1f}")
print(f"learned, before any visit:  {error(before[0]):.1f}")
print(f"learned, after three:       {error(after[0]):.1f}")
for name, (mean, half) in {"before": before, "after": after}.items():
    held = np.abs(new_score - mean)[later] <= half[later]
    print(
        f"90 % intervals {name:6} hold {held.mean():.0%}, width {2 * half.mean():.1f}"
    )

# %%
# At every visit
# --------------
# A new measurement costs microseconds: ``partial_adapt`` adds it to what is known.
# Nothing is fitted again, and the result is as if all visits had come at once.

meta.forget(np.unique(new_patient))
rest, curve = visit > 8, []
for number in range(9):
    predicted = meta.predict(new_rows[rest], groups=new_patient[rest])
    curve.append(np.sqrt(np.mean((predicted - new_score[rest]) ** 2)))
    now = visit == number
    meta.partial_adapt(new_rows[now], new_score[now], groups=new_patient[now])

plt.figure(figsize=(5, 3), layout="constrained")
plt.plot(curve, marker="o")
plt.xlabel("visits known")
plt.ylabel("error in the later years")
plt.show()

# %%
# Intervals that the model gives are right where the model is. To make them hold
# whatever the truth, calibrate them on held-out patients:
# :class:`~skmeta.model_selection.ConformalRegressor`. For patients whose disease
# changes its course, old visits can count less: ``recency=``, explained in
# :doc:`the guide <../../guide/personalisation>`.
