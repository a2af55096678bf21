"""Writes small glTF files for the tests, with exactly the oddities that a test wants."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMPONENT = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
KIND = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=np.float32)
TETRAHEDRON_FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], dtype=np.uint16)
QUAD = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=np.float32)
QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.uint16)
QUAD_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
"""glTF convention: v down."""


class GlbBuilder:
    """Collects accessors and JSON, one mesh with one primitive by default."""

    def __init__(self) -> None:
        self.binary = b""
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": [], "buffers": []}

    def view(self, content: bytes, **options: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content), **options}
        )
        self.binary += content
        return len(self.json["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, normalized: bool = False, view: int | None = None, **options: Any) -> int:
        values = np.asarray(values)
        table = values.reshape(len(values), -1)
        entry = {
            "bufferView": self.view(np.ascontiguousarray(table).tobytes()) if view is None else view,
            "componentType": COMPONENT[table.dtype.str[1:]],
            "count": len(table),
            "type": KIND[table.shape[1]],
            **options,
        }
        if normalized:
            entry["normalized"] = True
        self.json["accessors"].append(entry)
        return len(self.json["accessors"]) - 1

    def primitive(self, positions: np.ndarray, faces: np.ndarray, **attributes: np.ndarray) -> dict[str, Any]:
        names = {"POSITION": self.accessor(positions)}
        names |= {name: self.accessor(values) for name, values in attributes.items()}
        return {"attributes": names, "indices": self.accessor(np.asarray(faces).reshape(-1))}

    def texture(self, pixels: np.ndarray, format: str = "PNG") -> int:
        """Adds an image and a texture that uses it; returns the texture."""
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format, **({"lossless": True} if format == "WEBP" else {}))
        images = self.json.setdefault("images", [])
        images.append({"bufferView": self.view(stream.getvalue()), "mimeType": f"image/{format.lower()}"})
        textures = self.json.setdefault("textures", [])
        textures.append({"source": len(images) - 1})
        return len(textures) - 1

    def scene(self, primitive: dict[str, Any], **node: Any) -> None:
        """One node with one mesh, as the only scene."""
        self.json |= {
            "meshes": [{"primitives": [primitive]}],
            "nodes": [{"mesh": 0, **node}],
            "scenes": [{"nodes": [0]}],
            "scene": 0,
        }

    def bytes(self) -> bytes:
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        if binary and not self.json["buffers"]:
            self.json["buffers"] = [{"byteLength": len(binary)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def save(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path


def textured_quad(pixels: np.ndarray, format: str = "PNG", **material: Any) -> GlbBuilder:
    """A square in the xy plane from -1 to 1 that faces +z, with a picture on it."""
    builder = GlbBuilder()
    primitive = builder.primitive(QUAD, QUAD_FACES, TEXCOORD_0=QUAD_UV)
    texture = builder.texture(pixels, format)
    builder.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}, **material}]
    builder.scene(primitive | {"material": 0})
    return builder
