"""From what a file says to parts that the rest can rely on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.normals import weld
from flame_fitting.errors import InputError
from flame_fitting.maths.normals import face_normals

TRANSPARENT_SHARE = 0.02
"""Alpha-tested parts of which less than this share of the surface would be visible are left out."""
NAN_SHARE = 0.01
"""Up to this share of the vertices may be NaN or infinite: they are left out with their triangles."""


def clean_parts(
    parts: list[MeshPart], path: Path, note: Callable[[str], None], warn: Callable[[str], None]
) -> list[MeshPart]:
    """Checks indices and numbers, welds soups, drops what has no area or cannot be seen. Raises InputError.

    `warn` is told what makes a fit worse, `note` everything else.
    """
    if not parts:
        raise InputError(f"{path}: there is no mesh in it. Export the avatar's surface as triangles.")
    for part in parts:
        _check_indices(part, path)
    parts = _without_nan_vertices(parts, path, note)
    cleaned = [done for part in parts if (done := _clean_part(part, note, warn)) is not None]
    if not cleaned:
        raise InputError(
            f"{path}: the mesh has no triangle with an area (points or lines only, or everything in one place). "
            "Export the avatar's surface as triangles."
        )
    visible = [part for part in cleaned if visible_share(part) >= TRANSPARENT_SHARE]
    if not visible:
        note("every part is transparent; all are taken as opaque")
        return [replace(part, alpha_mode="opaque") for part in cleaned]
    hidden = [part.name or "unnamed" for part in cleaned if all(part is not kept for kept in visible)]
    if hidden:
        note(f"transparent parts left out: {', '.join(hidden)}")
    if any(part.alpha_mode == "blend" for part in visible):
        names = [part.name or "unnamed" for part in visible if part.alpha_mode == "blend"]
        note(f"alpha-blended parts are taken as solid where alpha is at least 0.5: {', '.join(names)}")
    return visible


def _check_indices(part: MeshPart, path: Path) -> None:
    if len(part.faces) and (part.faces.min() < 0 or part.faces.max() >= len(part.vertices)):
        raise InputError(
            f"{path}: part '{part.name or 'unnamed'}' refers to vertex {int(part.faces.max())}, but has "
            f"{len(part.vertices)}. The file is damaged; export it again."
        )


def _without_nan_vertices(parts: list[MeshPart], path: Path, note: Callable[[str], None]) -> list[MeshPart]:
    """Without the triangles at vertices that are not finite, where those are few; vertices without a face don't count.

    Scanners and exporters leave a few of them behind. Many mean that something went wrong, and what is left may be no
    head.
    """
    bad = [~np.isfinite(part.vertices).all(axis=1) for part in parts]
    used = [np.unique(part.faces) for part in parts]
    count = sum(int(mask[index].sum()) for mask, index in zip(bad, used, strict=True))
    if count == 0:
        return parts
    share = count / sum(len(index) for index in used)
    if share > NAN_SHARE:
        raise InputError(
            f"{path}: {100 * share:.3g} % of its vertices are not numbers (NaN or infinite); up to {100 * NAN_SHARE:g} "
            "% would be left out. Repair the mesh, for example with Blender's Mesh > Clean Up, and export it again."
        )
    keep = [~mask[part.faces].any(axis=1) for part, mask in zip(parts, bad, strict=True)]
    dropped = sum(int((~rows).sum()) for rows in keep)
    note(f"{count} vertices that are not numbers (NaN or infinite) left out, with their {dropped} triangles")
    return [part if rows.all() else take_faces(part, rows) for part, rows in zip(parts, keep, strict=True)]


def _clean_part(part: MeshPart, note: Callable[[str], None], warn: Callable[[str], None]) -> MeshPart | None:
    name = part.name or "unnamed"
    if len(part.faces) == 0 or len(part.vertices) == 0:
        note(f"part without triangles left out: {name}")
        return None
    part = _mend_attributes(part, note, warn)
    if _is_soup(part):
        before = len(part.vertices)
        part = _weld(part)
        note(f"triangle soup welded: {before} to {len(part.vertices)} vertices ({name})")
    _, area = face_normals(part.vertices, part.faces)
    extent = float(np.ptp(part.vertices[part.faces.reshape(-1)], axis=0).max())
    keep = area > 1e-14 * extent**2
    if not keep.all():
        note(f"{int((~keep).sum())} triangles without area dropped ({name})")
    if not keep.any():
        return None
    return take_faces(part, keep)


def _mend_attributes(part: MeshPart, note: Callable[[str], None], warn: Callable[[str], None]) -> MeshPart:
    """Attributes that are not numbers at a few vertices are replaced there; those that mostly are not are given up."""
    changes: dict[str, Any] = {}
    for attribute in ("normals", "uv", "vertex_colors"):
        value = getattr(part, attribute)
        if value is None or np.isfinite(value).all():
            continue
        bad = ~np.isfinite(value).all(axis=1)
        changes[attribute] = None
        if bad.mean() <= NAN_SHARE:
            changes[attribute] = value.copy()
            # A zero normal leaves the say to the triangle's own.
            changes[attribute][bad] = 0.0 if attribute == "normals" else value[~bad].mean(axis=0)
        done = "ignored" if changes[attribute] is None else f"replaced at {int(bad.sum())} vertices"
        say = warn if changes[attribute] is None and attribute != "normals" else note
        say(f"{attribute} with values that are not numbers {done} ({part.name or 'unnamed'})")
    return replace(part, **changes) if changes else part


def _is_soup(part: MeshPart) -> bool:
    """Whether no two triangles share a vertex although they meet."""
    if len(part.vertices) < 3 * len(part.faces) or len(part.faces) < 4:
        return False
    first, _ = weld(part.vertices)
    return len(first) < 0.7 * len(part.vertices)


def _weld(part: MeshPart) -> MeshPart:
    """Merges vertices that are equal in place, texture coordinates and colour; facet normals are given up."""
    rows = [part.vertices]
    rows += [value for value in (part.uv, part.vertex_colors) if value is not None]
    first, label = weld(np.concatenate(rows, axis=1))
    return replace(_take_vertices(replace(part, normals=None), first), faces=label[part.faces])


def _take_vertices(part: MeshPart, rows: np.ndarray) -> MeshPart:
    def taken(value: np.ndarray | None) -> np.ndarray | None:
        return None if value is None else value[rows]

    return replace(
        part,
        vertices=part.vertices[rows],
        normals=taken(part.normals),
        uv=taken(part.uv),
        vertex_colors=taken(part.vertex_colors),
    )


def take_faces(part: MeshPart, keep: np.ndarray) -> MeshPart:
    """The part with only the faces where `keep` (F,) is true, and only the vertices that they use."""
    faces = part.faces[keep]
    used = np.zeros(len(part.vertices), dtype=bool)
    used[faces.reshape(-1)] = True
    if used.all():
        return replace(part, faces=faces)
    index = np.cumsum(used) - 1
    return replace(_take_vertices(part, np.flatnonzero(used)), faces=index[faces])


def visible_share(part: MeshPart) -> float:
    """Share of the part's surface whose alpha reaches the cutoff, sampled inside every triangle."""
    if part.alpha_mode == "opaque":
        return 1.0
    weights = np.array([[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6.0
    alpha = np.full((len(part.faces), len(weights)), part.base_color[3])
    if part.vertex_colors is not None:
        alpha *= part.vertex_colors[part.faces, 3] @ weights.T
    if part.texture is not None and part.uv is not None:
        height, width = part.texture.shape[:2]
        uv = np.einsum("fkc,wk->fwc", part.uv[part.faces], weights)
        columns = np.floor(uv[..., 0] % 1.0 * width).astype(int).clip(0, width - 1)
        rows = np.floor((1.0 - uv[..., 1]) % 1.0 * height).astype(int).clip(0, height - 1)
        alpha *= part.texture[rows, columns, 3] / 255.0
    _, area = face_normals(part.vertices, part.faces)
    return float((area[:, None] * (alpha >= part.alpha_cutoff)).sum() / (area.sum() * len(weights)))
