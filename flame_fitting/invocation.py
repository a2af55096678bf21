"""The command line that this process was given, for manifests and reports. Empty where Python called."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("flame_fitting_command_line", default="")


def command_line() -> str:
    """As it can be typed again; empty outside of a command."""
    return _current.get()


@contextmanager
def invoked(*words: str, arguments: Sequence[str] = ()) -> Iterator[None]:
    """While the block runs, these words and arguments are the command line, unless a command runs already."""
    token = _current.set(_current.get() or shlex.join([*words, *arguments]))
    try:
        yield
    finally:
        _current.reset(token)
