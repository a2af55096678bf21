"""detect and fit with detectors by their names: what is detected, said, used again, detected again."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting import progress
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.opening import open_capture
from flame_fitting.detect_landmarks import DetectConfig, detect
from flame_fitting.detect_landmarks import plan as plan_detect
from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.track_config import TrackConfig
from flame_fitting.fit_avatar import plan as plan_fit
from flame_fitting.fit_reading import chosen_sources, with_landmarks
from flame_fitting.landmarks import registry
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.files import landmark_names, read_landmarks
from flame_fitting.manifest import compare, read_manifest


class Detector(LandmarkDetector):
    """Finds the same points everywhere, or nothing."""

    def __init__(self, name: str, scheme: str, version: str = "a1b2", finds: bool = True) -> None:
        self.name, self.scheme, self.version, self.finds, self.searched = name, scheme, version, finds, 0

    def detect(self, images: np.ndarray) -> np.ndarray:
        self.searched += len(images)
        return np.full((len(images), self.n_points, 3), 1.0 if self.finds else np.nan, dtype=np.float32)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Detector]:
    """The detectors of this machine by name."""
    there = {"mediapipe": Detector("mediapipe", "mediapipe478"), "dlib": Detector("dlib", "ibug68")}

    def make(name: str = "mediapipe", settings: object = None) -> Detector:
        if name not in there:
            raise InputError(f"{name}: the weights are not there")
        return there[name]

    monkeypatch.setattr(registry, "make_detector", make)
    monkeypatch.setattr(registry, "is_ready", lambda name, weights=None: name in there)
    return there


def write_capture(folder: Path, timesteps: int) -> Path:
    with CaptureWriter(folder) as writer:
        for timestep in range(timesteps):
            for camera in range(2):
                picture = np.full((16, 16, 3), camera, np.uint8)
                writer.add(
                    timestep=timestep, camera=camera, role="fit", K=np.eye(3), world_to_camera=np.eye(4), image=picture
                )
    return folder


@pytest.fixture
def capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # cameras of stand-in points fit nothing
    monkeypatch.setattr("flame_fitting.landmarks.camera_check.is_checked", lambda *_: False)
    return write_capture(tmp_path / "alice", 1)


def versions(capture: Path) -> dict[str, str]:
    opened = open_capture(capture)
    return {name: read_landmarks(opened, name).detector_version for name in landmark_names(opened)}


def test_both_writes_a_file_of_each_and_says_their_versions(made, capture: Path) -> None:
    config = DetectConfig(capture, detector="both")
    result = detect(config)
    assert [path.name for path in result.paths] == ["mediapipe.npz", "dlib.npz"] and result.found == 2
    assert versions(capture) == {"mediapipe": "a1b2", "dlib": "a1b2"}
    manifest = read_manifest(capture / "landmarks2d")
    assert manifest.detector == "mediapipe a1b2, dlib a1b2" and compare(manifest, plan_detect(config)) is None


def test_auto_takes_star_for_a_video_where_it_is(made, capture: Path, tmp_path: Path) -> None:
    made["star"] = Detector("star", "wflw98")
    moving = write_capture(tmp_path / "moving", 2)
    assert detect(DetectConfig(moving)).paths[0].name == "star.npz"
    assert detect(DetectConfig(capture)).paths[0].name == "mediapipe.npz"


def test_a_detector_that_finds_nothing_beside_one_that_does_is_said(made, capture: Path) -> None:
    made["dlib"].finds = False
    assert detect(DetectConfig(capture, detector="both")).warnings == ["dlib found no face in any of 2 views"]
    with pytest.raises(NoFaceError):
        detect(DetectConfig(capture, detector="dlib"))


def test_a_fit_detects_what_it_lacks_and_again_with_other_weights(made, capture: Path) -> None:
    config = FitConfig(capture, head="open")
    config.data.landmark_source = ("both",)
    with progress.silent():
        ready = with_landmarks(config)
        assert ready.data.landmark_source == ("mediapipe", "dlib")
        with_landmarks(config)
    assert made["dlib"].searched == 2
    plan = plan_fit(config)
    assert plan.detector == "mediapipe a1b2, dlib a1b2" and "landmarks dlib" in plan.inputs
    plan.finished = True
    made["dlib"].version = "c3d4"
    with progress.silent():
        with_landmarks(config)
    assert made["dlib"].searched == 4 and made["mediapipe"].searched == 2
    assert "landmarks dlib has changed" in str(compare(plan, plan_fit(config)))


def test_landmarks_stay_of_use_where_their_detector_is_not(made, capture: Path) -> None:
    detect(DetectConfig(capture, detector="dlib"))
    del made["dlib"]
    config = FitConfig(capture, head="open")
    config.data.landmark_source = ("dlib",)
    with progress.silent():
        assert with_landmarks(config) is config
    config.data.landmark_source = ("both",)
    assert chosen_sources(config).data.landmark_source == ("mediapipe", "dlib")
    config.data.landmark_source = ("star",)
    with progress.silent(), pytest.raises(InputError, match="star: the weights are not there"):
        with_landmarks(config)


def test_the_default_of_a_static_avatar_is_mediapipe(made, capture: Path) -> None:
    made["star"] = Detector("star", "ibug68")
    assert chosen_sources(FitConfig(capture)).data.landmark_source == ("mediapipe",)


def test_tracking_takes_star_where_it_is_and_says_so_where_not(made, capture: Path) -> None:
    said: list[str] = []
    assert chosen_sources(TrackConfig(capture), said.append).data.landmark_source == ("mediapipe",)
    assert len(said) == 1 and "the weights of STAR are not there" in said[0]
    (capture / "landmarks2d").mkdir(exist_ok=True)
    (capture / "landmarks2d" / "star.npz").write_bytes(b"")  # a user's: its name is enough
    assert chosen_sources(TrackConfig(capture), said.append).data.landmark_source == ("star",)
    (capture / "landmarks2d" / "star.npz").unlink()
    made["star"] = Detector("star", "ibug68")
    assert chosen_sources(TrackConfig(capture), said.append).data.landmark_source == ("star",)
