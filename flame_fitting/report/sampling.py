"""What of a long capture is drawn: a few cameras, and timesteps from the first to the last, evenly spread."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera_names import camera_called
from flame_fitting.capture.capture import Capture, View
from flame_fitting.export.dialects.rotations import matrix_from_axis_angle
from flame_fitting.fit.result import FitResult

ALL_VIEWS = 300
"""Captures over time with so many views or fewer are drawn whole."""
MOST_TIMESTEPS = 1000
"""Timesteps of one camera that are drawn at most; with several cameras fewer, together no more than these."""
MOST_CAMERAS = 3
_APART = 64
"""Views of held-out cameras that are drawn beside those."""
_YAWS = (0.0, -40.0, 40.0)


@dataclass(frozen=True)
class Chosen:
    """What is drawn of a capture."""

    views: list[View]
    cameras: list[int] = field(default_factory=list)
    """Cameras that are followed over time, the most frontal one first; none where nothing moves."""
    timesteps: list[int] = field(default_factory=list)
    """Timesteps at which they are."""

    def as_metrics(self, capture: Capture) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "views": len(self.views),
            "of_views": len(capture.views_of("fit", "heldout")),
            "timesteps": len(self.timesteps),
            "of_timesteps": len(capture.timesteps),
            "cameras": [capture.camera_ids[camera] for camera in self.cameras],
        }


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, from the first to the last."""
    return [int(n) for n in np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))]


def drawn_views(fit: FitResult, capture: Capture, cameras: Sequence[str] = ()) -> Chosen:
    """The views that are drawn; `cameras` (names or numbers) are followed in place of the most frontal ones.

    Raises InputError for a camera that is not there.
    """
    views = capture.views_of("fit", "heldout")
    steps = capture.timesteps
    if len(steps) == 1 or not capture.ordered:
        return Chosen([views[k] for k in spread(len(views), ALL_VIEWS)])
    ids = {camera: capture.camera_ids[camera] for camera in capture.cameras}
    followed = list(dict.fromkeys(camera_called(name, ids, "--video-cameras") for name in cameras))
    if not followed:
        count = int(np.clip(MOST_TIMESTEPS // len(steps), 1, MOST_CAMERAS))
        followed = frontal_cameras(capture, head_at(fit, 0), count)
    rows = spread(len(steps), max(MOST_TIMESTEPS // len(followed), 1))
    chosen = [steps[row] for row in rows]
    if len(views) <= ALL_VIEWS:
        return Chosen(views, followed, chosen)
    apart = [view for view in views if view.role == "heldout" and view.camera not in followed]
    shown, at = set(followed), set(chosen)
    some = [view for view in views if view.camera in shown and view.timestep in at]
    return Chosen(some + [apart[k] for k in spread(len(apart), _APART)] if apart else some, followed, chosen)


def head_at(fit: FitResult, row: int) -> Float[ndarray, "4 4"]:
    """Similarity from the world to the head as it stands at one timestep, but for where its root joint lies."""
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_axis_angle(fit.parameters["rotation"][[row]])[0]
    pose[:3, 3] = fit.parameters["translation"][row]
    return np.linalg.inv(pose) @ fit.head_from_world


def frontal_cameras(capture: Capture, head_from_world: Float[ndarray, "4 4"], count: int) -> list[int]:
    """So many cameras (or all) that see the head from the front, from front right and front left."""
    first = {view.camera: view for view in reversed(capture.views)}
    numbers = sorted(first)
    centers = np.stack([np.linalg.inv(first[camera].world_to_camera)[:3, 3] for camera in numbers])
    seen = centers @ head_from_world[:3, :3].T + head_from_world[:3, 3]
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    chosen: list[int] = []
    for yaw in _YAWS[:count]:
        wanted = np.array([np.sin(np.radians(yaw)), 0.0, np.cos(np.radians(yaw))])
        order = [numbers[k] for k in np.argsort(-(seen @ wanted), kind="stable")]
        chosen += [camera for camera in order if camera not in chosen][:1]
    return chosen
