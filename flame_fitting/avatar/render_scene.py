"""A mesh as the flat arrays that the drawing kernels take. Made once per avatar."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from flame_fitting.avatar.mesh import WRAP_MODES, MeshPart, faces_of, vertices_of
from flame_fitting.avatar.normals import angle_weighted_normals
from flame_fitting.avatar.raster_kernels import rasterize
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.maths.normals import face_normals


@dataclass
class RenderScene:
    """All parts one after the other; tables as `raster_kernels.rasterize` describes them."""

    vertices: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    face_part: Int[np.ndarray, " F"]
    part_table: Int[np.ndarray, "P 8"]
    part_factor: Float[np.ndarray, "P 5"]
    uv: Float[np.ndarray, "V 2"]
    vertex_colors: Float[np.ndarray, "C 4"]
    """One row a vertex, or a single row where no part has vertex colours."""
    texels: UInt8[np.ndarray, "N 4"]
    center: Float[np.ndarray, " 3"]
    radius: float
    """Centre and radius of a sphere around all vertices."""
    occlusion: Float[np.ndarray, " V"] | None = None

    @property
    def near(self) -> float:
        """Depth below which nothing is drawn."""
        return 1e-4 * self.radius

    def rasterize(self, points: Float[np.ndarray, "B V 3"], width: int, height: int, bands: int = 4):
        """1/depth (B, H, W) and face (B, H, W) seen at every pixel centre."""
        inverse = np.empty((len(points), height, width), dtype=np.float32)
        winner = np.empty((len(points), height, width), dtype=np.int32)
        alpha = np.ascontiguousarray(self.vertex_colors[:, 3])
        rasterize(
            points,
            self.faces,
            self.face_part,
            self.part_table,
            self.part_factor,
            self.uv,
            alpha,
            self.texels,
            self.near,
            bands,
            inverse,
            winner,
        )
        return inverse, winner

    def project(self, K: Float[np.ndarray, "B 3 3"], world_to_camera: Float[np.ndarray, "B 4 4"], scale: float = 1.0):
        """Homogeneous pixel coordinates (B, V, 3) in pictures `scale` times as large as `K` says."""
        projection = np.diag([scale, scale, 1.0]) @ K @ world_to_camera[:, :3]
        return self.vertices @ projection[:, :, :3].swapaxes(1, 2) + projection[:, None, :, 3]


def build_scene(parts: list[MeshPart]) -> RenderScene:
    """The parts together."""
    counts = [len(part.vertices) for part in parts]
    vertices, faces = np.ascontiguousarray(vertices_of(parts)), np.ascontiguousarray(faces_of(parts))
    uv = np.concatenate(
        [part.uv if part.uv is not None else np.zeros((n, 2)) for part, n in zip(parts, counts, strict=True)]
    )
    colors = np.ones((1, 4))
    if any(part.vertex_colors is not None for part in parts):
        ones = [np.ones((n, 4)) for n in counts]
        colors = np.concatenate(
            [
                part.vertex_colors if part.vertex_colors is not None else one
                for part, one in zip(parts, ones, strict=True)
            ]
        )
    table, factor, texels = _material_tables(parts)
    center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    return RenderScene(
        vertices=vertices,
        normals=_normals(parts, vertices, faces),
        faces=faces,
        face_part=np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts]),
        part_table=table,
        part_factor=factor,
        uv=np.ascontiguousarray(uv, dtype=np.float64),
        vertex_colors=np.ascontiguousarray(colors, dtype=np.float64),
        texels=texels,
        center=center,
        radius=float(np.linalg.norm(vertices - center, axis=1).max()),
    )


def _normals(parts: list[MeshPart], vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The file's normals where they agree with the triangles, else our own, smooth over parts that touch."""
    given = [part.normals is not None and _agree(part) for part in parts]
    own = np.zeros_like(vertices) if all(given) else angle_weighted_normals(vertices, faces)
    start = 0
    for part, use in zip(parts, given, strict=True):
        stop = start + len(part.vertices)
        if use and part.normals is not None:
            own[start:stop] = part.normals
        start = stop
    return own


def _agree(part: MeshPart, share: float = 0.9) -> bool:
    if part.normals is None:
        return False
    normals, area = face_normals(part.vertices, part.faces)
    cosine = np.abs(np.einsum("fkc,fc->fk", part.normals[part.faces], normals)).mean(axis=1)
    return bool((area * (cosine > 0.5)).sum() >= share * area.sum())


def _material_tables(parts: list[MeshPart]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.zeros((len(parts), 8), dtype=np.int64)
    factor = np.zeros((len(parts), 5))
    chunks: list[np.ndarray] = []
    known: dict[tuple[int, bool], tuple[int, int]] = {}
    size = 0
    for row, part in enumerate(parts):
        tested = part.alpha_mode != "opaque"
        factor[row] = [*part.base_color, part.alpha_cutoff]
        table[row, 4:] = [*(WRAP_MODES.index(mode) for mode in part.wrap), tested, part.vertex_colors is not None]
        if part.texture is None or part.uv is None:
            continue
        key = (id(part.texture), tested)
        if key not in known:
            levels = mip_levels(part.texture, tested)
            known[key] = (size, len(levels))
            chunks += [level.reshape(-1, 4) for level in levels]
            size += sum(level.shape[0] * level.shape[1] for level in levels)
        start, count = known[key]
        table[row, :4] = [start, part.texture.shape[1], part.texture.shape[0], count]
    texels = np.concatenate(chunks) if chunks else np.zeros((1, 4), dtype=np.uint8)
    return table, factor, np.ascontiguousarray(texels)


def mip_levels(texture: UInt8[np.ndarray, "h w 4"], with_alpha: bool) -> list[np.ndarray]:
    """The picture and its halvings down to 1x1 (sizes rounded up). Colours are averaged weighted by alpha."""
    level = texture.copy()
    if not with_alpha:
        level[..., 3] = 255
    levels = [level]
    while max(level.shape[:2]) > 1:
        height, width = level.shape[:2]
        padded = np.pad(level, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not with_alpha:  # whole numbers are many times as fast, and round as below: halves to even
            rows = padded[0::2].astype(np.uint16) + padded[1::2]
            fours = rows[:, 0::2] + rows[:, 1::2]
            level = ((fours + 1 + (fours >> 2 & 1)) >> 2).astype(np.uint8)
            levels.append(level)
            continue
        padded = padded.astype(np.float32)
        weight = padded[..., 3:]
        sums = np.concatenate([padded[..., :3] * weight, weight], axis=2)
        sums = sums[0::2] + sums[1::2]
        sums = sums[:, 0::2] + sums[:, 1::2]
        color = sums[..., :3] / np.maximum(sums[..., 3:], 1e-6)
        level = np.concatenate([color, sums[..., 3:] / 4], axis=2).round().clip(0, 255).astype(np.uint8)
        levels.append(level)
    return levels


def ambient_occlusion(scene: RenderScene, resolution: int = 384) -> Float[np.ndarray, " V"]:
    """Share of the sky that each vertex sees, cosine-weighted, by shadow maps from 48 directions; kept in the scene.

    The directions are closed under the 24 rotations that permute the axes, so that an avatar which was turned between
    axes gets the same values. The side of a vertex that sees more counts: normals may point inwards.
    """
    if scene.occlusion is None:
        scene.occlusion = open_sky_by_side(scene, resolution).max(axis=0)
    return scene.occlusion


def open_sky_by_side(scene: RenderScene, resolution: int = 384) -> Float[np.ndarray, "2 V"]:
    """The same for the side that each vertex's normal points to, and for the other one."""
    directions = _directions()
    distance = 20.0 * scene.radius
    eyes = scene.center + distance * directions
    ups = np.where(np.abs(directions[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    world_to_camera = look_at(eyes, scene.center, ups)
    fov = 2.0 * np.degrees(np.arcsin(1.02 / 20.0))
    K = np.broadcast_to(intrinsics_from_fov(float(fov), resolution, resolution), (len(eyes), 3, 3))
    tolerance = 3.0 * (2.0 * scene.radius / resolution) / distance
    total = np.zeros((2, len(scene.vertices)))
    weight = np.full((2, len(scene.vertices)), 1e-9)
    for first in range(0, len(eyes), 8):
        chunk = slice(first, first + 8)
        points = scene.project(np.ascontiguousarray(K[chunk]), world_to_camera[chunk])
        inverse, _ = scene.rasterize(points, resolution, resolution)
        pixels = np.clip(points[..., :2] / points[..., 2:], 0, resolution - 1).astype(np.int64)
        surface = np.take_along_axis(inverse.reshape(len(points), -1), pixels[..., 1] * resolution + pixels[..., 0], 1)
        seen = points[..., 2] * surface <= 1.0 + tolerance
        cosine = directions[chunk] @ scene.normals.T
        for side, sign in enumerate((1.0, -1.0)):
            facing = np.maximum(sign * cosine, 0.0)
            total[side] += (facing * seen).sum(axis=0)
            weight[side] += facing.sum(axis=0)
    return total / weight


def _directions() -> np.ndarray:
    """48 unit vectors: the orbits of two generic ones under the rotations of the cube."""
    turns = []
    for axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2), (0, 2, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            matrix = np.zeros((3, 3))
            matrix[range(3), axes] = 1.0 - 2.0 * np.array(signs)
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    seeds = np.array([[0.21, 0.47, 0.86], [0.36, 0.63, 0.69]])
    seeds /= np.linalg.norm(seeds, axis=1, keepdims=True)
    return np.concatenate([np.stack(turns) @ seed for seed in seeds])
