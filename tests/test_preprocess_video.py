"""`preprocess` as a command: VHAP's folders, warnings, going on after a kill, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flame_fitting import cli
from flame_fitting.errors import InputError
from flame_fitting.video import writing
from flame_fitting.video.clips import write_clip
from flame_fitting.video.decoding import TimedFrame, VideoFile
from flame_fitting.video.matting import Matting
from flame_fitting.video.sources import Clip
from tests.video.making import number_in, numbered, times_at, write_video
from tests.video.test_torch_matting import Differing, Recurrent, saved


def run(*arguments: str | Path) -> int:
    return cli.main(["preprocess", *map(str, arguments)])


def files(folder: Path) -> dict[str, bytes]:
    """Every picture below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".jpg", ".png")
    }


def picture(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def test_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "obama.mp4", times_at(50, 30), rate=50)
    assert run("--input", tmp_path / "obama", "--downsample_scales", "2", "4") == 0
    folder = tmp_path / "obama"
    names = [f"{n:06d}.jpg" for n in range(15)]
    for name, size in (("images", (64, 96)), ("images_2", (32, 48)), ("images_4", (16, 24))):
        assert sorted(path.name for path in (folder / name).iterdir()) == names
        assert picture(folder / name / names[3]).shape[:2] == size
    assert not (folder / "alpha_maps").exists()
    shown = [number_in(picture(folder / "images" / name)) for name in names]
    assert shown[0] == 0
    assert all(step in (1, 2, 3) for step in np.diff(shown))
    assert (shown[-1] - shown[0]) == pytest.approx(28, abs=1)
    said = capsys.readouterr().err
    assert "no face was found in any of 12" in said, "these pictures have none"
    assert "15 pictures of 1 video(s)" in said
    record = json.loads((folder / "manifest.json").read_text())
    assert record["finished"] is True
    assert record["inputs"][video.name]["path"] == "../obama.mp4"
    assert (folder / "log.txt").is_file()
    assert run("--input", video, "--strict", "--downsample-scales", "4", "2") == 3
    assert "all there already" in capsys.readouterr().err


def test_a_script_of_the_clone_takes_the_same(repository: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", times_at(25, 3))
    command = [sys.executable, "flame_fitting/preprocess_video.py", "--input", str(tmp_path / "a.mp4")]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(files(tmp_path / "a")) == 3


def test_a_rig_with_backgrounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "074" / "EMO-1"
    (tmp_path / "074" / "BACKGROUND").mkdir(parents=True)
    folder.mkdir()
    for camera, count in (("11", 6), ("22", 5)):
        plate = np.full((64, 96, 3), 90, np.uint8)
        cv2.imwrite(str(tmp_path / "074" / "BACKGROUND" / f"image_{camera}.jpg"), plate)
        pictures = [plate.copy() for _ in range(count)]
        for number, made in enumerate(pictures):
            made[20:40, 10 + 4 * number : 40 + 4 * number] = 230
        write_video(folder / f"cam_{camera}.mp4", times_at(25, count), pictures)
    weights = saved(Differing(), tmp_path / "bgm.pth")
    arguments = ["--input", folder, "--matting_method", "background_matting_v2", "--matting-weights", weights]
    assert run(*arguments, "--device", "cpu") == 0
    assert set(files(folder / "images")) == {
        *(f"cam_11_{n:06d}.jpg" for n in range(6)),
        *(f"cam_22_{n:06d}.jpg" for n in range(5)),
    }
    assert {Path(name).stem for name in files(folder / "alpha_maps")} == {
        Path(name).stem for name in files(folder / "images")
    }
    alpha = cv2.imread(str(folder / "alpha_maps" / "cam_22_000002.png"), cv2.IMREAD_UNCHANGED)
    assert alpha.shape == (64, 96)
    assert alpha.dtype == np.uint8
    assert alpha[30, 30] == 255
    assert alpha[5, 5] == 0
    assert "not equally long (5 to 6 pictures)" in capsys.readouterr().err


def test_offline_the_method_that_works_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*args: object, **named: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", nothing)
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    video = write_video(tmp_path / "a.mp4", times_at(25, 3))
    assert run("--input", video, "--matting-method", "robust_video_matting") == 2
    assert "--matting-method selfie" in capsys.readouterr().err
    assert not (tmp_path / "a").exists(), "nothing is left"


class Stopped(BaseException):
    """A kill."""


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The process dies when it has written so many files, in the middle of the next one."""
    left = [count]
    real = writing._write

    def dying(paths: list[Path], *rest: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            partial = paths[0].parent / f".{paths[0].stem}{writing.PARTIAL_MARK}xyz{paths[0].suffix}"
            partial.parent.mkdir(exist_ok=True)
            partial.write_bytes(b"half")
            raise Stopped
        real(paths, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "_write", dying)


@pytest.mark.parametrize("count", [0, 7, 30])
def test_a_killed_run_goes_on_and_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(15, 12), rate=15)
    weights = saved(Recurrent(), tmp_path / "rvm.torchscript")
    arguments = ["--input", video, "--downsample-scales", "2", "--matting-method", "robust_video_matting"]
    arguments += ["--matting-weights", str(weights), "--device", "cpu"]
    assert run(*arguments) == 0
    expected = files(tmp_path / "a")
    assert len(expected) == 3 * 20
    (tmp_path / "a").rename(tmp_path / "whole")

    with monkeypatch.context() as patch:
        stop_after(patch, count)
        with pytest.raises(Stopped):
            run(*arguments)
    begun = files(tmp_path / "a")
    assert 0 < len(begun) < len(expected) + 2
    kept = {name: os.stat(tmp_path / "a" / name).st_mtime_ns for name in begun if not Path(name).name.startswith(".")}
    assert run(*arguments) == 0
    assert files(tmp_path / "a") == expected
    assert all(os.stat(tmp_path / "a" / name).st_mtime_ns == then for name, then in kept.items())


@pytest.mark.parametrize("count", [0, 5])
def test_ctrl_c_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 12))
    monkeypatch.setattr(sys.modules[__name__], "Stopped", KeyboardInterrupt)
    stop_after(monkeypatch, count)
    assert run("--input", video) == 130
    there = sum(not name.split("/")[-1].startswith(".") for name in files(tmp_path / "a" / "images"))
    said = f"stopped. {there} pictures in {tmp_path / 'a' / 'images'} are kept." if count else "stopped. Nothing has"
    assert said in capsys.readouterr().err and there >= count


def test_a_changed_video_or_option_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 9))
    assert run("--input", video, "--downsample-scales", "2") == 0
    (tmp_path / "a" / "landmark2d").mkdir()
    assert run("--input", video, "--target-fps", "10") == 0
    assert len(files(tmp_path / "a" / "images")) == 4, "none of the longer run is left"
    assert not (tmp_path / "a" / "images_2").exists()
    said = capsys.readouterr().err
    assert "target_fps 25.0 -> 10.0" in said
    assert "landmark2d: its landmarks are those of earlier pictures" in said
    write_video(video, times_at(25, 5), [numbered(99)] * 5)
    assert run("--input", video, "--target-fps", "10") == 0
    assert "a.mp4 has changed" in capsys.readouterr().err
    assert number_in(picture(tmp_path / "a" / "images" / "000000.jpg")) == 99


def test_pictures_of_somebody_else_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 3))
    own = tmp_path / "a" / "images" / "000002.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    assert run("--input", video) == 2
    assert "add --force" in capsys.readouterr().err
    assert files(tmp_path / "a") == {"images/000002.jpg": b"mine"}
    assert run("--input", video, "--force") == 0
    assert own.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target-fps", "0"], "--target-fps 0"),
        (["--downsample-scales", "1"], "--downsample-scales 1"),
        (["--downsample-scales", "100"], "next to nothing is left of 96x64 px"),
        (["--matting-method", "selfie", "--matting-weights", "x.pth"], "selfie comes with its own"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 3))
    assert run("--input", video, *flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--downsample-scales", "1000"],
        ["--matting-method", "robust_video_matting", "--matting-weights", "none.pth"],
        ["--matting-method", "background_matting_v2", "--background-folder", "nowhere"],
    ],
)
def test_what_cannot_be_done_clears_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 3))
    assert run("--input", video) == 0
    before = files(tmp_path / "a") | {"manifest.json": (tmp_path / "a" / "manifest.json").read_bytes()}
    assert len(before) == 4
    capsys.readouterr()
    for force in ([], ["--force"]):
        assert run("--input", video, *flags, *force) == 2
        assert "starting over" not in capsys.readouterr().err
        after = files(tmp_path / "a") | {"manifest.json": (tmp_path / "a" / "manifest.json").read_bytes()}
        assert after == before


def test_a_video_that_became_unreadable_clears_nothing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 3))
    assert run("--input", video) == 0
    before = files(tmp_path / "a")
    video.write_bytes(video.read_bytes()[:300])
    assert run("--input", video) == 2
    assert files(tmp_path / "a") == before


@pytest.mark.parametrize("content", ["text", "empty", "cut", "a size that changes"])
def test_nothing_is_left_of_a_video_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    video = write_video(tmp_path / "a.mp4", times_at(25, 30))
    whole = video.read_bytes()
    if content == "a size that changes":  # found only in the middle, when pictures were written
        real = VideoFile.frames

        def frames(self: VideoFile) -> Iterator[TimedFrame]:
            for number, frame in enumerate(real(self)):
                if number == 20:
                    raise InputError(f"{self.path}: the size of its pictures changes")
                yield frame

        monkeypatch.setattr(VideoFile, "frames", frames)
    else:
        video.write_bytes({"text": b"no video\n", "empty": b"", "cut": whole[: len(whole) // 2]}[content])
    assert run("--input", video) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    said = capsys.readouterr().err
    assert str(video) in said and "Errno" not in said


def test_an_input_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--input", "") == 2
    assert "--input: is empty" in capsys.readouterr().err


def test_what_all_cameras_see_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    shot = np.kron(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
    (tmp_path / "rig").mkdir()
    for camera in ("1", "2"):
        pictures = [*[shot] * 10, np.zeros((72, 96, 3), np.uint8), *[shot] * 4]
        write_video(tmp_path / "rig" / f"cam_{camera}.mp4", times_at(25, 15), pictures)
    assert run("--input", tmp_path / "rig") == 0
    said = capsys.readouterr().err
    assert said.count("blank") == 1 and "cam_1.mp4, cam_2.mp4: blank (one colour) at picture 10:" in said
    assert "the shot changes" not in said


def test_what_spoils_tracking_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    shots = [np.kron(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8)) for _ in range(2)]
    pictures = [np.zeros((72, 96, 3), np.uint8), *[shots[0]] * 9, *[shots[1]] * 9]
    times = [*times_at(25, 15), *times_at(25, 4, start=1150)]
    write_video(tmp_path / "a.mp4", times, pictures)
    assert run("--input", tmp_path / "a.mp4") == 0
    said = capsys.readouterr().err
    assert "the first picture is blank" in said
    assert "the shot changes at picture 10:" in said
    assert "gaps of up to 590 ms" in said
    assert "no face was found" in said


class Counting(Matting):
    """Keeps nothing, and counts how many pictures it holds."""

    lookback = 0

    def push(self, tag: object, picture: np.ndarray) -> list:
        return [(tag, picture[..., 0])]


@pytest.mark.parametrize("count", [30, 120])
def test_few_pictures_are_held_however_long_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    most = [0]
    real = writing.PictureWriter._submit

    def counting(self: writing.PictureWriter, job: object) -> None:
        real(self, job)  # type: ignore[arg-type]
        most[0] = max(most[0], len(self._waiting))

    monkeypatch.setattr(writing.PictureWriter, "_submit", counting)
    video = write_video(tmp_path / "a.mp4", times_at(25, count), [numbered(n % 256) for n in range(count)])
    done = write_clip(Clip(video, None, ""), tmp_path / "out", Fraction(25), (), Counting(), 2, "a")
    assert done.pictures == count
    assert most[0] <= 4


def test_torch_is_not_needed_for_pictures_alone(tmp_path: Path) -> None:
    assert torch is not None
    write_video(tmp_path / "a.mp4", times_at(25, 3))
    code = (
        "import sys; from flame_fitting.preprocess_video import PreprocessConfig, preprocess\n"
        f"preprocess(PreprocessConfig(input={str(tmp_path / 'a.mp4')!r}))\n"
        "assert not {'torch', 'pymatting', 'ai_edge_litert'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
