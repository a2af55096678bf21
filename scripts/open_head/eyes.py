"""Eyeballs and the lids that rest on them."""

import numpy as np

EYEBALL_RADIUS = 0.0153
LID_GAP = 0.00025
# anny's own eyeballs are larger: its lid rims lie inside them
ANNY_RADIUS = 0.016577


def keep_out(points: np.ndarray, center: np.ndarray, radius: np.ndarray, gap: float = LID_GAP) -> np.ndarray:
    """Points (B, n, 3) moved along the sphere normal to at least radius + gap from center (B, 3); radius (B,)."""
    offset = points - center[:, None]
    distance = np.linalg.norm(offset, axis=2, keepdims=True)
    floor = (radius + gap)[:, None, None]
    return center[:, None] + offset * (np.maximum(distance, floor) / distance)


def lid_depth(points: np.ndarray, center: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How deep (B,) the deepest of points (B, n, 3) lies in the eyeball, metres; 0 when all are outside."""
    distance = np.linalg.norm(points - center[:, None], axis=2)
    return np.maximum(radius[:, None] - distance, 0).max(1)
