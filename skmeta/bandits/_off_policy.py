"""What a policy would have earned, from rows that another one logged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.utils.validation import check_consistent_length

METHODS = ("ips", "snips", "dr")


class OffPolicyValue(NamedTuple):
    """Estimated mean reward of a policy, with an interval.

    Parameters
    ----------
    value : float
        Estimate.
    standard_error : float
        Of the estimate.
    low, high : float
        Ends of the interval.
    """

    value: float
    standard_error: float
    low: float
    high: float


def off_policy_value(
    reward,
    action_proba,
    propensity,
    *,
    expected=None,
    policy_expected=None,
    method="snips",
    groups=None,
    coverage=0.9,
):
    """Mean reward of a policy, estimated from the log of another one.

    A logged row counts by how much likelier the policy is to take its action than the
    one that logged it. These weights are all that is needed, but few large ones make
    the estimate noisy; a model of the rewards takes up most of them [1]_.

    Parameters
    ----------
    reward : array-like of shape (n_samples,)
        Logged rewards.
    action_proba : array-like of shape (n_samples,)
        Probability with which the judged policy takes the logged action.
    propensity : array-like of shape (n_samples,)
        Probability with which the logging policy took it.
    expected : array-like of shape (n_samples,), default=None
        Predicted reward of the logged action, by a model that has not seen these rows.
        For "dr" only.
    policy_expected : array-like of shape (n_samples,), default=None
        Predicted reward of the judged policy: predictions for all actions, weighted by
        its probabilities. For "dr" only.
    method : {"ips", "snips", "dr"}, default="snips"
        Inverse propensity weighting, the same with weights that sum to one, or doubly
        robust: right if either the propensities or the model are.
    groups : array-like of shape (n_samples,), default=None
        Task of every row. Rows of a task are then not taken for independent.
    coverage : float, default=0.9
        Of the interval.

    Returns
    -------
    OffPolicyValue
        Value, standard error and the ends of an interval by Student's t.

    References
    ----------
    .. [1] M. Dudik, D. Erhan, J. Langford and L. Li, "Doubly robust policy evaluation
       and optimization", Statistical Science 29 (2014).

    Examples
    --------
    >>> from skmeta.bandits import off_policy_value
    >>> result = off_policy_value([1, 0, 1, 0], [1, 0, 1, 1], [0.5] * 4, method="ips")
    >>> result.value
    1.0
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}; got {method!r}.")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be in (0, 1); got {coverage!r}.")
    columns = [reward, action_proba, propensity]
    if method == "dr":
        if expected is None or policy_expected is None:
            raise ValueError("method='dr' needs expected and policy_expected.")
        columns += [expected, policy_expected]
    columns = [np.asarray(column, dtype=float) for column in columns]
    check_consistent_length(*columns, groups)
    reward, action_proba, propensity, *model = columns
    if len(reward) < 2:
        raise ValueError(f"An interval needs at least 2 rows; got {len(reward)}.")
    if not (propensity > 0).all() or not (propensity <= 1).all():
        row = int(np.argmin((propensity > 0) & (propensity <= 1)))
        raise ValueError(
            f"propensity must be in (0, 1]; got {propensity[row]} in row {row}."
        )
    weight = action_proba / propensity
    return _interval(*_influence(reward, weight, model, method), groups, coverage)


def _influence(reward, weight, model, method):
    """Estimate, and what each row contributes to its error."""
    if method == "snips":
        if not weight.any():
            raise ValueError(
                "The policy never takes a logged action, so that no weight is left; "
                "use method='dr'."
            )
        value = np.average(reward, weights=weight)
        return value, weight * (reward - value) / weight.mean()
    terms = weight * reward
    if method == "dr":
        expected, policy_expected = model
        terms = policy_expected + weight * (reward - expected)
    return terms.mean(), terms - terms.mean()


def _interval(value, influence, groups, coverage):
    n = len(influence)
    if groups is not None:
        _, codes = np.unique(np.asarray(groups), return_inverse=True)
        influence = np.bincount(codes.ravel(), influence)
        if len(influence) < 2:
            raise ValueError("An interval over groups needs at least 2 groups.")
    n_units = len(influence)
    error = np.sqrt(n_units / (n_units - 1) * np.square(influence).sum()) / n
    half = stats.t.ppf(0.5 + coverage / 2, n_units - 1) * error
    return OffPolicyValue(
        float(value), float(error), float(value - half), float(value + half)
    )
