"""Pictures on the disk: as good as asked, whole or not at all."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.video import writing
from flame_fitting.video.writing import PictureWriter


def natural(height: int = 97, width: int = 131, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def write(root: Path, numbers: range, picture: np.ndarray, scales: tuple[int, ...] = (), prefix: str = "") -> None:
    writer = PictureWriter(root, prefix, scales, workers=2)
    writer.picture(numbers, picture)
    writer.close()


def test_names_sizes_and_quality(tmp_path: Path) -> None:
    picture = natural(96, 132)
    write(tmp_path, range(7, 10), picture, (2, 4), "cam_222_")
    names = [f"cam_222_{n:06d}.jpg" for n in (7, 8, 9)]
    for folder, size in (("images", (96, 132)), ("images_2", (48, 66)), ("images_4", (24, 33))):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
        assert read(tmp_path / folder / names[0]).shape[:2] == size
    found = read(tmp_path / "images" / names[1]).astype(float)
    assert 10 * np.log10(255**2 / np.mean((found - picture) ** 2)) > 45
    halves = picture.reshape(48, 2, 66, 2, 3).mean((1, 3))
    reduced = read(tmp_path / "images_2" / names[0]).astype(float)
    assert np.abs(reduced - halves).mean() < 1.5


def test_odd_sizes_are_rounded_down(tmp_path: Path) -> None:
    write(tmp_path, range(1), natural(97, 131), (2, 4))
    assert read(tmp_path / "images_2" / "000000.jpg").shape == (48, 65, 3)
    assert read(tmp_path / "images_4" / "000000.jpg").shape == (24, 32, 3)


def test_alpha_is_lossless(tmp_path: Path) -> None:
    alpha = np.random.default_rng(0).integers(0, 255, (33, 47), dtype=np.uint8)
    writer = PictureWriter(tmp_path, "", (), 1)
    writer.alpha(range(2), alpha)
    writer.close()
    for name in ("000000.png", "000001.png"):
        found = cv2.imread(str(tmp_path / "alpha_maps" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, alpha)


def test_what_is_there_stays(tmp_path: Path) -> None:
    write(tmp_path, range(2), natural(seed=1))
    (tmp_path / "images" / "000001.jpg").unlink()
    before = (tmp_path / "images" / "000000.jpg").read_bytes()
    write(tmp_path, range(2), natural(seed=2))
    assert (tmp_path / "images" / "000000.jpg").read_bytes() == before
    assert (tmp_path / "images" / "000001.jpg").read_bytes() != before


def test_an_error_in_the_background_is_raised(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("in the way")
    writer = PictureWriter(tmp_path, "", (), 1)
    writer.picture(range(1), natural())
    with pytest.raises(FileExistsError):
        writer.close()


def test_scales_that_leave_next_to_nothing_are_refused() -> None:
    writing.check_scales((2, 6), 131, 97)
    with pytest.raises(InputError, match="--downsample-scales 8: next to nothing is left of 131x97 px"):
        writing.check_scales((2, 8), 131, 97)


def test_only_pictures_of_ours_are_removed(tmp_path: Path) -> None:
    write(tmp_path, range(2), natural(), (2,))
    (tmp_path / "images" / "cam_1.mp4").touch()
    (tmp_path / "images" / f".000002{writing.PARTIAL_MARK}abc.jpg").touch()
    writing.remove_partial(tmp_path)
    writing.remove_pictures(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["images"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["cam_1.mp4"]
