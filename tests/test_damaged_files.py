"""Files that are cut, empty, damaged or foreign: one message that names the file, from whatever command reads it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from flame_fitting import cli
from flame_fitting.capture.opening import open_capture
from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object, read_npz, read_picture
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.result import load_fit
from flame_fitting.fit.sources import open_epoch
from flame_fitting.fit.state import FitState, StageRecord
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.flame_files import read_flame
from flame_fitting.landmarks.files import Landmarks2D, read_landmarks, write_landmarks
from flame_fitting.report.truth import load_truth
from tests.bare_capture import bare_capture
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head


def foreign(path: Path) -> None:
    """A sound file of its kind, by another program."""
    if path.suffix == ".npz":
        np.savez(path, other=np.zeros(3))
    elif path.suffix == ".png":
        Image.new("RGB", (30, 20)).save(path)
    elif path.suffix == ".safetensors":
        save_file({"other": torch.zeros(3)}, path)
    else:
        path.write_text('{"frames": 3, "stages": [{}], "head_from_world": [1, 2]}')


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(0, len(content), 40):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "end missing": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "another kind": lambda path: path.write_bytes(b"\x80\x05cos\nsystem\n" * 20),
    "one array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + b" " * 200),
    "flipped": flipped,
    "foreign": foreign,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture with landmarks, and a fit to it with all of its files."""
    folder, head = tmp_path_factory.mktemp("made"), toy_head()
    fit = known_fit(head, similarity())
    capture = render_case(folder, head, fit, n_fit=3, n_heldout=1, size=48)
    points = np.full((1, len(capture.cameras), 478, 3), 20.0, dtype=np.float32)
    write_landmarks(capture, Landmarks2D(points, "mediapipe478", "mediapipe"))
    save_case(folder / "fit", fit, capture)
    (folder / "fit" / "tracked_flame_params_3.npz").write_bytes(
        (folder / "fit" / "tracked_flame_params.npz").read_bytes()
    )
    shape = (1, 10, 3)
    np.savez(folder / "fit" / "landmarks3d.npz", points=np.zeros(shape), model=np.zeros(shape), scheme="toy")
    np.savez(folder / "fit" / "uncertainty.npz", units="{}", jaw_pose=np.ones((1, 3)))
    parameters = FitParameters.neutral(head)
    parameters.static_offset[:] = torch.rand(parameters.static_offset.shape)
    state = FitState(parameters, np.eye(4)).recorded(StageRecord("a", parameters, np.eye(4), 1.0))
    save_checkpoint(folder / "fit" / CHECKPOINT_NAME, Checkpoint(state))
    np.savez(folder / "ground_truth.npz", vertices=np.zeros((5, 3)), mm_per_unit=1.0)
    return folder


def read_truth(made: Path) -> Any:
    return load_truth(made / "ground_truth.npz", toy_head())


def read_geometry(made: Path) -> Any:
    capture = open_capture(made / "render")
    return capture.geometry(capture.views[0])


def read_image(made: Path) -> Any:
    capture = open_capture(made / "render")
    return capture.image(capture.views[0]), capture.alpha(capture.views[0])


READERS: dict[str, Callable[[Path], Any]] = {
    "fit/tracked_flame_params.npz": lambda made: load_fit(made / "fit"),
    "fit/tracked_flame_params_3.npz": lambda made: open_epoch(load_fit(made / "fit"), 3),
    "fit/texture.png": lambda made: load_fit(made / "fit"),
    "fit/landmarks3d.npz": lambda made: load_fit(made / "fit"),
    "fit/uncertainty.npz": lambda made: load_fit(made / "fit"),
    "fit/checkpoint.safetensors": lambda made: load_fit(made / "fit"),
    "render/transforms.json": lambda made: open_capture(made / "render"),
    "render/avatar.json": lambda made: open_capture(made / "render"),
    "render/images/00000_00.png": read_image,
    "render/alpha_maps/00000_00.png": read_image,
    "render/geometry/00000_00.npz": read_geometry,
    "render/landmarks2d/mediapipe.npz": lambda made: read_landmarks(open_capture(made / "render"), "mediapipe"),
    "ground_truth.npz": read_truth,
}
# a picture without its last bytes is whole; a hash that fits no more may still be JSON
HARMLESS = {("end missing", ".png"), ("flipped", ".json")}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_the_file(name: str, damage: str, made: Path) -> None:
    path, read = made / name, READERS[name]
    read(made)
    whole = path.read_bytes()
    try:
        DAMAGES[damage](path)
        try:
            read(made)
        except InputError as error:
            assert path.name in str(error)
            assert "pickle.load" not in str(error)  # NumPy's advice to trust the file
        else:
            assert (damage, path.suffix) in HARMLESS
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign"])
@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("fit/tracked_flame_params.npz", ("evaluate", "export", "convert")),
        ("render/transforms.json", ("fit", "detect", "evaluate", "export")),
        ("render/landmarks2d/mediapipe.npz", ("fit",)),
    ],
)
def test_commands_say_so(
    name: str, commands: tuple[str, ...], damage: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made / name
    whole = path.read_bytes()
    fit, out = str(made / "fit"), str(tmp_path / "out")
    flags = {
        "evaluate": ["evaluate", fit],
        "export": ["export", "--src-folder", fit, "--tgt-folder", out],
        "convert": ["convert", f"{fit}/tracked_flame_params.npz", "--output", f"{out}.npz", "--to", "nersemble"],
        "fit": ["fit", str(made / "render"), "--output", out, "--head", "open"],
        "detect": ["detect", str(made / "render")],
    }
    try:
        DAMAGES[damage](path)
        for command in commands:
            assert cli.main(flags[command]) == 2
            said = capsys.readouterr().err
            assert path.name in said and "bug" not in said and "Traceback" not in said
            assert list(tmp_path.iterdir()) == []
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"expr": np.zeros(4)}, "expr has shape"),
        ({"rotation": np.zeros((2, 3))}, "rotation has shape"),
        ({"shape": np.full(6, np.nan)}, "not finite"),
        ({"static_offset": np.zeros((40, 3))}, "static_offset has shape"),
        ({"jaw_pose": np.array([["a", "b", "c"]])}, "jaw_pose has shape"),
        ({"head_from_world": np.eye(3)}, "head_from_world has shape"),
        ({"head_from_world": np.zeros((4, 4))}, "no size"),
        ({"head_model": np.array("open")}, "not a fit's parameter file"),
        ({"image_size": np.array(3)}, "not a fit's parameter file"),
        ({"head_identity": np.array("[1]")}, "not a fit's parameter file"),
        ({"timestep_id": np.array(["0", "1"])}, "names 2 timesteps and holds 1"),
    ],
)
def test_parameters_of_another_shape(changed: dict[str, Any], said: str, made: Path, tmp_path: Path) -> None:
    with np.load(made / "fit" / "tracked_flame_params.npz") as file:
        np.savez(tmp_path / "tracked_flame_params.npz", **({name: file[name] for name in file.files} | changed))
    with pytest.raises(InputError, match=said) as error:
        load_fit(tmp_path)
    assert "tracked_flame_params.npz" in str(error.value)


def test_parameters_of_vhap_are_sent_to_convert(tmp_path: Path) -> None:
    np.savez(tmp_path / "tracked_flame_params.npz", shape=np.zeros(300), expr=np.zeros((1, 100)))
    with pytest.raises(InputError, match="read by: flame-fitting convert"):
        load_fit(tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"landmarks": np.zeros((5, 478, 3))}, "landmarks have shape"),
        ({"landmarks": np.full((1, 5, 478, 3), "x")}, "numbers"),
    ],
)
def test_landmarks_of_another_kind(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "landmarks2d").mkdir()
    right = {"landmarks": np.zeros((1, 5, 478, 3)), "scheme": np.array("mediapipe478")}
    np.savez(tmp_path / "landmarks2d" / "mediapipe.npz", **(right | values))
    with pytest.raises(InputError, match=said):
        read_landmarks(bare_capture(tmp_path, cameras=5), "mediapipe")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((), {"background_color": "white"}, "background_color"),
        ((), {"background_color": ["a", 0, 0]}, "background_color"),
        ((), {"background_color": [255, 255, 255]}, "background_color"),
        (("frames", 0), {"timestep_index": 1e400}, "frame 0"),
        (("frames", 0), {"camera_index": None}, "frame 0"),
        (("frames", 0), {"fg_mask_path": 5}, "frame 0"),
        (("frames", 0), {"file_path": "a\0b"}, "frame 0"),
        (("frames", 0), {"file_path": "x" * 5000}, "frame 0"),
        (("frames", 0), {"role": ["fit"]}, "role"),
        (("frames", 0), {"w": "wide"}, "frame 0"),
        (("frames", 0), {"transform_matrix": "up"}, "frame 0"),
        (("frames", 0), {"k1": "much"}, "frame 0"),
    ],
)
def test_transforms_with_one_wrong_value(place: tuple[Any, ...], value: dict[str, Any], said: str, made: Path) -> None:
    path = made / "render" / "transforms.json"
    whole = path.read_text()
    data = json.loads(whole)
    entry = data
    for key in place:
        entry = entry[key]
    entry |= value
    try:
        path.write_text(json.dumps(data))
        with pytest.raises(InputError, match=said):
            open_capture(made / "render")
    finally:
        path.write_text(whole)


@pytest.mark.parametrize("damage", DAMAGES)
def test_helpers(damage: str, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(9000))
    assert read_npz(tmp_path / "a.npz", "Again.", ("x",), ("y",)).keys() == {"x"}
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", "L", "Again.").shape == (30, 20)
    (tmp_path / "a.json").write_text('{"a": 1}' + " " * 100)
    for name, read in (
        ("a.npz", lambda path: read_npz(path, "Again.", ("x",))),
        ("a.npz", LandmarkEmbedding.load),
        ("a.npz", read_flame),
        ("a.png", lambda path: read_picture(path, "RGB", "Again.")),
    ):
        DAMAGES[damage](tmp_path / name)
        try:
            read(tmp_path / name)
        except InputError as error:
            assert name in str(error)
        else:
            assert name == "a.png" and damage in ("foreign", "end missing")
    with pytest.raises(InputError, match=r"a\.json: not readable JSON"):
        (tmp_path / "a.json").write_text("[" * 100_000)
        read_json_object(tmp_path / "a.json", "Again.")
