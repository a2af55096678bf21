"""Pictures of eyes that the network learns from: where they say that things are."""

import numpy as np
import pytest

from flame_fitting.avatar.evidence_pictures import EvidencePictures
from flame_fitting.avatar.eye_pictures import CANVAS, EyeErrors, eye_views
from flame_fitting.avatar.head_calibration import shipped_embedding
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks import eyes
from flame_fitting.landmarks.eye_network import EyeViews


@pytest.fixture(scope="module")
def views() -> EyeViews:
    """Heads seen nearly from the front, of which some are varied beyond the model."""
    head = load_head("open")
    embedding = shipped_embedding(head, "mediapipe", "lit")
    config = EvidencePictures(
        identities=6, expressions=1, views=2, paints=1, plain_paints=1, seed=7, yaw=8.0, pitch=5.0, expr_sigma=0.2
    )
    return eye_views(head, embedding, config)


def test_eyes_lie_in_the_middle_with_the_outer_corner_to_the_left(views: EyeViews):
    corners = views.places[:, :, [eyes.OUTER, eyes.INNER]]
    assert views.images.shape == (12, 2, CANVAS[1], CANVAS[0], 3)
    np.testing.assert_allclose(corners.mean(2), np.broadcast_to(np.array(CANVAS) / 2, (12, 2, 2)), atol=0.6)
    assert (corners[:, :, 0, 0] < corners[:, :, 1, 0]).all()
    assert (np.abs(views.turn) < np.radians(13)).all()


def test_irises_stand_where_eyes_look(views: EyeViews):
    """Before the eyeball's middle, out and up by the sine of the gaze, on both eyes and on varied heads alike."""
    width = np.linalg.norm(views.places[:, :, eyes.INNER] - views.places[:, :, eyes.OUTER], axis=-1)
    away = (views.places[:, :, eyes.IRIS] - views.places[:, :, eyes.BALL]) / width[..., None]
    # 10.6 mm of an eye 28 mm wide; the camera stands up to 13 degrees aside
    out = views.gaze - np.stack([-views.turn[:, :1] * (1, -1), np.repeat(views.turn[:, 1:], 2, 1)], -1)
    np.testing.assert_allclose(away[..., 0], -0.38 * np.sin(out[..., 0]), atol=0.06)
    np.testing.assert_allclose(away[..., 1], -0.38 * np.sin(out[..., 1]), atol=0.06)


def test_irises_are_dark_where_they_are_told_to_be(views: EyeViews):
    """Against the eye's white at the same height, of open eyes."""
    told = []
    for image, places, gaps in zip(
        views.images.reshape(-1, *views.images.shape[2:]), views.places.reshape(-1, 14, 2), views.gaps.reshape(-1, 5),
        strict=True,
    ):  # fmt: skip
        if gaps[2] < 7:
            continue
        x, y = places[eyes.IRIS]
        wide = np.linalg.norm(places[eyes.INNER] - places[eyes.OUTER])
        row = image[int(y)].mean(-1)
        iris = row[int(x - 0.08 * wide) : int(x + 0.08 * wide) + 1].mean()
        left, right = (row[int(x + sign * 0.29 * wide)] for sign in (-1, 1))
        told.append(iris < max(left, right))
    assert len(told) >= 4 and np.mean(told) > 0.9


def test_errors_of_mirrored_heads_and_back(tmp_path):
    rng = np.random.default_rng(0)
    errors = EyeErrors(rng.normal(size=(5, 2)), rng.normal(size=(5, 2)), rng.normal(size=(5, 2, 2, 2)))
    mirrored = errors.mirrored()
    np.testing.assert_array_equal(mirrored.turn, errors.turn * (-1, 1))
    np.testing.assert_array_equal(mirrored.corners[:, 0], errors.corners[:, 1])
    mirrored.mirrored().save(tmp_path / "errors.npz")
    again = EyeErrors.load(tmp_path / "errors.npz")
    for name, value in errors.__dict__.items():
        np.testing.assert_array_equal(getattr(again, name), value)
