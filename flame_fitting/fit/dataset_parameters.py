"""Parameters of the head that a dataset carries beside its pictures, as exports and GaussianAvatars' datasets do."""

from pathlib import Path
from typing import Any

import numpy as np

from flame_fitting.capture.layouts.transforms import transforms_files
from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object, read_npz

_GIVE = "Give the folder of a dataset with flame_param/, whole, or one file of parameters."
_OF_ALL = ("shape", "static_offset")
"""Arrays that all timesteps share; the others have a row for each."""


def is_dataset(path: Path) -> bool:
    """Whether a folder is a dataset that carries parameters."""
    return (path / "flame_param").is_dir() and bool(transforms_files(path))


def how_to_begin_with(capture: Path, head_hash: str) -> list[str]:
    """What to tell whoever fits a dataset that carries parameters of this very head model; nothing of any other."""
    if not is_dataset(capture) or _made_with(read_json_object(transforms_files(capture)[0], _GIVE)) != head_hash:
        return []
    return [
        "the dataset carries parameters of an earlier fit, which are not looked at; to begin with them: "
        f"--model.flame-params-path {capture} --begin-stage rgb_init_offset --data.no-use-landmark "
        "--pipeline.rgb-init-offset.lr-scale 0.3"
    ]


def dataset_parameters(path: Path, head_hash: str) -> dict[str, np.ndarray]:
    """The arrays of all timesteps in their order, as one file of parameters has them; the world is the dataset's.

    Raises InputError where the dataset names another head model's file, or no file for a timestep.
    """
    named: dict[int, str] = {}
    for file in transforms_files(path):
        data = read_json_object(file, _GIVE)
        if _made_with(data) not in (None, head_hash):
            raise InputError(
                f"{path}: its parameters are of another head model. Choose that one with --head, or leave "
                "--model.flame-params-path out."
            )
        frames = data.get("frames")
        for frame in frames if isinstance(frames, list) else []:
            _note(named, file, frame)
    if not named:
        raise InputError(f"{path}: no frame names a file of parameters. {_GIVE}")
    arrays = [read_npz(path / named[timestep], _GIVE) for timestep in sorted(named)]
    if any(one.keys() != arrays[0].keys() for one in arrays):
        raise InputError(f"{path / 'flame_param'}: the files of timesteps do not hold the same arrays. {_GIVE}")
    try:
        return {
            name: value if name in _OF_ALL else np.concatenate([one[name] for one in arrays])
            for name, value in arrays[0].items()
        }
    except ValueError as error:
        raise InputError(f"{path / 'flame_param'}: arrays of timesteps differ in shape ({error}). {_GIVE}") from error


def _made_with(data: dict[str, Any]) -> str | None:
    """Which head model's file the dataset says that its parameters are of."""
    said = data.get("provenance")
    model = said.get("head_model") if isinstance(said, dict) else None
    found = model.get("sha256") if isinstance(model, dict) else None
    return str(found) if found else None


def _note(named: dict[int, str], file: Path, frame: Any) -> None:
    place = frame.get("flame_param_path") if isinstance(frame, dict) else None
    timestep = frame.get("timestep_index", 0) if isinstance(frame, dict) else None
    if not isinstance(place, str) or type(timestep) is not int:
        raise InputError(f"{file}: a frame names no file of parameters and its timestep. {_GIVE}")
    if named.setdefault(timestep, place) != place:
        raise InputError(f"{file}: timestep {timestep} has two files of parameters, {place} is one. {_GIVE}")
