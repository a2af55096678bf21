"""What a pickle of a head model may name and hold."""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(eq=False)
class SparseColumns:
    """A matrix in compressed sparse columns, as SciPy's csc_matrix stores it."""

    data: np.ndarray
    indices: np.ndarray
    """Row of each value."""
    indptr: np.ndarray
    """(columns + 1,) where each column starts in `data`."""
    shape: tuple[int, int]

    def toarray(self) -> np.ndarray:
        """The dense matrix; raises ValueError where the parts do not fit together."""
        rows, columns = self.shape
        indices, indptr = self.indices.astype(np.int64), self.indptr.astype(np.int64)
        counts = np.diff(indptr)
        if rows * columns > 2**24 or self.data.ndim != 1 or indices.ndim != 1 or indptr.shape != (columns + 1,):
            raise ValueError(f"a sparse matrix of shape {self.shape} whose parts do not fit it")
        if indptr[0] != 0 or (counts < 0).any() or indptr[-1] != len(indices) or len(indices) != len(self.data):
            raise ValueError("a sparse matrix whose columns are out of order")
        if indices.size and (indices.min() < 0 or indices.max() >= rows):
            raise ValueError("a sparse matrix with rows that it does not have")
        dense = np.zeros((rows, columns), dtype=self.data.dtype)
        np.add.at(dense, (indices, np.repeat(np.arange(columns), counts)), self.data)
        return dense


class RefusedError(Exception):
    """The pickle holds what a head model does not."""


@dataclass(frozen=True)
class PickleName:
    """Something that the pickle names; never the thing itself."""

    role: str
    text: str


_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NAMES = {
    **{f"{module}.{name}": name for module in _ARRAY_MODULES for name in ("_reconstruct", "scalar")},
    "numpy.core.numeric._frombuffer": "_frombuffer",
    "numpy._core.numeric._frombuffer": "_frombuffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "scipy.sparse.csc.csc_matrix": "sparse",
    "scipy.sparse._csc.csc_matrix": "sparse",
    "scipy.sparse.csc_matrix": "sparse",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",
    "builtins.bytes": "bytes",
    "__builtin__.set": "set",
    "builtins.set": "set",
    "__builtin__.object": "object",
    "builtins.object": "object",
    "copy_reg._reconstructor": "_reconstructor",
    "copyreg._reconstructor": "_reconstructor",
}
_CHUMPY = re.compile(r"chumpy(_fork)?(\.ch)?\.Ch|chumpy(_fork)?\.reordering\.Select")
NUMBER_TYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")


def role_of(text: str) -> str | None:
    """What a dotted name stands for; None for one that no head model needs."""
    return "chumpy" if _CHUMPY.fullmatch(text) else _NAMES.get(text)


def size_of(shape: Any) -> int:
    """Number of elements of an array's shape as the file gives it."""
    if not isinstance(shape, tuple) or len(shape) > 8:
        raise ValueError("an array without a shape")
    if not all(isinstance(n, (int, np.integer)) and 0 <= n < 2**40 for n in shape):
        raise ValueError(f"an array of the shape {str(shape)[:60]}")
    return math.prod(int(n) for n in shape)
