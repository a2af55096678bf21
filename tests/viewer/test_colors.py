"""Colours of distances and what a browser makes of colours, without one."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.tone_mapping import SHOWN_WHITE, mapped, shown_colors, shown_picture
from flame_fitting.capture.color_correction import linear_to_srgb, srgb_to_linear
from flame_fitting.report.error_maps import HIDDEN, TOP_MM
from flame_fitting.report.figures import colored
from flame_fitting.viewer import colors
from flame_fitting.viewer.opening import Viewed


def drawn_colors(paint: colors.Paint) -> np.ndarray:
    """sRGB 0..255 (V, 3) that a browser finds at the vertices of a painted head."""
    assert paint.picture is not None and paint.uv is not None
    picture = np.asarray(Image.open(io.BytesIO(paint.picture)))
    height, width = picture.shape[:2]
    column, row = (paint.uv * [width, height]).astype(int).T
    scene = srgb_to_linear(picture[height - 1 - row, column] / 255.0) * srgb_to_linear(np.array(SHOWN_WHITE[:3]))
    return (linear_to_srgb(mapped(scene)) * 255).round()


def test_distances_are_painted_as_in_the_report(viewed: Viewed) -> None:
    assert colors.modes_of(viewed) == ("texture", "plain", "distance to the avatar", "regions")
    found = colors.distances(viewed, 0)
    assert found is not None
    face = viewed.head.region_mask("face").numpy()
    error, seen = found
    # nothing of an ellipsoid hides the rest; a little of it is seen at flat angles alone
    assert seen[face].all() and seen.mean() > 0.98 and not seen.all()
    assert (error[face] < 0.3).mean() > 0.95  # the avatar is the fit
    drawn = drawn_colors(colors.distance_paint(error, seen))
    expected = np.where(seen[:, None], colored(error[None] / TOP_MM)[0], HIDDEN)
    off = np.abs(drawn - expected).max(axis=1)
    assert np.quantile(off, 0.9) <= 3 and off.max() <= 30  # a browser cannot make the purest yellow
    worse = replace(viewed.fit, parameters=dict(viewed.fit.parameters))
    worse.parameters["translation"] = worse.parameters["translation"] + [0.0, 0.0, TOP_MM / 1000]
    other = colors.distances(Viewed(worse, viewed.head, viewed.capture), 0)
    assert other is not None and np.median(other[0][face]) > 0.5 * TOP_MM
    assert colors.distances(Viewed(viewed.fit, viewed.head), 0) is None


def test_between_two_distances_colours_are_those_of_the_scale() -> None:
    """Not a mixture of the colours at both, such as purple between blue and red."""
    steps = np.linspace(0, TOP_MM, 200)
    drawn = drawn_colors(colors.distance_paint(steps, np.ones(200, dtype=bool)))
    off = np.abs(drawn - colored(steps[None] / TOP_MM)[0]).max(axis=1)
    assert np.quantile(off, 0.9) <= 8 and off.max() <= 30
    legend = colors.distance_legend()
    assert "#3c4bbe" in legend and "#a50a1e" in legend and f"{TOP_MM:g} or more" in legend
    assert colors.hidden_legend()[0] == "#969696"
    shades = colors.shading(Rotation.random(500, rng=np.random.default_rng(0)).as_matrix()[:, 0])
    assert shades.min() > 0.5 and shades.max() <= 1.0  # never brighter than the legend


def test_a_browser_s_tone_mapping_is_undone() -> None:
    assert (linear_to_srgb(mapped(srgb_to_linear(np.array([230, 20, 20]) / 255))) * 255).round().tolist() == [
        236,
        1,
        24,
    ]
    rng = np.random.default_rng(0)
    skin = np.array([0.8, 0.62, 0.52]) * rng.uniform(0.2, 1.1, size=(200, 1)) + rng.uniform(0, 0.05, size=(200, 3))
    seen = linear_to_srgb(mapped(srgb_to_linear(shown_colors(skin))))
    np.testing.assert_allclose(seen, skin, atol=0.01)
    picture = (skin * 255).round().astype(np.uint8).reshape(20, 10, 3)
    scene = srgb_to_linear(shown_picture(picture) / 255.0) * srgb_to_linear(np.array(SHOWN_WHITE[:3]))
    assert np.abs(linear_to_srgb(mapped(scene)) * 255 - picture).max() < 3
    alpha = np.concatenate([picture, picture[..., :1]], axis=2)
    np.testing.assert_array_equal(shown_picture(alpha)[..., 3], alpha[..., 3])
