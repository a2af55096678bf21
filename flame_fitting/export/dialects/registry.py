"""All dialects, and reading files and folders of any of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.dialects import (
    body_models,
    flame_head_tracker,
    metrical_tracker,
    nersemble,
    pixel3dmm,
    smplx,
    vhap,
)
from flame_fitting.export.dialects.containers import OF_NPZ, open_arrays
from flame_fitting.export.dialects.dialect import Dialect
from flame_fitting.export.dialects.frame_files import names_of
from flame_fitting.export.dialects.parameters import PER_TIMESTEP_EXTRAS, FlameParams
from flame_fitting.export.dialects.places import parameter_files, timestep_ids
from flame_fitting.files import shown
from flame_fitting.fit.parameters import POSES

DIALECTS: tuple[Dialect, ...] = (
    nersemble.DIALECT,
    smplx.DIALECT,
    body_models.DIALECT,
    vhap.DIALECT,
    flame_head_tracker.DIALECT,
    pixel3dmm.DIALECT,
    metrical_tracker.DIALECT,
)


def dialect_named(name: str) -> Dialect:
    """The dialect of this name."""
    return next(dialect for dialect in DIALECTS if dialect.name == name)


def recognise(path: Path) -> Dialect:
    """The dialect of a file, by the names in it: all that the dialect needs must be there."""
    names = _names_in(path)
    suffix = ".npz" if path.suffix.lower() in OF_NPZ else path.suffix
    alike = [dialect for dialect in DIALECTS if dialect.suffix == suffix]
    own = [dialect for dialect in alike if dialect.recognises(names)]
    if len(own) == 1:
        return own[0]
    if own:
        found = " and ".join(dialect.name for dialect in own)
        raise InputError(f"{path}: has all names of {found}: they may differ. Say which to take: --from {own[0].name}.")
    nearest = max(alike, key=lambda dialect: (dialect.matches(names), -len(dialect.lacks(names))))
    missing, strange = sorted(nearest.lacks(names)), sorted(nearest.excludes & names)
    why = f"without {', '.join(missing)}" if missing else f"with {', '.join(strange)}"
    near = f" The nearest is {nearest.name}, which it is not, {why}." if nearest.matches(names) else ""
    raise InputError(
        f"{path}: holds {shown(names)}: no known FLAME parameters.{near} If you know whose they are, give --from: "
        "what the file lacks is then taken as zero."
    )


def _names_in(path: Path) -> frozenset[str]:
    if path.suffix.lower() in OF_NPZ:
        with open_arrays(path) as arrays:
            return arrays.names
    if path.suffix == ".frame":
        return names_of(path)
    raise InputError(f"{path}: neither an .npz, a .json nor a .frame file. Other formats of parameters are not read.")


def read_parameters(path: Path, name: str | None = None, timestep: int | None = None) -> tuple[FlameParams, Dialect]:
    """The parameters of a file, or of a folder with one file for each timestep; `name` None: recognised by content."""
    files = parameter_files(path)
    if timestep is not None and len(files) > 1:
        files, timestep = [files[_checked(path, timestep, len(files))]], 0
    dialect = dialect_named(name) if name is not None else recognise(files[0])
    params = _joined(path, [dialect.read(file) for file in files])
    if len(files) > 1 and not params.timestep_id and params.count == len(files):
        params.timestep_id = timestep_ids(files)
    if name is not None and (lacking := dialect.lacks(_names_in(files[0]))):
        params.notes.append(f"lacks {', '.join(sorted(lacking))} of {name}: taken as zero, as --from {name} asks")
    if timestep is not None:
        params = params.at(_checked(path, timestep, params.count))
    return params, dialect


def _checked(path: Path, timestep: int, count: int) -> int:
    if not 0 <= timestep < count:
        raise InputError(f"--timestep {timestep}: {path} has the timesteps 0 to {count - 1}.")
    return timestep


def _joined(path: Path, parts: list[FlameParams]) -> FlameParams:
    """Files of single timesteps as one sequence."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    changed: dict[str, Any] = {}
    for name in ("expr", *POSES, "world_rotation"):
        values = [getattr(part, name) for part in parts]
        if len({value.shape[1] for value in values}) > 1:
            raise InputError(f"{path}: its files have different numbers of {name}.")
        changed[name] = np.concatenate(values)
    for name in ("dynamic_offset", "eyelids"):
        values = [getattr(part, name) for part in parts]
        if all(value is not None for value in values) and len({value.shape[1:] for value in values}) == 1:
            changed[name] = np.concatenate(values)
        elif any(value is not None for value in values):
            raise InputError(f"{path}: some of its files have another {name} than others.")
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if any(part.shape.shape != first.shape.shape or np.abs(part.shape - first.shape).max() > 1e-5 for part in parts):
        notes.append("shape differs between the files; the first one's is taken for all")
    if any(_offset_differs(part, first) for part in parts):
        notes.append("static_offset differs between the files; the first one's is taken for all")
    if any(abs(part.scale - first.scale) > 1e-6 for part in parts):
        raise InputError(f"{path}: its files have different scales. Convert them one by one.")
    changed["extras"] = {
        name: np.concatenate([part.extras[name] for part in parts]) if name in PER_TIMESTEP_EXTRAS else value
        for name, value in first.extras.items()
        if name not in PER_TIMESTEP_EXTRAS or all(name in part.extras for part in parts)
    }
    changed["timestep_id"] = [name for part in parts for name in part.timestep_id]
    return replace(first, notes=notes, **changed)


def _offset_differs(part: FlameParams, first: FlameParams) -> bool:
    for one, other in ((part.static_offset, first.static_offset), (part.template, first.template)):
        if one is None or other is None:
            if one is not other:
                return True
        elif one.shape != other.shape or np.abs(one - other).max() > 1e-6:
            return True
    return False
