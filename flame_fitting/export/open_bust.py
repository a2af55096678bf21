"""Views from below that look into an open bust: into a neck, a chest or a sleeve, and at what lies behind it.

Files of avatars wind triangles as they like, and pictures are drawn from both sides, so other views tell. Below the
chin, space that hardly any view from above or beside sees lies in the bust; what a ray from below meets behind a few
centimetres of it is seen through an opening. From there the inside goes on to its rim as far as a surface is one that
the other views see from behind. Needs depth, at every pixel; the edge is the pixels'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from flame_fitting.capture.camera import project, unproject
from flame_fitting.capture.capture import Capture, View
from flame_fitting.export.frames import in_dataset

Mask = NDArray[np.bool_]

_RISES = 0.14
"""Sine of the angle by which a view looks up that is one from below: about 8 degrees."""
_VOXEL = 0.006
"""Metres."""
_HALF = (0.35, 0.3)
"""Metres to either side of the head, and before and behind it, that are looked at."""
_DEEP = 0.25
"""Metres below the chin that are looked at."""
_HIDDEN = 0.08
"""Part of the other views that may see into hidden space, through its openings."""
_VIEWS = 4
"""Fewer other views, and less than half of all, tell nothing."""
_THROUGH, _REACH = 0.04, 0.24
"""Metres of hidden space before what is surely seen through an opening; metres before it that are looked at."""
_SAME = 0.006
"""Metres within which what another view shows is the same surface."""
_SLANT = 0.15
"""Cosine from which a view tells which side of a surface it sees."""
_BEHIND = 3
"""Views that see a surface from behind for one from the front, at least, where it is the inside."""
_SURE, _WALL = 0.2, 0.1
"""Parts of a patch that must lie behind hidden space for sure, and be seen from behind: what closes a bust is not."""
_SMALLEST = 0.005
"""The smallest patch, as part of the picture."""


@dataclass(eq=False)
class HeadFrame:
    """How the head stands at a timestep, in the dataset's world, metres."""

    center: Float[ndarray, "3"]
    """Of its vertices."""
    axes: Float[ndarray, "3 3"]
    """Columns: its left, up, forward."""
    chin: float
    """Above the centre, along its up axis."""


def rises(view: View, frame: HeadFrame) -> bool:
    """Whether a view, in the frame's world, is one from below."""
    toward = view.world_to_camera[:3, :3].T @ (view.world_to_camera[:3, 3]) + frame.center
    return bool(toward @ frame.axes[:, 1] > _RISES * np.linalg.norm(toward))


@dataclass(eq=False)
class _Seen:
    """A view in the dataset's world, with the depth of its pixels, m."""

    view: View
    depth: NDArray[np.float32]
    centre: Float[ndarray, "3"]

    def at(self, points: Float[ndarray, "N 3"]) -> tuple[Mask, Float[ndarray, " N"], Float[ndarray, " N"]]:
        """Which points lie in the picture, their depth, and that of what the picture shows there (0: nothing)."""
        pixels = project(points, self.view.K, self.view.world_to_camera)
        z = pixels[:, 2]
        with np.errstate(invalid="ignore", over="ignore"):
            x, y = pixels[:, 0], pixels[:, 1]
            inside = (z > 0) & (x >= 0) & (y >= 0) & (x < self.view.width) & (y < self.view.height)
        shown = np.zeros(len(points), dtype=np.float32)
        shown[inside] = self.depth[y[inside].astype(np.int64), x[inside].astype(np.int64)]
        return inside, z, shown


class OpenBust:
    """What views of one timestep show of the inside of a bust."""

    def __init__(
        self, capture: Capture, views: Sequence[View], dataset_from_world: Float[ndarray, "4 4"], frame: HeadFrame
    ) -> None:
        """`views` of the timestep, all that there are: those without geometry tell nothing."""
        self._capture, self._moved, self._frame = capture, dataset_from_world, frame
        self._scale = float(np.cbrt(np.linalg.det(dataset_from_world[:3, :3])))
        self._others = [seen for view in views if not self.looks_up(view) and (seen := self._seen(view))]
        size = np.array([2 * _HALF[0], _DEEP, 2 * _HALF[1]])
        self._shape = tuple(np.ceil(size / _VOXEL).astype(int))
        self._corner = np.array([-_HALF[0], frame.chin - _DEEP, -_HALF[1]])
        self._hidden = self._hidden_space() if len(self._others) >= _VIEWS else None

    def inside(self, view: View, keep: NDArray[np.floating]) -> Mask | None:
        """(H, W) what a view shows of the inside and behind it, where `keep` (H, W) is above 0; None: nothing."""
        from scipy.ndimage import binary_dilation

        seen = self._seen(view) if self._hidden is not None and self.looks_up(view) else None
        if seen is None:
            return None
        place = np.nonzero((seen.depth > 0) & (keep > 0))
        if not len(place[0]):
            return None
        pixels = np.stack([place[1] + 0.5, place[0] + 0.5], axis=1)
        points = unproject(pixels, seen.depth[place], seen.view.K, seen.view.world_to_camera)
        rays = points - seen.centre
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        through = self._hidden_before(points, rays)
        low = (points - self._frame.center) @ self._frame.axes[:, 1] < self._frame.chin
        inner = through > 0.5 * _THROUGH
        if not (through > _THROUGH).any():
            return None
        ask = np.flatnonzero(low)
        behind = np.zeros(len(points), dtype=bool)
        behind[ask] = self._from_behind(points[ask], rays[ask], self._capture.geometry(view)[1][place][ask])
        found, sure, wall, kept, lower = np.zeros((5, *keep.shape), dtype=bool)
        found[place], sure[place], wall[place] = inner | behind, through > _THROUGH, behind
        kept[place], lower[place] = True, low
        patch, size = _patches(found)
        taken = (size > 0) & (size >= _SMALLEST * len(points))
        taken &= (_counts(patch, sure) >= _SURE * size) & (_counts(patch, wall) >= _WALL * size)
        if not taken.any():
            return None
        cut = taken[patch]
        patch, size = _patches(kept & ~cut)
        crumbs = (size < _SMALLEST * len(points)) & (_counts(patch, lower) == size) & (size > 0)
        cut |= crumbs[patch]
        # a picture's edge reaches a pixel farther than depth does
        return np.asarray(cut | (binary_dilation(cut, np.ones((3, 3))) & (seen.depth == 0)))

    def looks_up(self, view: View) -> bool:
        """Whether a view is one from below."""
        return rises(in_dataset(view, self._moved), self._frame)

    def depth(self, view: View) -> NDArray[np.float32]:
        """(H, W) along the camera's z, m; 0 where nothing is."""
        return self._capture.geometry(view)[0] * np.float32(self._scale)

    def _seen(self, view: View) -> _Seen | None:
        if view.geometry_path is None:
            return None
        moved = in_dataset(view, self._moved)
        centre = -moved.world_to_camera[:3, :3].T @ moved.world_to_camera[:3, 3]
        return _Seen(moved, self.depth(view), centre)

    def _hidden_space(self) -> Float[ndarray, "X Y Z"]:
        """1 where no other view sees a voxel, falling to 0 where twice `_HIDDEN` of them do."""
        at = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in self._shape), indexing="ij"), axis=-1).reshape(-1, 3)
        points = (at * _VOXEL + self._corner) @ self._frame.axes.T + self._frame.center
        seen, asked = np.zeros((2, len(points)), dtype=np.int32)
        for other in self._others:
            inside, z, shown = other.at(points)
            asked += inside
            seen += inside & ((shown == 0) | (shown > z))
        part = np.where(asked >= max(_VIEWS, len(self._others) // 2), seen / np.maximum(asked, 1), 1.0)
        return np.clip(1 - part / (2 * _HIDDEN), 0, 1).reshape(self._shape)

    def _hidden_before(self, points: Float[ndarray, "N 3"], rays: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
        """Metres of hidden space that rays go through before their points."""
        from scipy.ndimage import map_coordinates

        start = ((points - self._frame.center) @ self._frame.axes - self._corner) / _VOXEL - 0.5
        step = rays @ self._frame.axes
        length = np.zeros(len(points))
        for k in range(2, round(_REACH / _VOXEL)):  # the first lie in the surface's own voxels
            at = start - k * step
            near = np.flatnonzero(((at > -1) & (at < self._shape)).all(axis=1))
            length[near] += _VOXEL * map_coordinates(self._hidden, at[near].T, order=1, mode="constant")
        return length

    def _from_behind(
        self, points: Float[ndarray, "N 3"], rays: Float[ndarray, "N 3"], normals: NDArray[np.floating]
    ) -> Mask:
        """Which surfaces, seen along `rays`, the other views see from behind."""
        normals = normals.astype(np.float64) @ (self._moved[:3, :3] / self._scale).T
        normals *= np.where((normals * rays).sum(axis=1) > 0, -1.0, 1.0)[:, None]
        front, behind = np.zeros((2, len(points)), dtype=np.int32)
        for other in self._others:
            inside, z, shown = other.at(points)
            toward = other.centre - points
            cosine = (toward * normals).sum(axis=1) / np.linalg.norm(toward, axis=1)
            visible = inside & (np.abs(shown - z) < _SAME)
            front += visible & (cosine > _SLANT)
            behind += visible & (cosine < -_SLANT)
        return np.asarray((behind >= 2) & (behind >= _BEHIND * front))


def _patches(mask: Mask) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """(H, W) numbers of what hangs together in a mask, and the pixels of each; those outside have 0, and none."""
    from scipy.ndimage import label

    patch, count = label(mask, np.ones((3, 3)))
    size = np.bincount(patch.reshape(-1), minlength=count + 1)
    size[0] = 0
    return patch, size


def _counts(patch: NDArray[np.integer], mask: Mask) -> NDArray[np.integer]:
    """Pixels of a mask in each patch."""
    return np.bincount(patch[mask], minlength=int(patch.max()) + 1)
