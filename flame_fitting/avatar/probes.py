"""Where to look for a face before anything is known: the pictures of the search, the likeliest first."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar

AXES = {"+X": (1, 0, 0), "-X": (-1, 0, 0), "+Y": (0, 1, 0), "-Y": (0, -1, 0), "+Z": (0, 0, 1), "-Z": (0, 0, -1)}
ENDS = (0.5, 0.35, 0.25, 0.18)
"""Shares of the extent along an axis that are looked at from each end."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One picture of the search."""

    part: str
    """whole, or the end it shows, e.g. `+Y 25%`."""
    center: ndarray
    radius: float
    """Sphere around the part, world units."""
    direction: ndarray
    """Unit vector from the part to the camera."""
    up: ndarray
    """Unit vector toward the picture's top."""
    turns: tuple[int, ...] = (0,)
    """Quarter turns in the picture plane that are tried on the same picture."""


def probes_of(avatar: Avatar) -> list[Probe]:
    """All pictures of the search, the likeliest first.

    First the six up axes with level views from the four sides, for the whole and the ends at the top; then all parts
    from all 26 directions in quarter turns; last the slanted directions in eighth turns.
    """
    parts = _parts(avatar.points)
    probes: list[Probe] = []
    seen: set[tuple] = set()

    def add(part: str, direction: ndarray, up: ndarray, turns: tuple[int, ...]) -> None:
        key = (part, tuple(np.round(direction, 3)), tuple(np.round(up, 3)), turns)
        if key not in seen:
            seen.add(key)
            center, radius = parts[part]
            probes.append(Probe(part, center, radius, direction, up, turns))

    def tops(up: str) -> list[str]:
        return ["whole"] + [part for part in parts if part.startswith(up)]

    for up, forward in (("+Y", "+Z"), ("+Z", "-Y")):
        for part in tops(up):
            add(part, np.array(AXES[forward], float), np.array(AXES[up], float), (0,))
    for up in ("+Y", "+Z", "-Y", "-Z", "+X", "-X"):
        sides = [f for f in AXES if f[1] != up[1]]
        for part in tops(up):
            for forward in sides:
                add(part, np.array(AXES[forward], float), np.array(AXES[up], float), (0,))
    for turned in (False, True):
        for part in parts:
            for direction in _directions():
                level = _any_up(direction)
                slanted = (level + np.cross(level, direction)) / np.sqrt(2.0)
                add(part, direction, slanted if turned else level, (0, 1, 2, 3))
    return probes


def nearest_axis(vector: ndarray) -> str:
    """Name of the axis nearest to a vector, e.g. `+Y`."""
    return max(AXES, key=lambda name: float(np.dot(AXES[name], vector)))


def turned_camera(world_to_camera: ndarray, turn: int) -> ndarray:
    """The camera of a picture after `np.rot90(picture, turn)`, principal point in the middle of a square picture."""
    out = world_to_camera.copy()
    for _ in range(turn % 4):
        # Counter-clockwise quarter turn: the old right becomes up, the old down becomes right.
        out[:3] = np.stack([out[1], -out[0], out[2]])
    return out


def _parts(points: ndarray) -> dict[str, tuple[ndarray, float]]:
    """Centre and radius of the whole object, of its ends, and of the middle of wide ends."""
    low, high = points.min(0), points.max(0)
    out = {"whole": (0.5 * (low + high), 0.5 * float(np.linalg.norm(high - low)))}
    for share in ENDS:
        for name, axis in AXES.items():
            k = int(np.argmax(np.abs(axis)))
            sign = axis[k]
            extent = high[k] - low[k]
            if extent <= 0:
                continue
            edge = high[k] - share * extent if sign > 0 else low[k] + share * extent
            end = points[sign * (points[:, k] - edge) >= 0]
            # Hair tips are thin: aim at the bulk and let them leave the picture.
            a, b = np.percentile(end, (1, 99), axis=0)
            radius = 0.5 * float(np.linalg.norm(b - a))
            # Of an end much wider than deep, such as shoulders with the arms stretched out, look at the middle only.
            core = 0.75 * share * extent
            if radius > 1.5 * core:
                out[f"{name} {100 * share:.0f}% middle"] = (np.median(end, axis=0), core)
            if radius > 0:
                out[f"{name} {100 * share:.0f}%"] = (0.5 * (a + b), radius)
    return out


@lru_cache(maxsize=1)
def _directions() -> list[ndarray]:
    """26 directions: along the axes, then toward the edges and the corners of a cube."""
    grid = [np.array(d, dtype=np.float64) for d in np.ndindex(3, 3, 3)]
    vectors = [d - 1 for d in grid if np.any(d != 1)]
    vectors.sort(key=lambda d: (np.abs(d).sum(), -d[2], -d[1], -d[0]))
    return [d / np.linalg.norm(d) for d in vectors]


def _any_up(direction: ndarray) -> ndarray:
    """A unit vector across the direction, as near to +Y (or to +Z) as possible."""
    axis = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
    up = axis - (axis @ direction) * direction
    return up / np.linalg.norm(up)
