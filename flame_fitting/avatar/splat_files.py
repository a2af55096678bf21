"""Splats from a file of any kind that holds some: .ply of 3DGS, 2DGS, PlayCanvas and GaussianAvatars, .spz, .splat."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flame_fitting.avatar.bound_splats import Bound, posed_splats
from flame_fitting.avatar.splat_ply import holds_splats, read_splat_ply
from flame_fitting.avatar.splats import Splats, check_count, made_splats, sh_of_colors
from flame_fitting.avatar.spz import read_spz
from flame_fitting.head.model import HeadModel

SPLAT_SUFFIXES = ("splat", "spz")
"""Beside .ply, which may hold either."""
UNREAD_SUFFIXES = ("ksplat", "sog", "lcc")
_RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)])


def is_splat_file(content: bytes, suffix: str) -> bool:
    """Whether a file of this suffix holds splats."""
    return suffix in SPLAT_SUFFIXES or (suffix == "ply" and holds_splats(content))


def read_splats(
    content: bytes, path: Path, suffix: str, note: Callable[[str], None], head: Callable[[], HeadModel] | None = None
) -> Splats:
    """The splats of a file, in its own coordinates and unit; those that are bound to FLAME's faces posed.

    Args:
        note: told in plain words what was left out.
        head: gives the head model that bound splats are posed with; by default the one that `--head auto` means.

    Raises:
        ValueError: the file is damaged.
        InputError: it is whole, but no avatar.
    """
    if suffix == "spz":
        return read_spz(content, path, note)
    if suffix == "splat":
        return _read_records(content, path, note)
    found = read_splat_ply(content, path, note)
    return posed_splats(found, path, note, head) if isinstance(found, Bound) else found


def unread_message(path: Path) -> str:
    """What to say about the formats of splats that are not read."""
    return (
        f"{path}: .{path.suffix.lower().lstrip('.')} splats are not read. Convert it to .ply, for example with "
        "SuperSplat or npx @playcanvas/splat-transform."
    )


def _read_records(content: bytes, path: Path, note: Callable[[str], None]) -> Splats:
    """antimatter15's .splat: 32 bytes each, centre, standard deviations, colour with opacity, rotation."""
    if len(content) % _RECORD.itemsize:
        raise ValueError(f"its {len(content)} bytes are not whole splats of {_RECORD.itemsize}")
    rows = np.frombuffer(content, dtype=_RECORD)
    check_count(len(rows), path)
    colors = rows["color"] / 255.0
    quats = (rows["rotation"].astype(np.float64) - 128.0) / 128.0
    return made_splats(
        path, note, rows["mean"], rows["scale"], quats, colors[:, 3], sh_of_colors(colors[:, :3])[:, None]
    )
