"""What several views of an avatar say of its surface together, and how far they agree."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates

from flame_fitting.avatar.fusing_kernels import settle
from flame_fitting.capture.camera import pixel_rays, project, unproject
from flame_fitting.render.jit import run

_REACH = 5.0
"""Pixels at the surface (about mm of a head): farther apart, two views show different surfaces."""
_ROUNDS = 2
_NEAR = np.cos(np.radians(40.0))
"""Views that are compared by their colours are no farther apart."""
_SQUARE = 0.5
"""Cosine that pixels whose colours are compared are seen at, at least."""
_SHIFTS = np.arange(-2.0, 5.01, 0.5)
"""Pixels at the surface that it is tried to lie farther outside."""
_STEP, _MIDDLE = 4, 0.2
"""Every so many pixels are looked at where sides are judged; radius of their middle, share of the picture."""
_DOUBTFUL, _UNSEEN = 0.6, 0.5
"""Noise (share of the reach) that tells nothing; share of doubtful pixels on a side that nobody has seen."""
_COMPARED, _UNLIKE = 4000, 0.1
"""Pixels of a view that are compared, and the difference in brightness from which colours are just different."""


@dataclass(frozen=True, eq=False)
class DepthViews:
    """Depth maps of V views of the same size."""

    depth: Float[np.ndarray, "V H W"]
    normal: Float[np.ndarray, "V H W 3"]
    K: Float[np.ndarray, "V 3 3"]
    world_to_camera: Float[np.ndarray, "V 4 4"]

    def find(
        self, K: Float[np.ndarray, "3 3"], world_to_camera: Float[np.ndarray, "4 4"], height: int, width: int
    ) -> int | None:
        """The number of the view that a camera has, where one is the same."""
        same = np.isclose(self.world_to_camera, world_to_camera).all((1, 2)) & np.isclose(self.K, K).all((1, 2))
        return int(same.argmax()) if same.any() and self.depth.shape[1:] == (height, width) else None

    @cached_property
    def eyes(self) -> Float[np.ndarray, "V 3"]:
        """Where the cameras stand."""
        return np.linalg.inv(np.asarray(self.world_to_camera, dtype=np.float64))[:, :3, 3].copy()

    @cached_property
    def center(self) -> Float[np.ndarray, " 3"]:
        """The point nearest to all optical axes."""
        forward = np.asarray(self.world_to_camera, dtype=np.float64)[:, 2, :3]
        across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
        return np.linalg.lstsq(across.sum(axis=0), np.einsum("vij,vj->i", across, self.eyes), rcond=None)[0]

    @cached_property
    def pixel(self) -> float:
        """Size of a pixel at the surface, world units: the middle of all."""
        sizes = [np.median(d[d > 0]) / k[1, 1] for d, k in zip(self.depth, self.K, strict=True) if (d > 0).any()]
        return float(np.median(sizes)) if sizes else 0.0


@dataclass(frozen=True, eq=False)
class SettledDepth:
    """One view's depth as all views have it."""

    depth: Float[np.ndarray, "H W"]
    noise: Float[np.ndarray, "H W"]
    """Standard deviation of the surface along its normal, world units; 0 where nothing is seen."""


def settled_depth(
    views: DepthViews,
    depth: Float[np.ndarray, "H W"],
    normal: Float[np.ndarray, "H W 3"],
    K: Float[np.ndarray, "3 3"],
    world_to_camera: Float[np.ndarray, "4 4"],
) -> SettledDepth:
    """Where all views together have the surface that one view shows (itself among them or not)."""
    out = SettledDepth(np.zeros(depth.shape), np.zeros(depth.shape))
    cameras = np.ascontiguousarray(views.world_to_camera[:, :3], dtype=np.float64)
    camera = np.ascontiguousarray(world_to_camera[:3], dtype=np.float64)
    eye = -camera[:, :3].T @ camera[:, 3]
    lenses = np.ascontiguousarray(views.K[:, [0, 1, 0, 1], [0, 1, 2, 2]], dtype=np.float64)
    lens = np.ascontiguousarray(K[[0, 1, 0, 1], [0, 1, 2, 2]], dtype=np.float64)
    seen = (views.depth, views.normal, lenses, cameras, views.eyes, _REACH * views.pixel, _ROUNDS)
    run(settle, len(depth), *seen, depth, normal, lens, camera, eye, out.depth, out.noise)
    return out


def moved_out(
    depth: Float[np.ndarray, "H W"],
    normal: Float[np.ndarray, "H W 3"],
    K: Float[np.ndarray, "3 3"],
    world_to_camera: Float[np.ndarray, "4 4"],
    distance: float,
) -> Float[np.ndarray, "H W"]:
    """Depth of the surface moved along its normals, world units."""
    rows, columns = np.nonzero(depth > 0)
    _, rays = pixel_rays(np.stack([columns, rows], axis=1) + 0.5, K, world_to_camera)
    along = np.maximum(-np.einsum("nc,nc->n", normal[rows, columns], rays), 0.3)
    out = np.array(depth)
    out[rows, columns] -= distance / along * (rays @ world_to_camera[2, :3])
    return out


def shift_by_colors(
    views: DepthViews,
    picture: Callable[[int], Float[np.ndarray, "3 H W"]],
    chosen: Int[np.ndarray, " n"],
    seed: int = 0,
) -> float:
    """How far outside the depth of views the surface lies on which their pictures agree, world units.

    Of pairs among the `chosen` views that look from about the same side; 0 where none can tell. A translucent layer is
    trained to look right: what is painted on it shows up where it was seen, whatever depth it has by itself.
    """
    brightness = {int(k): np.asarray(picture(int(k)), dtype=np.float64).mean(axis=0) for k in chosen}
    eyes, pixel, rng = views.eyes, views.pixel, np.random.default_rng(seed)
    forward = views.world_to_camera[:, 2, :3]
    unlike, count = np.zeros(len(_SHIFTS)), 0
    for a in brightness:
        points, normals, value = _textured(views, a, brightness[a], eyes[a], rng)
        toward = _unit(eyes[a] - points)
        along = np.maximum(np.einsum("nc,nc->n", normals, toward), 0.3)
        for b in brightness:
            if b == a or forward[a] @ forward[b] < _NEAR or not len(points):
                continue
            camera, lens = views.world_to_camera[b], views.K[b]
            there = project(points, lens, camera)
            seen = np.einsum("nc,nc->n", normals, _unit(eyes[b] - points)) > _SQUARE
            seen &= np.abs(_sampled(views.depth[b], there, 0) - there[:, 2]) < _REACH * pixel
            trials = []
            for shift in _SHIFTS:
                moved = points[seen] + (shift * pixel / along[seen])[:, None] * toward[seen]
                trials.append(np.abs(_sampled(brightness[b], project(moved, lens, camera), 1) - value[seen]))
            unlike += np.minimum(trials, _UNLIKE).sum(axis=1)
            count += int(seen.sum())
    best = int(unlike.argmin())
    if count < _COMPARED or best in (0, len(_SHIFTS) - 1):
        return 0.0
    before, at, after = unlike[best - 1 : best + 2]
    return float((_SHIFTS[best] + 0.25 * (before - after) / max(before - 2 * at + after, 1e-12)) * pixel)


def unseen_views(views: DepthViews) -> Bool[np.ndarray, " V"]:
    """Which views look at a side that nobody has seen.

    The middle of their pictures shows nothing, places beyond the point that all views look at (what is there is looked
    into from behind), or places that no other views agree on.
    """
    step, out = _STEP, np.zeros(len(views.depth), dtype=bool)
    K = np.diag([1 / step, 1 / step, 1.0]) @ views.K
    height, width = views.depth.shape[1:]
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    middle = np.hypot(rows / height - 0.5, columns / width - 0.5) < _MIDDLE
    center = views.center
    for k, camera in enumerate(views.world_to_camera):
        depth, normal = (np.ascontiguousarray(a[k][rows, columns]) for a in (views.depth, views.normal))
        found = settled_depth(views, depth, normal, K[k], camera)
        doubtful = (
            (depth <= 0)
            | (depth > camera[2, :3] @ center + camera[2, 3])
            | (found.noise > _DOUBTFUL * _REACH * views.pixel)
        )
        out[k] = doubtful[middle].mean() > _UNSEEN
    return out


def _textured(
    views: DepthViews,
    k: int,
    brightness: Float[np.ndarray, "H W"],
    eye: Float[np.ndarray, " 3"],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, normals and brightness of some pixels of a view that differ from their neighbours."""
    change = np.hypot(*np.gradient(brightness))
    shown = views.depth[k] > 0
    if not shown.any():
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
    rows, columns = np.nonzero(shown & (change >= np.quantile(change[shown], 0.7)))
    points = unproject(
        np.stack([columns + 0.5, rows + 0.5], axis=1),
        views.depth[k][rows, columns],
        views.K[k],
        views.world_to_camera[k],
    )
    normals = np.asarray(views.normal[k][rows, columns], dtype=np.float64)
    square = np.flatnonzero(np.einsum("nc,nc->n", normals, _unit(eye - points)) > _SQUARE)
    square = rng.choice(square, min(_COMPARED, len(square)), replace=False)
    return points[square], normals[square], brightness[rows[square], columns[square]]


def _sampled(array: np.ndarray, pixels: np.ndarray, order: int) -> np.ndarray:
    return map_coordinates(array, [pixels[:, 1] - 0.5, pixels[:, 0] - 0.5], order=order, mode="nearest")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
