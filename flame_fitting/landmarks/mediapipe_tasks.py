"""Networks of MediaPipe in this process: no destructor of theirs is left anything to do.

Each has a thread pool, and a destructor that hands the pool its last work and waits for it. Where Python's garbage
collection frees both, which are in one cycle, the pool's thread has been told to end before the destructor runs: that
waits for ever, as it does where it runs while another pool takes work, for a lock that its own thread holds. And after
the interpreter's exit has begun, a destructor fails, and prints.
"""

import atexit
import weakref
from collections import deque
from typing import Any

_known: "weakref.WeakSet[Any]" = weakref.WeakSet()
_unused: deque[Any] = deque()
"""Networks that nobody has any more, to be closed by whoever starts the next one."""


def keep(owner: object, network: Any) -> None:
    """Keeps a network (of mediapipe.tasks) until its owner is gone; closes those of owners that are gone by now.

    Called where a network was started, so never by garbage collection. What closing prints is the caller's to silence.
    """
    _known.add(network)
    weakref.finalize(owner, _unused.append, network).atexit = False
    close_unused()


def close_unused() -> None:
    """Frees the networks whose owners are gone."""
    while _unused:
        _unused.popleft().close()


@atexit.register
def _abandon() -> None:
    for network in list(_known):
        network._handle = None  # the system frees its memory
