"""Format `gaussian-avatars`: splats bound to FLAME's faces, in the files that GaussianAvatars' own loader reads.

point_cloud/iteration_1/point_cloud.ply    centres, standard deviations and rotations in the frames of faces
point_cloud/iteration_1/flame_param.npz    FLAME's parameters at all timesteps of the fit

The world is head space. Each splat has one face; those that the head model's own triangles would not carry (hair,
shoulders, eyeballs, teeth) have one that moves as they do.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.bound_splats import PARAMETERS, binding_faces, bound_splats
from flame_fitting.avatar.splat_ply import splat_ply
from flame_fitting.capture.files import write_npz
from flame_fitting.errors import InputError
from flame_fitting.export.flame_files import flame_parameters, is_flame
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.rigged_splats import CLOUD, bound_avatar
from flame_fitting.export.rigging.avatar_file import avatar_of
from flame_fitting.files import atomic_write
from flame_fitting.fit.parameters import POSES
from flame_fitting.fit.result import FitResult
from flame_fitting.head.flame_files import FLAME_WITH_TEETH
from flame_fitting.head.model import HeadModel

FOLDER, _ITERATION = "point_cloud", "iteration_1"
_DEGREE = 3
"""Of the spherical harmonics that its viewer expects by default."""


def write_gaussian_avatars(job: ExportJob) -> ExportSummary:
    """Writes the splats and the parameters."""
    options, record, head = job.options, job.capture.avatar, job.head
    path = avatar_of(job.capture, options.avatar, "splats")
    check_topology(job.fit, head)
    made = bound_avatar(path, record.sha256, job.fit, head)
    job.bar.expect(1)
    arrays = parameters_of(job.fit, head)
    splats, face = made.binding.splats, made.binding.bound_face
    bound = bound_splats(splats, posed_vertices(arrays, head), binding_faces(head), face)
    with job.folder((FOLDER,)) as folder:
        place = folder / FOLDER / _ITERATION
        place.mkdir(parents=True)
        with atomic_write(place / CLOUD) as temporary:
            temporary.write_bytes(splat_ply(bound, face, _DEGREE))
        write_npz(place / PARAMETERS, arrays)
        job.bar.advance()
    if np.abs(job.fit.parameters.get("eyelids", np.zeros(1))).max() > 0:
        job.warnings.append("GaussianAvatars knows no eyelids: what the fit shuts by them stays open there.")
    where = job.target / FOLDER / _ITERATION / CLOUD
    return ExportSummary(
        job.target,
        f"{len(splats)} splats on {len(np.unique(face))} faces, {len(arrays['expr'])} timestep(s)",
        f"For GaussianAvatars' viewer: python local_viewer.py --point_path {where.absolute()}",
        [*(record.warnings or ()), *made.warnings, *job.warnings],
    )


def check_topology(fit: FitResult, head: HeadModel) -> None:
    """Raises InputError for a head that GaussianAvatars has no faces for."""
    if not is_flame(head):
        raise InputError(
            f"{fit.folder}: was fitted with the head model {head.name}, which has not FLAME's faces, and "
            "GaussianAvatars binds splats to these alone. Fit with --head flame2023, or take --format rigged-splats."
        )


def parameters_of(fit: FitResult, head: HeadModel) -> dict[str, Float[ndarray, "..."]]:
    """What flame_param.npz holds: FLAME's parameters at T timesteps, offsets of all vertices with teeth.

    GaussianAvatars always adds teeth; they come last, and so do their faces.
    """
    rows = [flame_parameters(fit, head, row) for row in range(fit.timesteps)]
    out: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in ("expr", *POSES)}
    out["shape"] = rows[0]["shape"]
    offsets = [row["static_offset"] for row in rows]
    still = offsets[0]
    moving = np.concatenate(
        [offset - still + row.get("dynamic_offset", 0.0) for offset, row in zip(offsets, rows, strict=True)]
    )
    out["static_offset"], out["dynamic_offset"] = (
        np.pad(each, ((0, 0), (0, FLAME_WITH_TEETH[0] - each.shape[1]), (0, 0))) for each in (still, moving)
    )
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}


def posed_vertices(arrays: dict[str, ndarray], head: HeadModel) -> Float[ndarray, "V 3"]:
    """The head at the first timestep, as a reader of these arrays poses it."""
    given = {name: torch.as_tensor(arrays[name][:1]).to(head.v_template) for name in ("expr", *POSES)}
    given["expr"] = given["expr"][:, : head.n_expr]
    shape = torch.as_tensor(arrays["shape"]).to(head.v_template)[: head.n_shape]
    offset = torch.as_tensor(arrays["static_offset"] + arrays["dynamic_offset"][:1]).to(head.v_template)
    with torch.no_grad():
        out = head(shape, static_offset=offset[:, : head.n_vertices], **given)
    return np.asarray(out.vertices[0].double().cpu().numpy())
