"""Numbers of motion: errors with and without a similarity, jitter, gain, angles. Pure functions of arrays."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from flame_fitting.capture.similarity import apply_similarity, umeyama

STILL = 1e-6
"""m: what moves less than this (root mean square) has no gain."""


def by_similarity(
    found: Float[ndarray, "T V 3"], true: Float[ndarray, "T V 3"], of: Float[ndarray, "T W 3"] | None = None
) -> Float[ndarray, "T _ 3"]:
    """`of` (None: `found`), moved by the similarity of each timestep that brings `found` nearest to `true`."""
    moved = found if of is None else of
    return np.stack([apply_similarity(umeyama(a, b), c) for a, b, c in zip(found, true, moved, strict=True)])


def size_of(found: Float[ndarray, "T V 3"], true: Float[ndarray, "T V 3"]) -> float:
    """How many times as large as `true` `found` is: the median over timesteps."""
    scales = [np.cbrt(np.linalg.det(umeyama(a, b)[:3, :3])) for a, b in zip(found, true, strict=True)]
    return float(1 / np.median(scales))


def jitter(error: Float[ndarray, "T V 3"], shown: Bool[ndarray, " T"] | None = None) -> float:
    """Root mean square of the second difference over time of an error, in its own unit; NaN below three timesteps.

    Only differences of three timesteps that are all `shown` (None: all are) count.
    """
    if len(error) < 3:
        return float("nan")
    second = (np.diff(error, 2, axis=0) ** 2).sum(-1)
    if shown is not None:
        second = second[shown[:-2] & shown[1:-1] & shown[2:]]
    return float(np.sqrt(second.mean())) if second.size else float("nan")


def gain(found: Float[ndarray, "T ..."], true: Float[ndarray, "T ..."]) -> tuple[float, float]:
    """How much of a true motion is followed, and the motion's root mean square.

    The slope of the least-squares line of found on true values, each without its own mean over time, all points and
    coordinates in one; NaN where nothing moves. Independent errors of `found` leave it as it is.
    """
    f, t = (values - values.mean(0) for values in (found, true))
    power = float((t**2).sum())
    size = float(np.sqrt(power / max(len(t) * int(np.prod(t.shape[1:-1] if t.ndim > 2 else t.shape[1:])), 1)))
    return (float((f * t).sum()) / power if size > STILL else float("nan")), size


def angle_between(one: Float[ndarray, "T 3 3"], other: Float[ndarray, "T 3 3"]) -> Float[ndarray, " T"]:
    """Angle of the rotation between two, degrees."""
    return np.degrees(Rotation.from_matrix(one.transpose(0, 2, 1) @ other).magnitude())


def without_constant_turn(found: Float[ndarray, "T 3 3"], true: Float[ndarray, "T 3 3"]) -> Float[ndarray, "T 3 3"]:
    """`found`, turned by the one rotation (in the moving frame) that brings it nearest to `true`."""
    apart = Rotation.from_matrix(true.transpose(0, 2, 1) @ found)
    return true @ (apart * apart.mean().inv()).as_matrix()


def turns(axis_angle: Float[ndarray, "T 3"]) -> Float[ndarray, "T 3 3"]:
    """Rotation matrices."""
    return Rotation.from_rotvec(axis_angle).as_matrix()
