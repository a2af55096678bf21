"""Format `rigged-avatar`: the avatar that was fitted, in its own file, with the fitted head's joints and expressions.

avatar.glb            the avatar, materials and textures as they were, skinned, with morph targets
correspondence.npz    where on the head model each of its vertices lies
animation.jpg, .gif   how it moves, drawn from avatar.glb
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_fitting.capture.files import write_npz
from flame_fitting.export.head_rig import checked_count
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.rigging.attaching import attach
from flame_fitting.export.rigging.avatar_file import AvatarFile, avatar_of, open_avatar
from flame_fitting.export.rigging.checks import torn_edges
from flame_fitting.export.rigging.fitted_head import FittedHead, fitted_head
from flame_fitting.export.rigging.rig import Rig, rig_of
from flame_fitting.export.rigging.showing import ShownMesh, Stage, WrittenAvatar
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.figures import write_jpeg

NAME, CORRESPONDENCE, SHEET, GIF = "avatar.glb", "correspondence.npz", "animation.jpg", "animation.gif"


@dataclass(eq=False)
class RiggedAvatar:
    """An avatar with its rig."""

    file: AvatarFile
    head: FittedHead
    rig: Rig
    content: bytes
    """Of the GLB."""
    keeps: bool
    """Whether it keeps a rig that it came with."""
    torn: dict[str, int]
    """See `checks.torn_edges`."""
    warnings: list[str]


def rigged(
    path: Path,
    sha256: str | None,
    fit: FitResult,
    model: HeadModel,
    n_expr: int | None = None,
    replace_rig: bool = False,
) -> RiggedAvatar:
    """Rigs the avatar in a file (`sha256` where it is known) as it was fitted at the fit's first timestep."""
    file = open_avatar(path, sha256, fit.head_from_world)
    head = fitted_head(fit, model)
    rig = rig_of(file.parts, head, fit.head_from_world @ np.linalg.inv(file.file_from_avatar), n_expr)
    warnings = [f"{path}: {text}" for text in rig.warnings]
    keeps = bool(file.rigged_nodes) and not replace_rig
    if keeps:
        warnings.append(
            f"{path}: the avatar is rigged already. It keeps its joints and weights and gets morph targets only; "
            "--replace-rig puts the joints of the head model in their place."
        )
    torn = torn_edges(rig)
    if any(torn.values()):
        counts = ", ".join(f"{count} of {name}" for name, count in torn.items() if count)
        warnings.append(f"{path}: edges are drawn across its mouth or eyes ({counts}). Look at {SHEET}.")
    warnings += attach(file, rig, skin=not keeps)
    return RiggedAvatar(file, head, rig, file.document.glb(), keeps, torn, warnings)


def write_rigged_avatar(job: ExportJob) -> ExportSummary:
    """Writes the avatar, its correspondence and the pictures."""
    options, record = job.options, job.capture.avatar
    count = checked_count(options.n_expr, job.head)
    made = rigged(
        avatar_of(job.capture, options.avatar, "mesh"), record.sha256, job.fit, job.head, count, options.replace_rig
    )
    lit = "unlit" if made.file.has_color else "clay"
    stage = Stage(ShownMesh(WrittenAvatar(made.content), np.linalg.inv(made.rig.world_from_head)), made.head, lit)
    job.bar.expect(stage.pictures)
    with job.folder((NAME, CORRESPONDENCE, SHEET, GIF)) as folder:
        job.manifest.result["torn_edges"] = made.torn
        job.manifest.transforms["file_from_avatar"] = made.file.file_from_avatar.tolist()
        with atomic_write(folder / NAME) as temporary:
            temporary.write_bytes(made.content)
        write_npz(folder / CORRESPONDENCE, correspondence(made.file, made.head, made.rig))
        write_jpeg(folder / SHEET, stage.sheet(job.bar.advance))
        with atomic_write(folder / GIF) as temporary:
            temporary.write_bytes(stage.gif(job.bar.advance))
    joints = "its own joints" if made.keeps else f"{len(made.rig.joints)} joints"
    written = f"{NAME} ({len(made.content) / 1e6:.1f} MB, {joints}, {len(made.rig.displacements)} morph targets)"
    opens = f"{NAME} opens in Blender and three.js (glTF 2.0). How it moves: {job.target / SHEET} and {GIF}."
    return ExportSummary(job.target, written, opens, made.warnings + job.warnings)


def correspondence(file: AvatarFile, head: FittedHead, rig: Rig) -> dict[str, np.ndarray]:
    """What correspondence.npz holds: a row for each vertex, primitive after primitive of the file.

    face (V,) of the head model, barycentric (V, 3), distance (V,) in metres of head space, above 0 outside; trusted
    (V,): whether weights and expressions were taken from there; role (V,): what it follows (`parts.Role`). nodes (P,)
    and primitives (P,) name the primitives, first (P,) is the row of each one's first vertex.
    """
    match, of_vertex = rig.match, rig.surface.of_vertex
    counts = [len(found.part.vertices) for found in file.primitives]
    return {
        "face": match.face[of_vertex].astype(np.int32),
        "barycentric": match.barycentric[of_vertex].astype(np.float32),
        "distance": match.distance[of_vertex].astype(np.float32),
        "trusted": match.trusted[of_vertex],
        "role": rig.pieces.role[rig.surface.component][of_vertex].astype(np.uint8),
        "nodes": np.array([found.part.name for found in file.primitives]),
        "primitives": np.array([found.number for found in file.primitives]),
        "first": np.cumsum([0, *counts[:-1]]),
        "head_from_file": np.linalg.inv(rig.world_from_head),
        "head_model": np.array(head.model.name),
        "head_sha256": np.array(head.model.file_hash),
    }
