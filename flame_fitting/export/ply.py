"""Binary PLY files of meshes and points, with normals and colours."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from flame_fitting.files import atomic_write

_FAR = 100.0
"""Meshes that lie this many times their own size from the origin are written in double precision."""


def write_ply(
    path: Path | str,
    vertices: Float[ndarray, "V 3"],
    faces: Int[ndarray, "F 3"] | None = None,
    normals: Float[ndarray, "V 3"] | None = None,
    colors: UInt8[ndarray, "V 3"] | None = None,
) -> None:
    """Writes vertices in their order, little-endian; single precision unless that would spoil the shape.

    Properties are x, y, z, then where given nx, ny, nz, then red, green, blue (sRGB); triangles `vertex_indices`.
    """
    points = np.asarray(vertices, dtype=np.float64)
    extent, reach = np.ptp(points, axis=0).max(initial=0.0), np.abs(points).max(initial=0.0)
    real, name = ("<f8", "double") if reach > _FAR * extent > 0 else ("<f4", "float")
    kinds = [(axis, real) for axis in "xyz"]
    kinds += [(f"n{axis}", "<f4") for axis in "xyz"] if normals is not None else []
    kinds += [(channel, "u1") for channel in ("red", "green", "blue")] if colors is not None else []
    columns = np.zeros(len(points), dtype=kinds)
    for values, names in ((points, "xyz"), (normals, ("nx", "ny", "nz")), (colors, ("red", "green", "blue"))):
        if values is not None:
            for axis, column in enumerate(names):
                columns[column] = values[:, axis]
    words = {"<f8": "double", "<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", "comment flame-fitting", f"element vertex {len(points)}"]
    lines += [f"property {name if column in 'xyz' else words[kind]} {column}" for column, kind in kinds]
    triangles = np.zeros(0 if faces is None else len(faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        triangles["count"], triangles["index"] = 3, faces
    header = "\n".join([*lines, "end_header"]) + "\n"
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(header.encode("ascii") + columns.tobytes() + triangles.tobytes())
