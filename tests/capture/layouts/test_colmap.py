"""COLMAP's models, written here by the documented format and, where it is installed, by COLMAP's own library."""

import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_fitting.capture.capture import Capture
from flame_fitting.capture.lens import make_lens
from flame_fitting.capture.opening import open_capture
from flame_fitting.errors import InputError
from tests.capture.synthetic_folders import disc, distorted_gradient, gradient, psnr, rig, write_picture

W, H = 60, 40
_OPENCV, _FISHEYE = (-0.1, 0.02, 0.003, -0.002), (0.02, 0.01, 0.0, 0.001)
# number in files, name, parameters, (fx, fy, cx, cy), OpenCV's coefficients
MODELS = [
    (0, "SIMPLE_PINHOLE", (70.0, 31, 19), (70, 70, 31, 19), None),
    (1, "PINHOLE", (70.0, 72, 31, 19), (70, 72, 31, 19), None),
    (2, "SIMPLE_RADIAL", (70.0, 31, 19, -0.1), (70, 70, 31, 19), ("brown", (-0.1,))),
    (3, "RADIAL", (70.0, 31, 19, -0.1, 0.02), (70, 70, 31, 19), ("brown", (-0.1, 0.02))),
    (4, "OPENCV", (70.0, 72, 31, 19, *_OPENCV), (70, 72, 31, 19), ("brown", _OPENCV)),
    (5, "OPENCV_FISHEYE", (70.0, 72, 31, 19, *_FISHEYE), (70, 72, 31, 19), ("fisheye", _FISHEYE)),
    (
        6,
        "FULL_OPENCV",
        (70.0, 72, 31, 19, 0.3, 0.1, 0.001, 0.0, 0.02, 0.5, 0.1, 0.01),
        (70, 72, 31, 19),
        ("brown", (0.3, 0.1, 0.001, 0, 0.02, 0.5, 0.1, 0.01)),
    ),
    (8, "SIMPLE_RADIAL_FISHEYE", (70.0, 31, 19, 0.02), (70, 70, 31, 19), ("fisheye", (0.02, 0, 0, 0))),
    (9, "RADIAL_FISHEYE", (70.0, 31, 19, 0.02, 0.01), (70, 70, 31, 19), ("fisheye", (0.02, 0.01, 0, 0))),
]  # fmt: skip


def pictures(root: Path, model: tuple, size: tuple[int, int] = (W, H)) -> None:
    """Three pictures of the rig through the model's lens."""
    _, _, _, (fx, fy, cx, cy), distortion = model
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    lens = None if distortion is None else make_lens(*distortion, K, W, H)
    K = np.diag([size[0] / W, size[1] / H, 1]) @ K
    for number, camera in enumerate(rig(3)):
        seen = gradient(K, camera, *size) if lens is None else distorted_gradient(lens, camera, *size)
        write_picture(root / "images" / f"view_{number}.png", seen)


def poses() -> list[tuple[np.ndarray, np.ndarray]]:
    """Quaternion (w, x, y, z) and translation of each camera."""
    return [(Rotation.from_matrix(c[:3, :3]).as_quat()[[3, 0, 1, 2]], c[:3, 3]) for c in rig(3)]


def write_text(folder: Path, model: tuple) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = " ".join(repr(float(value)) for value in model[2])
    (folder / "cameras.txt").write_text(f"# Camera list\n7 {model[1]} {W} {H} {numbers}\n")
    lines = ["# Image list with two lines of data per image:"]
    for number, (q, t) in reversed(list(enumerate(poses()))):
        pose = " ".join(repr(float(value)) for value in (*q, *t))
        lines += [f"{number + 1} {pose} 7 view_{number}.png", "10.0 11.0 -1" if number else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def write_binary(folder: Path, model: tuple) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cameras = struct.pack("<QiiQQ", 1, 7, model[0], W, H) + struct.pack(f"<{len(model[2])}d", *model[2])
    (folder / "cameras.bin").write_bytes(cameras)
    out = struct.pack("<Q", 3)
    for number, (q, t) in enumerate(poses()):
        out += struct.pack("<i7di", number + 1, *q, *t, 7) + f"view_{number}.png".encode() + b"\0"
        out += struct.pack("<Q", number) + b"".join(struct.pack("<ddq", 1.0, 2.0, -1) for _ in range(number))
    (folder / "images.bin").write_bytes(out)


def check(capture: Capture) -> None:
    assert capture.kind == "colmap" and capture.calibrated and len(capture.views) == 3
    assert [view.camera_id for view in capture.views] == ["view_0", "view_1", "view_2"]
    assert any("no unit" in note for note in capture.notes)
    for view, camera in zip(capture.views, rig(3), strict=True):
        np.testing.assert_allclose(view.world_to_camera, camera, atol=1e-9)
        truth = gradient(view.K, camera, view.width, view.height).transpose(2, 0, 1)
        assert psnr(capture.image(view)[:, 1:-1, 1:-1], truth[:, 1:-1, 1:-1]) > 46


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model[1])
@pytest.mark.parametrize("write", [write_text, write_binary])
def test_cameras_and_pictures_are_as_written(tmp_path: Path, write, model: tuple) -> None:
    pictures(tmp_path, model)
    write(tmp_path / "sparse" / "0", model)
    capture = open_capture(tmp_path)
    check(capture)
    if model[4] is None:
        fx, fy, cx, cy = model[3]
        np.testing.assert_array_equal(capture.views[0].K, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def test_the_model_s_own_folder_and_reduced_pictures_and_alpha(tmp_path: Path) -> None:
    pictures(tmp_path, MODELS[4], (W // 2, H // 2))
    write_binary(tmp_path / "sparse", MODELS[4])
    write_picture(tmp_path / "alpha_maps" / "view_1.png", disc(W // 2, H // 2))
    capture = open_capture(tmp_path)
    check(capture)
    assert (capture.views[0].width, capture.views[0].height) == (W // 2, H // 2)
    assert [view.mask_path is not None for view in capture.views] == [False, True, False]
    check(open_capture(tmp_path / "sparse"))


@pytest.mark.parametrize("number", [7, 10, 12, 99])
def test_unknown_models_are_refused(tmp_path: Path, number: int) -> None:
    pictures(tmp_path, MODELS[1])
    count = {7: 5, 10: 12}.get(number, 4)
    write_binary(tmp_path / "sparse" / "0", (number, "", (70.0,) * count))
    with pytest.raises(InputError, match=r"cameras\.bin.*known"):
        open_capture(tmp_path)


def test_damaged_models_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, MODELS[1])
    folder = tmp_path / "sparse" / "0"
    write_binary(folder, MODELS[1])
    whole = (folder / "images.bin").read_bytes()
    for length in (0, 4, 20, 75, len(whole) - 10):
        (folder / "images.bin").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"images\.bin"):
            open_capture(tmp_path)
    (folder / "images.bin").write_bytes(whole)
    (tmp_path / "images" / "view_2.png").unlink()
    with pytest.raises(InputError, match=r"view_2\.png: missing"):
        open_capture(tmp_path)


@pytest.mark.parametrize("binary", [True, False])
def test_a_model_that_colmap_s_own_library_wrote(tmp_path: Path, binary: bool) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap, which writes COLMAP's files")
    model = MODELS[4]
    pictures(tmp_path, model)
    made = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="OPENCV", width=W, height=H, params=list(model[2]), camera_id=7)
    made.add_camera_with_trivial_rig(camera)
    for number, matrix in enumerate(rig(3)):
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(matrix[:3, :3]), matrix[:3, 3])
        image = pycolmap.Image(name=f"view_{number}.png", camera_id=7, image_id=number + 1)
        made.add_image_with_trivial_frame(image, pose)
    folder = tmp_path / "sparse" / "0"
    folder.mkdir(parents=True)
    (made.write_binary if binary else made.write_text)(str(folder))
    check(open_capture(tmp_path))
