"""Attention that can be differentiated twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel

_lock = threading.Lock()
_stack = ExitStack()
_n_inside = 0


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by its formula: the fused kernels have no second derivative.

    Torch keeps this choice in a global flag, so the first thread that enters sets
    it and the last one that leaves restores it.
    """
    global _n_inside
    with _lock:
        if _n_inside == 0:
            _stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0:
                _stack.close()
