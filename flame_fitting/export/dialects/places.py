"""Where programs keep parameters: a file, a run, an exported data set, a union of such."""

import json
import re
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object

_INNER = ("fit", "flame_param", "checkpoint")
"""Where a run of this program, GaussianAvatars and metrical-tracker keep them."""
_RUN = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
"""Names of VHAP's run folders."""
_SPLITS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
_SUFFIXES = (".npz", ".frame")
_COPY = "Copy the data set again, or give the file of the parameters."


def parameter_files(path: Path) -> list[Path]:
    """The files of parameters that a file or folder stands for, in the order of their timesteps.

    A folder may be a run (the last epoch counts), the parent of time-stamped runs (the last one counts), a data set
    with flame_param/, or a union of data sets, whose pictures name the files. InputError where there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder. Check the path.")
    for inner in _INNER:
        if (path / inner).is_dir():
            path = path / inner
            break
    runs = [path, *sorted((child for child in path.iterdir() if _RUN.fullmatch(child.name)), reverse=True)]
    for run in runs:
        if tracked := list(run.glob("tracked_flame_params*.npz")):  # VHAP writes one after every so many epochs
            return [max(tracked, key=lambda file: (trailing_number(file), file.name))]
    if named := _named_by_pictures(path):
        return named
    found = [file for file in path.iterdir() if file.suffix in _SUFFIXES and "canonical" not in file.name]
    if not found:
        clips = sorted(file.name for file in path.glob("*.json"))
        hint = f" It has {', '.join(clips[:3])}: give one clip's file." if clips else ""
        raise InputError(f"{path}: no .npz or .frame files in this folder. Give the file of the parameters.{hint}")
    if len({file.suffix for file in found}) > 1:
        raise InputError(f"{path}: has .npz and .frame files. Give one file, or a folder of one kind.")
    return sorted(found, key=lambda file: (trailing_number(file), file.name))


def trailing_number(file: Path) -> int:
    """The number at the end of a file's name; -1 without one."""
    digits = _digits(file)
    return int(digits) if digits else -1


def timestep_ids(files: list[Path]) -> list[str]:
    """The numbers in the names of files of single timesteps, as they are written; none where they tell none apart."""
    ids = [_digits(file) for file in files]
    return ids if all(ids) and len(set(ids)) == len(ids) else []


def _digits(file: Path) -> str:
    return file.stem[len(file.stem.rstrip("0123456789")) :]


def _named_by_pictures(folder: Path) -> list[Path]:
    """The files that the pictures of a data set without flame_param/ name, one for each timestep, in order."""
    named: dict[int, Path] = {}
    for file in (folder / name for name in _SPLITS if (folder / name).is_file()):
        for frame in read_json_object(file, _COPY).get("frames") or []:
            place = frame.get("flame_param_path") if isinstance(frame, dict) else None
            if place is None:
                continue
            timestep = frame.get("timestep_index")
            if not isinstance(place, str) or type(timestep) is not int or not place.endswith(".npz"):
                raise InputError(f"{file}: the frame {json.dumps(frame)[:200]} names no file of parameters. {_COPY}")
            # a union lies beside its sources
            target = (folder / place).resolve()
            if not target.is_relative_to(folder.resolve().parent) or not target.is_file():
                raise InputError(
                    f"{file}: {place} is not there. Put the union beside the data sets that it is made of."
                )
            if named.setdefault(timestep, target) != target:
                raise InputError(f"{file}: timestep {timestep} has two files of parameters, {place} is one. {_COPY}")
    return [named[timestep] for timestep in sorted(named)]
