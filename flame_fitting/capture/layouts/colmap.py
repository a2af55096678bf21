"""COLMAP's sparse models, text and binary."""

from pathlib import Path

from flame_fitting.capture.capture import Capture


def find_model(root: Path) -> Path | None:
    """The folder of the model that belongs to a folder of pictures; None where there is none."""
    for place in (root, root / "sparse" / "0", root / "sparse", root / "colmap" / "sparse" / "0", root / "0"):
        for suffix in (".bin", ".txt"):
            if (place / f"cameras{suffix}").is_file() and (place / f"images{suffix}").is_file():
                return place
    return None


def read_colmap(root: Path) -> Capture:
    """All registered pictures of a model."""
    raise NotImplementedError
