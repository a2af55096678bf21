import numpy as np
import pytest
import trimesh
from PIL import Image

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.errors import InputError

HEADER = "ply\nformat ascii 1.0\n"
XYZ = "property float x\nproperty float y\nproperty float z\n"
FACES = "property list uchar int vertex_indices\nend_header\n"


def test_stl_soup_is_welded(tmp_path):
    sphere = trimesh.creation.icosphere(subdivisions=2)
    sphere.export(tmp_path / "a.stl")
    avatar = load_avatar(tmp_path / "a.stl")
    assert (len(avatar.vertices), len(avatar.faces)) == (162, 320)
    assert any("welded" in note for note in avatar.notes)
    assert not avatar.has_color


def test_ascii_stl(tmp_path):
    box = trimesh.creation.box()
    (tmp_path / "a.stl").write_text(box.export(file_type="stl_ascii"))
    avatar = load_avatar(tmp_path / "a.stl")
    assert (len(avatar.vertices), len(avatar.faces)) == (8, 12)


def test_off(tmp_path):
    (tmp_path / "a.off").write_text("OFF\n# a comment\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")
    avatar = load_avatar(tmp_path / "a.off")
    assert (len(avatar.vertices), len(avatar.faces)) == (4, 2)
    (tmp_path / "a.off").write_text(
        "COFF 3 1 0\n0 0 0 255 0 0 255\n1 0 0 0 255 0 255\n1 1 0 0 0 255 255\n3 0 1 2 9 9\n"
    )
    colors = load_avatar(tmp_path / "a.off").parts[0].vertex_colors
    np.testing.assert_allclose(colors, np.c_[np.eye(3), np.ones(3)])


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_vertex_colours_are_srgb(tmp_path, encoding):
    sphere = trimesh.creation.icosphere(subdivisions=1)
    colors = np.random.default_rng(0).integers(0, 256, (len(sphere.vertices), 4), dtype=np.uint8)
    colors[:, 3] = 255
    sphere.visual.vertex_colors = colors
    (tmp_path / "a.ply").write_bytes(sphere.export(file_type="ply", encoding=encoding))
    part = load_avatar(tmp_path / "a.ply").parts[0]
    np.testing.assert_allclose(part.vertex_colors, colors / 255.0)


def test_ply_face_colours_stay_sharp(tmp_path):
    rows = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 255 0 0\n3 0 2 3 0 255 0\n"
    properties = (
        "property list uchar int vertex_indices\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
    )
    text = f"{HEADER}element vertex 4\n{XYZ}element face 2\n{properties}end_header\n{rows}"
    (tmp_path / "a.ply").write_text(text)
    part = load_avatar(tmp_path / "a.ply").parts[0]
    np.testing.assert_allclose(part.vertex_colors[part.faces[0], :3], [[1, 0, 0]] * 3)
    np.testing.assert_allclose(part.vertex_colors[part.faces[1], :3], [[0, 1, 0]] * 3)


def test_ply_with_a_texture_beside_it(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "skin.png")
    rows = "0 0 0 0 0\n1 0 0 1 0\n1 1 0 1 1\n0 1 0 0 1\n3 0 1 2\n3 0 2 3\n"
    st = "property float s\nproperty float t\n"
    text = f"{HEADER}comment TextureFile skin.png\nelement vertex 4\n{XYZ}{st}element face 2\n{FACES}{rows}"
    (tmp_path / "a.ply").write_text(text)
    part = load_avatar(tmp_path / "a.ply").parts[0]
    np.testing.assert_array_equal(part.texture[..., :3], pixels)
    np.testing.assert_allclose(part.uv[(part.vertices == [1, 1, 0]).all(axis=1)], [[1, 1]])


def test_point_cloud_is_refused(tmp_path):
    (tmp_path / "a.ply").write_text(f"{HEADER}element vertex 1\n{XYZ}end_header\n0 0 0\n")
    with pytest.raises(InputError, match=r"a\.ply: it is a point cloud"):
        load_avatar(tmp_path / "a.ply")


def test_formats_of_splats_that_are_not_read_are_named(tmp_path):
    for suffix in ("ksplat", "sog"):
        (tmp_path / f"a.{suffix}").write_bytes(b"anything")
        with pytest.raises(InputError, match=r"Convert it to \.ply"):
            load_avatar(tmp_path / f"a.{suffix}")
