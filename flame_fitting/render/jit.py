"""How the kernels are compiled.

Kernels also carry `typing.no_type_check`: tests check annotations at run time by wrapping every function, and Numba can
only compile and cache bare ones.
"""

from numba import njit

kernel = njit(cache=True, parallel=True, error_model="numpy")
"""A function that Python calls; `prange` loops run on all threads."""

inline = njit(cache=True, error_model="numpy", forceinline=True)
"""A helper of kernels. Calls that pass arrays cost more than most bodies here, hence inlined."""
