"""The fitted head as OBJ or PLY, in the head model's vertices and their order; a numbered file for every timestep.

    head.obj, head.mtl, texture.png     head.ply             of one timestep
    00000.obj ..., head.mtl, texture.png     00000.ply ...   of several

`--pose` says what is written: `fit` the head as it was fitted; `neutral` its shape and static offsets at zero
expression, zero neck, jaw and eye poses and open eyes, where the fit placed it (rotation, translation); `zero` the same
not placed, with the head model's own root at rest. `--space` says where: `avatar` are the capture's own coordinates and
unit, `head` is head space, metres.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.pictures import write_png
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from flame_fitting.export.baking.baked import baked_texture, baked_warnings
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.obj import write_mtl, write_obj
from flame_fitting.export.options import Pose
from flame_fitting.export.ply import write_ply
from flame_fitting.export.surface_points import vertex_points
from flame_fitting.fit.result import FitResult

_PLY_TEXTURE = 1024
"""Edge of the texture, px, that vertices take their colours from: they lie farther apart than its texels."""
_AT_REST = ("expr", "neck_pose", "jaw_pose", "eyes_pose")
_PLACED = ("rotation", "translation")


def write_obj_format(job: ExportJob) -> ExportSummary:
    """OBJ with texture coordinates, texture and material."""
    head = job.head
    faces = head.faces.cpu().numpy()
    uv, uv_faces = (head.uv.cpu().numpy(), head.uv_faces.cpu().numpy()) if head.has_uv else (None, None)
    has_texture = uv is not None and bool(job.capture.views)

    def write(path: Path, vertices: np.ndarray) -> None:
        mtl = "head.mtl" if has_texture else None
        write_obj(path, vertices, faces, uv, uv_faces, "texture.png" if has_texture else None, mtl=mtl)

    def write_shared(folder: Path) -> None:
        if has_texture:
            size, kind = job.options.texture_size, job.options.bake
            write_png(folder / "texture.png", baked_texture(job.fit, head, job.capture, size, kind))
            write_mtl(folder / "head.mtl", "texture.png")

    warnings = [] if has_texture else ["The head model has no texture coordinates: plain OBJ."]
    return _write(job, "obj", write, write_shared, warnings)


def write_ply_format(job: ExportJob) -> ExportSummary:
    """Binary PLY with normals and, at the vertices, the colours of the texture that is baked for meshes."""
    head, faces, texture = job.head, job.head.faces.cpu().numpy(), job.fit.texture
    if head.has_uv and job.capture.views:
        texture = baked_texture(job.fit, head, job.capture, _PLY_TEXTURE, job.options.bake)

    def write(path: Path, vertices: np.ndarray) -> None:
        points = vertex_points(head, vertices, texture)
        write_ply(path, vertices, faces, points.normals, None if texture is None else points.rgb)

    return _write(job, "ply", write, lambda folder: None, [])


def posed_fit(fit: FitResult, pose: Pose) -> FitResult:
    """The fit at rest as `pose` says; see the head of this file."""
    if pose == "fit":
        return fit
    rest = (*_AT_REST, *(_PLACED if pose == "zero" else ()))
    parameters = {key: value for key, value in fit.parameters.items() if key not in ("dynamic_offset", "eyelids")}
    parameters |= {key: np.zeros_like(parameters[key]) for key in rest}
    return replace(fit, parameters=parameters)


def check_space(job_space: str | None, pose: Pose) -> str:
    """The space that is meant. InputError where a pose has no place in it."""
    if pose == "zero" and job_space == "avatar":
        raise InputError(
            "--space avatar with --pose zero: a head that is not placed stands in head space. Leave it out."
        )
    return job_space or ("head" if pose == "zero" else "avatar")


def _write(
    job: ExportJob,
    suffix: str,
    write: Callable[[Path, np.ndarray], None],
    write_shared: Callable[[Path], None],
    warnings: list[str],
) -> ExportSummary:
    options = job.options
    space = check_space(options.space, options.pose)
    cameras = sorted({view.camera for view in job.capture.views})
    timesteps, _ = select(options.subset, list(job.capture.timesteps), cameras)
    rows = [job.capture.timesteps.index(timestep) for timestep in timesteps]
    fit = posed_fit(job.fit, options.pose)
    if options.pose == "zero" and len(fit.parameters["static_offset"]) == 1:
        rows = rows[:1]  # nothing that is left differs between timesteps
    world_from_head = np.linalg.inv(job.fit.head_from_world)
    job.bar.expect(len(rows))
    with job.folder(_stale(job.target, suffix)) as folder:
        for number, row in enumerate(rows):
            vertices = fit.vertices_head(job.head, [row])[0]
            if space == "avatar":
                vertices = transform_points(world_from_head, vertices)
            write(folder / (f"head.{suffix}" if len(rows) == 1 else f"{number:05d}.{suffix}"), vertices)
            job.bar.advance()
        write_shared(folder)
    where = "the avatar's own coordinates" if space == "avatar" else "head space, metres"
    return ExportSummary(
        job.target,
        f"{len(rows)} mesh{'es' if len(rows) > 1 else ''} ({options.pose}, {where})",
        f"Vertices are those of the head model {job.head.name}, in its order.",
        warnings + baked_warnings(job.head, job.capture, options.bake) + job.warnings,
    )


def _stale(target: Path, suffix: str) -> tuple[str, ...]:
    old = [p.name for p in target.glob(f"*.{suffix}") if p.stem.isdigit()] if target.is_dir() else []
    return (f"head.{suffix}", "head.mtl", "texture.png", *old)
