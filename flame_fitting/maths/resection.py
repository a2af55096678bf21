"""Where a camera stands by points that it sees: resection, or perspective-n-point."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

FEWEST = 6
"""Points that a camera is placed by, at least."""


def resect(
    points: Float[ndarray, "N 3"], rays: Float[ndarray, "N 2"], tolerance: float = 0.02
) -> Float[ndarray, "4 4"] | None:
    """The rigid motion (4, 4) from the points' space to the camera (OpenCV axes); None where none is found.

    `rays` are x / z and y / z of what the camera sees of the points; up to a fifth of the points may be wrong by more
    than `tolerance` (in units of the rays) and more. SQPnP (Terzakis and Lourakis, ECCV 2020) inside of RANSAC, then
    Levenberg-Marquardt on what agrees.
    """
    import cv2

    if len(points) < FEWEST:
        return None
    places, seen = (np.ascontiguousarray(array, dtype=np.float64) for array in (points, rays))
    K = np.eye(3)
    cv2.setRNGSeed(0)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        places, seen, K, None, iterationsCount=100, reprojectionError=tolerance, flags=cv2.SOLVEPNP_SQPNP
    )
    if not found or inliers is None or len(inliers) < max(FEWEST, len(points) // 2):
        return None
    chosen = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(places[chosen], seen[chosen], K, None, turn, shift)
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    in_front = (places[chosen] @ out[2, :3] + out[2, 3] > 0).all()
    return out if in_front and np.isfinite(out).all() else None
