"""A clip's parameters in one JSON object: a list for each name, with an entry for every timestep.

    {"expr": [[0.1, ...], ...], "jaw_pose": [[0.02, 0.0, 0.0], ...], "shape": [0.3, ...], ...}

An entry may also be an object with numbered names, `{"expr0": 0.1, "expr1": ...}`, and a list of columns may be one,
`{"expr0": [0.1, ...], ...}`. Names and meanings are those of the dialects of .npz files.

Such files have lists that are one entry short of the others. Which entry is missing they do not say: lists are taken
to begin together, timesteps that not all of them have are left out, and that is said.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.export.dialects.npz import Arrays
from flame_fitting.files import read_json_object

TIMED = frozenset(
    (
        *("expr", "expression", "exp", "rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose"),
        *("global_orient", "transl", "leye_pose", "reye_pose", "head_pose", "head_rotation", "global_rotation"),
        *("global_translation", "neck", "jaw", "eyes", "eye_pose", "pose", "rotation_matrices", "dynamic_offset"),
        "eyelids",
    )
)
"""Names that have an entry for every timestep, in any dialect."""
_REPEATED = frozenset({"shape", "betas", "static_offset"})
"""Names that may have one for every timestep: a list of vectors, not a vector."""
_COUNTED = frozenset({"frames", "timestep_id"})
"""Names with a single number or text for every timestep."""
_ADVICE = "Copy it again, or give the right file."
_NUMBERED = re.compile(r"(.*?)[_.-]?(\d+)")


@contextmanager
def open_json(path: Path) -> Iterator[Arrays]:
    """The object's lists as arrays, each with as many timesteps as all have; InputError where lists are ragged."""
    content = {str(name): value for name, value in read_json_object(path, _ADVICE).items()}
    arrays = {name: array for name, value in content.items() if (array := _array(path, name, value)) is not None}
    arrays, notes = _together(path, arrays)
    # what is no array is nobody's: it is named as left out
    yield Arrays(path, _Lists(arrays), notes, others=content.keys() - arrays.keys())


class _Lists(dict[str, ndarray]):
    """Arrays by name, as an open .npz file shows them."""

    @property
    def files(self) -> list[str]:
        """The names."""
        return list(self)


def _array(path: Path, name: str, value: Any) -> ndarray | None:
    """A list, a number or a text as an array; None for anything else of a name that no dialect has in time."""
    value = _in_order(path, name, value)
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        value = [_in_order(path, name, entry) for entry in value]
        if any(isinstance(entry, dict) for entry in value):
            if name in TIMED:
                raise InputError(f"{path}: {name} is a list of objects without numbered names. {_ADVICE}")
            return None
    if isinstance(value, dict) or value is None:
        return None
    try:
        array = np.array(value)
    except ValueError as error:
        if name not in TIMED:
            return None
        lengths = sorted({len(entry) if isinstance(entry, list) else 1 for entry in value})
        raise InputError(f"{path}: the entries of {name} have different lengths ({lengths}). {_ADVICE}") from error
    return array if array.dtype.kind in "fiubU" else None


def _in_order(path: Path, name: str, value: Any) -> Any:
    """The values of an object with names numbered from 0, in that order, lists in it as columns; else what it is."""
    if not isinstance(value, dict) or not value:
        return value
    found = [_NUMBERED.fullmatch(str(key)) for key in value]
    if any(match is None for match in found):
        return value
    numbers = [int(match[2]) for match in found if match is not None]
    if len({match[1] for match in found if match is not None}) > 1 or sorted(numbers) != list(range(len(numbers))):
        raise InputError(
            f"{path}: the {len(numbers)} entries of {name} are numbered {min(numbers)} to {max(numbers)}: not every "
            f"number from 0 on once. {_ADVICE}"
        )
    ordered = [entry for _, entry in sorted(zip(numbers, value.values(), strict=True), key=lambda pair: pair[0])]
    if all(isinstance(entry, list) for entry in ordered):
        if len({len(entry) for entry in ordered}) > 1:
            raise InputError(f"{path}: the columns of {name} have different lengths. {_ADVICE}")
        return [list(row) for row in zip(*ordered, strict=True)]
    return ordered


def _together(path: Path, arrays: dict[str, ndarray]) -> tuple[dict[str, ndarray], list[str]]:
    """The arrays with the timesteps that all of them have, and what to say of those that are one short."""
    counts = {name: len(array) for name, array in arrays.items() if name in TIMED and array.ndim > 1}
    most = max(counts.values(), default=0)
    short = sorted(name for name, count in counts.items() if count == most - 1 and count > 0)
    wrong = sorted(name for name, count in counts.items() if count < most - 1 and count != 1)
    if wrong:
        lacking = ", ".join(f"{name} {counts[name]}" for name in wrong)
        raise InputError(f"{path}: has {most} timesteps, but of {lacking}: more than one is missing. {_ADVICE}")
    if not short:
        return arrays, []

    def over_time(name: str, array: ndarray) -> bool:
        vectors = name in TIMED | _REPEATED and array.ndim > 1
        return (vectors or (name in _COUNTED and array.ndim == 1)) and len(array) == most

    kept = {name: array[: most - 1] if over_time(name, array) else array for name, array in arrays.items()}
    said = (
        f"{', '.join(short)} has {most - 1} entries where others have {most}: taken to begin together, the last "
        "timestep is left out"
    )
    return kept, [said]
