"""Detections of a capture that cannot be right, and what is said of them."""

import numpy as np

from flame_fitting.capture.capture import Capture
from flame_fitting.landmarks.detector_spread import Cameras
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.outliers import Outliers, over_time, over_views
from flame_fitting.landmarks.schemes import scheme_named

_MOST_NAMED = 12


def cameras_of(capture: Capture) -> Cameras:
    """Of all timesteps and cameras that the capture was read for."""
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    columns = {camera: column for column, camera in enumerate(capture.cameras)}
    K = np.tile(np.eye(3), (len(rows), len(columns), 1, 1))
    world_to_camera, there = np.tile(np.eye(4), (len(rows), len(columns), 1, 1)), np.zeros(K.shape[:2], dtype=bool)
    for view in capture.views:
        at = rows[view.timestep], columns[view.camera]
        K[at], world_to_camera[at], there[at] = view.K, view.world_to_camera, True
    return Cameras(K, world_to_camera, there, capture.calibrated)


def outliers_of(capture: Capture, detected: Landmarks2D, cameras: Cameras, use_geometry: bool = True) -> Outliers:
    """Over views of calibrated cameras, else over each camera's frames.

    Of an avatar, whose pictures look at a face from all around, only views that failed are told: points that the head
    itself hides are found by its surface, where that is used.
    """
    order = scheme_named(detected.scheme)
    if capture.calibrated and len(capture.cameras) >= 3:
        found = over_views(detected.landmarks, cameras.K, cameras.world_to_camera, order.groups[order.contour])
        if use_geometry and all(view.geometry_path is not None for view in capture.views):
            return Outliers(np.zeros_like(found.points), found.views)
        return found
    by_camera = [over_time(detected.landmarks[:, column]) for column in range(len(capture.cameras))]
    points = np.concatenate([one.points for one in by_camera], axis=1)
    return Outliers(points, np.concatenate([one.views for one in by_camera], axis=1))


def told(capture: Capture, name: str, found: Outliers) -> list[str]:
    """What is said of it, each view by its names."""
    out = []
    failed = [
        f"{capture.timestep_ids[capture.timesteps[row]]}/{capture.camera_ids[capture.cameras[column]]}"
        for row, column in np.argwhere(found.views)
    ]
    if failed:
        more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
        named = ", ".join(failed[:_MOST_NAMED])
        count = "a view" if len(failed) == 1 else f"{len(failed)} views"
        out.append(f"{name}: failed in {count}, which others contradict (timestep/camera): {named}{more}")
    if found.points.any():
        out.append(f"{name}: left out {100 * found.share:.1f} % of the points, which other views or frames contradict")
    return out
