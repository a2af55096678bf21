"""Evidence of lids, lips and gaze: the regressions on made-up samples, the irises, and what ships on the open head."""

import cv2
import numpy as np
import pytest
import torch

from flame_fitting.avatar.evidence_pictures import EvidencePictures, HeadPose, posed, truth_of
from flame_fitting.avatar.head_calibration import detector_input, head_frame, painted_avatar, shipped_embedding
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.errors import InputError
from flame_fitting.head.apertures import find_apertures
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks import eyes
from flame_fitting.landmarks.evidence import (
    Evidence,
    EvidenceCalibration,
    read_evidence,
    shipped_evidence,
    toward_one_thing,
)
from flame_fitting.landmarks.evidence_features import EvidenceGeometry, features_of
from flame_fitting.landmarks.evidence_fit import (
    QUANTITIES,
    join_quantities,
    regress,
    split_quantities,
    variance_parts,
)
from flame_fitting.landmarks.eye_network import EyeNetwork, find_eyes, head_turn, look, shipped_network
from flame_fitting.landmarks.mediapipe_detector import MEASURES, SCORE_NAMES, MediaPipeDetector, mirrored_scores
from flame_fitting.landmarks.schemes import scheme_named


def groups(identities: int, expressions: int, views: int) -> np.ndarray:
    rows = [(i, i * expressions + e) for i in range(identities) for e in range(expressions) for _ in range(views)]
    return np.array(rows)


def test_what_a_person_shares_is_told_from_each_pictures_own_error():
    rng = np.random.default_rng(0)
    group = groups(150, 4, 3)
    residual = 2.0 * rng.standard_normal(150)[group[:, 0]] + 1.0 * rng.standard_normal(600)[group[:, 1]]
    residual += 0.5 * rng.standard_normal(len(group))
    np.testing.assert_allclose(np.sqrt(variance_parts(residual, group)), (2.0, 1.0, 0.5), rtol=0.15)


def test_a_regression_gets_slopes_through_persons_biases_and_knows_its_errors():
    rng = np.random.default_rng(1)
    group = groups(80, 4, 2)
    features = rng.standard_normal((len(group), 5)) * (1, 3, 0.1, 1, 1) + 2
    slope = np.array([1.0, -0.5, 4.0, 0.0, 0.0])
    truth = features @ slope + 1.5 * rng.standard_normal(80)[group[:, 0]]
    truth += 0.4 * rng.standard_normal(len(group))
    truth[::7] = np.nan
    found = regress(features, truth[:, None], group, rng.uniform(-50, 50, len(group)))
    np.testing.assert_allclose(found.slope[:, 0] / found.scale, slope, atol=0.4)
    np.testing.assert_allclose((found.slope[:, 0] / found.scale)[[0, 1, 3, 4]], slope[[0, 1, 3, 4]], atol=0.05)
    assert found.shared_std[0] == pytest.approx(1.5, rel=0.2)
    np.testing.assert_allclose(found.own_std[:, 0], 0.4, rtol=0.5)
    # far aside, it is known to know less
    assert found.spread(np.array([80.0]))[0, 0] > 2 * found.spread(np.array([0.0]))[0, 0]


def test_few_pictures_of_another_model_correct_a_regression_and_say_little_where_they_do_not_contradict_it():
    rng = np.random.default_rng(6)
    group = groups(80, 2, 2)
    slope = rng.standard_normal((40, 2))

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        features = rng.standard_normal((count, 40))
        return features, features @ slope + 0.3 * rng.standard_normal((count, 2))

    about = regress(*drawn(len(group)), group, np.zeros(len(group)))
    # of the other model the first quantity is 0.8 of what is said, and 3 more; the second is as it was
    few = groups(12, 2, 2)
    features, truth = drawn(len(few))
    truth[:, 0] = 0.8 * truth[:, 0] + 3.0
    truth[::9, 1] = np.nan
    own = regress(features, truth, few, np.zeros(len(few)), about=about)
    alone = regress(features, truth, few, np.zeros(len(few)))
    new, said = drawn(400)
    said[:, 0] = 0.8 * said[:, 0] + 3.0
    by_about, by_own, by_few = (np.sqrt(np.mean((one.predict(new) - said) ** 2, 0)) for one in (about, own, alone))
    assert by_own[0] < 0.4 * by_about[0] and by_own[1] < 1.1 * by_about[1] and by_own[1] < 0.5 * by_few[1]
    np.testing.assert_array_equal(own.mean, about.mean)
    # what it says of its errors is what they are, not what those of the first model were
    np.testing.assert_allclose(np.hypot(own.shared_std, own.own_std[0]), by_own, rtol=0.5)


def test_eyes_that_are_read_apart_at_all_times_are_turned_toward_one_thing():
    rng = np.random.default_rng(8)
    right, left = QUANTITIES.index("right_gaze_yaw"), QUANTITIES.index("left_gaze_yaw")
    values = rng.standard_normal((60, 2, len(QUANTITIES)))
    looks = 20 * rng.standard_normal((60, 1))
    squint = np.clip(2 * rng.standard_normal((60, 1)), -3, 3)
    values[..., right], values[..., left] = looks - 5 - squint, looks + 5 + squint
    values[3, 1], values[7] = np.nan, np.nan
    read = Evidence(values, np.ones_like(values), np.ones(len(QUANTITIES)), np.zeros((60, 2, 3)))
    turned = toward_one_thing(read).values
    both = np.isfinite(values[..., left])
    np.testing.assert_allclose(
        (turned[..., left] + turned[..., right])[both], np.repeat(2 * looks, 2, 1)[both], atol=1e-9
    )
    apart = 0.5 * (turned[..., left] - turned[..., right])
    # what stays is a moment's own, and what people squint by
    np.testing.assert_allclose((apart - np.repeat(squint, 2, 1))[both], 1.0, atol=0.8)
    others = [k for k in range(len(QUANTITIES)) if k not in (right, left)]
    np.testing.assert_array_equal(turned[..., others], values[..., others])
    np.testing.assert_array_equal(np.isfinite(turned), np.isfinite(values))
    # a few moments may be those of a squint
    few = Evidence(values[:3], np.ones_like(values[:3]), np.ones(len(QUANTITIES)), np.zeros((3, 2, 3)))
    np.testing.assert_array_equal(toward_one_thing(few).values, values[:3])


def test_quantities_are_split_by_eye_and_joined_again():
    values = np.random.default_rng(0).standard_normal((3, len(QUANTITIES)))
    np.testing.assert_array_equal(join_quantities(*split_quantities(values)), values)
    right, left, _ = split_quantities(values)
    # a mirrored face: the eyes change places, gaze yaw its sign
    mirrored = values[:, [5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 12, 11, 10, 15, 16, 13, 14]].copy()
    mirrored[:, [13, 15]] *= -1
    np.testing.assert_array_equal(split_quantities(mirrored)[0], left)
    np.testing.assert_array_equal(split_quantities(mirrored)[1], right)


def test_scores_mirror_by_name():
    mirror = mirrored_scores()
    assert MEASURES[mirror[MEASURES.index("eyeBlinkLeft")]] == "eyeBlinkRight"
    assert MEASURES[mirror[MEASURES.index("jawOpen")]] == "jawOpen"
    assert len(SCORE_NAMES) == 52 and (mirror[mirror] == np.arange(len(MEASURES))).all()


def drawn_eyes(scale: float, place: tuple[float, float], openness: float = 0.36) -> tuple[np.ndarray, np.ndarray]:
    """A picture of two drawn eyes, and points around them whose iris lies in the middle."""
    scheme, network = scheme_named("mediapipe478"), shipped_network()
    side = int(400 * scale)
    picture = np.full((side, side, 3), (205, 160, 135), np.uint8)
    points = np.full((478, 2), side / 2.0)
    # a face that looks straight at the camera, with 300 px between its eyes' outer corners
    index = network.head_index.numpy().astype(int)
    known = index >= 0
    points[index[known]] += 330 * scale * network.head_points.numpy()[known, :2] * (1, -1)
    for sign, name in ((-1, "right"), (1, "left")):
        width = 120 * scale
        middle = np.array([side / 2 + sign * 90 * scale, side / 2])
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        # outer corner, lower lid, inner corner, upper lid
        outline = np.stack([sign * np.cos(angle), openness * np.sin(angle)], axis=1) * width / 2
        points[scheme.groups[f"{name}_eye"]] = middle + outline
        points[scheme.ibug68[[36, 39] if sign < 0 else [45, 42]]] = (
            middle + np.array([[sign, 0], [-sign, 0]]) * width / 2
        )
        mask = np.zeros((side, side), np.uint8)
        cv2.fillPoly(mask, [np.round(16 * (middle + outline - 0.5)).astype(np.int32)], 255, cv2.LINE_AA, 4)
        eye = np.full_like(picture, 232)
        center = middle + width * np.array([-sign * place[0], -place[1]])
        at = tuple(int(v) for v in np.round(16 * (center - 0.5)))
        cv2.circle(eye, at, int(16 * 0.2 * width), (90, 60, 40), -1, cv2.LINE_AA, 4)
        share = mask[..., None] / 255.0
        picture = np.round(picture * (1 - share) + eye * share).astype(np.uint8)
    return picture, points


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_irises_and_lids_are_found_where_they_are_drawn(scale):
    """Drawn eyes of several sizes, nothing like the pictures that the network learned from."""
    found, gaze = {}, {}
    for place in ((0.0, 0.0), (0.08, 0.0), (-0.08, 0.0), (0.0, 0.06)):
        measures = find_eyes(*drawn_eyes(scale, place))
        found[place], gaze[place] = eyes.split_measures(measures)
        # the left eye is the mirror image of the right one
        np.testing.assert_allclose(found[place][0], found[place][1], atol=0.02)
    for place, both in found.items():
        np.testing.assert_allclose(both[:, eyes.IRIS].mean(0), place, atol=0.05)
    moved = found[0.08, 0.0][:, eyes.IRIS, 0] - found[-0.08, 0.0][:, eyes.IRIS, 0]
    np.testing.assert_allclose(moved, 0.16, atol=0.06)
    # toward the inner corner is away from the outer side; of a drawing the network tells about half of the true angle
    turned = np.degrees(gaze[-0.08, 0.0] - gaze[0.08, 0.0])
    assert (turned[:, 0] > 9).all() and (np.degrees(gaze[0.0, 0.06] - gaze[0.0, 0.0])[:, 1] > 4).all()
    narrow, _ = eyes.split_measures(find_eyes(*drawn_eyes(scale, (0.0, 0.0), 0.12)))

    def gap(both: np.ndarray) -> np.ndarray:
        return (both[:, eyes.UPPER, 1] - both[:, eyes.LOWER, 1]).mean(1)

    assert (gap(narrow) < 0.6 * gap(found[0.0, 0.0])).all()


def test_places_of_an_eye_go_to_the_picture_and_back():
    picture, points = drawn_eyes(1.0, (0.05, 0.0))
    measures = find_eyes(picture, points)
    seen = eyes.places_of(points, measures)
    for side in range(2):
        middle, axes = eyes.frame_of(eyes.corners_of(points)[side], left=side == 1)
        back = (seen[side] - middle) @ np.linalg.inv(axes).T
        np.testing.assert_allclose(back, eyes.split_measures(measures)[0][side], atol=1e-9)
    # toward the inner corner, which is right of the right eye's middle and left of the left one's
    assert seen[0, eyes.INNER, 0] > seen[0, eyes.OUTER, 0] and seen[1, eyes.INNER, 0] < seen[1, eyes.OUTER, 0]
    assert (seen[:, eyes.UPPER, 1].mean(1) < seen[:, eyes.LOWER, 1].mean(1)).all()


def test_eyes_of_two_pixels_say_nothing():
    points = np.full((478, 2), 50.0)
    assert np.isnan(find_eyes(np.zeros((100, 100, 3), np.uint8), points)).all()


def test_the_eye_network_round_trip_and_damage(tmp_path):
    network = shipped_network()
    network.save(tmp_path / "a.npz")
    patches = np.random.default_rng(0).integers(0, 255, (3, 2, eyes.PATCH[1], eyes.PATCH[0], 3), dtype=np.uint8)
    turn = np.array([[0.0, 0.0], [0.5, 0.1], [-0.2, 0.3]])
    for again, first in zip(
        look(EyeNetwork.load(tmp_path / "a.npz"), patches, turn), look(network, patches, turn), strict=True
    ):
        np.testing.assert_array_equal(again, first)
    # brighter, or with less contrast, is the same eye
    dim = (0.5 * patches + 30).astype(np.uint8)
    np.testing.assert_allclose(look(network, dim, turn)[0], look(network, patches, turn)[0], atol=0.02)
    np.savez(tmp_path / "b.npz", layers=np.zeros(3))
    with pytest.raises(InputError, match=r"b\.npz: not the weights"):
        EyeNetwork.load(tmp_path / "b.npz")


def test_a_mirrored_face_is_read_as_the_mirrored_one():
    network = shipped_network()
    patches = np.random.default_rng(1).integers(0, 255, (1, 2, eyes.PATCH[1], eyes.PATCH[0], 3), dtype=np.uint8)
    turn = np.array([[0.4, 0.1]])
    places, gaze = look(network, patches, turn)
    # the left eye is shown mirrored already, so both only change sides
    swapped_places, swapped_gaze = look(network, patches[:, ::-1], turn * (-1, 1))
    np.testing.assert_allclose(swapped_places, places[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(swapped_gaze, gaze[:, ::-1], atol=1e-5)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (40.0, 10.0), (-25.0, -15.0)])
def test_the_turn_of_a_head_is_told_by_its_points_without_knowing_the_lens(open_head, yaw, pitch):
    head, geometry = open_head
    camera = head_cameras(np.array([[yaw, pitch]]), np.eye(4), head_frame(head), 20.0)[0]
    for size in (128, 512):
        seen = project(geometry.points, intrinsics_from_fov(20.0, size, size), camera)[:, :2]
        np.testing.assert_allclose(np.degrees(head_turn(shipped_network(), seen)), (yaw, pitch), atol=3.5)
    np.testing.assert_array_equal(head_turn(shipped_network(), np.full((478, 2), np.nan)), 0)
    np.testing.assert_array_equal(head_turn(shipped_network(), np.full((478, 2), 3.0)), 0)


@pytest.fixture(scope="module")
def open_head():
    head = load_head("open")
    return head, EvidenceGeometry(head, shipped_embedding(head, "mediapipe", "lit"))


def test_pose_and_places_of_the_template_are_found_from_any_side(open_head):
    head, geometry = open_head
    angles = np.array([(0, 0), (35, -10), (-50, 15)], float)
    cameras = head_cameras(angles, np.eye(4), head_frame(head))
    K = intrinsics_from_fov(25.0, 512, 512)
    for angle, camera in zip(angles, cameras, strict=True):
        pixels = project(geometry.points, K, camera)[:, :2]
        landmarks = np.concatenate([pixels, np.ones((478, 1))], axis=1)
        pose = geometry.pose(landmarks, K)
        np.testing.assert_allclose(pose.rotation, camera[:3, :3], atol=1e-4)
        np.testing.assert_allclose(geometry.in_head(landmarks, K, pose), 1000 * geometry.points, atol=0.05)
        np.testing.assert_allclose(pose.angles, angle, atol=8)
    landmarks[:] = np.nan
    assert geometry.pose(landmarks, K) is None
    assert features_of(geometry, landmarks, np.zeros(len(MEASURES)), K) is None


def test_combined_views_are_surer_but_not_of_what_they_share():
    values = np.array([[[4.0], [6.0]], [[5.0], [np.nan]], [[np.nan], [np.nan]]])
    own = np.where(np.isfinite(values), 1.0, np.nan)
    own[0, 1] = 2.0
    both = Evidence(values, own, np.array([0.7]), np.ones((3, 2, 4))).combined(same=0.5)
    np.testing.assert_allclose(both.values[:, 0], [4.4, 5.0, np.nan])
    assert both.own_std[1, 0] == 1.0 and 0.9 < both.own_std[0, 0] < 1.2
    assert np.isnan(both.own_std[2, 0]) and both.known.tolist() == [True, True, False]
    np.testing.assert_allclose(both.std[1], np.hypot(1.0, 0.7))


def test_calibration_round_trip_and_damage(tmp_path):
    shipped = shipped_evidence("mediapipe", MediaPipeDetector().version)
    assert shipped is not None, "made with the weights and features of this version: scripts/calibrate_evidence.py"
    shipped.save(tmp_path / "a.npz")
    again = EvidenceCalibration.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.eye.slope, shipped.eye.slope)
    assert (again.detector_version, again.head_hash) == (shipped.detector_version, load_head("open").file_hash)
    assert shipped_evidence("mediapipe", "other weights") is None and shipped_evidence("dlib", "1") is None
    np.savez(tmp_path / "b.npz", eye_mean=np.zeros(3))
    with pytest.raises(InputError, match=r"b\.npz: not a calibration"):
        EvidenceCalibration.load(tmp_path / "b.npz")


def test_pictures_of_the_open_head_are_read(open_head):
    """Shut and open lids, an open mouth, eyes to the side and up, on a paint that no calibration saw."""
    head, geometry = open_head
    apertures, calibration = find_apertures(head), shipped_evidence("mediapipe", MediaPipeDetector().version)
    from flame_fitting.avatar.evidence_pictures import blink_direction

    blinks = blink_direction(head, apertures)
    rest = np.zeros(head.n_expr)
    still = np.array([0.02, 0.0, 0.0])

    def pose(expr=rest, jaw=still, yaw=0.0, pitch=0.0):
        return HeadPose(np.zeros(1), expr, jaw, np.array([-pitch, yaw, 0.0, -pitch, yaw, 0.0]))

    poses = [
        pose(),
        pose(expr=0.9 * (blinks[0] + blinks[1])),
        pose(jaw=np.array([0.22, 0.0, 0.0])),
        pose(yaw=0.35),
        pose(pitch=0.22),
    ]
    K = intrinsics_from_fov(20.0, EvidencePictures.size, EvidencePictures.size)
    camera = head_cameras(np.array([[6.0, 2.0]]), np.eye(4), head_frame(head), 20.0, 0.7)
    pictures, truth = [], []
    for one in poses:
        vertices = posed(head, one)[0][0].numpy().astype(np.float64)
        avatar = painted_avatar(head, vertices, np.clip(0.9 * head.texture, 0, 255).astype(np.uint8))
        drawn = avatar.draw(K[None], camera, EvidencePictures.size, EvidencePictures.size, "lit", outputs=("image",))
        pictures.append(detector_input(drawn.image)[0])
        truth.append(truth_of(head, apertures, one))
    seen = MediaPipeDetector().look(np.stack(pictures))
    landmarks = np.stack([one.landmarks[0] for one in seen])
    scores = np.stack([one.scores[0] for one in seen])
    found = read_evidence(calibration, geometry, landmarks, scores, np.tile(K, (5, 1, 1)))
    names, truth = list(QUANTITIES), np.array(truth)
    error = (found.values - truth) / found.std
    assert np.nanmax(np.abs(error)) < 5 and np.sqrt(np.nanmean(error**2)) < 1.8, "as sure as it says"
    lids = found.values[:, [names.index("right_lid_2"), names.index("left_lid_2")]]
    assert (lids[1] < lids[0] - 3).all()
    assert found.values[2, names.index("middle_lip")] > 12 > 6 > found.values[0, names.index("middle_lip")]
    gaze = found.values[:, 13:]
    assert (np.abs(gaze[3] - gaze[0])[[0, 2]] > 10).all() and (gaze[3] - gaze[0])[[0, 2]].min() > 0
    assert ((gaze[4] - gaze[0])[[1, 3]] > 4).all()
    assert np.isnan(gaze[1]).all(), "nobody sees where shut eyes look"
    assert np.isfinite(found.odds).all() and found.odds.shape == (5, len(SCORE_NAMES)), "all seen from the front"
    assert (found.odds_of(["eyeBlinkLeft"])[1] > found.odds_of(["eyeBlinkLeft"])[0] + 1).all()
    # nothing where no face is
    landmarks[0] = np.nan
    again = read_evidence(calibration, geometry, landmarks, scores, np.tile(K, (5, 1, 1)))
    assert again.known.tolist() == [False, True, True, True, True] and np.isnan(again.odds[0]).all()
    assert torch.is_tensor(head.v_template)
