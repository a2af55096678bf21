"""What a fit is pulled toward, per timestep, in the reference frame."""

from dataclasses import dataclass

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
class FrameTarget:
    """All targets of one timestep."""

    landmarks: LandmarkTarget
    surface: SurfaceCloud | None
    """None where the capture has no geometry."""
