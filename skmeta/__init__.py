"""Meta-learning with the interface of scikit-learn."""

from .adapted import AdaptedClassifier, AdaptedRegressor, freeze
from .closed_form import (
    DeepKernelClassifier,
    DeepKernelRegressor,
    RidgeHeadClassifier,
    RidgeHeadRegressor,
)
from .exceptions import (
    DivergenceError,
    DivergenceWarning,
    NotAdaptedError,
    SingleTaskWarning,
)
from .gradient import (
    CAVIAClassifier,
    CAVIARegressor,
    ImplicitMAMLClassifier,
    ImplicitMAMLRegressor,
    MAMLClassifier,
    MAMLRegressor,
    ReptileClassifier,
    ReptileRegressor,
)
from .heterogeneous import (
    HeterogeneousClassifier,
    HeterogeneousRegressor,
    InContextClassifier,
    InContextRegressor,
    SelfMadeTasks,
)
from .hierarchical import (
    HierarchicalClassifier,
    HierarchicalForestClassifier,
    HierarchicalForestRegressor,
    HierarchicalRegressor,
)
from .metric import (
    DualProtoNetClassifier,
    MatchingNetClassifier,
    ProtoNetClassifier,
    RelationNetClassifier,
    SimpleShotClassifier,
)
from .neural_process import AttentiveNPRegressor, CNPRegressor, ConvCNPRegressor
from .tasks import PerTask, Task
from .transfer import (
    MultiTaskClassifier,
    MultiTaskRegressor,
    TransferClassifier,
    TransferRegressor,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "AdaptedClassifier",
    "AdaptedRegressor",
    "AttentiveNPRegressor",
    "CAVIAClassifier",
    "CAVIARegressor",
    "CNPRegressor",
    "ConvCNPRegressor",
    "DeepKernelClassifier",
    "DeepKernelRegressor",
    "DivergenceError",
    "DivergenceWarning",
    "DualProtoNetClassifier",
    "HeterogeneousClassifier",
    "HeterogeneousRegressor",
    "HierarchicalClassifier",
    "HierarchicalForestClassifier",
    "HierarchicalForestRegressor",
    "HierarchicalRegressor",
    "ImplicitMAMLClassifier",
    "ImplicitMAMLRegressor",
    "InContextClassifier",
    "InContextRegressor",
    "MAMLClassifier",
    "MAMLRegressor",
    "MatchingNetClassifier",
    "MultiTaskClassifier",
    "MultiTaskRegressor",
    "NotAdaptedError",
    "PerTask",
    "ProtoNetClassifier",
    "RelationNetClassifier",
    "ReptileClassifier",
    "ReptileRegressor",
    "RidgeHeadClassifier",
    "RidgeHeadRegressor",
    "SelfMadeTasks",
    "SimpleShotClassifier",
    "SingleTaskWarning",
    "Task",
    "TransferClassifier",
    "TransferRegressor",
    "freeze",
]
