"""The avatar's own file as a glTF document that a rig can be added to, and its triangles in the document's order."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pygltflib import GLTF2, Attributes

from flame_fitting.avatar.gltf import GltfPrimitive, read_primitives
from flame_fitting.avatar.gltf_buffers import GltfBuffers, read_container
from flame_fitting.avatar.gltf_unpacking import unpacked
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.loading import GLTF_SUFFIXES, load_avatar
from flame_fitting.avatar.local_files import LocalFiles
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.export.gltf_document import GltfDocument
from flame_fitting.export.rigging.converting import converted, gltf_from_avatar


@dataclass(eq=False)
class AvatarFile:
    """An avatar and the document that it becomes."""

    path: Path
    document: GltfDocument
    numbers: GltfBuffers
    """What the document's accessors hold as it was read."""
    primitives: list[GltfPrimitive]
    """All triangles of the scene; the document's coordinates."""
    file_from_avatar: Float[ndarray, "4 4"]
    """From the avatar's coordinates to the document's: the same of glTF."""
    has_color: bool

    @property
    def parts(self) -> list[MeshPart]:
        """Of all primitives; vertices that are not numbers stand in the middle, without triangles."""
        return [_finite(primitive.part) for primitive in self.primitives]

    @property
    def rigged_nodes(self) -> list[int]:
        """Nodes whose meshes have a skin of the avatar's own."""
        nodes = dict.fromkeys(primitive.node for primitive in self.primitives)
        return [node for node in nodes if self.document.gltf.nodes[node].skin is not None]


@dataclass(eq=False)
class Slot:
    """A primitive that is rigged."""

    found: GltfPrimitive
    rows: slice
    """Of the rig's vertices."""
    place: Float[ndarray, "N 4 4"]
    """What brings its positions into the document's world: one for all, or one for each vertex."""


_OTHERS = {
    "mesh": "is made of Gaussian splats, and only meshes are rigged so. --format rigged-splats binds splats.",
    "splats": "is a mesh, and only Gaussian splats are bound so. --format rigged-avatar rigs a mesh.",
}
"""What is said of an avatar of another kind than is wanted."""


def avatar_of(capture: Capture, given: Path | None, kind: Literal["mesh", "splats"]) -> Path:
    """The avatar's file: the one `given`, else where it was when it was rendered. Raises InputError."""
    record = capture.avatar
    path = given or (Path(record.file) if record.file else None)
    if path is None:
        raise InputError(
            f"{capture.root}: was not rendered from an avatar, so that there is none to rig. --format glb writes "
            "the fitted head itself."
        )
    if (record.geometry == "splats") != (kind == "splats"):
        raise InputError(f"{path}: {_OTHERS[kind]}")
    if not path.is_file() and given is not None:
        raise InputError(f"{path}: there is no such file. Check the path.")
    if not path.is_file():
        raise InputError(f"{path}: the avatar is not there any more. Say where it is: --avatar FILE")
    return path


def open_avatar(path: Path, sha256: str | None, head_from_world: Float[ndarray, "4 4"]) -> AvatarFile:
    """Reads the avatar. Raises InputError where it is not the one (`sha256`) that was fitted."""
    avatar = load_avatar(path)
    if not isinstance(avatar, MeshAvatar):
        raise InputError(f"{path}: {_OTHERS['mesh']}")
    check_unchanged(avatar, sha256)
    if avatar.format in GLTF_SUFFIXES:
        document, binary = read_container(path.read_bytes())
        document, binary = unpacked(document, GltfBuffers(document, binary, LocalFiles(path)))
        _weights_to_meshes(document)
        matrix = np.eye(4)
    else:
        matrix = gltf_from_avatar(head_from_world)
        document, binary = read_container(converted(avatar.parts, matrix).glb())
    files = LocalFiles(path)
    primitives = read_primitives(document, binary, files, lambda text: None)
    gltf = GltfDocument(_as_object(document, binary or b""))
    numbers = GltfBuffers(document, binary, files)
    return AvatarFile(path, gltf, numbers, primitives, matrix, avatar.has_color)


def check_unchanged(avatar: Avatar, sha256: str | None) -> None:
    """Raises InputError where an avatar is not the one (`sha256`, where it is known) that was fitted."""
    if sha256 is not None and avatar.file_hash != sha256:
        raise InputError(
            f"{avatar.path}: is not the file that was rendered and fitted, or it has changed since. Give that one with "
            "--avatar, or fit this one, then export."
        )


def _weights_to_meshes(document: dict[str, Any]) -> None:
    """Weights of nodes become those of meshes of their own, as pygltflib's nodes have none."""
    for node in document.get("nodes", []):
        if "mesh" in node and (weights := node.pop("weights", None)):
            document["meshes"].append(document["meshes"][node["mesh"]] | {"weights": weights})
            node["mesh"] = len(document["meshes"]) - 1


def _as_object(document: dict[str, Any], binary: bytes) -> GLTF2:
    gltf: GLTF2 = GLTF2.gltf_from_json(json.dumps(document))
    for mesh in gltf.meshes:
        for primitive in mesh.primitives:
            targets = primitive.targets or []
            primitive.targets = [Attributes(**each) if isinstance(each, dict) else each for each in targets]
    for accessor in gltf.accessors:
        if accessor.bufferView is None:
            accessor.byteOffset = None  # 0 says nothing, and must not be said without a view
    gltf.set_binary_blob(binary)
    return gltf


def _finite(part: MeshPart) -> MeshPart:
    good = np.isfinite(part.vertices).all(axis=1)
    if good.all():
        return part
    middle = part.vertices[good].mean(axis=0) if good.any() else np.zeros(3)
    vertices = np.where(good[:, None], part.vertices, middle)
    return replace(part, vertices=vertices, faces=part.faces[good[part.faces].all(axis=1)])
