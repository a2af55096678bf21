"""Reads a static avatar from a file: .glb .vrm .gltf .obj .ply .stl .off, or splats: .ply .splat .spz."""

import difflib
import hashlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flame_fitting.avatar.bound_splats import BINDING, PARAMETERS
from flame_fitting.avatar.cleanup import clean_parts
from flame_fitting.avatar.gltf import read_gltf
from flame_fitting.avatar.gltf_buffers import read_container
from flame_fitting.avatar.gltf_morphs import morph_names, with_morph
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.local_files import LocalFiles
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.avatar.obj import read_obj
from flame_fitting.avatar.ply import vertex_properties
from flame_fitting.avatar.simple_formats import read_off, read_with_trimesh
from flame_fitting.avatar.splat_avatar import SplatAvatar
from flame_fitting.avatar.splat_cleanup import without_floaters
from flame_fitting.avatar.splat_files import SPLAT_SUFFIXES, UNREAD_SUFFIXES, is_splat_file, read_splats, unread_message
from flame_fitting.errors import InputError
from flame_fitting.folders import VIDEO_SUFFIXES
from flame_fitting.head.model import HeadModel

MESH_SUFFIXES = ("glb", "vrm", "gltf", "obj", "ply", "stl", "off")
GLTF_SUFFIXES = ("glb", "vrm", "gltf")
"""A VRM is a GLB with extensions about the person."""
ALL_MORPHS = "all"
SUFFIXES = (*MESH_SUFFIXES, *SPLAT_SUFFIXES)
"""Of all avatars; .ply holds a mesh or splats."""
_MOST_LISTED = 12


def load_avatar(
    path: Path | str, morph: str | None = None, head: Callable[[], HeadModel] | None = None, whole: bool = False
) -> Avatar:
    """The avatar in a file, cleaned, in the file's own coordinates and unit (double precision).

    Node transforms, skins and default morph weights are applied; the morph target called `morph` (`morphs_of`) has the
    weight 1. Pictures and materials that are not there are left out, and `warnings` names them. `head` gives the head
    model that splats bound to FLAME's faces are posed with; by default that of `--head auto`. `whole`: with splats that
    float or that nobody sees from outside. Raises InputError on anything that a user has to mend: the message names the
    file, what is wrong and what to do.
    """
    path = Path(path)
    suffix = path.suffix.lower().lstrip(".")
    content = _read(path, suffix)
    files = LocalFiles(path)
    notes: list[str] = []

    def note(text: str) -> None:
        if text not in notes:
            notes.append(text)

    try:
        if is_splat_file(content, suffix):
            return _splat_avatar(content, path, suffix, notes, note, head, whole)
        parts = _read_parts(content, suffix, files, note, morph)
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: it asks for more memory than there is. {_advice(suffix)}") from None
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        reason = reason.splitlines()[0][:200]
        raise InputError(f"{path}: not a readable .{suffix} file ({reason}). {_advice(suffix)}") from error
    warnings = files.warnings()
    parts = clean_parts(parts, path, note, lambda text: warnings.append(f"{path}: {text}"))
    avatar = MeshAvatar(parts, path, _hash(content, files), suffix, notes, warnings)
    avatar.warnings += _coarse_grid(avatar)
    return avatar


def _splat_avatar(
    content: bytes,
    path: Path,
    suffix: str,
    notes: list[str],
    note: Callable[[str], None],
    head: Callable[[], HeadModel] | None,
    whole: bool,
) -> SplatAvatar:
    splats = read_splats(content, path, suffix, note, head)
    splats = splats if whole else without_floaters(splats, note)
    files = LocalFiles(path)
    if BINDING in (vertex_properties(content) if suffix == "ply" else ()):
        files.used.append(path.parent / PARAMETERS)
    return SplatAvatar(splats, path, _hash(content, files), suffix, notes)


def _coarse_grid(avatar: MeshAvatar, share: float = 2e-4) -> list[str]:
    """A warning where single precision has put an avatar far from the origin on a grid that shows (0.1 mm of 50 cm)."""
    vertices, (low, high) = avatar.vertices, avatar.bounds
    with np.errstate(over="ignore", invalid="ignore"):  # double precision may exceed single
        single = vertices.astype(np.float32)
        step = float(np.spacing(np.abs(single).max()))
    if step < share * float((high - low).max()) or not np.array_equal(vertices, single):
        return []
    return [
        f"{avatar.path}: its coordinates are in single precision and far from the origin, so that its points stand on "
        f"a grid of {step:.2g} units. Move it to the origin before it is exported."
    ]


def morphs_of(path: Path | str) -> list[str]:
    """Names of the morph targets in an avatar's file; none where its format has none, or it is damaged."""
    path = Path(path)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in GLTF_SUFFIXES:
        return []
    try:
        return morph_names(read_container(_read(path, suffix))[0])
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):  # loading refuses it with a message
        return []


def chosen_morphs(path: Path | str, asked: Sequence[str]) -> list[str]:
    """The morph targets of an avatar that are asked for, or `all`: by name, by the last part of a dotted name, or by
    what a name begins with, where that is of one alone. Raises InputError for others."""
    if not asked:
        return []
    there = morphs_of(path)
    if not there:
        raise InputError(
            f"{path}: has no morph targets. Leave --morphs out, or give a .glb, .gltf or .vrm that has some."
        )
    chosen: dict[str, None] = {}
    for name in asked:
        found = there if name == ALL_MORPHS else _meant(name, there)
        if name != ALL_MORPHS and len(found) > 1:
            raise InputError(f"--morphs {name}: {path} has {len(found)} such morph targets: {_listed(found)}.")
        if not found:
            close = difflib.get_close_matches(name, there, n=len(there), cutoff=0.4)
            listed = _listed([*close, *(one for one in there if one not in close)])
            raise InputError(f"--morphs {name}: {path} has no such morph target. It has {len(there)}: {listed}.")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _meant(name: str, there: Sequence[str]) -> list[str]:
    """Morph targets that a name may stand for: by whole names, else by last parts, else by beginnings."""
    kinds = (
        [one for one in there if one == name],
        [one for one in there if one.rpartition(".")[2] == name],
        [one for one in there if one.startswith(name)],
    )
    return next(filter(None, kinds), [])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _read_parts(content: bytes, suffix: str, files: LocalFiles, note, morph: str | None = None) -> list[MeshPart]:
    if suffix in GLTF_SUFFIXES:
        document, binary = read_container(content)
        document = document if morph is None else with_morph(document, morph)
        return read_gltf(document, binary, files, note)
    if suffix == "obj":
        if b"\0" in content[:4096]:
            raise ValueError("it is not text")
        return read_obj(content, files, note)
    if suffix == "off":
        return read_off(content, files)
    return read_with_trimesh(content, suffix, files, note)


def _advice(suffix: str) -> str:
    return f"The file may be cut short or have the wrong suffix: copy it again, or export it again as .{suffix}."


def _read(path: Path, suffix: str) -> bytes:
    formats = " ".join(f".{name}" for name in SUFFIXES)
    if not path.exists():
        raise InputError(f"{path}: there is no such file. Check the path.")
    if path.is_dir():
        raise InputError(f"{path}: it is a folder. Give the avatar file in it ({formats}).")
    if suffix in UNREAD_SUFFIXES:
        raise InputError(unread_message(path))
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(
            f"{path}: is a video, no 3D model. Make a folder of its frames and track it: flame-fitting preprocess "
            f"--input {path} --matting-method selfie, then flame-fitting track {path.with_suffix('')}"
        )
    if suffix not in SUFFIXES:
        kind = f"the suffix .{suffix} is not known" if suffix else "it has no suffix"
        raise InputError(f"{path}: {kind}. Readable are {formats}; Blender converts other formats to .glb.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror or error}). Check its permissions.") from None
    if not content:
        raise InputError(f"{path}: the file is empty. Copy or export it again.")
    return content


def _hash(content: bytes, files: LocalFiles) -> str:
    digest = hashlib.sha256(content)
    for path in files.used:
        digest.update(path.read_bytes())
    return digest.hexdigest()
