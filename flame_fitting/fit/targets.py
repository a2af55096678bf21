"""What a fit is pulled toward, per timestep, in the reference frame."""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import clip_from_world
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.evidence import Evidence
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.render.mesh import clip_positions, zoomed_clip


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
    scheme: str = "mediapipe478"
    """Which points these are."""

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
    scheme: str = "mediapipe478",
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
        scheme=scheme,
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
    view: Tensor
    """(m,) number of the view that saw it."""
    index: Tensor
    """(m,) row in the detector's scheme."""
    points: int
    """Different landmarks among them."""
    sigma: float = 0.002
    """Standard deviation at the head's distance, m."""

    def to(self, device: torch.device) -> "PixelTarget":
        """On another device."""
        return moved(self, device)


_CONFIDENT = 0.5
"""Confidence from which on a detection counts where it stands alone."""


def trusted(detections: np.ndarray) -> np.ndarray:
    """Which of detections (..., 3: x px, y px, confidence) count where they stand alone, bool (...)."""
    return np.isfinite(detections).all(-1) & (np.nan_to_num(detections[..., 2]) >= _CONFIDENT)


def make_pixel_target(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    missing: np.ndarray,
    detections: np.ndarray,
    K: np.ndarray,
    camera: np.ndarray,
    weight: np.ndarray,
) -> PixelTarget | None:
    """2D targets for the landmarks in `missing` (N,), so that no detection counts twice; None where there are none.

    `detections` (C, N, 3) are x px, y px, confidence; `K` (C, 3, 3) and `camera` (C, 4, 4, from the reference frame, m)
    belong to the same views; `weight` (N,) by scheme.
    """
    view, point = np.nonzero(trusted(detections) & (missing & embedding.valid & (weight > 0))[None])
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
        view=torch.as_tensor(view),
        index=torch.as_tensor(point),
        points=len(np.unique(point)),
    )


@dataclass(eq=False)
class DetectionTarget:
    """Detections of landmarks as they stand in B pictures, for first-order stages.

    Coordinates in pictures are isotropic: pixels from the picture's centre, over half of its longer side; x right, y
    down. (VHAP divides x by the width and y by the height, which weighs the two differently in pictures that are not
    square.)
    """

    clip: Tensor
    """(B, 4, 4) clip space from the reference frame, float32."""
    points: Tensor
    """(B, N, 2) detected; 0 where nothing was."""
    weight: Tensor
    """(B, N) confidence times visibility; of the outline the bare confidence."""
    aspect: Tensor
    """(B, 1, 2) isotropic coordinates from the x and y of normalised device coordinates."""
    corners: Tensor
    """(N, 3) vertex ids."""
    barycentric: Tensor
    """(N, 3)."""
    ibug: Tensor
    """(N,) number in the iBUG-68 order, -1 for points without one (irises, more of the outline)."""
    outline: Tensor
    """(N,) bool: jaw line and outline of the face, which are no fixed points of the head in a turned view."""
    searched: int = 0
    """Views that a face was searched in, over which means are taken; at least B."""
    confidence: Tensor | None = None
    """(B, N) `weight` of points that look away from the camera, too; None: as `weight`."""

    def project(self, vertices: Tensor) -> Tensor:
        """(B, N, 2) where the points of the head with vertices (V, 3) are in the pictures."""
        corners = vertices.index_select(0, self.corners.reshape(-1)).reshape(-1, 3, 3)
        clipped = clip_positions((corners * self.barycentric[..., None]).sum(1)[None], self.clip)
        return self.in_picture(clipped)

    def in_picture(self, clipped: Tensor) -> Tensor:
        """(..., 2) isotropic coordinates of clip-space points (..., 4)."""
        return clipped[..., :2] / clipped[..., 3:].clamp_min(1e-6) * self.aspect

    def to(self, device: torch.device) -> "DetectionTarget":
        """On another device."""
        return moved(self, device)


FACING = (0.17, 0.34)
"""Cosine between normal and view direction below which a landmark is not seen, and from which it counts fully."""


def make_detection_target(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    scheme: str,
    detections: np.ndarray,
    K: np.ndarray,
    camera: np.ndarray,
    size: np.ndarray | tuple[int, int],
    searched: int = 0,
) -> DetectionTarget:
    """The iBUG-68 points, irises and outline among `detections` (C, N, 3: x px, y px, confidence), all of one scheme.

    `K` (C, 3, 3) and `camera` (C, 4, 4, from the reference frame, m) belong to the same views; `size`, (C, 2) or
    (2,), is their width and height, px; `searched` counts the views in which nothing was found, too.
    Visibility is that of the template in the reference frame.
    """
    order = scheme_named(scheme)
    groups, of_ibug, outline = order.groups, order.ibug68, order.groups[order.contour]
    chosen = np.unique(np.concatenate([of_ibug, groups.get("irises", np.zeros(0, dtype=int)), outline]))
    chosen = chosen[embedding.valid[chosen]]
    number = np.full(embedding.valid.shape, -1)
    number[of_ibug] = np.arange(len(of_ibug))
    size = np.broadcast_to(np.asarray(size, dtype=np.float64), (len(detections), 2))
    longer = size.max(axis=1)[:, None, None]
    found = detections[:, chosen]
    seen = np.isfinite(found).all(-1)
    found = np.where(seen[..., None], found, 0.0)
    centred = (found[..., :2] - size[:, None] / 2) / (longer / 2)
    corners = head.faces[torch.as_tensor(embedding.face_index[chosen])].cpu()
    barycentric = embedding.barycentric[chosen]
    vertices = head.v_template.double().cpu()
    triangles = vertices[corners].numpy()
    places = np.einsum("nkc,nk->nc", triangles, barycentric)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    toward = np.linalg.inv(camera)[:, None, :3, 3] - places
    cosine = np.einsum("bnc,nc->bn", toward / np.linalg.norm(toward, axis=-1, keepdims=True), normals)
    visible = np.clip((cosine - FACING[0]) / (FACING[1] - FACING[0]), 0, 1)
    is_outline = np.isin(chosen, outline) | ((number[chosen] >= 0) & (number[chosen] < 17))
    confidence = np.where(seen, found[..., 2], 0.0)
    weight = confidence * np.where(is_outline, 1.0, visible)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32)

    views = [(k, c, int(w), int(h)) for k, c, (w, h) in zip(K, camera, size, strict=True)]
    return DetectionTarget(
        clip=tensor(np.stack([clip_from_world(*view, 0.05, 10.0) for view in views])),
        points=tensor(np.where(seen[..., None], centred, 0.0)),
        weight=tensor(weight),
        aspect=tensor(size[:, None] / longer),
        corners=corners,
        barycentric=tensor(barycentric),
        ibug=torch.as_tensor(number[chosen]),
        outline=torch.as_tensor(is_outline),
        searched=searched,
        confidence=tensor(confidence),
    )


@dataclass(eq=False)
class SourceTarget:
    """What one source of landmarks (a detector, a user's file) says of one timestep."""

    landmarks: LandmarkTarget
    """Those with a point in space."""
    pixels: PixelTarget | None = None
    """Detections of landmarks without one."""
    detections: DetectionTarget | None = None
    """All detections in the pictures."""
    share: float = 1.0
    """Its part of what all landmarks of the timestep count for; the parts of all detectors make 1."""
    evidence: Evidence | None = None
    """Of lids, lips and gaze, (Q,), against the head itself, so in any frame; None where nothing was seen."""
    bias: tuple[float, float] | None = None
    """Standard deviations of what each point is always off by, m, along each direction in the skin and along its
    normal; None: what the options say."""

    def zoomed(self, factor: float) -> "SourceTarget":
        """The same through cameras with so many times the focal length, principal points centred."""
        pixels, found = self.pixels, self.detections
        if pixels is not None:
            pixels = replace(pixels, rays=pixels.rays / factor)
        if found is not None:
            found = replace(found, clip=zoomed_clip(found.clip, factor))
        return replace(self, pixels=pixels, detections=found)

    def to(self, device: torch.device) -> "SourceTarget":
        """On another device."""
        pixels = self.pixels.to(device) if self.pixels is not None else None
        detections = self.detections.to(device) if self.detections is not None else None
        return replace(self, landmarks=self.landmarks.to(device), pixels=pixels, detections=detections)


@dataclass(eq=False)
class FrameTarget:
    """All targets of one timestep."""

    sources: tuple[SourceTarget, ...] = ()
    """Landmarks by source, in one order at all timesteps; empty and without a share where it found no face."""
    surface: SurfaceCloud | None = None
    """None where the capture has no geometry."""

    @property
    def n_landmarks(self) -> int:
        """Landmarks with a point in space, of all sources."""
        return sum(len(source.landmarks.index) for source in self.sources)

    @property
    def n_seen(self) -> int:
        """Landmarks with a point in space or only with pixels, of all sources."""
        return self.n_landmarks + sum(source.pixels.points for source in self.sources if source.pixels is not None)

    def to(self, device: torch.device) -> "FrameTarget":
        """On another device; the surface goes where it is asked for."""
        return FrameTarget(tuple(source.to(device) for source in self.sources), self.surface)


Holder = TypeVar("Holder")


def moved(holder: Holder, device: torch.device) -> Holder:
    """A dataclass with its tensors on another device."""
    tensors = {f.name: value for f in fields(holder) if isinstance(value := getattr(holder, f.name), Tensor)}  # type: ignore[arg-type]
    return replace(holder, **{name: value.to(device) for name, value in tensors.items()})  # type: ignore[type-var]
