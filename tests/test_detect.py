"""`detect` on folders of other kinds, with a detector that knows the truth: rows, pixels, going on, VHAP's files."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting import stopping
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.detect_landmarks import DetectConfig, detect
from flame_fitting.errors import NoFaceError
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.files import find_landmarks, read_landmarks, read_whole_landmarks
from tests.capture.synthetic_folders import monocular, nersemble, rig, write_picture

K = np.array([[60.0, 0, 24.0], [0, 60.0, 16.0], [0, 0, 1]])


class Brightness(LandmarkDetector):
    """Its points say how bright the picture is and how large; nothing is found in dark ones."""

    name, version, scheme = "star", "1", "ibug68"

    def __init__(self) -> None:
        self.seen = 0
        self.fails_after = 10**9

    def detect(self, images: np.ndarray) -> np.ndarray:
        if self.seen >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        out = np.full((len(images), 68, 3), np.nan, dtype=np.float32)
        for row, image in enumerate(images):
            bright = image.mean() / 255
            if bright > 0.15:
                out[row] = [0.5 * image.shape[1], 0.25 * image.shape[0], bright]
        return out


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Brightness:
    made = Brightness()
    monkeypatch.setattr("flame_fitting.landmarks.registry.make_detector", lambda *_: made)
    return made


def test_a_video(tmp_path: Path, detector: Brightness) -> None:
    root = monocular(tmp_path / "obama")
    result = detect(DetectConfig(root, detector="star"))
    assert (result.searched, result.found) == (5, 4)  # the first frame is dark
    found = read_landmarks(open_capture(root), "star")
    assert found.found[:, 0].tolist() == [False, True, True, True, True] and found.searched.all()
    np.testing.assert_allclose(found.landmarks[3, 0, 0], [24, 8, 0.4], atol=0.01)
    with np.load(root / "landmark2d" / "STAR.npz") as data:
        np.testing.assert_allclose(data["face_landmark_2d"][3, 0], [0.5, 0.25, 0.4], atol=0.01)
        assert (data["face_landmark_2d"][0] == -1).all()


def test_pixels_are_those_of_the_full_pictures(tmp_path: Path, detector: Brightness) -> None:
    root = monocular(tmp_path / "obama")
    detect(DetectConfig(root, detector="star", n_downsample_rgb=2))
    for options, expected in ((ReadOptions(), [24, 8]), (ReadOptions(n_downsample_rgb=4), [6, 2])):
        points = read_landmarks(open_capture(root, options), "star").landmarks
        np.testing.assert_allclose(points[2, 0, 0, :2], expected, atol=1e-4)


def test_parts_of_a_recording_come_together(tmp_path: Path, detector: Brightness) -> None:
    cameras = {f"{n:02d}": (K, camera, (48, 32)) for n, camera in enumerate(rig(3))}
    root = nersemble(tmp_path, 2, cameras, steps=3)
    detect(DetectConfig(root, detector="star", subset="ti1"))
    whole = read_whole_landmarks(open_capture(root), "star")
    assert whole.landmarks.shape == (3, 3, 68, 3) and whole.searched.sum(1).tolist() == [0, 3, 0]
    capture = open_capture(root)
    assert not whole.covers(capture, capture.views)
    detect(DetectConfig(root, detector="star", subset="ci2"))
    whole = read_whole_landmarks(open_capture(root), "star")
    assert whole.searched.sum() == 5 and np.isfinite(whole.landmarks[whole.searched]).all()
    assert sorted(path.name for path in (root / "landmark2d" / "STAR").iterdir()) == ["00.npz", "01.npz", "02.npz"]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, detector: Brightness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flame_fitting.landmarks.searching._KEEP_SECONDS", -1.0)
    root = monocular(tmp_path / "obama", steps=40, size=(16, 16))
    for step in range(40):
        (root / "images" / f"{step:06d}.jpg").write_bytes((root / "images" / "000004.jpg").read_bytes())
    detector.fails_after = 16
    with pytest.raises(KeyboardInterrupt) as stop:
        detect(DetectConfig(root, detector="star"))
    assert detector.seen == 16 and "Landmarks that were found are kept." in stopping.how_to_go_on(stop.value)
    detector.fails_after = 10**9
    result = detect(DetectConfig(root, detector="star"))
    assert detector.seen == 40 and (result.searched, result.found) == (40, 40)
    detect(DetectConfig(root, detector="star"))  # a finished one is done anew when it is asked for
    assert detector.seen == 80


def test_one_that_was_stopped_before_it_kept_anything_says_so(tmp_path: Path, detector: Brightness) -> None:
    detector.fails_after = 0
    with pytest.raises(KeyboardInterrupt) as stop:
        detect(DetectConfig(monocular(tmp_path / "obama"), detector="star"))
    assert stopping.how_to_go_on(stop.value).startswith("Nothing has finished")


def test_other_weights_take_nothing_of_the_old_ones(tmp_path: Path, detector: Brightness) -> None:
    cameras = {f"{n:02d}": (K, camera, (48, 32)) for n, camera in enumerate(rig(2))}
    root = nersemble(tmp_path, 1, cameras, steps=2)
    detect(DetectConfig(root, detector="star"))
    assert find_landmarks(open_capture(root), "star") is not None
    detector.version = "2"
    detect(DetectConfig(root, detector="star", subset="ti0"))
    whole = read_whole_landmarks(open_capture(root), "star")
    assert whole.searched.tolist() == [[True, True], [False, False]] and whole.detector_version == "2"


def test_a_recording_without_a_face(tmp_path: Path, detector: Brightness) -> None:
    root = monocular(tmp_path / "obama", steps=1)
    with pytest.raises(NoFaceError, match="no face was found in any of 1 views"):
        detect(DetectConfig(root, detector="star"))
    assert not (root / "landmarks2d" / "star.npz").exists() and not (root / "landmark2d").exists()


def test_a_camera_that_never_sees_the_face_is_named(tmp_path: Path, detector: Brightness) -> None:
    cameras = {name: (K, pose, (48, 32)) for name, pose in zip(("11", "22", "33"), rig(3), strict=True)}
    root = nersemble(tmp_path / "data", 2, cameras, 3)
    for timestep, path in enumerate(sorted((root / "images").glob("cam_*"))):
        write_picture(path, np.full((32, 48, 3), 0.02 if "cam_22" in path.name else 0.5 + 0.01 * timestep))
    said = [text for text in detect(DetectConfig(root, detector="star")).warnings if "in any picture of" in text]
    assert len(said) == 1 and "camera 22:" in said[0]
    # one that sees it now and then is not
    write_picture(root / "images" / "cam_22_000001.jpg", np.full((32, 48, 3), 0.5))
    again = detect(DetectConfig(root, detector="star"))
    assert not [text for text in again.warnings if "in any picture of" in text]
