"""The capture layout: what is written is read back, and broken folders are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, world_to_camera_from_opengl
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.opening import open_capture
from flame_fitting.errors import InputError
from flame_fitting.manifest import Manifest, read_manifest

SIZE = (24, 32)  # height, width


def make_capture(root: Path, n: int = 3, same_camera: bool = True, force: bool = False) -> tuple[Capture, list[dict]]:
    rng = np.random.default_rng(0)
    kept = []
    with CaptureWriter(root, (0.0, 0.5, 1.0), "clay", AvatarRecord(file="a.glb"), force=force) as writer:
        for camera in range(n):
            depth = rng.uniform(1, 2, SIZE).astype(np.float32)
            depth[:5] = 0
            item = {
                "timestep": 0,
                "camera": camera,
                "role": ("landmark", "fit", "heldout")[camera % 3],
                "K": intrinsics_from_fov(25.0 if same_camera else 25.0 + camera, SIZE[1], SIZE[0]),
                "world_to_camera": look_at([camera * 0.3, 0.1, 2.0], [0, 0, 0], [0, 1, 0]),
                "image": rng.integers(0, 256, (3, *SIZE)).astype(np.float32) / 255,
                "alpha": rng.integers(0, 256, SIZE).astype(np.float32) / 255,
                "depth": depth,
                "normal": rng.normal(size=(*SIZE, 3)).astype(np.float16),
            }
            kept.append(item)
            writer.add(**item)
        writer.manifest = Manifest(stage="render")
    return writer.capture, kept


def test_what_the_avatar_lacked_stays_with_its_capture(tmp_path: Path) -> None:
    make_capture(tmp_path / "capture")
    assert open_capture(tmp_path / "capture").warnings == []
    (tmp_path / "capture" / "avatar.json").write_text(json.dumps({"warnings": ["skin.png is missing"]}))
    assert open_capture(tmp_path / "capture").warnings == ["skin.png is missing"]


def test_written_capture_is_read_back(tmp_path: Path) -> None:
    _, items = make_capture(tmp_path / "capture")
    capture = open_capture(tmp_path / "capture")
    assert capture.background_color == (0.0, 0.5, 1.0) and capture.shading == "clay"
    assert capture.avatar.file == "a.glb" and capture.avatar.head_from_world is None
    assert len(capture.views) == 3 and [v.role for v in capture.views] == ["landmark", "fit", "heldout"]
    for view, item in zip(capture.views, items, strict=True):
        np.testing.assert_allclose(view.world_to_camera, item["world_to_camera"], atol=1e-12)
        np.testing.assert_array_equal(view.K, item["K"])
        np.testing.assert_allclose(capture.image(view), item["image"], atol=1e-6)
        np.testing.assert_allclose(capture.alpha(view), item["alpha"], atol=1e-6)
        depth, normal = capture.geometry(view)
        np.testing.assert_array_equal(depth, item["depth"])
        np.testing.assert_array_equal(normal, item["normal"].astype(np.float32))
    manifest = read_manifest(tmp_path / "capture")
    assert manifest is not None and manifest.finished


def test_layout_is_the_documented_one(tmp_path: Path) -> None:
    make_capture(tmp_path / "capture")
    names = {p.relative_to(tmp_path / "capture").as_posix() for p in (tmp_path / "capture").rglob("*") if p.is_file()}
    assert {"transforms.json", "avatar.json", "images/00000_00.png", "alpha_maps/00000_02.png"} <= names
    assert "geometry/00000_01.npz" in names
    assert [p.name for p in tmp_path.iterdir()] == ["capture"]  # nothing temporary is left
    with Image.open(tmp_path / "capture/alpha_maps/00000_00.png") as picture:
        assert picture.mode == "L"
    with np.load(tmp_path / "capture/geometry/00000_00.npz") as data:
        assert data["depth"].dtype == np.float32 and data["normal"].dtype == np.float16
    data = json.loads((tmp_path / "capture/transforms.json").read_text())
    frame = data["frames"][1]
    assert frame["role"] == "fit" and frame["timestep_index"] == 0 and frame["camera_index"] == 1
    assert frame["fg_mask_path"] == "alpha_maps/00000_01.png"
    assert "mask_path" not in frame  # nerfstudio would never train what it leaves out
    c2w = np.array(frame["transform_matrix"])
    np.testing.assert_allclose(c2w[:3, 3], [0.3, 0.1, 2.0], atol=1e-12)  # the camera's place in the world
    np.testing.assert_allclose(
        world_to_camera_from_opengl(c2w), look_at([0.3, 0.1, 2.0], [0, 0, 0], [0, 1, 0]), atol=1e-12
    )


def test_top_level_intrinsics_only_where_all_views_share_them(tmp_path: Path) -> None:
    keys = {"fl_x", "fl_y", "cx", "cy", "w", "h"}
    make_capture(tmp_path / "same")
    make_capture(tmp_path / "different", same_camera=False)
    same = json.loads((tmp_path / "same/transforms.json").read_text())
    different = json.loads((tmp_path / "different/transforms.json").read_text())
    assert keys <= same.keys() and not keys & different.keys()
    assert all(keys <= frame.keys() for frame in same["frames"] + different["frames"])


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="halfway"), CaptureWriter(tmp_path / "capture") as writer:
        writer.add(timestep=0, camera=0, role="fit", K=np.eye(3), world_to_camera=np.eye(4), image=np.zeros((3, 4, 4)))
        raise RuntimeError("halfway")
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_a_picture_is_raised_and_nothing_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("flame_fitting.capture.files.write_png", fail)
    with pytest.raises(OSError, match="disk full"), CaptureWriter(tmp_path / "capture") as writer:
        writer.add(timestep=0, camera=0, role="fit", K=np.eye(3), world_to_camera=np.eye(4), image=np.zeros((3, 4, 4)))
    assert list(tmp_path.iterdir()) == []


def test_new_capture_replaces_the_old_one_and_its_landmarks(tmp_path: Path) -> None:
    make_capture(tmp_path / "capture", n=3)
    (tmp_path / "capture/landmarks2d").mkdir()
    (tmp_path / "capture/landmarks2d/x.npz").write_bytes(b"old")
    (tmp_path / "capture/notes.txt").write_text("mine")
    make_capture(tmp_path / "capture", n=2)
    assert len(open_capture(tmp_path / "capture").views) == 2
    assert not (tmp_path / "capture/landmarks2d").exists() and not (tmp_path / "capture/images/00000_02.png").exists()
    assert (tmp_path / "capture/notes.txt").read_text() == "mine"


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture/thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="--force"):
        make_capture(tmp_path / "capture")
    make_capture(tmp_path / "capture", force=True)
    assert (tmp_path / "capture/thesis.txt").exists() and (tmp_path / "capture/transforms.json").exists()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: (root / "transforms.json").unlink(), "transforms.json"),
        (lambda root: (root / "transforms.json").write_text("{"), "transforms.json"),
        (lambda root: (root / "images/00000_01.png").unlink(), "00000_01.png"),
        (lambda root: (root / "images/00000_01.png").write_bytes(b"no picture"), "00000_01.png"),
        (lambda root: (root / "alpha_maps/00000_00.png").unlink(), "alpha_maps"),
        (lambda root: (root / "geometry/00000_00.npz").unlink(), "geometry"),
        (lambda root: change(root, "role", "spare"), "role"),
        (lambda root: change(root, "transform_matrix", [[1, 2], [3, 4]]), "transform_matrix"),
        (lambda root: change(root, "transform_matrix", np.diag([2.0, 2, 2, 1]).tolist()), "scale"),
        (lambda root: change(root, "w", 99), "picture is 32 x 24"),
        (lambda root: change(root, "camera_index", 1), "both timestep 0, camera 1"),
        (lambda root: change(root, "k1", 0.1), "distortion"),
        (lambda root: change(root, "fl_x", "wide"), "frame 0"),
    ],
)
def test_broken_captures_are_input_errors(tmp_path: Path, damage, named: str) -> None:
    make_capture(tmp_path / "capture", same_camera=False)
    damage(tmp_path / "capture")
    with pytest.raises(InputError, match=named):
        open_capture(tmp_path / "capture")


def test_broken_contents_are_input_errors_when_read(tmp_path: Path) -> None:
    make_capture(tmp_path / "capture")
    capture = open_capture(tmp_path / "capture")
    path = tmp_path / "capture/geometry/00000_00.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"00000_00\.npz"):
        capture.geometry(capture.views[0])


def test_reads_an_instant_ngp_file(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "a.png")
    frames = [{"file_path": "./a", "transform_matrix": np.eye(4).tolist()}]
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": 2 * np.arctan(0.5), "frames": frames}))
    view = open_capture(tmp_path / "transforms.json").views[0]
    np.testing.assert_allclose(view.K, [[40, 0, 20], [0, 40, 10], [0, 0, 1]], atol=1e-9)
    assert view.role == "fit" and view.mask_path is None


def change(root: Path, key: str, value: object) -> None:
    data = json.loads((root / "transforms.json").read_text())
    data["frames"][0][key] = value
    (root / "transforms.json").write_text(json.dumps(data))
