"""Pictures of the open head, rendered once."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass
class HeadPictures:
    """Views from the front, from 40 degrees on the subject's left, and from above."""

    images: np.ndarray
    calibrated: np.ndarray
    """(3, 478, 2) px: where the calibration for pictures of this kind says that the detector sees its points."""
    parts: dict[str, np.ndarray]
    """(3, 2) px: middle of the irises and of the lips, by the model's regions; no detector has a part in it."""


@pytest.fixture(scope="session")
def head_pictures() -> HeadPictures:
    from flame_fitting.avatar.head_calibration import detector_input, head_avatar, head_frame, landmark_embedding
    from flame_fitting.avatar.view_planning import head_cameras
    from flame_fitting.capture.camera import intrinsics_from_fov, project
    from flame_fitting.head.loading import load_head
    from flame_fitting.landmarks.mediapipe_detector import MediaPipeDetector

    head = load_head("open")
    vertices = head.v_template.numpy().astype(np.float64)
    cameras = head_cameras(np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 12.0]]), np.eye(4), head_frame(head))
    K = np.broadcast_to(intrinsics_from_fov(25.0, 512, 512), (3, 3, 3))
    views = head_avatar(head, vertices, "textured").draw(K, cameras, 512, 512, outputs=("image",))
    assert views.image is not None
    embedding = landmark_embedding(head, MediaPipeDetector(), "textured")
    points = embedding.points(head.v_template[None], head.faces)[0].numpy().astype(np.float64)
    parts = {}
    for name in ("left_iris", "right_iris", "lips_tight"):
        part = vertices[head.regions[name].numpy()]
        middle = 0.5 * (part.min(0) + part.max(0))
        middle[2] = part[:, 2].max()
        parts[name] = project(middle[None], K, cameras)[:, 0, :2]
    return HeadPictures(detector_input(views.image), project(points, K, cameras)[..., :2], parts)
