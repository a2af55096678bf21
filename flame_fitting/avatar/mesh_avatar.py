"""A textured triangle mesh as an avatar."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from flame_fitting.avatar.interface import OUTPUTS, RenderedViews
from flame_fitting.avatar.mesh import MeshPart, faces_of, split_by_index, vertices_of, with_alpha
from flame_fitting.avatar.normals import angle_weighted_normals
from flame_fitting.avatar.render_scene import RenderScene, build_scene
from flame_fitting.avatar.rendering import draw_scene
from flame_fitting.capture.camera import transform_points
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import face_normals


@dataclass(eq=False)
class MeshAvatar:
    """See `interface.Avatar`."""

    parts: list[MeshPart]
    """Not to be changed once it was drawn."""
    path: Path
    file_hash: str
    format: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def geometry(self) -> Literal["mesh"]:
        """Triangles."""
        return "mesh"

    @property
    def vertices(self) -> Float[np.ndarray, "V 3"]:
        """Vertices of all parts, one after the other."""
        return vertices_of(self.parts)

    @property
    def faces(self) -> Int[np.ndarray, "F 3"]:
        """Triangles of all parts, indices into `vertices`."""
        return faces_of(self.parts)

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Smallest and largest coordinates."""
        vertices = self.vertices
        return np.stack([vertices.min(axis=0), vertices.max(axis=0)])

    @property
    def points(self) -> Float[np.ndarray, "N 3"]:
        """Its vertices."""
        return self.vertices

    @property
    def has_color(self) -> bool:
        """Whether a good part of the surface has a texture or vertex colours that vary.

        Where only the eyes have a picture and the skin is plain, clay shows the face better.
        """
        areas = [float(face_normals(part.vertices, part.faces)[1].sum()) for part in self.parts]
        colored = sum(area for area, part in zip(areas, self.parts, strict=True) if _varies(part))
        return colored > 0.2 * sum(areas)

    @cached_property
    def scene(self) -> RenderScene:
        """What the drawing kernels take."""
        return build_scene(self.parts)

    def normalized(self, center: Float[np.ndarray, " 3"], scale: float) -> "MeshAvatar":
        """The avatar in the frame of (x - center) / scale."""
        parts = [replace(part, vertices=(part.vertices - center) / scale) for part in self.parts]
        return replace(self, parts=parts)

    def settled(
        self, K: Float[np.ndarray, "V 3 3"], world_to_camera: Float[np.ndarray, "V 4 4"], size: int
    ) -> "MeshAvatar":
        """Itself."""
        return self

    @property
    def unseen(self) -> Bool[np.ndarray, " V"]:
        """See `interface.Avatar.unseen`."""
        return np.zeros(0, dtype=bool)

    def draw(
        self,
        K: Float[np.ndarray, "B 3 3"],
        world_to_camera: Float[np.ndarray, "B 4 4"],
        width: int,
        height: int,
        shading: str = "unlit",
        background: Iterable[float | int] = (1.0, 1.0, 1.0),
        supersample: int = 2,
        light_rotation: Float[np.ndarray, "3 3"] | None = None,
        outputs: Iterable[str] = OUTPUTS,
    ) -> RenderedViews:
        """See `interface.Avatar.draw`; on the CPU."""
        return draw_scene(
            self.scene, K, world_to_camera, width, height, shading, background, supersample, light_rotation, outputs
        )

    def seen_surface(self, points: Float[np.ndarray, "M 3"], head_from_world: Float[np.ndarray, "4 4"]) -> TriangleTree:
        """The triangles that seen points lie on, and their neighbours by a vertex (pixels may miss small ones)."""
        vertices, faces = transform_points(head_from_world, self.vertices), self.faces
        hit = np.zeros(len(vertices), dtype=bool)
        hit[faces[np.unique(TriangleTree(vertices, faces).closest(points).face)]] = True
        return TriangleTree(vertices, faces[hit[faces].any(axis=1)])


def avatar_from_arrays(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uv: Float[np.ndarray, "VT 2"] | None = None,
    uv_faces: Int[np.ndarray, "F 3"] | None = None,
    texture: UInt8[np.ndarray, "h w C"] | None = None,
    vertex_colors: Float[np.ndarray, "V C"] | None = None,
    name: str = "mesh",
) -> MeshAvatar:
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
    return MeshAvatar([part], Path(name), "", "memory")


def _varies(part: MeshPart, spread: float = 0.01) -> bool:
    if part.vertex_colors is not None and part.vertex_colors[:, :3].std(axis=0).max() > spread:
        return True
    if part.texture is None or part.uv is None:
        return False
    height, width = part.texture.shape[:2]
    columns = np.floor(part.uv[:, 0] % 1.0 * width).astype(int).clip(0, width - 1)
    rows = np.floor((1.0 - part.uv[:, 1]) % 1.0 * height).astype(int).clip(0, height - 1)
    return bool(part.texture[rows, columns, :3].std(axis=0).max() > spread * 255)
