"""A finished fit and its folder: `tracked_flame_params.npz` with VHAP's keys, texture, landmarks, checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flame_fitting.capture.camera import transform_points
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, open_npz, read_npz, read_picture, reason
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, load_checkpoint
from flame_fitting.fit.parameters import OPTIONAL_KEYS, PARAMETER_KEYS, PARAMETERS, POSES
from flame_fitting.fit.places import FLAT_NAME, epochs_of, find_fit_folder
from flame_fitting.fit.state import StageRecord
from flame_fitting.fit.vhap_runs import read_run, read_run_data
from flame_fitting.head.model import HeadModel, HeadOutput

FIT_AGAIN = "Run again: flame-fitting fit"

_POSED = 64
"""Timesteps that are posed at once: a posed head of many timesteps takes far more memory than its vertices."""


@dataclass(eq=False)
class FitResult:
    """Parameters of a fitted head and all that is needed to draw it over its capture."""

    head_name: str
    head_hash: str
    """Of the model's file; empty where the result does not say (VHAP's runs)."""
    parameters: dict[str, np.ndarray]
    """VHAP's keys: rotation, translation, neck_pose and jaw_pose (T, 3), eyes_pose (T, 6), shape (S,), expr (T, E),
    static_offset (1, V, 3), and where there are some dynamic_offset (T, V, 3), eyelids (T, 2); radians and metres."""
    head_from_world: np.ndarray
    """(4, 4) similarity from the avatar's coordinates to head space."""
    image_size: tuple[int, int]
    """(H, W) px of the fit views."""
    timestep_id: list[str]
    texture: np.ndarray | None = None
    """(R, R, 3) uint8 sRGB albedo."""
    lights: np.ndarray | None = None
    """(9, 3) SH coefficients in head space, None when unlit."""
    landmarks3d: dict[str, np.ndarray] = field(default_factory=dict)
    """points (T, N, 3) world, spread_mm (T, N), model (T, N, 3) world, used (T, N) bool, scheme."""
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    """Standard deviations of parameters, each in its own shape and unit; NaN where a coefficient was not estimated."""
    stages: list[StageRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    active: list[str] | None = None
    """What of the face is not at rest by its evidence, in words; None: not looked for."""
    scale_source: str = "estimated"
    scale_by_face: float | None = None
    """Metres per unit that the face alone suggested before a unit was looked for; None where that was not done."""
    seconds: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None
    head_identity: dict[str, str] = field(default_factory=dict)
    """What tells the head model from others (`head.loading.head_identity`); empty in older results."""
    focal_length: float | None = None
    """Of the one camera of a monocular capture, in units of the longer side of its picture; None: cameras are known."""
    capture: Path | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.timestep_id)

    def vertices_head(self, head: HeadModel, rows: Sequence[int] | None = None) -> np.ndarray:
        """(T, V, 3) in head space, metres; of some rows where they are given."""
        chosen = list(range(self.timesteps) if rows is None else rows)
        parts = [self.of_rows(chosen[start : start + _POSED]) for start in range(0, len(chosen), _POSED)]
        return np.concatenate([part._posed(head) for part in parts])

    def _posed(self, head: HeadModel) -> np.ndarray:
        return self.posed(head).vertices.double().cpu().numpy()

    def posed(self, head: HeadModel) -> HeadOutput:
        """Vertices and joints of all timesteps at once, head space, as the head model gives them."""
        with torch.no_grad():
            tensors = {key: torch.as_tensor(value).to(head.v_template) for key, value in self.parameters.items()}
            if (moving := tensors.pop("dynamic_offset", None)) is not None:
                tensors["static_offset"] = tensors["static_offset"] + moving
            return head(**tensors)

    def vertices_world(self, head: HeadModel, rows: Sequence[int] | None = None) -> np.ndarray:
        """(T, V, 3) in the avatar's coordinates; of some rows where they are given."""
        return transform_points(np.linalg.inv(self.head_from_world), self.vertices_head(head, rows))

    @property
    def mm_per_unit(self) -> float:
        """Head-space millimetres for one unit of the avatar."""
        return float(1000 * np.cbrt(np.linalg.det(self.head_from_world[:3, :3])))

    def without_offsets(self) -> "FitResult":
        """The same fit with offsets of zero."""
        bare = self.parameters | {"static_offset": np.zeros_like(self.parameters["static_offset"])}
        bare.pop("dynamic_offset", None)
        return replace(self, parameters=bare)

    def of_rows(self, rows: Sequence[int]) -> "FitResult":
        """The timesteps `rows`, in this order."""
        steps = len(self.parameters["expr"])
        if list(rows) == list(range(steps)):
            return self
        chosen, frames = list(rows), {p.name for p in PARAMETERS if p.role == "frame"}
        parameters = {
            key: value[chosen] if key in frames or (key == "static_offset" and len(value) == steps > 1) else value
            for key, value in self.parameters.items()
        }
        marks = {k: v[chosen] if v.ndim >= 2 and len(v) == steps else v for k, v in self.landmarks3d.items()}
        ids = [self.timestep_id[row] for row in chosen]
        return replace(self, parameters=parameters, timestep_id=ids, landmarks3d=marks)


def save_parameters(path: Path, result: FitResult) -> None:
    """Writes `tracked_flame_params.npz`: VHAP's keys, `head_from_world` and `head_model`."""
    arrays: dict[str, Any] = {key: value.astype(np.float32) for key, value in _held(result.parameters).items()}
    arrays["timestep_id"] = np.array(result.timestep_id)
    arrays["n_processed_frames"] = np.array(len(result.timestep_id))
    arrays["image_size"] = np.array(result.image_size)
    arrays["head_from_world"] = result.head_from_world
    arrays["head_model"] = np.array([result.head_name, result.head_hash])
    arrays["head_identity"] = np.array(json.dumps(result.head_identity))
    arrays["scale_source"] = np.array(result.scale_source)
    if result.focal_length is not None:
        arrays["focal_length"] = np.array([result.focal_length], dtype=np.float32)
    if result.lights is not None:
        arrays["lights"] = result.lights.astype(np.float32)
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


def save_uncertainty(path: Path, result: FitResult) -> None:
    """Writes `uncertainty.npz`: one array for each parameter that was estimated, and `units` (JSON)."""
    units = {p.name: p.unit for p in PARAMETERS if p.name in result.uncertainty}
    with atomic_write(path) as temporary:
        np.savez(temporary, **result.uncertainty, units=np.array(json.dumps(units)))  # type: ignore[arg-type]


def load_fit(folder: Path | str) -> FitResult:
    """Reads a fit folder, or a run folder of VHAP (its last epoch); or the last time-stamped child of the folder."""
    folder = find_fit_folder(Path(folder))
    path = folder / FLAT_NAME
    if not path.is_file():
        epoch, path = list(epochs_of(folder).items())[-1]
        if not is_own_file(path):
            return load_run(folder, epoch)
    arrays = read_npz(path, FIT_AGAIN)
    parameters, head_from_world = checked_parameters(path, arrays)
    try:
        name, digest = (str(a) for a in arrays["head_model"])
        result = FitResult(
            head_name=name,
            head_hash=digest,
            parameters=parameters,
            head_from_world=head_from_world,
            image_size=(int(arrays["image_size"][0]), int(arrays["image_size"][1])),
            timestep_id=[str(t) for t in arrays["timestep_id"]],
            lights=arrays.get("lights"),
            head_identity={str(k): str(v) for k, v in json.loads(str(arrays.get("head_identity", "{}"))).items()},
            scale_source=str(arrays.get("scale_source", "estimated")),
            focal_length=float(arrays["focal_length"].reshape(-1)[0]) if "focal_length" in arrays else None,
            folder=folder,
        )
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a fit's parameter file ({reason(error)}). {FIT_AGAIN}") from error
    if len(result.timestep_id) != len(parameters["expr"]):
        count = len(result.timestep_id)
        raise InputError(f"{path}: names {count} timesteps and holds {len(parameters['expr'])}. {FIT_AGAIN}")
    if (folder / "texture.png").is_file():
        result.texture = read_picture(folder / "texture.png", "RGB", FIT_AGAIN)
        if result.texture.shape[0] != result.texture.shape[1]:
            raise InputError(f"{folder / 'texture.png'}: is not square. {FIT_AGAIN}")
    if (folder / "landmarks3d.npz").is_file():
        result.landmarks3d = _landmarks3d(folder / "landmarks3d.npz", len(parameters["expr"]))
    if (folder / "uncertainty.npz").is_file():
        result.uncertainty = _uncertainty(folder / "uncertainty.npz", parameters)
    _load_checkpoint(folder, result)
    return result


def load_run(folder: Path, epoch: int) -> FitResult:
    """One epoch of a run folder of VHAP. Its head model is not known, `head_from_world` is the identity."""
    path = folder / f"tracked_flame_params_{epoch}.npz"
    run = read_run(path, read_run_data(folder))
    return FitResult(
        head_name="",
        head_hash="",
        parameters=run.arrays,
        head_from_world=np.eye(4),
        image_size=run.image_size,
        timestep_id=run.timestep_id,
        focal_length=run.focal_length,
        warnings=run.notes,
        scale_source="tracked",
        folder=folder,
    )


def is_own_file(path: Path) -> bool:
    """Whether a parameter file is this program's: those of VHAP name no head model."""
    with open_npz(path, FIT_AGAIN) as file:
        return "head_model" in file.files


def checked_parameters(path: Path, arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The head's parameters and `head_from_world` (4, 4) among the arrays of a parameter file.

    Raises InputError where one is missing, has another shape than a fit writes, or is not finite.
    """
    wanted = (*PARAMETER_KEYS, "head_from_world", "head_model", "image_size", "timestep_id")
    if missing := [key for key in wanted if key not in arrays]:
        other = "" if "head_model" in arrays else " Parameters of another program are read by: flame-fitting convert"
        raise InputError(f"{path}: lacks {', '.join(missing)}: not the parameter file of a fit. {FIT_AGAIN}{other}")
    steps = arrays["expr"].shape[0] if arrays["expr"].ndim == 2 else 0
    right = {"expr": steps > 0, "shape": arrays["shape"].ndim == 1}
    right |= {key: arrays[key].shape == (steps, width) for key, width in POSES.items()}
    offset, matrix = arrays["static_offset"], arrays["head_from_world"]
    right["static_offset"] = offset.ndim == 3 and offset.shape[0] in (1, steps) and offset.shape[2] == 3
    if "dynamic_offset" in arrays:
        right["dynamic_offset"] = arrays["dynamic_offset"].shape == (steps, *offset.shape[1:])
    if "eyelids" in arrays:
        right["eyelids"] = arrays["eyelids"].shape == (steps, 2)
    right["head_from_world"] = matrix.shape == (4, 4)
    for key, good in right.items():
        values = arrays[key]
        if not good or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            found = f"{key} has shape {values.shape} of {values.dtype}, or numbers that are not finite"
            raise InputError(f"{path}: {found}: not what a fit writes. {FIT_AGAIN}")
    if np.linalg.det(matrix[:3, :3]) <= 0:
        raise InputError(f"{path}: head_from_world has no size or mirrors. {FIT_AGAIN}")
    return _held(arrays), matrix.astype(np.float64)


def _held(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What of a head a parameter file holds; dynamic offsets and eyelids only where there are some."""
    return {key: arrays[key] for key in (*PARAMETER_KEYS, *OPTIONAL_KEYS) if key in arrays}


def _landmarks3d(path: Path, steps: int) -> dict[str, np.ndarray]:
    arrays = read_npz(path, FIT_AGAIN)
    points, model = arrays.get("points"), arrays.get("model")
    shape = None if points is None else points.shape
    if points is None or model is None or points.ndim != 3 or points.shape != model.shape or len(points) != steps:
        raise InputError(f"{path}: points have shape {shape}, ({steps}, N, 3) and a model are expected. {FIT_AGAIN}")
    return arrays


def _uncertainty(path: Path, parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = read_npz(path, FIT_AGAIN)
    shapes = {key: value.shape for key, value in parameters.items()} | {"placement": (7,), "log_focal": (1,)}
    found = {key: value for key, value in arrays.items() if key != "units"}
    for key, value in found.items():
        if value.shape != shapes.get(key) or value.dtype.kind != "f" or (value < 0).any():
            raise InputError(f"{path}: {key} has no standard deviations of a parameter of the fit. {FIT_AGAIN}")
    return found


def _load_checkpoint(folder: Path, result: FitResult) -> None:
    """Stages, warnings and times, where the folder has them."""
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return
    checkpoint = load_checkpoint(path)
    state = checkpoint.state
    result.stages, result.warnings, result.seconds = list(state.records), list(state.warnings), checkpoint.seconds
    result.scale_by_face = state.scale.estimate
    result.active = None if state.active is None else list(state.active)


_HOW_TO_MATCH = {
    "teeth": "Give --model.add_teeth or --model.no_add_teeth as the fit had it.",
    "masks": "Give the fit's masks file with --flame-masks, or none where it had none.",
    "uv": "Its texture has another layout: put the fit's head_template_mesh.obj or FLAME_texture.npz beside the model.",
}


def check_head(result: FitResult, head: HeadModel) -> None:
    """Refuses to pose a model with another model's parameters, or with another choice of teeth, masks or UV."""
    if result.head_hash and result.head_hash != head.file_hash:
        if head.name != result.head_name:
            what = f"with the head model {result.head_name}, but {head.name} is loaded now"
        else:
            what = f"with another file of the head model {result.head_name} than is loaded now"
        raise InputError(f"{result.folder}: was fitted {what}. Fit again, or give that file with --head.")
    for key, how in _HOW_TO_MATCH.items():
        then, now = result.head_identity.get(key), head.identity.get(key)
        if result.head_identity and then != now:
            raise InputError(
                f"{result.folder}: was fitted with the head model {result.head_name} with {key}: {then or 'none'}, but "
                f"{key}: {now or 'none'} is loaded now. {how} Or fit again."
            )
    count = result.parameters["static_offset"].shape[-2]
    if count != head.n_vertices:
        raise InputError(
            f"{result.folder}: has {count} vertices, the head model {head.name} has {head.n_vertices}. Fit again."
        )
