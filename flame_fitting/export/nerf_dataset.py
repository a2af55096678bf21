"""The NeRF-style dataset that GaussianAvatars and its relatives read, as VHAP lays it out.

    transforms.json, transforms_train.json, transforms_val.json, transforms_test.json
    images/<timestep:05d>_<camera:02d>.png   fg_masks/ (same names)
    flame_param/<timestep:05d>.npz, canonical_flame_param.npz      (flame mode "param")
    meshes/<timestep:05d>.obj, flame/exp/<timestep:05d>.txt, canonical.obj      (flame mode "mesh")

The dataset's world is head space: metres, +Y up, face toward +Z. Cameras are moved there by `head_from_world`, so they
stay rigid motions. `cy` is measured from the top.
"""

import json
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from flame_fitting.capture.camera import move_camera, opengl_camera_to_world
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.files import INTRINSIC_KEYS, intrinsics_as_dict
from flame_fitting.capture.pictures import picture_as_uint8, replace_background, to_uint8, write_png
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from flame_fitting.export.neck_line import NeckCut, neck_cut
from flame_fitting.export.obj import write_obj
from flame_fitting.fit.parameters import POSES
from flame_fitting.fit.result import FitResult
from flame_fitting.folders import staged_folder
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.manifest import Manifest

SPLITS = ("train", "val", "test")
CANONICAL_JAW = 0.3  # rad: the mouth slightly open, as VHAP's canonical head
VAL_EVERY = 8
WORLD_UP = (0.0, 1.0, 0.0)  # instant-ngp reads it; it takes +Z else
TRAIN_RATIO = 0.7  # part of the timesteps that are not for testing, where there are several

# FLAME's topology without and with VHAP's teeth: what GaussianAvatars binds its Gaussians to.
_FLAME_TOPOLOGIES = {(5023, 9976), (5143, 10144)}
_FLAME_SHAPE, _FLAME_EXPR = 300, 100

_OUR_ENTRIES = (
    *("images", "fg_masks", "flame_param", "canonical_flame_param.npz", "canonical.obj", "meshes", "flame"),
    *("transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json"),
)


@dataclass(frozen=True)
class ExportOptions:
    """What may be chosen about a dataset."""

    background_color: tuple[float, float, float] | None = None
    """sRGB 0..1; None keeps the capture's."""
    subset: str | None = None
    """VHAP's subset grammar, see `subset.select`."""
    scale_factor: float | None = None
    """Pictures are scaled by this, 0 < factor <= 1."""
    flame_mode: Literal["param", "mesh"] = "param"
    mask_below_line: bool = True
    """Whether pictures and masks are cut below the neck line."""
    landmark_views: bool = False
    """Whether the views made for landmark detection are exported too (for training)."""


@dataclass
class ExportSummary:
    """What an export wrote."""

    folder: Path
    counts: dict[str, int]
    """Pictures in each split."""
    opens_in: str
    """One line for the user: which programs read this dataset."""
    warnings: list[str]


@dataclass(frozen=True)
class _Frame:
    view: View
    timestep_index: int
    camera_index: int
    row: int
    split: str


def export_nerf_dataset(
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    target: Path,
    options: ExportOptions | None = None,
    force: bool = False,
    manifest: Manifest | None = None,
    progress: Callable[[int, int], None] | None = None,
    plan: Callable[[], Manifest] | None = None,
) -> ExportSummary:
    """Writes the dataset of a fit to the folder `target`, which appears whole or not at all.

    `progress` is called with the number of pictures written and their total. `plan` makes the manifest anew, to see
    whether an input has changed.
    """
    options = options or ExportOptions()
    if options.scale_factor is not None and not 0 < options.scale_factor <= 1:
        raise InputError(f"--scale-factor {options.scale_factor}: must be above 0 and at most 1.")
    frames = _plan(fit, capture, options)
    warnings = []
    vertices = fit.vertices_head(head)
    cuts = [neck_cut(head, vertices[t], _neck_up(fit, t)) for t in range(len(vertices))]
    if options.mask_below_line and cuts and cuts[0] is None:
        warnings.append(f"The head model {head.name} has no neck points; pictures are not cut below the neck line.")
    with staged_folder(target, force, stale=_OUR_ENTRIES) as folder:
        entries = _write_pictures(folder, fit, capture, frames, cuts, options, progress)
        if options.flame_mode == "param":
            _write_parameters(folder, fit, head, frames)
        else:
            _write_meshes(folder, fit, head, frames, vertices)
        _write_transforms(folder, fit, frames, entries, options)
        if manifest is not None:
            manifest.transforms["head_from_world"] = fit.head_from_world.tolist()
            warnings += manifest.finish(plan or (lambda: manifest))
            manifest.write(folder)
    warnings += _camera_warnings(entries) if is_flame(head) else []
    counts = {split: sum(frame.split == split for frame in frames) for split in SPLITS}
    return ExportSummary(Path(target), counts, _opens_in(head, options), warnings)


def is_flame(head: HeadModel) -> bool:
    """Whether the head has FLAME's vertices and faces, which GaussianAvatars needs."""
    return (head.n_vertices, head.faces.shape[0]) in _FLAME_TOPOLOGIES


def split_cameras(fit_cameras: list[int], heldout_cameras: list[int]) -> dict[int, str]:
    """Split by camera of a static avatar: every 8th fit view (the last one, where there are fewer) validates."""
    split = dict.fromkeys(heldout_cameras, "test")
    validation = fit_cameras[VAL_EVERY - 1 :: VAL_EVERY] or fit_cameras[1:][-1:]
    return split | {camera: "val" if camera in validation else "train" for camera in fit_cameras}


def split_timesteps(timesteps: list[int], cameras: list[int]) -> Callable[[int, int], str]:
    """VHAP's split over time: the last 30 % of the timesteps test, one camera (8, else the last) validates."""
    trained = set(timesteps[: math.ceil(TRAIN_RATIO * len(timesteps))])
    validating = None if len(cameras) < 2 else 8 if 8 in cameras else cameras[-1]

    def split(timestep: int, camera: int) -> str:
        return "test" if timestep not in trained else "val" if camera == validating else "train"

    return split


def flame_parameters(fit: FitResult, head: HeadModel, row: int) -> dict[str, NDArray[np.float32]]:
    """One timestep's parameters with VHAP's keys and shapes, leading dimension 1 except `shape`."""
    p = fit.parameters
    out = {key: p[key][row : row + 1] for key in POSES}
    out["shape"], out["expr"] = p["shape"], p["expr"][row : row + 1]
    out["static_offset"] = p["static_offset"]
    if is_flame(head):  # its readers expect the full bases
        out["shape"] = _padded(out["shape"], _FLAME_SHAPE)
        out["expr"] = _padded(out["expr"], _FLAME_EXPR)
    return {key: np.asarray(value, dtype=np.float32) for key, value in out.items()}


def canonical_parameters(fit: FitResult, head: HeadModel) -> dict[str, NDArray[np.float32]]:
    """The neutral head with the fitted shape and offsets and the jaw slightly open."""
    out = {key: np.zeros_like(value) for key, value in flame_parameters(fit, head, 0).items()}
    fitted = flame_parameters(fit, head, 0)
    out |= {"shape": fitted["shape"], "static_offset": fitted["static_offset"]}
    out["jaw_pose"] = np.array([[CANONICAL_JAW, 0, 0]], dtype=np.float32)
    return out


def _plan(fit: FitResult, capture: Capture, options: ExportOptions) -> list[_Frame]:
    roles: list[Any] = ["fit", "heldout"] + (["landmark"] if options.landmark_views else [])
    views = capture.views_of(*roles)
    if not views:
        raise InputError(f"{capture.root}: has no fit views to export. Render the avatar again.")
    steps = len(fit.parameters["expr"])
    if steps != len(capture.timesteps):
        raise InputError(
            f"{fit.folder}: the fit has {steps} timesteps, its capture {capture.root} has {len(capture.timesteps)}."
            " Fit the capture again."
        )
    order = {"fit": 0, "heldout": 1, "landmark": 2}
    role_of = {view.camera: view.role for view in reversed(views)}
    cameras = sorted(role_of, key=lambda camera: (order[role_of[camera]], camera))
    numbers = {camera: index for index, camera in enumerate(cameras)}
    if steps > 1:
        by_time = split_timesteps(capture.timesteps, cameras)
    else:
        of_role = {role: [c for c in cameras if role_of[c] == role] for role in order}
        by_camera = split_cameras(of_role["fit"], of_role["heldout"]) | dict.fromkeys(of_role["landmark"], "train")
    timesteps, chosen = select(options.subset, list(capture.timesteps), cameras)
    indices = {timestep: index for index, timestep in enumerate(timesteps)}
    return [
        _Frame(
            view=view,
            timestep_index=indices[view.timestep],
            camera_index=numbers[view.camera],
            row=capture.timesteps.index(view.timestep),
            split=by_time(view.timestep, view.camera) if steps > 1 else by_camera[view.camera],
        )
        for view in sorted(views, key=lambda view: (view.timestep, numbers[view.camera]))
        if view.timestep in indices and view.camera in chosen
    ]


def _write_pictures(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    frames: list[_Frame],
    cuts: list[NeckCut | None],
    options: ExportOptions,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    for name in ("images", "fg_masks"):
        (folder / name).mkdir()

    def write(frame: _Frame) -> dict[str, Any]:
        view = _in_head_space(frame.view, fit.head_from_world)
        image, alpha = capture.image(frame.view), capture.alpha(frame.view)
        image, alpha, view = _scaled(image, alpha, view, options.scale_factor)
        cut = cuts[frame.row] if options.mask_below_line else None
        above = None if cut is None else cut.keep(view.K, view.world_to_camera, view.width, view.height)
        new = options.background_color or capture.background_color
        image, mask = replace_background(image, alpha, capture.background_color, new, above)
        name = f"{frame.timestep_index:05d}_{frame.camera_index:02d}.png"
        write_png(folder / "images" / name, picture_as_uint8(image))
        write_png(folder / "fg_masks" / name, to_uint8(mask))
        return _entry(fit, frame, view, name, options)

    entries = []
    with ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1))) as pool:
        jobs: list[Future[dict[str, Any]]] = [pool.submit(write, frame) for frame in frames]
        try:
            for done, job in enumerate(jobs, start=1):
                entries.append(job.result())
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return entries


def _in_head_space(view: View, head_from_world: NDArray[np.float64]) -> View:
    return replace(view, world_to_camera=move_camera(view.world_to_camera, head_from_world))


def _scaled(
    image: NDArray[np.float32], alpha: NDArray[np.float32], view: View, factor: float | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], View]:
    if factor is None or factor == 1:
        return image, alpha, view
    import cv2

    width, height = max(1, round(view.width * factor)), max(1, round(view.height * factor))
    K = np.diag([width / view.width, height / view.height, 1.0]) @ view.K
    small = cv2.resize(image.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA)
    scaled = replace(view, K=K, width=width, height=height)
    return np.ascontiguousarray(small.transpose(2, 0, 1)), np.asarray(mask, dtype=np.float32), scaled


def _entry(fit: FitResult, frame: _Frame, view: View, name: str, options: ExportOptions) -> dict[str, Any]:
    stem = f"{frame.timestep_index:05d}"
    entry: dict[str, Any] = {
        "timestep_index": frame.timestep_index,
        "timestep_index_original": frame.row,
        "timestep_id": fit.timestep_id[frame.row] if frame.row < len(fit.timestep_id) else stem,
        "camera_index": frame.camera_index,
        "camera_id": f"{frame.view.camera:02d}",
        **_intrinsics(view),
        "transform_matrix": opengl_camera_to_world(view.world_to_camera).tolist(),
        "file_path": f"images/{name}",
        "fg_mask_path": f"fg_masks/{name}",
    }
    if options.flame_mode == "param":
        entry["flame_param_path"] = f"flame_param/{stem}.npz"
    else:
        entry["mesh_path"], entry["exp_path"] = f"meshes/{stem}.obj", f"flame/exp/{stem}.txt"
    return entry


def _intrinsics(view: View) -> dict[str, float]:
    values = intrinsics_as_dict(view.K, view.width, view.height)
    values["camera_angle_x"] = 2 * math.atan(0.5 * view.width / values["fl_x"])
    values["camera_angle_y"] = 2 * math.atan(0.5 * view.height / values["fl_y"])
    return values


def _write_transforms(
    folder: Path, fit: FitResult, frames: list[_Frame], entries: list[dict[str, Any]], options: ExportOptions
) -> None:
    provenance = {
        "world": "head space: metres, right-handed, +Y up, face toward +Z",
        "head_from_world": fit.head_from_world.tolist(),
        "head_model": {"name": fit.head_name, "sha256": fit.head_hash} | fit.head_identity,
        "scale_source": fit.scale_source,
        "mask_below_line": options.mask_below_line,
    }
    by_split = {split: [e for e, f in zip(entries, frames, strict=True) if f.split == split] for split in SPLITS}
    for split, chosen in {"": entries, **by_split}.items():
        data: dict[str, Any] = {"camera_model": "PINHOLE", "up": list(WORLD_UP)}
        # A key at the top level hides the frames' own from nerfstudio, so it must hold for every frame of the dataset.
        for key in (*INTRINSIC_KEYS, "camera_angle_x", "camera_angle_y"):
            if all(entry[key] == entries[0][key] for entry in entries):
                data[key] = entries[0][key]
        data["timestep_indices"] = sorted({entry["timestep_index"] for entry in chosen})
        data["camera_indices"] = sorted({entry["camera_index"] for entry in chosen})
        if not split:
            names = {name: [entry["file_path"] for entry in part] for name, part in by_split.items()}
            names = {name: part or names["test"] or names["train"] for name, part in names.items()}
            data |= {f"{name}_filenames": part for name, part in names.items()}
        data["provenance"] = provenance
        data["frames"] = chosen
        path = folder / (f"transforms_{split}.json" if split else "transforms.json")
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_parameters(folder: Path, fit: FitResult, head: HeadModel, frames: list[_Frame]) -> None:
    (folder / "flame_param").mkdir()
    for index, row in sorted({frame.timestep_index: frame.row for frame in frames}.items()):
        np.savez(folder / "flame_param" / f"{index:05d}.npz", **flame_parameters(fit, head, row))  # type: ignore[arg-type]
    np.savez(folder / "canonical_flame_param.npz", **canonical_parameters(fit, head))  # type: ignore[arg-type]


def _write_meshes(
    folder: Path, fit: FitResult, head: HeadModel, frames: list[_Frame], vertices: NDArray[np.float64]
) -> None:
    faces = head.faces.cpu().numpy()
    (folder / "flame" / "exp").mkdir(parents=True)
    (folder / "meshes").mkdir()
    for index, row in sorted({frame.timestep_index: frame.row for frame in frames}.items()):
        write_obj(folder / "meshes" / f"{index:05d}.obj", vertices[row], faces)
        np.savetxt(folder / "flame" / "exp" / f"{index:05d}.txt", fit.parameters["expr"][row], fmt="%.9g")
    with torch.no_grad():
        rest = {
            "shape": fit.parameters["shape"],
            "static_offset": fit.parameters["static_offset"],
            "jaw_pose": np.array([[CANONICAL_JAW, 0, 0]]),
        }
        posed = head(**{key: torch.as_tensor(value).to(head.v_template) for key, value in rest.items()})
    write_obj(folder / "canonical.obj", posed.vertices[0].double().cpu().numpy(), faces)


def _neck_up(fit: FitResult, row: int) -> NDArray[np.float64]:
    rotation = torch.as_tensor(np.asarray(fit.parameters["rotation"][row], dtype=np.float64))
    return rotation_matrix(rotation)[:, 1].numpy()


def _padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    missing = max(0, size - values.shape[-1])
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _camera_warnings(entries: list[dict[str, Any]]) -> list[str]:
    off = [
        e
        for e in entries
        if abs(e["cx"] - e["w"] / 2) > 0.5 or abs(e["cy"] - e["h"] / 2) > 0.5 or abs(e["fl_x"] / e["fl_y"] - 1) > 1e-3
    ]
    if not off:
        return []
    text = "have an off-centre principal point or pixels that are not square, which GaussianAvatars ignores"
    return [f"{len(off)} of {len(entries)} cameras {text}; other programs read them right."]


# given a folder, instant-ngp trains on every .json in it, that of the test views too
_OTHERS = "nerfstudio and instant-ngp (give it transforms_train.json)"


def _opens_in(head: HeadModel, options: ExportOptions) -> str:
    if is_flame(head) and options.flame_mode == "param":
        return f"The dataset opens in GaussianAvatars, {_OTHERS}."
    if is_flame(head):
        return f"The dataset opens in {_OTHERS}; GaussianAvatars needs --flame-mode param."
    return (
        f"The dataset opens in {_OTHERS}, but not in GaussianAvatars, which needs FLAME: "
        f"it was fitted with the head model '{head.name}'."
    )
