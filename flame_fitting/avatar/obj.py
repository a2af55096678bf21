"""Wavefront OBJ with its MTL: parts by material, polygons as fans, own indices for UV and normals."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from flame_fitting.avatar.local_files import LocalFiles
from flame_fitting.avatar.mesh import MeshPart, fan_triangles, split_by_index, with_alpha
from flame_fitting.avatar.text_numbers import numbers_of
from flame_fitting.errors import InputError


@dataclass
class Material:
    """What an MTL file says about one material."""

    diffuse: tuple[float, float, float] = (1.0, 1.0, 1.0)
    alpha: float = 1.0
    texture: str | None = None
    alpha_texture: str | None = None
    wrap: str = "repeat"


@dataclass
class _Faces:
    """Corner indices of the polygons of one material, as written."""

    corners: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def read_obj(content: bytes, files: LocalFiles, note: Callable[[str], None]) -> list[MeshPart]:
    """Parts of an OBJ file, one for each material in use."""
    numbers: dict[str, list[str]] = {"v": [], "vt": [], "vn": []}
    groups: dict[str, _Faces] = {}
    materials: dict[str, Material] = {}
    current = ""
    text = content.decode("utf-8", errors="replace").replace("\\\r\n", " ").replace("\\\n", " ").replace("\t", " ")
    # Indices that count backwards refer to what came before them, so the counts at each face are needed.
    relative: list[tuple[str, int, int, int, int, int]] = []
    for line in text.splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword in numbers:
            numbers[keyword].append(_without_comment(rest))
        elif keyword == "f":
            tokens = _without_comment(rest).split()
            if len(tokens) < 3:
                continue
            group = groups.setdefault(current, _Faces())
            if "-" in rest:
                relative.append(
                    (
                        current,
                        len(group.corners),
                        len(tokens),
                        len(numbers["v"]),
                        len(numbers["vt"]),
                        len(numbers["vn"]),
                    )
                )
            group.corners += tokens
            group.sizes.append(len(tokens))
        elif keyword == "usemtl":
            current = rest.strip()
        elif keyword == "mtllib":
            materials |= _read_libraries(rest.strip(), files)
    _resolve_relative(groups, relative)
    positions, colors = _positions(numbers["v"])
    uv = _table(numbers["vt"], 2)
    normals = _table(numbers["vn"], 3)
    missing = [name for name in groups if name and name not in materials]
    if missing and materials:
        note(f"materials that the .mtl does not define: {', '.join(missing)}")
    return [
        part
        for name, group in groups.items()
        for part in _parts(name, group, positions, colors, uv, normals, materials.get(name, Material()), files, note)
    ]


def _without_comment(text: str) -> str:
    # 1.#QNAN is a number (of a kind)
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0] if "#" in text else text


def _resolve_relative(groups: dict[str, _Faces], relative: list[tuple[str, int, int, int, int, int]]) -> None:
    for name, start, size, *counts in relative:
        group = groups[name]
        for position in range(start, start + size):
            if "-" not in group.corners[position]:
                continue
            fields = group.corners[position].split("/")
            for k, text in enumerate(fields):
                if text.startswith("-"):
                    fields[k] = str(counts[k] + 1 + int(text))
            group.corners[position] = "/".join(fields)


def _positions(lines: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Vertices (V, 3) and, where every line has six numbers, their colours (V, 4), which tools write as sRGB."""
    if not lines:
        return np.zeros((0, 3)), None
    width = len(lines[0].split())
    table = numbers_of(" ".join(lines).split())
    if width >= 3 and table.size == width * len(lines):
        table = table.reshape(len(lines), width)
    else:
        table = _table(lines, 3)
    if table.shape[1] < 6:
        return table[:, :3], None
    colors = table[:, 3:6]
    return table[:, :3], with_alpha(colors / 255.0 if colors.max() > 1.0 else colors)


def _table(lines: list[str], width: int) -> np.ndarray:
    """The first `width` numbers of every line; a missing one is 0."""
    values = numbers_of(" ".join(lines).split())
    if lines and values.size % len(lines) == 0 and values.size // len(lines) >= width:
        columns = values.size // len(lines)
        if all(len(line.split()) == columns for line in lines):
            return values.reshape(len(lines), columns)[:, :width]
    rows = [(line.split() + ["0"] * width)[:width] for line in lines]
    return numbers_of([word for row in rows for word in row]).reshape(-1, width)


def _parts(
    name: str,
    group: _Faces,
    positions: np.ndarray,
    colors: np.ndarray | None,
    uv: np.ndarray,
    normals: np.ndarray,
    material: Material,
    files: LocalFiles,
    note: Callable[[str], None],
) -> Iterator[MeshPart]:
    """One part, or two where only some of the faces have texture coordinates."""
    fields = np.array([_three(corner) for corner in group.corners], dtype=np.int64).reshape(-1, 3) - 1
    fan = fan_triangles(np.array(group.sizes, dtype=np.int64))
    for column, (kind, count) in enumerate((("v", len(positions)), ("vt", len(uv)), ("vn", len(normals)))):
        if fields[:, column].max(initial=-1) >= count:
            if kind == "v":
                raise InputError(
                    f"{files.main}: a face refers to vertex {int(fields[:, 0].max()) + 1}, but there are {count}. "
                    "The file is damaged or cut short; export it again."
                )
            fields[:, column] = -1
    if (fields[:, 0] < 0).any():
        raise InputError(f"{files.main}: a face refers to a vertex before the first. Export the file again.")
    with_uv = (fields[fan, 1] >= 0).all(axis=1)
    has_normals = bool((fields[:, 2] >= 0).all())
    if material.texture and not with_uv.all():
        note(f"faces without texture coordinates have no texture ({name or files.main.stem})")
    for has_uv in (True, False):
        chosen = fan[with_uv == has_uv]
        if len(chosen) == 0:
            continue
        columns = [0] + [1] * has_uv + [2] * has_normals
        faces, rows = split_by_index(*(fields[chosen, column] for column in columns))
        part = _plain_part(name, faces, rows, has_uv, has_normals, positions, colors, uv, normals, material, files)
        if has_uv:
            _add_texture(part, material, files, note)
        yield part


def _plain_part(
    name: str,
    faces: np.ndarray,
    rows: list[np.ndarray],
    has_uv: bool,
    has_normals: bool,
    positions: np.ndarray,
    colors: np.ndarray | None,
    uv: np.ndarray,
    normals: np.ndarray,
    material: Material,
    files: LocalFiles,
) -> MeshPart:
    return MeshPart(
        vertices=positions[rows[0]],
        faces=faces,
        name=name or files.main.stem,
        normals=normals[rows[-1]] if has_normals else None,
        uv=uv[rows[1]] if has_uv else None,
        vertex_colors=None if colors is None else colors[rows[0]],
        base_color=(*material.diffuse, material.alpha),
        alpha_mode="blend" if material.alpha < 1.0 else "opaque",
        double_sided=True,
        wrap=(material.wrap, material.wrap),
    )


def _three(corner: str) -> tuple[int, int, int]:
    fields = corner.split("/")
    return int(fields[0]), int(fields[1] or 0) if len(fields) > 1 else 0, int(fields[2] or 0) if len(fields) > 2 else 0


def _read_libraries(names: str, files: LocalFiles) -> dict[str, Material]:
    """Materials of an mtllib statement: one file whose name may hold blanks, or several files."""
    several = names.split() if files.find(names) is None else [names]
    materials: dict[str, Material] = {}
    for name in several if all(part.lower().endswith(".mtl") for part in several) else [names]:
        content = files.material(name)
        if content is not None:
            materials |= _read_materials(content, name, files)
    return materials


def _read_materials(content: bytes, name: str, files: LocalFiles) -> dict[str, Material]:
    materials: dict[str, Material] = {}
    current = Material()
    for line in content.decode("utf-8", errors="replace").splitlines():
        keyword, _, rest = line.strip().replace("\t", " ").partition(" ")
        if keyword.lower() == "newmtl":
            current = materials.setdefault(rest.strip(), Material())
            continue
        try:
            _read_statement(current, keyword.lower(), rest.strip())
        except (ValueError, IndexError):
            files.without_color[name] = f"not readable: {line.strip()[:60]}"
    for material in materials.values():
        # Exporters write black beside a texture and mean the texture.
        if material.texture and max(material.diffuse) == 0.0:
            material.diffuse = (1.0, 1.0, 1.0)
    return materials


def _read_statement(material: Material, keyword: str, rest: str) -> None:
    if keyword == "kd" and rest.split()[:1] not in (["spectral"], ["xyz"]):
        red, green, blue = (float(value) for value in (rest.split() * 3)[:3])
        material.diffuse = (red, green, blue)
    elif keyword == "d":
        material.alpha = float(rest.split()[-1])
    elif keyword == "tr":
        material.alpha = 1.0 - float(rest.split()[-1])
    elif keyword in ("map_kd", "map_d"):
        if re.search(r"-clamp\s+on", rest):
            material.wrap = "clamp"
        if keyword == "map_kd":
            material.texture = _texture_name(rest)
        else:
            material.alpha_texture = _texture_name(rest)


def _texture_name(statement: str) -> str:
    """The file name behind the options of a map_ statement; it may hold blanks."""
    pattern = (
        r"^-(?:o|s|t|mm)(?:\s+[-+.\deE]+){1,3}\s+|^-(?:blendu|blendv|cc|clamp|bm|boost|texres|imfchan|type)\s+\S+\s+"
    )
    while True:
        shorter = re.sub(pattern, "", statement)
        if shorter == statement:
            return statement.strip('"')
        statement = shorter


def _add_texture(part: MeshPart, material: Material, files: LocalFiles, note: Callable[[str], None]) -> None:
    if material.texture:
        part.texture = files.picture(material.texture, note)
        if part.texture is not None and not material.alpha_texture:
            part.texture = part.texture.copy()
            part.texture[..., 3] = 255
    mask = files.picture(material.alpha_texture, note) if material.alpha_texture else None
    if mask is not None:
        from PIL import Image

        color = np.full_like(mask, 255) if part.texture is None else part.texture
        # Alpha is in the alpha channel where it varies, else in the grey picture.
        channel = mask[..., 3] if mask[..., 3].min() < 255 else mask[..., :3].max(axis=2)
        size = (color.shape[1], color.shape[0])
        scaled = np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR))
        part.texture = np.concatenate([color[..., :3], scaled[..., None]], axis=2)
        part.alpha_mode = "mask"
