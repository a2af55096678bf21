"""The .frame files of metrical-tracker and its descendants: what `torch.save` made of a dictionary of arrays."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.parameters import checked_eyelids
from flame_fitting.export.dialects.rotations import axis_angle_from_6d, six_d_from_axis_angle
from flame_fitting.files import atomic_write
from flame_fitting.head.torch_files import read_torch_file


def read_frame(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole dictionary of a .frame file and its part `flame`."""
    content = read_torch_file(path)
    flame = content.get("flame") if isinstance(content, dict) else None
    if not isinstance(flame, dict) or "exp" not in flame or "shape" not in flame:
        raise InputError(f"{path}: not a .frame file of metrical-tracker or Pixel3DMM (it lacks flame, exp or shape).")
    return content, flame


def names_of(path: Path) -> frozenset[str]:
    """Names in the part `flame`, and `opencv` where the file has that camera beside it."""
    content, flame = read_frame(path)
    camera = content.get("opencv")
    seen = isinstance(camera, dict) and {"R", "t"} <= camera.keys()
    return frozenset(str(name) for name in flame) | ({"opencv"} if seen else set())


def foreign_note(dialect: str, flame: dict[str, Any], known: frozenset[str]) -> list[str]:
    """A note that names what stands in `flame` and that the dialect does not have; none where there is nothing."""
    foreign = sorted(str(name) for name in flame if name not in known)
    return [f"{dialect} has no {', '.join(foreign)}: left out, whatever they mean"] if foreign else []


def joint_axis_angle(path: Path, flame: dict[str, Any], name: str, joints: int = 1) -> ndarray | None:
    """(T, 3 * joints) axis-angles of joints that are stored as six numbers each; None where the file has none."""
    if name not in flame:
        return None
    numbers = np.asarray(flame[name], dtype=np.float64)
    if numbers.size == 0 or numbers.size % (6 * joints) or not np.isfinite(numbers).all():
        raise InputError(f"{path}: {name} has shape {numbers.shape}, {6 * joints} finite numbers are expected.")
    return axis_angle_from_6d(numbers.reshape(-1, 6)).reshape(-1, 3 * joints)


def six_d(axis_angles: ndarray) -> ndarray:
    """The inverse: (T, 3 * joints) to (T, 6 * joints)."""
    return six_d_from_axis_angle(axis_angles.reshape(-1, 3)).reshape(len(axis_angles), -1)


def eyelids_of(path: Path, flame: dict[str, Any]) -> ndarray | None:
    """(T, 2)."""
    return checked_eyelids(str(path), flame.get("eyelids"))


def write_frame(content: dict[str, Any], path: Path) -> None:
    """Writes it as torch does, arrays as float32."""
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return value.astype(np.float32) if isinstance(value, ndarray) and value.dtype.kind == "f" else value

    with atomic_write(path) as temporary:
        torch.save(plain(content), temporary)
