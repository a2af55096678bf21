"""The avatar's surface as a capture saw it, to measure to and from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar, Surface
from flame_fitting.capture.capture import Capture, View

_RADIUS = 0.3  # metres around the head within which the avatar's surface counts
_SPACING = 0.001
_MAX_POINTS = 60_000  # of the avatar's surface that distances are measured from


class CloudSurface:
    """A dense oriented point cloud: each point stands for a small disc."""

    def __init__(self, points: Float[ndarray, "M 3"], normals: Float[ndarray, "M 3"], radius: float) -> None:
        from scipy.spatial import cKDTree

        self._points, self._normals, self._radius = points, normals, radius
        self._tree = cKDTree(points)

    def distance(self, points: Float[ndarray, "N 3"]) -> Float[ndarray, " N"]:
        """Distance to the disc of the nearest cloud point."""
        _, index = self._tree.query(points)
        offset = points - self._points[index]
        height = np.einsum("nc,nc->n", offset, self._normals[index])
        beside = np.linalg.norm(offset - height[:, None] * self._normals[index], axis=1)
        return np.hypot(height, np.maximum(beside - self._radius, 0))


@dataclass(eq=False)
class VisibleSurface:
    """The avatar as it was seen: a surface to measure to, and points on it to measure from. Head space, metres."""

    surface: Surface
    points: Float[ndarray, "M 3"]


def measuring_views(capture: Capture, timestep: int) -> list[View]:
    """The views whose geometry says where the avatar's surface is at one timestep."""
    return [view for view in capture.views_of("fit", timestep=timestep) if view.geometry_path is not None]


def visible_surface(
    capture: Capture, head_from_world: Float[ndarray, "4 4"], timestep: int, avatar: Avatar | None = None
) -> VisibleSurface | None:
    """What the fit views of one timestep saw of the avatar, in head space; None without geometry."""
    from flame_fitting.fit.surface import fuse_surface, surface_views

    views = measuring_views(capture, timestep)
    if not views:
        return None
    cloud = fuse_surface(surface_views(capture, views), head_from_world, _SPACING, _RADIUS)
    points = np.asarray(cloud.points, dtype=np.float64)
    some = points[:: -(-len(points) // _MAX_POINTS)]
    exact = avatar.seen_surface(points, head_from_world) if avatar is not None else None
    normals = np.asarray(cloud.normals, dtype=np.float64)
    return VisibleSurface(exact or CloudSurface(points, normals, 1.5 * _SPACING), some)
