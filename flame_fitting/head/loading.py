"""Head models by name or path: found, read, completed, and what identifies them in a result."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flame_fitting import assets
from flame_fitting.files import sha256_of_file
from flame_fitting.head.flame_files import has_flame_topology, read_flame, read_masks
from flame_fitting.head.model import HeadData, HeadModel

_DIGITS = 16
"""Of a hash that only tells the choices of one user apart."""
_identities: dict[Any, dict[str, str]] = {}


def load_head(
    spec: str = "auto",
    flame_dir: Path | None = None,
    flame_masks: Path | None = None,
    add_teeth: bool = True,
    beside: dict[str, Path | None] | None = None,
) -> HeadModel:
    """The head model that `spec` asks for (see `assets.find_head`), float32, on the CPU.

    A file that brings no regions of its own, such as FLAME's, gets regions, texture coordinates and, where it has
    FLAME's topology and `add_teeth` says so, teeth. `identity` of the model says what it was made from. `beside` names
    masks, template and texture to use instead of those that lie beside the model; None leaves one out.
    """
    files = assets.find_head(spec, flame_dir, flame_masks)
    if beside is not None:
        masks, template, texture = (beside.get(role) for role in ("masks", "template", "texture"))
        files = replace(files, masks=masks, template=template, texture=texture)
    return HeadModel(_complete(files, add_teeth))


def _complete(files: assets.HeadFiles, add_teeth: bool) -> HeadData:
    data = read_flame(files.path, files.name)
    given = _given(files, data, add_teeth)
    if given.complete:
        from flame_fitting.head.completion import complete_flame

        masks: dict[str, np.ndarray] | None = read_masks(given.masks) if given.masks is not None else None
        data = complete_flame(
            data, masks=masks, template_obj=given.template, texture_npz=given.texture, add_teeth=given.teeth
        )
    data.identity = _identity(files, data, given)
    return data


def head_identity(
    spec: str = "auto", flame_dir: Path | None = None, flame_masks: Path | None = None, add_teeth: bool = True
) -> dict[str, str]:
    """What identifies a head model in manifests and results: the `identity` that `load_head` would give it.

    name, sha256 of its file; where it is completed: title (FLAME's version), teeth, masks (hash of their file) and uv
    (hash of the texture layout). Equal identities have the same vertices, regions and texture layout.
    """
    files = assets.find_head(spec, flame_dir, flame_masks)
    if files.name == "open" and files.path.is_file():
        return {"name": files.name, "sha256": sha256_of_file(files.path)}
    sources = (files.path, files.masks, files.template, files.texture)
    stamps = tuple((path, path.stat().st_mtime_ns) for path in sources if path is not None and path.is_file())
    key = (spec, flame_dir, flame_masks, add_teeth, stamps)
    if key not in _identities:
        _identities[key] = _complete(files, add_teeth).identity
    return dict(_identities[key])


def head_inputs(spec: str = "auto", flame_dir: Path | None = None, flame_masks: Path | None = None) -> dict[str, Path]:
    """Files of the user that a head model is made from, by role: head, flame_masks, flame_template, flame_texture."""
    files = assets.find_head(spec, flame_dir, flame_masks)
    if files.name == "open":
        return {}
    given = _given(files, read_flame(files.path, files.name), add_teeth=False)
    roles = {
        "head": files.path,
        "flame_masks": given.masks,
        "flame_template": given.template,
        "flame_texture": given.texture,
    }
    return {role: path for role, path in roles.items() if path is not None}


class _Given(NamedTuple):
    """What of the files beside a model is used."""

    complete: bool
    teeth: bool = False
    masks: Path | None = None
    template: Path | None = None
    texture: Path | None = None


def _given(files: assets.HeadFiles, data: HeadData, add_teeth: bool) -> _Given:
    if data.regions:
        return _Given(False)
    if not has_flame_topology(data):
        return _Given(True)
    if data.uv is not None:
        return _Given(True, add_teeth, files.masks)
    # One source of texture coordinates is enough.
    texture = files.texture if files.template is None else None
    return _Given(True, add_teeth, files.masks, files.template, texture)


def _identity(files: assets.HeadFiles, data: HeadData, given: _Given) -> dict[str, str]:
    identity = {"name": data.name, "sha256": data.file_hash}
    if files.title:
        identity["title"] = files.title
    if not given.complete:
        return identity
    identity["teeth"] = "yes" if given.teeth else "no"
    identity["masks"] = sha256_of_file(given.masks)[:_DIGITS] if given.masks is not None else "none"
    identity["uv"] = "none" if data.uv is None or data.uv_faces is None else _layout_hash(data.uv, data.uv_faces)
    return identity


def _layout_hash(uv: np.ndarray, uv_faces: np.ndarray) -> str:
    # In whole numbers, so that machines agree whatever the last bits are.
    digest = hashlib.sha256(np.round(np.asarray(uv, dtype=np.float64) * 2**17).astype(np.int64).tobytes())
    digest.update(np.ascontiguousarray(uv_faces, dtype=np.int64).tobytes())
    return digest.hexdigest()[:_DIGITS]
