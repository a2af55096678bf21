"""VHAP's landmark files: read as VHAP writes them, written as VHAP reads them."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from flame_fitting.capture import choosing
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.landmarks.files import (
    Landmarks2D,
    find_landmarks,
    landmark_names,
    read_landmarks,
    write_landmarks,
)
from tests.capture.synthetic_folders import monocular, nersemble, rig

K = np.array([[30.0, 0, 12.0], [0, 30.0, 8.0], [0, 0, 1]])


def points(steps: int, seed: int = 0) -> np.ndarray:
    """(T, 68, 3) over the picture's size, nothing found in the second frame."""
    found = np.random.default_rng(seed).uniform(0.1, 0.9, (steps, 68, 3)).astype(np.float32)
    found[1] = -1
    return found


def vhap_file(path: Path, found: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, bounding_box=np.zeros((len(found), 5), np.float32), face_landmark_2d=found)


@pytest.mark.parametrize("name", ["STAR", "star", "face-alignment"])
def test_a_video_s_file(tmp_path: Path, name: str) -> None:
    root, found = monocular(tmp_path / "obama", size=(48, 32)), points(5)
    vhap_file(root / "landmark2d" / f"{'STAR' if name == 'star' else name}.npz", found)
    read = read_landmarks(open_capture(root), name)
    assert (read.scheme, read.made_here) == ("ibug68", False) and read.landmarks.shape == (5, 1, 68, 3)
    assert read.found[:, 0].tolist() == [True, False, True, True, True]
    np.testing.assert_allclose(read.landmarks[2, 0], found[2] * [48, 32, 1], rtol=1e-6)
    assert np.isnan(read.landmarks[1]).all()


def test_rows_follow_the_choice_of_timesteps_and_pixels_the_size(tmp_path: Path) -> None:
    root, found = monocular(tmp_path / "obama", size=(48, 32)), points(5)
    vhap_file(root / "landmark2d" / "STAR.npz", found)
    with mock.patch.object(choosing, "SMALLEST_PICTURE", 1):
        capture = open_capture(root, ReadOptions(subset="ti2tj4ts2", n_downsample_rgb=2, scale_factor=0.5))
    assert capture.timesteps == [2, 4]
    read = read_landmarks(capture, "STAR")
    np.testing.assert_allclose(read.landmarks[:, 0], found[[2, 4]] * np.float32([12, 8, 1]), rtol=1e-6)


def test_a_recording_s_files(tmp_path: Path) -> None:
    cameras = {"b": (K, rig(2)[0], (24, 16)), "a": (K, rig(2)[1], (48, 32))}
    root = nersemble(tmp_path, 2, cameras, steps=3)
    for seed, name in enumerate(("b", "a")):
        vhap_file(root / "landmark2d" / "STAR" / f"{name}.npz", points(3, seed))
    read = read_landmarks(open_capture(root), "star").landmarks
    np.testing.assert_allclose(read[0, 0], points(3, 1)[0] * [48, 32, 1], rtol=1e-6)  # a
    np.testing.assert_allclose(read[2, 1], points(3, 0)[2] * [24, 16, 1], rtol=1e-6)  # b
    assert landmark_names(open_capture(root)) == ["STAR"]
    (root / "landmark2d" / "STAR" / "a.npz").unlink()
    assert np.isnan(read_landmarks(open_capture(root), "star").landmarks[:, 0]).all()


@pytest.mark.parametrize("several", [False, True])
def test_what_is_written_is_vhap_s_and_is_read_back(tmp_path: Path, several: bool) -> None:
    names = ("x", "y") if several else ("x",)
    if several:
        cameras = {name: (K, camera, (24, 16)) for name, camera in zip(names, rig(2), strict=True)}
        root = nersemble(tmp_path, 1, cameras, steps=3)
    else:
        root = monocular(tmp_path / "obama", steps=3, size=(24, 16))
    capture = open_capture(root)
    pixels = np.stack([points(3, seed) * np.float32([24, 16, 1]) for seed in range(len(names))], axis=1)
    pixels[1] = np.nan
    write_landmarks(capture, Landmarks2D(pixels, "ibug68", "star", "1"))
    for place, name in enumerate(names):
        file = root / "landmark2d" / ("STAR" if several else "STAR.npz")
        with np.load(file / f"{name}.npz" if several else file) as data:
            found, box = data["face_landmark_2d"], data["bounding_box"]
        assert found.shape == (3, 68, 3) and box.shape == (3, 5)
        np.testing.assert_allclose(found[0], points(3, place)[0], atol=1e-6)
        assert (found[1] == -1).all() and (box[1] == -1).all()
        np.testing.assert_allclose(box[0, :4], [*found[0, :, :2].min(0), *found[0, :, :2].max(0)], atol=1e-6)
    np.testing.assert_array_equal(read_landmarks(capture, "star").landmarks, pixels)
    (root / "landmarks2d" / "star.npz").unlink()
    np.testing.assert_allclose(read_landmarks(capture, "star").landmarks, pixels, atol=1e-4)


def test_other_schemes_are_not_written_as_vhap_s(tmp_path: Path) -> None:
    capture = open_capture(monocular(tmp_path / "obama", steps=1))
    write_landmarks(capture, Landmarks2D(np.zeros((1, 1, 478, 3), np.float32), "mediapipe478", "mediapipe", "1"))
    assert not (capture.root / "landmark2d").exists() and find_landmarks(capture, "STAR") is None


@pytest.mark.parametrize("shape", [(4, 68, 3), (5, 70, 3), (5, 68, 2)])
def test_a_file_of_another_recording_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    root = monocular(tmp_path / "obama")
    vhap_file(root / "landmark2d" / "STAR.npz", np.zeros(shape))
    with pytest.raises(InputError, match=r"STAR\.npz: face_landmark_2d is"):
        read_landmarks(open_capture(root), "STAR")
