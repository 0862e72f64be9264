"""
A new goal, found in one episode
================================

Somewhere in the plane is a goal. A point cannot see it; after every move it is told how
far it still is. Whoever has looked for many goals knows what to do: try a little, see
what changes, walk there and stay. :class:`~skmeta.rl.RL2Policy` learns that by itself,
from nothing but rewards: its network remembers what it did and what came of it.
"""

# %%
# Train on many goals
# -------------------
# :class:`~skmeta.rl.PointNavigation` is a distribution of tasks, each one a goal in the
# square. The reward of a move is minus the distance to the goal after it. Five thousand
# episodes are enough, played 128 at a time.

import matplotlib.pyplot as plt
import numpy as np
import torch

from skmeta.rl import PointNavigation, RL2Policy

plane = PointNavigation(n_steps=40)
policy = RL2Policy(
    n_batches=40,
    n_tasks=128,
    lr=5e-3,
    gamma=0.95,
    entropy=0.0,
    n_epochs=5,
    random_state=0,
)
policy.fit(plane)
for number in (0, 10, 20, 39):
    print(f"batch {number:2}: return {policy.history_[number]['return']:6.1f}")

# %%
# Nine new goals
# --------------
# `predict` takes what is observed, what was remembered, and what the last move brought.
# Nothing is fitted any more: all that changes is the memory.

goals = plane.make(9, random_state=1)
position, memory, reward = goals.reset(), None, None
path, distance = [position.numpy()], []
for _ in range(plane.n_steps):
    action, memory = policy.predict(position, memory, reward=reward)
    position, reward, _ = goals.step(torch.from_numpy(action))
    path.append(position.numpy())
    distance.append(-reward.numpy())
path, distance = np.array(path), np.array(distance)

# %%
# The first moves are much alike: they find out where the goal is. Then it is walked to,
# and what remains is the noise of the actions themselves.

fig, axes = plt.subplots(3, 3, figsize=(7, 7), sharex=True, sharey=True)
for i, ax in enumerate(axes.flat):
    ax.plot(*path[:, i].T, color="0.7", lw=1, zorder=1)
    ax.scatter(*path[:, i].T, c=np.arange(len(path)), s=12, cmap="viridis", zorder=2)
    ax.plot(*goals.tasks[i], "r*", ms=12, zorder=3)
    ax.plot(0, 0, "k+", ms=9)
    ax.set(xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), aspect="equal")
fig.suptitle("Paths of the first episode: dark early, bright late")
fig.tight_layout()
plt.show()

# %%
# How well it does
# ----------------
# Return of the first episode at 500 new goals. Who stands still loses the distance of
# the goal in every step; who knows the goal walks straight to it.

result = policy.evaluate(plane, episodes=0, n_tasks=500)
goal = plane.make(500, random_state=2)
spot = goal.reset()
still = -goal.tasks.norm(dim=1).mean() * plane.n_steps
known = 0.0
for _ in range(plane.n_steps):
    spot, reward, _ = goal.step((goal.tasks - spot) / plane.step_size)
    known += reward.mean()
print(f"stands still     {still:6.1f}")
print(f"learns the goal  {result.mean:6.1f} +- {1.96 * result.standard_error:.1f}")
print(f"knows the goal   {known:6.1f}")

# %%

plt.figure(figsize=(5.5, 3.5))
plt.plot(np.arange(1, plane.n_steps + 1), distance, color="0.8", lw=1)
plt.plot(np.arange(1, plane.n_steps + 1), distance.mean(axis=1), label="mean")
plt.xlabel("step of the first episode")
plt.ylabel("distance to the goal")
plt.legend()
plt.tight_layout()
plt.show()
