"""No command writes over what it reads, nor, unless it is forced, over the result of another stage."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flame_fitting import cli
from flame_fitting.errors import InputError
from flame_fitting.folders import check_apart, locked_folder
from flame_fitting.manifest import Manifest, read_manifest
from tests.synthetic import known_fit, render_case, save_case
from tests.toy import toy_head


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture O/render and its fit O/fit."""
    folder = tmp_path_factory.mktemp("made") / "O"
    head = toy_head()
    fit = known_fit(head, np.eye(4))
    capture = render_case(folder, head, fit, n_fit=2, n_heldout=1, size=32)
    save_case(folder / "fit", fit, capture)
    Manifest(stage="render", finished=True).write(capture.root)
    assert capture.root == folder / "render"
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "O"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        "export --src-folder O/fit --tgt-folder O/fit",
        "export --src-folder O/fit --tgt-folder O/fit/inside/export",
        "export --src-folder O/fit --tgt-folder O",
        "export --src-folder O --tgt-folder O",
        "export --src-folder O/fit --capture-folder O/render --tgt-folder O/render",
        "export --src-folder O/fit --capture-folder O/render --tgt-folder O/render/images",
        "export --src-folder O/fit --capture-folder O/render --tgt-folder O/link",
        "fit O/render --output O/render",
        "fit O/render --output O/render/fit",
        "fit O/render --exp.output-folder O",
        "fit O/render --output O/fit --model.flame-params-path O/fit",
        "convert O/fit --output O/fit --to vhap",
        "convert O/fit --output O/fit/inside --to vhap",
        "convert O/fit --output O/fit/tracked_flame_params.npz --to vhap",
        "convert O --output O --to vhap",
        "combine --src-folders O/export O/fit --tgt-folder O/export",
        "combine --src-folders O/export --tgt-folder O/export/union --copy-images",
        "combine --src-folders O/export --tgt-folder O --copy-images",
        "render O/a.obj --output O",
    ],
)
def test_what_is_read_is_not_written_over(
    command: str, force: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "link").symlink_to(folder / "render")
    (folder / "a.obj").write_text("v 0 0 0\n")
    (folder / "export").mkdir()
    before = snapshot(folder)
    words = [word.replace("O", str(folder), 1) if word[0] == "O" else word for word in command.split()]
    assert cli.main([*words, *(["--force"] if force else [])]) == 2
    said = capsys.readouterr().err
    assert "this command reads" in said and "Choose an output folder outside of it" in said
    assert snapshot(folder) == before


def test_the_result_of_another_stage_is_refused_unless_forced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "nersemble" / "EMO-1"
    (other / "images").mkdir(parents=True)
    (other / "images" / "cam_1_000000.jpg").write_bytes(b"a picture")
    Manifest(stage="preprocess", finished=True).write(other)
    before = snapshot(folder)
    for command in (
        ["export", "--src-folder", folder / "fit", "--tgt-folder", other],
        ["convert", folder / "fit", "--output", other, "--to", "vhap"],
        ["fit", folder / "render", "--output", other],
        ["make-demo-avatar", "--output", other],
        ["combine", "--src-folders", folder / "fit", "--tgt-folder", other],
    ):
        assert cli.main([str(word) for word in command]) == 2
        said = capsys.readouterr().err
        assert f"{other}: holds the result of 'preprocess'" in said and "--force" in said
        assert snapshot(folder) == before
    again = ["convert", str(folder / "fit"), "--output", str(other), "--to", "vhap"]
    assert cli.main([*again, "--force"]) == 0
    held = read_manifest(other)
    assert held is not None and held.stage == "convert"
    assert cli.main(again) == 0


def test_run_does_not_take_another_stage_s_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    avatar = folder.parent / "a.obj"
    avatar.write_text("v 0 0 0\n")
    before = snapshot(folder)
    assert cli.main(["run", str(avatar), "--output", str(folder / "render")]) == 2
    assert "holds the result of 'render', and 'run' would write over it" in capsys.readouterr().err
    Manifest(stage="export").write(folder / "fit")
    assert cli.main(["run", str(avatar), "--output", str(folder)]) == 2  # a stage's place within the chain's
    assert "holds the result of 'export', and 'fit' would write over it" in capsys.readouterr().err
    (folder / "fit" / "manifest.json").unlink()
    assert {name: data for name, data in snapshot(folder).items() if name in before} == {
        name: data for name, data in before.items() if name != "fit/manifest.json"
    }


def test_folders_beside_each_other_and_files_in_other_folders_are_apart(tmp_path: Path) -> None:
    check_apart(tmp_path / "render_fit", [tmp_path / "render", None, tmp_path / "fit"])
    check_apart(tmp_path / "out", [tmp_path / "out.npz"])
    with pytest.raises(InputError, match="contains"):
        check_apart(tmp_path / "out", [tmp_path / "out" / "a.npz"])


def test_where_no_file_can_be_made_the_system_s_words_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in /proc, where opening a new file says that there is none."""
    import os

    real = os.open

    def opened(path: str | os.PathLike, *rest: int) -> int:
        if str(path).endswith(".out.lock"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, *rest)

    monkeypatch.setattr("flame_fitting.folders.os.open", opened)
    said = r"out: cannot be written \(No such file or directory\)"
    with pytest.raises(InputError, match=said), locked_folder(tmp_path / "out"):
        pass


def test_a_folder_without_a_fit_says_where_fits_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("074_EMO-1/2024-01-01_10-00-00", "074_EMO-2/fit"):
        (tmp_path / "track" / run).mkdir(parents=True)
        (tmp_path / "track" / run / "tracked_flame_params.npz").touch()
    for place, said in (("track", "074_EMO-1/2024-01-01_10-00-00, 074_EMO-2/fit"), ("none", "none: no such folder")):
        assert cli.main(["export", "--src-folder", str(tmp_path / place), "--tgt-folder", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
