"""The fused surface of depth maps of a sphere, and closest points of the right orientation."""

import numpy as np
import pytest
import torch
import trimesh

from flame_fitting.errors import InputError
from flame_fitting.fit.surface import GRAZING_COSINE, SurfaceCloud, SurfaceView, fuse_surface
from flame_fitting.head.model import HeadData, HeadModel
from tests.fit.pictures import around, depth_maps, plates
from tests.synthetic import similarity

RADIUS = 0.1


@pytest.fixture(scope="module")
def sphere() -> HeadModel:
    """A finely divided sphere, exactly RADIUS at its vertices."""
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    count = len(mesh.vertices)
    data = HeadData(
        name="sphere",
        file_hash="",
        v_template=np.asarray(mesh.vertices),
        faces=np.asarray(mesh.faces),
        shapedirs=np.zeros((count, 3, 1)),
        exprdirs=np.zeros((count, 3, 1)),
        posedirs=np.zeros((count, 3, 36)),
        J_regressor=np.full((5, count), 1 / count),
        parents=[-1, 0, 1, 1, 1],
        weights=np.tile([1.0, 0, 0, 0, 0], (count, 1)),
    )
    return HeadModel(data)


def test_points_lie_on_the_sphere_and_normals_point_outward(sphere: HeadModel) -> None:
    cloud = fuse_surface(depth_maps(sphere, sphere.v_template.numpy(), around(4)), np.eye(4), 0.002)
    length = np.linalg.norm(cloud.points, axis=1)
    assert np.abs(length - RADIUS).max() < 1e-4  # the sphere's facets, and depth at pixel centres
    assert (cloud.normals * cloud.points / length[:, None]).sum(1).min() > 0.999
    assert cloud.colors.shape == cloud.points.shape and cloud.colors.min() >= 0 and cloud.colors.max() <= 1
    # nothing between the views is missing: the equator is closed
    equator = cloud.points[np.abs(cloud.points[:, 1]) < 0.02]
    turns = np.sort(np.arctan2(equator[:, 0], equator[:, 2]))
    assert np.diff(turns, append=turns[0] + 2 * np.pi).max() < 0.05


def test_the_world_may_have_any_unit_and_axes(sphere: HeadModel) -> None:
    reference_from_world = similarity(0.01)
    maps = depth_maps(sphere, sphere.v_template.numpy(), around(3), 128, np.linalg.inv(reference_from_world))
    assert np.median(maps[0].depth[maps[0].depth > 0]) > 10, "world units, not metres"
    cloud = fuse_surface(maps, reference_from_world, 0.003)
    assert np.abs(np.linalg.norm(cloud.points, axis=1) - RADIUS).max() < 1e-4
    assert np.abs(np.linalg.norm(cloud.normals, axis=1) - 1).max() < 1e-6
    assert (cloud.normals * cloud.points).sum(1).min() > 0.999 * RADIUS


def test_grazing_pixels_are_left_out(sphere: HeadModel) -> None:
    eye = np.array([0.0, 0.0, 0.9])
    cloud = fuse_surface(depth_maps(sphere, sphere.v_template.numpy(), [tuple(eye)]), np.eye(4), 0.001)
    toward = eye - cloud.points
    cosine = (cloud.normals * toward).sum(1) / np.linalg.norm(toward, axis=1)
    assert cosine.min() > GRAZING_COSINE
    assert cosine.min() < GRAZING_COSINE + 0.1, "all that is not grazing is kept"


def test_pixels_at_occlusion_edges_are_left_out() -> None:
    head = plates()
    (view,) = depth_maps(head, head.v_template.numpy(), [(0.0, 0.0, 0.9)])
    cloud = fuse_surface([view], np.eye(4), 0.0005)
    pixel = 0.9 * 2 * np.tan(np.radians(9)) / 192
    x = np.abs(cloud.points[:, :2]).max(1)
    front = cloud.points[:, 2] > 0.03
    np.testing.assert_allclose(cloud.points[:, 2], np.where(front, 0.06, 0.0), atol=1e-4)
    # the outermost pixel of either plate is gone, and so is the shadow's rim on the one behind
    assert 0.03 - 3 * pixel < x[front].max() < 0.03 - 0.4 * pixel
    assert x[~front].max() < 0.08 - 0.4 * pixel
    shadow = 0.03 * 0.9 / 0.84
    assert shadow + 0.4 * pixel < x[~front].min() < shadow + 3 * pixel


def test_one_point_for_each_voxel_the_one_seen_most_squarely(sphere: HeadModel) -> None:
    spacing = 0.004
    maps = depth_maps(sphere, sphere.v_template.numpy(), around(4))
    cloud = fuse_surface(maps, np.eye(4), spacing)
    voxels = np.floor(cloud.points / spacing).astype(int)
    assert len(np.unique(voxels, axis=0)) == len(voxels)
    fine = fuse_surface(maps, np.eye(4), 0.0001)
    occupied = {tuple(v) for v in np.floor(fine.points / spacing).astype(int)}
    assert occupied == {tuple(v) for v in voxels}, "no voxel that a point lies in is left empty"
    # where two views meet, each point is one that the nearer view saw
    eyes = np.array(around(4))
    alone = [fuse_surface([view], np.eye(4), spacing) for view in maps]
    clear = cloud.points[cloud.points @ eyes[0] > 1.2 * np.max(cloud.points @ eyes[1:].T, axis=1)]
    assert len(clear) > 300
    near = alone[0].tree.query(clear)[0]
    assert (near < 1e-9).mean() > 0.95


def test_order_and_content_do_not_depend_on_chance(sphere: HeadModel) -> None:
    maps = depth_maps(sphere, sphere.v_template.numpy(), around(3))
    first, second = fuse_surface(maps, np.eye(4), 0.003), fuse_surface(iter(maps), np.eye(4), 0.003)
    np.testing.assert_array_equal(first.points, second.points)


def test_far_things_and_empty_pictures(sphere: HeadModel) -> None:
    maps = depth_maps(sphere, sphere.v_template.numpy() + [0.25, 0.0, 0.0], [(0.0, 0.0, 2.5)])
    cloud = fuse_surface(maps, np.eye(4), 0.003, radius=0.25)
    assert np.linalg.norm(cloud.points, axis=1).max() < 0.25
    empty = SurfaceView(np.zeros_like(maps[0].depth), maps[0].normal, maps[0].image, maps[0].K, maps[0].world_to_camera)
    with pytest.raises(InputError, match="no surface"):
        fuse_surface([empty], np.eye(4))


def test_closest_points_have_a_compatible_normal() -> None:
    # a thin sheet: both sides are near, only one faces the same way
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 0.01
    sheet = np.concatenate([np.c_[grid, np.zeros(25)], np.c_[grid, np.full(25, -0.002)]])
    normals = np.repeat([[0.0, 0, 1], [0, 0, -1]], 25, axis=0)
    cloud = SurfaceCloud(sheet, normals, np.zeros((50, 3)))
    queries = torch.tensor([[0.021, 0.019, -0.003], [0.021, 0.019, -0.003], [0.02, 0.02, 0.5]], dtype=torch.float64)
    facing = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 1]], dtype=torch.float64)
    index, found = cloud.closest(queries, facing, max_distance=0.02)
    np.testing.assert_array_equal(found, [True, True, False])
    np.testing.assert_array_equal(cloud.points[index[0]], [0.02, 0.02, 0.0])
    np.testing.assert_array_equal(cloud.points[index[1]], [0.02, 0.02, -0.002])
