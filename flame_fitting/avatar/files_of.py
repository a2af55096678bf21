"""Which files an avatar is made of: its own and those that it names, found without decoding any of them."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from flame_fitting.avatar.bound_splats import BINDING, PARAMETERS
from flame_fitting.avatar.local_files import folded
from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file

_HEADER_BYTES = 1 << 16
_MTL_STATEMENT = re.compile(r"^\s*(?:map_\w+|bump|disp|decal|refl|norm)\s+(.+)$", re.IGNORECASE)
_OBJ_STATEMENT = re.compile(rb"^\s*mtllib\s+(.+)$", re.MULTILINE)


def avatar_files(path: Path | str) -> list[Path]:
    """The avatar's file, then every file that is there and that it names: materials, textures, buffers (sorted).

    A name counts wherever loading may look for it: as a path inside the avatar's folder and, because exporters write
    paths of other machines, without its first parts down to the bare name, case ignored. That may be more than is read
    in the end, so that a file that comes is seen. Nothing outside that folder is looked at. Raises InputError where the
    avatar is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Check the path.")
    folder = _Folder(path.parent)
    found: set[Path] = set()
    for name in _names_in(path):
        for file in folder.find(name):
            if file not in found and file.suffix.lower() == ".mtl":
                found |= {other for inner in _names_in_mtl(file) for other in folder.find(inner)}
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
            elif line.split()[-1:] == [BINDING]:
                yield PARAMETERS


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


class _Folder:
    """The avatar's folder, asked for what a name may mean; each folder in it is listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self.real = root, root.resolve()
        self._entries: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str) -> list[Path]:
        """Every file that `name` may mean: as a path inside the folder and without its first parts, case ignored."""
        parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".")]
        found: list[Path] = []
        for start in range(len(parts)):
            places = [self.root]
            for part in parts[start:]:
                places = [entry for place in places for entry in self._list(place).get(folded(part), ())]
            found += [place for place in places if place.is_file() and place.resolve().is_relative_to(self.real)]
        return found

    def _list(self, place: Path) -> dict[str, list[Path]]:
        if place not in self._entries:
            listed: dict[str, list[Path]] = {}
            with contextlib.suppress(OSError):  # no folder, or one that may not be read
                for entry in os.listdir(place):
                    listed.setdefault(folded(entry), []).append(place / entry)
            self._entries[place] = listed
        return self._entries[place]
