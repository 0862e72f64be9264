"""
A new user, and what to show first
==================================

A recommender knows nothing of a user on the first visit. It can try everything, or it
can start from what other users have taught: who likes one kind of article tends to like
certain others, and some are liked by most. :class:`~skmeta.bandits.MetaBandit` learns
that from a log, and explores a new user accordingly.
"""

# %%
# The log
# -------
# Two hundred users have been shown six kinds of articles at random, 15 visits each. A
# visit is described by two numbers, such as the time of day and the length of the last
# visit. Tastes are made up of three hidden traits of a user.

import matplotlib.pyplot as plt
import numpy as np

from skmeta.bandits import MetaBandit

KINDS = np.array(["art", "film", "food", "news", "sport", "travel"])
rng = np.random.default_rng(0)
popular = rng.normal(size=(6, 3)) * 0.4
traits = rng.normal(size=(6, 3, 3)) * 0.6


def tastes(n_users):
    """Weights of the constant and of both numbers, for every user and kind."""
    return popular + np.einsum("kpr,ur->ukp", traits, rng.normal(size=(n_users, 3)))


def visits(n):
    """A constant and two numbers."""
    return np.column_stack([np.ones(n), rng.normal(size=(n, 2))])


taste, user = tastes(200), np.repeat(np.arange(200), 15)
seen, shown = visits(len(user)), rng.integers(6, size=len(user))
liking = (taste[user, shown] * seen).sum(axis=1) + 0.5 * rng.normal(size=len(user))

# %%
# Learn from it
# -------------
# Actions stand where other estimators have targets. The propensities of the log, one in
# six, let us ask what a policy *would* have earned: every user of the log who was left
# out is adapted to five visits and judged on the others.

old = user < 150
bandit = MetaBandit(random_state=0)
bandit.fit(seen[old][:, 1:], KINDS[shown[old]], liking[old], groups=user[old])
value = bandit.off_policy_value(
    seen[~old][:, 1:],
    KINDS[shown[~old]],
    liking[~old],
    groups=user[~old],
    propensity=np.full((~old).sum(), 1 / 6),
)
print(f"shown at random: {liking[~old].mean():.2f}")
print(f"by the bandit:   {value.value:.2f}  ({value.low:.2f} to {value.high:.2f})")

# %%
# New users
# ---------
# Forty users come for the first time, thirty visits each. Whatever is shown earns what
# this user likes; what the best choice would have earned more is the regret. For
# comparison the same bandit learns from users whose tastes have nothing in common: from
# them it gets the scale of things and no more.

unrelated = rng.normal(size=taste.shape) * taste.std()
liking = (unrelated[user, shown] * seen).sum(axis=1) + 0.5 * rng.normal(size=len(user))
blank = MetaBandit(random_state=0).fit(seen[:, 1:], KINDS[shown], liking, groups=user)


def regret(bandit, taste, contexts):
    """What was lost up to every visit, averaged over users."""
    users, n_visits = np.arange(len(taste)), contexts.shape[1]
    bandit.states_ = type(bandit.states_)()
    lost = np.zeros((len(users), n_visits))
    for visit in range(n_visits):
        now = contexts[:, visit]
        chosen = bandit.predict(now[:, 1:], groups=users)
        worth = np.einsum("ukp,up->uk", taste, now)
        earned = worth[users, np.searchsorted(KINDS, chosen)]
        lost[:, visit] = worth.max(axis=1) - earned
        bandit.partial_adapt(
            now[:, 1:], chosen, earned + 0.5 * rng.normal(size=len(users)), groups=users
        )
    return lost.cumsum(axis=1).mean(axis=0)


new, contexts = tastes(40), visits(40 * 30).reshape(40, 30, 3)
curves = {
    "learned from the log": regret(bandit, new, contexts),
    "knows the scale alone": regret(blank, new, contexts),
}
for name, curve in curves.items():
    print(f"{name:22} regret after 30 visits {curve[-1]:.1f}")

# %%

for name, curve in curves.items():
    plt.plot(np.arange(1, 31), curve, label=name)
plt.xlabel("visits of a new user")
plt.ylabel("regret so far")
plt.legend()
plt.show()

# %%
# A new kind of article
# ---------------------
# An arm that nobody has pulled starts as one of the kind that the known ones are, and
# is tried until enough is known of it.

bandit.add_arm("science")
print(bandit.arms_)
print(bandit.predict_proba([[0.0, 0.0]], groups=["somebody new"]).round(2))
