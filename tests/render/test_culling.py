"""Culling by degenerate triples, with the CPU rasterizer standing in for nvdiffrast's range mode."""

import torch

from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.culling import instanced_faces, local_triangle_ids, shared_triangle_ids, view_ranges
from flame_fitting.render.winding import front_faces
from tests.render import culling_checks
from tests.render.raster_scenes import head, soup

RASTERIZER = CpuRasterizer()


def range_mode(pos: torch.Tensor, faces: torch.Tensor, ranges: torch.Tensor, resolution: tuple[int, int]):
    """As nvdiffrast's range mode: `pos` (N, 4) for all views, triangle numbers count through `faces`."""
    pictures = []
    for start, count in ranges.tolist():
        rast, rast_db = RASTERIZER.rasterize(pos[None], faces[start : start + count].contiguous(), resolution)
        drawn = rast[..., 3] > 0
        rast[..., 3][drawn] += start
        pictures.append((rast, rast_db))
    return torch.cat([p[0] for p in pictures]), torch.cat([p[1] for p in pictures])


def test_one_shared_list_view_by_view_equals_the_face_mask() -> None:
    pos, tri = culling_checks.open_mouth_views()
    mask = front_faces(pos, tri)
    size = (72, 96)
    faces = instanced_faces(tri, mask, pos.shape[1])
    ranges = view_ranges(len(pos), len(tri))
    rast, rast_db = range_mode(pos.reshape(-1, 4), faces, ranges, size)
    expected, expected_db = RASTERIZER.rasterize(pos, tri, size, mask)
    assert torch.equal(local_triangle_ids(rast, len(tri)), expected)
    assert torch.equal(rast_db, expected_db)


def test_the_list_has_a_row_for_every_face_of_every_view() -> None:
    tri = torch.tensor([[0, 1, 2], [2, 1, 3]], dtype=torch.int32)
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    faces = instanced_faces(tri, mask, 4)
    assert faces.dtype == torch.int32 and faces.is_contiguous()
    assert faces.tolist() == [[0, 1, 2], [0, 0, 0], [4, 5, 6], [6, 5, 7], [8, 8, 8], [10, 9, 11]]
    assert view_ranges(3, 2).tolist() == [[0, 2], [2, 2], [4, 2]]
    assert view_ranges(3, 2).device.type == "cpu" and view_ranges(3, 2).dtype == torch.int32


def test_empty_pixels_stay_empty_and_numbers_count_from_one_in_each_view() -> None:
    rast = torch.zeros(3, 1, 3, 4)
    rast[..., :3] = 0.25
    rast[0, 0, :, 3] = torch.tensor([0.0, 1.0, 5.0])
    rast[1, 0, :, 3] = torch.tensor([0.0, 6.0, 10.0])
    rast[2, 0, :, 3] = torch.tensor([0.0, 11.0, 15.0])
    before = rast.clone()
    local = local_triangle_ids(rast, 5)
    assert local[..., 3].tolist() == [[[0.0, 1.0, 5.0]]] * 3
    assert torch.equal(local[..., :3], rast[..., :3])
    assert torch.equal(rast, before)
    assert torch.equal(shared_triangle_ids(local, 5), before)
    assert torch.equal(local[..., 3], local_triangle_ids(before, 5)[..., 3])  # untouched


def test_a_batchs_gradients_are_those_of_its_views() -> None:
    culling_checks.a_batchs_gradients_are_those_of_its_views(RASTERIZER)


def test_front_faces_are_the_half_that_closed_surfaces_show() -> None:
    """From outside a head, the nearest face is a front face except where one looks into it."""
    scene = head(64)
    front = front_faces(scene.pos, scene.tri)
    rast, _ = RASTERIZER.rasterize(scene.pos[:1], scene.tri, scene.resolution)
    shown = rast[0, ..., 3].long()
    shown = shown[shown > 0] - 1
    assert front[0, shown].float().mean() > 0.995
    assert torch.equal(front, front_faces(scene.pos, scene.tri.roll(1, dims=1)))
    assert not (front & front_faces(scene.pos, scene.tri.flip(1))).any()


def test_every_face_of_a_soup_has_one_front() -> None:
    scene = soup()
    assert (front_faces(scene.pos, scene.tri) ^ front_faces(scene.pos, scene.tri.flip(1))).all()


def test_only_front_faces_are_drawn() -> None:
    culling_checks.only_front_faces_are_drawn(RASTERIZER)


def test_gradients_equal_those_of_a_mesh_without_the_culled_faces() -> None:
    culling_checks.gradients_equal_those_of_a_mesh_without_the_culled_faces(RASTERIZER)


def test_culled_silhouettes_are_antialiased_at_mouth_eyes_and_neck() -> None:
    culling_checks.culled_silhouettes_are_antialiased(RASTERIZER)
