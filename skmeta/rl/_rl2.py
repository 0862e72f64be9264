"""RL2 as an estimator."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ._base import MetaPolicy
from ._ppo import clipped_surrogate, masked_mean
from ._returns import discounted_returns, standardised
from ._rl2_learner import (
    Memory,
    RecurrentActor,
    RL2Network,
    advantages_of,
    inputs_of,
    replay,
    run_trial,
    trial_of,
)
from ._rollout import joined, run_episode


class RL2Policy(MetaPolicy):
    """A recurrent policy that learns a new task by remembering what happened in it.

    The network sees its own last action, what it brought and what it changed, and keeps
    its hidden state from one episode of a task to the next. Trained by proximal policy
    optimisation on many tasks, it explores and exploits by itself: no gradient is taken
    for a new task [1]_. It learns within its first episode.

    Parameters
    ----------
    hidden : int, default=64
        Width of the recurrent layer.
    n_batches : int, default=200
        Outer steps: batches of tasks.
    n_tasks : int, default=512
        Tasks of a batch.
    n_episodes : int, default=1
        Episodes of a task in training, with one memory; also those that `adapt` plays
        where it is not told how many.
    lr : float, default=1e-2
        Learning rate of Adam, which falls to zero in the course of training.
    gamma : float, default=0.99
        Discount of later rewards.
    gae_lambda : float, default=0.3
        How much of later rewards themselves, against what the network predicts of
        them, goes into an advantage.
    clip : float, default=0.2
        Ratio of probabilities beyond which a step is not rewarded.
    entropy : float, default=0.01
        Reward for the entropy of actions.
    n_epochs : int, default=4
        Passes through a batch.
    n_minibatches : int, default=2
        Parts that a batch is divided into.
    horizon : int, default=None
        Longest episode, for environments of gymnasium without a time limit.
    random_state : int, RandomState instance or None, default=None
        Seed of everything random.

    Attributes
    ----------
    learner_ : RL2Network
        Trained network.
    history_ : list of dict
        Of every batch: mean return, and steps of environments.
    state_ : Memory
        What is known of the tasks adapted to.
    n_steps_ : int
        Steps that adapting has taken.
    actions_ : DiscreteActions or BoxActions
        What an action is.
    n_features_in_ : int
        Width of an observation.

    See Also
    --------
    MAMLPolicy : A policy that learns a new task by gradient steps.

    References
    ----------
    .. [1] Y. Duan et al., "RL2: fast reinforcement learning via slow reinforcement
       learning", arXiv:1611.02779 (2016).

    Examples
    --------
    >>> from skmeta.rl import BernoulliBandits, RL2Policy
    >>> policy = RL2Policy(hidden=8, n_batches=2, n_tasks=16, random_state=0)
    >>> machines = BernoulliBandits(n_arms=3)
    >>> policy.fit(machines).adapt(machines.make(random_state=1), episodes=1).n_steps_
    10
    >>> action, state = policy.predict([0.0])
    >>> int(action) in (0, 1, 2)
    True
    """

    _parameter_constraints: dict = {
        **MetaPolicy._parameter_constraints,
        "hidden": [Interval(Integral, 1, None, closed="left")],
        "n_minibatches": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        hidden=64,
        n_batches=200,
        n_tasks=512,
        n_episodes=1,
        lr=1e-2,
        gamma=0.99,
        gae_lambda=0.3,
        clip=0.2,
        entropy=0.01,
        n_epochs=4,
        n_minibatches=2,
        horizon=None,
        random_state=None,
    ):
        self.hidden = hidden
        self.n_batches = n_batches
        self.n_tasks = n_tasks
        self.n_episodes = n_episodes
        self.lr = lr
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.clip = clip
        self.entropy = entropy
        self.n_epochs = n_epochs
        self.n_minibatches = n_minibatches
        self.horizon = horizon
        self.random_state = random_state

    def _start(self, source):
        self._scale = None
        return RL2Network(source.n_features, source.actions, self.hidden)

    def _update(self, learner, optimizer, batch, generator):
        episodes, _ = run_trial(learner, batch, self.n_episodes, generator)
        episodes = joined(episodes)
        told = {"return": float(episodes.returns.mean()), "steps": episodes.n_steps}
        trial, start = trial_of(episodes)
        inputs = inputs_of(learner.actions, trial, start)
        if self._scale is None:  # of returns, so that one learning rate suits all tasks
            returns = discounted_returns(trial.reward[:, 0], self.gamma)
            self._scale = float(returns.std()) + 1e-8
            learner.calibrate(inputs, trial.mask[:, 0])
            # The policy that acts is the one that is trained, from here on.
            return told
        old, advantage, target = advantages_of(
            learner, inputs, trial, self._scale, self.gamma, self.gae_lambda
        )
        advantage = standardised(advantage, trial.mask[:, 0], (0, 1))
        columns = inputs, trial.action[:, 0], trial.mask[:, 0], old, advantage, target
        for _ in range(self.n_epochs):
            order = torch.randperm(len(inputs), generator=generator)
            for part in order.chunk(self.n_minibatches):
                loss = self._loss(learner, *(column[part] for column in columns))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learner.parameters(), 0.5)
                optimizer.step()
        return told

    def _loss(self, learner, inputs, action, mask, old, advantage, target):
        output, value, _ = learner(inputs)
        log_prob = learner.actions.log_prob(output, learner.free, action)
        gain = clipped_surrogate(log_prob, old, advantage, self.clip)
        spread = learner.actions.entropy(output, learner.free)
        error = (value - target).square()
        return masked_mean(0.5 * error - gain - self.entropy * spread, mask)

    def _blank(self, n_tasks):
        return self.learner_.blank(n_tasks)

    def _explore(self, batch, episodes, state):
        played, memory = run_trial(
            self.learner_, batch, episodes, self._generator, state
        )
        return memory, sum(episode.n_steps for episode in played)

    def _recall(self, rollout, state):
        return replay(self.learner_, *trial_of(rollout), state)

    def _judge(self, batch, state):
        with torch.no_grad():
            actor = RecurrentActor(self.learner_, state, self._generator)
            return run_episode(batch, actor)

    def _act(self, rows, state, episode_start, reward):
        first = state is None
        if first:
            state = self._blank(len(rows)) if self.state_ is None else self.state_
            if len(state.reward) == 1 and len(rows) > 1:  # many runs of one task
                state = Memory(
                    state.hidden.expand(-1, len(rows), -1).contiguous(),
                    state.action.expand(len(rows), -1),
                    state.reward.expand(len(rows)),
                )
        elif reward is None:
            raise ValueError(
                "RL2Policy goes on learning within an episode: pass reward=, what the "
                "last action brought, together with state."
            )
        else:
            paid = np.broadcast_to(np.asarray(reward, dtype=np.float32), (len(rows),))
            state = replace(state, reward=torch.from_numpy(paid.copy()))
        if len(state.reward) != len(rows):
            raise ValueError(
                f"obs has {len(rows)} rows, but there are {len(state.reward)} tasks."
            )
        start = first if episode_start is None else episode_start
        start = np.broadcast_to(np.asarray(start, dtype=bool), (len(rows),))
        output, hidden = self.learner_.act(state, rows, torch.from_numpy(start.copy()))
        return output, self.learner_.free, replace(state, hidden=hidden)

    def _remembered(self, state, action):
        return replace(state, action=self.actions_.encode(action))
