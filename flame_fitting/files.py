"""Files appear whole or not at all: written beside their place, then renamed. And reading what may be damaged."""

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flame_fitting.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PARTIAL_MARK = "-partial-"
"""In the names of files that are being written."""
SMALLEST_PICTURE = 16
"""Pixels of the shorter side; options that would make smaller pictures are refused."""
_umask_lock = threading.Lock()
"""The umask is the whole process's and can only be read by setting it."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix); renames it to `path` if the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}{PARTIAL_MARK}", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with _umask_lock:
            umask = os.umask(0)
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of_file(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_npz(path: Path | str, advice: str) -> "np.lib.npyio.NpzFile":
    """An open .npz file; its arrays are read when they are asked for, never a pickled object.

    Raises InputError, with `advice` at its end, for a file that is empty, cut or no .npz.
    """
    import zipfile

    import numpy as np

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. {advice}")
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        with open(path, "rb") as file:
            begins = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")  # NumPy takes what begins otherwise for a pickle
        if not begins or not zipfile.is_zipfile(path):
            raise ValueError("it is cut short, or another kind of file")
        return np.load(path, allow_pickle=False)
    except Exception as error:  # zipfile and NumPy raise many kinds over damaged bytes
        raise InputError(f"{path}: not a readable .npz file ({reason(error)}). {advice}") from error


def read_npz(
    path: Path | str, advice: str, names: Iterable[str] | None = None, optional: Iterable[str] = ()
) -> "dict[str, np.ndarray]":
    """The arrays of an .npz file by name: all, or those in `names` and, where they are there, in `optional`.

    Never a pickled object. Raises InputError, with `advice` at its end, for a file that is cut, damaged or foreign, and
    for one that lacks an array of `names`.
    """
    try:
        with open_npz(path, advice) as file:
            chosen = file.files if names is None else [*names, *(name for name in optional if name in file.files)]
            missing = [name for name in chosen if name not in file.files]
            if missing:
                found = shown(file.files)
                raise InputError(f"{path}: lacks {', '.join(missing)}; it holds {found}. {advice}")
            return {name: file[name] for name in chosen}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds over damaged bytes
        raise InputError(f"{path}: not a readable .npz file ({reason(error)}). {advice}") from error


def read_picture(path: Path | str, mode: Literal["RGB", "L", "A"], advice: str) -> "np.ndarray":
    """A picture as uint8 (H, W, 3) or (H, W); `A` is its alpha channel.

    Raises InputError, with `advice` at its end, where it cannot be read.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGBA").getchannel("A") if mode == "A" else picture.convert(mode))
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a picture, or an empty one. {advice}") from error
    except Exception as error:  # decoders raise many kinds over damaged bytes
        raise InputError(f"{path}: not a readable picture ({reason(error)}). {advice}") from error


def read_json_object(path: Path | str, advice: str) -> dict[str, Any]:
    """The JSON object in a file; InputError, with `advice` at its end, where there is none."""
    import json

    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable JSON ({reason(error)}). {advice}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no JSON object. {advice}")
    return data


def reason(error: BaseException) -> str:
    """What an error says in one short line."""
    said = getattr(error, "strerror", None)  # of the system's errors and of FFmpeg's: without number and path
    lines = (said if isinstance(said, str) else str(error)).splitlines()
    return lines[0][:200] if lines and lines[0].strip() else type(error).__name__


def shown(names: Iterable[str], most: int = 24) -> str:
    """Names found in a file, for a message."""
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return (", ".join(found[:most]) or "nothing") + more
