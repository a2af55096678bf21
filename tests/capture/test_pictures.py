"""8 bits, colours by name, and another background."""

import numpy as np
import pytest
import torch

from flame_fitting.capture.pictures import parse_color, picture_as_uint8, replace_background, to_uint8
from flame_fitting.errors import InputError
from flame_fitting.fit.backgrounds import recomposite


def test_every_byte_survives_the_way_through_floats() -> None:
    every = np.arange(256, dtype=np.uint8)
    for kind in (np.float32, np.float64):
        np.testing.assert_array_equal(to_uint8(every.astype(kind) / 255), every)
    assert to_uint8(every) is every


def test_halves_are_rounded_up_or_to_even_and_what_is_out_of_range_is_clipped() -> None:
    halves = np.array([0.5, 1.5, 2.5, 2.49]) / 255
    np.testing.assert_array_equal(to_uint8(halves), [1, 2, 3, 2])
    np.testing.assert_array_equal(to_uint8(halves, "even"), [0, 2, 2, 2])
    np.testing.assert_array_equal(to_uint8(np.array([-0.1, 1.2]), "even"), [0, 255])
    np.testing.assert_array_equal(to_uint8(np.array([-0.1, 1.2])), [0, 255])


@pytest.mark.parametrize("batch", [(), (2,)])
def test_pictures_of_either_kind(batch: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*batch, 5, 4, 3)).astype(np.uint8)
    copy = picture_as_uint8(picture)
    assert copy is not picture and not np.shares_memory(copy, picture)
    np.testing.assert_array_equal(copy, picture)
    np.testing.assert_array_equal(picture_as_uint8(np.moveaxis(picture, -1, -3) / np.float32(255)), picture)
    with pytest.raises(ValueError, match="H, W, 3"):
        picture_as_uint8(np.moveaxis(picture, -1, -3))
    with pytest.raises(ValueError, match="3, H, W"):
        picture_as_uint8(picture / 255)


def test_the_old_background_goes() -> None:
    rng = np.random.default_rng(0)
    color, alpha = rng.random((3, 6, 5), dtype=np.float32), rng.random((6, 5), dtype=np.float32)
    red = (1.0, 0.0, 0.0)
    over_white = alpha * color + (1 - alpha)
    image, mask = replace_background(over_white, alpha, (1.0, 1.0, 1.0), red)
    np.testing.assert_allclose(image, alpha * color + (1 - alpha) * np.array(red)[:, None, None], atol=1e-6)
    np.testing.assert_array_equal(mask, alpha)
    assert image.dtype == np.float32
    # a fit does the same on its device
    rgba = torch.as_tensor(np.concatenate([over_white, alpha[None]]).transpose(1, 2, 0).copy())[None]
    out = torch.zeros(1, 6, 5, 4)
    recomposite(rgba, torch.ones(3), torch.tensor(red), out)
    np.testing.assert_allclose(out[0, ..., :3].permute(2, 0, 1).numpy(), image, atol=1e-6)


def test_what_is_cut_shows_the_new_background() -> None:
    image, alpha = np.full((2, 3, 4, 4), 0.25, np.float32), np.ones((2, 4, 4), np.float32)
    keep = np.ones((2, 4, 4), np.float32)
    keep[:, 2:] = 0
    cut, mask = replace_background(image, alpha, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), keep)
    np.testing.assert_array_equal(mask, keep)
    np.testing.assert_array_equal(
        cut[:, :, 2:], np.array([0, 1, 0])[None, :, None, None].repeat(2, 0) * np.ones((2, 4))
    )
    np.testing.assert_array_equal(cut[:, :, :2], 0.25)


def test_colors() -> None:
    for text, color in {"white": (1, 1, 1), "Black": (0, 0, 0), "255,0,51": (1, 0, 0.2), "0 255 0": (0, 1, 0)}.items():
        assert parse_color(text, "--background") == color
    for wrong in ("purple", "1,2", "300,0,0", "none", "nan,0,0"):
        with pytest.raises(InputError, match=f"--background {wrong}: must be"):
            parse_color(wrong, "--background")
