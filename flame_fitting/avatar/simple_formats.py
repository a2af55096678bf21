"""PLY and STL through trimesh; OFF."""

import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from flame_fitting.avatar.local_files import LocalFiles
from flame_fitting.avatar.mesh import MeshPart, fan_triangles, with_alpha
from flame_fitting.avatar.ply import as_triangles, has_strips
from flame_fitting.avatar.text_numbers import numbers_of
from flame_fitting.errors import InputError


def read_with_trimesh(content: bytes, suffix: str, files: LocalFiles, note: Callable[[str], None]) -> list[MeshPart]:
    """The one part of a .ply or .stl file."""
    import trimesh

    header = _ply_header(content, files) if suffix == "ply" else []
    content = as_triangles(content) if suffix == "ply" and has_strips(content) else content
    logging.getLogger("trimesh").setLevel(logging.ERROR)
    # No resolver is given: trimesh opens no other file.
    options: dict[str, Any] = {"skip_materials": True, "prefer_color": "vertex"} if suffix == "ply" else {}

    def load(data: bytes) -> Any:
        return trimesh.load(io.BytesIO(data), file_type=suffix, process=False, force="mesh", **options)

    try:
        mesh = load(content)
    except Exception as error:  # its parsers fail in many ways on damaged files
        if suffix != "ply":
            raise ValueError(f"{type(error).__name__}: {error}") from error
        # In binary files it reads polygons of one size only.
        try:
            mesh = load(as_triangles(content))
        except Exception:
            raise ValueError(f"{type(error).__name__}: {error}") from error
    part = MeshPart(
        vertices=np.array(mesh.vertices, dtype=np.float64),
        faces=np.array(mesh.faces, dtype=np.int64).reshape(-1, 3),
        name=files.main.stem,
        double_sided=True,
    )
    if suffix == "ply":
        _add_ply_colors(part, mesh, header, files, note)
    return [part]


def _ply_header(content: bytes, files: LocalFiles) -> list[str]:
    head, found, _ = content[:100_000].partition(b"end_header")
    if not content.startswith(b"ply") or not found:
        raise ValueError("it has no PLY header")
    lines = [line.strip() for line in head.decode("ascii", errors="replace").splitlines()]
    faces = [line.split() for line in lines if line.startswith("element face") or line.startswith("element tristrips")]
    if sum(int(words[2]) for words in faces) == 0:
        raise InputError(
            f"{files.main}: it is a point cloud, there are no triangles in it. Make a surface first, for example with "
            "MeshLab's Screened Poisson reconstruction."
        )
    return lines


def _add_ply_colors(
    part: MeshPart, mesh: Any, header: list[str], files: LocalFiles, note: Callable[[str], None]
) -> None:
    visual = mesh.visual
    if visual.kind in ("vertex", "face"):
        colors = np.array(visual.face_colors if visual.kind == "face" else visual.vertex_colors, dtype=np.float64)
        colors = with_alpha(colors / 255.0)
        if visual.kind == "face":
            # Every triangle gets its own corners, and welding joins those of one colour again.
            part.vertices = part.vertices[part.faces].reshape(-1, 3)
            part.faces = np.arange(len(part.vertices)).reshape(-1, 3)
            colors = np.repeat(colors, 3, axis=0)
        part.vertex_colors = colors
    words = [line.split(None, 2) for line in header if line.lower().startswith("comment texturefile")]
    name = next((line[2] for line in words if len(line) == 3), None)
    if name is not None and visual.kind == "texture" and visual.uv is not None:
        part.texture = files.picture(name, note)
        if part.texture is not None:
            part.uv = np.array(visual.uv, dtype=np.float64)
    elif name is not None:
        note(f"texture '{name}' without texture coordinates ignored")


def read_off(content: bytes, files: LocalFiles) -> list[MeshPart]:
    """The one part of an OFF or COFF (vertex colours, sRGB) file in text form."""
    lines = [line.split("#", 1)[0].split() for line in content.decode("utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    if not lines or lines[0][0] not in ("OFF", "COFF"):
        raise ValueError("it does not begin with OFF")
    colored = lines[0][0] == "COFF"
    lines = [lines[0][1:], *lines[1:]] if len(lines[0]) > 1 else lines[1:]
    n_vertices, n_faces = int(lines[0][0]), int(lines[0][1])
    vertex_lines, face_lines = lines[1 : 1 + n_vertices], lines[1 + n_vertices : 1 + n_vertices + n_faces]
    if len(vertex_lines) < n_vertices or len(face_lines) < n_faces:
        raise ValueError(f"it ends after {len(lines) - 1} of {n_vertices + n_faces} lines")
    sizes = np.array([int(line[0]) for line in face_lines], dtype=np.int64)
    if any(len(line) <= size for line, size in zip(face_lines, sizes, strict=True)):
        raise ValueError("a face is cut short")
    corners = np.array([int(v) for line in face_lines for v in line[1 : 1 + int(line[0])]], dtype=np.int64)
    colors = None
    if colored:
        colors = np.array([line[3:7] for line in vertex_lines], dtype=np.float64)
        colors = with_alpha(colors / 255.0 if colors.max(initial=0.0) > 1.0 else colors)
    part = MeshPart(
        vertices=numbers_of([word for line in vertex_lines for word in line[:3]]).reshape(-1, 3),
        faces=corners[fan_triangles(sizes)],
        name=files.main.stem,
        vertex_colors=colors,
        double_sided=True,
    )
    return [part]
