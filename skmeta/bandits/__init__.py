"""Contextual bandits whose prior is learned from logged tasks."""

from ._bandit import MetaBandit
from ._log import LoggedTask
from ._off_policy import OffPolicyValue, off_policy_value

__all__ = ["LoggedTask", "MetaBandit", "OffPolicyValue", "off_policy_value"]
