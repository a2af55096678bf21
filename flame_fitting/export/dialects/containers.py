"""Files that hold named arrays: .npz, and .json with lists in their place."""

from contextlib import AbstractContextManager
from pathlib import Path

from flame_fitting.export.dialects.gathered import open_json
from flame_fitting.export.dialects.npz import Arrays, open_npz

OF_NPZ = (".npz", ".json")
"""Suffixes of the files that dialects of .npz are read from."""


def open_arrays(path: Path) -> AbstractContextManager[Arrays]:
    """The arrays of a file, by its suffix."""
    return open_json(path) if path.suffix.lower() == ".json" else open_npz(path)
