"""An exported dataset as a part of a union: its frames by split, read with care."""

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flame_fitting.errors import InputError
from flame_fitting.export.options import FROM_EXPORT as _ADVICE
from flame_fitting.export.splits import SPLITS, Split
from flame_fitting.export.transforms_files import POINTS_NAME, Entry, transforms_name
from flame_fitting.files import read_json_object, sha256_of_file

FILE_KEYS = ("file_path", "fg_mask_path", "flame_param_path", "mesh_path", "exp_path")
"""Of a frame: what names a file, relative to the dataset's folder."""


@dataclass(eq=False)
class Source:
    """One dataset."""

    folder: Path
    name: str
    """Of its folder."""
    entries: list[Entry]
    """Its frames, by timestep and camera."""
    split_of: dict[str, Split]
    """By `file_path`."""
    up: list[float] = field(default_factory=lambda: [0.0, 1.0, 0.0])
    provenance: dict[str, Any] = field(default_factory=dict)
    background_color: list[float] | None = None
    """sRGB 0..1 that all its pictures stand on."""

    @cached_property
    def n_timesteps(self) -> int:
        """Timesteps that it takes of a union's count."""
        return 1 + max(entry["timestep_index"] for entry in self.entries)

    @property
    def is_mesh(self) -> bool:
        """Whether it holds meshes instead of parameters."""
        return "mesh_path" in self.entries[0]

    @cached_property
    def camera_ids(self) -> dict[int, str]:
        """Name of each camera index; the index itself where the file names none."""
        return {e["camera_index"]: str(e.get("camera_id", e["camera_index"])) for e in self.entries}


def canonical_name(source: Source) -> str:
    """The file of the neutral head."""
    return "canonical.obj" if source.is_mesh else "canonical_flame_param.npz"


def read_source(folder: Path) -> Source:
    """Reads transforms_train.json, transforms_val.json and transforms_test.json of a dataset.

    Raises InputError where one is missing or not what `export` (or VHAP) writes, or a file that it names is not there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. {_ADVICE}")
    entries: list[Entry] = []
    split_of: dict[str, Split] = {}
    data: dict[str, Any] = {}
    for split in SPLITS:
        path = folder / transforms_name(split)
        if not path.is_file():
            raise InputError(f"{path}: no such file, {folder} is no exported dataset. {_ADVICE}")
        data = read_json_object(path, _ADVICE)
        frames = data.get("frames")
        if not isinstance(frames, list):
            raise InputError(f"{path}: has no list of frames. {_ADVICE}")
        for index, frame in enumerate(frames):
            entry = _checked(path, index, frame)
            if entry["file_path"] in split_of:
                raise InputError(f"{path}: frame {index} names {entry['file_path']}, as another frame does. {_ADVICE}")
            split_of[entry["file_path"]] = split
            entries.append(entry)
    if not entries:
        raise InputError(f"{folder}: has no frames. {_ADVICE}")
    entries.sort(key=lambda entry: (entry["timestep_index"], entry["camera_index"]))
    up = data.get("up")
    right = isinstance(up, list) and len(up) == 3 and all(isinstance(value, (int, float)) for value in up)
    provenance = data.get("provenance")
    source = Source(
        folder=folder,
        name=Path(os.path.abspath(folder)).name,
        entries=entries,
        split_of=split_of,
        up=[float(value) for value in up] if right and up else [0.0, 1.0, 0.0],
        provenance=provenance if isinstance(provenance, dict) else {},
        background_color=data["background_color"] if isinstance(data.get("background_color"), list) else None,
    )
    _check_files(source)
    return source


def source_hash(folder: Path) -> str:
    """SHA-256 of what a union takes of a dataset: its JSON files, its canonical head and its points."""
    digest = hashlib.sha256()
    names = [transforms_name(split) for split in SPLITS] + ["canonical_flame_param.npz", "canonical.obj", POINTS_NAME]
    for name in names:
        if (folder / name).is_file():
            digest.update(f"{name}\0{sha256_of_file(folder / name)}\n".encode())
    return digest.hexdigest()


def _checked(path: Path, index: int, frame: Any) -> Entry:
    where = f"{path}: frame {index}"
    if not isinstance(frame, dict):
        raise InputError(f"{where} is no JSON object. {_ADVICE}")
    for key in ("timestep_index", "camera_index"):
        if type(frame.get(key)) is not int or frame[key] < 0:
            raise InputError(f"{where} has no {key} that counts from 0. {_ADVICE}")
    if not isinstance(frame.get("file_path"), str) or not isinstance(frame.get("transform_matrix"), list):
        raise InputError(f"{where} has no file_path or no transform_matrix. {_ADVICE}")
    for key in FILE_KEYS:
        name = frame.get(key)
        if name is not None and (not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts):
            raise InputError(f"{where}: {key} is {name!r}, not a file in its folder. Give exports, not unions of them.")
    return dict(frame)


def _check_files(source: Source) -> None:
    kinds = {"mesh_path" in entry for entry in source.entries}
    if len(kinds) > 1:
        raise InputError(f"{source.folder}: some frames have meshes, others do not. {_ADVICE}")
    missing = source.folder / canonical_name(source)
    if not missing.is_file():
        raise InputError(f"{missing}: no such file. {_ADVICE}")
    for name in sorted({entry[key] for entry in source.entries for key in FILE_KEYS if entry.get(key) is not None}):
        if not (source.folder / name).is_file():
            raise InputError(f"{source.folder / name}: missing, but the dataset names it. Export it again.")
