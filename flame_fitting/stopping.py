"""A command that is stopped by Ctrl-C or SIGTERM: it cleans up, and says what of its work is kept."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the same as Ctrl-C for everybody but the exit code."""


@contextlib.contextmanager
def leaves(kept: Callable[[], str | None], then: str | None = None) -> Iterator[None]:
    """Where the block is stopped, the user is told `kept()`, a sentence on what of it is kept; None: nothing is.

    `then` says how to go on, where that is not by the same command again; of nested blocks the innermost counts.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if text := kept():
            stop.add_note(text)
            if then is not None:
                vars(stop).setdefault("then", then)
        raise


def how_to_go_on(stop: KeyboardInterrupt, force: bool = False) -> str:
    """What is kept, the innermost block's first, and what to do; `force` says whether the command would redo it all."""
    kept = list(getattr(stop, "__notes__", ()))
    if not kept:
        return "Nothing has finished that could be kept. Run the same command again to start over."
    again = f"Run the same command again{' without --force' if force else ''} to go on from there."
    return " ".join([*kept, vars(stop).get("then", again)])


@contextlib.contextmanager
def terminates_in_order() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`, so that locks and half-written files go. In the main thread alone.

    Where somebody else takes care of the signal nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
