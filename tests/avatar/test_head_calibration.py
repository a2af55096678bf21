"""Calibrated landmarks: they repeat, they are found again by hash, and lips and eyes keep to their own surfaces."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.avatar import head_calibration
from flame_fitting.avatar.head_calibration import (
    embedding_of_landmarks,
    head_frame,
    landmark_embedding,
    painted_colors,
    render_head,
)
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.calibration import (
    CalibrationConfig,
    HeadViews,
    allowed_faces,
    calibrate,
    detect_on_head,
    heads_to_show,
    identity_coefficients,
    spread_table,
)
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.embedding_schemes import for_scheme
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.mediapipe_detector import MediaPipeConfig, MediaPipeDetector
from flame_fitting.landmarks.registry import Settings
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.maths.closest import nearest_on_surface


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module", params=["textured", "lit", "clay"])
def embedding(request, head):
    return landmark_embedding(head, MediaPipeDetector(), request.param)


def test_shipped_embedding_belongs_to_the_shipped_head(head, embedding):
    assert embedding.head_hash == head.file_hash, "run scripts/calibrate_landmarks.py after changing the open head"
    assert embedding.valid.all() and embedding.scheme == "mediapipe478"
    np.testing.assert_allclose(embedding.barycentric.sum(1), 1, atol=1e-6)
    assert (embedding.barycentric >= -1e-9).all()


def test_shipped_embedding_repeats_over_views(embedding):
    rows = {name: (median, p95) for name, _, median, p95 in spread_table(embedding)}
    assert rows["inner 51"][0] < 2.0 and rows["all"][0] < 2.0


def test_points_reproject_into_a_view_that_took_no_part(head, embedding):
    """A new view of the template: detected points lie where the embedding says, within a few pixels."""
    from flame_fitting.avatar.head_calibration import CALIBRATION_SHADING, head_avatar, render_views

    camera = head_cameras(np.array([[10.0, 7.0]]), np.eye(4), head_frame(head))
    K = intrinsics_from_fov(25.0, 512, 512)[None]
    vertices = head.v_template.numpy().astype(np.float64)
    views = render_views(
        head_avatar(head, vertices, embedding.shading),
        K,
        camera,
        512,
        CALIBRATION_SHADING[embedding.shading],
        np.eye(3),
    )
    found = MediaPipeDetector(config=MediaPipeConfig(jitter=4)).detect(views.images)[0]
    expected = project(embedding.points(head.v_template[None], head.faces)[0].numpy(), K[0], camera[0])
    inner = scheme_named("mediapipe478").inner
    error = np.linalg.norm(found[inner, :2] - expected[inner, :2], axis=1)
    assert np.median(error) < 2.0 and np.percentile(error, 95) < 6.0  # a pixel is 1 mm


def test_embedding_is_nearly_symmetric(head, embedding):
    points = embedding.points(head.v_template[None], head.faces)[0].numpy()
    mirrored = points[scheme_named("mediapipe478").mirror] * [-1, 1, 1]
    inner = scheme_named("mediapipe478").inner
    assert np.median(np.linalg.norm(points - mirrored, axis=1)[inner]) < 0.0025


def test_points_keep_to_their_own_surface(head, embedding):
    allowed = allowed_faces(head, "mediapipe478")
    assert allowed[np.arange(478), embedding.face_index].all()
    jaw = head.weights[:, 2].numpy()[head.faces.numpy()].mean(1)
    upper, lower = scheme_named("mediapipe478").lips
    assert jaw[embedding.face_index[upper]].max() < 0.5 <= jaw[embedding.face_index[lower]].min()
    eyeballs = {"right": 4, "left": 3}
    weights = head.weights.numpy()[head.faces.numpy()].mean(1)
    assert (weights[embedding.face_index[468:473], eyeballs["right"]] > 0.5).all()
    assert (weights[embedding.face_index[473:478], eyeballs["left"]] > 0.5).all()


class ExactDetector(LandmarkDetector):
    """Knows its points on the head that is shown: projections of fixed surface points."""

    name, scheme, n_points, version = "exact", "mediapipe478", 478, "1"

    def __init__(self, truth: np.ndarray, faces: np.ndarray) -> None:
        self.face, self.faces, self.vertices, self.views = truth, faces, None, None

    def detect(self, images):
        points = self.vertices[self.faces[self.face]].mean(1)
        out = project(points, self.views.K, self.views.world_to_camera)
        out[..., 2] = 1.0
        return out.astype(np.float32)


def test_calibration_recovers_known_surface_points(head):
    """A detector without error: the embedding is its own points, up to the pixels of the depth maps."""
    faces = head.faces.numpy()
    template = head.v_template.numpy().astype(np.float64)
    front = np.flatnonzero(head.face_mask("forehead", "left_cheek", "right_cheek").numpy())
    truth = front[np.linspace(0, len(front) - 1, 478).astype(int)]
    detector = ExactDetector(truth, faces)
    shown = render_head(head, "clay")

    def render(vertices, look) -> HeadViews:
        views = shown(vertices, look)
        detector.vertices, detector.views = vertices, views
        return views

    groups_free = np.array(
        [i for i in range(478) if i not in set(np.concatenate(scheme_named("mediapipe478").lips)) and i < 468]
    )
    embedding = calibrate(head, detector, "clay", render, CalibrationConfig(identities=0, drawn=2))
    points = embedding.points(head.v_template[None].double(), head.faces)[0].numpy()
    error = np.linalg.norm(points - template[faces[truth]].mean(1), axis=1)[groups_free]
    assert np.nanmedian(error) < 3e-4 and np.nanpercentile(error, 95) < 2e-3
    assert embedding.head_hash == head.file_hash and embedding.detector == "exact"
    assert embedding.residual_mm.shape == (2, 51, 3)
    skin = np.isin(scheme_named("mediapipe478").inner, groups_free)
    assert np.nanmedian(np.linalg.norm(embedding.residual_mm[:, skin], axis=-1)) < 0.5
    assert embedding.picture_mm.shape == (2, 13, 51, 2)
    assert np.nanmedian(np.abs(embedding.picture_mm[:, :, skin])) < 0.5
    np.testing.assert_allclose(np.sort(embedding.picture_yaw), np.sort(-embedding.picture_yaw), atol=1e-3)
    assert 55 < np.abs(embedding.picture_yaw).max() < 65


def test_errors_in_pictures_are_in_mm_along_the_picture(head):
    """A detector that is 3 px too far right in every picture, on a head of known distance."""
    faces = head.faces.numpy()
    front = np.flatnonzero(head.face_mask("forehead", "left_cheek", "right_cheek").numpy())
    truth = front[np.linspace(0, len(front) - 1, 478).astype(int)]
    detector, shown = ExactDetector(truth, faces), render_head(head, "clay")
    count, depth = [0], []

    def render(vertices, look) -> HeadViews:
        views = shown(vertices, look)
        detector.vertices, detector.views = vertices, views
        count[0] += look is not None
        middle = vertices[faces[truth]].mean((0, 1))
        depth[:] = [1000 * float(project(middle[None], views.K, views.world_to_camera)[0, 0, 2] / views.K[0, 0, 0])]
        return views

    found = detector.detect
    detector.detect = lambda images: found(images) + np.array([3.0 * (count[0] > 0), 0.0, 0.0], dtype=np.float32)
    embedding = calibrate(head, detector, "clay", render, CalibrationConfig(identities=6, drawn=1))
    free = np.isin(scheme_named("mediapipe478").inner, np.concatenate(scheme_named("mediapipe478").lips), invert=True)
    across, down = (np.nanmedian(embedding.picture_mm[..., free, axis].astype(float)) for axis in (0, 1))
    assert across == pytest.approx(3 * depth[0], rel=0.1) and abs(down) < 0.1


def test_every_detector_is_shown_the_same_paint(head, monkeypatch):
    """A model without a texture is painted where MediaPipe sees brows and lids; iBUG's order could not say."""
    bare = copy.deepcopy(head)
    bare.texture = None
    shipped = {name: head_calibration.shipped_embedding(head, name, "clay") for name in ("mediapipe", "dlib")}
    pictures, parts = [], []

    def fake(model, detector, kind, render, config, shown):
        parts.append(shown.keywords["description"])
        if kind == "lit":
            views = render(model.v_template.numpy().astype(np.float64), None)
            pictures.append(views.images[np.arange(len(views.images)) % 7 == 3])
        return shipped[detector.name]

    monkeypatch.setattr(head_calibration, "calibrate", fake)
    for name in shipped:
        detector = stand_in("any")
        detector.name, detector.scheme = name, shipped[name].scheme
        head_calibration.calibrate_head(bare, detector, "lit", CalibrationConfig())
    np.testing.assert_array_equal(pictures[0], pictures[1])
    paint = "calibration: where to paint"
    assert parts == [paint, "calibration of mediapipe (lit)", paint, "calibration of dlib (lit)"]


def test_embeddings_are_cached_by_what_decides_them(head, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path))
    made = []

    def fake(head, detector, kind, config):
        made.append(kind)
        count = 478
        return LandmarkEmbedding(
            np.zeros(count, int), np.ones((count, 3)) / 3, np.ones(count), np.ones(count, int), "mediapipe478",
            detector.name, kind, head.file_hash,
        )  # fmt: skip

    monkeypatch.setattr(head_calibration, "calibrate_head", fake)
    detector, config = MediaPipeDetector(), CalibrationConfig(identities=1)
    for _ in range(2):
        landmark_embedding(head, detector, "clay", config)
    assert made == ["clay"]
    landmark_embedding(head, detector, "textured", config)
    landmark_embedding(head, detector, "clay", replace(config, seed=7))
    landmark_embedding(head, MediaPipeDetector(config=MediaPipeConfig(jitter=1)), "clay", config)
    assert made == ["clay", "textured", "clay", "clay"]
    # what FLAME_masks.pkl may change of the paint
    other = copy.deepcopy(head)
    other.region_lips_tight = other.region_lips_tight[:-1]
    for _ in range(2):
        landmark_embedding(other, detector, "clay", config)
    assert made == ["clay", "textured", "clay", "clay", "clay"]


def stand_in(version: str) -> LandmarkDetector:
    """MediaPipe's name and order with weights of another version; cannot detect."""

    class Other(LandmarkDetector):
        name, scheme, n_points = "mediapipe", "mediapipe478", 478

        def detect(self, images):
            raise AssertionError("nothing is to be detected")

    other = Other()
    other.version = version
    return other


def test_shipped_embeddings_belong_to_the_weights_that_are_installed(embedding):
    assert embedding.detector_version == MediaPipeDetector().version, "run scripts/calibrate_landmarks.py"


def test_other_weights_are_calibrated_anew_once_and_said(head, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path))
    shipped = landmark_embedding(head, MediaPipeDetector(), "clay")
    made, said = [], []

    def fake(head, detector, kind, config):
        made.append(detector.version)
        return replace(shipped, detector_version=detector.version, n_views=shipped.n_views + 1)

    monkeypatch.setattr(head_calibration, "calibrate_head", fake)
    for _ in range(2):
        found = landmark_embedding(head, stand_in("other"), "clay", notify=said.append)
        assert found.detector_version == "other" and (found.n_views == shipped.n_views + 1).all()
    assert made == ["other"] and len(said) == 1 and "calibrating" in said[0]
    same = landmark_embedding(head, stand_in(shipped.detector_version), "clay", notify=said.append)
    assert (same.n_views == shipped.n_views).all() and made == ["other"] and len(said) == 1


def landmarks_of(scheme: str, detector: str = "mine", version: str = "") -> Landmarks2D:
    count = {"ibug68": 68, "mediapipe478": 478}[scheme]
    return Landmarks2D(np.zeros((1, 1, count, 3), np.float32), scheme, detector, version)


def test_landmarks_of_a_user_need_no_detector(head, monkeypatch):
    def none(*_, **__):
        raise AssertionError("a detector was loaded")

    monkeypatch.setattr(head_calibration, "make_detector", none)
    shipped = landmark_embedding(head, MediaPipeDetector(), "lit")
    own = embedding_of_landmarks(head, landmarks_of("mediapipe478"), "lit")
    np.testing.assert_array_equal(own.face_index, shipped.face_index)
    ibug = embedding_of_landmarks(head, landmarks_of("ibug68"), "lit")
    assert ibug.scheme == "ibug68" and len(ibug.face_index) == 68 and ibug.valid.all()
    np.testing.assert_array_equal(ibug.face_index, shipped.face_index[scheme_named("mediapipe478").ibug68])
    assert (ibug.spread_mm >= 2.0).all(), "another detector means its points a little differently"
    # even under the detector's name, where no weights are known
    unnamed = embedding_of_landmarks(head, landmarks_of("ibug68", "mediapipe"), "lit")
    np.testing.assert_array_equal(unnamed.face_index, ibug.face_index)
    known = embedding_of_landmarks(head, landmarks_of("mediapipe478", "mediapipe", shipped.detector_version), "lit")
    np.testing.assert_array_equal(known.face_index, shipped.face_index)


def test_detected_landmarks_take_the_embedding_of_their_own_weights(head, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path))
    shipped = landmark_embedding(head, MediaPipeDetector(), "clay")
    asked = []

    def make(name, settings=None):
        asked.append(settings)
        return stand_in("other" if settings is not None else shipped.detector_version)

    monkeypatch.setattr(head_calibration, "make_detector", make)
    monkeypatch.setattr(
        head_calibration,
        "calibrate_head",
        lambda head, detector, *_: replace(shipped, detector_version=detector.version),
    )
    detected = landmarks_of("mediapipe478", "mediapipe", "other")
    found = embedding_of_landmarks(head, detected, "clay", Settings(tmp_path / "other.task"))
    assert found.detector_version == "other" and asked == [Settings(tmp_path / "other.task")]
    with pytest.raises(InputError, match="other weights"):
        embedding_of_landmarks(head, detected, "clay")


def test_identities_start_with_the_mean_and_come_in_opposite_pairs(head):
    coefficients = identity_coefficients(head, CalibrationConfig(identities=4))
    assert len(coefficients) == 5 and not coefficients[0].any()
    np.testing.assert_array_equal(coefficients[1], -coefficients[2])
    assert np.abs(coefficients[3] - coefficients[1]).max() > 0.1


def test_drawn_heads_are_the_same_for_every_detector_and_have_faces_of_their_own(head):
    config = CalibrationConfig(identities=0, drawn=3)
    (template, plain), *drawn = heads_to_show(head, config)
    assert plain is None and np.allclose(template, head.v_template.numpy())
    assert [look.number for _, look in drawn] == [0, 1, 2]
    for (vertices, look), (again, same) in zip(drawn, heads_to_show(head, config)[1:], strict=True):
        np.testing.assert_array_equal(vertices, again)
        assert look == same and np.abs(vertices - template).max() > 0.005
    more = heads_to_show(head, replace(config, drawn=4))[1:4]
    np.testing.assert_array_equal(more[2][0], drawn[2][0], err_msg="a calibration on more heads holds those on fewer")


def test_residuals_outlive_the_file_but_not_another_order(head, embedding, tmp_path):
    assert embedding.residual_mm.shape == (12, 51, 3), "run scripts/calibrate_landmarks.py"
    embedding.save(tmp_path / "one.npz")
    np.testing.assert_array_equal(LandmarkEmbedding.load(tmp_path / "one.npz").residual_mm, embedding.residual_mm)
    np.testing.assert_array_equal(LandmarkEmbedding.load(tmp_path / "one.npz").picture_mm, embedding.picture_mm)
    assert embedding.picture_mm.shape[:3] == (12, len(embedding.picture_yaw), 51)
    other = for_scheme(embedding, "ibug68", head)
    assert other.residual_mm is None and other.picture_mm is None
    replace(embedding, residual_mm=None).save(tmp_path / "none.npz")
    assert LandmarkEmbedding.load(tmp_path / "none.npz").residual_mm is None


def test_painted_head_shows_a_face(head, embedding):
    """A model without a texture is painted by region, well enough for the detector."""
    if embedding.shading != "clay":
        pytest.skip("painted from the clay embedding")
    colors = painted_colors(head, embedding)
    assert len(np.unique(colors, axis=0)) >= 5
    found = detect_on_head(
        render_head(head, "textured", colors), head.v_template.numpy().astype(np.float64),
        MediaPipeDetector(config=MediaPipeConfig(jitter=0)),
    )  # fmt: skip
    assert found.valid[scheme_named("mediapipe478").inner].all() and np.median(found.n_views) >= 7


def test_frame_holds_the_head_without_its_neck(head):
    frame = head_frame(head)
    template = head.v_template
    distance = torch.linalg.norm(template - torch.tensor(frame.center), dim=1)
    assert (distance[head.region_mask("face", "scalp", "ears")] < frame.radius).all()
    assert 0.15 < frame.radius < 0.26 and frame.center[0] == 0


def test_nearest_surface_points():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5]])
    faces = np.array([[0, 1, 2], [0, 1, 3]])
    points = np.array([[0.2, 0.3, 0.4], [2.0, -1, 0], [-1, -1, 0], [0.3, 0.9, 0.0], [np.nan, 0, 0]])
    face, barycentric, distance = nearest_on_surface(points, vertices, faces, np.array([[True, False]]))
    np.testing.assert_array_equal(face, [0, 0, 0, 0, -1])
    nearest = np.einsum("nk,nkc->nc", barycentric, vertices[faces[face]])
    np.testing.assert_allclose(nearest[:4], [[0.2, 0.3, 0], [1, 0, 0], [0, 0, 0], [0.2, 0.8, 0]], atol=1e-12)
    np.testing.assert_allclose(distance[:4], np.linalg.norm(nearest - points, axis=1)[:4], atol=1e-12)
    assert nearest_on_surface(points[:1], vertices, faces, np.array([[False, True]]))[0][0] == 1
