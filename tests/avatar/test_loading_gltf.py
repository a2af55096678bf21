import base64
import json

import numpy as np
import pytest

from flame_fitting.avatar.loading import chosen_morphs, load_avatar, morphs_of
from flame_fitting.avatar.mesh import srgb_from_linear
from flame_fitting.errors import InputError
from flame_fitting.maths.normals import face_normals
from tests.avatar.glb_builder import (
    QUAD,
    QUAD_FACES,
    TETRAHEDRON,
    TETRAHEDRON_FACES,
    GlbBuilder,
    textured_quad,
)
from tests.avatar.srgb import linear_from_srgb

HALF = np.sqrt(0.5)


def volume(avatar) -> float:
    """Signed: positive where faces wind counter-clockwise seen from outside."""
    corners = avatar.vertices[avatar.faces]
    return float(np.einsum("fc,fc->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


def test_node_transforms_are_baked_through_the_hierarchy(tmp_path):
    builder = GlbBuilder()
    builder.scene(builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES), translation=[1, 0, 0], scale=[2, 2, 2])
    quarter_turn_about_z = [0.0, 0.0, HALF, HALF]
    builder.json["nodes"].append({"children": [0], "rotation": quarter_turn_about_z, "translation": [0, 0, 5]})
    builder.json["scenes"] = [{"nodes": [1]}]
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    local = TETRAHEDRON * 2 + [1, 0, 0]
    expected = np.stack([-local[:, 1], local[:, 0], local[:, 2] + 5], axis=1)
    np.testing.assert_allclose(avatar.vertices, expected, atol=1e-6)


def test_matrix_is_column_major(tmp_path):
    builder = GlbBuilder()
    matrix = np.eye(4)
    matrix[:3, 3] = [1, 2, 3]
    builder.scene(builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES), matrix=matrix.T.reshape(-1).tolist())
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(avatar.vertices, TETRAHEDRON + [1, 2, 3])


def test_mirrored_node_keeps_the_surface_outside_out(tmp_path):
    plain, mirrored = GlbBuilder(), GlbBuilder()
    normals = -np.ones((4, 3), np.float32) / np.float32(np.sqrt(3))
    plain.scene(plain.primitive(TETRAHEDRON, TETRAHEDRON_FACES, NORMAL=normals))
    mirrored.scene(mirrored.primitive(TETRAHEDRON, TETRAHEDRON_FACES, NORMAL=normals), scale=[-1, 1, 2])
    one, two = load_avatar(plain.save(tmp_path / "a.glb")), load_avatar(mirrored.save(tmp_path / "b.glb"))
    assert volume(one) == pytest.approx(1.0)
    assert volume(two) == pytest.approx(2.0)
    expected = np.array([1, -1, -0.5]) / np.linalg.norm([1, 1, 0.5])
    np.testing.assert_allclose(two.parts[0].normals, np.tile(expected, (4, 1)), atol=1e-6)


def skinned(weights: np.ndarray, normalized: bool) -> GlbBuilder:
    builder = GlbBuilder()
    primitive = builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES)
    joints = np.array([[0, 1, 0, 0]] * 4, dtype=np.uint8)
    primitive["attributes"]["JOINTS_0"] = builder.accessor(joints)
    primitive["attributes"]["WEIGHTS_0"] = builder.accessor(weights, normalized=normalized)
    builder.scene(primitive, translation=[100, 100, 100], skin=0)
    # The bind pose was made with the joints at half the size and elsewhere, as rig converters do.
    inverse_bind = np.stack([np.diag([2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])]).astype(np.float32)
    inverse_bind[1, :3, 3] = [0, 0, -1]
    builder.json["nodes"] += [{"translation": [1, 0, 0], "children": [2]}, {"translation": [0, 0, 4]}]
    stored = builder.accessor(inverse_bind.transpose(0, 2, 1).reshape(2, 16))
    builder.json["skins"] = [{"joints": [1, 2], "inverseBindMatrices": stored}]
    builder.json["scenes"] = [{"nodes": [0, 1]}]
    return builder


def test_skin_replaces_the_node_transform(tmp_path):
    weights = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0.25, 0.75, 0, 0]], dtype=np.float32)
    avatar = load_avatar(skinned(weights, False).save(tmp_path / "a.glb"))
    first, second = 2 * TETRAHEDRON + [1, 0, 0], 2 * TETRAHEDRON + [1, 0, 3]
    expected = np.stack([first[0], first[1], second[2], 0.25 * first[3] + 0.75 * second[3]])
    np.testing.assert_allclose(avatar.vertices, expected, atol=1e-6)
    assert any("skin" in note for note in avatar.notes)


def test_skin_with_byte_weights_that_do_not_add_up(tmp_path):
    weights = np.array([[254, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [100, 100, 0, 0]], dtype=np.uint8)
    avatar = load_avatar(skinned(weights, True).save(tmp_path / "a.glb"))
    first, second = 2 * TETRAHEDRON + [1, 0, 0], 2 * TETRAHEDRON + [1, 0, 3]
    expected = np.stack([first[0], first[1], second[2], 0.5 * first[3] + 0.5 * second[3]])
    np.testing.assert_allclose(avatar.vertices, expected, atol=1e-6)


@pytest.mark.parametrize("where", ["mesh", "node"])
def test_default_morph_weights_are_applied(tmp_path, where):
    builder = GlbBuilder()
    primitive = builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES)
    up, side = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)
    up[3], side[0] = [0, 0, 2], [1, 0, 0]
    primitive["targets"] = [{"POSITION": builder.accessor(up)}, {"POSITION": builder.accessor(side)}]
    builder.scene(primitive, **({"weights": [0.5, 0.0]} if where == "node" else {}))
    builder.json["meshes"][0]["weights"] = [0.5, 0.0] if where == "mesh" else [0.0, 1.0]
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(avatar.vertices, TETRAHEDRON + 0.5 * up, atol=1e-6)


def two_meshes_with_morphs(path, names=None):
    """Two tetrahedra with two targets and one, of which "both" is in each; returns the path and the targets' moves."""
    builder, moves = GlbBuilder(), np.zeros((3, 4, 3), np.float32)
    moves[0, 3], moves[1, 0], moves[2, 1] = [0, 0, 2], [1, 0, 0], [0, 5, 0]
    one, two = (builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES) for _ in range(2))
    one["targets"] = [{"POSITION": builder.accessor(move)} for move in moves[:2]]
    two["targets"] = [{"POSITION": builder.accessor(moves[2])}]
    builder.scene(one, weights=[0.5, 0.0])
    builder.json["meshes"].append({"primitives": [two]})
    builder.json["nodes"].append({"mesh": 1, "translation": [0, 0, 10]})
    builder.json["scenes"] = [{"nodes": [0, 1]}]
    if names:
        builder.json["meshes"][0]["extras"], two["extras"] = {"targetNames": names[:2]}, {"targetNames": names[2:]}
    return builder.save(path), moves


def test_morph_targets_of_one_name_move_together(tmp_path):
    path, (up, side, high) = two_meshes_with_morphs(tmp_path / "a.glb", ["both", "side", "both"])
    assert morphs_of(path) == ["both", "side"]
    far = TETRAHEDRON + [0, 0, 10]
    rest, both, aside = (load_avatar(path, morph).vertices for morph in (None, "both", "side"))
    np.testing.assert_allclose(rest, np.concatenate([TETRAHEDRON + 0.5 * up, far]), atol=1e-6)
    np.testing.assert_allclose(both, np.concatenate([TETRAHEDRON + up, far + high]), atol=1e-6)
    np.testing.assert_allclose(aside, np.concatenate([TETRAHEDRON + 0.5 * up + side, far]), atol=1e-6)


def test_morph_targets_without_names_are_numbered(tmp_path):
    path, (up, _, high) = two_meshes_with_morphs(tmp_path / "a.glb")
    assert morphs_of(path) == ["morph_0", "morph_1"]
    moved = load_avatar(path, "morph_0").vertices
    np.testing.assert_allclose(moved, np.concatenate([TETRAHEDRON + up, TETRAHEDRON + [0, 0, 10] + high]), atol=1e-6)


def test_morph_targets_that_are_not_there_are_refused_with_those_that_are(tmp_path):
    path, _ = two_meshes_with_morphs(tmp_path / "a.glb", ["smile_L", "frown", "jawOpen"])
    assert chosen_morphs(path, ["all"]) == ["smile_L", "frown", "jawOpen"]
    assert chosen_morphs(path, ["frown", "smile_L", "frown"]) == ["frown", "smile_L"]
    with pytest.raises(InputError, match=r"--morphs JawOpn: .* It has 3: jawOpen, smile_L, frown\."):
        chosen_morphs(path, ["JawOpn"])
    assert chosen_morphs(path, ["frown", "all"]) == ["frown", "smile_L", "jawOpen"]
    with pytest.raises(InputError, match=r"--morphs nosuch: "):
        chosen_morphs(path, ["all", "nosuch"])
    bare = GlbBuilder()
    bare.scene(bare.primitive(TETRAHEDRON, TETRAHEDRON_FACES))
    with pytest.raises(InputError, match="has no morph targets"):
        chosen_morphs(bare.save(tmp_path / "b.glb"), ["all"])
    assert morphs_of(tmp_path / "c.stl") == [] and chosen_morphs(tmp_path / "c.stl", []) == []


def test_quantized_positions_and_texture_coordinates(tmp_path):
    builder = GlbBuilder()
    stored = np.array([[-32767, -32767, 0], [32767, -32767, 0], [32767, 32767, 0], [-32767, 32767, 0]], dtype=np.int16)
    padded = np.zeros((4, 4), dtype=np.int16)
    padded[:, :3] = stored
    view = builder.view(padded.tobytes(), byteStride=8)
    position = builder.accessor(stored, normalized=True, view=view)
    uv = np.array([[0, 65535], [65535, 65535], [65535, 0], [0, 0]], dtype=np.uint16)
    texture = builder.texture(np.full((2, 2, 3), 200, np.uint8))
    builder.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}}]
    names = {"POSITION": position, "TEXCOORD_0": builder.accessor(uv, normalized=True)}
    primitive = {"attributes": names, "indices": builder.accessor(QUAD_FACES.reshape(-1)), "material": 0}
    builder.scene(primitive, scale=[0.5, 0.5, 0.5])
    builder.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(avatar.vertices, QUAD * 0.5, atol=1e-4)
    np.testing.assert_allclose(avatar.parts[0].uv, [[0, 0], [1, 0], [1, 1], [0, 1]], atol=1e-4)


def test_unnormalized_integer_positions_are_taken_as_they_are(tmp_path):
    builder = GlbBuilder()
    builder.scene(builder.primitive((TETRAHEDRON * 10).astype(np.int16), TETRAHEDRON_FACES), scale=[0.1] * 3)
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(avatar.vertices, TETRAHEDRON, atol=1e-6)


@pytest.mark.parametrize("with_base", [True, False])
def test_sparse_accessor(tmp_path, with_base):
    builder = GlbBuilder()
    primitive = builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES)
    rows = np.array([1, 3], dtype=np.uint16) if with_base else np.array([1, 2, 3], dtype=np.uint16)
    values = TETRAHEDRON[rows.astype(int)] * 2
    entry = builder.json["accessors"][primitive["attributes"]["POSITION"]]
    entry["sparse"] = {
        "count": len(rows),
        "indices": {"bufferView": builder.view(rows.tobytes()), "componentType": 5123},
        "values": {"bufferView": builder.view(values.astype(np.float32).tobytes())},
    }
    if not with_base:
        del entry["bufferView"]
    builder.scene(primitive)
    expected = TETRAHEDRON.copy() if with_base else np.zeros_like(TETRAHEDRON)
    expected[rows] = values
    np.testing.assert_allclose(load_avatar(builder.save(tmp_path / "a.glb")).vertices, expected)


def test_vertex_colours_are_linear_in_the_file_and_srgb_in_memory(tmp_path):
    builder = GlbBuilder()
    linear = np.array([[0.0, 0.2, 1.0], [0.5, 0.5, 0.5], [1, 1, 1], [0.03, 0.01, 0.002]], dtype=np.float32)
    builder.scene(builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES, COLOR_0=linear))
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    colors = avatar.parts[0].vertex_colors
    assert colors[1, 0] == pytest.approx(0.7354, abs=1e-3)
    np.testing.assert_allclose(linear_from_srgb(colors[:, :3]), linear, atol=1e-6)
    np.testing.assert_allclose(colors[:, 3], 1.0)
    assert avatar.has_color


def test_base_colour_factor_is_linear_in_the_file(tmp_path):
    builder = GlbBuilder()
    primitive = builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES) | {"material": 0}
    builder.json["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.1, 0.0, 1.0]}}]
    builder.scene(primitive)
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(avatar.parts[0].base_color[:3], srgb_from_linear(np.array([0.5, 0.1, 0.0])))
    assert not avatar.has_color


def test_texture_transform(tmp_path):
    builder = textured_quad(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    reference = builder.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    reference["extensions"] = {
        "KHR_texture_transform": {"offset": [0.1, 0.2], "rotation": np.pi / 2, "scale": [2.0, 3.0]}
    }
    uv = load_avatar(builder.save(tmp_path / "a.glb")).parts[0].uv
    # The extension's own formula: translation x rotation x scale, on v-down coordinates.
    down = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=float) * [2.0, 3.0]
    expected = np.stack([down[:, 1] + 0.1, -down[:, 0] + 0.2], axis=1)
    np.testing.assert_allclose(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1), expected, atol=1e-6)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_embedded_texture(tmp_path, format):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    builder = textured_quad(pixels, format)
    if format == "WEBP":
        builder.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
        builder.json["extensionsRequired"] = ["EXT_texture_webp"]
    part = load_avatar(builder.save(tmp_path / "a.glb")).parts[0]
    np.testing.assert_array_equal(part.texture[..., :3], pixels)


def test_strips_and_fans(tmp_path):
    for mode, order in ((5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])):
        builder = GlbBuilder()
        primitive = builder.primitive(QUAD, np.array(order, dtype=np.uint16)) | {"mode": mode}
        builder.scene(primitive)
        avatar = load_avatar(builder.save(tmp_path / "a.glb"))
        normals, area = face_normals(avatar.vertices, avatar.faces)
        assert area.sum() == pytest.approx(4.0)
        np.testing.assert_allclose(normals, [[0, 0, 1], [0, 0, 1]], atol=1e-12)


def test_triangles_without_indices_are_welded(tmp_path):
    builder = GlbBuilder()
    soup = TETRAHEDRON[TETRAHEDRON_FACES.reshape(-1)]
    primitive = builder.primitive(soup, np.zeros(3, np.uint16))
    del primitive["indices"]
    builder.scene(primitive)
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    assert len(avatar.vertices) == 4
    assert volume(avatar) == pytest.approx(1.0)


def test_parts_with_several_materials_and_meshes(tmp_path):
    builder = GlbBuilder()
    first = builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES) | {"material": 0}
    second = builder.primitive(QUAD, QUAD_FACES) | {"material": 1}
    builder.json["materials"] = [
        {"doubleSided": True},
        {"alphaMode": "MASK", "alphaCutoff": 0.2, "pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 0.3]}},
    ]
    builder.scene(first)
    builder.json["meshes"][0]["primitives"].append(second)
    builder.json["nodes"].append({"mesh": 0, "name": "again", "translation": [5, 0, 0]})
    builder.json["scenes"] = [{"nodes": [0, 1]}]
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    assert [part.name for part in avatar.parts] == ["mesh0", "mesh0", "again", "again"]
    assert avatar.parts[0].double_sided and not avatar.parts[1].double_sided
    assert avatar.parts[1].alpha_mode == "mask" and avatar.parts[1].alpha_cutoff == 0.2
    assert len(avatar.vertices) == 16 and avatar.faces.max() == 15
    np.testing.assert_allclose(avatar.bounds, [[-1, -1, 0], [6, 2, 3]])


@pytest.mark.parametrize("kind", ["blend", "transmission"])
def test_transparent_shells_are_left_out(tmp_path, kind):
    builder = GlbBuilder()
    first = builder.primitive(TETRAHEDRON, TETRAHEDRON_FACES)
    second = builder.primitive(QUAD, QUAD_FACES) | {"material": 0}
    builder.json["materials"] = [
        {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.1]}}
        if kind == "blend"
        else {"extensions": {"KHR_materials_transmission": {"transmissionFactor": 1.0}}}
    ]
    builder.scene(first)
    builder.json["meshes"][0]["primitives"].append(second)
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    assert len(avatar.parts) == 1 and len(avatar.vertices) == 4
    assert any("transparent" in note for note in avatar.notes)


def test_an_avatar_that_is_transparent_everywhere_is_taken_as_opaque(tmp_path):
    builder = textured_quad(np.zeros((2, 2, 4), np.uint8), alphaMode="BLEND")
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    assert avatar.parts[0].alpha_mode == "opaque"


def test_gltf_with_data_uri_and_with_files_beside_it(tmp_path):
    builder = textured_quad(np.full((2, 2, 3), 90, np.uint8))
    whole = load_avatar(builder.save(tmp_path / "a.glb"))
    document = json.loads(json.dumps(builder.json))
    image = document["images"][0]
    view = document["bufferViews"][image.pop("bufferView")]
    (tmp_path / "my skin.png").write_bytes(builder.binary[view["byteOffset"] :][: view["byteLength"]])
    image["uri"] = "my%20skin.png"
    (tmp_path / "a.bin").write_bytes(builder.binary)
    document["buffers"] = [{"byteLength": len(builder.binary), "uri": "a.bin"}]
    (tmp_path / "files.gltf").write_text(json.dumps(document))
    encoded = base64.b64encode(builder.binary).decode()
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{encoded}"
    (tmp_path / "data.gltf").write_text(json.dumps(document))
    for name in ("files.gltf", "data.gltf"):
        avatar = load_avatar(tmp_path / name)
        np.testing.assert_array_equal(avatar.vertices, whole.vertices)
        np.testing.assert_array_equal(avatar.parts[0].texture, whole.parts[0].texture)
    before = load_avatar(tmp_path / "files.gltf").file_hash
    (tmp_path / "my skin.png").write_bytes((tmp_path / "my skin.png").read_bytes() + b"\0")
    assert load_avatar(tmp_path / "files.gltf").file_hash != before


@pytest.mark.parametrize(
    "uri", ["../secret.bin", "%2e%2e/secret.bin", "/etc/hostname", "http://x.org/a.bin", "C:\\a.bin"]
)
def test_no_buffer_outside_of_the_folder_is_read(tmp_path, uri):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 1000)
    folder = tmp_path / "inside"
    folder.mkdir()
    builder = textured_quad(np.full((2, 2, 3), 90, np.uint8))
    builder.json["buffers"] = [{"byteLength": len(builder.binary), "uri": uri}]
    path = folder / "a.gltf"
    path.write_text(json.dumps(builder.json))
    with pytest.raises(InputError, match=r"not in the avatar's folder") as caught:
        load_avatar(path)
    assert "buffer" in str(caught.value) and path.name in str(caught.value)


def draco_quad(tmp_path) -> GlbBuilder:
    import DracoPy

    packed = DracoPy.encode(QUAD, QUAD_FACES.astype(np.uint32), quantization_bits=14)
    builder = GlbBuilder()
    primitive = builder.primitive(QUAD, QUAD_FACES)
    primitive["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": builder.view(packed), "attributes": {"POSITION": 0}}
    }
    for accessor in builder.json["accessors"]:
        del accessor["bufferView"]
    builder.scene(primitive)
    return builder


def test_draco(tmp_path):
    avatar = load_avatar(draco_quad(tmp_path).save(tmp_path / "a.glb"))
    np.testing.assert_allclose(avatar.bounds, [[-1, -1, 0], [1, 1, 0]], atol=1e-3)
    normals, area = face_normals(avatar.vertices, avatar.faces)
    assert area.sum() == pytest.approx(4.0, abs=1e-2)
    assert (normals[:, 2] > 0.99).all()


def test_specular_glossiness_and_emissive_pictures_count_as_base_colour(tmp_path):
    builder = textured_quad(np.full((2, 2, 3), 90, np.uint8))
    builder.json["materials"] = [
        {"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseTexture": {"index": 0}}}}
    ]
    assert load_avatar(builder.save(tmp_path / "a.glb")).parts[0].texture is not None
    builder.json["materials"] = [
        {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}, "emissiveTexture": {"index": 0}}
    ]
    part = load_avatar(builder.save(tmp_path / "a.glb")).parts[0]
    assert part.texture is not None and part.base_color == pytest.approx((1.0, 1.0, 1.0, 1.0))
