"""The CPU rasterizer against a pixel-by-pixel reference, its edge cases, and gradients against finite differences."""

import numpy as np
import pytest
import torch

from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.jit import set_threads

RASTERIZER = CpuRasterizer()


def random_triangles(
    n_faces: int, seed: int, size: float = 0.8, reach: float = 0.9
) -> tuple[torch.Tensor, torch.Tensor]:
    """A soup with depths and perspective: pos (1, 3 F, 4), tri (F, 3). Corners are within reach + size in ndc."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-reach, reach, (n_faces, 1, 2))
    xy = centre + rng.uniform(-size, size, (n_faces, 3, 2))
    z = rng.uniform(-0.9, 0.9, (n_faces, 3, 1))
    w = rng.uniform(0.5, 2.0, (n_faces, 3, 1))
    pos = np.concatenate([xy * w, z * w, w], axis=-1).reshape(1, -1, 4)
    return torch.tensor(pos, dtype=torch.float32), torch.arange(3 * n_faces, dtype=torch.int32).reshape(-1, 3)


def reference_ids(pos: torch.Tensor, tri: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Triangle index + 1 per pixel: snapped vertices, integer edge functions, nearest depth."""
    p = pos[0].numpy()
    with np.errstate(divide="ignore"):
        inv = (np.float32(1.0) / p[:, 3]).astype(np.float32)
    sx = np.rint(p[:, 0] * inv * np.float32(width * 8)).astype(np.int64) + width * 8
    sy = np.rint(p[:, 1] * inv * np.float32(height * 8)).astype(np.int64) + height * 8
    z = p[:, 2].astype(np.float64) / p[:, 3]
    ids = np.zeros((height, width), np.int64)
    nearest = np.ones((height, width))
    cx, cy = np.meshgrid(np.arange(width) * 16 + 8, np.arange(height) * 16 + 8)
    for f, corners in enumerate(tri.tolist()):
        a, b, c = corners
        area = (sx[b] - sx[a]) * (sy[c] - sy[a]) - (sy[b] - sy[a]) * (sx[c] - sx[a])
        if area == 0:
            continue
        if area < 0:
            b, c, area = c, b, -area
        inside = np.ones((height, width), bool)
        weights = []
        for i, j in ((b, c), (c, a), (a, b)):
            dx, dy = sx[j] - sx[i], sy[j] - sy[i]
            e = (sx[i] - cx) * dy - (sy[i] - cy) * dx
            exclusive = dy > 0 or (dy == 0 and dx <= 0)
            inside &= e > 0 if exclusive else e >= 0
            weights.append(e / area)
        depth = weights[0] * z[a] + weights[1] * z[b] + weights[2] * z[c]
        drawn = inside & (depth <= nearest)
        ids[drawn] = f + 1
        nearest[drawn] = depth[drawn]
    return ids


def ray_weights(pos: np.ndarray, corners: list[int], x: float, y: float) -> np.ndarray:
    """Barycentric coordinates of the point of a triangle's plane that projects to ndc (x, y)."""
    p = pos[corners].astype(np.float64)
    system = np.stack([p[:, 0] - x * p[:, 3], p[:, 1] - y * p[:, 3], np.ones(3)])
    return np.linalg.solve(system, [0.0, 0.0, 1.0])


@pytest.mark.parametrize(("height", "width", "size"), [(40, 56, 0.8), (37, 21, 0.2), (64, 64, 0.05)])
def test_triangle_ids_equal_the_reference(height: int, width: int, size: float) -> None:
    for seed in range(3):
        # Inside the frustum, where no clipping moves corners.
        pos, tri = random_triangles(60, seed, size, 0.98 - size)
        rast, _ = RASTERIZER.rasterize(pos, tri, (height, width))
        ids = rast[0, ..., 3].numpy().astype(np.int64)
        expected = reference_ids(pos, tri, height, width)
        assert (ids > 0).any()
        np.testing.assert_array_equal(ids, expected)


def test_barycentrics_and_depth_are_perspective_correct() -> None:
    pos, tri = random_triangles(12, 5)
    height, width = 30, 42
    rast, _ = RASTERIZER.rasterize(pos, tri, (height, width))
    checked = 0
    for j in range(height):
        for i in range(width):
            u, v, zw, label = rast[0, j, i].tolist()
            if label == 0:
                assert (u, v, zw) == (0.0, 0.0, 0.0)
                continue
            corners = tri[int(label) - 1].tolist()
            b = ray_weights(pos[0].numpy(), corners, 2 * (i + 0.5) / width - 1, 2 * (j + 0.5) / height - 1)
            if b.min() < 0:
                continue  # drawn through snapping, clamped into the triangle
            clip = b @ pos[0].numpy()[corners]
            np.testing.assert_allclose([u, v, zw], [b[0], b[1], clip[2] / clip[3]], atol=2e-5)
            checked += 1
    assert checked > 300


def test_barycentric_derivatives_are_differences_between_pixels() -> None:
    pos = torch.tensor([[[-2.0, -1.6, 0.1, 1.6], [1.4, -1.5, 0.3, 1.1], [0.1, 2.6, 0.2, 1.9]]])
    tri = torch.tensor([[0, 1, 2]])
    _, rast_db = RASTERIZER.rasterize(pos, tri, (32, 48))
    p = pos[0].numpy()
    for j, i in ((10, 20), (16, 24), (22, 26)):
        x, y = 2 * (i + 0.5) / 48 - 1, 2 * (j + 0.5) / 32 - 1
        h = 1e-4
        along_x = (ray_weights(p, [0, 1, 2], x + h, y) - ray_weights(p, [0, 1, 2], x - h, y)) / (2 * h) * (2 / 48)
        along_y = (ray_weights(p, [0, 1, 2], x, y + h) - ray_weights(p, [0, 1, 2], x, y - h)) / (2 * h) * (2 / 32)
        expected = [along_x[0], along_y[0], along_x[1], along_y[1]]
        np.testing.assert_allclose(rast_db[0, j, i].numpy(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("snapped", [False, True])
def test_every_pixel_of_a_tessellated_square_is_drawn_exactly_once(snapped: bool) -> None:
    rng = np.random.default_rng(1)
    n, size = 9, 48
    grid = np.linspace(-1, 1, n)
    x, y = (a.ravel().copy() for a in np.meshgrid(grid, grid))
    inner = (np.abs(x) < 1) & (np.abs(y) < 1)
    x[inner] += rng.uniform(-0.03, 0.03, inner.sum())
    y[inner] += rng.uniform(-0.03, 0.03, inner.sum())
    if snapped:
        # Vertices on pixel centres: every centre on an edge or a corner is a tie.
        x[inner] = (np.round((x[inner] + 1) * size / 2 - 0.5) + 0.5) * 2 / size - 1
        y[inner] = (np.round((y[inner] + 1) * size / 2 - 0.5) + 0.5) * 2 / size - 1
    w = rng.uniform(0.7, 1.5, len(x))
    pos = torch.tensor(np.stack([x * w, y * w, 0.1 * w, w], -1), dtype=torch.float32)[None]
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    quads = np.stack([a, a + 1, a + n + 1, a + n], 1)
    flip = rng.random(len(quads)) < 0.5
    quads[flip] = np.roll(quads[flip], 1, axis=1)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    reverse = rng.random(len(faces)) < 0.5
    faces[reverse] = faces[reverse][:, ::-1]
    tri = torch.tensor(faces, dtype=torch.int32)
    # One view per face.
    n_faces = len(faces)
    rast, _ = RASTERIZER.rasterize(pos.expand(n_faces, -1, -1), tri, (size, size), torch.eye(n_faces, dtype=torch.bool))
    times = (rast[..., 3] > 0).sum(dim=0)
    assert times.min() == 1 and times.max() == 1


def test_winding_does_not_change_what_is_drawn() -> None:
    pos, tri = random_triangles(20, 3)
    one, _ = RASTERIZER.rasterize(pos, tri, (32, 32))
    other, _ = RASTERIZER.rasterize(pos, tri[:, [0, 2, 1]].contiguous(), (32, 32))
    assert torch.equal(one[..., 3], other[..., 3])
    # Away from the clamps of pixels that snapping drew.
    drawn = (one[..., :2].amin(-1) > 0.01) & (one[..., :2].sum(-1) < 0.99)
    torch.testing.assert_close(other[..., 1][drawn], (1 - one[..., 0] - one[..., 1])[drawn], atol=2e-5, rtol=0)


def test_triangles_behind_and_through_the_camera_are_clipped() -> None:
    near, far = 0.5, 20.0
    rng = np.random.default_rng(7)
    world = rng.uniform(-4, 4, (40, 3, 3))  # camera at the origin, looking along +z
    clip = np.concatenate(
        [
            world[..., :2],
            (world[..., 2:] * (far + near) - 2 * far * near) / (far - near),
            world[..., 2:],
        ],
        axis=-1,
    )
    pos = torch.tensor(clip.reshape(1, -1, 4), dtype=torch.float32)
    tri = torch.arange(120, dtype=torch.int32).reshape(-1, 3)
    height, width = 31, 45
    n_crossing = ((world[..., 2] < near).any(1) & (world[..., 2] > near).any(1)).sum()
    assert n_crossing > 10
    rast, _ = RASTERIZER.rasterize(pos.expand(40, -1, -1), tri, (height, width), torch.eye(40, dtype=torch.bool))
    drawn = (rast[..., 3] > 0).numpy()
    wrong = covered = 0
    for f in range(40):
        for j in range(height):
            for i in range(width):
                x, y = 2 * (i + 0.5) / width - 1, 2 * (j + 0.5) / height - 1
                b = ray_weights(clip.reshape(-1, 4), [3 * f, 3 * f + 1, 3 * f + 2], x, y)
                depth = b @ world[f, :, 2]
                inside = b.min() >= 0 and near <= depth <= far
                covered += inside
                wrong += inside != drawn[f, j, i]
    assert covered > 3000
    assert wrong <= 0.008 * covered  # pixel centres within 1/16 pixel of an edge


def test_bad_positions_draw_nothing_and_do_not_crash() -> None:
    pos, tri = random_triangles(6, 2)
    good, _ = RASTERIZER.rasterize(pos, tri, (24, 24))
    bad = torch.cat([pos, torch.full((1, 6, 4), float("nan"))], dim=1)
    bad[0, 21:] = torch.tensor([1.0, 1.0, float("inf"), 0.0])
    more = torch.cat([tri, torch.tensor([[18, 19, 20], [21, 22, 23], [0, 18, 1]], dtype=torch.int32)])
    rast, _ = RASTERIZER.rasterize(bad, more, (24, 24))
    assert torch.equal(good, rast)


def test_nothing_is_drawn_beyond_the_far_plane() -> None:
    pos = torch.tensor([[[-3.0, -3, 0.5, 1], [3, -3, 0.5, 1], [0, 3, 1.5, 1]]])
    rast, _ = RASTERIZER.rasterize(pos, torch.tensor([[0, 1, 2]]), (64, 64))
    drawn = rast[0, ..., 3] > 0
    assert drawn.any() and rast[0, ..., 2][drawn].max() <= 1.0
    assert not drawn[33:].any()  # z passes 1 at ndc y = 0


def test_face_mask_drops_faces_per_view() -> None:
    pos, tri = random_triangles(10, 4)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1, ::2] = False
    rast, _ = RASTERIZER.rasterize(pos.expand(2, -1, -1), tri, (32, 32), mask)
    everything, _ = RASTERIZER.rasterize(pos, tri, (32, 32))
    assert torch.equal(rast[0], everything[0])
    odd, _ = RASTERIZER.rasterize(pos, tri[1::2].contiguous(), (32, 32))
    labels = torch.where(odd[0, ..., 3] > 0, 2 * odd[0, ..., 3], 0.0)
    assert torch.equal(rast[1, ..., 3], labels)
    assert torch.equal(rast[1, ..., :3], odd[0, ..., :3])


def test_views_do_not_depend_on_each_other() -> None:
    pos, tri = random_triangles(30, 8)
    views = torch.cat([pos, pos * torch.tensor([1.0, -1.0, 1.0, 1.0]), pos * torch.tensor([0.5, 0.7, 1.0, 1.0])])
    together, together_db = RASTERIZER.rasterize(views, tri, (40, 40))
    for b in range(3):
        alone, alone_db = RASTERIZER.rasterize(views[b : b + 1], tri, (40, 40))
        assert torch.equal(alone[0], together[b]) and torch.equal(alone_db[0], together_db[b])


def test_position_gradients_equal_finite_differences() -> None:
    torch.manual_seed(0)
    pos = torch.tensor([[[-0.8, -0.7, 0.1, 1.0], [0.9, -0.6, 0.3, 1.3], [0.1, 0.8, 0.2, 0.8], [1.0, 0.9, 0.5, 1.6]]])
    tri = torch.tensor([[0, 1, 2], [1, 3, 2]])
    weight, weight_db = torch.randn(1, 24, 20, 2), torch.randn(1, 24, 20, 4)

    def value(p: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        rast, rast_db = RASTERIZER.rasterize(p, tri, (24, 20))
        return ((rast[..., :2] * weight).tanh() * keep).double().sum() + (rast_db * weight_db * keep).double().sum()

    def visible(p: torch.Tensor) -> torch.Tensor:
        """Triangle index; 0 where snapping drew a pixel outside the triangle, whose u and v are clamped."""
        rast, _ = RASTERIZER.rasterize(p, tri, (24, 20))
        u, v = rast[..., 0:1], rast[..., 1:2]
        return rast[..., 3:] * ((u > 0) & (v > 0) & (u + v < 1))

    ids = visible(pos)
    step = 2e-3
    for vertex in range(4):
        for axis in range(4):
            delta = torch.zeros_like(pos)
            delta[0, vertex, axis] = step
            keep = (visible(pos + delta) == ids) & (visible(pos - delta) == ids) & (ids > 0)
            p = pos.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(value(p, keep), p)
            expected = (value(pos + delta, keep) - value(pos - delta, keep)) / (2 * step)
            assert float(gradient[0, vertex, axis]) == pytest.approx(float(expected), rel=3e-3, abs=3e-3)


def test_gradients_are_bit_equal_at_one_and_two_threads() -> None:
    torch.manual_seed(1)
    pos, tri = random_triangles(200, 9, 0.2)
    views = torch.cat([pos, pos * torch.tensor([1.0, -1.0, 1.0, 1.0])])
    weight = torch.randn(2, 48, 48, 4)

    def run() -> tuple[torch.Tensor, ...]:
        p = views.clone().requires_grad_(True)
        rast, rast_db = RASTERIZER.rasterize(p, tri, (48, 48))
        (gradient,) = torch.autograd.grad((rast[..., :2] * weight[..., :2]).sum() + (rast_db * weight).sum(), p)
        return rast.detach(), rast_db.detach(), gradient

    try:
        set_threads(1)
        one = run()
        set_threads(2)
        two = run()
    finally:
        set_threads(None)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


def test_wrong_input_is_refused() -> None:
    pos, tri = random_triangles(2, 0)
    with pytest.raises(ValueError, match="outside"):
        RASTERIZER.rasterize(pos, tri + 3, (8, 8))
    with pytest.raises(ValueError, match="face_mask"):
        RASTERIZER.rasterize(pos, tri, (8, 8), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected"):
        RASTERIZER.rasterize(pos[0], tri, (8, 8))
