"""The cut through the neck: one plane in space, whichever way a view looks, carried by the neck."""

import numpy as np
import pytest

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, unproject
from flame_fitting.capture.capture import View
from flame_fitting.export.neck_line import BLUR_FRACTION
from flame_fitting.export.neck_surface import NeckPlane, NeckSurface, keep_above
from flame_fitting.report.drawing import head_avatar
from tests.export.sequences import moving_fit, neck_head
from tests.toy import toy_head_data

SIZE = 120
K = intrinsics_from_fov(20.0, SIZE, SIZE)
VIEWS = [(yaw, pitch) for yaw in (0, 75, 180, 250) for pitch in (-50, -20, 0, 35, 70)]


def view_from(yaw: float, pitch: float, width: int = SIZE, height: int = SIZE) -> View:
    y, p = np.radians((yaw, pitch))
    eye = [np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)]
    camera = look_at(eye, [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    K_ = np.diag([width / SIZE, height / SIZE, 1.0]) @ K
    return View(0, 0, "fit", K_, camera, width, height, "none.png")


def still() -> tuple[NeckPlane, np.ndarray, np.ndarray]:
    head = neck_head()
    surface = NeckSurface(head, np.zeros(head.n_shape), np.zeros((1, head.n_vertices, 3)))
    return surface.at({}), head.v_template.double().numpy(), head.faces.numpy()


def depth_of(vertices: np.ndarray, view: View) -> np.ndarray:
    out = head_avatar(neck_head(), vertices).draw(
        view.K[None], view.world_to_camera[None], view.width, view.height, outputs=("depth",)
    )
    assert out.depth is not None
    return out.depth[0]


@pytest.mark.parametrize(("yaw", "pitch"), VIEWS)
def test_what_is_kept_lies_above_one_plane_in_every_view(yaw: float, pitch: float) -> None:
    """Of the surface that the view shows, all above the plane stays and all below goes, but for the blurred edge."""
    plane, vertices, faces = still()
    view = view_from(yaw, pitch)
    depth = depth_of(vertices, view)
    keep = keep_above(plane, view, depth, vertices, faces)
    rows, columns = np.nonzero(depth > 0)
    pixels = np.stack([columns + 0.5, rows + 0.5], axis=1)
    points = unproject(pixels, depth[rows, columns], view.K, view.world_to_camera)
    heights = (points - plane.center) @ plane.up
    kept = keep[rows, columns]
    # the edge is half of its width, and of the diagonal, to either side; seen obliquely it is longer on the surface
    radius = 0.75 * BLUR_FRACTION * SIZE + 1
    import cv2

    edge = np.zeros((SIZE, SIZE), np.uint8)
    edge[rows, columns] = heights > 0
    known = (depth > 0).astype(np.uint8)
    grown = np.ones((2 * int(radius) + 1,) * 2, np.uint8)
    near = cv2.dilate(edge, grown).astype(bool) & cv2.dilate(known * (1 - edge), grown).astype(bool)
    near |= cv2.dilate(1 - known, grown).astype(bool) & (np.abs(_image_heights(plane, view, depth)) < 0.03)
    sure = ~near[rows, columns]
    assert sure.sum() > 200
    np.testing.assert_allclose(kept[sure], (heights[sure] > 0).astype(float), atol=1e-3)


def _image_heights(plane: NeckPlane, view: View, depth: np.ndarray) -> np.ndarray:
    return plane.heights(depth.astype(np.float64), view.K, view.world_to_camera)


def test_heights_are_those_of_the_points() -> None:
    plane = NeckPlane(np.array([0.1, -0.2, 0.05]), np.array([0.6, 0.8, 0.0]))
    view = view_from(30, 20, 37, 53)
    depth = np.random.default_rng(0).uniform(0.5, 2, size=(53, 37))
    y, x = np.mgrid[:53, :37] + 0.5
    points = unproject(np.stack([x, y], -1).reshape(-1, 2), depth.reshape(-1), view.K, view.world_to_camera)
    expected = ((points - plane.center) @ plane.up).reshape(53, 37)
    np.testing.assert_allclose(_image_heights(plane, view, depth), expected, atol=1e-12)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (75, 0), (180, 0), (0, 35), (250, 35), (0, -20)])
def test_without_depth_the_fitted_head_decides_alike(yaw: float, pitch: float) -> None:
    plane, vertices, faces = still()
    view = view_from(yaw, pitch)
    depth = depth_of(vertices, view)
    one, other = (keep_above(plane, view, d, vertices, faces) for d in (depth, None))
    assert np.abs(one - other)[depth > 0].mean() < 0.01


def test_without_depth_large_pictures_are_cut_as_small_ones() -> None:
    plane, vertices, faces = still()
    small = keep_above(plane, view_from(20, 10), None, vertices, faces)
    large = keep_above(plane, view_from(20, 10, 5 * SIZE, 5 * SIZE), None, vertices, faces)
    mean = large.reshape(SIZE, 5, SIZE, 5).mean((1, 3))
    shown = depth_of(vertices, view_from(20, 10)) > 0
    assert np.abs(mean - small)[shown].max() < 0.3 and np.abs(mean - small).mean() < 0.01


@pytest.mark.parametrize(("yaw", "pitch"), VIEWS)
def test_the_share_that_is_lost_is_that_below_the_plane(yaw: float, pitch: float) -> None:
    """No view loses much more than what lies below the plane: the fault of a line in the picture."""
    plane, vertices, faces = still()
    view = view_from(yaw, pitch)
    depth = depth_of(vertices, view)
    lost = 1 - keep_above(plane, view, depth, vertices, faces)[depth > 0].mean()
    below = (_image_heights(plane, view, depth)[depth > 0] < 0).mean()
    assert lost == pytest.approx(below, abs=0.03)


def test_the_neck_carries_the_plane() -> None:
    """The neck's vertices keep their heights over the plane while the head turns, bows and wanders."""
    head = neck_head()
    fit = moving_fit(head, with_dynamic_offset=False)
    p = {**fit.parameters, "expr": np.zeros_like(fit.parameters["expr"]), "jaw_pose": np.zeros((5, 3))}
    fit.parameters = p
    surface = NeckSurface(head, p["shape"], p["static_offset"])
    ring = [int(head.regions[name][0]) for name in ("neck_left_point", "neck_right_point")]
    heights = []
    for t in range(5):
        plane = surface.at({key: p[key][t : t + 1] for key in ("rotation", "neck_pose", "translation")})
        heights.append((fit.of_rows([t]).vertices_head(head)[0][ring] - plane.center) @ plane.up)
        assert np.linalg.norm(plane.up) == pytest.approx(1)
    assert np.ptp(np.array(heights), axis=0).max() < 2e-3
    assert np.ptp([surface.at({"translation": p["translation"][t : t + 1]}).center for t in range(5)], 0).max() > 0.01


def test_a_camera_that_looks_away_keeps_its_picture() -> None:
    plane, vertices, faces = still()
    view = view_from(0, 0)
    away = View(0, 0, "fit", view.K, np.diag([-1.0, 1, -1, 1]) @ view.world_to_camera, SIZE, SIZE, "none.png")
    assert keep_above(plane, away, None, vertices, faces).min() == 1


def test_a_head_without_neck_points_has_no_surface() -> None:
    from flame_fitting.head.model import HeadModel

    data = toy_head_data()
    del data.regions["neck_left_point"]
    head = HeadModel(data)
    with pytest.raises(ValueError, match="no neck points"):
        NeckSurface(head, np.zeros(head.n_shape), np.zeros((1, head.n_vertices, 3)))


def test_what_does_not_count_runs_over_to_nothing() -> None:
    """The inside of a bust lies above the plane, just beside a rim that lies below it."""
    plane, vertices, faces = still()
    view = view_from(20, -10)
    depth = depth_of(vertices, view)
    keep = keep_above(plane, view, depth, vertices, faces)
    everything = np.ones_like(keep)
    np.testing.assert_allclose(keep_above(plane, view, depth, vertices, faces, everything), keep, atol=1e-6)
    below = (keep < 0.5).astype(np.float32)
    assert 0.1 < below.mean() < 0.9
    left = keep_above(plane, view, depth, vertices, faces, below)
    assert left[below == 0].max() == 0 and (left[below == 1] < 0.5).all() and left.mean() < 0.2 * (keep * below).mean()
