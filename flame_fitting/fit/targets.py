"""What a fit is pulled toward, per timestep, in the reference frame."""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel


@dataclass(eq=False)
class LandmarkTarget:
    """3D landmarks that have both a measured point and a place on the head model."""

    points: Tensor
    """(n, 3) m, reference frame."""
    sigma: Tensor
    """(n,) standard deviation, m."""
    weight: Tensor
    """(n,) relative weight, mean 1."""
    corners: Tensor
    """(n, 3) vertex ids."""
    barycentric: Tensor
    """(n, 3)."""
    index: np.ndarray
    """(n,) row in the detector's scheme."""

    def model_points(self, vertices: Tensor) -> Tensor:
        """(n, 3) on vertices (V, 3)."""
        return torch.einsum("nkc,nk->nc", vertices[self.corners], self.barycentric)

    def to(self, device: torch.device) -> "LandmarkTarget":
        """On another device."""
        return moved(self, device)


def make_landmark_target(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    points: np.ndarray,
    spread: np.ndarray,
    weight: np.ndarray,
    floor: float = 0.001,
) -> LandmarkTarget:
    """Keeps the landmarks that are valid on both sides.

    `points` (N, 3) and `spread` (N,) are in the reference frame, m; `weight` (N,) by scheme, 0 drops a point; `floor`
    (m) is the least standard deviation, the detector's own repeatability.
    """
    keep = embedding.valid & np.isfinite(points).all(axis=1) & np.isfinite(spread) & (weight > 0)
    index = np.flatnonzero(keep)
    sigma = np.sqrt(spread[index] ** 2 + (embedding.spread_mm[index] / 1000) ** 2 + floor**2)
    kind = head.v_template.dtype
    corners = head.faces[torch.as_tensor(embedding.face_index[index])]
    chosen = weight[index] / max(weight[index].mean(), 1e-12) if len(index) else weight[index]
    return LandmarkTarget(
        points=torch.as_tensor(points[index], dtype=kind),
        sigma=torch.as_tensor(sigma, dtype=kind),
        weight=torch.as_tensor(chosen, dtype=kind),
        corners=corners,
        barycentric=torch.as_tensor(embedding.barycentric[index], dtype=kind),
        index=index,
    )


@dataclass(eq=False)
class PixelTarget:
    """Detections of landmarks that have no 3D point: one row for each view that saw one."""

    camera: Tensor
    """(m, 3, 4) K-normalised camera from the reference frame (rows x, y, z in metres)."""
    rays: Tensor
    """(m, 2) x / z and y / z of the detected pixel."""
    weight: Tensor
    """(m,) relative weight times confidence."""
    corners: Tensor
    """(m, 3) vertex ids."""
    barycentric: Tensor
    """(m, 3)."""
    sigma: float = 0.002
    """Standard deviation at the head's distance, m."""

    def to(self, device: torch.device) -> "PixelTarget":
        """On another device."""
        return moved(self, device)


def make_pixel_target(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    missing: np.ndarray,
    detections: np.ndarray,
    K: np.ndarray,
    camera: np.ndarray,
    weight: np.ndarray,
    min_confidence: float = 0.5,
) -> PixelTarget | None:
    """2D targets for the landmarks in `missing` (N,), so that no detection counts twice; None where there are none.

    `detections` (C, N, 3) are x px, y px, confidence; `K` (C, 3, 3) and `camera` (C, 4, 4, from the reference frame, m)
    belong to the same views; `weight` (N,) by scheme.
    """
    seen = np.isfinite(detections).all(-1) & (np.nan_to_num(detections[..., 2]) >= min_confidence)
    view, point = np.nonzero(seen & (missing & embedding.valid & (weight > 0))[None])
    if not len(view):
        return None
    homogeneous = np.concatenate([detections[view, point, :2], np.ones((len(view), 1))], axis=1)
    rays = np.einsum("nij,nj->ni", np.linalg.inv(K)[view], homogeneous)[:, :2]
    kind = head.v_template.dtype
    return PixelTarget(
        camera=torch.as_tensor(camera[view, :3], dtype=kind),
        rays=torch.as_tensor(rays, dtype=kind),
        weight=torch.as_tensor(weight[point] * detections[view, point, 2], dtype=kind),
        corners=head.faces[torch.as_tensor(embedding.face_index[point])],
        barycentric=torch.as_tensor(embedding.barycentric[point], dtype=kind),
    )


@dataclass(eq=False)
class FrameTarget:
    """All targets of one timestep."""

    landmarks: LandmarkTarget
    surface: SurfaceCloud | None
    """None where the capture has no geometry."""
    pixels: PixelTarget | None = None
    """Detections of landmarks without a 3D point."""

    def to(self, device: torch.device) -> "FrameTarget":
        """On another device; the surface goes where it is asked for."""
        pixels = self.pixels.to(device) if self.pixels is not None else None
        return FrameTarget(self.landmarks.to(device), self.surface, pixels)


Holder = TypeVar("Holder")


def moved(holder: Holder, device: torch.device) -> Holder:
    """A dataclass with its tensors on another device."""
    tensors = {f.name: value for f in fields(holder) if isinstance(value := getattr(holder, f.name), Tensor)}  # type: ignore[arg-type]
    return replace(holder, **{name: value.to(device) for name, value in tensors.items()})  # type: ignore[type-var]
