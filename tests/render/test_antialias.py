"""Silhouette antialiasing: where it acts, how much, and its gradients."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import ConvexHull
from torch import Tensor

from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.jit import set_threads
from flame_fitting.render.topology import opposite_vertices
from flame_fitting.render.winding import front_faces

RASTERIZER = CpuRasterizer()


def box(scale: float = 0.6, subdivisions: int = 0) -> tuple[Tensor, Tensor]:
    """Clip positions (1, V, 4) of a turned box seen orthographically from z = -1, and its faces.

    Few faces: a silhouette is found where the pixel beside it shows the face that it belongs to, so faces must be
    wider than a pixel there.
    """
    mesh = trimesh.creation.box(extents=[1.2, 1.0, 1.1])
    for _ in range(subdivisions):
        mesh = mesh.subdivide()
    mesh.apply_transform(trimesh.transformations.euler_matrix(0.5, 0.6, 0.3))
    v = np.asarray(mesh.vertices)
    # The camera looks along +z with y down: mirror y so that outward faces stay counter-clockwise to the viewer.
    pos = np.concatenate([v * scale * [1, -1, -1], np.ones((len(v), 1))], axis=1)
    return torch.tensor(pos, dtype=torch.float32)[None], torch.tensor(np.asarray(mesh.faces), dtype=torch.int32)


def outline_area(pos: Tensor) -> float:
    """In ndc units squared."""
    return float(ConvexHull(pos[0, :, :2].detach().numpy()).volume)


def test_topology_finds_the_vertex_across_each_edge() -> None:
    #  0 - 1 - 4
    #  | / | /      and a face on edge 1-2 that makes it non-manifold
    #  2 - 3
    faces = np.array([[0, 1, 2], [1, 3, 2], [1, 4, 3], [2, 1, 5], [0, 0, 1]])
    across = opposite_vertices(faces)
    assert across[0].tolist() == [3, -1, -1]
    assert across[1].tolist() == [-1, 0, 4]
    assert across[2].tolist() == [-1, 2, -1]
    assert across[3][2] == -1  # the third face at an edge has no neighbour
    assert across[4].tolist() == [-1, -1, -1]
    closed = opposite_vertices(np.asarray(trimesh.creation.icosphere(subdivisions=1).faces))
    assert (closed >= 0).all()


def test_only_silhouettes_change() -> None:
    pos, tri = box()
    rast, _ = RASTERIZER.rasterize(pos, tri, (48, 48))
    covered = (rast[..., 3:] > 0).float()
    out = RASTERIZER.antialias(covered, rast, pos, tri)
    changed = (out != covered)[0, ..., 0]
    border = torch.nn.functional.max_pool2d(covered.permute(0, 3, 1, 2), 3, 1, 1)[0, 0] - covered[0, ..., 0]
    inner = covered[0, ..., 0] + torch.nn.functional.max_pool2d(-covered.permute(0, 3, 1, 2), 3, 1, 1)[0, 0]
    assert changed.sum() > 60
    assert not (changed & (border == 0) & (inner == 0)).any()
    # Faces have their own colours: edges between them must not be blended.
    color = torch.rand(len(tri) + 1, 3)[rast[..., 3].long()]
    out = RASTERIZER.antialias(color, rast, pos, tri)
    far_inside = -torch.nn.functional.max_pool2d(-covered.permute(0, 3, 1, 2), 5, 1, 2)[0, 0] > 0
    assert far_inside.sum() > 200
    assert torch.equal(out[0][far_inside], color[0][far_inside])


@pytest.mark.parametrize("offset", [0.03, 0.2, 0.37, 0.5, 0.72, 0.95])
def test_a_vertical_edge_covers_the_pixel_by_its_area(offset: float) -> None:
    # Rectangle from the left border to x = 8 + offset of 16 pixels.
    right = 2 * (8 + offset) / 16 - 1
    pos = torch.tensor([[[-3.0, -3, 0, 1], [right, -3, 0, 1], [right, 3, 0, 1], [-3, 3, 0, 1]]])
    tri = torch.tensor([[0, 1, 2], [0, 2, 3]])
    rast, _ = RASTERIZER.rasterize(pos, tri, (16, 16))
    out = RASTERIZER.antialias((rast[..., 3:] > 0).float(), rast, pos, tri)
    row = out[0, 5, :, 0]
    assert row[:8].tolist() == [1.0] * 8
    # The blend spreads over the pixel whose centre the edge is nearest to.
    assert float(row.sum()) == pytest.approx(8 + offset, abs=1e-5)
    assert row[9:].abs().max() <= max(0.0, offset - 0.5) + 1e-5


def test_antialiased_area_is_the_area_of_the_outline() -> None:
    plain, blended = [], []
    for scale in np.linspace(0.5, 0.6, 7):
        pos, tri = box(float(scale))
        rast, _ = RASTERIZER.rasterize(pos, tri, (64, 64))
        covered = (rast[..., 3:] > 0).float()
        area = outline_area(pos) * 32**2
        plain.append(float(covered.sum()) / area - 1)
        blended.append(float(RASTERIZER.antialias(covered, rast, pos, tri).sum()) / area - 1)
    assert np.abs(blended).max() < 0.004
    assert np.std(blended) < 0.5 * np.std(plain)


def test_gradient_of_the_area_is_the_derivative_of_the_area() -> None:
    # The area of the outline grows with the square of the scale.
    ratios = []
    for scale in np.linspace(0.5, 0.6, 9):
        factor = torch.ones(1, requires_grad=True)
        unit, tri = box(float(scale))
        pos = torch.cat([unit[..., :2] * factor, unit[..., 2:]], dim=-1)
        rast, _ = RASTERIZER.rasterize(pos, tri, (256, 256))
        area = RASTERIZER.antialias((rast[..., 3:] > 0).float(), rast, pos, tri).sum()
        area.backward()
        ratios.append(float(factor.grad) / (2 * outline_area(pos) * 128**2))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)


def test_gradients_equal_finite_differences() -> None:
    torch.manual_seed(0)
    pos = torch.tensor([[[-0.83, -0.71, 0.1, 1.0], [1.1, -0.62, 0.3, 1.3], [0.12, 0.65, 0.2, 0.8]]])
    tri = torch.tensor([[0, 1, 2]])
    size = (22, 26)
    rast, _ = RASTERIZER.rasterize(pos, tri, size)
    color, weight = torch.rand(1, *size, 3), torch.randn(1, *size, 3)

    def value(c: Tensor, p: Tensor) -> Tensor:
        # The triangle ids stay; only the blend moves.
        return (RASTERIZER.antialias(c, rast.detach(), p, tri) * weight).double().sum()

    color_, pos_ = color.clone().requires_grad_(True), pos.clone().requires_grad_(True)
    g_color, g_pos = torch.autograd.grad(value(color_, pos_), (color_, pos_))
    direction = torch.randn_like(color)
    expected = float(value(color + direction, pos) - value(color, pos))  # linear in the colours
    assert float((g_color * direction).sum()) == pytest.approx(expected, rel=1e-4)
    step = 2e-4
    for vertex in range(3):
        for axis in range(4):
            delta = torch.zeros_like(pos)
            delta[0, vertex, axis] = step
            expected = float(value(color, pos + delta) - value(color, pos - delta)) / (2 * step)
            # nvdiffrast's guard in the slope of the edge costs up to a few thousandths.
            assert float(g_pos[0, vertex, axis]) == pytest.approx(expected, rel=2e-2, abs=3e-2)


def test_an_edge_to_a_culled_face_is_a_silhouette() -> None:
    pos, tri = box()
    everything, _ = RASTERIZER.rasterize(pos, tri, (48, 48))
    culled, _ = RASTERIZER.rasterize(pos, tri, (48, 48), front_faces(pos, tri))
    # A closed surface looks the same with and without its back.
    assert torch.equal(everything[..., 3] > 0, culled[..., 3] > 0)
    one = RASTERIZER.antialias((everything[..., 3:] > 0).float(), everything, pos, tri)
    two = RASTERIZER.antialias((culled[..., 3:] > 0).float(), culled, pos, tri, RASTERIZER.topology(tri))
    torch.testing.assert_close(one, two)
    assert ((two > 0) & (two < 1)).sum() > 60


def test_an_open_rim_is_a_silhouette() -> None:
    pos, tri = box(subdivisions=2)
    centre_y = pos[0, :, 1][tri.long()].mean(1)
    tri = tri[centre_y < 0.1].contiguous()  # a bowl, seen from the side
    mask = front_faces(pos, tri)
    rast, _ = RASTERIZER.rasterize(pos, tri, (48, 48), mask)
    out = RASTERIZER.antialias((rast[..., 3:] > 0).float(), rast, pos, tri)
    rim = int((48 * (0.1 + 1)) // 2)
    rows = out[0, rim - 2 : rim + 3, 20:28, 0]
    assert ((rows > 0) & (rows < 1)).any()


def test_gradients_are_bit_equal_at_one_and_two_threads() -> None:
    torch.manual_seed(0)
    pos, tri = box()
    pos = torch.cat([pos, pos * torch.tensor([0.7, 0.9, 1.0, 1.0])])
    color, weight = torch.rand(2, 40, 40, 3), torch.randn(2, 40, 40, 3)

    def run() -> tuple[Tensor, ...]:
        c, p = color.clone().requires_grad_(True), pos.clone().requires_grad_(True)
        rast, _ = RASTERIZER.rasterize(p, tri, (40, 40))
        out = RASTERIZER.antialias(c, rast, p, tri)
        return out.detach(), *torch.autograd.grad((out * weight).sum(), (c, p))

    try:
        set_threads(1)
        one = run()
        set_threads(2)
        two = run()
    finally:
        set_threads(None)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
