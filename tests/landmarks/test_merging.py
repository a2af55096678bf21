"""Detectors of known bias and noise on a head of known truth, merged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.avatar.head_calibration import head_frame, shipped_embedding
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.errors import InputError
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.detector_errors import correlation, expected_error
from flame_fitting.landmarks.lifting import triangulate
from flame_fitting.landmarks.merging import Cameras, Detected, merge, spread_of
from flame_fitting.landmarks.misfit import Expected, lasting_errors
from flame_fitting.landmarks.schemes import FACE_PARTS, scheme_named
from flame_fitting.maths.closest import nearest_on_surface

INNER = scheme_named("mediapipe478").inner


@pytest.fixture(scope="module")
def world():
    """Head, its true vertices, cameras (4 timesteps x 6), and the embedding of MediaPipe's points."""
    head = load_head("open")
    with torch.no_grad():
        shape = torch.as_tensor(0.7 * np.random.default_rng(0).standard_normal(head.n_shape), dtype=torch.float32)
        vertices = head(shape=shape).vertices[0].numpy().astype(np.float64)
    angles = np.array([(yaw, pitch) for pitch in (-10, 12) for yaw in (-25, 0, 25)], float)
    cameras = head_cameras(angles, np.eye(4), head_frame(head))
    K = np.tile(intrinsics_from_fov(25.0, 512, 512), (4, 6, 1, 1))
    there = np.ones((4, 6), dtype=bool)
    return (
        head,
        vertices,
        Cameras(K, np.tile(cameras, (4, 1, 1, 1)), there, True),
        shipped_embedding(head, "mediapipe", "lit"),
    )


def detector(
    world, name: str, noise: float, seed: int, shift_mm: float = 0.0, scheme: str = "mediapipe478"
) -> Detected:
    """One whose points are `shift_mm` higher on the face than MediaPipe's, and who knows (its embedding says so)."""
    head, vertices, cameras, embedding = world
    template, faces = head.v_template.numpy().astype(np.float64), head.faces.numpy()
    if scheme == "ibug68":
        index = scheme_named("mediapipe478").ibug68
        embedding = replace(
            embedding,
            face_index=embedding.face_index[index],
            barycentric=embedding.barycentric[index],
            spread_mm=embedding.spread_mm[index],
            n_views=embedding.n_views[index],
            scheme="ibug68",
        )
    if shift_mm:
        places = embedding.points(head.v_template[None], head.faces)[0].numpy().astype(np.float64)
        face, barycentric, _ = nearest_on_surface(places + (0, 0.001 * shift_mm, 0), template, faces, None)
        embedding = replace(embedding, face_index=face, barycentric=barycentric)
    points = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    pixels = project(points, cameras.K, cameras.world_to_camera)[..., :2]
    pixels = pixels + noise * np.random.default_rng(seed).standard_normal(pixels.shape)
    landmarks = np.concatenate([pixels, np.ones((*pixels.shape[:3], 1))], axis=-1)
    return Detected(name, landmarks.astype(np.float32), embedding)


def error_px(world, landmarks) -> float:
    head, vertices, cameras, embedding = world
    truth = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()[INNER]
    pixels = project(truth, cameras.K, cameras.world_to_camera)[..., :2]
    return float(np.sqrt(((landmarks[:, :, INNER, :2] - pixels) ** 2).sum(-1).mean()))


def test_merged_points_are_better_than_each_and_what_differs_on_the_template_is_gone(world):
    first = detector(world, "a", 2.0, 1)
    second = detector(world, "b", 2.0, 2, shift_mm=4.0, scheme="ibug68")
    merged = merge(world[0], [second, first], world[2])
    assert merged.embedding.scheme == "mediapipe478" and list(merged.shares) == ["a", "b"]
    own = error_px(world, first.landmarks)
    assert error_px(world, merged.landmarks) < 0.8 * own
    assert 0.35 < np.median(merged.shares["a"]) < 0.65
    # 4 mm are 3 to 4 px here: without being moved, the second one would make the mean worse
    unmoved = 0.5 * (first.landmarks[:, :, INNER, :2] + second.landmarks[:, :, scheme_named("ibug68").inner, :2])
    whole = first.landmarks.copy()
    whole[:, :, INNER, :2] = unmoved
    assert error_px(world, whole) > 1.2 * error_px(world, merged.landmarks)
    rest = np.setdiff1d(np.arange(478), INNER)
    np.testing.assert_array_equal(merged.landmarks[:, :, rest], first.landmarks[:, :, rest])


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_noisier_detector_counts_less_as_this_capture_shows_it(world, calibrated):
    cameras = replace(world[2], calibrated=calibrated)
    if not calibrated:  # a video: 24 frames of one camera
        cameras = Cameras(
            *(a.reshape(24, 1, *a.shape[2:]) for a in (cameras.K, cameras.world_to_camera)),
            np.ones((24, 1), bool),
            False,
        )
        still = Cameras(
            np.tile(cameras.K[:1], (24, 1, 1, 1)),
            np.tile(cameras.world_to_camera[1:2], (24, 1, 1, 1)),
            cameras.there,
            False,
        )
        world = (world[0], world[1], still, world[3])
        cameras = still
    good, bad = detector(world, "good", 0.8, 1), detector(world, "bad", 6.0, 2)
    spreads = [spread_of(one, cameras) for one in (bad, good)]
    assert {one.how for one in spreads} == ({"views"} if calibrated else {"time"})
    ratio = np.median(spreads[0].values[INNER]) / np.median(spreads[1].values[INNER])
    assert 4 < ratio < 12
    merged = merge(world[0], [bad, good], cameras, spreads)
    assert np.median(merged.shares["good"]) > 0.8
    assert error_px(world, merged.landmarks) < 1.03 * error_px(world, good.landmarks)


def test_measured_spread_is_the_noise(world):
    found = spread_of(detector(world, "a", 2.0, 5), world[2])
    size = np.median(
        [
            np.sqrt(((p - p.mean(0)) ** 2).sum(1).mean())
            for p in detector(world, "a", 0, 5).landmarks[0, :, INNER, :2].transpose(1, 0, 2)
        ]
    )
    assert np.median(found.values[INNER]) * size == pytest.approx(2.0, rel=0.15)


def test_where_one_found_no_face_the_other_stands_alone(world):
    first, second = detector(world, "a", 1.0, 1), detector(world, "b", 1.0, 2, scheme="ibug68")
    first.landmarks[0, 0] = np.nan
    second.landmarks[1, 1] = np.nan
    merged = merge(world[0], [first, second], world[2]).landmarks
    rest = np.setdiff1d(np.arange(478), INNER)
    assert np.isfinite(merged[0, 0, INNER]).all() and np.isnan(merged[0, 0, rest]).all()
    np.testing.assert_array_equal(merged[1, 1], first.landmarks[1, 1])


def test_a_detector_far_off_in_a_picture_does_not_drag_the_others(world):
    first, second = detector(world, "a", 1.0, 1), detector(world, "b", 0.8, 2, scheme="ibug68")
    second.landmarks[2, 3, :, :2] += 60
    merged = merge(world[0], [first, second], world[2]).landmarks
    off = np.linalg.norm(merged[2, 3, INNER, :2] - first.landmarks[2, 3, INNER, :2], axis=1)
    assert np.median(off) < 3, "its picture is far worse than its others"


def test_one_source_is_no_merging(world):
    with pytest.raises(InputError, match="two detectors"):
        merge(world[0], [detector(world, "a", 1.0, 1)], world[2])


def test_merged_points_triangulate(world):
    first, second = detector(world, "a", 2.0, 1), detector(world, "b", 2.0, 2, 3.0, "ibug68")
    head, vertices, cameras, embedding = world
    truth = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()[INNER]

    def off(landmarks) -> float:
        found = triangulate(
            landmarks[0, :, INNER, :2].transpose(1, 0, 2), np.ones((6, 51)), cameras.K[0], cameras.world_to_camera[0]
        )
        return float(np.median(np.linalg.norm(found.points - truth, axis=1)))

    assert off(merge(head, [first, second], cameras).landmarks) < off(first.landmarks)


def test_a_detector_that_is_always_off_alike_is_known_by_the_head_model(world):
    """It agrees with itself over all views; no face has its points. What was expected of both is the same."""
    head, vertices, _, embedding = world
    truth = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    rng = np.random.default_rng(3)
    good, bad = truth + 0.0005 * rng.standard_normal(truth.shape), truth + 0.003 * rng.standard_normal(truth.shape)
    to_world = np.array([0.3, -2.0, 1.0])
    points, expected = [10 * good + to_world, 10 * bad + to_world], Expected(np.full(51, 0.001), 5.0)
    first, second = lasting_errors(head, [embedding, embedding], points, [expected, expected])
    assert np.median(second) > 3 * np.median(first)
    assert np.median(first) == pytest.approx(0.0005, rel=0.5) and np.median(second) == pytest.approx(0.003, rel=0.25)
    surer = Expected(np.full(51, 0.001), 1e6)
    for found in lasting_errors(head, [embedding, embedding], points, [surer, surer]):
        np.testing.assert_allclose(found, 0.001, rtol=1e-3, err_msg="what is known for certain is not changed")
    nothing = np.full_like(good, np.nan)
    np.testing.assert_array_equal(lasting_errors(head, [embedding], [nothing], [expected])[0], expected.std)


def test_one_part_of_the_face_that_is_off_leaves_the_others(world):
    """The eyes of the second detector are off by 4 mm, always alike: only they count for less."""
    head, vertices, _, embedding = world
    truth = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    rng = np.random.default_rng(4)
    first, second = (truth + 0.0007 * rng.standard_normal(truth.shape) for _ in range(2))
    second[INNER[FACE_PARTS["eyes"]]] += 0.0025 * rng.standard_normal((12, 3))
    expected = Expected(np.full(51, 0.0007), 20.0)
    one, other = lasting_errors(head, [embedding, embedding], [first, second], [expected, expected])
    assert np.median((other / one)[FACE_PARTS["eyes"]]) > 2
    rest = np.setdiff1d(np.arange(51), FACE_PARTS["eyes"])
    assert np.median((other / one)[rest]) < 1.3


def with_residuals(one: Detected, residual_mm: np.ndarray) -> Detected:
    return replace(one, embedding=replace(one.embedding, residual_mm=residual_mm.astype(np.float32)))


def test_of_one_camera_the_errors_on_drawn_heads_decide(world):
    """Both are as calm over time; the second one was far off on the heads that both were shown."""
    cameras = replace(world[2], calibrated=False)
    rng = np.random.default_rng(6)
    small, large = rng.standard_normal((12, 51, 3)), 3 * rng.standard_normal((12, 51, 3))
    first = with_residuals(detector(world, "a", 1.0, 1), small)
    second = with_residuals(detector(world, "b", 1.0, 2), large)
    shares = merge(world[0], [first, second], cameras).shares
    assert np.median(shares["a"]) > 0.7
    alike = merge(world[0], [first, with_residuals(second, rng.standard_normal((12, 51, 3)))], cameras).shares
    assert 0.4 < np.median(alike["a"]) < 0.6


def test_errors_and_how_alike_they_are_come_from_drawn_heads(world):
    rng = np.random.default_rng(8)
    common, own, other = rng.standard_normal((3, 400, 51, 3))
    first = with_residuals(detector(world, "a", 1.0, 1), 0.8 * common + 0.6 * own).embedding
    second = with_residuals(detector(world, "b", 1.0, 2), 2 * (0.8 * common + 0.6 * other)).embedding
    np.testing.assert_allclose(expected_error(first).std, 0.001, rtol=0.1)
    np.testing.assert_allclose(expected_error(second).std, 0.002, rtol=0.1)
    np.testing.assert_allclose(correlation([first, second], np.ones((2, 51))), 0.64, atol=0.05)
    np.testing.assert_allclose(correlation([first, second], np.full((2, 51), 0.5)), 0.16, atol=0.02)
    assert expected_error(first).worth > expected_error(replace(first, residual_mm=None)).worth
