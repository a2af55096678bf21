"""Head models by name or path: found, read, completed, and what identifies them in a result."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.head.flame_files import has_flame_topology, read_flame, read_masks
from flame_fitting.head.model import HeadData, HeadModel

_DIGITS = 16
"""Of a companion file's hash, enough to tell files apart."""


def load_head(
    spec: str = "auto", flame_dir: Path | None = None, flame_masks: Path | None = None, add_teeth: bool = True
) -> HeadModel:
    """The head model that `spec` asks for (see `assets.find_head`), float32, on the CPU.

    A file that brings no regions of its own, such as FLAME's, gets regions, texture coordinates and, where it has
    FLAME's topology and `add_teeth` says so, teeth. `identity` of the model says which files it was made from.
    """
    return HeadModel(load_head_data(spec, flame_dir, flame_masks, add_teeth))


def load_head_data(
    spec: str = "auto", flame_dir: Path | None = None, flame_masks: Path | None = None, add_teeth: bool = True
) -> HeadData:
    """`load_head` before it becomes a model."""
    files = assets.find_head(spec, flame_dir, flame_masks)
    data = read_flame(files.path, files.name)
    given = _given(files, data, add_teeth)
    data.identity = _identity(files, data, given)
    if not given.complete:
        return data
    from flame_fitting.head.completion import complete_flame

    masks: dict[str, np.ndarray] | None = read_masks(given.masks) if given.masks is not None else None
    completed = complete_flame(
        data, masks=masks, template_obj=given.template, texture_npz=given.texture, add_teeth=given.teeth
    )
    completed.identity = data.identity
    return completed


def head_identity(
    spec: str = "auto", flame_dir: Path | None = None, flame_masks: Path | None = None, add_teeth: bool = True
) -> dict[str, str]:
    """What identifies a head model in manifests and results, as `load_head` would make it.

    name, sha256 of its file; where it is completed: title (FLAME's version), teeth, masks and uv (with the hashes of
    the files behind them). Equal identities have the same vertices, regions and texture layout.
    """
    files = assets.find_head(spec, flame_dir, flame_masks)
    if files.name == "open" and files.path.is_file():
        return {"name": files.name, "sha256": sha256_of_file(files.path)}
    data = read_flame(files.path, files.name)
    return _identity(files, data, _given(files, data, add_teeth))


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
    identity["masks"] = _short_hash(given.masks) or "none"
    identity["uv"] = _short_hash(given.template) or _short_hash(given.texture) or "own"
    return identity


def _short_hash(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return sha256_of_file(path)[:_DIGITS]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path and its rights.") from error
