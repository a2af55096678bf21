"""Lens distortion: the picture that is left is that of the pinhole camera, by OpenCV's own formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flame_fitting.capture.lens import Lens, LensError, distort, make_lens, undistorted
from tests.capture.synthetic_folders import distorted_gradient, gradient, psnr, rig

WIDTH, HEIGHT = 96, 72
K = np.array([[110.0, 0, 50.0], [0, 108.0, 33.0], [0, 0, 1]])
LENSES = {
    "barrel": ("brown", (-0.25, 0.06, 0.0, 0.0, 0.0)),
    "pincushion": ("brown", (0.2, 0.05, 0.0, 0.0, 0.0)),
    "tangential": ("brown", (-0.1, 0.02, 0.004, -0.006, 0.01)),
    "rational": ("brown", (0.3, 0.1, 0.001, 0.0, 0.02, 0.5, 0.1, 0.01)),
    "fisheye": ("fisheye", (-0.02, 0.01, -0.003, 0.0)),
    "plain fisheye": ("fisheye", (0.0, 0.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("name", LENSES)
def test_the_undistorted_picture_is_that_of_the_pinhole_camera(name: str) -> None:
    lens = make_lens(*LENSES[name], K, WIDTH, HEIGHT)
    assert lens is not None
    camera = rig(3)[1]
    before = distorted_gradient(lens, camera, WIDTH, HEIGHT)
    truth = gradient(lens.K(WIDTH, HEIGHT), camera, WIDTH, HEIGHT)
    found = undistorted(before.astype(np.float32), lens)
    inner = np.s_[1:-1, 1:-1]
    assert psnr(found[inner], truth[inner]) > 50  # half a pixel off gives less than 45
    shifted = gradient(lens.K(WIDTH, HEIGHT) - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]), camera, WIDTH, HEIGHT)
    assert psnr(found[inner], truth[inner]) > psnr(found[inner], shifted[inner]) + 6


@settings(max_examples=40, deadline=None)
@given(
    k1=st.floats(-0.3, 0.3),
    k2=st.floats(-0.05, 0.05),
    p1=st.floats(-0.005, 0.005),
    p2=st.floats(-0.005, 0.005),
    cx=st.floats(0.4, 0.6),
)
def test_every_pixel_that_is_left_was_seen(k1: float, k2: float, p1: float, p2: float, cx: float) -> None:
    intrinsics = np.array([[1.2 * WIDTH, 0, cx * WIDTH], [0, 1.2 * WIDTH, 0.5 * HEIGHT], [0, 0, 1]])
    lens = make_lens("brown", (k1, k2, p1, p2), intrinsics, WIDTH, HEIGHT)
    if lens is None:
        assert max(map(abs, (k1, k2, p1, p2))) < 1e-9
        return
    x, y = np.meshgrid(np.linspace(0, 1, 25), np.linspace(0, 1, 19))
    points = np.stack([x, y], -1).reshape(-1, 2)
    seen = distort((points - lens.center) / (lens.zoom * np.array(lens.focal)), lens) * lens.focal + lens.center
    assert seen.min() > -1e-3 and seen.max() < 1 + 1e-3
    assert lens.zoom >= 1
    if lens.zoom > 1.001:  # no closer than is needed
        less = Lens(lens.model, lens.coefficients, lens.focal, lens.center, lens.zoom * 0.995)
        seen = distort((points - less.center) / (less.zoom * np.array(less.focal)), less) * less.focal + less.center
        assert seen.min() < 0 or seen.max() > 1


def test_the_lens_does_not_depend_on_the_size_of_the_picture() -> None:
    small = make_lens("brown", (-0.2, 0.03, 0.001, 0.002), K, WIDTH, HEIGHT)
    large = make_lens("brown", (-0.2, 0.03, 0.001, 0.002), np.diag([3.0, 3.0, 1.0]) @ K, 3 * WIDTH, 3 * HEIGHT)
    assert small is not None and large is not None
    np.testing.assert_allclose(large.K(WIDTH, HEIGHT), small.K(WIDTH, HEIGHT), atol=1e-6)


def test_no_distortion_is_no_lens() -> None:
    assert make_lens("brown", (0.0, 0.0, 0.0, 0.0), K, WIDTH, HEIGHT) is None
    assert make_lens("fisheye", (0.0, 0.0, 0.0, 0.0), K, WIDTH, HEIGHT) is not None


@pytest.mark.parametrize("coefficients", [(-3.0, 0.0, 0.0, 0.0), (np.nan, 0.0, 0.0, 0.0), (50.0, 0.0, 0.0, 0.0)])
def test_a_distortion_that_leaves_no_picture_is_refused(coefficients: tuple[float, ...]) -> None:
    with pytest.raises(LensError):
        make_lens("brown", coefficients, np.diag([0.4, 0.4, 1.0]) @ K, WIDTH, HEIGHT)
