"""PLY files with triangle strips."""

import numpy as np
import pytest
from PIL import Image

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.ply import strip_triangles
from flame_fitting.errors import InputError
from flame_fitting.maths.normals import face_normals

# A flat grid of 4 x 3 vertices in two strips, then one triangle of its own.
GRID = np.array([(x, y, 0.0) for y in range(3) for x in range(4)])
STRIPS = [0, 4, 1, 5, 2, 6, 3, 7, -1, 4, 8, 5, 9, 6, 10, 7, 11, -1]
COLORS = np.arange(36, dtype=np.uint8).reshape(12, 3)


def write(path, form: str, lists: list[list[int]], kind: str = "int", extra: str = "", between: bytes = b"") -> None:
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(form, "")
    header = f"ply\nformat {form} 1.0\nelement vertex {len(GRID)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz")
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    header += f"{extra}element tristrips {len(lists)}\nproperty list int {kind} vertex_indices\nend_header\n"
    if not order:
        rows = ["{} {} {} {} {} {}".format(*v, *c) for v, c in zip(GRID, COLORS, strict=True)]
        rows += [between.decode()] if between else []
        rows += [" ".join(map(str, [len(strip), *strip])) for strip in lists]
        path.write_text(header + "\n".join(rows) + "\n")
        return
    table = np.empty(len(GRID), dtype=[("v", f"{order}f8", 3), ("c", "u1", 3)])
    table["v"], table["c"] = GRID, COLORS
    number = {"int": f"{order}i4", "uint": f"{order}u4"}[kind]
    body = [np.array([len(s)], f"{order}i4").tobytes() + np.array(s).astype(number).tobytes() for s in lists]
    path.write_bytes(header.encode() + table.tobytes() + between + b"".join(body))


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("split", [False, True])
def test_strips_are_triangles_with_one_winding(tmp_path, form, split):
    lists = [STRIPS[:8], STRIPS[9:17]] if split else [STRIPS]
    write(tmp_path / "a.ply", form, lists)
    part = load_avatar(tmp_path / "a.ply").parts[0]
    normals, area = face_normals(part.vertices, part.faces)
    assert len(part.faces) == 12 and area.sum() == pytest.approx(6.0)
    assert np.allclose(normals, normals[0]) and abs(normals[0, 2]) == 1.0
    np.testing.assert_allclose(part.vertices, GRID)
    np.testing.assert_allclose(part.vertex_colors[:, :3], COLORS / 255.0)


def test_unsigned_indices_and_faces_beside_strips(tmp_path):
    write(tmp_path / "a.ply", "binary_little_endian", [[i % 2**32 for i in STRIPS[:9]]], kind="uint")
    assert len(load_avatar(tmp_path / "a.ply").faces) == 6
    face = "element face 1\nproperty list uchar int vertex_indices\nproperty float quality\n"
    between = b"\x04" + np.array([4, 5, 9, 8], "<i4").tobytes() + np.array([0.5], "<f4").tobytes()
    write(tmp_path / "a.ply", "binary_little_endian", [STRIPS[:9]], extra=face, between=between)
    assert len(load_avatar(tmp_path / "a.ply").faces) == 8
    write(tmp_path / "b.ply", "ascii", [STRIPS[:9]], extra=face, between=b"4 4 5 9 8 0.5")
    assert len(load_avatar(tmp_path / "b.ply").faces) == 8


def test_winding_starts_anew_in_every_strip_and_goes_on_over_triangles_without_area():
    np.testing.assert_array_equal(strip_triangles(np.array([0, 1, 2, 3])), [[0, 1, 2], [2, 1, 3]])
    twice = strip_triangles(np.array([9, 8, 7, -1, 0, 1, 2, 3, -1]))
    np.testing.assert_array_equal(twice, [[9, 8, 7], [0, 1, 2], [2, 1, 3]])
    stitched = strip_triangles(np.array([0, 1, 2, 2, 3, 4]))
    np.testing.assert_array_equal(stitched, [[0, 1, 2], [3, 2, 4]])
    assert len(strip_triangles(np.array([-1, 0, 1, -1, -1]))) == 0


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_damaged_strips(tmp_path, form):
    path = tmp_path / "a.ply"
    write(path, form, [STRIPS])
    whole = path.read_bytes()
    for cut in (30, 1):
        path.write_bytes(whole[: -cut - 5])
        with pytest.raises(InputError, match=r"a\.ply"):
            load_avatar(path)
    write(path, form, [[0, 1, 99]])
    with pytest.raises(InputError, match=r"a\.ply.*99"):
        load_avatar(path)
    write(path, form, [[0, 1]])
    with pytest.raises(InputError, match=r"a\.ply"):
        load_avatar(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_polygons_of_mixed_sizes_keep_face_colours_and_corner_texture(tmp_path, order):
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 1, 0]])
    polygons = [([0, 1, 2, 3], (255, 0, 0)), ([1, 4, 2], (0, 255, 0))]
    form = "binary_little_endian" if order == "<" else "binary_big_endian"
    for kind in ("plain", "color", "texture"):
        header = f"ply\nformat {form} 1.0\n" + "comment TextureFile s.png\n" * (kind == "texture")
        header += "element vertex 5\n" + "".join(f"property double {axis}\n" for axis in "xyz")
        header += "element face 2\nproperty list uchar int vertex_indices\n"
        header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")) * (kind == "color")
        header += "property list uchar float texcoord\n" * (kind == "texture") + "end_header\n"
        body = points.astype(f"{order}f8").tobytes()
        for corners, color in polygons:
            body += bytes([len(corners)]) + np.array(corners, f"{order}i4").tobytes()
            body += bytes(color) if kind == "color" else b""
            uv = points[corners, :2].astype(f"{order}f4").tobytes()
            body += bytes([2 * len(corners)]) + uv if kind == "texture" else b""
        (tmp_path / "a.ply").write_bytes(header.encode() + body)
        Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "s.png")
        part = load_avatar(tmp_path / "a.ply").parts[0]
        _, area = face_normals(part.vertices, part.faces)
        assert len(part.faces) == 3 and area.sum() == pytest.approx(1.5)
        if kind == "color":
            colors = part.vertex_colors[part.faces].mean(axis=1)
            np.testing.assert_allclose(colors[:, :3], [[1, 0, 0], [1, 0, 0], [0, 1, 0]], atol=1e-9)
        if kind == "texture":
            np.testing.assert_allclose(part.uv, part.vertices[:, :2], atol=1e-6)
            assert part.texture is not None
        (tmp_path / "a.ply").write_bytes((header.encode() + body)[:-3])
        with pytest.raises(InputError, match=r"a\.ply"):
            load_avatar(tmp_path / "a.ply")
