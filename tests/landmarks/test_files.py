"""Landmark files: round trip and clear errors."""

import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.landmarks.files import Landmarks2D, landmarks_path, read_landmarks, write_landmarks
from tests.bare_capture import bare_capture


def test_round_trip(tmp_path):
    landmarks = np.random.default_rng(0).normal(size=(2, 3, 68, 3)).astype(np.float32)
    landmarks[1, 2] = np.nan
    capture = bare_capture(tmp_path, 2, 3)
    path = write_landmarks(capture, Landmarks2D(landmarks, "ibug68", "toy", "v1"))
    assert path == tmp_path / "landmarks2d" / "toy.npz"
    read = read_landmarks(capture, "toy")
    np.testing.assert_array_equal(read.landmarks, landmarks)
    assert (read.scheme, read.detector, read.detector_version) == ("ibug68", "toy", "v1")
    assert read.found.tolist() == [[True, True, True], [True, True, False]]


def test_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match="flame-fitting detect"):
        read_landmarks(bare_capture(tmp_path), "mediapipe")


@pytest.mark.parametrize("content", [b"", b"not a zip", "shape"])
def test_broken_files_are_named(tmp_path, content):
    path = landmarks_path(tmp_path, "toy")
    path.parent.mkdir()
    if content == "shape":
        np.savez(path, landmarks=np.zeros((3, 68, 2)), scheme="ibug68", detector="toy")
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"toy\.npz"):
        read_landmarks(bare_capture(tmp_path), "toy")


@pytest.mark.parametrize(("count", "scheme"), [(68, "ibug68"), (478, "mediapipe478")])
def test_an_order_that_is_not_named_is_known_by_its_number_of_points(tmp_path, count, scheme):
    path = landmarks_path(tmp_path, "mine")
    path.parent.mkdir()
    np.savez(path, landmarks=np.zeros((1, 2, count, 3)))
    found = read_landmarks(bare_capture(tmp_path), "mine")
    assert found.scheme == scheme and not found.made_here


def test_a_scheme_with_another_number_of_points_is_refused(tmp_path):
    write_landmarks(bare_capture(tmp_path), Landmarks2D(np.zeros((1, 2, 70, 3), np.float32), "ibug68", "mine"))
    with pytest.raises(InputError, match=r"mine\.npz: has 70 points.* 68"):
        read_landmarks(bare_capture(tmp_path), "mine")


def test_only_landmarks_of_a_detector_with_known_weights_are_made_here():
    points = np.zeros((1, 1, 68, 3), np.float32)
    assert Landmarks2D(points, "ibug68", "mediapipe", "v1").made_here
    assert not Landmarks2D(points, "ibug68", "mediapipe").made_here
    assert not Landmarks2D(points, "ibug68", "mine", "v1").made_here
