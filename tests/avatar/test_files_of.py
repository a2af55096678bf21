"""An avatar's hash sees every file that loading would read, also one that is not there yet."""

import json
import struct
from pathlib import Path

import pytest

from flame_fitting.avatar.files_of import avatar_files, hash_avatar
from flame_fitting.errors import InputError

OBJ = "mtllib head.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl skin\nf 1/1 2/1 3/1\n"


def names(path: Path) -> list[str]:
    main, *others = avatar_files(path)
    assert main == path
    return [other.relative_to(path.parent).as_posix() for other in others]


def obj(folder: Path, statement: str = "map_Kd skin.png", text: str = OBJ) -> Path:
    (folder / "a.obj").write_text(text)
    (folder / "head.mtl").write_text(f"newmtl skin\nKd 1 1 1\n{statement}\n")
    (folder / "unrelated.png").write_bytes(b"unrelated")
    return folder / "a.obj"


def glb(folder: Path, document: dict) -> Path:
    body = json.dumps(document).encode()
    body += b" " * (-len(body) % 4)
    chunk = struct.pack("<I4s", len(body), b"JSON") + body
    (folder / "a.glb").write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunk)) + chunk)
    return folder / "a.glb"


def test_every_change_of_a_texture_is_seen(tmp_path: Path) -> None:
    path, texture = obj(tmp_path), tmp_path / "skin.png"
    hashes = [hash_avatar(path)]
    for step in (
        lambda: texture.write_bytes(b"one"),  # it comes
        lambda: texture.write_bytes(b"two"),  # it is edited
        lambda: (tmp_path / "head.mtl").write_text("newmtl skin\nKd 0 1 1\nmap_Kd skin.png\n"),
        lambda: texture.unlink(),  # it goes
        lambda: (tmp_path / "head.mtl").unlink(),
    ):
        step()
        hashes.append(hash_avatar(path))
    assert len(set(hashes)) == len(hashes)
    (tmp_path / "unrelated.png").write_bytes(b"changed")
    assert hash_avatar(path) == hashes[-1]


def test_a_copy_in_another_place_has_the_same_hash(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "skin.png").write_bytes(b"skin")
        hashes.add(hash_avatar(obj(tmp_path / name)))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("statement", "there"),
    [
        ("map_Kd skin.png", "skin.png"),
        ("map_Kd -o 0.5 0 0 -clamp on my skin.png", "my skin.png"),
        ('map_Kd "my skin.png"', "my skin.png"),
        ("map_d alpha.png", "alpha.png"),
        ("  map_Kd\tskin.png", "skin.png"),
        (r"map_Kd C:\Users\me\Color.JPG", "color.jpg"),
        ("map_Kd /home/me/Color.JPG", "color.jpg"),
        ("map_Kd textures/skin.png", "textures/skin.png"),
        (r"map_Kd textures\skin.png", "textures/skin.png"),
        (r"map_Kd C:\work\Textures\Skin.png", "textures/skin.png"),
    ],
)
def test_names_in_materials(statement: str, there: str, tmp_path: Path) -> None:
    path = obj(tmp_path, statement)
    (tmp_path / "textures").mkdir()
    assert names(path) == ["head.mtl"]
    (tmp_path / there).write_bytes(b"skin")
    assert names(path) == sorted(["head.mtl", there])


@pytest.mark.parametrize(
    "line", ["mtllib head.mtl", "mtllib other.mtl head.mtl", "mtllib C:\\x\\HEAD.mtl", "mtllib\thead.mtl\r"]
)
def test_names_of_material_files(line: str, tmp_path: Path) -> None:
    path = obj(tmp_path, text=OBJ.replace("mtllib head.mtl", line))
    assert names(path) == ["head.mtl"]


@pytest.mark.parametrize("suffix", [".gltf", ".glb", ".vrm"])
def test_buffers_and_images_of_gltf(suffix: str, tmp_path: Path) -> None:
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "my%20data.bin"}, {"uri": "data:application/octet-stream;base64,AAAA"}, {"byteLength": 4}],
        "images": [{"uri": "textures/skin.png"}, {"bufferView": 0}, {"uri": 5}, "no object"],
    }
    if suffix == ".gltf":
        path = tmp_path / "a.gltf"
        path.write_text(json.dumps(document))
    else:
        path = glb(tmp_path, document).rename(tmp_path / f"a{suffix}")
    first = hash_avatar(path)
    (tmp_path / "my data.bin").write_bytes(b"data")
    (tmp_path / "textures").mkdir()
    (tmp_path / "textures/skin.png").write_bytes(b"skin")
    assert names(path) == ["my data.bin", "textures/skin.png"] and hash_avatar(path) != first


def test_texture_of_ply(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_text("ply\nformat ascii 1.0\ncomment TextureFile my skin.png\nelement vertex 0\nend_header\n")
    (tmp_path / "my skin.png").write_bytes(b"skin")
    assert names(path) == ["my skin.png"]


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    inner = tmp_path / "avatar"
    inner.mkdir()
    for statement in ("map_Kd ../secret.png", f"map_Kd {tmp_path}/secret.png", "map_Kd link.png"):
        path = obj(inner, statement)
        assert names(path) == ["head.mtl"]


@pytest.mark.parametrize("name", ["a.obj", "a.glb", "a.gltf", "a.ply", "a.stl", "a.xyz"])
@pytest.mark.parametrize(
    "content", [b"", b"glTF\2\0\0\0", b'{"buffers": 3}', b"\xff\x00mtllib \xfe\x00\n", b"[" * 5000]
)
def test_damaged_files_have_a_hash_and_name_nothing(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert names(tmp_path / name) == [] and len(hash_avatar(tmp_path / name)) == 64


def test_a_missing_avatar_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.obj"):
        hash_avatar(tmp_path / "a.obj")
