"""OBJ files keep vertices, their order and the texture's own index."""

from pathlib import Path

import numpy as np
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
