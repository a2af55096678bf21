"""PLY files as rows, and as plain triangles: strips (`tristrips`, as scanners write) and polygons of mixed sizes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from flame_fitting.avatar.mesh import fan_triangles

_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
_TYPES |= {"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_TYPES |= {"float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"}

_MOST_HEADER = 100_000
"""Bytes in which a header ends."""


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


def has_strips(content: bytes) -> bool:
    """Whether the header names an element `tristrips`."""
    return b"element tristrips" in content.partition(b"end_header")[0]


def as_triangles(content: bytes) -> bytes:
    """The file with vertices and triangles only: what readers of the `face` element with one size of polygon can read.

    Colours of faces and texture coordinates of their corners stay, unless there are strips, which have none. Raises
    ValueError where the file is cut short.
    """
    lines, order, elements, body = _parts(content)
    reader = _Binary(body) if order else _Text(body)
    vertices, faces = b"", [np.zeros((0, 3), np.int64)]
    extra: dict[str, list[np.ndarray]] = {}
    for element in elements:
        if element.name == "vertex":
            vertices = reader.copy(element)
            continue
        for row in reader.rows(element):
            indices = next((value for name, value in row.items() if name.startswith("vertex_ind")), None)
            if element.name == "tristrips" and indices is not None:
                faces.append(strip_triangles(_signed(indices)))
            elif element.name == "face" and indices is not None and len(indices) > 2:
                corners = fan_triangles(np.array([len(indices)]))
                faces.append(_signed(indices)[corners])
                for name, value in row.items():
                    if name == "texcoord" and len(value) == 2 * len(indices):
                        extra.setdefault(name, []).append(value.reshape(-1, 2)[corners].reshape(-1, 6))
                    elif len(value) == 1:
                        extra.setdefault(name, []).append(np.tile(value, (len(corners), 1)))
    triangles = np.concatenate(faces)
    kept = {name: np.concatenate(values) for name, values in extra.items()}
    kept = {name: values for name, values in kept.items() if len(values) == len(triangles)}
    header = [line for line in lines if line.split()[:1] in (["ply"], ["format"], ["comment"], ["obj_info"])]
    header += next((element.header for element in elements if element.name == "vertex"), [])
    header += [f"element face {len(triangles)}", "property list uchar int vertex_indices"]
    header += [_header_of(name, values) for name, values in kept.items()]
    data = _face_data(triangles, kept, order)
    return "\n".join([*header, "end_header"]).encode() + b"\n" + vertices + data


def vertex_properties(content: bytes) -> set[str]:
    """Names of the properties of the element `vertex`; none where there is no PLY header."""
    head, found, _ = content[:_MOST_HEADER].partition(b"end_header")
    if not content.startswith(b"ply") or not found:
        return set()
    names: set[str] = set()
    element = ""
    for line in head.decode("ascii", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["element"] and len(words) > 1:
            element = words[1]
        elif words[:1] == ["property"] and element == "vertex":
            names.add(words[-1])
    return names


def element_rows(content: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Elements without lists as structured arrays, those of `names` that the file has.

    Raises ValueError where it is cut short. Nothing is taken on trust: memory is bounded by the file's own size.
    """
    _, order, elements, body = _parts(content)
    reader = _Binary(body) if order else _Text(body)
    rows: dict[str, np.ndarray] = {}
    for element in elements:
        if not set(names) - set(rows):
            break
        data = reader.copy(element)
        kind = np.dtype([(item.name, item.kind) for item in element.properties])
        if element.name not in names:
            continue
        if order:
            rows[element.name] = np.frombuffer(data, kind)
        else:
            values = np.array(data.split(), dtype=np.float64).reshape(element.count, len(element.properties))
            rows[element.name] = np.rec.fromarrays(list(values.T), dtype=kind)
    return rows


def _parts(content: bytes) -> tuple[list[str], str, list[_Element], bytes]:
    """Lines of the header, the byte order (empty: text), the elements, and the data."""
    head, _, body = content.partition(b"end_header")
    lines = [line.strip() for line in head.decode("ascii", errors="replace").splitlines()]
    form = next((line.split()[1] for line in lines if line.startswith("format")), "")
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(form, "")
    return lines, order, _elements(lines, order or "<"), body.partition(b"\n")[2]


def _header_of(name: str, values: np.ndarray) -> str:
    kind = "uchar" if values.dtype == np.uint8 else "double"
    return f"property list uchar {kind} {name}" if values.shape[1] > 1 else f"property {kind} {name}"


def _face_data(triangles: np.ndarray, extra: dict[str, np.ndarray], order: str) -> bytes:
    """Rows of `element face`: the list of vertices, then the others as `_header_of` announces them."""
    columns: list[tuple[str, np.ndarray]] = [("u1", np.full((len(triangles), 1), 3)), ("i4", triangles)]
    for values in extra.values():
        columns += [("u1", np.full((len(values), 1), values.shape[1]))] if values.shape[1] > 1 else []
        columns.append(("u1" if values.dtype == np.uint8 else "f8", values))
    if not order:
        rows = zip(*(column.tolist() for _, column in columns), strict=True)
        return "".join(" ".join(repr(x) for part in row for x in part) + "\n" for row in rows).encode()
    kinds = [(f"c{k}", order + kind, column.shape[1]) for k, (kind, column) in enumerate(columns)]
    table = np.empty(len(triangles), dtype=kinds)
    for k, (_, column) in enumerate(columns):
        table[f"c{k}"] = column.reshape(table[f"c{k}"].shape)
    return table.tobytes()


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

    def rows(self, element: _Element) -> Iterator[dict[str, np.ndarray]]:
        """The values of each row by property; a single value is an array of one."""
        for _ in range(element.count):
            row = {}
            for item in element.properties:
                count = (
                    1 if item.length is None else int(np.frombuffer(self._take(item.length.itemsize), item.length)[0])
                )
                row[item.name] = np.frombuffer(self._take(max(count, 0) * item.kind.itemsize), item.kind)
            yield row

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

    def rows(self, element: _Element) -> Iterator[dict[str, np.ndarray]]:
        """The values of each row by property; a single value is an array of one."""
        for _ in range(element.count):
            row = {}
            for item in element.properties:
                words = self._take(1 if item.length is None else int(self._take(1)[0]))
                row[item.name] = np.array(words, dtype=np.float64).astype(item.kind)
            yield row

    def _take(self, count: int) -> list[bytes]:
        part = self.words[self.position : self.position + count]
        if len(part) < count:
            raise ValueError("it is cut short")
        self.position += count
        return part
