"""A contextual bandit that starts from what other tasks have taught."""

from __future__ import annotations

import copy
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from ..base import Block, TaskStates
from ..tasks._sampler import split_support
from ._core import ArmModel
from ._off_policy import METHODS, off_policy_value


class MetaBandit(ArmModel):
    """Contextual bandit with a prior over the weights of its arms, learned over tasks.

    Every arm has a linear model of its reward. Fitting learns from logged tasks (users,
    shops, campaigns) how the weights of the arms are distributed: what each arm is
    like, how arms move together from task to task, how much they differ. A new task
    then needs few pulls, where a bandit that starts from nothing has to try every arm
    in every direction. Adapting is the exact Gaussian posterior, or Laplace's
    approximation for rewards of 0 and 1.

    Rows are contexts `X`, the `action` that was taken and its `reward`, as in other
    libraries of bandits; tasks are told apart by `groups`, or come as a list of tuples
    ``(X, action, reward)`` or ``(X, action, reward, propensity)``.

    Parameters
    ----------
    policy : {"thompson", "ucb", "greedy"}, default="thompson"
        How to explore: an arm with the probability that it is the best, the arm of the
        largest upper confidence bound [1]_, or not at all.
    alpha : float, default=1.0
        Standard deviations above the mean in the bound of "ucb".
    reward_type : {"auto", "continuous", "binary"}, default="auto"
        "auto" takes rewards that are all 0 or 1 for binary.
    n_directions : int or "auto", default="auto"
        Directions in which a task moves the weights of all arms together. "auto" takes
        none or up to four, whatever predicts the rewards of held-out tasks better.
    arms : array-like, default=None
        All arms; by default those in the log.
    off_policy : {"dr", "snips", "ips"}, default="dr"
        How `score` estimates the reward of this policy from rows that another one has
        logged, see `off_policy_value`.
    n_shots : int, default=5
        First rows of a new task that `score` adapts to before it judges the rest.
    n_draws : int, default=500
        Draws of the weights that `predict_proba` of Thompson sampling counts.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Attributes
    ----------
    arms_ : ndarray of shape (n_arms,)
        Arms that may be chosen, sorted; those added later follow.
    prior_ : ArmPrior
        What was learned, in coordinates of standardised contexts and rewards.
    states_ : TaskStates
        Support and posterior of every known task.
    binary_ : bool
        Whether rewards are 0 and 1.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    off_policy_value : Reward of a policy from the log of another one.
    skmeta.HierarchicalRegressor : The same prior where targets are seen for all.

    References
    ----------
    .. [1] L. Li, W. Chu, J. Langford and R. E. Schapire, "A contextual-bandit approach
       to personalized news article recommendation", WWW 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skmeta.bandits import MetaBandit
    >>> rng = np.random.default_rng(0)
    >>> user, X = np.repeat(np.arange(30), 20), rng.normal(size=(600, 2))
    >>> action = rng.choice(["news", "sports"], size=600)
    >>> reward = X[:, 0] * (action == "news") + 0.1 * rng.normal(size=600)
    >>> bandit = MetaBandit(policy="greedy").fit(X, action, reward, groups=user)
    >>> bandit.predict([[2.0, 0.0], [-2.0, 0.0]], groups=["new", "new"]).tolist()
    ['news', 'sports']
    """

    __metadata_request__fit = {"reward": True, "groups": True}
    __metadata_request__score = {"reward": True, "groups": True, "propensity": True}
    __metadata_request__predict_proba = {"groups": True}
    __metadata_request__decision_function = {"groups": True}

    _is_classifier = False

    _parameter_constraints: dict = {
        "policy": [StrOptions({"thompson", "ucb", "greedy"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "reward_type": [StrOptions({"auto", "continuous", "binary"})],
        "n_directions": [
            Interval(Integral, 0, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "arms": ["array-like", None],
        "off_policy": [StrOptions(set(METHODS))],
        "n_shots": [Interval(Integral, 0, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "group_column": [str, Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        policy="thompson",
        *,
        alpha=1.0,
        reward_type="auto",
        n_directions="auto",
        arms=None,
        off_policy="dr",
        n_shots=5,
        n_draws=500,
        group_column=None,
        random_state=None,
    ):
        self.policy = policy
        self.alpha = alpha
        self.reward_type = reward_type
        self.n_directions = n_directions
        self.arms = arms
        self.off_policy = off_policy
        self.n_shots = n_shots
        self.n_draws = n_draws
        self.group_column = group_column
        self.random_state = random_state

    # ------------------------------------------------------------------ public verbs
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, action=None, reward=None, groups=None):
        """Learn the prior from logged tasks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of tuples
            Contexts of the rows of all tasks, or one tuple ``(X, action, reward)`` for
            each task.
        action : array-like of shape (n_samples,), default=None
            Arms that were pulled; None for a list of tasks.
        reward : array-like of shape (n_samples,), default=None
            What they paid; None for a list of tasks.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        self : object
            Fitted bandit, ready to choose for every task it has seen and for new ones.
        """
        with self._all_or_nothing(), threadpool_limits(1, user_api="blas"):
            table, action, _ = self._logged(X, action, reward, groups, reset=True)
            given = action if self.arms is None else np.asarray(self.arms)
            self._all_arms = np.unique(given)
            self.arms_ = self._all_arms
            self.binary_ = self._decide_binary(table.y)
            self._rng = np.random.default_rng(
                check_random_state(self.random_state).randint(2**31 - 1)
            )
            self._draw_seed = int(self._rng.integers(2**31))
            summary = self._meta_fit(self._with_arms(table, action), resume=False)
            self.states_ = TaskStates().updated(Block(summary))
        return self

    def adapt(self, X, action=None, reward=None, groups=None):
        """Specialise to new tasks, afresh from the prior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of tuples
            Contexts, or one tuple ``(X, action, reward)`` for each task.
        action : array-like of shape (n_samples,), default=None
            Arms that were pulled.
        reward : array-like of shape (n_samples,), default=None
            What they paid.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row; without it the rows are one task, which `predict` uses
            for rows without an id.

        Returns
        -------
        self : object
            The bandit, adapted.
        """
        check_is_fitted(self)
        with self._all_or_nothing():
            self._take_up(Block(self._read_support(X, action, reward, groups)))
        return self

    def partial_adapt(self, X, action=None, reward=None, groups=None):
        """Learn from more rows of a task, as they come in.

        Row by row gives the same posterior as all rows at once.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of tuples
            Contexts, or one tuple ``(X, action, reward)`` for each task.
        action : array-like of shape (n_samples,), default=None
            Arms that were pulled.
        reward : array-like of shape (n_samples,), default=None
            What they paid.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        self : object
            The bandit, adapted.
        """
        check_is_fitted(self)
        with self._all_or_nothing():
            support = self._read_support(X, action, reward, groups)
            self._take_up(self._extended(support, self.states_))
        return self

    def predict(self, X, groups=None, exploit=False):
        """Choose an arm for every row.

        Thompson sampling draws afresh for every row of every call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Contexts.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row. An unknown task is chosen for by the prior.
        exploit : bool, default=False
            Whether to take the arm of the largest expected reward instead.

        Returns
        -------
        action : ndarray of shape (n_samples,)
            Chosen arms.
        """
        table = self._read_rows(X, groups)
        how = "greedy" if exploit else self.policy
        proba = self._values(table, "choice", policy=how)
        return self._all_arms[table.restore(proba.argmax(1))]

    def predict_proba(self, X, groups=None):
        """Probability with which `predict` chooses each arm.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Contexts.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_arms)
            Columns in the order of `arms_`. For Thompson sampling the shares of
            `n_draws` draws of the weights, which are the same in every call.
        """
        table = self._read_rows(X, groups)
        proba = self._values(table, "proba", policy=self.policy)
        return table.restore(proba)[:, self._active]

    def decision_function(self, X, groups=None, return_std=False):
        """Expected reward of every arm.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Contexts.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.
        return_std : bool, default=False
            Whether to return how uncertain each of them is as well: the standard
            deviation of the expected reward, or of its log-odds where rewards are
            binary.

        Returns
        -------
        reward : ndarray of shape (n_samples, n_arms)
            Columns in the order of `arms_`.
        std : ndarray of shape (n_samples, n_arms)
            Only with ``return_std=True``.
        """
        table = self._read_rows(X, groups)
        mean = table.restore(self._values(table, "reward"))[:, self._active]
        if not return_std:
            return mean
        return mean, table.restore(self._values(table, "std"))[:, self._active]

    def score(self, X, action=None, reward=None, groups=None, propensity=None):
        """Mean reward that this policy would earn, estimated from logged rows.

        Parameters
        ----------
        X, action, reward, groups
            As for `off_policy_value`.
        propensity : array-like of shape (n_samples,), default=None
            Probability of each action under the policy that logged it.

        Returns
        -------
        value : float
            See `off_policy_value` for its interval.
        """
        return self.off_policy_value(X, action, reward, groups, propensity).value

    def off_policy_value(
        self, X, action=None, reward=None, groups=None, propensity=None, coverage=0.9
    ):
        """Mean reward that this policy would earn, with an interval.

        Rows of known tasks are judged as they are. Every other task, and every task of
        a list, is adapted to its first `n_shots` rows and judged on the rest. The model
        of the rewards is the bandit's own, which has not seen the judged rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of tuples
            Contexts, or one tuple ``(X, action, reward, propensity)`` for each task.
        action : array-like of shape (n_samples,), default=None
            Arms that were pulled.
        reward : array-like of shape (n_samples,), default=None
            What they paid.
        groups : array-like of shape (n_samples,), default=None
            Task id of each row.
        propensity : array-like of shape (n_samples,), default=None
            Probability of each action under the policy that logged it. Without it,
            that policy is taken to have ignored the context: the share of each arm.
        coverage : float, default=0.9
            Of the interval, which takes tasks, not rows, for independent where there
            are several.

        Returns
        -------
        OffPolicyValue
            Value, standard error, and the ends of the interval.
        """
        check_is_fitted(self)
        table, action, given = self._logged(X, action, reward, groups, reset=False)
        given = given if propensity is None else np.asarray(propensity, dtype=float)
        table = self._with_arms(table, action)
        if given is None:
            shares = np.bincount(table.X[:, -1].astype(int)) / len(table.X)
            given = np.empty(len(table.X))
            given[table.order] = shares[table.X[:, -1].astype(int)]
        propensities = given[table.order]
        parts = []
        known = np.array([task in self.states_ for task in table.ids]) & (
            not table.listed
        )
        if known.any():
            parts.append((self, table.take(np.flatnonzero(known))))
        if not known.all():
            parts.append(self._adapted(table.take(np.flatnonzero(~known))))
        where = np.empty(len(table.X), dtype=np.intp)
        where[table.order] = np.arange(len(table.X))
        columns = [
            model._judge(part, propensities[where[part.order]]) for model, part in parts
        ]
        *columns, tasks = (np.concatenate(c) for c in zip(*columns, strict=True))
        names = "reward", "action_proba", "propensity", "expected", "policy_expected"
        several = len(np.unique(tasks)) > 1
        return off_policy_value(
            **dict(zip(names, columns, strict=True)),
            method=self.off_policy,
            groups=tasks if several else None,
            coverage=coverage,
        )

    def add_arm(self, arm):
        """Let a new arm be chosen, of which nothing is known.

        Its prior is that of an arm drawn from where the known ones seem to come from;
        an arm that was removed comes back with all that is known of it.

        Parameters
        ----------
        arm : object
            Its name, of the type of the others.

        Returns
        -------
        self : object
            The bandit.
        """
        check_is_fitted(self)
        if arm in self.arms_:
            raise ValueError(f"arm {arm!r} is there already: {self.arms_.tolist()}.")
        with self._all_or_nothing():
            if arm not in self._all_arms:
                self._all_arms = np.append(self._all_arms, np.asarray([arm]))
                self.prior_ = self.prior_.with_new_arm()
                self._set_prior()
                self.states_ = self._widened(self.states_)
            self.arms_ = np.append(self.arms_, np.asarray([arm]))
            self.arms_ = self._all_arms[np.isin(self._all_arms, self.arms_)]
        return self

    def remove_arm(self, arm):
        """Never choose an arm again; what its rows have taught of others stays.

        Parameters
        ----------
        arm : object
            Its name.

        Returns
        -------
        self : object
            The bandit.
        """
        check_is_fitted(self)
        if arm not in self.arms_:
            raise ValueError(f"arm {arm!r} is not one of {self.arms_.tolist()}.")
        if len(self.arms_) == 1:
            raise ValueError(f"arm {arm!r} is the only one left.")
        self.arms_ = self.arms_[self.arms_ != arm]
        return self

    # --------------------------------------------------------------------- judging
    def _adapted(self, table):
        """A copy adapted to the first rows of new tasks, and their other rows."""
        support, query = split_support(table, None, self.n_shots, support="first")
        kept = np.flatnonzero(query.counts > 0)
        if not len(kept):
            raise ValueError(
                f"No new task has rows left to be judged after n_shots={self.n_shots}."
            )
        support, query = support.take(kept), query.take(kept)
        model = copy.copy(self)
        model.states_ = TaskStates()
        if self.n_shots:
            model._take_up(Block(model._summarize(support)))
        return model, query

    def _judge(self, table, propensity):
        """What `off_policy_value` needs to know of rows, and their tasks."""
        arms = table.X[:, -1].astype(int)
        rows = replace(
            table,
            X=self._design.features(table.X[:, :-1]),
            order=np.arange(len(table.X)),
        )
        proba = self._values(rows, "proba", policy=self.policy)
        reward = self._values(rows, "reward")
        each = np.arange(len(arms))
        tasks = np.array([str(task) for task in table.ids])[table.codes]
        return (
            table.y,
            proba[each, arms],
            propensity,
            reward[each, arms],
            (proba * reward).sum(1),
            tasks,
        )
