"""A capture with cameras and no files, for what only asks for its views."""

from pathlib import Path

import numpy as np

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.capture import Capture, View


def bare_capture(
    root: Path, steps: int = 1, cameras: int = 2, size: tuple[int, int] = (64, 48), kind: str = "capture"
) -> Capture:
    """`size` is width and height; the cameras stand around the origin."""
    views = [
        View(
            timestep=step,
            camera=camera,
            role="fit",
            K=intrinsics_from_fov(30.0, *size),
            world_to_camera=look_at([np.sin(0.5 * camera), 0.0, np.cos(0.5 * camera)], [0, 0, 0], [0, 1, 0]),
            width=size[0],
            height=size[1],
            file_path=f"images/{step:05d}_{camera:02d}.png",
        )
        for step in range(steps)
        for camera in range(cameras)
    ]
    return Capture(root, views, kind=kind)
