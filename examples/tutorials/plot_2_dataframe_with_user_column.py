"""
A data frame with a user column
===============================

Most tables have a column that says who or what a row belongs to: a user, a store, a
patient, a machine. The usual advice is to drop it, because a model cannot generalise
from ``user = 17`` to a user who signs up tomorrow. A meta-learner uses it: rows with
one id are one task.

This tutorial keeps to pandas and scikit-learn: the id travels inside the frame, through
pipelines, cross-validation and searches.
"""

# %%
# The table
# ---------
# :func:`~skmeta.datasets.load_breast_cancer_tasks` is a real table that comes with
# scikit-learn, in long format. The cell nuclei of each of 569 tumours were measured in
# eight ways; a row is one way of measuring one tumour. From how much the nuclei vary
# (``log variation``) and the way of measuring we predict how far the worst nuclei lie
# above the mean. Tumours differ, so a few measured rows of a tumour should help with
# its others. Read "user" for "tumour" if you like.

from skmeta.datasets import load_breast_cancer_tasks

frame = load_breast_cancer_tasks(as_frame=True).frame
y = frame.pop("log worst")
frame.head(3).T

# %%
# One parameter: group_column
# ---------------------------
# ``group_column`` names the column of ids. That is the whole difference from an
# ordinary estimator: ``fit(X, y)`` finds the tasks by itself, the id is not used as a
# feature, and nothing else has to be passed anywhere. (``covariance="low_rank"`` says
# that tumours differ along a few directions rather than in every column by itself,
# which suits columns that are ways of measuring one thing.)

import numpy as np

from skmeta import HierarchicalRegressor

tumours = frame["tumour"].unique()
rng = np.random.default_rng(0)
new_tumours = rng.choice(tumours, size=150, replace=False)
new = frame["tumour"].isin(new_tumours)

meta = HierarchicalRegressor(group_column="tumour", covariance="low_rank")
meta.fit(frame[~new], y[~new])
print(meta.states_)

# %%
# Now the new tumours come in, with three measured rows each. One call adapts to all of
# them, and ``predict`` serves every row by its own tumour. Before it, the model knows
# nothing of them and predicts by the prior, which is as good as one model for all:

from sklearn.metrics import r2_score

X_new, y_new = frame[new], y[new]
# Which three rows of a tumour are known: drawn at random, one draw per tumour.
order = y_new.sample(frac=1, random_state=0).groupby(X_new["tumour"]).cumcount()
support = order.reindex(y_new.index) < 3

before = meta.predict(X_new[~support])
meta.adapt(X_new[support], y_new[support])
after = meta.predict(X_new[~support])
print(f"R² before adapting: {r2_score(y_new[~support], before):.3f}")
print(f"R² after three rows of each tumour: {r2_score(y_new[~support], after):.3f}")

# %%
# In a pipeline
# -------------
# A transformer must not scale the ids, and must hand the frame on *as a frame*: an
# array has no column names. Two standard tools of scikit-learn do that. A
# :func:`~sklearn.compose.make_column_transformer` scales the feature and lets the rest
# through, and ``set_output(transform="pandas")`` keeps the names. (The scaling is for
# show: :class:`~skmeta.HierarchicalRegressor` standardises inside.)

from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

scale = make_column_transformer(
    (StandardScaler(), ["log variation"]),
    remainder="passthrough",
    verbose_feature_names_out=False,
).set_output(transform="pandas")
pipe = make_pipeline(scale, clone(meta))
pipe

# %%
# Without it, the column is gone, and the error says what to do:

forgetful = make_pipeline(StandardScaler(), clone(meta))
try:
    forgetful.fit(frame, y)
except ValueError as error:
    print(error)

# %%
# Cross-validation: which question do you ask?
# --------------------------------------------
# A splitter decides what is new in a test fold, and the scorer decides whether the
# model may adapt before it is judged. All combinations are legitimate; they answer
# different questions.

from sklearn.model_selection import GroupKFold, KFold, cross_val_score

ids = frame["tumour"]
shuffled = KFold(3, shuffle=True, random_state=0)
by_tumour = GroupKFold(3)
questions = {
    "known tumours, new rows": cross_val_score(
        pipe, frame, y, cv=shuffled, scoring="r2"
    ),
    "new tumours, no row known": cross_val_score(
        pipe, frame, y, cv=by_tumour, groups=ids, scoring="r2"
    ),
}

# %%
# With :class:`~sklearn.model_selection.KFold` every tumour has rows in the training
# folds, so it is known when the test rows come. With
# :class:`~sklearn.model_selection.GroupKFold` whole tumours are held out; a scorer like
# ``"r2"`` calls ``predict`` at once, so they are predicted by the prior. What a new
# user's *first rows* are worth is answered by the estimator's own ``score`` (leave
# ``scoring`` out): it adapts to ``n_shots`` rows of every unseen tumour and judges the
# others.

for n_shots in (1, 3, 5):
    pipe.set_params(hierarchicalregressor__n_shots=n_shots)
    questions[f"new tumours, {n_shots} known"] = cross_val_score(
        pipe, frame, y, cv=by_tumour, groups=ids
    )
for question, scores in questions.items():
    print(f"{question:28}R² = {scores.mean():.3f} ± {scores.std():.3f}")

# %%
# Beside them, what you would have done without skmeta: one model for all, with no use
# for the known rows of a new tumour. With no row known, the prior is about as good as
# that; all the gain comes from adapting.

import matplotlib.pyplot as plt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV

features = frame.drop(columns="tumour")
pooled = {
    name: cross_val_score(model, features, y, cv=by_tumour, groups=ids)
    for name, model in {
        "pooled ridge": RidgeCV(),
        "pooled boosting": HistGradientBoostingRegressor(random_state=0),
    }.items()
}

bars = {**pooled, **{k: v for k, v in questions.items() if k.startswith("new")}}
colors = ["#999999"] * len(pooled) + ["#0072B2"] * (len(bars) - len(pooled))
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.barh(
    list(bars),
    [v.mean() for v in bars.values()],
    xerr=[v.std() for v in bars.values()],
    color=colors,
    error_kw={"capsize": 3},
)
ax.invert_yaxis()
ax.set(xlabel="R² on rows of new tumours (mean and standard deviation of 3 folds)")
plt.show()

# %%
# With metadata routing: groups=
# ------------------------------
# If ids are not in your frame but in an array of their own, pass them as ``groups``. To
# the estimator directly that always works: ``meta.fit(X, y, groups=ids)``. But a
# pipeline or a search hands ``groups`` on to its steps only if scikit-learn's *metadata
# routing* is on. Then one array reaches both the splitter and the meta-learner:

import sklearn

with sklearn.config_context(enable_metadata_routing=True):
    plain = make_pipeline(
        StandardScaler(), HierarchicalRegressor(covariance="low_rank", n_shots=3)
    )
    scores = cross_val_score(plain, features, y, cv=by_tumour, params={"groups": ids})
print(f"new tumours, 3 known: R² = {scores.mean():.3f}")

# %%
# With routing off, which is the default, the splitter gets the ids and the meta-learner
# does not. It then takes all rows for a single task and warns of it:

import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cross_val_score(plain, features, y, cv=by_tumour, groups=ids)
print({warning.category.__name__ for warning in caught})

# %%
# In short: keep the id in the frame and name it by ``group_column``, or switch routing
# on and pass ``groups``. If you see a :class:`~skmeta.SingleTaskWarning`, the ids got
# lost on the way.
