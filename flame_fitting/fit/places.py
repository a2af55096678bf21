"""Which folder holds a fit, by the names in it. No heavy import here: a wrong path is refused at once."""

import re
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.files import shown

FLAT_NAME = "tracked_flame_params.npz"
_EPOCH = re.compile(r"tracked_flame_params_(\d+)\.npz")


def epochs_of(folder: Path) -> dict[int, Path]:
    """The parameter files of single epochs in a folder, ascending."""
    found = {int(m[1]): p for p in folder.glob("tracked_flame_params_*.npz") if (m := _EPOCH.fullmatch(p.name))}
    return dict(sorted(found.items()))


def find_fit_folder(folder: Path) -> Path:
    """`folder` itself, or its lexicographically last child that holds a fit."""
    if _holds_fit(folder):
        return folder
    if not folder.exists():
        raise InputError(f"{folder}: no such folder. Give the output folder of: flame-fitting fit")
    children = [child for child in _folders_in(folder) if _holds_fit(child)]
    if not children:
        below = [inner for child in _folders_in(folder) for inner in _folders_in(child) if _holds_fit(inner)]
        if below:
            names = shown(inner.relative_to(folder).as_posix() for inner in below)
            raise InputError(f"{folder}: no fit here, but in folders below it: {names}. Give one of them.")
        raise InputError(f"{folder}: no fit here ({FLAT_NAME} is missing). Run `flame-fitting fit` first.")
    return children[-1]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_dir()) if folder.is_dir() else []


def _holds_fit(folder: Path) -> bool:
    return (folder / FLAT_NAME).is_file() or bool(epochs_of(folder))
