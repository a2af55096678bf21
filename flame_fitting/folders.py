"""Output folders that appear whole or not at all, and that one process at a time writes into."""

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.files import PARTIAL_MARK
from flame_fitting.log import get_logger
from flame_fitting.manifest import MANIFEST_NAME, check_output_folder, read_manifest, resolved

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi")
_held: dict[Path, tuple[int, int]] = {}
"""Folders that this process holds: the thread that does, and how many blocks deep."""
_held_guard = threading.Lock()


@contextlib.contextmanager
def locked_folder(
    folder: str | os.PathLike,
    force: bool = False,
    stage: str | None = None,
    inputs: Iterable[str | os.PathLike | None] = (),
) -> Iterator[Path]:
    """Keeps everybody else out of an output folder while the block runs; yields the folder that links lead to.

    What killed runs left of this folder is removed. Blocks of one thread may be nested. The lock ends with the process
    that holds it, however it ends. Raises InputError where another process or thread holds the folder, where
    `check_output_folder` does for the `stage`, and where `check_apart` does for its `inputs`.
    """
    target = resolved(folder)
    check_apart(folder, inputs)
    check_output_folder(target, force, stage)
    with _held_guard:
        thread, depth = _held.get(target, (threading.get_ident(), 0))
        if thread != threading.get_ident():
            raise InputError(_busy(target, "this process"))
        _held[target] = (thread, depth + 1)
    try:
        if depth > 0:
            yield target
        else:
            with _lock_file(target):
                _remove_leftovers(target)
                yield target
    finally:
        with _held_guard:
            if depth > 0:
                _held[target] = (thread, depth)
            else:
                del _held[target]


@contextlib.contextmanager
def staged_folder(
    target: str | os.PathLike,
    force: bool = False,
    stale: tuple[str, ...] = (),
    stage: str | None = None,
    inputs: Iterable[str | os.PathLike | None] = (),
) -> Iterator[Path]:
    """A temporary folder whose content becomes `target`'s when the block ends without an error; `target` is locked.

    A target that does not exist appears by one rename. In one that exists, entries that the new content also has are
    replaced, entries named in `stale` go, and others stay; its manifest says that it is unfinished meanwhile. `target`
    may be a link or a mount point. Raises InputError where `locked_folder` does.
    """
    with locked_folder(target, force, stage, inputs) as folder:
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=_workplace(folder)))
        except OSError as error:
            raise InputError(f"{target}: the folder cannot be written ({error.strerror}). Choose another.") from error
        try:
            yield temporary
            _publish(temporary, folder, stale)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_apart(output: str | os.PathLike, inputs: Iterable[str | os.PathLike | None]) -> None:
    """Raises InputError where an output folder is one of the inputs of its stage, contains one or lies in one.

    Nothing allows that, for what is written would replace what is read. None stands for an input that is not there.
    """
    target = resolved(output)
    for one in inputs:
        if one is None:
            continue
        source = resolved(one)
        if target == source:
            what = "is what this command reads"
        elif source.is_relative_to(target):
            what = f"contains {one}, which this command reads"
        elif target.is_relative_to(source):
            what = f"lies in {one}, which this command reads"
        else:
            continue
        raise InputError(f"{output}: {what}. Choose an output folder outside of it, such as one beside it.")


def hidden_folder(target: str | os.PathLike, use: str) -> Path:
    """Where something that belongs to an output folder lies without being in it: beside it, hidden, named for a use.

    In it where a rename could not reach it from there. Nothing is made.
    """
    folder = resolved(target)
    place = _workplace(folder)
    return place / (f".{use}" if place == folder else f".{folder.name}.{use}")


def capture_folder(path: str | os.PathLike) -> Path:
    """The folder of a capture that is given by its folder or by the transforms.json in it."""
    if Path(path).is_file() and Path(path).suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(f"{path}: is a video. Make a folder of its frames: flame-fitting preprocess --input {path}")
    return _folder_of(Path(path), r"transforms\.json", "the folder of a capture", "Check the path.")


def fit_folder(path: str | os.PathLike) -> Path:
    """The folder of a fit that is given by its folder or by the tracked_flame_params.npz in it."""
    advice = "Give the output folder of: flame-fitting fit"
    return _folder_of(Path(path), r"tracked_flame_params(_\d+)?\.npz", "the folder of a fit", advice)


def _folder_of(path: Path, pattern: str, what: str, advice: str) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such folder. {advice}")
    if not path.is_file():
        return path
    if re.fullmatch(pattern, path.name):
        return path.parent
    raise InputError(f"{path}: is a file. Give {what}.")


# Locks


@contextlib.contextmanager
def _lock_file(target: Path) -> Iterator[None]:
    """Holds the lock file of `target`, which is removed in the end, with all folders that were made for it."""
    made: list[Path] = []
    try:
        descriptor, path = _open_locked(target, made)
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"{target}: cannot be written ({error.strerror}). Choose another output folder.") from error
    except InputError:
        _remove_empty(made)
        raise
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: nobody else can have it by now
        os.close(descriptor)
        _remove_empty(made)


def _open_locked(target: Path, made: list[Path]) -> tuple[int, Path]:
    lost: OSError | None = None
    for _ in range(1000):
        _make_parents(target, made)
        place = _workplace(target)
        path = place / (".lock" if place == target else f".{target.name}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError as error:  # another run removed the folder that it had made for its own lock
            lost = error
            continue
        lost = None
        try:
            if not _try_lock(descriptor):
                raise InputError(_busy(target, os.read(descriptor, 200).decode("utf-8", "replace").strip()))
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                    return descriptor, path
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its file was removed between opening and locking: that lock holds nothing
    if lost is not None:  # no run takes a folder away so often: no file can be made there, as in /proc
        raise lost
    raise InputError(_busy(target, "many that come and go"))


def _try_lock(descriptor: int) -> bool:
    """Takes the lock that the system releases when a process ends; True also where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        get_logger(__name__).warning("the file system has no locks: %s", error)
    return True


def _busy(target: Path, who: str) -> str:
    return (
        f"{target}: another run writes into this folder ({who or 'it has just begun'}). "
        "Wait until it has ended, or choose another output folder."
    )


def _make_parents(target: Path, made: list[Path]) -> None:
    missing = [parent for parent in target.parents if not parent.exists()]
    for parent in reversed(missing):
        with contextlib.suppress(FileExistsError):
            parent.mkdir()
            made.append(parent)


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _workplace(target: Path) -> Path:
    """Where temporary folders for `target` are made: beside it, or in it where a rename could not reach it."""
    inside = target.is_dir() and (os.path.ismount(target) or not os.access(target.parent, os.W_OK | os.X_OK))
    return target if inside else target.parent


def _remove_leftovers(target: Path) -> None:
    """What killed runs left of `target`; whoever holds its lock knows that nobody is at work on them."""
    folders = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}\.(partial|old)")
    for place in {target.parent, target}:
        with contextlib.suppress(OSError):
            for entry in list(place.iterdir()):
                if folders.fullmatch(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)
                elif place == target and entry.name.startswith(".") and PARTIAL_MARK in entry.name:
                    entry.unlink(missing_ok=True)


# Publishing


def _publish(temporary: Path, target: Path, stale: tuple[str, ...]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders
    if not target.exists():
        os.rename(temporary, target)
        return
    # A kill between two renames must not leave a mix that looks finished, nor a folder that looks like a stranger's.
    manifest = read_manifest(temporary) or read_manifest(target)
    if manifest is not None:
        dataclasses.replace(manifest, finished=False).write(target)
    entries = sorted(temporary.iterdir(), key=lambda entry: (entry.name == MANIFEST_NAME, entry.name))
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", suffix=".old", dir=_workplace(target)) as old:
        for name in {*stale, *(entry.name for entry in entries)} - {MANIFEST_NAME}:
            if os.path.lexists(target / name):
                _move_away(target / name, Path(old) / name)
        for entry in entries:
            _move(entry, target / entry.name)


def _move_away(entry: Path, destination: Path) -> None:
    try:
        os.rename(entry, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _move(entry: Path, destination: Path) -> None:
    """A rename, or a copy where the two lie on different file systems (a bind mount, a layer of a container)."""
    try:
        os.replace(entry, destination)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    folder = destination.parent
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", suffix=".partial", dir=folder) as near:
        copy = Path(near) / entry.name
        if entry.is_dir():
            shutil.copytree(entry, copy)
        else:
            shutil.copy2(entry, copy)
        os.replace(copy, destination)
