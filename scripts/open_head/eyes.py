"""Eyeballs and the lids that rest on them."""

import numpy as np

from open_head.rig import smoothstep

PUPIL_DISTANCE = 0.063
"""Of the mean head, metres: mean of adults (Dodgson 2004, 3976 adults: 63.36 mm)."""
EYEBALL_RADIUS = 0.012
"""Of the mean head, metres: adults' eyeballs are 24 mm across, near enough alike (Bekerman et al. 2014: 24.2 mm)."""
IRIS_ANGLE = float(np.degrees(np.arcsin(0.00585 / EYEBALL_RADIUS)))
"""Between the optical axis and an iris's rim, degrees: irises are 11.7 mm across (Ruefer et al. 2005)."""
LID_GAP = 0.00025
LID_RADIUS = 0.0153 / 0.016577
"""Radius of the sphere that anny's lid rims rest on, over that of anny's eyeballs, which are larger."""
SETTLED = 1.55
"""Distance from the middle of an eye, in radii of that sphere, at which skin no longer follows a smaller eyeball."""


def keep_out(points: np.ndarray, center: np.ndarray, radius: np.ndarray, gap: float = LID_GAP) -> np.ndarray:
    """Points (B, n, 3) moved along the sphere normal to at least radius + gap from center (B, 3); radius (B,)."""
    offset = points - center[:, None]
    distance = np.linalg.norm(offset, axis=2, keepdims=True)
    floor = (radius + gap)[:, None, None]
    return center[:, None] + offset * (np.maximum(distance, floor) / distance)


def seated(center: np.ndarray, lid_radius: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Centres (B, ..., 3) of eyeballs of radius (B, ...) that touch spheres of lid_radius at the front, from inside."""
    return center + (lid_radius - radius)[..., None] * np.array([0.0, 0.0, 1.0])


def settle(points: np.ndarray, center: np.ndarray, lid_radius: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Lids and sockets (B, n, 3) around spheres (B, 3), (B,) moved onto the smaller eyeballs that are `seated` in them.

    A point keeps its height above the sphere, now above the eyeball, along the eyeball's normal. That fades farther
    out, and behind: hidden sockets may stay away from the eyeball, so that other heads' do not come through them.
    """
    ball = seated(center, lid_radius, radius)[:, None]
    from_center = points - center[:, None]
    far = np.linalg.norm(from_center, axis=2, keepdims=True)
    height = far - lid_radius[:, None, None]
    offset = points - ball
    distance = np.linalg.norm(offset, axis=2, keepdims=True)
    share = 1 - smoothstep(height / ((SETTLED - 1) * lid_radius[:, None, None]))
    share *= 0.4 + 0.6 * smoothstep((from_center[..., 2:] / far + 0.3) / 0.45)
    return points + share * offset * ((radius[:, None, None] + height) / distance - 1)


def lid_depth(points: np.ndarray, center: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How deep (B,) the deepest of points (B, n, 3) lies in the eyeball, metres; 0 when all are outside."""
    distance = np.linalg.norm(points - center[:, None], axis=2)
    return np.maximum(radius[:, None] - distance, 0).max(1)
