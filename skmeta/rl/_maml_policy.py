"""Policies that learn a new task by gradient steps, as an estimator."""

from __future__ import annotations

from numbers import Integral, Real

import torch
from sklearn.utils._param_validation import Interval

from ._base import MetaPolicy
from ._maml_policy_learner import Phase, PolicyActor, PolicyLearner
from ._rollout import run_episodes


class MAMLPolicy(MetaPolicy):
    """A policy from which one step of policy gradient learns a new task.

    The policy of a task is the shared one after gradient steps on its first episodes.
    The outer loop improves what the shared policy becomes, through these steps, by the
    clipped objective of proximal policy optimisation on adapted policies [1]_, [2]_.
    The shared policy only has to find out which task it is in, so its actions spread
    widely; how much less adapted ones spread is learned.

    Parameters
    ----------
    hidden : tuple of int, default=(32, 32)
        Widths of the layers of the policy.
    inner_lr : float, default=0.1
        Length of the first gradient step in a task.
    later_lr : float, default=0.002
        Length of each further step. Adapted policies spread less than the shared one,
        which makes their gradients longer.
    adapt_steps : int, default=1
        Gradient steps in a task, each on new episodes.
    n_batches : int, default=90
        Outer steps: batches of tasks.
    n_tasks : int, default=20
        Tasks of a batch.
    n_episodes : int, default=20
        Episodes for each gradient step; `adapt` divides the ones it is given among the
        steps.
    lr : float, default=3e-3
        Learning rate of Adam, which falls to zero in the course of training.
    gamma : float, default=0.95
        Discount of later rewards.
    gae_lambda : float, default=0.8
        How much of later rewards themselves, against a baseline that is linear in
        observations and time, goes into an advantage.
    clip : float, default=0.2
        Ratio of probabilities beyond which a step is not rewarded.
    entropy : float, default=0.0
        Reward for the entropy of actions, of the shared policy and of adapted ones.
    n_epochs : int, default=5
        Passes through a batch.
    horizon : int, default=None
        Longest episode, for environments of gymnasium without a time limit.
    random_state : int, RandomState instance or None, default=None
        Seed of everything random.

    Attributes
    ----------
    learner_ : PolicyLearner
        Shared policy.
    history_ : list of dict
        Of every batch: mean returns before and after adapting, steps of environments.
    state_ : tuple of int and dict of str to Tensor
        Gradient steps taken, and the policies of the tasks adapted to.
    n_steps_ : int
        Steps that adapting has taken.
    actions_ : DiscreteActions or BoxActions
        What an action is.
    n_features_in_ : int
        Width of an observation.

    See Also
    --------
    RL2Policy : A policy that learns within an episode, by memory.

    References
    ----------
    .. [1] C. Finn, P. Abbeel and S. Levine, "Model-agnostic meta-learning for fast
       adaptation of deep networks", ICML 2017.
    .. [2] J. Rothfuss et al., "ProMP: proximal meta-policy search", ICLR 2019.

    Examples
    --------
    >>> from skmeta.rl import MAMLPolicy, PointNavigation
    >>> plane = PointNavigation(n_steps=10)
    >>> policy = MAMLPolicy(n_batches=1, n_tasks=2, n_episodes=4, random_state=0)
    >>> policy.fit(plane).adapt(plane.make(random_state=1)).n_steps_
    40
    >>> action, _ = policy.predict([0.0, 0.0])
    >>> action.shape
    (2,)
    """

    _parameter_constraints: dict = {
        **MetaPolicy._parameter_constraints,
        "hidden": ["array-like"],
        "inner_lr": [Interval(Real, 0, None, closed="neither")],
        "later_lr": [Interval(Real, 0, None, closed="left")],
        "adapt_steps": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        hidden=(32, 32),
        inner_lr=0.1,
        later_lr=0.002,
        adapt_steps=1,
        n_batches=90,
        n_tasks=20,
        n_episodes=20,
        lr=3e-3,
        gamma=0.95,
        gae_lambda=0.8,
        clip=0.2,
        entropy=0.0,
        n_epochs=5,
        horizon=None,
        random_state=None,
    ):
        self.hidden = hidden
        self.inner_lr = inner_lr
        self.later_lr = later_lr
        self.adapt_steps = adapt_steps
        self.n_batches = n_batches
        self.n_tasks = n_tasks
        self.n_episodes = n_episodes
        self.lr = lr
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.clip = clip
        self.entropy = entropy
        self.n_epochs = n_epochs
        self.horizon = horizon
        self.random_state = random_state

    def _start(self, source):
        return PolicyLearner(
            source.n_features,
            source.actions,
            tuple(self.hidden),
            self.inner_lr,
            self.later_lr,
            self.gamma,
            self.gae_lambda,
        )

    def _update(self, learner, optimizer, batch, generator):
        phases, weights = [], learner.shared(batch.n_tasks)
        for step in range(self.adapt_steps + 1):
            actor = PolicyActor(learner, weights, generator)
            episodes = run_episodes(batch, actor, self.n_episodes)
            with torch.no_grad():
                old = learner.log_prob(weights, episodes)
            phases.append(Phase(episodes, learner.advantages(episodes), old))
            if step < self.adapt_steps:
                weights = learner.adapt(weights, episodes, step)
        for _ in range(self.n_epochs):
            loss = learner.outer_loss(phases, self.clip, self.entropy)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        first, last = phases[0].episodes.returns, phases[-1].episodes.returns
        return {
            "return before": float(first.mean()),
            "return": float(last.mean()),
            "steps": sum(phase.episodes.n_steps for phase in phases),
        }

    def _blank(self, n_tasks):
        return 0, {k: v.detach() for k, v in self.learner_.shared(n_tasks).items()}

    def _explore(self, batch, episodes, state):
        if episodes < self.adapt_steps:
            raise ValueError(
                f"{episodes} episodes are too few for {self.adapt_steps} steps."
            )
        done, weights = state
        n_steps = 0
        for step in range(self.adapt_steps):
            part = (step + 1) * episodes // self.adapt_steps
            part -= step * episodes // self.adapt_steps
            actor = PolicyActor(self.learner_, weights, self._generator)
            rollout = run_episodes(batch, actor, part)
            weights = self.learner_.adapt(weights, rollout, done + step)
            n_steps += rollout.n_steps
        return (done + self.adapt_steps, weights), n_steps

    def _recall(self, rollout, state):
        done, weights = state
        return done + 1, self.learner_.adapt(weights, rollout, done)

    def _judge(self, batch, state):
        actor = PolicyActor(self.learner_, state[1], self._generator)
        return run_episodes(batch, actor, 20)

    def _act(self, rows, state, episode_start, reward):
        _, weights = self._blank(1) if self.state_ is None else self.state_
        n_tasks = len(next(iter(weights.values())))
        if n_tasks not in (1, len(rows)):
            raise ValueError(
                f"obs has {len(rows)} rows, but there are {n_tasks} tasks."
            )
        output, free = self.learner_.outputs(
            weights, rows.view(n_tasks, -1, rows.shape[1])
        )
        output = output.flatten(0, 1)
        return (
            output,
            free.expand(n_tasks, len(rows) // n_tasks, -1).flatten(0, 1),
            None,
        )
