"""What --input may be, as VHAP takes it."""

from pathlib import Path

import pytest

from flame_fitting.errors import InputError
from flame_fitting.video.plates import find_plates
from flame_fitting.video.sources import Clip, find_sequence


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_video_and_its_name_alone(tmp_path: Path) -> None:
    touch(tmp_path / "obama.mp4")
    for given in ("obama.mp4", "obama"):
        found = find_sequence(tmp_path / given)
        assert found.folder == tmp_path / "obama"
        assert found.clips == (Clip(tmp_path / "obama.mp4", None, ""),)
    (tmp_path / "obama" / "images").mkdir(parents=True)  # after the first run
    assert find_sequence(tmp_path / "obama").clips == found.clips


@pytest.mark.parametrize("place", ["", "images"])
def test_a_rig(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "074" / "EMO-1"
    touch(folder / place / "cam_222.mp4", folder / place / "cam_111.mp4", folder / "notes.txt")
    found = find_sequence(folder)
    assert found.folder == folder
    assert [(clip.camera_id, clip.prefix) for clip in found.clips] == [("111", "cam_111_"), ("222", "cam_222_")]
    assert find_sequence(tmp_path / "074" / "EMO*") == found


def test_one_camera_has_no_prefix(tmp_path: Path) -> None:
    touch(tmp_path / "cam_1.mp4")
    assert find_sequence(tmp_path).clips == (Clip(tmp_path / "cam_1.mp4", "1", ""),)


def test_a_pattern_must_match_one_folder(tmp_path: Path) -> None:
    touch(tmp_path / "EMO-1" / "cam_1.mp4", tmp_path / "EMO-2" / "cam_1.mp4")
    with pytest.raises(InputError, match=r"matches 2: EMO-1, EMO-2"):
        find_sequence(tmp_path / "EMO-*")
    with pytest.raises(InputError, match="matches nothing"):
        find_sequence(tmp_path / "X*")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt", tmp_path / "empty" / "a.txt", tmp_path / "two" / "a.mp4", tmp_path / "two" / "b.mov")
    for name, said in (
        ("none", "no such file or folder"),
        ("a.txt", "not the name of a video"),
        ("empty", "no videos in it"),
        ("two", "several videos"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            find_sequence(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_backgrounds_by_camera(tmp_path: Path) -> None:
    folder = tmp_path / "074" / "EMO-1"
    touch(folder / "cam_1.mp4", folder / "cam_2.mp4")
    sequence = find_sequence(folder)
    with pytest.raises(InputError, match=r"no such folder.*selfie"):
        find_plates(sequence, Path("../../BACKGROUND"))
    touch(tmp_path / "074" / "BACKGROUND" / "image_1.jpg")
    with pytest.raises(InputError, match=r"image_2.jpg: no such file"):
        find_plates(sequence, Path("../../BACKGROUND"))
    touch(tmp_path / "074" / "BACKGROUND" / "image_2.png")
    found = find_plates(sequence, Path("../../BACKGROUND"))
    assert {camera: path.name for camera, path in found.items()} == {"1": "image_1.jpg", "2": "image_2.png"}
    assert found == find_plates(sequence, tmp_path / "074" / "BACKGROUND")
