"""VHAP's folder of one video: frames, alpha, reduced pictures, and the camera that nothing is known of."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.camera import project
from flame_fitting.capture.opening import open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from tests.capture.synthetic_folders import disc, monocular, write_picture


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_frames_and_alpha_are_read_whole(tmp_path: Path, suffix: str) -> None:
    capture = open_capture(monocular(tmp_path / "obama", suffix=suffix))
    assert (capture.kind, capture.calibrated, capture.composited) == ("monocular", False, False)
    assert [view.timestep_id for view in capture.views] == [f"{t:06d}" for t in range(5)]
    assert capture.timesteps == [0, 1, 2, 3, 4] and capture.cameras == [0] and capture.notes == ()
    for view in capture.views:
        image, alpha = capture.image_and_alpha(view)
        assert image.shape == (3, 32, 48)
        np.testing.assert_allclose(image, 0.1 + 0.1 * view.timestep, atol=0.01)
        np.testing.assert_allclose(alpha, disc(48, 32), atol=0.05)


def test_the_unknown_camera_is_vhap_s(tmp_path: Path) -> None:
    view = open_capture(monocular(tmp_path / "obama")).views[0]
    np.testing.assert_allclose(view.K, [[72, 0, 24], [0, 72, 16], [0, 0, 1]])
    # it stands at (0, 0, 1), +x is right in its picture, +y up
    points = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    expected = [[24, 16, 1], [24 + 7.2, 16, 1], [24, 16 - 7.2, 1]]
    np.testing.assert_allclose(project(points, view.K, view.world_to_camera), expected, atol=1e-9)


@pytest.mark.parametrize("with_folder", [True, False])
def test_reduced_pictures_keep_borders_and_full_size(tmp_path: Path, with_folder: bool) -> None:
    root = monocular(tmp_path / "obama", size=(50, 34))
    if with_folder:
        for step in range(5):
            write_picture(root / "images_4" / f"{step:06d}.png", np.full((8, 12, 3), 0.9 - 0.1 * step))
    capture = open_capture(root, ReadOptions(n_downsample_rgb=4))
    for view in capture.views:
        assert (view.width, view.height) == (12, 8) and view.full_size == (50, 34)
        np.testing.assert_allclose(view.K[:2], [[75 * 12 / 50, 0, 6], [0, 75 * 8 / 34, 4]])
        expected = 0.9 - 0.1 * view.timestep if with_folder else 0.1 + 0.1 * view.timestep
        np.testing.assert_allclose(capture.image(view), expected, atol=0.01)
        assert capture.alpha(view).shape == (8, 12)
        assert abs(capture.alpha(view).mean() - disc(50, 34).mean()) < 0.01


def test_only_reduced_pictures(tmp_path: Path) -> None:
    for step in range(2):
        write_picture(tmp_path / "obama" / "images_2" / f"{step:06d}.jpg", np.full((16, 24, 3), 0.4))
    view = open_capture(tmp_path / "obama", ReadOptions(n_downsample_rgb=2)).views[1]
    assert (view.width, view.height, view.full_size) == (24, 16, (48, 32))
    assert view.K[0, 0] == pytest.approx(36)
    with pytest.raises(InputError, match="images: has no pictures"):
        open_capture(tmp_path / "obama")


def test_a_reduced_folder_that_lacks_a_frame_or_has_another_size_is_named(tmp_path: Path) -> None:
    root = monocular(tmp_path / "obama", steps=2)
    write_picture(root / "images_2" / "000000.jpg", np.zeros((16, 24, 3)))
    with pytest.raises(InputError, match="images_2: has no picture 000001"):
        open_capture(root, ReadOptions(n_downsample_rgb=2))
    for step in range(2):
        write_picture(root / "images_2" / f"{step:06d}.jpg", np.zeros((32, 24, 3)))
    with pytest.raises(InputError, match=r"24 x 32.*not 2 times as large"):
        open_capture(root, ReadOptions(n_downsample_rgb=2))


def test_missing_alpha_is_said(tmp_path: Path) -> None:
    root = monocular(tmp_path / "obama")
    (root / "alpha_maps" / "000003.jpg").unlink()
    capture = open_capture(root, ReadOptions(background_color="white"))
    assert any("1 of 5 pictures have no alpha map" in note for note in capture.notes)
    assert [view.mask_path is None for view in capture.views] == [False, False, False, True, False]
    assert capture.image(capture.views[3]).max() < 0.5  # its background stays
    assert capture.image(capture.views[2])[:, 0, 0].min() == 1.0


def test_a_frame_of_another_size_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = monocular(tmp_path / "obama")
    write_picture(root / "images" / "000002.jpg", np.zeros((10, 10, 3)))
    capture = open_capture(root)
    with pytest.raises(InputError, match=r"000002\.jpg: is 10 x 10, other pictures"):
        capture.image(capture.views[2])
