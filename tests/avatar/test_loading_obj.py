import numpy as np
import pytest
from PIL import Image

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.maths.normals import face_normals

CUBE = """# a cube of quads
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
"""
QUADS = ["1 4 3 2", "5 6 7 8", "1 2 6 5", "2 3 7 6", "3 4 8 7", "4 1 5 8"]


def faces_with_uv(rows: list[str]) -> str:
    return "".join("f " + " ".join(f"{v}/{k + 1}" for k, v in enumerate(row.split())) + "\n" for row in rows)


def write(folder, text: str, material: str | None = None, name: str = "cube.obj"):
    path = folder / name
    path.write_text(text)
    if material is not None:
        (folder / "cube.mtl").write_text(material)
    return path


def area_of(avatar) -> float:
    return float(face_normals(avatar.vertices, avatar.faces)[1].sum())


def test_quads_become_triangles_that_face_outside(tmp_path):
    avatar = load_avatar(write(tmp_path, CUBE + "".join(f"f {row}\n" for row in QUADS)))
    assert len(avatar.faces) == 12 and len(avatar.vertices) == 8
    assert area_of(avatar) == pytest.approx(24)
    normals, _ = face_normals(avatar.vertices, avatar.faces)
    assert (np.einsum("fc,fc->f", normals, avatar.vertices[avatar.faces].mean(axis=1)) > 0.5).all()
    assert not avatar.has_color and avatar.format == "obj" and len(avatar.file_hash) == 64


def test_negative_indices_continued_lines_and_polygons(tmp_path):
    text = (
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv -1 0.5 0\nf -5 -4 \\\n -3 -2 -1\nv 5 0 0\nv 6 0 0\nv 5 1 0\nf -3 -2 -1\n"
    )
    avatar = load_avatar(write(tmp_path, text))
    assert len(avatar.faces) == 4
    assert area_of(avatar) == pytest.approx(1.5 + 0.5)


def test_texture_material_and_own_index_of_texture_coordinates(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "my skin.png")
    material = "newmtl skin\nKd 0 0 0\nmap_Kd -s 1 1 1 -clamp on my skin.png\nnewmtl red\nKd 1 0 0\n"
    text = "mtllib cube.mtl\n" + CUBE + "usemtl skin\n" + faces_with_uv(QUADS[:5]) + "usemtl red\nf 4 1 5 8\n"
    avatar = load_avatar(write(tmp_path, text, material))
    skin, red = avatar.parts
    assert (skin.name, red.name) == ("skin", "red")
    np.testing.assert_array_equal(skin.texture[..., :3], pixels)
    assert skin.base_color == (1.0, 1.0, 1.0, 1.0) and skin.wrap == ("clamp", "clamp")
    assert red.texture is None and red.base_color == (1.0, 0.0, 0.0, 1.0)
    assert len(skin.vertices) > 8 and area_of(avatar) == pytest.approx(24)
    corner = np.flatnonzero((skin.vertices == [-1, -1, -1]).all(axis=1) & (skin.uv == [0, 0]).all(axis=1))
    assert len(corner) == 1


def test_faces_without_texture_coordinates_become_a_part_of_their_own(tmp_path):
    Image.new("RGB", (2, 2), (10, 20, 30)).save(tmp_path / "skin.png")
    text = "mtllib cube.mtl\nusemtl skin\n" + CUBE + faces_with_uv(QUADS[:2]) + "".join(f"f {q}\n" for q in QUADS[2:])
    avatar = load_avatar(write(tmp_path, text, "newmtl skin\nmap_Kd skin.png\n"))
    assert [part.texture is not None for part in avatar.parts] == [True, False]
    assert area_of(avatar) == pytest.approx(24)


def test_alpha_picture_makes_an_alpha_tested_part(tmp_path):
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "hair.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    material = "newmtl hair\nmap_Kd hair.png\nmap_d mask.png\n"
    part = load_avatar(write(tmp_path, "mtllib cube.mtl\nusemtl hair\n" + CUBE + faces_with_uv(QUADS), material)).parts[
        0
    ]
    assert part.alpha_mode == "mask"
    assert part.texture[0, 0].tolist() == [10, 20, 30, 255] and part.texture[3, 0, 3] == 0


def test_vertex_colours_are_srgb(tmp_path):
    text = "v 0 0 0 0.5 0 0\nv 1 0 0 0.5 1 0\nv 0 1 0 0.5 0 1\nf 1 2 3\n"
    colors = load_avatar(write(tmp_path, text)).parts[0].vertex_colors
    np.testing.assert_allclose(colors, [[0.5, 0, 0, 1], [0.5, 1, 0, 1], [0.5, 0, 1, 1]])
