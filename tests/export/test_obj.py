"""OBJ files keep vertices, their order and the texture's own index."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from flame_fitting.export.obj import write_obj
from tests.toy import toy_head


def test_round_trip_through_another_reader(tmp_path: Path) -> None:
    head = toy_head()
    vertices, faces = head.v_template.numpy() * 1234.5, head.faces.numpy()
    texture = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    written = write_obj(tmp_path / "a.obj", vertices, faces, head.uv.numpy(), head.uv_faces.numpy(), texture)
    assert {p.name for p in written} == {"a.obj", "a.mtl", "a.png"}
    mesh = trimesh.load(tmp_path / "a.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, vertices, rtol=1e-6)
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.visual.uv, head.uv.numpy(), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(mesh.visual.material.image.convert("RGB")), texture)


def test_texture_by_name_and_seams(tmp_path: Path) -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    faces, uv_faces = np.array([[0, 1, 2], [1, 3, 2]]), np.array([[0, 1, 2], [3, 5, 4]])
    uv = np.linspace(0, 1, 12).reshape(6, 2)
    write_obj(tmp_path / "fitted.obj", vertices, faces, uv, uv_faces, "texture.png")
    text = (tmp_path / "fitted.obj").read_text()
    assert (
        "f 1/1/1 2/2/2 3/3/3" in text
        and "f 2/4/2 4/6/4 3/5/3" in text
        and text.count("\nv ") == 4
        and text.count("\nvt ") == 6
    )
    assert "map_Kd texture.png" in (tmp_path / "fitted.mtl").read_text()


def test_without_texture_coordinates(tmp_path: Path) -> None:
    write_obj(tmp_path / "plain.obj", np.eye(3), np.array([[0, 1, 2]]), texture="texture.png")
    assert "f 1//1 2//2 3//3" in (tmp_path / "plain.obj").read_text() and not (tmp_path / "plain.mtl").exists()


def test_blender_shades_it_smooth(tmp_path: Path) -> None:
    """Normals point outward, one for each vertex, in one smooth group that stands before the first face."""
    head = toy_head()
    vertices, faces = head.v_template.numpy().astype(np.float64), head.faces.numpy()
    for uv in ((None, None), (head.uv.numpy(), head.uv_faces.numpy())):
        write_obj(tmp_path / "a.obj", vertices, faces, *uv)
        lines = (tmp_path / "a.obj").read_text().splitlines()
        kinds = [line.split()[0] for line in lines]
        assert kinds.count("vn") == kinds.count("v") == len(vertices)
        assert lines.count("s 1") == 1 and kinds.index("s") < kinds.index("f")
        normals = np.array([line.split()[1:] for line in lines if line.startswith("vn ")], dtype=float)
        corners = [[corner.split("/") for corner in line.split()[1:]] for line in lines if line.startswith("f ")]
        assert all(v == vn for face in corners for v, _, vn in face)
        used = np.unique(faces)
        np.testing.assert_allclose(np.linalg.norm(normals[used], axis=1), 1.0, atol=1e-5)
        cross = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
        agree = np.einsum("fc,fkc->fk", cross, normals[faces]) > 0
        assert agree.mean() > 0.99


def test_a_seam_of_the_texture_is_no_seam_of_the_normals(tmp_path: Path) -> None:
    """A roof: both vertices of its ridge lie on both sides, with other texture coordinates."""
    vertices = np.array([[0.0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, -1], [1, 0, -1]])
    faces = np.array([[0, 2, 3], [0, 3, 1], [0, 1, 5], [0, 5, 4]])
    uv, uv_faces = np.random.default_rng(0).random((12, 2)), np.arange(12).reshape(4, 3)
    write_obj(tmp_path / "a.obj", vertices, faces, uv, uv_faces)
    normals = [line.split()[1:] for line in (tmp_path / "a.obj").read_text().splitlines() if line.startswith("vn ")]
    np.testing.assert_allclose(np.array(normals[:2], dtype=float), [[0, 1, 0], [0, 1, 0]], atol=0.3)


def test_far_from_the_origin_nothing_is_rounded_away(tmp_path: Path) -> None:
    head = toy_head()
    for scale, shift in ((1.0, 5412877.0), (1e-7, 1.0), (1e6, 0.0), (1e-9, 0.0)):
        vertices = head.v_template.numpy().astype(np.float64) * scale + shift
        write_obj(tmp_path / "a.obj", vertices, head.faces.numpy())
        lines = (tmp_path / "a.obj").read_text().splitlines()
        read = np.array([line.split()[1:] for line in lines if line.startswith("v ")], dtype=float)
        assert np.abs(read - vertices).max() < 1e-7 * np.ptp(vertices)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_far_coordinates_keep_the_digits_of_the_mesh(tmp_path: Path, scale: float) -> None:
    vertices = np.random.default_rng(0).normal(size=(50, 3))
    far = scale * (vertices + [348211.0, 5412877.0, 112.0])
    write_obj(tmp_path / "a.obj", far, np.array([[0, 1, 2]]))
    rows = [line.split()[1:] for line in (tmp_path / "a.obj").read_text().splitlines() if line.startswith("v ")]
    np.testing.assert_allclose(np.array(rows, dtype=np.float64), far, atol=2e-8 * scale)
    write_obj(tmp_path / "b.obj", scale * vertices, np.array([[0, 1, 2]]))
    assert max(len(word.lstrip("-0.").split("e")[0]) for word in (tmp_path / "b.obj").read_text().split()[3:6]) <= 10
