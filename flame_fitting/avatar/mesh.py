"""A static avatar in memory: triangle parts with their base colour."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from flame_fitting.avatar.normals import angle_weighted_normals
from flame_fitting.maths.normals import face_normals

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


@dataclass
class Avatar:
    """A static avatar in its own coordinates and unit."""

    parts: list[MeshPart]
    path: Path
    file_hash: str
    """SHA-256 of the file, and of the files it refers to where there are any."""
    format: str
    """Suffix of the file: glb, vrm, gltf, obj, ply, stl, off; or memory."""
    notes: list[str] = field(default_factory=list)
    """What was done to the file's content, in plain words."""
    warnings: list[str] = field(default_factory=list)
    """What the file lacks that makes a fit worse, such as pictures that are not there."""
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What renderers derive from the parts and want to keep."""

    @property
    def vertices(self) -> Float[np.ndarray, "V 3"]:
        """Vertices of all parts, one after the other."""
        return np.concatenate([part.vertices for part in self.parts])

    @property
    def faces(self) -> Int[np.ndarray, "F 3"]:
        """Triangles of all parts, indices into `vertices`."""
        offsets = np.cumsum([0] + [len(part.vertices) for part in self.parts[:-1]])
        return np.concatenate([part.faces + offset for part, offset in zip(self.parts, offsets, strict=True)])

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Smallest and largest coordinates."""
        vertices = self.vertices
        return np.stack([vertices.min(axis=0), vertices.max(axis=0)])

    @property
    def has_color(self) -> bool:
        """Whether a good part of the surface has a texture or vertex colours that vary.

        Where only the eyes have a picture and the skin is plain, clay shows the face better.
        """
        areas = [float(face_normals(part.vertices, part.faces)[1].sum()) for part in self.parts]
        colored = sum(area for area, part in zip(areas, self.parts, strict=True) if _varies(part))
        return colored > 0.2 * sum(areas)


def _varies(part: MeshPart, spread: float = 0.01) -> bool:
    if part.vertex_colors is not None and part.vertex_colors[:, :3].std(axis=0).max() > spread:
        return True
    if part.texture is None or part.uv is None:
        return False
    height, width = part.texture.shape[:2]
    columns = np.floor(part.uv[:, 0] % 1.0 * width).astype(int).clip(0, width - 1)
    rows = np.floor((1.0 - part.uv[:, 1]) % 1.0 * height).astype(int).clip(0, height - 1)
    return bool(part.texture[rows, columns, :3].std(axis=0).max() > spread * 255)


def avatar_from_arrays(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uv: Float[np.ndarray, "VT 2"] | None = None,
    uv_faces: Int[np.ndarray, "F 3"] | None = None,
    texture: UInt8[np.ndarray, "h w C"] | None = None,
    vertex_colors: Float[np.ndarray, "V C"] | None = None,
    name: str = "mesh",
) -> Avatar:
    """An avatar in memory, for example from a head model. `uv` has its own index `uv_faces`, or is per vertex.

    With an index of its own, vertices on UV seams are doubled, so the avatar's vertex order is not the given one.
    """
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    faces = np.ascontiguousarray(faces, dtype=np.int64)
    colors = None if vertex_colors is None else with_alpha(np.asarray(vertex_colors, dtype=np.float64))
    normals = None
    if uv is not None and uv_faces is not None:
        normals = angle_weighted_normals(vertices, faces)
        faces, (source, uv_source) = split_by_index(faces, np.asarray(uv_faces, dtype=np.int64))
        vertices, uv, normals = vertices[source], np.asarray(uv)[uv_source], normals[source]
        colors = None if colors is None else colors[source]
    if texture is not None and texture.shape[2] == 3:
        texture = np.concatenate([texture, np.full_like(texture[..., :1], 255)], axis=2)
    part = MeshPart(
        vertices, faces, name, normals, None if uv is None else np.asarray(uv, dtype=np.float64), texture, colors
    )
    return Avatar([part], Path(name), "", "memory")


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
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
