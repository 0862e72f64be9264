"""Learners that compare rows in a learned embedding."""

from ._dual import DualProtoNetClassifier
from ._dual_learner import DualProtoNet
from ._protonet import ProtoNetClassifier
from ._protonet_learner import ProtoNet

__all__ = [
    "DualProtoNet",
    "DualProtoNetClassifier",
    "ProtoNet",
    "ProtoNetClassifier",
]
