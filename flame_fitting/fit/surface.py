"""The avatar's visible surface as an oriented point cloud, and closest-point correspondences on it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import cKDTree
from torch import Tensor

from flame_fitting.capture.camera import move_camera, unproject
from flame_fitting.capture.capture import Capture, View
from flame_fitting.errors import InputError

GRAZING_COSINE = 0.25
"""Pixels whose surface is seen at a flatter angle are left out: their depth is ill-conditioned."""
_STEP_AT_EDGE = 0.010
"""Metres of depth between neighbours that mark an occlusion edge."""

_EDGE_MARGIN = 0.0015
"""Metres along a surface's outline that `fuse_surface` leaves out (a pixel and a half at 512 px)."""


@dataclass(eq=False)
class SurfaceCloud:
    """Points of a surface that was seen from outside, in the reference frame (about metric head space)."""

    points: np.ndarray
    """(M, 3) m."""
    normals: np.ndarray
    """(M, 3) unit, outward."""
    colors: np.ndarray
    """(M, 3) sRGB 0..1."""
    noise: np.ndarray | None = None
    """(M,) standard deviation of each point along its normal, m, where it was measured."""

    def __post_init__(self) -> None:
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree over the points."""
        return cKDTree(self.points)

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Points and normals (M, 3) with the device and precision of another tensor, copied there once."""
        key = (like.device, like.dtype)
        if key not in self._copies:
            self._copies[key] = torch.as_tensor(self.points).to(like), torch.as_tensor(self.normals).to(like)
        return self._copies[key]

    def variance(self, rows: Tensor, like: Tensor) -> Tensor:
        """Squared noise (n,) of some points, m^2, with the precision of another tensor; 0 where none was measured."""
        if self.noise is None:
            return torch.zeros(len(rows), device=like.device, dtype=like.dtype)
        return torch.as_tensor(self.noise[rows.cpu().numpy()] ** 2).to(like)

    def closest(
        self, queries: Tensor, normals: Tensor, max_distance: float, min_cosine: float = 0.5, neighbours: int = 6
    ) -> tuple[Tensor, Tensor]:
        """Nearest point of compatible orientation for each query (n, 3) with unit normal (n, 3).

        Returns indices (n,) and a bool mask (n,) of those that have one within `max_distance` (m), on the queries'
        device. The search itself runs on all cores of the host.
        """
        distance, index = self.tree.query(
            queries.detach().cpu().numpy(), k=neighbours, distance_upper_bound=max_distance, workers=-1
        )
        near = torch.as_tensor(np.isfinite(distance), device=queries.device)
        rows = torch.as_tensor(np.where(np.isfinite(distance), index, 0), device=queries.device)
        facing = (self.tensors(normals)[1][rows] * normals[:, None]).sum(-1) > min_cosine
        compatible = near & facing
        first = compatible.int().argmax(dim=1, keepdim=True)
        return rows.gather(1, first)[:, 0], compatible.any(dim=1)

    def edges_near(self, places: np.ndarray, radius: float = 0.02, neighbours: int = 32) -> np.ndarray:
        """Points (E, 3) of the surface's open edges within about `radius` (m) of `places` (n, 3).

        A point lies on an edge where its neighbours all lie to one side: the middle of a half disc is 0.42 of its
        radius away from the centre of the full one, 0 inside a surface. The points are moved outward by what fusing
        leaves out along an edge.
        """
        near = np.unique(np.concatenate([*map(np.asarray, self.tree.query_ball_point(places, radius)), []])).astype(int)
        if len(self.points) <= neighbours or not len(near):
            return np.zeros((0, 3))
        distance, index = self.tree.query(self.points[near], k=neighbours)
        lean = self.points[index].mean(axis=1) - self.points[near]
        normal = self.normals[near]
        lean -= np.einsum("nc,nc->n", lean, normal)[:, None] * normal
        size = np.linalg.norm(lean, axis=1)
        edge = size > 0.3 * distance[:, -1]
        return self.points[near][edge] - _EDGE_MARGIN * lean[edge] / size[edge][:, None]


@dataclass(eq=False)
class SurfaceView:
    """One view's geometry, in the world."""

    depth: np.ndarray
    """(H, W) along the camera's z, world units, 0 outside."""
    normal: np.ndarray
    """(H, W, 3) world."""
    image: np.ndarray
    """(3, H, W) sRGB."""
    K: np.ndarray
    world_to_camera: np.ndarray
    noise: np.ndarray | None = None
    """(H, W) standard deviation of the surface along its normal, world units; None: not measured."""


def surface_views(capture: Capture, views: list[View]) -> Iterator[SurfaceView]:
    """Geometry of a capture's views, one at a time."""
    for view in views:
        shown = (*capture.geometry(view), capture.image(view))
        yield SurfaceView(*shown, view.K, view.world_to_camera, capture.noise(view))


def fuse_surface(
    views: Iterable[SurfaceView], reference_from_world: np.ndarray, spacing: float = 0.001, radius: float = 0.3
) -> SurfaceCloud:
    """Fuses depth maps into one cloud in the reference frame.

    `spacing` (m) is the edge of the voxels of which one point each is kept, the one seen most squarely and with the
    least noise. Points farther than `radius` (m) from the reference frame's origin are left out (bodies, stands).
    """
    gathered: list[tuple[np.ndarray, ...]] = []
    scale = float(np.cbrt(np.linalg.det(reference_from_world[:3, :3])))
    rotation = reference_from_world[:3, :3] / scale
    measured = False
    for view in views:
        metric = view.depth * scale
        inside = view.depth > 0
        span = maximum_filter(metric, 3) - minimum_filter(np.where(inside, metric, np.inf), 3)
        inside &= (span < _STEP_AT_EDGE) & (minimum_filter(view.depth, 3) > 0)
        rows, cols = np.nonzero(inside)
        pixels = np.stack([cols + 0.5, rows + 0.5], axis=1)
        camera = move_camera(view.world_to_camera, reference_from_world)
        points = unproject(pixels, metric[rows, cols], view.K, camera)
        normals = view.normal[rows, cols].astype(np.float64) @ rotation.T
        toward = np.linalg.inv(camera)[:3, 3] - points
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        cosine = np.einsum("nc,nc->n", normals, toward)
        keep = (cosine > GRAZING_COSINE) & (np.linalg.norm(points, axis=1) < radius)
        colors = view.image[:, rows[keep], cols[keep]].T
        noise = np.zeros(len(rows)) if view.noise is None else scale * view.noise[rows, cols].astype(np.float64)
        measured |= view.noise is not None
        gathered.append((points[keep], normals[keep], colors, cosine[keep], noise[keep]))
    points, normals, colors, cosine, noise = (np.concatenate(parts) for parts in zip(*gathered, strict=True))
    if not len(points):
        raise InputError("the depth maps show no surface near the head. Render the avatar again.")
    kept = _best_of_voxel(points, cosine / (1 + (noise / spacing) ** 2), spacing)
    normals = normals[kept] / np.maximum(np.linalg.norm(normals[kept], axis=1, keepdims=True), 1e-12)
    return SurfaceCloud(points[kept], normals, colors[kept], noise[kept] if measured else None)


def _best_of_voxel(points: np.ndarray, score: np.ndarray, spacing: float) -> np.ndarray:
    """Index of the best-scored point of each occupied voxel, in a fixed order."""
    voxel = np.floor(points / spacing).astype(np.int64)
    voxel -= voxel.min(axis=0)
    size = voxel.max(axis=0) + 1
    key = (voxel[:, 0] * size[1] + voxel[:, 1]) * size[2] + voxel[:, 2]
    order = np.lexsort((-score, key))
    first = np.ones(len(order), dtype=bool)
    first[1:] = key[order[1:]] != key[order[:-1]]
    return order[first]
