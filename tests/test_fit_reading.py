"""How a fit finds and reads its capture: VHAP's flags, what it refuses, cameras that do not fit their landmarks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.fit.check import check
from flame_fitting.fit.config import DataConfig, FitConfig
from flame_fitting.fit.track_config import track_preset
from flame_fitting.fit_avatar import plan
from flame_fitting.fit_reading import capture_of, reading_options, with_landmarks
from tests.capture.synthetic_folders import monocular, nersemble

SIZE = (64, 96)
K = intrinsics_from_fov(20.0, *SIZE)


def cameras() -> dict[str, tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    angles = np.linspace(-0.8, 0.8, 6)
    return {
        f"{n:02d}": (K, look_at([np.sin(a), 0.2 * (-1) ** n, np.cos(a)], [0.01 * n, 0, 0], [0, 1, 0]), SIZE)
        for n, a in enumerate(angles)
    }


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Root folder of a recording with VHAP's landmarks of a face at the origin."""
    root = nersemble(tmp_path, 2, cameras(), steps=2)
    points = np.random.default_rng(0).normal(size=(68, 3)) * [0.04, 0.05, 0.02]
    points[[36, 45]] = [[-0.045, 0.03, 0], [0.045, 0.03, 0]]
    for name, (intrinsics, camera, size) in cameras().items():
        pixels = project(points, intrinsics, camera)[:, :2] / size
        found = np.concatenate([pixels, np.ones((68, 1))], axis=1).astype(np.float32)
        path = root / "landmark2d" / "STAR" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, bounding_box=np.zeros((2, 5)), face_landmark_2d=np.stack([found, found]))
    return tmp_path


def config(root: Path, **data: object) -> FitConfig:
    chosen = {
        "root_folder": root,
        "subject": "074",
        "sequence": "EMO",
        "landmark_source": ("star",),
        "subset": "ti1",
    } | data
    made = DataConfig(**chosen)  # type: ignore[arg-type]
    made_config = FitConfig(root / made.subject / made.sequence, data=made)
    return replace(made_config, capture=capture_of(made_config))


def test_vhap_s_flags_name_a_recording_and_its_landmarks(recording: Path) -> None:
    chosen = config(recording)
    assert chosen.capture == recording / "074" / "sequences" / "EMO-1"
    check(chosen)
    assert with_landmarks(chosen) is chosen
    assert "landmarks star" in plan(chosen).inputs


def test_how_a_recording_is_read(recording: Path, tmp_path: Path) -> None:
    options = reading_options(config(recording, n_downsample_rgb=4, scale_factor=0.5, background_color="black"))
    expected = ReadOptions(subset="ti1", n_downsample_rgb=4, scale_factor=0.5, background_color="black")
    assert options == expected
    with CaptureWriter(tmp_path / "capture") as writer:
        writer.add(
            timestep=0, camera=0, role="fit", K=K, world_to_camera=np.eye(4), image=np.zeros((96, 64, 3), np.uint8)
        )
    ours = FitConfig(tmp_path / "capture", data=DataConfig(n_downsample_rgb=4))
    assert reading_options(ours).n_downsample_rgb is None  # Adam's stages reduce them


def test_several_moments_and_videos_are_refused(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.subset"):
        with_landmarks(config(recording, subset=None))
    video = monocular(tmp_path / "video" / "obama", steps=1)
    with pytest.raises(InputError, match="of whose camera nothing is known"):
        with_landmarks(FitConfig(video))


def test_known_cameras_are_not_taken_for_unknown_ones(recording: Path, tmp_path: Path) -> None:
    made = config(recording, calibrated=False)
    chosen = replace(track_preset("track", made.capture, monocular=False), data=made.data)
    with pytest.raises(InputError, match=r"^--data\.no-calibrated: the cameras of .* are known"):
        with_landmarks(chosen)
    known = replace(chosen, data=replace(made.data, calibrated=True))
    assert with_landmarks(known) is known


def test_keyframes_that_are_not_there_are_refused_before_landmarks_are_detected(tmp_path: Path) -> None:
    video = monocular(tmp_path / "video" / "obama", steps=3)
    chosen = track_preset("track", video)
    chosen.exp.keyframes = (0, 3)
    with pytest.raises(InputError, match=r"--exp\.keyframes 0 3: 3: there are the timesteps 0 to 2"):
        with_landmarks(chosen)


def test_cameras_that_would_fit_by_another_convention_are_refused(recording: Path) -> None:
    path = recording / "074" / "calibration" / "camera_params.json"
    data = json.loads(path.read_text())
    data["world_2_cam"] = {name: np.linalg.inv(pose).tolist() for name, pose in data["world_2_cam"].items()}
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"would fit .*camera-to-world extrinsics in OpenCV"):
        with_landmarks(config(recording))


def test_another_calibration_makes_another_plan(recording: Path) -> None:
    before = plan(config(recording)).inputs["capture"].sha256
    assert plan(config(recording)).inputs["capture"].sha256 == before
    path = recording / "074" / "calibration" / "camera_params.json"
    path.write_text(path.read_text() + " ")
    changed = plan(config(recording)).inputs["capture"].sha256
    assert changed != before
    other = recording / "074" / "sequences" / "EMO-1" / "images" / "cam_00_000000.jpg"
    other.write_bytes(other.read_bytes() + b" ")  # of a moment that is not read
    assert plan(config(recording)).inputs["capture"].sha256 == changed
    assert len(open_capture(recording / "074" / "sequences" / "EMO-1", ReadOptions(subset="ti1")).views) == 6
