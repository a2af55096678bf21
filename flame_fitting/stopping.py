"""A command that is stopped by Ctrl-C, SIGTERM or SIGHUP: it cleans up, and says what of its work is kept."""

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Somebody ends the process; its terminal is closed (not on Windows)."""


class Terminated(KeyboardInterrupt):
    """A signal came: the same as Ctrl-C for everybody but the exit code."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What shells say of a process that a signal has ended."""
        return 128 + self.signal


@contextlib.contextmanager
def leaves(kept: Callable[[], str | None]) -> Iterator[None]:
    """Where the block is stopped, the user is told `kept()`, a sentence on what of it is kept; None: nothing is."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if text := kept():
            stop.add_note(text)
        raise


def how_to_go_on(stop: KeyboardInterrupt, force: bool = False) -> str:
    """What is kept, the innermost block's first, and what to do; `force` says whether the command would redo it all."""
    kept = list(getattr(stop, "__notes__", ()))
    if not kept:
        return "Nothing has finished that could be kept. Run the same command again to start over."
    return " ".join([*kept, f"Run the same command again{' without --force' if force else ''} to go on from there."])


@contextlib.contextmanager
def terminates_in_order() -> Iterator[None]:
    """Within the block `SIGNALS` raise `Terminated`, so that locks and half-written files go. In the main thread alone.

    Only the first does: those that follow (a terminal that closes sends more than one) must not stop the cleaning.
    A signal that somebody else takes care of, or ignores (nohup), is left as it is.
    """
    taken = []
    if threading.current_thread() is threading.main_thread():
        taken = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> None:
        for one in taken:
            signal.signal(one, signal.SIG_IGN)
        _leave_closed_terminals()
        raise Terminated(number)

    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave_closed_terminals() -> None:
    """A line that is written to a terminal that is closed would be an error in the middle of the cleaning."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            number = stream.fileno()
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
