"""The public verbs of policies that learn new tasks."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from ..outer_loop import seeded
from ._env import generator_of
from ._rollout import recorded
from ._sources import as_source


@dataclass(frozen=True)
class PolicyScore:
    """How a policy fares on tasks that it has not been trained on.

    Parameters
    ----------
    returns : ndarray of shape (n_tasks,)
        Mean return of every task after adapting to it.
    n_steps : int
        Steps of all tasks together that adapting has taken.
    """

    returns: np.ndarray
    n_steps: int

    @property
    def mean(self) -> float:
        """Mean return over tasks."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, over tasks."""
        if len(self.returns) < 2:
            return float("nan")
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns)))


class MetaPolicy(BaseEstimator):
    """Base class: ``fit`` over environments, ``adapt`` to one, ``predict`` actions.

    A family implements ``_start``, ``_update``, ``_blank``, ``_explore``, ``_recall``,
    ``_act`` and ``_judge``.
    """

    _parameter_constraints: dict = {
        "n_batches": [Interval(Integral, 1, None, closed="left")],
        "n_tasks": [Interval(Integral, 1, None, closed="left")],
        "n_episodes": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "gamma": [Interval(Real, 0, 1, closed="right")],
        "gae_lambda": [Interval(Real, 0, 1, closed="both")],
        "clip": [Interval(Real, 0, None, closed="neither")],
        "entropy": [Interval(Real, 0, None, closed="left")],
        "n_epochs": [Interval(Integral, 1, None, closed="left")],
        "horizon": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, envs, y=None):
        """Learn across tasks.

        Parameters
        ----------
        envs : TensorEnv, gymnasium vector environment, or list of environments or \
                factories
            A distribution of tasks, or a collection of them.
        y : None
            Ignored, for searches and cross-validation over lists of environments.

        Returns
        -------
        self : object
            Fitted policy.
        """
        source = as_source(envs, self.horizon)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        with seeded(seed):
            learner = self._start(source)
        optimizer = torch.optim.Adam(learner.parameters(), lr=self.lr, eps=1e-5)
        history = []
        for number in range(self.n_batches):
            # The rate falls to zero, so that the last batches do no harm.
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - number / self.n_batches)
            batch = source.draw(self.n_tasks, generator)
            history.append(self._update(learner, optimizer, batch, generator))
        self.learner_ = learner.requires_grad_(False)
        self.history_ = history
        self.n_features_in_ = source.n_features
        self.actions_ = source.actions
        self._generator = generator
        self.state_, self.n_steps_ = None, 0
        return self

    def adapt(self, env, *, episodes=None):
        """Learn a new task, afresh from what `fit` has learned.

        Parameters
        ----------
        env : environment, factory, batch of tensor environments, or list of Episode
            Where to try things out, or recorded episodes of one task. Of a batch every
            task is learned, and row i of later observations belongs to task i.
        episodes : int, default=None
            Episodes to be played; by default `n_episodes`. Not for recorded ones.

        Returns
        -------
        self : object
            The policy, adapted.
        """
        check_is_fitted(self)
        self.state_, self.n_steps_ = self._learned(env, episodes, None)
        return self

    def partial_adapt(self, env, *, episodes=None):
        """Go on learning the current task.

        Parameters
        ----------
        env : environment, factory, batch of tensor environments, or list of Episode
            As for `adapt`.
        episodes : int, default=None
            Further episodes.

        Returns
        -------
        self : object
            The policy, adapted.
        """
        check_is_fitted(self)
        state, n_steps = self._learned(env, episodes, self.state_)
        self.state_, self.n_steps_ = state, self.n_steps_ + n_steps
        return self

    def _learned(self, env, episodes, state):
        if isinstance(env, (list, tuple)) and len(env) and isinstance(env[0], tuple):
            if episodes is not None:
                raise ValueError("episodes are recorded: their number is not a choice.")
            rollout = recorded(env, self.n_features_in_, self.actions_)
            state = self._blank(1) if state is None else state
            return self._recall(rollout, state), rollout.n_steps
        source = self._checked(env)
        batch = source.all(1, self._generator)
        episodes = self.n_episodes if episodes is None else episodes
        state = self._blank(batch.n_tasks) if state is None else state
        return self._explore(batch, episodes, state)

    def _checked(self, envs):
        source = as_source(envs, self.horizon)
        if source.n_features != self.n_features_in_ or source.actions != self.actions_:
            raise ValueError(
                f"{type(self).__name__} was fitted with {self.n_features_in_} features "
                f"and {self.actions_}; these environments have {source.n_features} and "
                f"{source.actions}."
            )
        return source

    def predict(
        self, obs, state=None, episode_start=None, deterministic=False, reward=None
    ):
        """Choose actions, in the manner of Stable-Baselines3.

        Parameters
        ----------
        obs : array-like of shape (n_features,) or (n_rows, n_features)
            Observations, of one task or of each of those adapted to.
        state : object, default=None
            What the previous call returned; None at the start of the first episode.
        episode_start : array-like of shape (n_rows,), default=None
            Whether an observation is the first of an episode; by default where `state`
            is None.
        deterministic : bool, default=False
            Whether to take the most probable action.
        reward : float or array-like of shape (n_rows,), default=None
            What the last action brought. Policies that go on learning need it.

        Returns
        -------
        action : int or ndarray
            One for each observation.
        state : object
            For the next call; None where there is nothing to be remembered.
        """
        check_is_fitted(self)
        rows = np.asarray(obs, dtype=np.float32)
        single = rows.ndim == 1
        rows = rows[None] if single else rows
        if rows.ndim != 2 or rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"obs has shape {np.shape(obs)}, but {type(self).__name__} expects "
                f"rows of {self.n_features_in_} features."
            )
        rows = torch.from_numpy(rows)
        with torch.no_grad():
            output, free, state = self._act(rows, state, episode_start, reward)
            if deterministic:
                action = self.actions_.mode(output)
            else:
                action = self.actions_.sample(output, free, self._generator)
        state = self._remembered(state, action)
        action = self.actions_.clipped(action).numpy()
        return (action[0] if single else action), state

    def _remembered(self, state, action):
        return state

    def evaluate(self, envs, *, episodes=None, n_tasks=200, random_state=0):
        """Adapt to every task, then play one more episode.

        Parameters
        ----------
        envs : TensorEnv, gymnasium vector environment, or list of environments or \
                factories
            Tasks that were held out.
        episodes : int, default=None
            Episodes to adapt on; by default `n_episodes`. 0 judges the first episode.
        n_tasks : int, default=200
            Tasks drawn from a distribution; of a collection all are taken.
        random_state : int, RandomState instance or None, default=0
            Seed of tasks and actions.

        Returns
        -------
        PolicyScore
            Returns of all tasks, their mean and standard error, and the steps that
            adapting has taken.
        """
        check_is_fitted(self)
        generator = generator_of(random_state)
        batch = self._checked(envs).all(n_tasks, generator)
        model = copy.copy(self)
        model._generator = generator
        episodes = self.n_episodes if episodes is None else episodes
        state, n_steps = model._blank(batch.n_tasks), 0
        if episodes:
            state, n_steps = model._explore(batch, episodes, state)
        returns = model._judge(batch, state).returns.mean(1).numpy()
        return PolicyScore(returns.astype(float), n_steps)

    def score(self, envs, y=None):
        """Mean return on held-out tasks after adapting to each.

        Parameters
        ----------
        envs : TensorEnv, gymnasium vector environment, or list of environments or \
                factories
            Tasks that were held out.
        y : None
            Ignored.

        Returns
        -------
        score : float
            See `evaluate` for its standard error and the steps it took.
        """
        return self.evaluate(envs).mean

    def __copy__(self):
        """Shares what `fit` learned; adapting either leaves the other as it is."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        if hasattr(self, "_generator"):
            new._generator = copy.deepcopy(self._generator)
        return new

    # ------------------------------------------------------------- hooks of a family
    @abstractmethod
    def _start(self, source):
        """Build the learner."""

    @abstractmethod
    def _update(self, learner, optimizer, batch, generator):
        """One outer step; a dict for `history_`."""

    @abstractmethod
    def _blank(self, n_tasks):
        """State of tasks of which nothing is known."""

    @abstractmethod
    def _explore(self, batch, episodes, state):
        """State after episodes in an environment, and the steps they took."""

    @abstractmethod
    def _recall(self, rollout, state):
        """State after recorded episodes."""

    @abstractmethod
    def _act(self, rows, state, episode_start, reward):
        """Outputs of the policy, its free numbers, and the next state."""

    @abstractmethod
    def _judge(self, batch, state):
        """Episodes of adapted tasks."""
