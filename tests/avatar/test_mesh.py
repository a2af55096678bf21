from pathlib import Path

import numpy as np
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.mesh import MeshPart, fan_triangles, srgb_from_linear
from flame_fitting.avatar.mesh_avatar import MeshAvatar, avatar_from_arrays
from flame_fitting.avatar.normals import angle_weighted_normals, weld
from tests.avatar.glb_builder import QUAD, QUAD_FACES
from tests.avatar.srgb import linear_from_srgb


@settings(max_examples=50, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-2, 2)))
def test_weld_groups_equal_rows_in_the_order_of_their_first(rows):
    points = rows.astype(np.float64)
    first, label = weld(points)
    np.testing.assert_array_equal(points[first][label], points)
    assert len(np.unique(points[first], axis=0)) == len(first)
    assert (np.diff(first) > 0).all()
    assert (first[label] <= np.arange(len(points))).all()


def test_weld_with_tolerance():
    first, label = weld(np.array([[0, 0, 0], [1, 0, 0], [1e-7, 0, 0]]), tolerance=1e-5)
    assert first.tolist() == [0, 1] and label.tolist() == [0, 1, 0]


def test_normals_of_a_sphere_with_seams_and_mixed_winding():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    soup = np.array(sphere.vertices)[np.array(sphere.faces)].reshape(-1, 3)
    faces = np.arange(len(soup)).reshape(-1, 3)
    np.testing.assert_allclose(angle_weighted_normals(soup, faces), soup, atol=0.02)
    faces[::2] = faces[::2, ::-1]
    assert (np.abs((angle_weighted_normals(soup, faces) * soup).sum(axis=1)) > 0.95).all()


def test_fans_of_mixed_polygons():
    triangles = fan_triangles(np.array([3, 5, 4]))
    assert triangles.tolist() == [[0, 1, 2], [3, 4, 5], [3, 5, 6], [3, 6, 7], [8, 9, 10], [8, 10, 11]]


def test_srgb_and_back():
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(linear_from_srgb(srgb_from_linear(values)), values, atol=1e-7)
    assert abs(float(srgb_from_linear(np.array(0.214))) - 0.5) < 1e-3


def test_colour_counts_only_where_much_of_the_surface_has_it():
    checker = np.zeros((2, 2, 4), np.uint8)
    checker[0] = 255
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    faces = QUAD_FACES.astype(np.int64)
    skin = MeshPart(QUAD * 10.0, faces)
    eye = MeshPart(QUAD * 1.0, faces, uv=uv, texture=checker)
    assert not MeshAvatar([skin, eye], Path("a"), "", "memory").has_color
    assert MeshAvatar([eye], Path("a"), "", "memory").has_color
    plain = MeshPart(QUAD * 1.0, faces, uv=uv, texture=np.full((2, 2, 4), 99, np.uint8))
    assert not MeshAvatar([plain], Path("a"), "", "memory").has_color
    assert avatar_from_arrays(QUAD * 1.0, faces, vertex_colors=np.eye(4)[:, :3]).has_color


def test_tabs_between_the_numbers_of_an_obj(tmp_path):
    (tmp_path / "a.obj").write_text("v\t0 0\t0\nv\t1 0 0\nv 0\t1 0\nf\t1\t2 3\n")
    assert len(load_avatar(tmp_path / "a.obj").faces) == 1
