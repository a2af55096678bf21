"""Pictures and materials that an avatar names: found beside it by name, else done without, with one warning."""

import numpy as np
import pytest
from PIL import Image

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.local_files import LocalFiles
from tests.avatar.glb_builder import textured_quad

SQUARE = "v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n"
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def obj(folder, picture: str | None, library: str = "a.mtl", color: str = "Kd 1 0.5 0\n"):
    folder.mkdir(exist_ok=True)
    (folder / "a.obj").write_text(f"mtllib {library}\nusemtl skin\n{SQUARE}")
    if picture is not None:
        (folder / "a.mtl").write_text(f"newmtl skin\n{color}map_Kd {picture}\n")
    return folder / "a.obj"


def glb(folder, uri: str):
    folder.mkdir(exist_ok=True)
    builder = textured_quad(PIXELS)
    builder.json["images"] = [{"uri": uri}]
    builder.json["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [1, 0.2, 0, 1]
    return builder.save(folder / "a.glb")


def ply(folder, picture: str):
    folder.mkdir(exist_ok=True)
    floats = "".join(f"property float {name}\n" for name in ("x", "y", "z", "s", "t"))
    rows = "0 0 0 0 0\n1 0 0 1 0\n1 1 0 1 1\n0 1 0 0 1\n3 0 1 2\n3 0 2 3\n"
    faces = "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    text = f"ply\nformat ascii 1.0\ncomment TextureFile {picture}\nelement vertex 4\n{floats}{faces}{rows}"
    (folder / "a.ply").write_text(text)
    return folder / "a.ply"


WRITERS = {"obj": obj, "glb": glb, "ply": ply}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    "name",
    [
        "Skin.png",
        "SKIN.PNG",
        "C:\\Users\\me\\Desktop\\skin.PNG",
        "C:/Users/me/skin.png",
        "/home/me/scan/Skin.png",
        "\\\\server\\share\\Skin.png",
        "../Skin.png",
        "maps/../Skin.png",
        "./Skin.png",
        "gone/Skin.png",
        "file:///home/me/Skin.png",
    ],
)
def test_found_by_its_base_name_beside_the_avatar(tmp_path, kind, name):
    path = WRITERS[kind](tmp_path, name.replace("\\", "%5C") if kind == "glb" else name)
    Image.fromarray(PIXELS).save(tmp_path / "Skin.png")
    avatar = load_avatar(path)
    np.testing.assert_array_equal(avatar.parts[0].texture[..., :3], PIXELS)
    assert avatar.warnings == []
    renamed = not name.endswith("Skin.png")
    assert [note for note in avatar.notes if "read from Skin.png" in note] == [
        f"texture '{name}' read from Skin.png"
    ] * renamed


def test_a_picture_in_a_folder_beside_the_avatar_is_found_by_the_end_of_its_path(tmp_path):
    (tmp_path / "Maps").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "Maps" / "a b.png")
    avatar = load_avatar(obj(tmp_path, "D:\\job\\maps\\A B.PNG"))
    np.testing.assert_array_equal(avatar.parts[0].texture[..., :3], PIXELS)


def test_the_exact_name_goes_before_another_case(tmp_path):
    for name, value in (("Skin.png", 10), ("skin.png", 200)):
        Image.fromarray(np.full((2, 2, 3), value, np.uint8)).save(tmp_path / name)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("the file system ignores case")
    assert load_avatar(obj(tmp_path, "skin.png")).parts[0].texture[0, 0, 0] == 200
    assert load_avatar(obj(tmp_path, "Skin.png")).parts[0].texture[0, 0, 0] == 10


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "http://x.org/secret.png", "link.png", "out/secret.png"]
)
def test_nothing_outside_of_the_folder_is_read(tmp_path, kind, name):
    Image.fromarray(PIXELS).save(tmp_path / "secret.png")
    folder = tmp_path / "inside"
    path = WRITERS[kind](folder, name)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    avatar = load_avatar(path)
    assert avatar.parts[0].texture is None
    assert len(avatar.warnings) == 1 and f"{name} (not in the avatar's folder)" in avatar.warnings[0]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("damage", ["missing", "text", "cut", "folder", "ktx2"])
def test_an_unusable_picture_leaves_the_material_and_one_warning(tmp_path, kind, damage):
    content = {"text": b"no picture", "ktx2": b"\xabKTX 20\xbb\r\n\x1a\n" + b"\0" * 100}.get(damage)
    target = tmp_path / "skin.png"
    if damage == "cut":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(target)
        content = target.read_bytes()[:3000]
    if content is not None:
        target.write_bytes(content)
    if damage == "folder":
        target.mkdir()
    avatar = load_avatar(WRITERS[kind](tmp_path, "skin.png"))
    part = avatar.parts[0]
    assert part.texture is None and not avatar.has_color
    assert len(avatar.warnings) == 1
    assert (
        str(avatar.path) in avatar.warnings[0] and "skin.png" in avatar.warnings[0] and "\n" not in avatar.warnings[0]
    )
    if kind == "obj":
        assert part.base_color == (1.0, 0.5, 0.0, 1.0)
    if kind == "glb":
        assert part.base_color[0] == pytest.approx(1.0) and part.base_color[2] == 0.0


def test_black_beside_a_missing_texture_means_the_texture(tmp_path):
    assert load_avatar(obj(tmp_path, "gone.png", color="Kd 0 0 0\n")).parts[0].base_color == (1.0, 1.0, 1.0, 1.0)


def test_one_warning_names_every_file(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd one.png\nmap_d two.png\nnewmtl hair\nmap_Kd three.png\n")
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl gone.mtl\nusemtl skin\n{SQUARE}usemtl hair\nf 1/1 2/2 3/3\n")
    avatar = load_avatar(tmp_path / "a.obj")
    assert len(avatar.parts) == 2 and len(avatar.warnings) == 1
    for name in ("one.png", "two.png", "three.png", "gone.mtl"):
        assert name in avatar.warnings[0]


def test_missing_material_file(tmp_path):
    avatar = load_avatar(obj(tmp_path, None, library="my skin.mtl"))
    assert len(avatar.faces) == 2 and not avatar.has_color
    assert len(avatar.warnings) == 1 and "my skin.mtl (not in" in avatar.warnings[0]
    (tmp_path / "My Skin.MTL").write_text("newmtl skin\nKd 1 0 0\n")
    avatar = load_avatar(tmp_path / "a.obj")
    assert avatar.warnings == [] and avatar.parts[0].base_color == (1.0, 0.0, 0.0, 1.0)


def test_a_damaged_line_of_a_material_file(tmp_path):
    avatar = load_avatar(obj(tmp_path, "skin.png", color="Kd red\nd\n"))
    assert "a.mtl (not readable: d)" in avatar.warnings[0]


def test_pictures_inside_a_glb(tmp_path):
    builder = textured_quad(PIXELS)
    view = builder.json["bufferViews"][builder.json["images"][0]["bufferView"]]
    start = view["byteOffset"]
    builder.binary = builder.binary[:start] + b"no picture" + builder.binary[start + 10 :]
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    assert avatar.parts[0].texture is None and "image 0 (not a picture" in avatar.warnings[0]
    builder.json["images"] = [{"uri": "data:image/png;base64,AAA"}]
    assert "damaged" in load_avatar(builder.save(tmp_path / "a.glb")).warnings[0]


def test_ktx2_names_the_extension_and_the_tool_unless_there_is_another_picture(tmp_path):
    builder = textured_quad(PIXELS)
    builder.json["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    avatar = load_avatar(builder.save(tmp_path / "a.glb"))
    assert avatar.parts[0].texture is None
    assert "KHR_texture_basisu" in avatar.warnings[0] and "cli ktxdecompress a.glb" in avatar.warnings[0]
    builder.json["textures"][0]["source"] = 0
    assert load_avatar(builder.save(tmp_path / "a.glb")).parts[0].texture is not None
    builder.json["textures"] = [{"extensions": {"EXT_texture_avif": {"source": 0}}}]
    assert "EXT_texture_avif" in load_avatar(builder.save(tmp_path / "a.glb")).warnings[0]


@pytest.mark.parametrize("name", ["", "..", ".", "/", "\\", "a\0b.png", "x" * 5000, "../..", "C:", " "])
def test_names_that_mean_no_file(tmp_path, name):
    assert LocalFiles(tmp_path / "a.obj").find(name) is None


def test_files_that_were_read_are_part_of_the_hash(tmp_path):
    path = obj(tmp_path, "C:\\x\\skin.png")
    before = load_avatar(path).file_hash
    Image.fromarray(PIXELS).save(tmp_path / "skin.png")
    after = load_avatar(path).file_hash
    (tmp_path / "a.mtl").write_text((tmp_path / "a.mtl").read_text() + "# changed\n")
    assert len({before, after, load_avatar(path).file_hash}) == 3
