"""Triangle parts with their base colour, and what reading and drawing them shares."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from flame_fitting.capture.color_correction import linear_to_srgb

WRAP_MODES = ("repeat", "clamp", "mirror")
WHITE = (1.0, 1.0, 1.0, 1.0)


@dataclass
class MeshPart:
    """One mesh with one material. Colours are sRGB; factor, texture and vertex colours are multiplied."""

    vertices: Float[np.ndarray, "V 3"]
    """World coordinates, float64."""
    faces: Int[np.ndarray, "F 3"]
    """Vertex indices, int64; counter-clockwise seen from outside where the file says so."""
    name: str = ""
    normals: Float[np.ndarray, "V 3"] | None = None
    """Unit normals from the file, or None."""
    uv: Float[np.ndarray, "V 2"] | None = None
    """Texture coordinates, (0, 0) at the bottom-left of the picture (OBJ convention)."""
    texture: UInt8[np.ndarray, "h w 4"] | None = None
    """Base colour, row 0 is the top of the picture."""
    vertex_colors: Float[np.ndarray, "V 4"] | None = None
    base_color: tuple[float, float, float, float] = WHITE
    alpha_mode: str = "opaque"
    """opaque: alpha is ignored; mask, blend: a surface point is there where its alpha reaches `alpha_cutoff`."""
    alpha_cutoff: float = 0.5
    double_sided: bool = False
    wrap: tuple[str, str] = ("repeat", "repeat")
    """How the texture continues outside 0..1 along u and v: repeat, clamp or mirror."""


def vertices_of(parts: Sequence[MeshPart]) -> Float[np.ndarray, "V 3"]:
    """Vertices of all parts, one after the other."""
    return np.concatenate([part.vertices for part in parts])


def faces_of(parts: Sequence[MeshPart]) -> Int[np.ndarray, "F 3"]:
    """Triangles of all parts, indices into `vertices_of`."""
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])


def with_alpha(colors: Float[np.ndarray, "V C"]) -> Float[np.ndarray, "V 4"]:
    """Colours with an alpha of 1 added where they have three channels."""
    if colors.shape[1] == 4:
        return colors
    return np.concatenate([colors[:, :3], np.ones((len(colors), 1))], axis=1)


def split_by_index(
    *corners: Int[np.ndarray, "F 3"],
) -> tuple[Int[np.ndarray, "F 3"], list[Int[np.ndarray, " V"]]]:
    """One index for attributes that each have their own: new faces, and for each attribute the row of every vertex."""
    keys = np.stack([index.reshape(-1) for index in corners], axis=1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    return inverse.reshape(-1, 3).astype(np.int64), list(unique.T)


def fan_triangles(sizes: Int[np.ndarray, " P"]) -> Int[np.ndarray, "F 3"]:
    """Corner numbers (F, 3) of the triangles that polygons of these sizes are cut into."""
    triangles = sizes - 2
    start = np.repeat(np.cumsum(sizes) - sizes, triangles)
    step = np.arange(int(triangles.sum())) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return np.stack([start, start + step + 1, start + step + 2], axis=1)


def srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    """The sRGB transfer function (IEC 61966-2-1) on values in 0..1."""
    return linear_to_srgb(np.asarray(np.clip(linear, 0.0, 1.0)))
