"""Cameras of a synthetic rig, right and wrong: right ones pass with noise, each wrong convention is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.camera import look_at, project
from flame_fitting.landmarks.camera_check import CameraReport, check_cameras, check_capture, is_checked
from flame_fitting.landmarks.files import Landmarks2D
from tests.bare_capture import bare_capture

W, H = 550, 802
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
PYTORCH3D = np.diag([-1.0, -1.0, 1.0, 1.0])
EYES = (0, 1)


def face(scale: float = 1.0) -> np.ndarray:
    """(51, 3) points of a face, the outer eye corners first, 90 mm apart where `scale` is 1."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(51, 3)) * [0.035, 0.045, 0.02]
    points[:2] = [[-0.045, 0.03, 0.0], [0.045, 0.03, 0.0]]
    return (points + [0.01, 0.02, 0.03]) * scale


def rig(count: int = 8, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """K (C, 3, 3) and world_to_camera (C, 4, 4) around a face, as NeRSemble's stand."""
    rng = np.random.default_rng(2)
    angles = np.linspace(-0.9, 0.9, count)
    eyes = np.stack([np.sin(angles), rng.uniform(-0.4, 0.4, count), np.cos(angles)], axis=1) * 1.1
    target = rng.normal(size=(count, 3)) * 0.02
    w2c = look_at(eyes * scale, target * scale, [0.0, 1.0, 0.0])
    K = np.array([[2000.0, 0, 0.51 * W], [0, 2000.0, 0.46 * H], [0, 0, 1]])
    return np.tile(K, (count, 1, 1)), w2c


def detections(K: np.ndarray, w2c: np.ndarray, noise: float = 1.5, scale: float = 1.0, steps: int = 2) -> np.ndarray:
    """(T, C, 51, 3) landmarks of the face, which turns a little."""
    rng = np.random.default_rng(3)
    out = np.ones((steps, len(K), 51, 3))
    for step in range(steps):
        turn = look_at([0.1 * step, 0.0, 1.0], [0, 0, 0], [0, 1, 0])[:3, :3].T @ np.diag([1.0, -1, -1])
        out[step, ..., :2] = project(face(scale) @ turn.T, K, w2c)[..., :2] + rng.normal(size=(len(K), 51, 2)) * noise
    return out


SIZES = np.array([W, H])
CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    # what a file holds, by the true world_to_camera; how its reader should have taken it
    "c2w opencv": (np.linalg.inv, "camera-to-world extrinsics in OpenCV"),
    "w2c opengl": (lambda true: OPENGL @ true, "world-to-camera extrinsics in OpenGL"),
    "c2w opengl": (lambda true: np.linalg.inv(true) @ OPENGL, "camera-to-world extrinsics in OpenGL"),
    "w2c pytorch3d": (lambda true: PYTORCH3D @ true, "world-to-camera extrinsics in PyTorch3D"),
    "c2w pytorch3d": (lambda true: np.linalg.inv(true) @ PYTORCH3D, "camera-to-world extrinsics in PyTorch3D"),
    "w2c opencv": (lambda true: true, "world-to-camera extrinsics in OpenCV"),
    "center": (lambda true: with_translation(true, np.linalg.inv(true)[..., :3, 3]), "the camera's place"),
    "turned": (lambda true: with_rotation(true), "a camera-to-world rotation"),
}


def with_translation(matrix: np.ndarray, translation: np.ndarray) -> np.ndarray:
    out = matrix.copy()
    out[..., :3, 3] = translation
    return out


def with_rotation(matrix: np.ndarray) -> np.ndarray:
    out = matrix.copy()
    out[..., :3, :3] = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return out


def as_read(in_file: np.ndarray, read_as: str) -> np.ndarray:
    """world_to_camera that a reader makes of a file's matrix."""
    return in_file if read_as == "w2c opencv" else np.linalg.inv(in_file @ OPENGL)


@pytest.mark.parametrize("noise", [0.0, 2.0, 5.0])
def test_right_cameras_pass(noise: float) -> None:
    K, w2c = rig()
    report = check_cameras(detections(K, w2c, noise), K, w2c, SIZES, EYES)
    assert report.known and not report.wrong and report.message("x") is None
    assert report.unit == "m" and abs(report.eye_distance - 0.09) < 0.004


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("read_as", ["w2c opencv", "c2w opengl"])
@pytest.mark.parametrize("count", [3, 12])
def test_every_wrong_convention_of_the_extrinsics_is_found(name: str, read_as, count: int) -> None:
    if name == read_as:
        return
    K, true = rig(count)
    change, expected = CHANGES[name]
    report = check_cameras(detections(K, true), K, as_read(change(true), read_as), SIZES, EYES, read_as)
    assert report.wrong and any(expected in text for text in report.fitting), report
    assert report.unit == "m"
    message = report.message("capture")
    assert message is not None and "cameras do not fit" in message and expected in message


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 4.0])
def test_intrinsics_of_pictures_of_another_size_are_found(scale: float) -> None:
    K, true = rig(12)
    report = check_cameras(detections(K, true), np.diag([scale, scale, 1]) @ K, true, SIZES, EYES)
    expected = f"{scale:g} times as large" if scale > 1 else f"{1 / scale:g} times smaller"
    assert report.wrong and any(f"intrinsics of pictures {expected}" in text for text in report.fitting), report


def test_two_wrong_things_at_once() -> None:
    K, true = rig(12)
    report = check_cameras(detections(K, true), np.diag([2.0, 2.0, 1]) @ K, np.linalg.inv(true), SIZES, EYES)
    assert any("camera-to-world extrinsics in OpenCV" in text and "2 times" in text for text in report.fitting)


def test_cy_from_the_bottom_is_found_where_cameras_look_from_many_heights() -> None:
    rng = np.random.default_rng(0)
    eyes = rng.normal(size=(14, 3))
    eyes[:, 2] = np.abs(eyes[:, 2])
    up = rng.normal(size=(14, 3)) * 0.4 + [0, 1, 0]
    true = look_at(eyes / np.linalg.norm(eyes, axis=1, keepdims=True), np.zeros((14, 3)), up)
    K = np.tile(np.array([[2000.0, 0, 0.5 * W], [0, 2000.0, 0.4 * H], [0, 0, 1]]), (14, 1, 1))
    wrong = K.copy()
    wrong[:, 1, 2] = H - K[:, 1, 2]
    report = check_cameras(detections(K, true, 1.0), wrong, true, SIZES, EYES)
    assert report.wrong and report.fitting[0] == "cy measured from the bottom"


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1000.0), ("cm", 100.0), ("m", 1.0)])
def test_the_world_s_unit_is_told_and_does_not_matter(unit: str, scale: float) -> None:
    K, w2c = rig(6, scale)
    report = check_cameras(detections(K, w2c, scale=scale), K, w2c, SIZES, EYES)
    assert not report.wrong and report.unit == unit


def test_cameras_of_another_recording_fit_by_no_convention() -> None:
    K, true = rig(10)
    other = rig(10)[1][np.random.default_rng(5).permutation(10)]
    report = check_cameras(detections(K, true), K, other, SIZES, EYES)
    assert report.wrong and not report.fitting
    assert "No usual change" in str(report.message("capture"))


def test_missing_detections_do_not_count() -> None:
    K, w2c = rig()
    found = detections(K, w2c)
    found[0, 2:] = np.nan
    found[1, :, 10:20] = np.nan
    assert not check_cameras(found, K, w2c, SIZES, EYES).wrong
    found[:, 1:] = np.nan  # one view alone says nothing
    report = check_cameras(found, K, w2c, SIZES, EYES)
    assert not report.known and not report.wrong


def test_cameras_that_move_are_taken_by_their_time() -> None:
    K, w2c = rig(5)
    moved = np.stack([w2c, w2c @ look_at([0.3, 0.0, 1.0], [0, 0, 0], [0, 1, 0])])
    found = np.stack([detections(K, camera, steps=1)[0] for camera in moved])
    assert not check_cameras(found, K, moved, SIZES, EYES).wrong


def test_a_capture_is_checked_by_its_views(tmp_path: Path) -> None:
    capture = bare_capture(tmp_path, steps=2, cameras=5, size=(400, 300))
    assert is_checked(capture)
    points = np.full((2, 5, 68, 3), np.nan, dtype=np.float32)
    for view in capture.views:
        points[view.timestep, view.camera, 17:, :2] = project(face(), view.K, view.world_to_camera)[:, :2]
        points[view.timestep, view.camera, 17:, 2] = 1
    report: CameraReport = check_capture(capture, Landmarks2D(points, "ibug68", "mine"))
    assert report.known and not report.wrong and report.error < 1e-4
