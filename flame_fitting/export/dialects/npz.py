"""Reading and writing .npz files without pickles, one key at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from flame_fitting import files
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, reason, shown


class Arrays:
    """The arrays of an open .npz file; only those that are asked for are read."""

    def __init__(self, path: Path, file: Any, notes: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        """`notes` are what to say of how the file was read, `others` names in it that stand for no array."""
        self.path, self._file = path, file
        self.names = frozenset(file.files)
        self.notes = list(notes)
        self._others = frozenset(others)
        self._asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def unread(self) -> list[str]:
        """Names of what nobody asked for."""
        return sorted((self.names | self._others) - self._asked)

    def get(self, name: str) -> ndarray | None:
        """An array, or None where the file has none of that name."""
        return self[name] if name in self.names else None

    def offsets(self, name: str) -> ndarray | None:
        """An array (1 or T, V, 3) of offsets, or None where the file has none."""
        values = self.get(name)
        if values is None:
            return None
        if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(f"{self.path}: {name} has shape {values.shape}, finite numbers (T, V, 3) are expected.")
        return values.astype(np.float64)

    def __getitem__(self, name: str) -> ndarray:
        if name not in self.names:
            raise InputError(
                f"{self.path}: lacks the array {name}; it holds {shown(self.names)}. Is it a file of another program? "
                "Give --from."
            )
        self._asked.add(name)
        try:
            return self._file[name]
        except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds over damaged bytes
            raise InputError(
                f"{self.path}: its array {name} cannot be read without a pickle ({reason(error)}). Copy it again."
            ) from error


@contextmanager
def open_npz(path: Path) -> Iterator[Arrays]:
    """The file's arrays; never a pickled object."""
    with files.open_npz(path, "Copy it again, or give the right file.") as file:
        yield Arrays(path, file)


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Writes float arrays as float32, everything else as it is."""
    out: dict[str, Any] = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        out[name] = array.astype(np.float32) if array.dtype.kind == "f" and name != "head_from_world" else array
    with atomic_write(path) as temporary:
        np.savez(temporary, **out)
