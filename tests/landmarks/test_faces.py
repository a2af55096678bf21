"""Boxes of faces, and what of a face is in sight."""

import numpy as np
import pytest

from flame_fitting.landmarks.faces import (
    Face,
    FaceFinder,
    agreement,
    face_of,
    nearest_ibug,
    side_visibility,
    visibility,
)
from flame_fitting.landmarks.schemes import SCHEMES

WFLW, IBUG = SCHEMES["wflw98"], SCHEMES["ibug68"]


def test_finds_faces_where_they_are(head_pictures):
    images = np.concatenate([head_pictures.images, np.full_like(head_pictures.images[:1], 200)])
    *found, nothing = FaceFinder().find(images)
    assert nothing is None and all(found)
    points = head_pictures.calibrated[:, SCHEMES["mediapipe478"].ibug68]
    for face, expected in zip(found, points, strict=True):
        np.testing.assert_allclose(face.box, [*expected.min(0), *expected.max(0)], atol=8)
    assert found[1].visible[16] > found[1].visible[0], "the camera stands on the subject's left"


def test_a_face_is_the_box_of_its_points():
    points = np.random.default_rng(0).uniform(10, 90, (68, 3))
    points[17:, :2] = np.clip(points[17:, :2], 40, 60)
    face = face_of(points)
    np.testing.assert_allclose(face.box, [*points[:, :2].min(0), *points[:, :2].max(0)])
    np.testing.assert_allclose(face.inner, [50, 50])
    np.testing.assert_allclose(face.center + face.size / 2, face.box[2:])


@pytest.mark.parametrize("scheme", [IBUG, WFLW], ids=lambda scheme: scheme.name)
def test_each_point_has_an_ibug_point_of_its_own_part_and_side(scheme):
    near = nearest_ibug(scheme)
    assert near.min() >= 0
    np.testing.assert_array_equal(near[scheme.ibug68], np.arange(68))
    for name in ("jawline", "right_brow", "left_brow", "nose", "right_eye", "left_eye", "outer_lips", "inner_lips"):
        assert set(near[scheme.groups[name]]) <= set(IBUG.groups[name]), name
    if scheme is WFLW:
        assert near[96] in IBUG.groups["right_eye"] and near[97] in IBUG.groups["left_eye"]


def frontal(scheme):
    """Points of a face around x = 100: mirror twins equally far from it."""
    rng = np.random.default_rng(3)
    points = np.c_[100 + rng.uniform(20, 50, scheme.n_points), rng.uniform(80, 120, scheme.n_points)]
    points[scheme.ibug68[[27, 28, 29, 30, 8]]] = [(100, 80), (100, 88), (100, 96), (100, 104), (100, 150)]
    for point, twin in enumerate(scheme.mirror):
        if twin == point:
            points[point, 0] = 100
        elif twin > point:
            points[point] = [200 - points[twin, 0], points[twin, 1]]
    right = points[scheme.ibug68[36], 0] < 100
    return points if right else points * [-1, 1] + [200, 0]


@pytest.mark.parametrize("scheme", [IBUG, WFLW], ids=lambda scheme: scheme.name)
def test_the_narrow_half_is_turned_away(scheme):
    points = frontal(scheme)
    assert side_visibility(points, scheme).min() == 1
    turned = points.copy()
    right = points[:, 0] < 100
    turned[right, 0] = 100 - 0.1 * (100 - points[right, 0])
    seen = side_visibility(turned, scheme)
    assert seen[right].max() < 0.35 and seen[~right].min() == 1 and seen.min() >= 0.05
    # whatever the picture's roll
    cos, sin = np.cos(0.5), np.sin(0.5)
    np.testing.assert_allclose(side_visibility(turned @ np.array([[cos, sin], [-sin, cos]]), scheme), seen, atol=0.25)
    box = np.array([50.0, 80, 150, 150])
    np.testing.assert_array_equal(visibility(Face(box), turned, scheme), seen)
    own = np.linspace(0, 1, 68)
    np.testing.assert_allclose(visibility(Face(box, own), turned, scheme)[scheme.ibug68], np.maximum(own, 0.05))


def test_agreement_falls_with_the_spread():
    assert agreement(np.array([0.0, 2.0, 4.0]), 100.0) == pytest.approx([1, 0.5, 0.2])
