"""dlib with its real weights."""

import importlib.util
import sys

import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.landmarks import dlib_detector
from flame_fitting.landmarks.dlib_detector import WEIGHTS, DlibDetector, find_dlib_weights
from flame_fitting.landmarks.faces import Face
from flame_fitting.landmarks.schemes import INNER_51, SCHEMES
from tests.landmarks.found_faces import Faces, faces

IBUG = SCHEMES["ibug68"]


@pytest.fixture(scope="module")
def detector():
    return DlibDetector()


def test_finds_the_face_where_it_is(head_pictures, detector):
    found = detector.detect(head_pictures.images)
    assert found.shape == (3, 68, 3) and np.isfinite(found).all()
    assert found[..., 2].min() >= 0 and found[..., 2].max() <= 1
    # by anatomy, no detector in it
    for name, part in (("right_eye", "right_iris"), ("left_eye", "left_iris"), ("outer_lips", "lips_tight")):
        middle = found[:, IBUG.groups[name], :2].mean(1)
        assert np.linalg.norm(middle - head_pictures.parts[part], axis=-1)[[0, 2]].max() < 5.0, name
    # and near the MediaPipe points of the same meaning; a head is 230 px high
    mediapipe = head_pictures.calibrated[:, SCHEMES["mediapipe478"].ibug68]
    apart = np.linalg.norm(found[..., :2] - mediapipe, axis=-1)[:, INNER_51]
    assert np.median(apart[0]) < 4.0 and np.median(apart[1]) < 5.0 and np.median(apart[2]) < 4.0


def test_mirrored_picture_gives_mirrored_points(head_pictures, detector):
    image = head_pictures.images[:1]
    plain, mirrored = detector.detect(image)[0], detector.detect(np.ascontiguousarray(image[:, :, ::-1]))[0]
    back = mirrored[IBUG.mirror]
    back[:, 0] = image.shape[2] - back[:, 0]
    assert np.median(np.linalg.norm(back[:, :2] - plain[:, :2], axis=1)) < 0.6
    assert abs(0.5 * (plain[17:, 0].mean() + mirrored[17:, 0].mean()) - 0.5 * image.shape[2]) < 0.3


def test_points_move_with_the_picture_and_grow_with_it(head_pictures, detector):
    image = head_pictures.images[:1]
    plain = detector.detect(image)[0]
    moved = detector.detect(np.roll(image, (24, -16), axis=(1, 2)))[0]
    assert np.abs(np.median(moved[:, :2] - plain[:, :2], axis=0) - [-16, 24]).max() < 0.4
    large = detector.detect(np.repeat(np.repeat(image, 3, axis=1), 3, axis=2))[0]  # seen at half of its size
    assert np.abs(np.median(large[:, :2] / 3 - plain[:, :2], axis=0)).max() < 0.4
    assert np.median(np.linalg.norm(large[:, :2] / 3 - plain[:, :2], axis=1)) < 1.0


def test_quick_detection_is_near_and_the_same_picture_gives_the_same_points(head_pictures, detector):
    image = head_pictures.images[:1]
    first, quick = detector.detect(image), detector.detect_quickly(image)
    np.testing.assert_array_equal(first, DlibDetector().detect(image))
    assert 0 < np.median(np.linalg.norm((quick - first)[0, :, :2], axis=1)) < 3.0


def test_its_own_finder_serves_where_mediapipe_finds_nothing(head_pictures, detector):
    image = head_pictures.images[:1]
    alone = DlibDetector(faces=faces(None)).detect(image)[0]
    assert np.median(np.linalg.norm(alone[:, :2] - detector.detect(image)[0, :, :2], axis=1)) < 3.0
    turned = DlibDetector(faces=faces(None)).detect(head_pictures.images[1:2])[0]
    if np.isfinite(turned).all():  # its half that is turned away is narrow
        assert turned[0, 2] < turned[16, 2]
    assert np.isnan(DlibDetector(faces=faces(None)).detect(np.zeros((1, 96, 96, 3), np.uint8))).all()


def test_an_answer_far_from_the_face_is_none():
    """On a blank picture the trees stay where they start, in the middle of the box."""
    blank = np.full((1, 200, 200, 3), 128, np.uint8)
    box, inner = np.array([50.0, 50, 150, 150]), np.array([100.0, 90.0])
    assert np.isfinite(DlibDetector(faces=Faces(Face(box, np.ones(68), inner))).detect(blank)).all()
    below = box + [0, 40, 0, 40]
    assert np.isnan(DlibDetector(faces=Faces(Face(below, np.ones(68), inner))).detect(blank)).all()


def test_weights_are_found_without_importing_their_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "face_recognition_models", raising=False)
    assert find_dlib_weights().name == WEIGHTS.names[0]
    assert "face_recognition_models" not in sys.modules


def test_missing_and_wrong_weights_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"absent\.dat: no such file.*--dlib-weights"):
        DlibDetector(tmp_path / "absent.dat")
    (tmp_path / "wrong.dat").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"wrong\.dat: is no shape predictor"):
        DlibDetector(tmp_path / "wrong.dat", faces=faces((10, 10, 50, 50))).detect(np.zeros((1, 64, 64, 3), np.uint8))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(InputError, match=r"100 MB.*mediapipe.*pip install 'flame-fitting\[dlib\]'"):
        DlibDetector()
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r"dlib cannot be loaded.*flame-fitting\[dlib\]"):
        dlib_detector._load_dlib()
