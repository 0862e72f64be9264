"""Learners that compare rows in a learned embedding."""

from ._dual import DualProtoNetClassifier
from ._dual_learner import DualProtoNet
from ._matching import MatchingNetClassifier
from ._matching_learner import MatchingNet
from ._protonet import ProtoNetClassifier
from ._protonet_learner import ProtoNet
from ._relation import RelationNetClassifier
from ._relation_learner import RelationNet
from ._simpleshot import SimpleShotClassifier
from ._simpleshot_learner import SimpleShot

__all__ = [
    "DualProtoNet",
    "DualProtoNetClassifier",
    "MatchingNet",
    "MatchingNetClassifier",
    "ProtoNet",
    "ProtoNetClassifier",
    "RelationNet",
    "RelationNetClassifier",
    "SimpleShot",
    "SimpleShotClassifier",
]
