"""Wrong input gives one clear message and exit code 2, and leaves nothing half-written."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_fitting import cli
from flame_fitting.avatar.loading import load_avatar

CUBE = """v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
f 1 3 2\nf 1 4 3\nf 5 6 7\nf 5 7 8\nf 1 2 6\nf 1 6 5\nf 2 3 7\nf 2 7 6\nf 3 4 8\nf 3 8 7\nf 4 1 5\nf 4 5 8\n"""


def entries(folder: Path) -> dict[Path, int | None]:
    """All that is in a folder, with the time of each file's last change; a lock comes and goes in its folder."""
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")}


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must be refused; returns its one message."""
    before = entries(folder)
    code = cli.main(arguments)
    said = capsys.readouterr().err
    assert code == 2, said
    assert entries(folder) == before, "something was left behind"
    assert "Traceback" not in said
    messages = [line for line in said.splitlines() if line.startswith("flame-fitting: ")]
    assert len(messages) == 1, said
    return messages[0]


@pytest.fixture(params=["render", "run"])
def command(request: pytest.FixtureRequest) -> str:
    return request.param


def write_nan(path: Path) -> None:
    path.write_text(CUBE.replace("v 1 1 1", "v nan 1 1"))


def write_bad_texture(path: Path) -> None:
    path.write_text("mtllib cube.mtl\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl skin\n" + CUBE.replace("f 1 3 2", "f 1/1 3/2 2/3"))
    path.with_name("cube.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(buffer, "PNG")
    path.with_name("skin.png").write_bytes(buffer.getvalue()[:40])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("missing.glb", None),
        ("text.glb", lambda path: path.write_text("this is no mesh")),
        ("table.xlsx", lambda path: path.write_text("nor is this")),
        ("empty.obj", lambda path: path.write_text("# nothing\n")),
        ("no_bytes.ply", lambda path: path.write_bytes(b"")),
        ("nan.obj", write_nan),
        ("folder.obj", lambda path: path.mkdir()),
    ],
)
def test_avatar_that_cannot_be_read(
    name: str, write: object, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if callable(write):
        write(path)
    message = refused([command, str(path), "--output", str(tmp_path / "out")], tmp_path, capsys)
    assert name in message or "skin.png" in message


def test_a_video_is_shown_the_way_to_tracking(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "me.mov"
    path.write_bytes(b"")
    message = refused([command, str(path), "--output", str(tmp_path / "out")], tmp_path, capsys)
    assert f"preprocess --input {path}" in message and f"flame-fitting track {tmp_path / 'me'}" in message


def test_a_cut_texture_is_warned_of_and_no_reason_to_refuse(tmp_path: Path) -> None:
    write_bad_texture(tmp_path / "bad_texture.obj")
    avatar = load_avatar(tmp_path / "bad_texture.obj")
    assert not avatar.has_color and len(avatar.faces) == 12
    (warning,) = avatar.warnings
    assert "bad_texture.obj" in warning and "skin.png" in warning


@pytest.mark.slow  # every place of the object is looked at from everywhere before it is refused
def test_object_without_a_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    message = refused(["run", str(tmp_path / "cube.obj"), "--output", str(tmp_path / "out")], tmp_path, capsys)
    assert "cube.obj" in message
    assert "no human face" in message


def test_output_that_cannot_be_written(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "out"
    message = refused([command, str(tmp_path / "cube.obj"), "--output", str(output)], tmp_path, capsys)
    assert str(output) in message


def test_output_that_is_not_ours(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"dear")
    output = tmp_path / "photos"
    message = refused([command, str(tmp_path / "cube.obj"), "--output", str(output)], tmp_path, capsys)
    assert str(output) in message
    assert "--force" in message


@pytest.fixture
def faceless_capture(tmp_path: Path) -> Path:
    """A capture of grey pictures."""
    from flame_fitting.capture.camera import intrinsics_from_fov, look_at
    from flame_fitting.capture.files import CaptureWriter

    root = tmp_path / "render"
    with CaptureWriter(root) as writer:
        for camera, eye in enumerate(([0.0, 0.0, 2.0], [1.0, 0.0, 2.0])):
            writer.add(
                timestep=0,
                camera=camera,
                role="landmark",
                K=intrinsics_from_fov(25.0, 64, 64),
                world_to_camera=look_at(np.array(eye), np.zeros(3), np.array([0.0, 1.0, 0.0])),
                image=np.full((64, 64, 3), 128, np.uint8),
                alpha=np.full((64, 64), 255, np.uint8),
            )
    return root


def test_capture_in_which_no_view_has_a_face(
    faceless_capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["detect", str(faceless_capture)], tmp_path, capsys)
    assert str(faceless_capture) in message
    message = refused(["fit", str(faceless_capture), "--output", str(tmp_path / "fit")], tmp_path, capsys)
    assert str(faceless_capture) in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "MISSING"],
        ["fit", "MISSING", "--output", "OUT"],
        ["export", "--src-folder", "MISSING", "--tgt-folder", "OUT"],
        ["evaluate", "MISSING"],
    ],
)
def test_folder_that_is_not_there(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"MISSING": str(tmp_path / "nowhere"), "OUT": str(tmp_path / "out")}
    message = refused([places.get(word, word) for word in arguments], tmp_path, capsys)
    assert "nowhere" in message


def test_head_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    arguments = ["render", str(tmp_path / "cube.obj"), "--output", str(tmp_path / "out"), "--head"]
    message = refused([*arguments, str(tmp_path / "flame.npz")], tmp_path, capsys)
    assert "flame.npz" in message
