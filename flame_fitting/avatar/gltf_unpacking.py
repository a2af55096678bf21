"""A glTF document whose numbers and pictures all lie in one buffer, none of them compressed.

Draco and meshopt are undone and files it refers to are taken in; pictures, materials and all else stay as they are.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import numpy as np

from flame_fitting.avatar.gltf_buffers import COMPONENT_TYPES, COMPONENTS, GltfBuffers
from flame_fitting.avatar.local_files import bytes_of_data_uri
from flame_fitting.avatar.meshopt_buffers import MESHOPT

DRACO = "KHR_draco_mesh_compression"
_MIME = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"\xabKTX": "image/ktx2"}


def unpacked(document: dict[str, Any], buffers: GltfBuffers) -> tuple[dict[str, Any], bytes]:
    """The document and its one buffer. Pictures that cannot be had are left as they are named."""
    out = copy.deepcopy(document)
    views, blob = list[dict[str, Any]](), bytearray()

    def add(content: bytes, **entry: Any) -> int:
        blob.extend(b"\0" * (-len(blob) % 4))
        views.append(entry | {"buffer": 0, "byteOffset": len(blob), "byteLength": len(content)})
        blob.extend(content)
        return len(views) - 1

    packed, kept = set(_draco_views(out)), dict[int, int]()
    for number, entry in enumerate(out.get("bufferViews", [])):
        if number not in packed:
            extensions = {key: value for key, value in entry.pop("extensions", {}).items() if key not in MESHOPT}
            kept[number] = add(buffers.view(number)[0], **entry, **({"extensions": extensions} if extensions else {}))
    for holder in _holders(out):
        holder["bufferView"] = kept[holder["bufferView"]]
    for image in out.get("images", []):
        if (content := _picture(image, buffers)) is not None:
            del image["uri"]
            mime = image.get("mimeType") or next((m for key, m in _MIME.items() if content.startswith(key)), None)
            image |= {"bufferView": add(content)} | ({"mimeType": mime} if mime else {})
    for mesh in out.get("meshes", []):
        for primitive in mesh["primitives"]:
            _unpack_draco(primitive, out["accessors"], buffers, add)
    for key in ("extensionsUsed", "extensionsRequired"):
        left = [name for name in out.pop(key, []) if name not in (DRACO, *MESHOPT)]
        out |= {key: left} if left else {}
    out |= {"bufferViews": views, "buffers": [{"byteLength": len(blob)}]}
    return out, bytes(blob)


def _draco_views(document: dict[str, Any]) -> Iterable[int]:
    for mesh in document.get("meshes", []):
        for primitive in mesh["primitives"]:
            if DRACO in (primitive.get("extensions") or {}):
                yield primitive["extensions"][DRACO]["bufferView"]


def _holders(document: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """All that names a buffer view, Draco's own left out."""
    parts = list(document.get("images", []))
    for accessor in document.get("accessors", []):
        sparse = accessor.get("sparse", {})
        parts += [accessor, sparse.get("indices", {}), sparse.get("values", {})]
    return (part for part in parts if "bufferView" in part)


def _picture(image: dict[str, Any], buffers: GltfBuffers) -> bytes | None:
    uri = image.get("uri")
    if uri is None:
        return None
    try:
        return bytes_of_data_uri(uri) if uri.startswith("data:") else buffers.files.picture_bytes(unquote(uri))
    except ValueError:
        return None


def _unpack_draco(
    primitive: dict[str, Any], accessors: list[dict[str, Any]], buffers: GltfBuffers, add: Callable[..., int]
) -> None:
    extension = primitive.get("extensions", {}).pop(DRACO, None)
    if extension is None:
        return
    faces, attributes = buffers.draco(extension, primitive["attributes"])
    values = {primitive["attributes"][name]: found for name, found in attributes.items()}
    if "indices" in primitive:
        values[primitive["indices"]] = faces.reshape(-1, 1)
    primitive["mode"] = 4
    for number, found in values.items():
        entry = accessors[number]
        kind = COMPONENT_TYPES[entry["componentType"]]
        if entry.get("normalized") and found.dtype.kind == "f":
            found = np.rint(found * np.iinfo(kind).max)
        size = kind.itemsize * COMPONENTS[entry["type"]]
        # every element of an attribute begins at a multiple of four bytes (3.6.2.4)
        stride = size if number == primitive.get("indices") else size + -size % 4
        table = np.zeros((len(found), stride), dtype=np.uint8)
        values_of = np.ascontiguousarray(found.astype(kind)).reshape(len(found), -1)
        table[:, :size] = values_of.view(np.uint8).reshape(len(found), size)
        view = add(table.tobytes(), **({"byteStride": stride} if stride != size else {}))
        entry |= {"bufferView": view, "count": len(table)}
        entry.pop("byteOffset", None)
        if "min" in entry or "max" in entry:  # told of what was packed, which quantization has moved
            entry |= {"min": values_of.min(axis=0).tolist(), "max": values_of.max(axis=0).tolist()}
