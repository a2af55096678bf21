"""The pictures of a fit: loaded, reduced and brought to one size without moving anything in them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import (
    clip_from_world,
    intrinsics_from_fov,
    look_at,
    move_camera,
    project,
    transform_points,
)
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.capture.pictures import write_png
from flame_fitting.errors import InputError
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.pictures import load_pictures
from flame_fitting.fit.rendering import HeadRenderer
from flame_fitting.fit.views import ViewSet, area_resized, common_size
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.mesh import clip_positions
from flame_fitting.report.drawing import head_avatar
from tests.fit.pictures import draw, plates, smooth_texture
from tests.synthetic import similarity
from tests.toy import toy_head

SIZES = [(96, 96), (128, 128), (160, 120), (128, 128), (128, 128)]
"""(W, H) px of the views of `capture_of_sizes`."""


def places_by_clip(views: ViewSet, points: np.ndarray) -> np.ndarray:
    """(B, N, 2) px where the fit draws points (N, 3) of the reference frame."""
    clipped = clip_positions(torch.as_tensor(points, dtype=torch.float32)[None], views.clip).double().numpy()
    height, width = views.resolution
    return (clipped[..., :2] / clipped[..., 3:] + 1) / 2 * [width, height]


def spots(places: np.ndarray, width: int, height: int, sigma: float) -> np.ndarray:
    """(N, H, W) soft spots around places (N, 2) px, exact at pixel centres."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    across = np.exp(-0.5 * ((x - places[:, :1]) / sigma) ** 2)
    down = np.exp(-0.5 * ((y - places[:, 1:]) / sigma) ** 2)
    return down[:, :, None] * across[:, None, :]


def middle_of(picture: np.ndarray) -> np.ndarray:
    """Centroid (x, y) of a picture (h, w), px."""
    y, x = np.indices(picture.shape) + 0.5
    return np.array([(x * picture).sum(), (y * picture).sum()]) / picture.sum()


def one_view(width: int, height: int) -> ViewSet:
    """An empty view that looks at the origin from the front, off its picture's middle."""
    view = draw(toy_head(), np.asarray(toy_head().v_template), None, [(0.1, 0.05, 0.9)], 16).views[0]
    K = intrinsics_from_fov(20.0, width, height) + np.array([[0, 0, 7.0], [0, 0, -3.0], [0, 0, 0]])
    view = replace(view, K=K, width=width, height=height)
    clip = clip_from_world(K, view.world_to_camera, width, height, 0.3, 2.0)
    return ViewSet(
        [view],
        torch.zeros(1, height, width, 4),
        torch.as_tensor(clip, dtype=torch.float32)[None],
        K[None],
        view.world_to_camera[None],
        torch.zeros(1, dtype=torch.long),
    )


@pytest.mark.parametrize(("width", "height"), [(800, 800), (800, 600), (500, 301)])
@pytest.mark.parametrize("factor", [2, 3, 7])
def test_reduced_pictures_show_things_where_they_are_projected(width: int, height: int, factor: int) -> None:
    views = one_view(width, height)
    points = np.array([[0.11, 0.09, 0.02], [-0.11, 0.08, 0.0], [0.1, -0.1, 0.05], [0.0, 0.0, 0.0], [-0.1, -0.11, 0.03]])
    points *= min(1.0, height / width)
    places = project(points, views.K[0], views.camera[0])[:, :2]
    assert (places > 6 * factor).all() and (places < np.array([width, height]) - 6 * factor).all()
    for number, spot in enumerate(spots(places, width, height, 1.5 * factor)):
        shown = replace(views, rgba=torch.as_tensor(spot, dtype=torch.float32)[None, ..., None].expand(-1, -1, -1, 4))
        small = shown.downsampled(factor)
        assert small.resolution == (round(height / factor), round(width / factor))
        found = middle_of(small.rgba[0, ..., 0].double().numpy())
        np.testing.assert_allclose(found, project(points, small.K[0], small.camera[0])[number, :2], atol=0.05)
        np.testing.assert_allclose(found, places_by_clip(small, points)[0, number], atol=0.05)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_the_fit_draws_edges_where_reduced_pictures_have_them(factor: int) -> None:
    """A plate drawn at 800 px and reduced has the outline that the fit's own rasterizer draws at the reduced size."""
    head = plates()
    truth = FitParameters.neutral(head, dtype=torch.float32)
    views = draw(head, head.v_template.numpy(), smooth_texture(64), [(0.25, 0.1, 0.9)], 800).downsampled(factor)
    rasterizer = make_rasterizer("cpu")
    renderer = HeadRenderer(rasterizer, head)
    pos = clip_positions(truth.vertices(head).float(), views.clip)
    rast, rast_db = rasterizer.rasterize(pos, renderer.faces, views.resolution)
    white, black = torch.ones(1, 64, 64, 3), torch.zeros(1, *views.resolution, 4)
    drawn = renderer.shade(rast, rast_db, pos, white, black).painted[0, ..., 3].detach().numpy()
    np.testing.assert_allclose(middle_of(drawn), middle_of(views.alphas[0].numpy()), atol=0.05)
    assert drawn.sum() == pytest.approx(float(views.alphas[0].sum()), rel=5e-3)


def test_whole_shares_are_plain_means_and_one_is_the_same() -> None:
    views = draw(toy_head(), np.asarray(toy_head().v_template), smooth_texture(), [(0.0, 0.0, 0.9)] * 2, 96)
    assert views.downsampled(1) is views
    small = views.downsampled(4)
    means = views.pictures().reshape(2, 24, 4, 24, 4, 4).mean((2, 4))
    torch.testing.assert_close(small.rgba.float(), means, rtol=0, atol=1e-3)
    np.testing.assert_allclose(small.K[:, :2], views.K[:, :2] / 4)
    assert small.clip is views.clip and small.rgba.dtype == torch.float16
    assert views.downsampled(1000).resolution == (1, 1)


def test_a_checkerboard_keeps_its_mean_when_it_is_reduced_or_grown() -> None:
    rows, columns = np.indices((90, 110)) // 5
    board = torch.as_tensor((rows + columns) % 2, dtype=torch.float32)[..., None].expand(-1, -1, 4).contiguous()
    for size in ((40, 50), (36, 37), (90, 110), (133, 177), (30, 300)):
        found = area_resized(board, size)
        assert found.shape == (*size, 4) and found.mean() == pytest.approx(float(board.mean()), abs=0.01)


# loading


def capture_of_sizes(
    folder: Path, sizes: list[tuple[int, int]], head_from_world: np.ndarray, alpha: bool = True
) -> Capture:
    """The toy head from the front and from aside in pictures of these sizes (W, H), on black."""
    head = toy_head()
    world = transform_points(np.linalg.inv(head_from_world), np.asarray(head.v_template, dtype=np.float64))
    avatar = head_avatar(head, world, smooth_texture())
    with CaptureWriter(folder, (0.0, 0.0, 0.0), "unlit") as writer:
        for camera, (width, height) in enumerate(sizes):
            yaw = np.radians(30 * (camera - 2))
            eye = [0.9 * np.sin(yaw), 0.1, 0.9 * np.cos(yaw)]
            matrix = move_camera(look_at(eye, [0, 0, 0], [0, 1, 0]), np.linalg.inv(head_from_world))
            K = intrinsics_from_fov(22.0, width, height)
            out = avatar.draw(K[None], matrix[None], width, height, background=(0.0, 0.0, 0.0))
            assert out.image is not None and out.alpha is not None and out.depth is not None and out.normal is not None
            writer.add(
                timestep=0,
                camera=camera,
                role="fit",
                K=K,
                world_to_camera=matrix,
                image=out.image[0],
                alpha=out.alpha[0] if alpha else None,
                depth=out.depth[0],
                normal=out.normal[0],
            )
    return writer.capture


def overlap(views: ViewSet) -> list[float]:
    """By view, the overlap of the alpha maps with the template as the fit draws it in the reference frame."""
    head, rasterizer = toy_head(), make_rasterizer("cpu")
    pos = clip_positions(head.v_template[None].float(), views.clip)
    rast, _ = rasterizer.rasterize(pos, head.faces.int(), views.resolution)
    ours, theirs = rast[..., 3] > 0, views.alphas > 0.5
    return [float((a & b).sum() / (a | b).sum()) for a, b in zip(ours, theirs, strict=True)]


def loaded(capture: Capture, reference_from_world: np.ndarray, **options) -> ViewSet:
    """All pictures of a capture."""
    pictures = load_pictures(capture, capture.views, reference_from_world, "cpu", 10**9, **options)
    return pictures.batch(pictures.rows())


def test_loaded_pictures_are_the_files_and_cameras_see_the_reference_frame(tmp_path: Path) -> None:
    head_from_world = similarity(0.01)
    capture = capture_of_sizes(tmp_path / "c", [(128, 96)] * 3, head_from_world)
    views = loaded(capture, head_from_world)
    assert views.rgba.dtype == torch.uint8 and views.resolution == (96, 128)
    for row, view in enumerate(capture.views):
        np.testing.assert_allclose(views.images[row], capture.image(view), atol=1e-6)
        np.testing.assert_allclose(views.alphas[row], capture.alpha(view), atol=1e-6)
    points = np.asarray(toy_head().v_template, dtype=np.float64)[::50]
    world = transform_points(np.linalg.inv(head_from_world), points)
    for row, view in enumerate(capture.views):
        expected = project(world, view.K, view.world_to_camera)
        np.testing.assert_allclose(project(points, views.K[row], views.camera[row])[:, :2], expected[:, :2], atol=1e-6)
        np.testing.assert_allclose(places_by_clip(views, points)[row], expected[:, :2], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(views.eyes, axis=1), np.hypot(0.9, 0.1), atol=1e-9)  # metres
    assert min(overlap(views)) > 0.97
    assert views.background is not None and views.background.tolist() == [0, 0, 0]
    assert views.timestep.tolist() == [0, 0, 0]


def test_another_background_goes_behind_the_avatar_by_its_alpha(tmp_path: Path) -> None:
    capture = capture_of_sizes(tmp_path / "c", [(96, 96)] * 2, np.eye(4))
    black, white = (loaded(capture, np.eye(4), background=name) for name in (None, "white"))
    assert white.background is not None and white.background.tolist() == [1, 1, 1]
    expected = black.images + (1 - black.alphas[:, None])
    torch.testing.assert_close(white.images, expected.clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-6)
    opaque = capture_of_sizes(tmp_path / "opaque", [(96, 96)] * 2, np.eye(4), alpha=False)
    assert loaded(opaque, np.eye(4)).background is None
    with pytest.raises(InputError, match="no alpha maps"):
        loaded(opaque, np.eye(4), background="white")


def test_views_of_several_sizes_are_brought_to_one_and_nothing_moves(tmp_path: Path) -> None:
    head_from_world = similarity(0.01)
    capture = capture_of_sizes(tmp_path / "c", SIZES, head_from_world)
    views = loaded(capture, head_from_world)
    assert views.resolution == (128, 128) and len(views.views) == len(SIZES)
    assert min(overlap(views)) > 0.96
    assert min(overlap(views.downsampled(2))) > 0.93
    points = np.asarray(toy_head().v_template, dtype=np.float64)[::50]
    for row, (width, height) in enumerate(SIZES):
        own = project(points, capture.views[row].K, move_camera(capture.views[row].world_to_camera, head_from_world))
        expected = own[:, :2] * [128 / width, 128 / height]
        np.testing.assert_allclose(project(points, views.K[row], views.camera[row])[:, :2], expected, atol=1e-6)
        np.testing.assert_allclose(places_by_clip(views, points)[row], expected, atol=1e-3)
    same = [row for row, size in enumerate(SIZES) if size == (128, 128)]
    np.testing.assert_allclose(views.images[same[0]], capture.image(capture.views[same[0]]), atol=1e-6)


def test_the_most_frequent_size_is_taken_and_the_larger_of_two(tmp_path: Path) -> None:
    def of(*sizes: tuple[int, int]) -> tuple[int, int]:
        return common_size([replace(view, width=w, height=h) for w, h in sizes])

    view = one_view(32, 32).views[0]
    assert of((64, 48), (64, 48), (800, 600)) == (48, 64)
    assert of((64, 48), (800, 600)) == (600, 800)


def test_maps_of_another_size_than_their_picture_are_named(tmp_path: Path) -> None:
    capture = capture_of_sizes(tmp_path / "c", [(96, 96)] * 2, np.eye(4))
    write_png(capture.root / "alpha_maps" / "00000_01.png", np.full((48, 96), 255, dtype=np.uint8))
    with pytest.raises(InputError, match=r"alpha_maps/00000_01\.png: .*96 x 48.* 96 x 96"):
        loaded(capture, np.eye(4))
    path = capture.root / "geometry" / "00000_00.npz"
    np.savez(path, depth=np.zeros((96, 95), np.float32), normal=np.zeros((96, 95, 3), np.float16))
    with pytest.raises(InputError, match=r"geometry/00000_00\.npz: .*95"):
        capture.geometry(capture.views[0])
