"""Where chatter goes: `log.txt` beside a command's results, never the terminal.

Libraries write to Python's logging, to warnings and, from C++, straight to file descriptor 2. All three end up in one
file. What a user is meant to see is printed by `progress.py` and by the command line.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG_NAME = "log.txt"

_current: ContextVar[Path | None] = ContextVar("flame_fitting_log", default=None)


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; its messages go to the command's log file."""
    return logging.getLogger(name if name.startswith("flame_fitting") else f"flame_fitting.{name}")


def current_log_path() -> Path | None:
    """The log file of the running command; None outside a command."""
    return _current.get()


@contextlib.contextmanager
def log_to_file(path: Path | str) -> Iterator[Path]:
    """Sends Python's logging and warnings to the end of the file `path` while the block runs."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("flame_fitting")
    # The root keeps its level: libraries are asked for no more than they say by themselves.
    before = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    # With a handler on the root, other loggers' last-resort output to stderr stops as well.
    logging.captureWarnings(True)
    token = _current.set(path)
    try:
        yield path
    finally:
        _current.reset(token)
        logging.captureWarnings(False)
        ours.setLevel(before)
        root.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def quiet_native_stderr(log_path: Path | str | None = None) -> Iterator[None]:
    """Sends what C and C++ code writes to file descriptor 2 to a log file; Python's `sys.stderr` keeps its place.

    `log_path` None means the running command's log file, or nowhere outside a command. Blocks may be nested. Not for
    several threads at once: the descriptor belongs to the whole process.
    """
    target = log_path if log_path is not None else (current_log_path() or os.devnull)
    try:
        saved = os.dup(2)
    except OSError:  # no descriptor 2, nothing to redirect
        yield
        return
    flush(sys.stderr)
    python_stderr = sys.stderr
    log_descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    on_descriptor_2 = _writes_to_descriptor_2(python_stderr)
    terminal = None
    try:
        if on_descriptor_2:
            encoding = getattr(python_stderr, "encoding", None) or "utf-8"
            terminal = os.fdopen(os.dup(saved), "w", buffering=1, encoding=encoding, errors="backslashreplace")
            sys.stderr = terminal
        os.dup2(log_descriptor, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(log_descriptor)
        if terminal is not None:
            if sys.stderr is terminal:
                sys.stderr = python_stderr
            terminal.close()


@dataclass
class CommandLog:
    """The log of one command."""

    path: Path
    """The temporary file that holds it while the command runs."""
    output: Path | None
    """The folder that gets it at the end, if that holds a manifest."""
    keep: bool = False
    """Keeps the temporary file where it cannot be moved beside the results."""

    def __post_init__(self) -> None:
        self._before = _manifest_in(self.output)

    def fails(self) -> None:
        """From here on it goes to no folder but one that got its manifest from this very command."""
        if _manifest_in(self.output) == self._before:
            self.output = None

    @property
    def path_after(self) -> Path:
        """Where it lies in the end."""
        return self.path if self.output is None or _manifest_in(self.output) is None else self.output / LOG_NAME


@contextlib.contextmanager
def command_log(output: Path | None) -> Iterator[CommandLog]:
    """The log of one command: a temporary file while it runs, added to `<output>/log.txt` at the end.

    A stage alone decides whether it may write into `output`, so nothing is put there before it has: the log is moved
    only where the folder holds a manifest, and that of a command that `fails` only where it has written that manifest
    itself: a folder that was refused or read stays as it is. Otherwise it goes, unless the block raised or asked to
    keep it.
    """
    handle, name = tempfile.mkstemp(prefix="flame-fitting-", suffix=".log.txt")
    os.close(handle)
    log, failed = CommandLog(Path(name), output), True
    try:
        with log_to_file(log.path), quiet_native_stderr(log.path):
            yield log
        failed = False
    finally:
        if _append_to(log.output, log.path) or not (failed or log.keep):
            log.path.unlink(missing_ok=True)


def output_folder(config: Any) -> Path | None:
    """The folder a stage writes into, read from its configuration; it gets log.txt."""
    if isinstance(getattr(config, "same_identity", None), Path):  # two fits are compared, nothing is written
        return None
    read = [getattr(config, name, None) for name in ("capture", "src_folder", "avatar")]
    read = [place.resolve() for place in (*read, *(getattr(config, "others", None) or ())) if isinstance(place, Path)]
    for name in ("folder", "output", "tgt_folder", "capture", "fit"):
        place = getattr(config, name, None)
        if isinstance(place, Path):
            # a command that would write over what it reads is refused, and leaves nothing there
            return None if name in ("output", "tgt_folder", "folder") and place.resolve() in read else place
    return None


def flush(stream: object) -> None:
    """Flushes a stream that may be absent or closed."""
    with contextlib.suppress(Exception):
        stream.flush()  # type: ignore[attr-defined]


def _manifest_in(folder: Path | None) -> tuple[int, int] | None:
    """What tells a folder's manifest.json from one that is written later; None where there is none."""
    try:
        found = os.stat(folder / "manifest.json") if folder is not None else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns) if found is not None else None


def _append_to(output: Path | None, log: Path) -> bool:
    if output is None or _manifest_in(output) is None:
        return False
    try:
        with open(output / LOG_NAME, "ab") as target:
            target.write(log.read_bytes())
    except OSError:
        return False
    return True


def _writes_to_descriptor_2(stream: object) -> bool:
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
