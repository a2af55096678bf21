"""How the kernels are compiled, and how they run on several threads.

A kernel works on tasks first <= task < last of its own numbering and lets go of Python's lock; `run` spreads the tasks
over threads. Against Numba's own parallel loops this compiles three times faster, waits without spinning, and needs no
OpenMP, whose pools do not survive a fork.

Kernels also carry `typing.no_type_check`: tests check annotations at run time by wrapping every function, and Numba can
only compile and cache bare ones.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")
"""A function for `run`: its first two arguments are `first` and `last`."""

inline = njit(cache=True, error_model="numpy", forceinline=True)
"""A helper of kernels. Calls that pass arrays cost more than most bodies here, hence inlined."""

_CHUNKS_PER_THREAD = 4  # so that threads which drew cheap tasks take over from others

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_threads: int | None = None


def set_threads(n: int | None) -> None:
    """How many threads kernels use; None (the default) is torch's number, `torch.get_num_threads()`."""
    global _threads
    _threads = None if n is None else max(1, n)


def run(kernel: Callable, n_tasks: int, *arguments: Any) -> None:
    """Calls kernel(first, last, *arguments) so that every task in 0..n_tasks is done once, and waits."""
    threads = min(torch.get_num_threads() if _threads is None else _threads, n_tasks)
    if threads <= 1:
        kernel(0, n_tasks, *arguments)
        return
    n_chunks = min(n_tasks, threads * _CHUNKS_PER_THREAD)
    bounds = [n_tasks * k // n_chunks for k in range(n_chunks + 1)]
    todo = deque(range(n_chunks))
    if not getattr(kernel, "signatures", True):  # compile once, not once a thread
        k = todo.popleft()
        kernel(bounds[k], bounds[k + 1], *arguments)

    def work() -> None:
        while True:
            try:
                k = todo.popleft()
            except IndexError:
                return
            kernel(bounds[k], bounds[k + 1], *arguments)

    helpers = [_workers(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        helper.result()


def _workers(n: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < n:
        _pool, _pool_size = ThreadPoolExecutor(n, thread_name_prefix="raster"), n
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_forget_pool)
