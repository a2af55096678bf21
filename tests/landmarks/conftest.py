"""Pictures of the open head, rendered once."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass
class HeadPictures:
    """Views from the front, from 40 degrees on the subject's left, and from above."""

    images: np.ndarray
    nose_tip: np.ndarray


@pytest.fixture(scope="session")
def head_pictures() -> HeadPictures:
    from flame_fitting.avatar.head_calibration import head_avatar, head_frame, to_uint8
    from flame_fitting.avatar.rendering import render_avatar
    from flame_fitting.avatar.view_planning import head_cameras
    from flame_fitting.capture.camera import intrinsics_from_fov, project
    from flame_fitting.head.loading import load_head

    head = load_head("open")
    vertices = head.v_template.numpy().astype(np.float64)
    cameras = head_cameras(np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 12.0]]), np.eye(4), head_frame(head))
    K = np.broadcast_to(intrinsics_from_fov(25.0, 512, 512), (3, 3, 3))
    views = render_avatar(head_avatar(head, vertices, "textured"), K, cameras, 512, 512, outputs=("image",))
    tip = vertices[np.argmax(np.where(np.abs(vertices[:, 0]) < 0.005, vertices[:, 2], -1))]
    return HeadPictures(to_uint8(views.image), project(tip[None], K, cameras)[:, 0, :2])
