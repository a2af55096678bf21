"""PLY files whose triangles stand in strips (element `tristrips`, as scanners write), made plain ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from flame_fitting.avatar.mesh import fan_triangles

_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
_TYPES |= {"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_TYPES |= {"float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"}


@dataclass
class _Property:
    name: str
    kind: np.dtype
    length: np.dtype | None = None
    """Type of a list's length; None for a single value."""


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property]
    header: list[str]
    """Its lines in the header."""


def without_strips(content: bytes) -> bytes:
    """The file with `face` in place of `tristrips` (and of the faces beside them); others are returned as they are.

    Raises ValueError where the file is cut short.
    """
    head, _, body = content.partition(b"end_header")
    if b"tristrips" not in head:
        return content
    body = body.partition(b"\n")[2]
    lines = [line.strip() for line in head.decode("ascii", errors="replace").splitlines()]
    form = next((line.split()[1] for line in lines if line.startswith("format")), "")
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(form, "")
    elements = _elements(lines, order or "<")
    reader = _Binary(body) if order else _Text(body)
    vertices, triangles = b"", []
    for element in elements:
        if element.name == "vertex":
            vertices = reader.copy(element)
        else:
            lists = reader.lists(element)
            if element.name == "tristrips":
                triangles += [strip_triangles(indices) for indices in lists]
            elif element.name == "face":
                triangles += [indices[fan_triangles(np.array([len(indices)]))] for indices in lists if len(indices) > 2]
    faces = np.concatenate([np.zeros((0, 3), np.int64), *triangles])
    kept = [line for line in lines if line.split()[:1] in (["ply"], ["format"], ["comment"], ["obj_info"])]
    kept += next((element.header for element in elements if element.name == "vertex"), [])
    kept += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    if order:
        rows = np.empty(len(faces), dtype=[("n", "u1"), ("v", f"{order}i4", 3)])
        rows["n"], rows["v"] = 3, faces
        data = rows.tobytes()
    else:
        data = "".join("3 {} {} {}\n".format(*row) for row in faces.tolist()).encode()
    return "\n".join(kept).encode() + b"\n" + vertices + data


def strip_triangles(indices: Int[np.ndarray, " N"]) -> Int[np.ndarray, "F 3"]:
    """Triangles of strips that a negative index ends; the winding alternates, those without area are left out."""
    place = np.arange(len(indices))
    start = np.maximum.accumulate(np.where(indices < 0, place + 1, 0))
    triangles = (
        np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1) if len(indices) > 2 else np.zeros((0, 3), int)
    )
    odd = (place - start)[: len(triangles)] % 2 == 1
    triangles[odd] = triangles[odd][:, [1, 0, 2]]
    a, b, c = triangles.T
    return triangles[(triangles >= 0).all(axis=1) & (a != b) & (b != c) & (c != a)]


def _elements(lines: list[str], order: str) -> list[_Element]:
    elements: list[_Element] = []
    for line in lines:
        words = line.split()
        if words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2]), [], [line]))
        elif words[:1] == ["property"]:
            types = [np.dtype(order + _TYPES[word]) for word in (words[2:4] if words[1] == "list" else words[1:2])]
            elements[-1].properties.append(_Property(words[-1], types[-1], types[0] if len(types) == 2 else None))
            elements[-1].header.append(line)
    return elements


def _signed(values: np.ndarray) -> Int[np.ndarray, " N"]:
    """Indices as int64; the largest unsigned number is what -1 becomes in an unsigned list."""
    out = values.astype(np.int64)
    if values.dtype.kind == "u":
        out[values == np.iinfo(values.dtype).max] = -1
    return out


class _Binary:
    """Steps through the data of a binary file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def copy(self, element: _Element) -> bytes:
        """The bytes of an element without lists."""
        if any(item.length is not None for item in element.properties):
            raise ValueError(f"element {element.name} has lists")
        return self._take(element.count * sum(item.kind.itemsize for item in element.properties))

    def lists(self, element: _Element) -> list[np.ndarray]:
        """The vertex indices of each row of an element."""
        rows = []
        for _ in range(element.count):
            for item in element.properties:
                count = (
                    1 if item.length is None else int(np.frombuffer(self._take(item.length.itemsize), item.length)[0])
                )
                content = self._take(max(count, 0) * item.kind.itemsize)
                if item.length is not None and item.name.startswith("vertex_ind"):
                    rows.append(_signed(np.frombuffer(content, item.kind)))
        return rows

    def _take(self, size: int) -> bytes:
        part = self.data[self.position : self.position + size]
        if len(part) < size:
            raise ValueError("it is cut short")
        self.position += size
        return part


class _Text:
    """Steps through the words of a text file."""

    def __init__(self, data: bytes) -> None:
        self.words, self.position = data.split(), 0

    def copy(self, element: _Element) -> bytes:
        """The lines of an element without lists."""
        width = len(element.properties)
        words = self._take(element.count * width)
        return b"".join(b" ".join(words[k : k + width]) + b"\n" for k in range(0, len(words), width))

    def lists(self, element: _Element) -> list[np.ndarray]:
        """The vertex indices of each row of an element."""
        rows = []
        for _ in range(element.count):
            for item in element.properties:
                words = self._take(1 if item.length is None else int(self._take(1)[0]))
                if item.length is not None and item.name.startswith("vertex_ind"):
                    rows.append(np.array(words, dtype=np.float64).astype(np.int64))
        return rows

    def _take(self, count: int) -> list[bytes]:
        part = self.words[self.position : self.position + count]
        if len(part) < count:
            raise ValueError("it is cut short")
        self.position += count
        return part
