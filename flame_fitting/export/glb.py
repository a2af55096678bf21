"""Format `glb`: one file with the fitted head on a skeleton, its expressions as morph targets, and its motion."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from pygltflib import Attributes, Material, Mesh, Node, PbrMetallicRoughness, Primitive, Scene, TextureInfo

from flame_fitting.capture.capture import Capture
from flame_fitting.export.baking.baked import baked_texture, baked_warnings
from flame_fitting.export.gltf_document import GltfDocument, placing
from flame_fitting.export.gltf_rigs import Joint, Track, add_animation, add_skin, influences, morph_target, name_targets
from flame_fitting.export.head_rig import (
    CORRECTIVE,
    CORRECTIVE_ANGLE,
    JOINTS,
    HeadRig,
    checked_count,
    rig_of,
    uncorrected,
)
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.showing import Motion, showing
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.head.seams import split_at_seams
from flame_fitting.render.shading import vertex_normals
from flame_fitting.video.rates import pictures_per_second

NAME = "head.glb"
FIT, SHOW = "fit", "show"
"""Animations: the fit over time, and one that shows the jaw, the lids and the gaze."""
VERTEX = "_HEAD_VERTEX"
"""Attribute of vertices: which of the head model's each is; those at a seam of the texture are several."""
_TOLERANCE = 2e-6
"""Metres of a morph target that do not count."""
_QUALITY = 95
"""Of the texture as JPEG."""
_UNLIT = "KHR_materials_unlit"
_AT_ONCE = 16
"""Morph targets whose normals are made at once."""
_WEIGHS = 1e-3
"""Weight that a joint counts from, where a vertex has more than four."""
_TOLD = 1e-4
"""Metres that the file may lie beside the fit before a warning says so."""


def write_glb(job: ExportJob) -> ExportSummary:
    """Writes `head.glb`."""
    job.bar.expect(1)
    rig = rig_of(job.fit, job.head, checked_count(job.options.n_expr, job.head))
    rate = _rate(job.fit, job.capture)
    with job.folder((NAME,)) as folder:
        content = glb_of(job.fit, job.head, rig, _skin(job), rate, job.capture.ordered)
        with atomic_write(folder / NAME) as temporary:
            temporary.write_bytes(content)
        job.bar.advance()
    warnings = list(job.warnings)
    if rig.left > _TOLD:
        left = f"morph targets of the fit's own leave up to {1000 * rig.left:.2f} mm of how it moves."
        warnings.append(f"{job.target / NAME}: {left}")
    warnings += baked_warnings(job.head, job.capture, job.options.bake)
    moving = f", {job.fit.timesteps} timesteps at {rate:g} per second" if rate else ""
    written = f"{NAME} ({len(content) / 1e6:.1f} MB, {len(rig.names)} morph targets{moving})"
    opens = f"{NAME} opens in Blender and three.js (glTF 2.0); how its parts are driven stands in "
    notes = " ".join([opens + "docs/outputs.md.", *_limits(rig, job.head)])
    return ExportSummary(job.target, written, notes, warnings)


class Skin(NamedTuple):
    """What the head is painted with."""

    picture: UInt8[ndarray, "R R 3"] | None
    """sRGB; None: grey."""
    has_light: bool = False
    """Whether the picture has the light in it, so that none is to fall on it."""


def glb_of(
    fit: FitResult, head: HeadModel, rig: HeadRig, skin: Skin, rate: float | None = None, ordered: bool = True
) -> bytes:
    """The file. `rate`: timesteps in a second, None without the fit's motion; where they are not `ordered`, each stands
    still for as long."""
    document = GltfDocument()
    mesh = Mesh(name="head", primitives=[_primitive(document, head, rig)])
    mesh.extras = {"headModel": fit.head_identity or {"name": head.name, "sha256": head.file_hash}}
    if CORRECTIVE in rig.names:
        drives = {"joint": "jaw", "axis": [1, 0, 0], "weight": f"sin(angle) / sin({CORRECTIVE_ANGLE})"}
        mesh.extras["drives"] = {CORRECTIVE: drives}
    name_targets(mesh, rig.names, rig.weights[0].tolist())
    mesh.primitives[0].material = _material(document, skin)
    document.gltf.meshes.append(mesh)

    placement = document.node(Node(name="placement", **placing(np.linalg.inv(fit.head_from_world))))
    bind = np.tile(np.eye(4), (len(rig.joints), 1, 1))
    bind[:, :3, 3] = rig.joints
    names = JOINTS if len(JOINTS) == len(bind) else tuple(f"joint_{k}" for k in range(len(bind)))
    joints = [
        Joint(name, parent, one, local)
        for name, parent, one, local in zip(names, head.parents, bind, rig.local(0), strict=True)
    ]
    bones, numbers = add_skin(document, joints, "head", under=placement)
    # what a skin moves stands at the root: nothing above it counts
    body = document.node(Node(name="head", mesh=0, skin=bones))
    document.gltf.scenes, document.gltf.scene = [Scene(name="head", nodes=[placement, body])], 0
    if rate:
        # what stands still until the next one needs an end
        rows = np.arange(fit.timesteps + (not ordered)).clip(max=fit.timesteps - 1)
        seconds = np.arange(len(rows)) / rate
        motion = Motion(seconds, rig.weights[rows], rig.rotations[rows], rig.translations[rows])
        add_animation(document, FIT, seconds, _tracks(motion, body, numbers), straight=ordered)
    motion = showing(rig, head)
    add_animation(document, SHOW, motion.seconds, _tracks(motion, body, numbers))
    return document.glb()


def _tracks(motion: Motion, body: int, joints: list[int]) -> list[Track]:
    """Of nodes, by their numbers; also of joints that stand still, which another animation may have moved."""
    tracks = [Track(body, "weights", motion.weights)]
    for k, number in enumerate(joints):
        tracks.append(Track(number, "rotation", motion.rotations[:, k]))
        tracks.append(Track(number, "translation", motion.translations[:, k]))
    return tracks


def _limits(rig: HeadRig, head: HeadModel) -> list[str]:
    """What no glTF file carries, a sentence each."""
    out = []
    others = uncorrected(head)
    if CORRECTIVE in rig.names:
        out.append(
            f"glTF knows no pose correctives: who turns the jaw by an angle about x sets the weight of {CORRECTIVE} to "
            f"sin(angle) / sin({CORRECTIVE_ANGLE}) with it (docs/outputs.md has it for three.js)."
        )
    if others > _TOLD:
        out.append(
            f"Pose correctives of other turns, up to {1000 * others:.1f} mm at {CORRECTIVE_ANGLE} rad, stay as the fit "
            "has them."
        )
    return out


def _primitive(document: GltfDocument, head: HeadModel, rig: HeadRig) -> Primitive:
    """Triangles with all their attributes and morph targets."""
    faces, vertex, uv = split_at_seams(head)
    at_rest = torch.as_tensor(rig.vertices)
    normals = vertex_normals(at_rest[None], head.faces.cpu())[0]
    attributes = Attributes(
        POSITION=document.accessor(rig.vertices[vertex].astype(np.float32), bounds=True),
        NORMAL=document.accessor(normals.numpy()[vertex].astype(np.float32)),
    )
    if uv is not None:
        # glTF counts from the picture's top
        attributes.TEXCOORD_0 = document.accessor((uv * (1, -1) + (0, 1)).astype(np.float32))
    weights = head.weights.double().cpu().numpy()[vertex]
    sets = -(-int((weights > _WEIGHS).sum(1).max()) // 4)
    for number, (joints, shares) in enumerate(influences(weights, sets)):
        setattr(attributes, f"JOINTS_{number}", document.accessor(joints))
        setattr(attributes, f"WEIGHTS_{number}", document.accessor(shares))
    kind = np.uint16 if head.n_vertices <= 2**16 else np.uint32
    setattr(attributes, VERTEX, document.accessor(vertex.astype(kind)))
    targets = []
    for some in rig.morphs.double().cpu().split(_AT_ONCE):
        turned = vertex_normals(at_rest + some, head.faces.cpu()) - normals
        targets += [
            morph_target(document, moved.numpy()[vertex], change.numpy()[vertex], _TOLERANCE)
            for moved, change in zip(some, turned, strict=True)
        ]
    return Primitive(attributes=attributes, indices=document.indices(faces), targets=targets)


def _skin(job: ExportJob) -> Skin:
    """The baked texture, where there are pictures to bake; else the head model's own."""
    if job.head.has_uv and job.capture.views:
        shaded = job.options.bake == "shaded" and (job.fit.lights is not None or job.capture.shading != "unlit")
        size = job.options.texture_size
        return Skin(baked_texture(job.fit, job.head, job.capture, size, job.options.bake), shaded)
    return Skin(job.head.texture if job.head.has_uv else None)


def _material(document: GltfDocument, skin: Skin) -> int:
    """Dull, in the picture's colours or grey."""
    shown = PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=0.8)
    if skin.picture is None:
        shown.baseColorFactor = [0.5, 0.5, 0.5, 1.0]
    else:
        stream = io.BytesIO()
        Image.fromarray(skin.picture).save(stream, format="JPEG", quality=_QUALITY, subsampling=0)
        shown.baseColorTexture = TextureInfo(index=document.texture(stream.getvalue(), "image/jpeg", "texture"))
    material = Material(name="head", pbrMetallicRoughness=shown)
    if skin.has_light:
        material.extensions = {_UNLIT: {}}
        document.gltf.extensionsUsed.append(_UNLIT)
    document.gltf.materials.append(material)
    return len(document.gltf.materials) - 1


def _rate(fit: FitResult, capture: Capture) -> float | None:
    """Timesteps in a second; None of one alone, and one a second of those that do not follow each other."""
    if fit.timesteps == 1:
        return None
    return pictures_per_second(Path(capture.root), capture.timesteps) if capture.ordered else 1.0
