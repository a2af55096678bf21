"""glTF 2.0 documents that are written: pygltflib's dataclasses, and accessors into one binary buffer.

Section numbers refer to the glTF 2.0 specification (Khronos Group, 2.0.1). Reading stands in `avatar.gltf`.
"""

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from pygltflib import (
    ARRAY_BUFFER,
    ELEMENT_ARRAY_BUFFER,
    GLTF2,
    LINEAR,
    LINEAR_MIPMAP_LINEAR,
    Accessor,
    AccessorSparseIndices,
    AccessorSparseValues,
    Asset,
    Buffer,
    BufferView,
    Image,
    Node,
    Sampler,
    Sparse,
    Texture,
)
from scipy.spatial.transform import Rotation

from flame_fitting.version import __version__

_COMPONENT = {"u1": 5121, "u2": 5123, "u4": 5125, "f4": 5126}
_KIND = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


class GltfDocument:
    """A document, new or one that is there, which accessors are added to; all else is in `gltf`."""

    def __init__(self, gltf: GLTF2 | None = None) -> None:
        """`gltf`: one whose buffers are its binary blob (pygltflib's `convert_buffers` makes them so)."""
        self.gltf = GLTF2() if gltf is None else gltf
        if gltf is None:
            self.gltf.asset = Asset(generator=f"flame-fitting {__version__}")
        self._binary = bytearray(self.gltf.binary_blob() or b"")

    def node(self, node: Node) -> int:
        """Its number."""
        self.gltf.nodes.append(node)
        return len(self.gltf.nodes) - 1

    def accessor(self, values: Shaped[ndarray, "N ..."], bounds: bool = False, kind: int | None = ARRAY_BUFFER) -> int:
        """Number of an accessor of N elements: float32, uint8, uint16 or uint32; matrices as in formulas, row by row.

        `bounds`: with least and greatest values, which positions and times must have. `kind`: what a GPU takes it for,
        None for what it is not given (times, values over time, matrices).
        """
        table = np.ascontiguousarray(_columns(values)).reshape(len(values), -1)
        size = table.itemsize * table.shape[1]
        # every element of an attribute begins at a multiple of four bytes (3.6.2.4)
        stride = size + -size % 4 if kind == ARRAY_BUFFER else size
        content = np.zeros((len(table), stride), dtype=np.uint8)
        content[:, :size] = table.view(np.uint8)
        view = self._view(content.tobytes(), kind, stride if stride != size else None)
        return self._add(self._entry(values, bounds, view))

    def sparse_accessor(self, values: Float[ndarray, "N C"], tolerance: float = 0.0) -> int:
        """Accessor of what is mostly zero, with bounds: rows no longer than `tolerance` are; in full where smaller."""
        values = np.where(np.linalg.norm(values, axis=1, keepdims=True) > tolerance, values, 0).astype(np.float32)
        rows = np.flatnonzero(values.any(1))
        rows = rows if len(rows) else np.zeros(1, dtype=np.int64)  # none at all is not allowed
        index = rows.astype(np.uint16 if len(values) <= 2**16 else np.uint32)
        if len(rows) * (index.itemsize + values[0].nbytes) >= values.nbytes:
            return self.accessor(values, bounds=True)
        entry = self._entry(values, True, None)
        entry.sparse = Sparse(
            count=len(rows),
            indices=AccessorSparseIndices(
                bufferView=self._view(index.tobytes()), componentType=_COMPONENT[index.dtype.str[1:]]
            ),
            values=AccessorSparseValues(bufferView=self._view(values[rows].tobytes())),
        )
        return self._add(entry)

    def indices(self, faces: Shaped[ndarray, "F 3"]) -> int:
        """Accessor of triangles' corners."""
        kind = np.uint16 if faces.max(initial=0) < 2**16 - 1 else np.uint32
        return self.accessor(faces.reshape(-1).astype(kind), kind=ELEMENT_ARRAY_BUFFER)

    def texture(self, content: bytes, mime: str, name: str) -> int:
        """Number of a texture: a picture's file as it is (image/jpeg, image/png), repeated, with mip maps."""
        gltf = self.gltf
        gltf.images.append(Image(bufferView=self._view(content), mimeType=mime, name=name))
        gltf.samplers.append(Sampler(magFilter=LINEAR, minFilter=LINEAR_MIPMAP_LINEAR))
        gltf.textures.append(Texture(source=len(gltf.images) - 1, sampler=len(gltf.samplers) - 1))
        return len(gltf.textures) - 1

    def glb(self) -> bytes:
        """The whole file."""
        self.gltf.set_binary_blob(bytes(self._binary))
        self.gltf.buffers = [Buffer(byteLength=len(self._binary))]
        return b"".join(bytes(part) for part in self.gltf.save_to_bytes())

    def _entry(self, values: ndarray, bounds: bool, view: int | None) -> Accessor:
        entry = Accessor(
            bufferView=view,
            byteOffset=None,  # 0 says nothing, and must not be said without a view
            componentType=_COMPONENT[values.dtype.str[1:]],
            count=len(values),
            type=_KIND[values.shape[1:]],
        )
        if bounds:
            columns = values.reshape(len(values), -1)
            entry.min, entry.max = columns.min(0).tolist(), columns.max(0).tolist()
        return entry

    def _add(self, entry: Accessor) -> int:
        self.gltf.accessors.append(entry)
        return len(self.gltf.accessors) - 1

    def _view(self, content: bytes, kind: int | None = None, stride: int | None = None) -> int:
        self._binary += b"\0" * (-len(self._binary) % 4)
        view = BufferView(
            buffer=0, byteOffset=len(self._binary), byteLength=len(content), target=kind, byteStride=stride
        )
        self._binary += content
        self.gltf.bufferViews.append(view)
        return len(self.gltf.bufferViews) - 1


def placing(matrix: Float[ndarray, "4 4"]) -> dict[str, list[float]]:
    """A similarity as fields of a `Node`: translation, rotation (x y z w) and scale; those that do nothing left out."""
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    rotation = Rotation.from_matrix(matrix[:3, :3] / scale)
    out = {
        "translation": matrix[:3, 3].tolist(),
        "rotation": rotation.as_quat().tolist(),
        "scale": [scale, scale, scale],
    }
    idle = {"translation": not matrix[:3, 3].any(), "rotation": rotation.magnitude() < 1e-12, "scale": scale == 1}
    return {key: value for key, value in out.items() if not idle[key]}


def _columns(values: ndarray) -> ndarray:
    """Matrices column by column (3.6.2.4), all else as it is."""
    return values.transpose(0, 2, 1) if values.ndim == 3 else values
