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
from flame_fitting.landmarks.detector_spread import Cameras, Detected, spread_of
from flame_fitting.landmarks.lifting import Landmarks3D, triangulate
from flame_fitting.landmarks.merging import merge
from flame_fitting.landmarks.misfit import Expected, fit_faces
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


def of_ibug(embedding):
    """MediaPipe's places in the order of 68 points."""
    index = scheme_named("mediapipe478").ibug68
    names = ("face_index", "barycentric", "spread_mm", "n_views")
    return replace(embedding, scheme="ibug68", **{name: getattr(embedding, name)[index] for name in names})


def detector(
    world, name: str, noise: float, seed: int, shift_mm: float = 0.0, scheme: str = "mediapipe478"
) -> Detected:
    """One whose points are `shift_mm` higher on the face than MediaPipe's, and who knows (its embedding says so)."""
    head, vertices, cameras, embedding = world
    template, faces = head.v_template.numpy().astype(np.float64), head.faces.numpy()
    if scheme == "ibug68":
        embedding = of_ibug(embedding)
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
    ((first, second), places) = fit_faces(head, [embedding, embedding], [points], [expected, expected])[0]
    np.testing.assert_array_equal(places[0], places[1], err_msg="both mean the same, so on one face it is one place")
    off = np.linalg.norm(places[0] - (10 * truth + to_world)[INNER], axis=1) / 10
    assert np.median(off) < 0.0015, "the face is where the good one sees it"
    assert np.median(second) > 3 * np.median(first)
    assert np.median(first) == pytest.approx(0.0005, rel=0.5) and np.median(second) == pytest.approx(0.003, rel=0.25)
    surer = Expected(np.full(51, 0.001), 1e6)
    for found in fit_faces(head, [embedding, embedding], [points], [surer, surer])[0].std:
        np.testing.assert_allclose(found, 0.001, rtol=1e-3, err_msg="what is known for certain is not changed")
    nothing = np.full_like(good, np.nan)
    std, places = fit_faces(head, [embedding], [[nothing]], [expected])[0]
    np.testing.assert_array_equal(std[0], expected.std)
    assert np.isnan(places).all()


def test_one_part_of_the_face_that_is_off_leaves_the_others(world):
    """The eyes of the second detector are off by 4 mm, always alike: only they count for less."""
    head, vertices, _, embedding = world
    truth = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    rng = np.random.default_rng(4)
    first, second = (truth + 0.0007 * rng.standard_normal(truth.shape) for _ in range(2))
    second[INNER[FACE_PARTS["eyes"]]] += 0.0025 * rng.standard_normal((12, 3))
    expected = Expected(np.full(51, 0.0007), 20.0)
    one, other = fit_faces(head, [embedding, embedding], [[first, second]], [expected, expected])[0].std
    assert np.median((other / one)[FACE_PARTS["eyes"]]) > 2
    rest = np.setdiff1d(np.arange(51), FACE_PARTS["eyes"])
    assert np.median((other / one)[rest]) < 1.3


def with_residuals(one: Detected, residual_mm: np.ndarray) -> Detected:
    embedding = replace(one.embedding, residual_mm=residual_mm.astype(np.float32), picture_mm=None, picture_yaw=None)
    return replace(one, embedding=embedding)


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


def test_of_one_camera_pictures_from_about_there_tell(world):
    """On drawn heads the second detector was good from the front and bad from aside, in space something between."""
    rng = np.random.default_rng(9)
    yaw = np.array([-60, -40, -20, 0, 20, 40, 60])
    in_space, usual = 1.5 * rng.standard_normal((12, 51, 3)), rng.standard_normal((12, 7, 51, 2))
    first, second = detector(world, "a", 1.0, 1), detector(world, "b", 1.0, 2)
    changing = usual[::-1] * np.where(np.abs(yaw) < 30, 0.5, 4.0)[:, None, None]
    first, second = (
        replace(one, embedding=replace(one.embedding, residual_mm=in_space, picture_mm=mm, picture_yaw=yaw))
        for one, mm in ((first, usual), (second, changing))
    )
    for seen_from, better in ((5.0, "b"), (50.0, "a")):
        cameras = head_cameras(np.array([(seen_from, 0.0)] * 6), np.eye(4), head_frame(world[0]))
        aside = replace(world[2], calibrated=False, world_to_camera=np.tile(cameras, (4, 1, 1, 1)))
        seen = (world[0], world[1], aside, world[3])
        both = [replace(one, landmarks=detector(seen, "", 1.0, k).landmarks) for k, one in enumerate((first, second))]
        shares = merge(world[0], both, aside).shares
        assert np.median(shares[better]) > 0.7, seen_from
    np.testing.assert_allclose(expected_error(second.embedding, 0.0).std, 0.0005, rtol=0.15)
    np.testing.assert_allclose(expected_error(second.embedding, -55.0).std, 0.004, rtol=0.15)
    np.testing.assert_allclose(expected_error(second.embedding).std, 0.0015, rtol=0.25)


def of_errors(world, name: str, error_mm: np.ndarray, usual_mm: np.ndarray, seed: int, noise: float = 0.5):
    """One who is off by `error_mm` (478, 3) on this face, alike in all pictures, and by noise (px) in each; and its
    points in space. On drawn heads it was off by `usual_mm` (heads, 51, 3)."""
    head, vertices, cameras, embedding = world
    points = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy() + 0.001 * error_mm
    pixels = project(points, cameras.K, cameras.world_to_camera)[..., :2]
    rng = np.random.default_rng(seed)
    pixels = pixels + noise * rng.standard_normal(pixels.shape)
    landmarks = np.concatenate([pixels, np.ones((*pixels.shape[:3], 1))], axis=-1).astype(np.float32)
    steps, count = landmarks.shape[0], len(points)
    spread = np.full(count, 0.0005)
    lifted = [
        Landmarks3D(
            points + 0.0002 * rng.standard_normal(points.shape), spread, np.full(count, 6), np.full(count, "depth"),
            "mediapipe478",
        )
        for _ in range(steps)
    ]  # fmt: skip
    return with_residuals(Detected(name, landmarks, embedding), usual_mm), lifted


@pytest.mark.parametrize("case", ["alike", "correlated", "worse", "biased", "one part"])
def test_merged_is_never_much_worse_than_the_better_one(world, case):
    """Lasting errors of 1 mm along each axis; what the calibration says of both is the same but where it knows."""
    rng = np.random.default_rng(12)
    scale = 3.0 if case == "worse" else 1.0
    shared = 0.9 if case == "correlated" else 0.0
    common, own, other = rng.standard_normal((3, 12, 51, 3))
    usual = [np.sqrt(shared) * common + np.sqrt(1 - shared) * one for one in (own, other)]
    square = np.zeros(3)
    for seed in range(6):
        common, own, other = rng.standard_normal((3, 478, 3))
        errors = [np.sqrt(shared) * common + np.sqrt(1 - shared) * one for one in (own, other)]
        errors[1] = scale * errors[1]
        if case == "biased":  # a light that no drawn head had: every point goes where no face has it
            errors[1] = 3.0 * errors[1]
        if case == "one part":
            errors[1][INNER[FACE_PARTS["eyes"]]] *= 4.0
        first, in_space = of_errors(world, "a", errors[0], usual[0], seed)
        second, also = of_errors(world, "b", errors[1], scale * usual[1], seed + 100)
        merged = merge(world[0], [first, second], world[2], None, [in_space, also])
        square += [error_px(world, one) ** 2 for one in (first.landmarks, second.landmarks, merged.landmarks)]
    alone, beside, both = np.sqrt(square)
    assert both < (0.85 if case == "alike" else 1.03) * min(alone, beside), (alone, beside, both)


def test_points_are_moved_by_what_lies_between_on_the_face_that_fits(world):
    """A long face has its mouth's places farther apart than the template; the second one means them 6 mm higher."""
    head, _, cameras, embedding = world
    shape = torch.zeros(head.n_shape)
    shape[:10] = torch.as_tensor(2.0 * np.random.default_rng(5).standard_normal(10), dtype=torch.float32)
    with torch.no_grad():
        vertices = head(shape=shape, jaw_pose=torch.tensor([[0.35, 0.0, 0.0]])).vertices[0].numpy().astype(np.float64)
    wide = (head, vertices, cameras, embedding)
    first, second = detector(wide, "a", 0.3, 1), detector(wide, "b", 0.3, 2, shift_mm=6.0)
    in_space = []
    for one in (first, second):
        points = one.embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
        nothing = np.full(len(points), 0.0005)
        source = np.full(len(points), "depth")
        in_space.append([Landmarks3D(points, nothing, nothing, source, "mediapipe478")] * 4)
    by_face = merge(head, [first, second], cameras, None, in_space)
    by_template = merge(head, [first, second], cameras)
    assert error_px(wide, by_face.landmarks) < 0.6 * error_px(wide, by_template.landmarks)


def test_weights_are_the_same_in_all_pictures_of_a_surface_only(world):
    """One picture of the second detector is worse: of rays it counts less there, on a surface as much as elsewhere."""
    none = np.zeros((478, 3))
    usual = np.random.default_rng(2).standard_normal((12, 51, 3))
    (first, in_space), (second, also) = of_errors(world, "a", none, usual, 1), of_errors(world, "b", none, usual, 2)
    rng = np.random.default_rng(3)
    second.landmarks[1, 2, :, :2] += 2.0 * rng.standard_normal((478, 2))
    shares = {}
    for how in ("depth", "rays"):
        lifted = [[replace(one, source=np.full(478, how)) for one in own] for own in (in_space, also)]
        merged = merge(world[0], [first, second], world[2], None, lifted).landmarks[:, :, INNER, :2].astype(np.float64)
        a, b = (one.landmarks[:, :, INNER, :2].astype(np.float64) for one in (first, second))
        share = ((merged - a) * (b - a)).sum((2, 3)) / ((b - a) ** 2).sum((2, 3))
        shares[how] = share
    usual_share = np.median(shares["depth"])
    assert 0.3 < usual_share < 0.7
    np.testing.assert_allclose(shares["depth"], usual_share, atol=0.03)
    assert shares["rays"][1, 2] < 0.5 * np.median(shares["rays"])


def test_points_on_a_surface_are_merged_in_space(world):
    """There they are better than each detector's, whatever pictures say; rays are left to be triangulated."""
    head, vertices, _, embedding = world
    truth = embedding.points(torch.as_tensor(vertices)[None], head.faces)[0].numpy()
    rng = np.random.default_rng(21)
    errors, usual = rng.standard_normal((2, 478, 3)), rng.standard_normal((2, 12, 51, 3))
    (first, in_space), (second, also) = (of_errors(world, "ab"[k], errors[k], usual[k], k) for k in range(2))
    index = scheme_named("mediapipe478").ibug68
    second = replace(second, landmarks=second.landmarks[:, :, index], embedding=of_ibug(second.embedding))
    arrays = ("points", "spread", "n_views", "source")
    also = [replace(one, scheme="ibug68", **{name: getattr(one, name)[index] for name in arrays}) for one in also]
    also[0].n_views[:] = 9
    in_space[2].points[INNER[4]] = np.nan
    in_space[3] = Landmarks3D.nowhere("mediapipe478")
    first.landmarks[3] = np.nan
    found = merge(head, [second, first], world[2], None, [also, in_space])
    assert len(found.in_space) == 4 and {one.scheme for one in found.in_space} == {"mediapipe478"}
    for step, own in enumerate(found.in_space[:3]):
        off = [np.sqrt(((one[INNER] - truth[INNER]) ** 2).sum(1)) for one in (own.points, in_space[step].points)]
        assert np.median(off[0]) < 0.85 * np.nanmedian(off[1])
        rest = np.setdiff1d(np.arange(478), INNER)
        np.testing.assert_array_equal(own.points[rest], in_space[step].points[rest])
    a, b = in_space[0].points[INNER], also[0].points[scheme_named("ibug68").inner]
    share = ((found.in_space[0].points[INNER] - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1)
    assert share.min() > 0.2 and share.max() < 0.8
    np.testing.assert_allclose(found.in_space[0].points[INNER], a + share[:, None] * (b - a), atol=1e-9)
    assert (found.in_space[0].n_views[INNER] == 9).all() and (found.in_space[0].n_views[rest] == 6).all()
    # one alone has it
    np.testing.assert_allclose(found.in_space[2].points[INNER[4]], also[2].points[21], atol=1e-9)
    # one alone saw the face: its inner points, and no others
    alone = found.in_space[3]
    np.testing.assert_allclose(alone.points[INNER], also[3].points[scheme_named("ibug68").inner], atol=1e-9)
    assert alone.valid.sum() == 51
    rays = [[replace(one, source=np.full(len(one.points), "rays")) for one in own] for own in (also, in_space)]
    assert not merge(head, [second, first], world[2], None, rays).in_space


def test_a_timestep_whose_points_are_not_in_space_is_moved_by_the_template(world):
    """One view alone saw the face there, and the first detector nothing: the second one still stands alone."""
    none, usual = np.zeros((478, 3)), np.random.default_rng(2).standard_normal((12, 51, 3))
    (first, in_space), (second, also) = of_errors(world, "a", none, usual, 1), of_errors(world, "b", none, usual, 2)
    first.landmarks[2] = np.nan
    second.landmarks[2, 1:] = np.nan
    for own in (in_space, also):
        own[2] = Landmarks3D.nowhere("mediapipe478")
    merged = merge(world[0], [first, second], world[2], None, [in_space, also]).landmarks[:, :, INNER, :2]
    np.testing.assert_allclose(merged[2, 0], second.landmarks[2, 0, INNER, :2], atol=1e-3)
    assert np.isnan(merged[2, 1:]).all() and np.isfinite(merged[3]).all()
