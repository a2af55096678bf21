"""Landmark files: round trip and clear errors."""

import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.landmarks.files import Landmarks2D, landmarks_path, read_landmarks, write_landmarks


def test_round_trip(tmp_path):
    landmarks = np.random.default_rng(0).normal(size=(2, 3, 68, 3)).astype(np.float32)
    landmarks[1, 2] = np.nan
    path = write_landmarks(tmp_path, Landmarks2D(landmarks, "ibug68", "toy", "v1"))
    assert path == tmp_path / "landmarks2d" / "toy.npz"
    read = read_landmarks(tmp_path, "toy")
    np.testing.assert_array_equal(read.landmarks, landmarks)
    assert (read.scheme, read.detector, read.detector_version) == ("ibug68", "toy", "v1")
    assert read.found.tolist() == [[True, True, True], [True, True, False]]


def test_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match="flame-fitting detect"):
        read_landmarks(tmp_path, "mediapipe")


@pytest.mark.parametrize("content", [b"", b"not a zip", "shape"])
def test_broken_files_are_named(tmp_path, content):
    path = landmarks_path(tmp_path, "toy")
    path.parent.mkdir()
    if content == "shape":
        np.savez(path, landmarks=np.zeros((3, 68, 2)), scheme="ibug68", detector="toy")
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"toy\.npz"):
        read_landmarks(tmp_path, "toy")
