"""The start of a fit: similarity from 3D landmarks, weights of landmarks, targets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera, project, transform_points
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.fit.landmark_sources import LandmarkSource, PlacedLandmarks, detections_of
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.prepare import (
    GROUP_WEIGHT,
    landmark_weights,
    make_start,
    masked_surface_weights,
    similarity_from_landmarks,
    start_from_capture,
)
from flame_fitting.fit.targets import make_landmark_target
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.lifting import Landmarks3D
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.drawing import head_avatar
from tests.synthetic import add_rendered, similarity
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


def _one(embedding, landmarks: Landmarks3D) -> list[tuple]:
    """A single source's."""
    return [(embedding, landmarks, 1.0)]


@pytest.mark.parametrize("scale", [1.0, 0.01, 0.02, 1e-3, 25.0])
def test_a_known_similarity_comes_back_in_any_unit(head, embedding, scale: float) -> None:
    expected = similarity(scale)
    found = similarity_from_landmarks(head, _one(embedding, _landmarks(head, embedding, expected)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * max(scale, 1))


def test_the_outline_and_outliers_do_not_count(head, embedding) -> None:
    expected = similarity(0.01)
    landmarks = _landmarks(head, embedding, expected)
    landmarks.points[:17] += 500.0  # the jaw line is no fixed set of points
    landmarks.points[scheme_named(SCHEME).inner[[20, 30]]] += 4.0  # 40 mm
    landmarks.points[scheme_named(SCHEME).inner[[5, 6]]] = np.nan
    found = similarity_from_landmarks(head, _one(embedding, landmarks))
    template = head.v_template.numpy()
    world = template @ np.linalg.inv(expected)[:3, :3].T + np.linalg.inv(expected)[:3, 3]
    assert np.abs(world @ found[:3, :3].T + found[:3, 3] - template).max() < 1e-4


@pytest.mark.parametrize("unit", [1.0, 0.01, 0.001])
def test_a_fixed_scale_is_kept_and_the_rest_is_found(head, embedding, unit: float) -> None:
    # the avatar's head is 8 % larger than the template: with the scale held, it stays so
    grown = similarity(unit)
    grown[:3, :3] /= 1.08
    found = similarity_from_landmarks(head, _one(embedding, _landmarks(head, embedding, grown)), unit)
    linear = found[:3, :3]
    assert np.cbrt(np.linalg.det(linear)) == pytest.approx(unit, rel=1e-9)
    np.testing.assert_allclose(linear @ linear.T, unit**2 * np.eye(3), atol=1e-9 * unit**2)
    turn = (linear / unit) @ np.linalg.inv(grown[:3, :3] * 1.08 / unit)
    assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 1.0
    exact = similarity_from_landmarks(head, _one(embedding, _landmarks(head, embedding, similarity(unit))), unit)
    np.testing.assert_allclose(exact, similarity(unit), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("scheme", "count"), [("mediapipe478", 478), ("ibug68", 68)])
def test_landmark_weights_follow_the_groups(scheme: str, count: int) -> None:
    weights, groups = landmark_weights(scheme, count), scheme_named(scheme).groups
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
    start = make_start(head, [PlacedLandmarks(embedding, [_landmarks(head, embedding, expected)])], None)
    np.testing.assert_allclose(start.reference_from_world, expected, rtol=1e-6, atol=1e-8)
    marks = start.targets[0].sources[0].landmarks
    np.testing.assert_allclose(marks.points, marks.model_points(head.v_template), atol=1e-9)
    # the spread is in metres now, not in world units
    assert marks.sigma.max() < 2e-3


def test_too_few_landmarks_are_no_face(head, embedding) -> None:
    landmarks = _landmarks(head, embedding, similarity(0.01))
    landmarks.points[:50] = np.nan
    with pytest.raises(NoFaceError, match="20 landmarks"):
        make_start(head, [PlacedLandmarks(embedding, [landmarks])], None)


def test_occluded_regions_pull_at_nothing(head) -> None:
    weights, without = masked_surface_weights(head, ()), masked_surface_weights(head, ("scalp",))
    scalp = head.region_mask("scalp")
    assert (weights.vertex[scalp] > 0).all() and (without.vertex[scalp] == 0).all()
    np.testing.assert_array_equal(weights.vertex[~scalp], without.vertex[~scalp])
    assert (without.face[scalp[head.faces].any(1)] == 0).all()
    with pytest.raises(InputError, match="hat"):
        masked_surface_weights(head, ("hat",))


# from a capture's files

SIZES = {"one size": [(192, 192)], "mixed sizes": [(192, 192), (256, 160), (144, 144)]}


def _capture(folder: Path, head: HeadModel, sizes: list[tuple[int, int]], head_from_world: np.ndarray) -> Capture:
    """The template in pictures of these sizes (W, H) in turn: five fit views, one for landmarks."""
    avatar = head_avatar(head, transform_points(np.linalg.inv(head_from_world), head.v_template.numpy()))
    with CaptureWriter(folder, (1.0, 1.0, 1.0), "unlit") as writer:
        for camera, yaw in enumerate(np.radians([-60, -30, 0, 30, 60, 15])):
            width, height = sizes[camera % len(sizes)]
            eye = [0.9 * np.sin(yaw), 0.1 * (-1.0) ** camera, 0.9 * np.cos(yaw)]
            matrix = move_camera(look_at(eye, [0, 0, 0], [0, 1, 0]), np.linalg.inv(head_from_world))
            K = intrinsics_from_fov(20.0, width, height)
            add_rendered(writer, avatar, camera, "fit" if camera < 5 else "landmark", K, matrix)
    return writer.capture


def _detected(head: HeadModel, embedding: LandmarkEmbedding, capture: Capture, head_from_world: np.ndarray):
    """The true points in every view that sees them; in view 4 nothing was found."""
    inverse = np.linalg.inv(head_from_world)
    points = transform_points(inverse, embedding.points(head.v_template[None], head.faces)[0].numpy())
    normals = vertex_normals(head.v_template.numpy(), head.faces.numpy())[head.faces[embedding.face_index, 0]]
    normals = normals @ (inverse[:3, :3] / np.cbrt(np.linalg.det(inverse[:3, :3]))).T
    found = np.full((1, 6, 68, 3), np.nan, dtype=np.float32)
    for view in capture.views:
        toward = np.linalg.inv(view.world_to_camera)[:3, 3] - points
        seen = (normals * toward).sum(1) / np.linalg.norm(toward, axis=1) > 0.4
        if view.camera != 4:
            found[0, view.camera, seen] = project(points, view.K, view.world_to_camera)[seen]
            found[0, view.camera, seen, 2] = 1.0
    return Landmarks2D(found, SCHEME, "toy")


@pytest.mark.parametrize("sizes", SIZES)
def test_a_capture_gives_similarity_landmarks_and_surface(head, embedding, sizes: str, tmp_path: Path) -> None:
    expected = similarity(0.01)
    capture = _capture(tmp_path / "c", head, SIZES[sizes], expected)
    capture.avatar = AvatarRecord(head_from_world=expected)
    detected = _detected(head, embedding, capture, expected)
    assert [len(found.views) for found in detections_of(capture, detected)] == [5]
    start = start_from_capture(head, capture, [LandmarkSource(detected, embedding)])
    vertices = head.v_template.numpy()
    in_reference = transform_points(start.reference_from_world @ np.linalg.inv(expected), vertices)
    assert 1000 * np.linalg.norm(in_reference - vertices, axis=1).max() < 1.5  # a pixel is 1.7 mm
    (target,) = start.targets
    placed = start.landmarks[0].landmarks[0].source
    assert set(placed) <= {"depth", "rays", ""} and (placed == "depth").sum() > 40
    marks, detections = target.sources[0].landmarks, target.sources[0].detections
    apart = (marks.model_points(head.v_template) - marks.points).norm(dim=-1)
    assert len(marks.index) > 40 and 1000 * float(apart.median()) < 0.5
    assert not set(marks.index) & set(range(17)), "the jaw line is no fixed set of points"
    # the cloud lies on the head, and all of the head's front has points
    assert target.surface is not None
    on_head = TriangleTree(in_reference, head.faces.numpy()).closest(target.surface.points[::50].astype(np.float64))
    assert 1000 * on_head.distance.max() < 0.5
    front = in_reference[head.region_mask("face").numpy()]
    assert 1000 * target.surface.tree.query(front)[0].max() < 3
    # true detections are where the fit projects the true points, in pictures of any size
    assert detections is not None and detections.points.shape == (5, 68, 2)
    places = detections.project(torch.as_tensor(in_reference, dtype=torch.float32))
    seen = detections.weight > 0.5
    assert seen.sum() > 100 and (places - detections.points)[seen].abs().max() < 1e-3


def test_a_capture_without_geometry_is_lifted_by_rays(head, embedding, tmp_path: Path) -> None:
    expected = similarity(0.01)
    capture = _capture(tmp_path / "c", head, SIZES["mixed sizes"], expected)
    detected = _detected(head, embedding, capture, expected)
    start = start_from_capture(head, capture, [LandmarkSource(detected, embedding)], use_geometry=False)
    assert start.targets[0].surface is None and set(start.landmarks[0].landmarks[0].source) <= {"rays", ""}
    np.testing.assert_allclose(start.reference_from_world, expected, rtol=1e-3, atol=1e-5)
    fixed = start_from_capture(
        head, capture, [LandmarkSource(detected, embedding)], metres_per_unit=0.011, use_geometry=False
    )
    assert np.cbrt(np.linalg.det(fixed.reference_from_world[:3, :3])) == pytest.approx(0.011)


def test_a_capture_in_which_nothing_was_found_is_no_face(head, embedding, tmp_path: Path) -> None:
    capture = _capture(tmp_path / "c", head, SIZES["one size"], similarity(0.01))
    nothing = Landmarks2D(np.full((1, 6, 68, 3), np.nan, np.float32), SCHEME, "toy")
    with pytest.raises(NoFaceError, match="no view of timestep 0"):
        start_from_capture(head, capture, [LandmarkSource(nothing, embedding)])


def test_a_timestep_without_a_face_is_passed_over(head, embedding, tmp_path: Path) -> None:
    """The first shows nothing: the next one gives the reference frame, and it has no target."""
    expected = similarity(0.01)
    capture = _capture(tmp_path / "c", head, SIZES["one size"], expected)
    found = _detected(head, embedding, capture, expected).landmarks
    views = [replace(view, timestep=timestep) for timestep in range(3) for view in capture.views]
    over_time = replace(capture, views=views)
    landmarks = np.concatenate([np.full_like(found, np.nan), found, found])
    detected = Landmarks2D(landmarks, SCHEME, "toy")
    start = start_from_capture(head, over_time, [LandmarkSource(detected, embedding)])
    alone = start_from_capture(head, capture, [LandmarkSource(Landmarks2D(found, SCHEME, "toy"), embedding)])
    np.testing.assert_allclose(start.reference_from_world, alone.reference_from_world)
    empty, *seen = start.targets
    (nothing,) = empty.sources
    assert empty.n_landmarks == nothing.share == 0
    assert empty.surface is nothing.pixels is nothing.detections is None
    for target in seen:
        torch.testing.assert_close(target.sources[0].landmarks.points, alone.targets[0].sources[0].landmarks.points)
        assert target.surface is not None and target.sources[0].detections is not None
    assert Observations(head, start.targets, masked_surface_weights(head, ())).valid == [False, True, True]


def test_sources_share_what_landmarks_count_for(head, embedding, tmp_path: Path) -> None:
    """Two detectors, one three times as heavy, of which the second misses the face at one of two timesteps."""
    expected = similarity(0.01)
    capture = _capture(tmp_path / "c", head, SIZES["one size"], expected)
    found = _detected(head, embedding, capture, expected).landmarks
    views = [replace(view, timestep=timestep) for timestep in range(2) for view in capture.views]
    over_time = replace(capture, views=views)
    both, once = np.concatenate([found, found]), np.concatenate([found, np.full_like(found, np.nan)])
    sources = [LandmarkSource(Landmarks2D(both, SCHEME, "one"), embedding, 1.0)]
    sources.append(LandmarkSource(Landmarks2D(once, SCHEME, "two"), embedding, 3.0))
    start = start_from_capture(head, over_time, sources)
    shares = [[source.share for source in target.sources] for target in start.targets]
    assert shares == [[0.25, 0.75], [1.0, 0.0]]
    counts = [[len(source.landmarks.index) for source in target.sources] for target in start.targets]
    assert counts[0][0] == counts[0][1] == counts[1][0] > 40 and counts[1][1] == 0
    assert [one.name for one in start.landmarks] == ["one", "two"]
