"""What counts as agreement of two rasterizers: float32's rounding in slivers does, errors elsewhere do not."""

import numpy as np
import pytest

from tests.render.agreement import VALUE, disagreements, rounding
from tests.render.raster_scenes import Results

SIZE = 384


def picture_of(steep: float, share: float) -> Results:
    """One pixel on a triangle that is 1 / `steep` px wide, its change from pixel to pixel off by a `share`."""
    triangles, change = np.zeros((1, SIZE, SIZE)), np.zeros((1, SIZE, SIZE, 4))
    triangles[0, 70, 136] = 1
    change[0, 70, 136] = np.array([1.0, -0.3, -0.5, 0.1]) * steep * (1 + share)
    derivative = 0.01 * change
    return Results(triangles={"all": triangles}, pictures={"all/rast_db": change, "all/uv_da": derivative})


@pytest.mark.parametrize(
    ("steep", "share", "agrees"),
    [
        (757.0, 1.4e-4, True),  # nvdiffrast on the head at this size, where float32 promises no more than 9e-3
        (757.0, 0.02, False),
        (4.0, 1.4e-4, False),  # a quarter of a pixel is no sliver
        (4.0, 0.5e-4, True),
    ],
)
def test_rounding_counts_in_slivers_alone(steep: float, share: float, agrees: bool) -> None:
    expected, actual = picture_of(steep, 0.0), picture_of(steep, share)
    assert (disagreements(expected, actual, slivers=True) == []) == agrees
    if share > VALUE:
        assert disagreements(expected, actual)  # in double precision, as the CPU draws, there is no such rounding


def test_the_rounding_is_that_of_float32() -> None:
    rng, count = np.random.default_rng(0), 4000
    off = []
    for width in (0.1, 0.01, 1e-3):
        # two corners 12 px apart, the third so many pixels beside the line between them, seen from a pixel on it
        along, middle = rng.normal(size=(count, 2)), rng.uniform(0.3, 0.9, (count, 1, 2))
        along *= 12 / (SIZE / 2) / np.linalg.norm(along, axis=1, keepdims=True)
        aside = along[:, ::-1] * [1, -1] / 12 * width
        w = rng.uniform(0.6, 1.2, (count, 3, 1)).astype(np.float32)
        corners = w * (middle + np.stack([0 * along, along, 0.4 * along + aside], axis=1)).astype(np.float32)
        pixel = (middle + 0.3 * along[:, None]).astype(np.float32)
        areas = []
        for kind in (np.float32, np.float64):
            moved = corners.astype(kind) - pixel.astype(kind) * w.astype(kind)
            (ax, ay), (bx, by), (cx, cy) = np.moveaxis(moved, 0, -1)
            areas.append((bx * cy - by * cx) + (cx * ay - cy * ax) + (ax * by - ay * bx))
        share = np.abs(areas[0] / areas[1] - 1)
        bound = float(rounding(np.array(1 / width), (SIZE, SIZE)))
        assert 0.5 * bound < np.percentile(share, 95) < 2 * bound
        off.append(np.median(share))
    np.testing.assert_allclose(np.diff(np.log10(off)), 1.0, atol=0.2)  # ten times thinner, ten times less exact
