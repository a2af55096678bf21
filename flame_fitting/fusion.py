"""Where one Triton kernel stands in for a chain of torch operations on a GPU.

Triton comes with torch's CUDA builds for Linux. Each fused kernel has its reference in plain torch beside it, which
runs on a CPU, where Triton is missing, and in the tests that compare the two.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import ModuleType

from torch import Tensor

_REFERENCE_ONLY: ContextVar[bool] = ContextVar("reference_only", default=False)


def fused_kernels(tensor: Tensor, module: str) -> ModuleType | None:
    """The module with the fused kernels for a tensor; None where the reference is to run."""
    return _load(module) if tensor.device.type == "cuda" and not _REFERENCE_ONLY.get() else None


@contextmanager
def reference_only() -> Iterator[None]:
    """Runs the references on a GPU too, to compare with."""
    token = _REFERENCE_ONLY.set(True)
    try:
        yield
    finally:
        _REFERENCE_ONLY.reset(token)


@lru_cache
def _load(module: str) -> ModuleType | None:
    return importlib.import_module(module) if importlib.util.find_spec("triton") is not None else None
