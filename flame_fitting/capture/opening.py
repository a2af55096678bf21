"""Captures of any kind of folder."""

from pathlib import Path

from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import read_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError


def open_capture(path: Path | str, options: ReadOptions | None = None) -> Capture:
    """The capture in a folder."""
    return read_capture(path)


def find_sequence(root_folder: Path, subject: str | None, sequence: str) -> Path:
    """The folder of a sequence: the one of exactly this name, else the only one whose name begins with it."""
    for middle in ("", "sequences"):
        parent = root_folder / (subject or "") / middle
        if (parent / sequence).is_dir():
            return parent / sequence
    raise InputError(f"{root_folder}: has no sequence {sequence}.")
