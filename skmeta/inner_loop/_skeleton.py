"""A module without weights for each thread."""

from __future__ import annotations

import copy
import threading
from typing import Any

from torch import nn


class Skeleton:
    """Gives each thread its own weightless copy of a module.

    ``torch.func.functional_call`` swaps parameters in place for the duration of the
    call, so two threads that share one module evaluate each other's weights. A copy
    on the meta device costs no memory, and nothing of it is pickled.

    Parameters
    ----------
    module : nn.Module
        Read at the first call in a thread, never written.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._local = threading.local()

    def get(self) -> nn.Module:
        """The copy of this thread, in the mode (training or not) of the module."""
        skeleton = getattr(self._local, "skeleton", None)
        if skeleton is None:
            skeleton = copy.deepcopy(self._module).to("meta").requires_grad_(False)
            for child in skeleton.modules():
                if isinstance(child, nn.Embedding | nn.EmbeddingBag):
                    child.sparse = False  # sparse gradients have no derivative
            self._local.skeleton = skeleton
        pairs = zip(skeleton.modules(), self._module.modules(), strict=True)
        for ours, theirs in pairs:
            ours.training = theirs.training
            _refuse_fused_path(ours, theirs)
        return skeleton

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self._module}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._module = state["module"]
        self._local = threading.local()


def _refuse_fused_path(ours: nn.Module, theirs: nn.Module) -> None:
    """Keep attention in evaluation mode off operations that vmap does not know.

    Torch takes them unless the layer is training, which otherwise only switches
    dropout on.
    """
    if isinstance(ours, nn.MultiheadAttention):
        assert isinstance(theirs, nn.MultiheadAttention)
        ours.dropout = theirs.dropout if theirs.training else 0.0
        ours.training = True
    elif isinstance(ours, nn.TransformerEncoderLayer):
        ours.training = True
