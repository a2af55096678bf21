"""The start of a fit: similarity from 3D landmarks, weights of landmarks, targets."""

import numpy as np
import pytest

from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.fit.prepare import (
    GROUP_WEIGHT,
    landmark_weights,
    make_start,
    masked_surface_weights,
    similarity_from_landmarks,
)
from flame_fitting.fit.targets import make_landmark_target
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.ibug68 import groups_of, inner_indices
from flame_fitting.landmarks.lifting import Landmarks3D
from tests.synthetic import similarity
from tests.toy import toy_head

SCHEME = "ibug68"


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return toy_head().double()


@pytest.fixture(scope="module")
def embedding(head: HeadModel) -> LandmarkEmbedding:
    """68 points on the toy head's front."""
    rng = np.random.default_rng(0)
    front = np.flatnonzero((head.v_template[head.faces][..., 2] > 0.02).all(1).numpy())
    index, weights = rng.choice(front, 68, replace=False), rng.dirichlet([1, 1, 1], size=68)
    return LandmarkEmbedding(index, weights, np.full(68, 0.5), np.full(68, 9), SCHEME, "toy", "clay", "toy")


def _landmarks(head, embedding, head_from_world: np.ndarray, noise: float = 0.0) -> Landmarks3D:
    """The template's points in the world, with noise (m, head space)."""
    template = embedding.points(head.v_template[None], head.faces)[0].numpy()
    template = template + noise * np.random.default_rng(1).normal(size=template.shape)
    inverse = np.linalg.inv(head_from_world)
    scale = np.cbrt(np.linalg.det(inverse[:3, :3]))
    points = template @ inverse[:3, :3].T + inverse[:3, 3]
    return Landmarks3D(points, np.full(68, 5e-4 * scale), np.full(68, 9), np.full(68, "depth"), SCHEME)


@pytest.mark.parametrize("scale", [1.0, 0.01, 0.02, 1e-3, 25.0])
def test_a_known_similarity_comes_back_in_any_unit(head, embedding, scale: float) -> None:
    expected = similarity(scale)
    found = similarity_from_landmarks(head, embedding, _landmarks(head, embedding, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * max(scale, 1))


def test_the_outline_and_outliers_do_not_count(head, embedding) -> None:
    expected = similarity(0.01)
    landmarks = _landmarks(head, embedding, expected)
    landmarks.points[:17] += 500.0  # the jaw line is no fixed set of points
    landmarks.points[inner_indices(SCHEME)[[20, 30]]] += 4.0  # 40 mm
    landmarks.points[inner_indices(SCHEME)[[5, 6]]] = np.nan
    found = similarity_from_landmarks(head, embedding, landmarks)
    template = head.v_template.numpy()
    world = template @ np.linalg.inv(expected)[:3, :3].T + np.linalg.inv(expected)[:3, 3]
    assert np.abs(world @ found[:3, :3].T + found[:3, 3] - template).max() < 1e-4


@pytest.mark.parametrize("unit", [1.0, 0.01, 0.001])
def test_a_fixed_scale_is_kept_and_the_rest_is_found(head, embedding, unit: float) -> None:
    # the avatar's head is 8 % larger than the template: with the scale held, it stays so
    grown = similarity(unit)
    grown[:3, :3] /= 1.08
    found = similarity_from_landmarks(head, embedding, _landmarks(head, embedding, grown), unit)
    linear = found[:3, :3]
    assert np.cbrt(np.linalg.det(linear)) == pytest.approx(unit, rel=1e-9)
    np.testing.assert_allclose(linear @ linear.T, unit**2 * np.eye(3), atol=1e-9 * unit**2)
    turn = (linear / unit) @ np.linalg.inv(grown[:3, :3] * 1.08 / unit)
    assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 1.0
    exact = similarity_from_landmarks(head, embedding, _landmarks(head, embedding, similarity(unit)), unit)
    np.testing.assert_allclose(exact, similarity(unit), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("scheme", "count"), [("mediapipe478", 478), ("ibug68", 68)])
def test_landmark_weights_follow_the_groups(scheme: str, count: int) -> None:
    weights, groups = landmark_weights(scheme, count), groups_of(scheme)
    assert weights.shape == (count,)
    special = np.zeros(count, dtype=bool)
    for name, value in GROUP_WEIGHT.items():
        if name in groups:
            assert (weights[groups[name]] == value).all()
            special[groups[name]] = True
    assert special.any() and (weights[~special] == 1).all()
    outline = groups["outline"] if scheme == "mediapipe478" else groups["jawline"]
    assert (weights[outline] == 0).all(), "an outline is no fixed set of points"
    assert (weights[groups["nose"]] == 1).all()


def test_targets_keep_what_is_valid_on_both_sides(head, embedding) -> None:
    points = embedding.points(head.v_template[None], head.faces)[0].numpy()
    spread, weight = np.full(68, 2e-3), np.ones(68)
    points[3], spread[4], weight[5] = np.nan, np.nan, 0.0
    weight[10:20] = 0.5
    target = make_landmark_target(head, embedding, points, spread, weight)
    assert set(range(68)) - set(target.index.tolist()) == {3, 4, 5}
    assert target.weight.mean() == pytest.approx(1.0)
    assert target.weight[target.index == 12] == pytest.approx(0.5 * float(target.weight[target.index == 30]))
    # the detector's own repeatability, the calibration's and the views' spread add up
    np.testing.assert_allclose(target.sigma, np.sqrt(2e-3**2 + 0.5e-3**2 + 1e-3**2))
    np.testing.assert_allclose(target.model_points(head.v_template), target.points, atol=1e-12)


def test_start_brings_everything_into_the_reference_frame(head, embedding) -> None:
    expected = similarity(0.01)
    start = make_start(head, embedding, [_landmarks(head, embedding, expected)], None)
    np.testing.assert_allclose(start.reference_from_world, expected, rtol=1e-6, atol=1e-8)
    marks = start.targets[0].landmarks
    np.testing.assert_allclose(marks.points, marks.model_points(head.v_template), atol=1e-9)
    # the spread is in metres now, not in world units
    assert marks.sigma.max() < 2e-3


def test_too_few_landmarks_are_no_face(head, embedding) -> None:
    landmarks = _landmarks(head, embedding, similarity(0.01))
    landmarks.points[:50] = np.nan
    with pytest.raises(NoFaceError, match="20 landmarks"):
        make_start(head, embedding, [landmarks], None)


def test_occluded_regions_pull_at_nothing(head) -> None:
    weights, without = masked_surface_weights(head, ()), masked_surface_weights(head, ("scalp",))
    scalp = head.region_mask("scalp")
    assert (weights.vertex[scalp] > 0).all() and (without.vertex[scalp] == 0).all()
    np.testing.assert_array_equal(weights.vertex[~scalp], without.vertex[~scalp])
    assert (without.face[scalp[head.faces].any(1)] == 0).all()
    with pytest.raises(InputError, match="hat"):
        masked_surface_weights(head, ("hat",))
