"""transforms.json."""

from pathlib import Path

from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import read_capture


def transforms_files(root: Path) -> list[Path]:
    """The files that a folder keeps its cameras in."""
    return [root / "transforms.json"] if (root / "transforms.json").is_file() else []


def read_transforms(path: Path) -> Capture:
    """All views of the folder."""
    return read_capture(path)
