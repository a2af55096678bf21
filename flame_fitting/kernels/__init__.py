"""Triton kernels and nothing else; the `fused.py` modules launch them.

Triton compiles a kernel from its source and the names of its module, so nothing may wrap these functions. The run-time
type checker of the tests wraps every function of the package but those in here (`tests/conftest.py`).
"""
