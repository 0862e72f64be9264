"""Learners that compare rows in a learned embedding."""

from ._protonet import ProtoNetClassifier
from ._protonet_learner import ProtoNet

__all__ = ["ProtoNet", "ProtoNetClassifier"]
