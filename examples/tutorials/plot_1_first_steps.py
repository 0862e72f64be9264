"""
First steps: fit, adapt, predict
================================

A chain of ice-cream stands records how warm each day was and how many litres it sold.
Every stand has its own customers: one by the beach sells more and reacts more strongly
to the weather than one in an office district. A new stand opens, and after three days
its owner wants a forecast.

Three days are too few to fit a model of that stand alone. One model for all stands
ignores that the new one is special. **Meta-learning** is the third way: learn from the
old stands *how stands differ*, then use the three days to find out which kind of stand
this one is.

This tutorial shows the whole cycle, ``fit`` then ``adapt`` then ``predict``, and no
more than scikit-learn and NumPy are needed to follow it.
"""

# %%
# The data: many small, related data sets
# ---------------------------------------
# In skmeta, each stand is a **task**: a small data set of its own, ``X`` and ``y``.
# We make up 40 stands with 15 to 40 recorded days each. What a stand sells rises with
# the temperature, from its own level and with its own slope.

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(6)


def open_stand(n_days):
    level = rng.normal(60, 15)  # litres at 20 degrees
    slope = rng.normal(3, 1.2)  # more litres per degree
    temperature = rng.uniform(10, 35, size=(n_days, 1))
    sold = level + slope * (temperature[:, 0] - 20) + rng.normal(0, 6, size=n_days)
    return temperature, sold


tasks = [open_stand(n_days=rng.integers(15, 41)) for _ in range(40)]
X_new, y_new = open_stand(n_days=30)
print(f"{len(tasks)} stands; the first has {len(tasks[0][1])} days")

# %%
# fit learns across tasks
# -----------------------
# ``fit`` takes the list of tasks as it is: ``[(X_0, y_0), (X_1, y_1), ...]``.
# :class:`~skmeta.HierarchicalRegressor` is a linear model of every task whose weights
# share a learned *prior*: how levels and slopes are spread over stands. It has no
# learning rate and nothing to tune, so it is the first model to try on a table.

from skmeta import HierarchicalRegressor

meta = HierarchicalRegressor().fit(tasks)

# %%
# adapt specialises to one task
# -----------------------------
# The three days that we know of the new stand are its **support** rows; ``adapt`` takes
# them. The days to be forecast are its **query** rows; ``predict`` takes those.

X_support, y_support = X_new[:3], y_new[:3]
X_query, y_query = X_new[3:], y_new[3:]

meta.adapt(X_support, y_support)
mean, std = meta.predict(X_query, return_std=True)
for day in range(3):
    print(
        f"{X_query[day, 0]:.0f} °C: forecast {mean[day]:.0f} ± {std[day]:.0f} litres, "
        f"sold {y_query[day]:.0f}"
    )

# %%
# Was it worth it?
# ----------------
# The two usual ways out are a model of the three days alone, and one model of all the
# other stands pooled. One stand proves nothing, so we open two hundred, forecast each
# in all three ways from its first three days, and look at the typical error.

from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error

X_all = np.concatenate([X for X, _ in tasks])
y_all = np.concatenate([y for _, y in tasks])
pooled = LinearRegression().fit(X_all, y_all)

unseen = [open_stand(n_days=30) for _ in range(200)]
errors = {"three days alone": [], "all stands, pooled": [], "skmeta, adapted": []}
for X, y in unseen:
    predictions = (
        LinearRegression().fit(X[:3], y[:3]).predict(X[3:]),
        pooled.predict(X[3:]),
        meta.adapt(X[:3], y[:3]).predict(X[3:]),
    )
    for values, prediction in zip(errors.values(), predictions, strict=True):
        values.append(root_mean_squared_error(y[3:], prediction))
for name, values in errors.items():
    worst = np.quantile(values, 0.9)
    print(
        f"{name:20} median {np.median(values):5.1f} l, one in ten above {worst:5.1f} l"
    )

# %%
# The picture of one stand says why. A line through three noisy days can go anywhere;
# the pooled line is that of an average stand; the adapted line starts from what stands
# are like and moves as far as three days justify. The band is where 90 % of new days
# should fall.

meta.adapt(X_support, y_support)
alone = LinearRegression().fit(X_support, y_support)
grid = np.linspace(10, 35, 50)[:, None]
grid_mean, grid_std = meta.predict(grid, return_std=True)

fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for X, y in tasks:
    line = LinearRegression().fit(X, y)
    ax.plot(grid, line.predict(grid), color="0.8", linewidth=0.7, zorder=0)
ax.plot([], [], color="0.8", label="the other stands")
ax.plot(
    X_query, y_query, "o", color="0.35", markersize=4, label="new stand, query days"
)
ax.plot(X_support, y_support, "k*", markersize=13, label="new stand, 3 support days")
ax.plot(grid, alone.predict(grid), ":", color="#D55E00", label="three days alone")
ax.plot(grid, pooled.predict(grid), "--", color="#009E73", label="pooled")
ax.plot(grid, grid_mean, color="#0072B2", label="skmeta, 90 % interval")
ax.fill_between(
    grid[:, 0],
    grid_mean - 1.645 * grid_std,
    grid_mean + 1.645 * grid_std,
    color="#0072B2",
    alpha=0.15,
)
ax.set(xlabel="temperature in °C", ylabel="litres sold per day", ylim=(-20, 170))
ax.legend(frameon=False, fontsize="small", loc="upper left", ncols=2)
plt.show()

# %%
# More rows later
# ---------------
# ``adapt`` starts afresh from what ``fit`` has learned, so calling it twice with the
# same rows changes nothing. When more days come in, ``partial_adapt`` adds them: it is
# to ``adapt`` what ``partial_fit`` is to ``fit``.

for day in range(3, 15):
    meta.partial_adapt(X_new[day : day + 1], y_new[day : day + 1])
error = root_mean_squared_error(y_new[15:], meta.predict(X_new[15:]))
print(f"after 15 days: {error:.1f} litres of error")

# %%
# Neither verb edits what was learned across tasks. A copy that shares it costs nothing,
# so one fitted meta-learner serves any number of stands side by side:

import copy

other = copy.copy(meta).adapt(*open_stand(n_days=5))
print(np.array_equal(meta.predict(grid), other.predict(grid)))

# %%
# Many tasks in one call
# ----------------------
# Real tables are usually *long*: one row per day, and a column that says which stand
# the row belongs to. Pass that column as ``groups``, a word that scikit-learn uses in
# the same way. Task ids may be numbers or strings.

X_long = np.concatenate([X for X, _ in tasks])
y_long = np.concatenate([y for _, y in tasks])
ids = np.concatenate([[f"stand {i}"] * len(y) for i, (_, y) in enumerate(tasks)])

meta = HierarchicalRegressor().fit(X_long, y_long, groups=ids)

new_stands = {name: open_stand(n_days=4) for name in ("harbour", "station", "zoo")}
meta.adapt(
    np.concatenate([X for X, _ in new_stands.values()]),
    np.concatenate([y for _, y in new_stands.values()]),
    groups=np.repeat(list(new_stands), 4),
)

# %%
# ``predict`` then takes one id per row. Stands seen by ``fit`` are known already; those
# adapted to are known now; for any other the prediction is that of the **prior**, the
# average stand, and ``return_std`` shows how little it knows:

names = ["stand 0", "harbour", "zoo", "never heard of"]
mean, std = meta.predict([[30.0]] * 4, groups=names, return_std=True)
for name, m, s in zip(names, mean, std, strict=True):
    print(f"{name:16}{m:5.0f} ± {s:.0f} litres at 30 °C")

# %%
# What is kept of every task lives in ``states_``, a read-only mapping from task id to
# state:

print(meta.states_)
print("harbour" in meta.states_, "never heard of" in meta.states_)

# %%
# score asks the right question
# -----------------------------
# How good will it be on stands that it has not seen? ``score`` adapts to ``n_shots``
# rows of every unseen task (5 unless you say otherwise), predicts the others, and gives
# R², all tasks weighing the same. Tasks of a list are always taken as unseen:

for n_shots in (1, 3, 10):
    score = meta.set_params(n_shots=n_shots).score(unseen)
    print(f"{n_shots:2} days known: R² = {score:.3f}")

# %%
# One trap
# --------
# If you forget to say which row belongs to which task, there is a single task, and
# nothing can be learned *across* tasks. skmeta does not fail, because a single table is
# a legitimate thing to fit, but it warns (here we catch the warning to print it):

import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    HierarchicalRegressor().fit(X_long, y_long)  # groups=ids is missing
print(caught[0].category.__name__)
print(caught[0].message)

# %%
# The same happens where ``groups=`` is passed to a pipeline or a grid search and never
# reaches the meta-learner, because scikit-learn hands it on only when asked to.
# :doc:`The next tutorial <plot_2_dataframe_with_user_column>` shows the two ways around
# it.
