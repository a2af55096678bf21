"""The focal length as an unknown of first-order stages: what is seen, and what moves with it."""

import numpy as np
import pytest
import torch

from flame_fitting.capture.capture import View
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.zoom import Zoom
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.mesh import clip_positions, zoomed_clip
from tests.toy import toy_head

CAMERA = np.array([[1.0, 0, 0, 0.02], [0, -1.0, 0, 0.01], [0, 0, -1.0, 0.9], [0, 0, 0, 1]])


def views(cameras: np.ndarray) -> ViewSet:
    count = len(cameras)
    project = np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 1.1, -0.2], [0, 0, 1, 0]])
    rows = [View(t, 0, "fit", np.eye(3), camera, 8, 8, "a.png") for t, camera in enumerate(cameras)]
    clip = torch.as_tensor(project @ cameras, dtype=torch.float32)
    nothing = torch.zeros(0, 8, 8, 4)
    return ViewSet(rows, nothing, clip, np.tile(np.eye(3), (count, 1, 1)), cameras, torch.arange(count), None)


@pytest.fixture
def moved():
    """A head at three places, and the placement turned and scaled."""
    head = toy_head().double()
    parameters = FitParameters.neutral(head, 3)
    rng = np.random.default_rng(0)
    parameters.placement[:3] = torch.tensor([0.1, -0.2, 0.15])
    parameters.placement[6] = 0.1
    parameters.translation[:] = torch.as_tensor(0.1 * rng.standard_normal((3, 3)))
    parameters.rotation[:] = torch.as_tensor(0.2 * rng.standard_normal((3, 3)))
    return head, parameters


def test_what_is_seen_is_what_the_longer_lens_shows(moved) -> None:
    head, parameters = moved
    seen = views(np.stack([CAMERA] * 3))
    zoom = Zoom.of(parameters, seen)
    assert zoom is not None
    longer = torch.tensor([0.3], dtype=torch.float64)
    vertices = parameters.vertices(head)
    shown = clip_positions(zoom.seen(vertices, longer).float(), seen.clip)
    true = clip_positions(vertices.float(), zoomed_clip(seen.clip, float(longer.exp())))
    for ours, wanted in zip(shown, true, strict=True):
        torch.testing.assert_close(ours[:, :2] / ours[:, 3:], wanted[:, :2] / wanted[:, 3:], rtol=0, atol=1e-5)
        torch.testing.assert_close(ours[:, 3], wanted[:, 3], rtol=0, atol=1e-5)


def test_a_longer_lens_leaves_the_head_where_it_is_in_the_picture(moved) -> None:
    """The point whose depth counts stays to the pixel; the rest only flattens."""
    _, parameters = moved
    zoom = Zoom.of(parameters, views(np.stack([CAMERA] * 3)))
    assert zoom is not None
    turn, scale = rotation_matrix(parameters.placement[:3]), parameters.placement[6].exp()
    for log_focal in (-0.4, 0.25):
        value = torch.tensor([log_focal], dtype=torch.float64)
        for step in range(3):
            before = scale * turn @ parameters.translation[step]
            after = scale * turn @ (parameters.translation[step] + zoom.farther(value)[step])
            seen = [
                torch.as_tensor(CAMERA[:3, :3]) @ point + torch.as_tensor(CAMERA[:3, 3]) for point in (before, after)
            ]
            assert float(seen[1][2] / seen[0][2]) == pytest.approx(np.exp(log_focal), rel=1e-9)
            torch.testing.assert_close(seen[1][:2] / seen[1][2] * np.exp(log_focal), seen[0][:2] / seen[0][2])


def test_cameras_at_several_places_have_no_common_depth(moved) -> None:
    _, parameters = moved
    other = CAMERA.copy()
    other[0, 3] += 0.1
    assert Zoom.of(parameters, views(np.stack([CAMERA, other, CAMERA]))) is None
