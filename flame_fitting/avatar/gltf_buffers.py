"""The numbers in a glTF 2.0 file: containers, buffers, accessors (sparse, normalized, interleaved), Draco, meshopt."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np

from flame_fitting.avatar.local_files import LocalFiles, bytes_of_data_uri
from flame_fitting.avatar.meshopt_buffers import compression_of, decode_view

COMPONENT_TYPES: dict[int, np.dtype] = {
    5120: np.dtype("<i1"),
    5121: np.dtype("<u1"),
    5122: np.dtype("<i2"),
    5123: np.dtype("<u2"),
    5125: np.dtype("<u4"),
    5126: np.dtype("<f4"),
}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MAX_NUMBERS = 300_000_000


class DamagedFileError(ValueError):
    """The file breaks its format."""


def read_container(content: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON document and the binary chunk of a .glb, or of a .gltf (no chunk)."""
    if content[:4] != b"glTF":
        document = json.loads(content.decode("utf-8-sig"))
        if not isinstance(document, dict):
            raise DamagedFileError("the JSON document is not an object")
        return document, None
    version, length = struct.unpack_from("<II", content, 4)
    if version != 2:
        raise DamagedFileError(f"glTF version {version}, only 2 is read")
    if length > len(content):
        raise DamagedFileError(f"it ends after {len(content)} of {length} bytes")
    document, binary, position = None, None, 12
    while position + 8 <= length:
        size, kind = struct.unpack_from("<I4s", content, position)
        chunk = content[position + 8 : position + 8 + size]
        if len(chunk) < size:
            raise DamagedFileError("a chunk is cut short")
        if kind == b"JSON" and document is None:
            document = json.loads(chunk.decode("utf-8"))
        elif kind == b"BIN\0" and binary is None:
            binary = chunk
        position += 8 + size + (-size % 4)
    if not isinstance(document, dict):
        raise DamagedFileError("it has no JSON chunk")
    return document, binary


@dataclass
class GltfBuffers:
    """Access to the accessors and images of one document."""

    document: dict[str, Any]
    binary: bytes | None
    files: LocalFiles
    _buffers: dict[int, bytes] = field(default_factory=dict)
    _decoded: dict[int, bytes] = field(default_factory=dict)
    """Buffer views that were compressed."""

    def buffer(self, index: int) -> bytes:
        """Bytes of buffer `index`."""
        if index not in self._buffers:
            entry = self.document["buffers"][index]
            if "uri" in entry:
                content = self.files.read_uri(entry["uri"], "buffer")
            elif index == 0 and self.binary is not None:
                content = self.binary
            else:
                raise DamagedFileError(f"buffer {index} has no content")
            if len(content) < entry["byteLength"]:
                raise DamagedFileError(f"buffer {index} has {len(content)} of {entry['byteLength']} bytes")
            self._buffers[index] = content
        return self._buffers[index]

    def view(self, index: int) -> tuple[bytes, int | None]:
        """Bytes of buffer view `index` and its stride."""
        entry = self.document["bufferViews"][index]
        compression = compression_of(entry)
        if compression is None:
            return self._slice(entry, f"buffer view {index}"), entry.get("byteStride")
        # The buffer that the view itself names is a fallback, which may have no content.
        if index not in self._decoded:
            name, extension = compression
            content = decode_view(name, extension, self._slice(extension, f"compressed buffer view {index}"))
            if len(content) < entry["byteLength"]:
                raise DamagedFileError(f"buffer view {index} has {len(content)} of {entry['byteLength']} bytes")
            self._decoded[index] = content
        return self._decoded[index], entry.get("byteStride")

    def _slice(self, entry: dict[str, Any], what: str) -> bytes:
        start, size = entry.get("byteOffset", 0), entry["byteLength"]
        content = self.buffer(entry["buffer"])
        if start < 0 or size < 0 or start + size > len(content):
            raise DamagedFileError(f"{what} reaches past the end of its buffer")
        return content[start : start + size]

    def accessor(self, index: int, normalize: bool = True) -> np.ndarray:
        """Values (count, components) of an accessor: float64 where normalized or float, else its integers."""
        entry = self.document["accessors"][index]
        kind, width, count = COMPONENT_TYPES[entry["componentType"]], COMPONENTS[entry["type"]], entry["count"]
        if count * width > MAX_NUMBERS:
            raise DamagedFileError(f"an accessor asks for {count} elements")
        if "bufferView" in entry:
            content, stride = self.view(entry["bufferView"])
            values = _strided(content, entry.get("byteOffset", 0), stride, count, width, kind)
        else:
            values = np.zeros((count, width), dtype=kind)
        if "sparse" in entry:
            values = self._with_sparse(values, entry["sparse"], kind, width)
        return dequantized(values, bool(entry.get("normalized")) and normalize)

    def _with_sparse(self, values: np.ndarray, sparse: dict[str, Any], kind: np.dtype, width: int) -> np.ndarray:
        indices, replaced = sparse["indices"], sparse["values"]
        rows_in, _ = self.view(indices["bufferView"])
        values_in, _ = self.view(replaced["bufferView"])
        rows = _strided(
            rows_in, indices.get("byteOffset", 0), None, sparse["count"], 1, COMPONENT_TYPES[indices["componentType"]]
        )
        values = values.copy()
        values[rows[:, 0].astype(np.int64)] = _strided(
            values_in, replaced.get("byteOffset", 0), None, sparse["count"], width, kind
        )
        return values

    def image(self, index: int, note: Callable[[str], None]) -> np.ndarray | None:
        """RGBA (h, w, 4) uint8 of image `index`; None where it cannot be had, which `files` then warns of."""
        entry = self.document["images"][index]
        uri = entry.get("uri")
        if uri is not None and not uri.startswith("data:"):
            return self.files.picture(unquote(uri), note)
        name = str(entry.get("name") or f"image {index}")
        if uri is None:
            return self.files.picture(name, note, self.view(entry["bufferView"])[0])
        try:
            return self.files.picture(name, note, bytes_of_data_uri(uri))
        except ValueError as error:
            self.files.without_color[name] = f"a damaged data URI: {error}"
            return None

    def draco(self, extension: dict[str, Any], attributes: dict[str, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Faces (F, 3) and attributes by glTF name of a primitive compressed with KHR_draco_mesh_compression."""
        import DracoPy

        try:
            mesh = DracoPy.decode(self.view(extension["bufferView"])[0])
        except DamagedFileError:
            raise
        except Exception as error:
            raise DamagedFileError(f"its Draco data cannot be decoded ({error})") from None
        decoded = {}
        for name, unique_id in extension["attributes"].items():
            values = np.asarray(mesh.get_attribute_by_unique_id(unique_id)["data"])
            values = values.reshape(len(mesh.points), -1)
            normalized = name in attributes and self.document["accessors"][attributes[name]].get("normalized")
            decoded[name] = dequantized(values, bool(normalized) and values.dtype.kind in "iu")
        return np.asarray(mesh.faces).reshape(-1, 3).astype(np.int64), decoded


def _strided(content: bytes, start: int, stride: int | None, count: int, width: int, kind: np.dtype) -> np.ndarray:
    size = width * kind.itemsize
    stride = stride or size
    if count < 0 or start < 0 or stride < kind.itemsize:
        raise DamagedFileError("an accessor has impossible numbers")
    if count == 0:
        return np.zeros((0, width), dtype=kind)
    if start + (count - 1) * stride + size > len(content):
        raise DamagedFileError("an accessor reaches past the end of its buffer view; the file is cut short")
    return np.ndarray((count, width), kind, content, start, (stride, kind.itemsize)).copy()


def dequantized(values: np.ndarray, normalized: bool) -> np.ndarray:
    """float64 of floats and of normalized integers (glTF 2.0, 3.11); other integers as they are."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    if not normalized:
        return values
    return np.maximum(values.astype(np.float64) / np.iinfo(values.dtype).max, -1.0)
