"""Output folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.manifest import MANIFEST_NAME, check_output_folder, read_manifest


@contextlib.contextmanager
def staged_folder(target: str | os.PathLike, force: bool = False, stale: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary folder beside `target` whose content becomes `target`'s when the block ends without an error.

    A target that does not exist or is empty is replaced by one rename. In a target that exists, entries that the new
    content also has are replaced, entries named in `stale` go, and others stay. Raises InputError where
    `check_output_folder` does.
    """
    target = Path(target).absolute()
    check_output_folder(target, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: the folder cannot be written ({error.strerror}). Choose another one.") from error
    try:
        yield temporary
        _publish(temporary, target, stale)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, target: Path, stale: tuple[str, ...]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders
    if not target.exists() or not any(target.iterdir()):
        if target.exists():
            target.rmdir()
        os.rename(temporary, target)
        return
    old_manifest = read_manifest(target) if (target / MANIFEST_NAME).is_file() else None
    if old_manifest is not None:  # a kill between two renames must not leave a mix that looks finished
        old_manifest.finished = False
        old_manifest.write(target)
    entries = sorted(temporary.iterdir(), key=lambda entry: (entry.name == MANIFEST_NAME, entry.name))
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", suffix=".old", dir=target.parent) as old:
        for name in {*stale, *(entry.name for entry in entries)} - {MANIFEST_NAME}:
            if os.path.lexists(target / name):
                os.rename(target / name, Path(old) / name)
        for entry in entries:
            os.replace(entry, target / entry.name)
