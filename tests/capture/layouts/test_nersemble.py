"""NeRSemble's folders: cameras, sizes, colours and times as they were written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_fitting.capture.color_correction import PolynomialCorrection
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from tests.capture.synthetic_folders import gradient, nersemble, psnr, rig

Cameras = dict[str, tuple[np.ndarray, np.ndarray, tuple[int, int]]]


def cameras(sizes: tuple[tuple[int, int], ...] = ((44, 64),) * 3) -> Cameras:
    names = ("222200049", "221501007", "222200036")
    return {
        name: (np.array([[1.8 * w, 0, 0.52 * w], [0, 1.8 * w, 0.45 * h], [0, 0, 1.0]]), camera, (w, h))
        for name, camera, (w, h) in zip(names, rig(3), sizes, strict=True)
    }


@pytest.mark.parametrize("version", [1, 2])
def test_cameras_times_and_pictures_are_as_written(tmp_path: Path, version: int) -> None:
    known = cameras(((44, 64), (30, 50), (44, 64)))
    capture = open_capture(nersemble(tmp_path, version, known))
    assert capture.kind == f"nersemble-v{version}" and capture.calibrated
    assert capture.camera_ids == {0: "221501007", 1: "222200036", 2: "222200049"}
    assert capture.timestep_ids == {0: "000000", 1: "000001"} and len(capture.views) == 6
    for view in capture.views:
        K, camera, size = known[view.camera_id]
        np.testing.assert_allclose(view.K, K, atol=1e-9)
        np.testing.assert_array_equal(view.world_to_camera, camera)
        assert (view.width, view.height) == size
        assert psnr(capture.image(view), gradient(K, camera, *size, view.timestep).transpose(2, 0, 1)) > 38


@pytest.mark.parametrize("version", [1, 2])
def test_one_matrix_for_all_cameras_is_scaled_from_the_calibration(tmp_path: Path, version: int) -> None:
    known = cameras(((44, 64), (22, 32), (44, 64)))
    shared = np.array([[7000.0, 0, 1120.0], [0, 7010.0, 1580.0], [0, 0, 1]])
    said = {"intrinsics": shared.tolist(), "width": 2200, "height": 3200}
    capture = open_capture(nersemble(tmp_path, version, known, calibration=said))
    assert not any("does not say" in note for note in capture.notes)
    for view in capture.views:
        scale = view.width / 2200
        np.testing.assert_allclose(view.K[:2], shared[:2] * scale, rtol=1e-9)


def test_a_calibration_without_a_size_is_said(tmp_path: Path) -> None:
    said = {"intrinsics": np.diag([7000.0, 7000.0, 1.0]).tolist(), "width": None, "height": None}
    root = nersemble(tmp_path, 1, cameras(((55, 80),) * 3), calibration=said)
    capture = open_capture(root)
    assert sum("2200 x 3208 is assumed" in note for note in capture.notes) == 1
    np.testing.assert_allclose(capture.views[0].K[0, 0], 7000 * 55 / 2200)
    np.testing.assert_allclose(capture.views[0].K[1, 1], 7000 * 80 / 3208)
    given = open_capture(root, ReadOptions(image_size_during_calibration=(1600, 1100)))
    np.testing.assert_allclose(given.views[0].K[0, 0], 7000 * 55 / 1100)


def test_a_calibration_for_pictures_of_another_shape_is_refused(tmp_path: Path) -> None:
    said = {"width": 64, "height": 44}
    with pytest.raises(InputError, match=r"camera_params\.json: its intrinsics are for pictures of 64 x 44.*44 x 64"):
        open_capture(nersemble(tmp_path, 1, cameras(), calibration=said))


def test_affine_colours_of_v1(tmp_path: Path) -> None:
    root = nersemble(tmp_path, 1, cameras(), suffix=".png")
    affine = np.array([[0.9, 0.05, 0.0, 0.02], [0.0, 0.8, 0.1, 0.0], [0.03, 0.0, 0.85, -0.01]])
    folder = tmp_path / "color_correction" / "074"
    folder.mkdir(parents=True)
    np.save(folder / "222200036.npy", affine)
    plain = open_capture(root, ReadOptions(use_color_correction=False))
    corrected = open_capture(root)
    assert plain.notes == () and any("221501007, 222200049" in note for note in corrected.notes)
    for before, after in zip(plain.views, corrected.views, strict=True):
        a, b = plain.image(before), corrected.image(after)
        if after.camera_id == "222200036":
            expected = np.clip(np.einsum("chw,cd->dhw", a, affine[:, :3]) + affine[:, 3, None, None], 0, 1)
            np.testing.assert_allclose(b, expected, atol=1e-5)
            assert np.abs(a - b).max() > 0.02
        else:
            np.testing.assert_array_equal(a, b)
    assert folder / "222200036.npy" in corrected.sources


def test_polynomial_colours_of_v2_are_applied(tmp_path: Path) -> None:
    root = nersemble(tmp_path, 2, cameras(), suffix=".png")
    matrix = np.zeros((3, 7))
    matrix[:, :3] = [[0.8, 0.1, 0], [0, 0.7, 0.1], [0.1, 0, 0.9]]
    matrix[:, 3] = 0.05
    path = tmp_path / "074" / "calibration" / "color_calibration.json"
    path.write_text(json.dumps({name: matrix.tolist() for name in cameras()}))
    plain, corrected = open_capture(root, ReadOptions(use_color_correction=False)), open_capture(root)
    for before, after in zip(plain.views, corrected.views, strict=True):
        a, b = plain.image(before), corrected.image(after)
        expected = PolynomialCorrection(matrix)(a.transpose(1, 2, 0)).transpose(2, 0, 1)
        np.testing.assert_allclose(b, expected, atol=1e-6)
        assert np.abs(a - b).max() > 0.02


@pytest.mark.parametrize("version", [1, 2])
def test_missing_colours_are_said(tmp_path: Path, version: int) -> None:
    capture = open_capture(nersemble(tmp_path, version, cameras()))
    assert any("color_c" in note and "left as they are" in note for note in capture.notes)


@pytest.mark.parametrize(
    ("value", "named"), [([[1, 2], [3, 4]], "three rows"), (np.eye(3, 6).tolist(), "6 terms"), ("x", "three rows")]
)
def test_colours_of_another_kind_are_named(tmp_path: Path, value: Any, named: str) -> None:
    root = nersemble(tmp_path, 2, cameras())
    path = tmp_path / "074" / "calibration" / "color_calibration.json"
    path.write_text(json.dumps(dict.fromkeys(cameras(), value)))
    with pytest.raises(InputError, match=f"color_calibration.json.*{named}"):
        open_capture(root)


def test_reduced_pictures_and_full_alpha(tmp_path: Path) -> None:
    root = nersemble(tmp_path, 1, cameras())
    options = ReadOptions(n_downsample_rgb=4, background_color="white")
    capture, full = open_capture(root, options), open_capture(root)
    for small, large in zip(capture.views, full.views, strict=True):
        assert (small.width, small.height) == (11, 16)
        np.testing.assert_allclose(small.K, np.diag([0.25, 0.25, 1]) @ large.K)
        image, alpha = capture.image_and_alpha(small)
        np.testing.assert_array_equal(image, capture.image(small))
        means = full.alpha(large).reshape(16, 4, 11, 4).mean((1, 3))
        np.testing.assert_allclose(alpha, means, atol=1e-5)
        pooled = full.image(large).reshape(3, 16, 4, 11, 4).mean((2, 4))
        np.testing.assert_allclose(image, pooled * means + 1 - means, atol=1e-5)
    assert capture.background_color == (1.0, 1.0, 1.0) and capture.composited


def test_one_picture_header_is_read_for_each_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = nersemble(tmp_path, 1, cameras(((8, 12),) * 3), steps=20)
    from flame_fitting.capture.layouts import nersemble as module

    read: list[Path] = []
    true = module.picture_size
    monkeypatch.setattr(module, "picture_size", lambda path, advice: read.append(path) or true(path, advice))
    assert len(open_capture(root).views) == 60 and len(read) == 3


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda data: data.pop("world_2_cam"), "lacks world_2_cam"),
        (lambda data: data.update(intrinsics=[[1, 2]]), "no matrix"),
        (lambda data: data["world_2_cam"].update({"222200036": (2 * np.eye(4)).tolist()}), "rigid"),
        (lambda data: data["world_2_cam"].update({"222200036": np.diag([1.0, 1, -1, 1]).tolist()}), "mirror"),
        (lambda data: data["intrinsics"].pop("222200036"), "lack the camera 222200036"),
        (lambda data: data.update(height="tall"), "height and width"),
        (lambda data: data.update(world_2_cam={"1": np.eye(4).tolist()}), "calibration of this recording"),
    ],
)
def test_damaged_calibrations_are_named(tmp_path: Path, damage: Any, named: str) -> None:
    root = nersemble(tmp_path, 1, cameras())
    path = tmp_path / "camera_params" / "074" / "camera_params.json"
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"camera_params.json.*{named}"):
        open_capture(root)


def test_a_recording_without_calibration_says_where_it_should_be(tmp_path: Path) -> None:
    root = nersemble(tmp_path, 1, cameras())
    (tmp_path / "camera_params" / "074" / "camera_params.json").unlink()
    with pytest.raises(InputError, match=r"camera_params/074/camera_params\.json: no such file"):
        open_capture(root)


def test_cameras_on_one_side_only_are_said(tmp_path: Path) -> None:
    known = cameras()
    root = nersemble(tmp_path, 1, known)
    path = tmp_path / "camera_params" / "074" / "camera_params.json"
    data = json.loads(path.read_text())
    data["world_2_cam"]["9"] = data["world_2_cam"].pop("222200036")
    path.write_text(json.dumps(data))
    capture = open_capture(root)
    assert list(capture.camera_ids.values()) == ["221501007", "222200049"]
    assert any("lacks the camera 222200036" in note for note in capture.notes)
    assert any("no pictures of the camera 9" in note for note in capture.notes)
