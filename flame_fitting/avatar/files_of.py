"""Which files an avatar is made of: its own and those that it names, found without decoding any of them."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file

_HEADER_BYTES = 1 << 16
_MTL_STATEMENT = re.compile(r"^\s*(?:map_\w+|bump|disp|decal|refl|norm)\s+(.+)$", re.IGNORECASE)
_OBJ_STATEMENT = re.compile(rb"^\s*mtllib\s+(.+)$", re.MULTILINE)


def avatar_files(path: Path | str) -> list[Path]:
    """The avatar's file, then every file that is there and that it names: materials, textures, buffers (sorted).

    A name counts wherever loading may look for it: as a path inside the avatar's folder, and by its base name, case
    ignored, beside the avatar. Nothing outside that folder is looked at. Raises InputError where the avatar is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Check the path.")
    beside = _by_name(path.parent)
    found: set[Path] = set()
    for name in _names_in(path):
        for file in _candidates(path.parent, beside, name):
            if file not in found and file.suffix.lower() == ".mtl":
                inner = (_candidates(path.parent, beside, other) for other in _names_in_mtl(file))
                found |= {other for others in inner for other in others}
            found.add(file)
    return [path, *sorted(found - {path})]


def hash_avatar(path: Path | str) -> str:
    """SHA-256 of an avatar with all files that it names: it changes when one is edited, comes or goes."""
    path = Path(path)
    main, *others = avatar_files(path)
    digest = hashlib.sha256(sha256_of_file(main).encode())
    for file in others:
        digest.update(f"{file.relative_to(path.parent).as_posix()}\0{sha256_of_file(file)}\n".encode())
    return digest.hexdigest()


def _names_in(path: Path) -> Iterator[str]:
    """Names of other files in an avatar's file; none where the file is damaged: loading says so."""
    with open(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
    suffix = path.suffix.lower()
    if start[:4] == b"glTF" or suffix in (".gltf", ".glb", ".vrm"):
        yield from _names_in_gltf(path)
    elif suffix == ".obj":
        for match in _OBJ_STATEMENT.finditer(path.read_bytes()):
            yield from _tails(match.group(1).decode("utf-8", "replace"))
    elif suffix == ".ply":
        for line in start.split(b"end_header")[0].decode("latin-1").splitlines():
            if line.lower().startswith("comment texturefile "):
                yield line.split(None, 2)[2].strip()


def _names_in_gltf(path: Path) -> Iterator[str]:
    from flame_fitting.avatar.gltf_buffers import read_container

    try:
        document = read_container(path.read_bytes())[0]
    except Exception:  # a damaged file names nothing; loading refuses it with a message
        return
    for kind in ("buffers", "images"):
        entries = document.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            uri: Any = entry.get("uri") if isinstance(entry, dict) else None
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield unquote(uri)


def _names_in_mtl(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _MTL_STATEMENT.match(line):
            yield from _tails(match.group(1))


def _tails(statement: str) -> Iterator[str]:
    """What may be the file name in a statement: names hold blanks, and options with numbers may stand before them."""
    words = statement.strip().split()
    for start in range(len(words)):
        yield " ".join(words[start:]).strip('"')
    yield from words  # mtllib may name several


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """The files in a folder by their names without case."""
    found: dict[str, list[Path]] = {}
    for entry in os.scandir(folder):
        if entry.is_file():
            found.setdefault(entry.name.casefold(), []).append(folder / entry.name)
    return found


def _candidates(folder: Path, beside: dict[str, list[Path]], name: str) -> list[Path]:
    """Files that `name` may mean: inside the folder by its path, beside the avatar by its base name."""
    local = name.replace("\\", "/").strip()
    if not local or "\0" in local:
        return []
    found = list(beside.get(local.rsplit("/", 1)[-1].casefold(), ()))
    root, inside = folder.resolve(), folder / local
    try:
        if inside.is_file() and inside.resolve().is_relative_to(root):
            found.append(folder / inside.resolve().relative_to(root))
    except (OSError, ValueError):  # a name that no file system takes
        pass
    return found
