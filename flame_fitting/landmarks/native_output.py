"""Keeps what native libraries print to the C-level standard error off the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def native_stderr_to(log_file: Path | str | None = None) -> Iterator[None]:
    """Sends file descriptor 2 to the end of `log_file` (nowhere if None) while the block runs.

    Python's own `sys.stderr` keeps writing where it wrote before. Meant for short blocks: the descriptor belongs to the
    whole process.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # started without a standard error
        yield
        return
    target = os.open(log_file or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    python_stderr = sys.stderr
    replacement = None
    with suppress(OSError, ValueError, AttributeError):
        if python_stderr.fileno() == 2:
            replacement = os.fdopen(os.dup(saved), "w", buffering=1, errors="replace")
    try:
        os.dup2(target, 2)
        if replacement is not None:
            sys.stderr = replacement
        yield
    finally:
        if replacement is not None:
            sys.stderr = python_stderr
            replacement.close()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(target)
