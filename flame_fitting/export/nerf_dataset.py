"""The NeRF-style dataset that GaussianAvatars and its relatives read, as VHAP lays it out.

    transforms.json, transforms_train.json, transforms_val.json, transforms_test.json
    images/<timestep:05d>_<camera:02d>.png   fg_masks/ (same names)
    flame_param/<timestep:05d>.npz, canonical_flame_param.npz      (flame mode "param")
    points3d.ply        the fitted vertices, coloured: what nerfstudio and 3D Gaussian Splatting begin with
    images/<name>.png.alpha.png         the alpha of a picture as instant-ngp decodes it
    meshes/<timestep:05d>.obj, flame/exp/<timestep:05d>.txt, canonical.obj      (flame mode "mesh")

The world of a static avatar's dataset is head space: metres, +Y up, face toward +Z. Over time it is the frame that the
head moves in (`head_from_world` of the fit), recentred as VHAP does: the mean of the fit's translations is taken from
all of them and from the cameras. Cameras stay rigid motions. `cy` is measured from the top.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.export.bust_views import bust_views
from flame_fitting.export.flame_files import is_flame, write_meshes, write_parameters
from flame_fitting.export.frame_pictures import PictureWork, background, write_pictures
from flame_fitting.export.frames import Frame, plan_frames, scaled_size
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.neck_surface import NeckSurface, above_neck
from flame_fitting.export.options import FormatOptions
from flame_fitting.export.ply import write_ply
from flame_fitting.export.splits import SPLITS
from flame_fitting.export.surface_points import vertex_points
from flame_fitting.export.transforms_files import DATASET_ENTRIES, POINTS_NAME, write_transforms
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix


def write_vhap(job: ExportJob) -> ExportSummary:
    """Writes the dataset of a fit as the format `vhap`."""
    fit, capture, head, options = job.fit, job.capture, job.head, job.options
    _check(fit, capture, options)
    frames = plan_frames(capture, options.subset, options.landmark_views, options.train_ratio, options.val_camera)
    rows = dict(sorted({frame.timestep_index: frame.row for frame in frames}.items()))
    for frame in frames:
        scaled_size(frame.view, options.scale_factor)  # refused before anything is written
    color = background(options.background_color)
    warnings = background_warnings(capture, frames, color)
    surface = neck_surface(fit, head, warnings) if options.cuts else None
    moved, dataset_from_world = recentred(fit, options.recenter)
    work = PictureWork(
        dataset_from_world=dataset_from_world,
        background_color=color or capture.background_color,
        scale_factor=options.scale_factor,
        is_mesh=options.flame_mode == "mesh",
    )
    views = bust_views(capture, frames, dataset_from_world, moved, head, surface)
    frames = views.frames
    warnings += views.said()
    job.bar.expect(len(frames))
    with job.folder(DATASET_ENTRIES) as folder:
        entries = write_pictures(
            folder, capture, views, work, moved, head, surface, lambda done, total: job.bar.advance()
        )
        (write_meshes if work.is_mesh else write_parameters)(folder, moved, head, rows)
        write_points(folder, moved, head, frames[0].row, surface)
        provenance = _provenance(fit, dataset_from_world, options)
        splits = [frame.split for frame in frames]
        stands = capture.composited and all(frame.view.mask_path is not None for frame in frames)
        behind = work.background_color if stands else None
        write_transforms(folder, entries, splits, _up(moved), provenance, POINTS_NAME, behind)
        job.manifest.transforms["dataset_from_world"] = dataset_from_world.tolist()
        job.manifest.result["left_out"] = [frame.name for frame in views.left_out]
    warnings += job.warnings
    warnings += _camera_warnings(entries) if is_flame(head) else []
    counts: dict[str, int] = {split: sum(frame.split == split for frame in frames) for split in SPLITS}
    written = ", ".join(f"{count} {split}" for split, count in counts.items()) + " views"
    return ExportSummary(job.target, written, _opens_in(head, options), warnings, counts)


def _check(fit: FitResult, capture: Capture, options: FormatOptions) -> None:
    if options.scale_factor is not None and not 0 < options.scale_factor <= 1:
        raise InputError(f"--scale-factor {options.scale_factor}: must be above 0 and at most 1.")
    if not 0 < options.train_ratio <= 1:
        raise InputError(f"--train-ratio {options.train_ratio}: must be above 0 and at most 1.")
    steps = len(fit.parameters["expr"])
    if steps != len(capture.timesteps):
        raise InputError(
            f"{fit.folder}: the fit has {steps} timesteps, its capture {capture.root} has {len(capture.timesteps)}."
            " Fit the capture again."
        )


def neck_surface(fit: FitResult, head: HeadModel, warnings: list[str]) -> NeckSurface | None:
    """What cuts the necks of a fit; None, and a warning, where the head model does not say where its neck ends."""
    try:
        return NeckSurface(head, fit.parameters["shape"], fit.parameters["static_offset"][:1])
    except ValueError:
        warnings.append(f"The head model {head.name} has no neck points; pictures are not cut below the neck.")
        return None


def recentred(fit: FitResult, recenter: bool) -> tuple[FitResult, NDArray[np.float64]]:
    """The fit in the dataset's world, and `dataset_from_world` (4, 4).

    The mean is over all timesteps of the fit, so that parts of it have one world. A static avatar stays in head space.
    """
    translation = fit.parameters["translation"].astype(np.float64)
    if not recenter or len(translation) < 2:
        return fit, fit.head_from_world
    mean = translation.mean(axis=0)
    back = np.eye(4)
    back[:3, 3] = -mean
    moved = replace(fit, parameters=fit.parameters | {"translation": translation - mean})
    return moved, back @ fit.head_from_world


def write_points(folder: Path, moved: FitResult, head: HeadModel, row: int, surface: NeckSurface | None) -> None:
    """The fitted vertices of a timestep, coloured, above the cut through the neck; what splats begin with."""
    points = vertex_points(head, moved.vertices_head(head, [row])[0], moved.texture)
    points = points.chosen(above_neck(points.xyz, surface, moved, row))
    write_ply(folder / POINTS_NAME, points.xyz, None, points.normals, points.rgb)


def _up(fit: FitResult) -> list[float]:
    """The head's upward direction, mean over time, in the dataset's world; instant-ngp takes +Z where none is said."""
    rotation = torch.as_tensor(np.asarray(fit.parameters["rotation"], dtype=np.float64))
    mean = rotation_matrix(rotation)[:, :, 1].mean(0)
    length = float(mean.norm())
    return (mean / length).tolist() if length > 1e-6 else [0.0, 1.0, 0.0]


def _provenance(fit: FitResult, dataset_from_world: NDArray[np.float64], options: FormatOptions) -> dict[str, Any]:
    still = len(fit.parameters["expr"]) < 2
    return {
        "world": "head space: metres, right-handed, +Y up, face toward +Z"
        if still
        else "the frame that the head moves in, metres"
        + (", with the mean of its translations at the origin" if options.recenter else ""),
        "head_from_world": fit.head_from_world.tolist(),
        "dataset_from_world": dataset_from_world.tolist(),
        "head_model": {"name": fit.head_name, "sha256": fit.head_hash} | fit.head_identity,
        "scale_source": fit.scale_source,
        "mask_below_line": options.cuts,
    }


def background_warnings(capture: Capture, frames: list[Frame], color: tuple[float, float, float] | None) -> list[str]:
    """Says where a background cannot be put behind pictures."""
    if color is None:
        return []
    lacking = [frame for frame in frames if frame.view.mask_path is None]
    if not lacking:
        return []
    return [
        f"{capture.root}: {len(lacking)} of {len(frames)} pictures have no alpha map: their background stays, and "
        "--background-color has no effect. Make alpha maps: flame-fitting preprocess --matting-method selfie"
    ]


def _camera_warnings(entries: list[dict[str, Any]]) -> list[str]:
    off = [
        e
        for e in entries
        if abs(e["cx"] - e["w"] / 2) > 0.5 or abs(e["cy"] - e["h"] / 2) > 0.5 or abs(e["fl_x"] / e["fl_y"] - 1) > 1e-3
    ]
    if not off:
        return []
    text = "have an off-centre principal point or pixels that are not square, which GaussianAvatars ignores"
    return [f"{len(off)} of {len(entries)} pictures {text}; other programs read them right."]


# what was run: GaussianAvatars' readers, nerfstudio's dataparser. Given a folder, instant-ngp takes every .json in it
_OTHERS = "nerfstudio"
_NGP = "instant-ngp is to be given transforms_train.json (made by its rules, not tried in it)."


def _opens_in(head: HeadModel, options: FormatOptions) -> str:
    if is_flame(head) and options.flame_mode == "param":
        said = f"The dataset opens in GaussianAvatars and {_OTHERS}. {_NGP}"
        eyes = " GaussianAvatars knows no eyelids: eyes that are shut by them are open there." if head.n_eyelids else ""
        return said + eyes
    if is_flame(head):
        return f"The dataset opens in {_OTHERS}; GaussianAvatars needs --flame-mode param. {_NGP}"
    return (
        f"The dataset opens in {_OTHERS}, but not in GaussianAvatars, which needs FLAME: "
        f"it was fitted with the head model '{head.name}'. {_NGP}"
    )
