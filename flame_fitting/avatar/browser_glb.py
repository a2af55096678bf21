"""Triangle meshes as the smallest GLB file that a browser draws: quick enough to be made anew while a slider moves.

Section numbers refer to the glTF 2.0 specification (Khronos Group, 2.0.1).
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.capture.color_correction import srgb_to_linear
from flame_fitting.maths.normals import vertex_normals

_FLOAT, _UINT = 5126, 5125
_ARRAY, _ELEMENTS = 34962, 34963
_WRAP = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
_KIND = {2: "VEC2", 3: "VEC3", 4: "VEC4"}


@dataclass(frozen=True, eq=False)
class BrowserMesh:
    """One mesh with one material. Colours are sRGB 0..1; picture, vertex colours and base colour are multiplied."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    uv: Float[ndarray, "V 2"] | None = None
    """(0, 0) at the picture's bottom left."""
    picture: bytes | None = None
    """A PNG or JPEG file."""
    vertex_colors: Float[ndarray, "V C"] | None = None
    """C = 3 or 4."""
    base_color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    alpha_mode: str = "opaque"
    """opaque, mask or blend."""
    alpha_cutoff: float = 0.5
    wrap: tuple[str, str] = ("repeat", "repeat")
    """How the picture goes on outside 0..1 along u and v: repeat, clamp or mirror."""
    unlit: bool = False
    """Whether colours are shown as they are; else the scene's lights fall on a matt surface."""


def browser_glb(meshes: Sequence[BrowserMesh]) -> bytes:
    """The file: all meshes below one node, both sides drawn."""
    document: dict[str, Any] = {key: [] for key in ("bufferViews", "accessors", "materials", "meshes", "nodes")}
    document |= {"asset": {"version": "2.0"}, "scene": 0, "extensionsUsed": ["KHR_materials_unlit"]}
    parts: list[bytes] = []
    for mesh in meshes:
        _add(document, parts, mesh)
    document["scenes"] = [{"nodes": list(range(len(document["nodes"])))}]
    document["buffers"] = [{"byteLength": sum(map(len, parts))}]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(parts)
    head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(binary), len(text), 0x4E4F534A)
    return head + text + struct.pack("<II", len(binary), 0x004E4942) + binary


def _add(document: dict[str, Any], parts: list[bytes], mesh: BrowserMesh) -> None:
    def view(content: bytes, target: int | None) -> int:
        start = sum(map(len, parts))
        parts.append(content + b"\0" * (-len(content) % 4))
        entry = {"buffer": 0, "byteOffset": start, "byteLength": len(content)}
        document["bufferViews"].append(entry if target is None else entry | {"target": target})
        return len(document["bufferViews"]) - 1

    def attribute(values: ndarray, bounds: bool = False) -> int:
        table = np.ascontiguousarray(values, dtype=np.float32)
        entry: dict[str, Any] = {"bufferView": view(table.tobytes(), _ARRAY), "componentType": _FLOAT}
        entry |= {"count": len(table), "type": _KIND[table.shape[1]]}
        if bounds:  # positions must have them (3.7.2.1)
            entry |= {"min": table.min(0).tolist(), "max": table.max(0).tolist()}
        document["accessors"].append(entry)
        return len(document["accessors"]) - 1

    attributes = {"POSITION": attribute(mesh.vertices, bounds=True)}
    if not mesh.unlit:  # without any, triangles are flat (3.7.2.1)
        attributes["NORMAL"] = attribute(vertex_normals(mesh.vertices, mesh.faces))
    if mesh.vertex_colors is not None:
        attributes["COLOR_0"] = attribute(_linear(mesh.vertex_colors))
    if mesh.uv is not None and mesh.picture is not None:
        attributes["TEXCOORD_0"] = attribute(np.asarray(mesh.uv) * [1, -1] + [0, 1])
    corners = np.ascontiguousarray(mesh.faces, dtype=np.uint32)
    document["accessors"].append(
        {"bufferView": view(corners.tobytes(), _ELEMENTS), "componentType": _UINT, "count": corners.size}
        | {"type": "SCALAR"}
    )
    primitive = {"attributes": attributes, "indices": len(document["accessors"]) - 1}
    primitive["material"] = len(document["materials"])
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    surface["baseColorFactor"] = _linear(np.array([mesh.base_color])).reshape(-1).tolist()
    if "TEXCOORD_0" in attributes and mesh.picture is not None:
        surface["baseColorTexture"] = {"index": _texture(document, view(mesh.picture, None), mesh)}
    material: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": True}
    if mesh.alpha_mode != "opaque":
        material["alphaMode"] = mesh.alpha_mode.upper()
        if mesh.alpha_mode == "mask":
            material["alphaCutoff"] = mesh.alpha_cutoff
    if mesh.unlit:
        material["extensions"] = {"KHR_materials_unlit": {}}
    document["materials"].append(material)
    document["nodes"].append({"mesh": len(document["meshes"])})
    document["meshes"].append({"primitives": [primitive]})


def _texture(document: dict[str, Any], view: int, mesh: BrowserMesh) -> int:
    assert mesh.picture is not None
    kind = "image/png" if mesh.picture.startswith(b"\x89PNG") else "image/jpeg"
    for key in ("images", "samplers", "textures"):
        document.setdefault(key, [])
    document["images"].append({"bufferView": view, "mimeType": kind})
    document["samplers"].append({"wrapS": _WRAP[mesh.wrap[0]], "wrapT": _WRAP[mesh.wrap[1]]})
    document["textures"].append({"source": len(document["images"]) - 1, "sampler": len(document["samplers"]) - 1})
    return len(document["textures"]) - 1


def _linear(colors: Float[ndarray, "V C"]) -> Float[ndarray, "V C"]:
    """Colours of vertices and factors are linear in a file (3.9.2), alpha is as it is."""
    colors = np.asarray(colors, dtype=np.float64)
    return np.concatenate([srgb_to_linear(colors[:, :3]), colors[:, 3:]], axis=1)
