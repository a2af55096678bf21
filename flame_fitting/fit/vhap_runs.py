"""VHAP's own run folders: `config.yml` and `tracked_flame_params_<E>.npz`, read as a fit.

A run does not say which head model it used, holds its parameters in a world that may have been turned, and names all
timesteps of the recording even where it tracked some of them (`docs/vhap-users.md`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from flame_fitting.capture.capture import View
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, reason
from flame_fitting.fit.parameters import POSES

CONFIG_NAME = "config.yml"
_ADVICE = "Give the folder of a finished run, with config.yml and tracked_flame_params_<epoch>.npz."
_LARGEST_CONFIG = 1 << 20
"""Bytes; a configuration has a few thousand."""


class _TaglessLoader(yaml.SafeLoader):
    """A safe loader that takes what a Python tag stands before for the plain mapping, list or text that it is."""


def _plain(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_TaglessLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)
_TaglessLoader.add_multi_constructor("!", _plain)


@dataclass(frozen=True)
class RunData:
    """The `data` section of a run's or a fit's config.yml: which pictures were looked at. None: it does not say."""

    root_folder: Path | None = None
    sequence: str | None = None
    subject: str | None = None
    division: str | None = None
    subset: str | None = None
    calibrated: bool | None = None
    align_cameras_to_axes: bool | None = None
    n_downsample_rgb: int | None = None
    scale_factor: float | None = None
    background_color: str | None = None
    use_color_correction: bool | None = None
    heldout_every: int | None = None
    heldout_cameras: tuple[str, ...] = ()
    image_size_during_calibration: tuple[int, int] | None = None
    """Height and width, px."""


@dataclass(eq=False)
class RunParameters:
    """The arrays of one epoch of a run."""

    arrays: dict[str, NDArray[Any]]
    """rotation, translation, neck_pose, jaw_pose (T, 3), eyes_pose (T, 6), shape (S,), expr (T, E), static_offset
    (1, V, 3); (1, 1, 3) where the run has none; dynamic_offset (T, V, 3) where it has."""
    timestep_id: list[str]
    """Of each row."""
    image_size: tuple[int, int]
    focal_length: float | None = None
    """In units of the longer side of a picture; None for calibrated cameras."""
    notes: list[str] = field(default_factory=list)


def read_run_data(folder: Path) -> RunData:
    """What config.yml says of the data; Python tags are passed over, nothing in it is run. Empty without the file.

    Raises InputError where the file is no YAML of a configuration.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        return RunData()
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is far larger than a configuration")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaglessLoader)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a readable configuration ({reason(error)}). {_ADVICE}") from error
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        return RunData()
    return RunData(
        root_folder=_path(data.get("root_folder")),
        **{key: _of(data, key, str) for key in ("sequence", "subject", "division", "subset", "background_color")},
        **{key: _of(data, key, bool) for key in ("calibrated", "align_cameras_to_axes", "use_color_correction")},
        n_downsample_rgb=_of(data, "n_downsample_rgb", int),
        scale_factor=_of(data, "scale_factor", float),
        heldout_every=_of(data, "heldout_every", int),
        heldout_cameras=tuple(name for name in data.get("heldout_cameras") or () if isinstance(name, str)),
        image_size_during_calibration=_size(data.get("image_size_during_calibration")),
    )


def read_run(path: Path, data: RunData) -> RunParameters:
    """One epoch's parameters; InputError where arrays are missing, of other shapes or not finite."""
    wanted = (*POSES, "shape", "expr")
    optional = ("static_offset", "dynamic_offset", "timestep_id", "image_size", "focal_length")
    arrays = read_npz(path, _ADVICE, wanted, optional)
    expr = arrays["expr"]
    steps = len(expr) if expr.ndim == 2 else 0
    arrays["shape"] = arrays["shape"].reshape(-1)
    right = {"expr": steps > 0} | {key: arrays[key].shape == (steps, width) for key, width in POSES.items()}
    if "static_offset" in arrays:
        right["static_offset"] = _is_offset(arrays["static_offset"], 1)
    if "dynamic_offset" in arrays:
        right["dynamic_offset"] = _is_offset(arrays["dynamic_offset"], steps)
    for key in (*wanted, *right):
        values = arrays[key]
        if not right.get(key, True) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(f"{path}: {key} has shape {values.shape}, or numbers that are not finite. {_ADVICE}")
    focal = _focal(path, arrays.pop("focal_length", None))
    size = np.asarray(arrays.pop("image_size", np.zeros(2))).reshape(-1)
    ids = [str(one) for one in np.atleast_1d(arrays.pop("timestep_id", np.arange(steps)))]
    ids, notes = _rows(path, ids, steps, data.subset)
    if "static_offset" not in arrays:
        arrays["static_offset"] = np.zeros((1, 1, 3), dtype=np.float32)
    height, width = (int(size[0]), int(size[1])) if len(size) == 2 else (0, 0)
    return RunParameters(arrays, ids, (height, width), focal, notes)


def aligned_world(views: list[View]) -> NDArray[np.float64]:
    """(4, 4) rotation that VHAP gives the world of a calibrated rig with `align_cameras_to_axes`; the origin stays.

    The mean of the cameras' axes (x right, y down, z forward, one of each camera), made orthonormal in this order,
    becomes x, -y, -z of the new world.
    """
    cameras = {view.camera: view.world_to_camera for view in views}
    axes = np.mean([matrix[:3, :3] for matrix in cameras.values()], axis=0)  # rows are the camera's axes in the world
    x = axes[0] / np.linalg.norm(axes[0])
    y = axes[1] - x * (axes[1] @ x)
    y /= np.linalg.norm(y)
    out = np.eye(4)
    out[:3, :3] = np.stack([x, -y, -np.cross(x, y)])
    return out


def _rows(path: Path, ids: list[str], steps: int, subset: str | None) -> tuple[list[str], list[str]]:
    """The ids of the parameters' rows: a run names all that it found, and has rows for those that it tracked."""
    if len(ids) == steps:
        return ids, []
    if subset and len(chosen := select(subset, list(range(len(ids))), [0])[0]) == steps:
        return [ids[index] for index in chosen], []
    if steps > len(ids):
        raise InputError(f"{path}: has {steps} rows of parameters and names {len(ids)} timesteps. {_ADVICE}")
    note = f"{path}: names {len(ids)} timesteps and has {steps}; they are taken for the first ones."
    return ids[:steps], [note]


def _is_offset(values: NDArray[Any], count: int) -> bool:
    return values.ndim == 3 and values.shape[0] == count and values.shape[2] == 3


def _focal(path: Path, values: NDArray[Any] | None) -> float | None:
    if values is None or values.size == 0:
        return None
    focal = float(np.asarray(values, dtype=np.float64).reshape(-1)[0])
    if not np.isfinite(focal) or focal <= 0:
        raise InputError(f"{path}: focal_length is {focal}. {_ADVICE}")
    return focal


def _path(value: Any) -> Path | None:
    """A path as text, or as its parts, as Python writes one behind a tag."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, str) for part in value):
        return Path(*value)
    return Path(value) if isinstance(value, str) and value else None


def _size(value: Any) -> tuple[int, int] | None:
    whole = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(n) is int and n > 0 for n in value)
    return (value[0], value[1]) if whole else None


def _of(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, kind) and value != "" and (kind is bool or not isinstance(value, bool)) else None
