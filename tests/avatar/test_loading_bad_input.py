"""Everything that is wrong with a file ends in an InputError that names it."""

import numpy as np
import pytest
import trimesh

from flame_fitting.avatar.loading import MESH_SUFFIXES, load_avatar
from flame_fitting.errors import InputError
from tests.avatar.glb_builder import TETRAHEDRON, TETRAHEDRON_FACES, GlbBuilder, textured_quad


def message(path) -> str:
    with pytest.raises(InputError) as caught:
        load_avatar(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_file_folder_and_unknown_suffix(tmp_path):
    assert "no such file" in message(tmp_path / "gone.glb")
    assert "folder" in message(tmp_path)
    (tmp_path / "a.fbx").write_bytes(b"x")
    (tmp_path / "bare").write_bytes(b"x")
    assert ".glb .vrm .gltf .obj .ply .stl .off" in message(tmp_path / "a.fbx")
    assert "no suffix" in message(tmp_path / "bare")


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"hello, I am no mesh\n", b"\x00\x01\x02" * 100, b"{}", b"[1, 2]", b"glTF"])
def test_files_that_are_no_mesh(tmp_path, suffix, content):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    message(tmp_path / f"a.{suffix}")


def sources(tmp_path) -> list:
    sphere = trimesh.creation.icosphere(subdivisions=1)
    paths = []
    for suffix in ("ply", "stl", "off", "obj"):
        path = tmp_path / f"whole.{suffix}"
        sphere.export(path)
        paths.append(path)
    paths.append(textured_quad(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "whole.glb"))
    return paths


def test_files_cut_short(tmp_path):
    for path in sources(tmp_path):
        load_avatar(path)
        content = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        for share in (0.03, 0.5, 0.9):
            cut.write_bytes(content[: int(share * len(content))])
            if path.suffix == ".obj" and share > 0.5:
                continue  # text that ends between two faces is a whole file
            message(cut)


def test_flipped_bytes_never_end_in_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for path in sources(tmp_path):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(25):
            damaged = content.copy()
            places = rng.integers(0, len(content), 4)
            damaged[places] = rng.integers(0, 256, 4)
            target = tmp_path / f"damaged{path.suffix}"
            target.write_bytes(damaged.tobytes())
            try:
                load_avatar(target)
            except InputError as error:
                assert str(target) in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_many_vertices_that_are_not_numbers(tmp_path, value):
    positions = TETRAHEDRON.copy()
    positions[2, 1] = value
    builder = GlbBuilder()
    builder.scene(builder.primitive(positions, TETRAHEDRON_FACES))
    assert "25 % of its vertices are not numbers" in message(builder.save(tmp_path / "a.glb"))
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 {value}\nv 0 1 0\nf 1 2 3\n")
    assert "not numbers" in message(tmp_path / "a.obj")


@pytest.mark.parametrize("word", ["nan", "inf", "-nan(ind)", "1.#QNAN", "-1.#IND00"])
def test_a_few_vertices_that_are_not_numbers_are_left_out_and_far_unused_ones_do_not_count(tmp_path, word):
    sphere = trimesh.creation.icosphere(subdivisions=3)
    lines = ["v {} {} {}".format(*row) for row in sphere.vertices.tolist()]
    for row in (7, 300):
        lines[row] = f"v {word} 0 0"
    lines += ["v 1e12 0 0", "v nan nan nan", "v 0 -1e12 0"]
    lines += ["f {} {} {}".format(*(row + 1)) for row in sphere.faces]
    (tmp_path / "a.obj").write_text("\n".join(lines) + "\n")
    avatar = load_avatar(tmp_path / "a.obj")
    touched = np.isin(sphere.faces, [7, 300]).any(axis=1)
    assert len(avatar.faces) == (~touched).sum() and len(avatar.vertices) == len(sphere.vertices) - 2
    assert np.abs(avatar.bounds).max() <= 1.0
    notes = [note for note in avatar.notes if "not numbers" in note]
    assert notes == [
        f"2 vertices that are not numbers (NaN or infinite) left out, with their {touched.sum()} triangles"
    ]


def test_the_share_of_vertices_that_are_not_numbers_is_that_of_the_whole_avatar(tmp_path):
    """A small part may be broken altogether where the rest is whole."""
    sphere = trimesh.creation.icosphere(subdivisions=3)
    lines = ["v {} {} {}".format(*row) for row in sphere.vertices.tolist()] + ["v nan 0 0", "v 1 nan 0", "v 2 2 nan"]
    count = len(sphere.vertices)
    faces = ["f {} {} {}".format(*(row + 1)) for row in sphere.faces] + ["usemtl broken"]
    faces += [f"f {count + 1} {count + 2} {count + 3}"]
    (tmp_path / "a.obj").write_text("\n".join(lines + faces) + "\n")
    assert len(load_avatar(tmp_path / "a.obj").parts) == 1


@pytest.mark.parametrize(("bad", "left"), [(3, True), (100, False)])
def test_attributes_that_are_not_numbers_at_a_few_vertices_stay(tmp_path, bad, left):
    sphere = trimesh.creation.icosphere(subdivisions=3)
    positions = np.asarray(sphere.vertices, dtype=np.float32)
    builder, normals = GlbBuilder(), positions.copy()
    uv = positions[:, :2].copy()
    normals[:bad], uv[:bad] = np.nan, np.inf
    builder.scene(builder.primitive(positions, sphere.faces.astype(np.uint16), NORMAL=normals, TEXCOORD_0=uv))
    material = {"pbrMetallicRoughness": {"baseColorTexture": {"index": builder.texture(np.zeros((2, 2, 3), np.uint8))}}}
    builder.json["materials"] = [material]
    builder.json["meshes"][0]["primitives"][0]["material"] = 0
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    part = avatar.parts[0]
    assert (part.normals is not None, part.uv is not None) == (left, left)
    if left:
        assert np.isfinite(part.normals).all() and np.isfinite(part.uv).all()
        np.testing.assert_allclose(part.normals[bad:], normals[bad:], atol=1e-6)
    # colours that are lost make a fit worse
    assert (len(avatar.notes), len(avatar.warnings)) == ((2, 0) if left else (1, 1))
    assert all("not numbers" in text for text in avatar.notes + avatar.warnings)


def test_no_triangles(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    message(tmp_path / "a.obj")
    builder = GlbBuilder()
    builder.scene(builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES) | {"mode": 1})
    message(builder.save(tmp_path / "a.glb"))
    empty = GlbBuilder()
    empty.json |= {"scenes": [{"nodes": []}], "scene": 0}
    assert "no mesh" in message(empty.save(tmp_path / "b.glb"))


def test_everything_in_one_place(tmp_path):
    builder = GlbBuilder()
    builder.scene(builder.primitive(np.zeros_like(TETRAHEDRON), TETRAHEDRON_FACES))
    assert "no triangle with an area" in message(builder.save(tmp_path / "a.glb"))


def test_degenerate_triangles_and_unused_vertices_are_dropped(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 9 9 9\nv nan 0 0\nf 1 2 3\nf 1 1 2\nf 1 2 2\n")
    avatar = load_avatar(tmp_path / "a.obj")
    assert (len(avatar.vertices), len(avatar.faces)) == (3, 1)
    assert any("without area" in note for note in avatar.notes)


def test_indices_out_of_range(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n")
    assert "vertex 4" in message(tmp_path / "a.obj")
    builder = GlbBuilder()
    builder.scene(builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES + 1))
    assert "refers to vertex 4" in message(builder.save(tmp_path / "a.glb"))


def test_accessor_past_the_end(tmp_path):
    builder = GlbBuilder()
    builder.scene(builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES))
    builder.json["accessors"][0]["count"] = 4000
    assert "past the end" in message(builder.save(tmp_path / "a.glb"))
    builder.json["accessors"][0] = {"componentType": 5126, "count": 10**15, "type": "VEC3"}
    message(builder.save(tmp_path / "a.glb"))
