"""Splats on a mesh's surface, so that the true surface is known."""

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.splats import Splats, sh_of_colors


def splats_on(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, count: int = 20_000, seed: int = 0, flat: float = 0.1
) -> Splats:
    """Flat opaque splats at evenly spread points; `colors` (V, 3) are the vertices', sRGB 0..1."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    points, face = trimesh.sample.sample_surface_even(mesh, count, seed=seed)
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
    normals = np.einsum("nk,nkc->nc", weights, mesh.vertex_normals[faces[face]])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    side = np.cross(normals, np.where(np.abs(normals[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    axes = np.stack([side, np.cross(normals, side), normals], axis=2)
    size = np.sqrt(mesh.area / len(points))
    shown = np.einsum("nk,nkc->nc", weights, colors[faces[face]])
    return Splats(
        points,
        np.tile(size * np.array([0.8, 0.8, 0.8 * flat]), (len(points), 1)).astype(np.float32),
        Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        np.full(len(points), 0.95, np.float32),
        sh_of_colors(shown)[:, None].astype(np.float32),
    )


def joined(*parts: Splats) -> Splats:
    """All together."""
    names = ("means", "scales", "quats", "opacities", "sh")
    return Splats(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
