"""Corners followed through pictures that move as is known, under what hides them, and where there are none."""

import cv2
import numpy as np

from flame_fitting.fit.feature_tracks import follow

SIZE, STEP = (120, 160), np.array([1.3, -0.7])
"""px (height, width), and from a picture to the next (x, y)."""


def moved_pictures(count: int) -> np.ndarray:
    """(T, H, W) of one random pattern that moves by `STEP`."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    pattern = cv2.GaussianBlur(rng.uniform(0, 255, (height + 60, width + 60)).astype(np.float32), (0, 0), 1.5)
    pattern = 128 + 4 * (pattern - pattern.mean())
    out = []
    for number in range(count):
        x, y = 30 - number * STEP
        shifted = cv2.warpAffine(pattern, np.array([[1, 0, -x], [0, 1, -y]]), (width, height), flags=cv2.INTER_CUBIC)
        out.append(np.clip(shifted, 0, 255).round().astype(np.uint8))
    return np.stack(out)


def test_corners_are_followed_both_ways_to_a_tenth_of_a_pixel() -> None:
    pictures = moved_pictures(9)
    inside = np.zeros(SIZE, dtype=bool)
    inside[30:90, 30:130] = True
    (found,) = follow(pictures, {4: inside}, 40)
    assert found.anchor == 4 and 20 <= len(found.start) <= 40
    assert inside[tuple(np.floor(found.start).astype(int).T[::-1])].all()
    expected = found.start + (np.arange(9) - 4)[:, None, None] * STEP
    error = np.linalg.norm(found.place - expected, axis=-1)
    assert np.isfinite(error).mean() > 0.9
    assert np.nanmedian(error) < 0.05 and np.nanmax(error) < 0.3


def test_what_is_hidden_is_lost_from_there_on_and_not_before() -> None:
    pictures = moved_pictures(8)
    pictures[5, :, 80:] = 128
    (found,) = follow(pictures, {2: np.ones(SIZE, dtype=bool)}, 60)
    hidden = found.start[:, 0] + 3 * STEP[0] > 80 + 12
    assert hidden.sum() > 10
    assert np.isnan(found.place[5:, hidden]).mean() > 0.95
    assert np.isfinite(found.place[:5, hidden]).mean() > 0.8
    aside = found.start[:, 0] < 60
    assert np.isfinite(found.place[5:, aside]).mean() > 0.7


def test_pictures_without_corners_have_no_tracks() -> None:
    pictures = moved_pictures(3)
    pictures[1] = 90
    nowhere, everywhere = np.zeros(SIZE, dtype=bool), np.ones(SIZE, dtype=bool)
    assert [one.anchor for one in follow(pictures, {0: nowhere, 1: everywhere, 2: everywhere}, 20)] == [2]
