"""Manifests: what differs is named, and folders that are not ours are left alone."""

import dataclasses
from pathlib import Path

import pytest

from flame_fitting.errors import InputError
from flame_fitting.folders import staged_folder
from flame_fitting.manifest import (
    Manifest,
    check_output_folder,
    compare,
    config_as_dict,
    hash_folder,
    hash_path,
    input_record,
    read_manifest,
)


@dataclasses.dataclass
class Views:
    n: int = 32
    fov: float = 25.0


@dataclasses.dataclass
class Config:
    output: Path = Path("out")
    resolution: int = 512
    views: Views = dataclasses.field(default_factory=Views)
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


def make(folder: Path, **changes: object) -> Manifest:
    source = folder / "a.glb"
    if not source.exists():
        source.write_bytes(b"avatar")
    values = {
        "stage": "render",
        "config": config_as_dict(Config()),
        "inputs": {"avatar": input_record(source, folder / "out")},
        "head": {"name": "open", "sha256": "ab"},
        "detector": "mediapipe",
        "seeds": {"perturbation": 0},
        "version": "1.0",
        "finished": True,
    }
    return Manifest(**{**values, **changes})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    manifest = make(tmp_path, transforms={"head_from_world": [[1.0, 0.0, 0.0, 0.0]] * 4}, seconds={"total": 1.5})
    (tmp_path / "out").mkdir()
    manifest.write(tmp_path / "out")
    again = read_manifest(tmp_path / "out")
    assert again == manifest
    assert compare(again, manifest) is None
    assert again is not None and again.input_path("avatar", tmp_path / "out") == (tmp_path / "a.glb").resolve()
    assert again.input_path("fit", tmp_path / "out") is None


def test_no_manifest_is_none_and_broken_one_is_an_input_error(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / "manifest.json").write_text("[1, 2")
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "2.0"}, "version 1.0 -> 2.0"),
        ({"stage": "fit"}, "'render', not of 'fit'"),
        ({"config": config_as_dict(Config(resolution=256))}, "resolution 512 -> 256"),
        ({"config": config_as_dict(Config(views=Views(n=12)))}, "views.n 32 -> 12"),
        ({"seeds": {"perturbation": 3}}, "seed perturbation 0 -> 3"),
        ({"head": {"name": "flame", "sha256": "cd"}}, "head name open -> flame"),
        ({"detector": "star"}, "detector mediapipe -> star"),
        ({"inputs": {}}, "input avatar is no longer used"),
    ],
)
def test_each_difference_is_named(tmp_path: Path, change: dict, words: str) -> None:
    text = compare(make(tmp_path), make(tmp_path, **change))
    assert text is not None and words in text and "\n" not in text


def test_changed_input_is_named(tmp_path: Path) -> None:
    old = make(tmp_path)
    (tmp_path / "a.glb").write_bytes(b"another avatar")
    text = compare(old, make(tmp_path))
    assert text is not None and "input avatar has changed" in text and "a.glb" in text


def test_unfinished_and_absent_results_are_not_reused(tmp_path: Path) -> None:
    assert compare(None, make(tmp_path)) is not None
    assert "did not finish" in (compare(make(tmp_path, finished=False), make(tmp_path)) or "")


def test_device_times_and_output_place_do_not_matter(tmp_path: Path) -> None:
    other = make(
        tmp_path, device="cuda", seconds={"total": 9.0}, config=config_as_dict(Config(output=Path("elsewhere")))
    )
    assert compare(make(tmp_path), other) is None


def test_folder_hash_sees_names_and_contents_but_not_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.txt").write_text("a")
    first = hash_folder(tmp_path / "x")
    (tmp_path / "x/manifest.json").write_text("{}")
    assert hash_folder(tmp_path / "x") == first
    (tmp_path / "x/a.txt").rename(tmp_path / "x/b.txt")
    second = hash_folder(tmp_path / "x")
    (tmp_path / "x/b.txt").write_text("b")
    assert len({first, second, hash_folder(tmp_path / "x")}) == 3


def test_capture_hash_ignores_landmarks(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text("{}")
    before = hash_path(tmp_path)
    (tmp_path / "landmarks2d").mkdir()
    (tmp_path / "landmarks2d/mediapipe.npz").write_bytes(b"x")
    assert hash_path(tmp_path) == before


def test_missing_input_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.glb"):
        hash_path(tmp_path / "nothing.glb")


def test_output_folder_rules(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new/deep")
    (tmp_path / "empty").mkdir()
    check_output_folder(tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("x")
    with pytest.raises(InputError, match="--force"):
        check_output_folder(tmp_path / "other")
    check_output_folder(tmp_path / "other", force=True)
    Manifest(stage="fit").write(tmp_path / "other")
    check_output_folder(tmp_path / "other")
    with pytest.raises(InputError, match="is a file"):
        check_output_folder(tmp_path / "other/file")


def test_interrupted_replacement_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with staged_folder(target) as folder:
        (folder / "a").write_text("old")
        make(tmp_path).write(folder)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), staged_folder(target) as folder:
        (folder / "a").write_text("new")
        make(tmp_path, version="2.0").write(folder)
        monkeypatch.setattr("os.rename", fail)
    monkeypatch.undo()
    assert "did not finish" in (compare(read_manifest(target), make(tmp_path)) or "")
    with staged_folder(target) as folder:
        (folder / "a").write_text("new")
        make(tmp_path, version="2.0").write(folder)
    assert (target / "a").read_text() == "new" and compare(read_manifest(target), make(tmp_path, version="2.0")) is None
