"""transforms.json of other programs: whose intrinsics count, VHAP's cy, lenses, alpha channels, splits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_fitting.capture.camera import opengl_camera_to_world
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.lens import make_lens
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from tests.capture.synthetic_folders import disc, distorted_gradient, gradient, psnr, rig, write_picture

W, H = 60, 40
K = np.array([[70.0, 0, 32.0], [0, 71.0, 17.0], [0, 0, 1]])
INTRINSICS = {"fl_x": 70.0, "fl_y": 71.0, "cx": 32.0, "cy": 17.0, "w": W, "h": H}


def write(root: Path, data: dict[str, Any], name: str = "transforms.json") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps(data))
    return root


def frame(root: Path, number: int, picture: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    camera = rig(4)[number]
    write_picture(root / f"images/{number:05d}.png", gradient(K, camera, W, H) if picture is None else picture)
    return {
        "file_path": f"images/{number:05d}.png",
        "transform_matrix": opengl_camera_to_world(camera).tolist(),
    } | more


def same_cameras(capture: Capture) -> None:
    for number, view in enumerate(capture.views):
        np.testing.assert_allclose(view.world_to_camera, rig(4)[number], atol=1e-9)


def test_nerfstudio_s_file_with_shared_intrinsics(tmp_path: Path) -> None:
    frames = [frame(tmp_path, n) for n in range(4)]
    capture = open_capture(write(tmp_path, {"camera_model": "OPENCV", "frames": frames} | INTRINSICS))
    same_cameras(capture)
    assert capture.notes == () and [view.camera_id for view in capture.views] == [f"{n:05d}" for n in range(4)]
    for view in capture.views:
        np.testing.assert_array_equal(view.K, K)
        assert psnr(capture.image(view), gradient(K, view.world_to_camera, W, H).transpose(2, 0, 1)) > 50


def test_the_frame_s_intrinsics_count_and_that_is_said(tmp_path: Path) -> None:
    frames = [frame(tmp_path, n, **(INTRINSICS if n else {})) for n in range(3)]
    bogus = {"fl_x": 900.0, "camera_angle_x": 0.1, "cx": 256.0}
    capture = open_capture(write(tmp_path, {"camera_model": "OPENCV", "frames": frames} | bogus))
    np.testing.assert_array_equal(capture.views[1].K, K)
    np.testing.assert_array_equal(capture.views[0].K[0], [900, 0, 256])
    (note,) = capture.notes
    assert "cx, fl_x at the top level differ from the frames' own" in note


def test_a_frame_s_angle_counts_against_a_focal_length_at_the_top(tmp_path: Path) -> None:
    angle = {"camera_angle_x": 2 * np.arctan(0.5 * W / 70.0)}
    data = {"camera_model": "PINHOLE", "fl_x": 900.0, "fl_y": 900.0, "frames": [frame(tmp_path, 0, **angle)]}
    np.testing.assert_allclose(open_capture(write(tmp_path, data)).views[0].K[:2], [[70, 0, 30], [0, 70, 20]])


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_instant_ngp_s_names_without_ending(tmp_path: Path, ending: str) -> None:
    one = frame(tmp_path, 0)
    write_picture(tmp_path / f"images/a{ending}", np.zeros((H, W, 3)))
    one["file_path"] = "./images/a"
    view = open_capture(write(tmp_path, {"frames": [one], "aabb_scale": 4} | INTRINSICS)).views[0]
    assert view.file_path == f"./images/a{ending}"


def vhap(root: Path, **top: Any) -> dict[str, Any]:
    """VHAP's export of two cameras at two times; its cy is measured from the bottom."""
    frames = []
    for number in range(4):
        keys = {
            "timestep_index": number // 2,
            "timestep_index_original": 3 + number // 2,
            "timestep_id": f"{3 + number // 2:06d}",
            "camera_index": number % 2,
            "camera_id": ("222200036", "221501007")[number % 2],
            "flame_param_path": f"flame_param/{number // 2:05d}.npz",
            "fg_mask_path": f"fg_masks/{number:05d}.png",
        }
        write_picture(root / f"fg_masks/{number:05d}.png", disc(W, H))
        frames.append(frame(root, number, **(INTRINSICS | {"cy": H - 17.0} | keys)))
    return {"frames": frames, **INTRINSICS, "cy": H - 17.0, "timestep_indices": [0, 1], "camera_indices": [0, 1], **top}


def test_vhap_s_cy_is_turned_and_that_is_said(tmp_path: Path) -> None:
    capture = open_capture(write(tmp_path, vhap(tmp_path)))
    for view in capture.views:
        np.testing.assert_array_equal(view.K, K)
    assert any("measures cy from the bottom" in note for note in capture.notes)
    assert capture.timestep_ids == {0: "000003", 1: "000004"}
    assert capture.camera_ids == {0: "222200036", 1: "221501007"} and capture.composited


def test_an_export_of_this_program_keeps_its_cy(tmp_path: Path) -> None:
    capture = open_capture(write(tmp_path, vhap(tmp_path, camera_model="PINHOLE", background_color=[1, 1, 1])))
    assert capture.views[0].K[1, 2] == H - 17.0 and capture.notes == ()


def test_vhap_s_centred_video_needs_no_turning(tmp_path: Path) -> None:
    data = vhap(tmp_path)
    for one in data["frames"]:
        one["cy"] = H / 2
    data["cy"] = H / 2
    capture = open_capture(write(tmp_path, data))
    assert capture.notes == () and capture.views[0].K[1, 2] == H / 2


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        ({"k1": -0.2, "k2": 0.03, "p1": 0.002, "p2": -0.001}, "brown"),
        ({"k1": 0.1, "k2": 0.02, "k3": 0.01, "camera_model": "OPENCV"}, "brown"),
        ({"k1": 0.3, "k4": 0.4, "camera_model": "FULL_OPENCV"}, "brown"),
        ({"k1": -0.02, "k2": 0.01, "k3": 0.0, "k4": 0.001, "camera_model": "OPENCV_FISHEYE"}, "fisheye"),
        ({"k1": -0.02, "is_fisheye": True}, "fisheye"),
    ],
)
def test_lens_distortion_is_undone(tmp_path: Path, keys: dict[str, Any], model: Any) -> None:
    names = ("k1", "k2", "k3", "k4") if model == "fisheye" else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    lens = make_lens(model, tuple(float(keys.get(name, 0)) for name in names), K, W, H)
    assert lens is not None
    frames = [frame(tmp_path, n, distorted_gradient(lens, rig(4)[n], W, H)) for n in range(2)]
    capture = open_capture(write(tmp_path, {"frames": frames} | INTRINSICS | keys))
    for view in capture.views:
        truth = gradient(view.K, view.world_to_camera, W, H).transpose(2, 0, 1)
        assert psnr(capture.image(view)[:, 1:-1, 1:-1], truth[:, 1:-1, 1:-1]) > 46
        assert view.full_size == (W, H)


@pytest.mark.parametrize(
    "keys",
    [
        {"camera_model": "EQUIRECTANGULAR"},
        {"k1": 0.1, "k4": 0.1},
        {"camera_model": "OPENCV_FISHEYE", "p1": 0.1},
        {"k1": float("nan")},
        {"k1": -5.0, "fl_x": 20.0, "fl_y": 20.0},
    ],
)
def test_a_lens_that_cannot_be_undone_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Undistort the pictures first"):
        open_capture(write(tmp_path, {"frames": [frame(tmp_path, 0)]} | INTRINSICS | keys))


def test_pictures_with_an_alpha_channel(tmp_path: Path) -> None:
    colors = gradient(K, rig(4)[0], W, H)
    one = frame(tmp_path, 0, np.concatenate([colors, disc(W, H)[..., None]], axis=2))
    root = write(tmp_path, {"frames": [one]} | INTRINSICS)
    for options, behind in ((ReadOptions(), 1.0), (ReadOptions(background_color="black"), 0.0)):
        capture = open_capture(root, options)
        image, alpha = capture.image_and_alpha(capture.views[0])
        np.testing.assert_allclose(alpha, disc(W, H), atol=3e-3)
        expected = colors * disc(W, H)[..., None] + behind * (1 - disc(W, H)[..., None])
        np.testing.assert_allclose(image.transpose(1, 2, 0), expected, atol=5e-3)
        assert capture.background_color == (behind,) * 3 and any("alpha channel" in note for note in capture.notes)


def test_masks_over_a_background_that_is_not_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "masks/0.png", disc(W, H))
    root = write(tmp_path, {"frames": [frame(tmp_path, 0, mask_path="masks/0.png")]} | INTRINSICS)
    assert not open_capture(root).composited
    capture = open_capture(root, ReadOptions(background_color="white"))
    image = capture.image(capture.views[0])
    assert capture.composited and image[:, 0, 0].min() == 1.0


def test_splits_of_a_blender_scene(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        write(tmp_path, {"frames": [frame(tmp_path, number)]} | INTRINSICS, f"transforms_{split}.json")
    capture = open_capture(tmp_path)
    assert [view.role for view in capture.views] == ["fit", "heldout", "heldout"] and capture.cameras == [0, 1, 2]
    same_cameras(capture)
    assert len(open_capture(tmp_path / "transforms_val.json").views) == 1


def test_headers_are_read_of_one_picture_of_each_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flame_fitting.capture.layouts import transforms as module

    one, read = frame(tmp_path, 0), list[Path]()
    frames = [one | {"timestep_index": n // 3, "camera_index": n % 3} for n in range(600)]
    true = module.picture_header
    monkeypatch.setattr(module, "picture_header", lambda path, advice: read.append(path) or true(path, advice))
    assert len(open_capture(write(tmp_path, {"frames": frames} | INTRINSICS)).views) == 600
    assert len(read) == 3
