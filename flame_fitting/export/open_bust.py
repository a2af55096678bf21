"""Where pictures look into an open bust from below: the inside of a neck, a chest or a sleeve, which is no surface.

Files of avatars wind triangles as they like, and pictures are drawn from both sides, so the outside is what is seen by
rays that go down, and the fitted head's own. Of that surface, open at its bottom, the winding number of a point tells
inside (1, less near the opening) from outside (0, more below the opening). A pixel shows the inside where the point
just before what it shows lies inside. Asked below the chin only, and of rays that go up.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from flame_fitting.capture.camera import unproject
from flame_fitting.capture.capture import Capture
from flame_fitting.export.frames import Frame, in_dataset
from flame_fitting.export.neck_surface import NeckPlane
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import area_vectors, vertex_normals

_COLUMNS = 128
"""Of the grid of pixels that are asked about in a picture, along its width."""
_VOXEL = 0.008
"""Metres: samples of the surface."""
_BEFORE = 0.014
"""Metres before a surface that it is asked what lies there: more than samples are apart."""
_ON_HEAD = 0.015
"""Metres within which a surface that faces as the fitted head does is the head's."""
_INSIDE = 0.6
"""Winding number from which a point lies inside."""
_NEAR_RIM = 0.25
"""The same for what goes on smoothly from such points; near the opening it falls."""
_SEEDS, _SMALLEST = 0.2, 8
"""Part of a smooth patch that must lie inside for sure, and pixels of the smallest patch."""
_SMOOTH, _STEP = 0.5, 0.03
"""Cosine between normals and metres between points of neighbouring pixels on one surface."""
_RISES = 0.12
"""Sine of the angle by which a ray rises that may look into the bust: about 7 degrees."""
_REACH = 0.5
"""Metres around the neck that the surface is looked at."""
_CHIN = 0.08
"""Metres of the chin above the cut through the neck, where the head model does not say."""
_CHUNK = 256


@dataclass(eq=False)
class _Seen:
    """What a grid of pixels of one view shows, in the dataset's world."""

    points: Float[ndarray, "N 3"]
    normals: Float[ndarray, "N 3"]
    rays: Float[ndarray, "N 3"]
    at: ndarray
    """(N,) places in the grid, row by row."""
    areas: Float[ndarray, " N"]
    """m2 that a pixel of the grid covers."""
    shape: tuple[int, int]


class OpenBust:
    """The outside of the bust at one timestep, in the dataset's world, metres."""

    def __init__(
        self,
        capture: Capture,
        frames: Iterable[Frame],
        dataset_from_world: Float[ndarray, "4 4"],
        head: HeadModel,
        vertices: Float[ndarray, "V 3"],
        plane: NeckPlane,
    ) -> None:
        """`frames` of the timestep, with geometry or without; `vertices` and `plane` are the fitted head's."""
        from scipy.spatial import cKDTree

        faces = head.faces.cpu().numpy()
        self._capture, self._moved, self._plane = capture, dataset_from_world, plane
        self._tree, self._normals = cKDTree(vertices), vertex_normals(vertices, faces)
        chin = vertices[head.regions["face"].cpu().numpy()] if "face" in head.regions else None
        self._chin = _CHIN if chin is None else float(((chin - plane.center) @ plane.up).min())
        own = np.concatenate([vertices[faces].mean(axis=1), 0.5 * area_vectors(vertices, faces)], axis=1)
        parts, seen_by = [own], [np.full(len(own), -1)]
        self._from_below: dict[str, _Seen] = {}
        for index, frame in enumerate(frames):
            if (seen := self._seen(frame)) is not None:
                if (seen.rays @ plane.up > _RISES).any():
                    self._from_below[frame.name] = seen
                near = np.linalg.norm(seen.points - plane.center, axis=1) < _REACH
                chosen = near & (seen.rays @ plane.up < 0)
                vectors = seen.normals[chosen] * seen.areas[chosen, None]
                parts.append(np.concatenate([seen.points[chosen], vectors], axis=1))
                seen_by.append(np.full(len(vectors), index))
        self._places, self._vectors = _in_voxels(np.concatenate(parts), np.concatenate(seen_by))

    def keep(self, frame: Frame) -> NDArray[np.float32] | None:
        """(H, W) 0..1: 0 where the view shows the inside; None where it shows none of it."""
        import cv2

        seen = self._from_below.get(frame.name)
        if seen is None:
            return None
        height = (seen.points - self._plane.center) @ self._plane.up
        asked = np.flatnonzero((seen.rays @ self._plane.up > _RISES) & (height < self._chin))
        if len(asked):
            distance, nearest = self._tree.query(seen.points[asked])
            agree = (self._normals[nearest] * seen.normals[asked]).sum(axis=1) > 0
            asked = asked[(distance > _ON_HEAD) | ~agree]
        if not len(asked):
            return None
        number = self._winding(seen.points[asked] + _BEFORE * seen.normals[asked])
        asked = asked[number > _NEAR_RIM]
        found = _patches_of(seen, asked, number[number > _NEAR_RIM] > _INSIDE)
        if not found.any():
            return None
        inside = np.zeros(seen.shape, dtype=np.float32)
        inside.reshape(-1)[seen.at[asked[found]]] = 1.0
        grown = cv2.dilate(inside, np.ones((3, 3), np.uint8))  # as far as the pixels of the grid reach
        wide = cv2.resize(grown, (frame.view.width, frame.view.height), interpolation=cv2.INTER_LINEAR)
        return np.clip(1.0 - np.asarray(wide, dtype=np.float32), 0.0, 1.0)

    def _seen(self, frame: Frame) -> _Seen | None:
        stored = frame.view
        if stored.geometry_path is None:
            return None
        depth, normal = self._capture.geometry(stored)
        step = max(1, stored.width // _COLUMNS)
        rows, columns = np.arange(step // 2, stored.height, step), np.arange(step // 2, stored.width, step)
        depth, normal = depth[np.ix_(rows, columns)], normal[np.ix_(rows, columns)]
        view = in_dataset(stored, self._moved)
        scale = float(np.cbrt(np.linalg.det(self._moved[:3, :3])))
        at = np.flatnonzero(depth.reshape(-1) > 0)
        y, x = np.unravel_index(at, depth.shape)
        z = depth.reshape(-1)[at].astype(np.float64) * scale
        pixels = np.stack([columns[x] + 0.5, rows[y] + 0.5], axis=1)
        points = unproject(pixels, z, view.K, view.world_to_camera)
        centre = -view.world_to_camera[:3, :3].T @ view.world_to_camera[:3, 3]
        rays = points - centre
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        normals = normal.reshape(-1, 3)[at].astype(np.float64) @ (self._moved[:3, :3] / scale).T
        normals *= np.where((normals * rays).sum(axis=1) > 0, -1.0, 1.0)[:, None]
        slant = np.maximum(-(normals * rays).sum(axis=1), 0.2)
        areas = (z * step / view.K[0, 0]) ** 2 / slant
        return _Seen(points, normals, rays, at, areas, depth.shape)

    def _winding(self, queries: Float[ndarray, "Q 3"]) -> Float[ndarray, " Q"]:
        found = []
        for start in range(0, len(queries), _CHUNK):
            between = self._places[None] - queries[start : start + _CHUNK, None].astype(np.float32)
            distance = np.maximum(np.linalg.norm(between, axis=2), _VOXEL)
            found.append(((between * self._vectors).sum(axis=2) / distance**3).sum(axis=1))
        return np.concatenate(found).astype(np.float64) / (4 * np.pi)


def _patches_of(seen: _Seen, chosen: NDArray[np.integer], sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the `chosen` points lie on smooth patches of the picture that are `sure` enough."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    place = np.full(seen.shape, -1, dtype=np.int64)
    place.reshape(-1)[seen.at[chosen]] = np.arange(len(chosen))
    pairs = [(place[:, :-1].reshape(-1), place[:, 1:].reshape(-1)), (place[:-1].reshape(-1), place[1:].reshape(-1))]
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    a, b = a[(a >= 0) & (b >= 0)], b[(a >= 0) & (b >= 0)]
    points, normals = seen.points[chosen], seen.normals[chosen]
    near = np.linalg.norm(points[a] - points[b], axis=1) < _STEP
    smooth = near & ((normals[a] * normals[b]).sum(axis=1) > _SMOOTH)
    links = coo_matrix((np.ones(int(smooth.sum())), (a[smooth], b[smooth])), shape=(len(chosen), len(chosen)))
    count, patch = connected_components(links, directed=False)
    size, seeds = np.bincount(patch, minlength=count), np.bincount(patch, sure, minlength=count)
    return ((size >= _SMALLEST) & (seeds >= _SEEDS * size))[patch]


def _in_voxels(
    samples: Float[ndarray, "N 6"], seen_by: NDArray[np.integer]
) -> tuple[Float[ndarray, "M 3"], Float[ndarray, "M 3"]]:
    """Places and area vectors by voxel: of samples (place, area vector) of one view the sum, over the views the mean.

    `seen_by` (N,) numbers the views; -1 is the fitted head, whose own are taken by themselves.
    """
    places, vectors = [], []
    for own in (True, False):
        some, views = samples[(seen_by < 0) == own], seen_by[(seen_by < 0) == own] + 1
        if not len(some):
            continue
        _, voxel = np.unique(np.floor(some[:, :3] / _VOXEL).astype(np.int64), axis=0, return_inverse=True)
        voxel = voxel.reshape(-1)
        size, base = int(voxel.max()) + 1, int(views.max()) + 1
        number = np.bincount(np.unique(voxel * base + views) // base, minlength=size)
        sums = np.stack([np.bincount(voxel, some[:, k], minlength=size) for k in range(6)], axis=1)
        places.append(sums[:, :3] / np.bincount(voxel, minlength=size)[:, None])
        vectors.append(sums[:, 3:] / number[:, None])
    return np.concatenate(places).astype(np.float32), np.concatenate(vectors).astype(np.float32)
