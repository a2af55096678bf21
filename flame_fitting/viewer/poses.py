"""A pose: what of a head moves, at one moment. Its files are those of a fit of one timestep."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import transform_points
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz
from flame_fitting.fit.parameters import POSES
from flame_fitting.fit.result import FitResult, checked_parameters, save_parameters
from flame_fitting.head.model import HeadModel
from flame_fitting.viewer.opening import Viewed

Pose = Mapping[str, Float[ndarray, " n"]]
"""Parameters of one timestep by name: expr, `POSES`, and eyelids where the head has them. Radians and metres."""
_ADVICE = "Give a pose that this viewer saved, or a fit's parameters."


def pose_at(fit: FitResult, row: int) -> Pose:
    """The fit's own at a timestep."""
    names = [name for name in ("expr", *POSES, "eyelids") if name in fit.parameters]
    return {name: fit.parameters[name][row].astype(np.float64) for name in names}


def pose_at_rest(fit: FitResult) -> Pose:
    """No expression, all joints at rest; rotation and translation are those of the first timestep."""
    first = pose_at(fit, 0)
    return {key: value if key in ("rotation", "translation") else np.zeros_like(value) for key, value in first.items()}


class Poser:
    """Poses a fitted person again and again."""

    def __init__(self, viewed: Viewed) -> None:
        self._head, self._fit = viewed.head, viewed.fit
        self._shown_from_head = viewed.shown_from_head
        like = viewed.head.v_template
        self._shape = torch.as_tensor(viewed.fit.parameters["shape"]).to(like)
        self._like = like

    def vertices(self, pose: Pose, row: int) -> Float[ndarray, "V 3"]:
        """In the shown frame, metres; with the offsets of a timestep."""
        moved = {key: torch.as_tensor(value[None]).to(self._like) for key, value in pose.items()}
        if not self._head.n_eyelids:
            moved.pop("eyelids", None)
        offset = torch.as_tensor(offsets_at(self._fit, row)).to(self._like)
        with torch.no_grad():
            vertices = self._head(shape=self._shape, static_offset=offset, **moved).vertices[0]
        return transform_points(self._shown_from_head, vertices.double().cpu().numpy())


def offsets_at(fit: FitResult, row: int) -> Float[ndarray, "1 V 3"]:
    """Static and dynamic offsets at a timestep."""
    static, moving = fit.parameters["static_offset"], fit.parameters.get("dynamic_offset")
    own = static[[row if len(static) > 1 else 0]]
    return own if moving is None else own + moving[[row]]


def save_pose(path: Path, fit: FitResult, pose: Pose, row: int) -> None:
    """Writes a pose as the parameters of a fit of one timestep, with shape, offsets and head model of this one."""
    one = fit.of_rows([row])
    changed = {name: np.asarray(value, dtype=np.float64)[None] for name, value in pose.items()}
    save_parameters(path, replace(one, parameters=one.parameters | changed))


def load_pose(path: Path, head: HeadModel, like: Pose) -> Pose:
    """The first timestep of a parameter file; shape and offsets in it are another matter.

    Raises InputError where it is none, or is of a head model whose parameters mean something else.
    """
    arrays = read_npz(path, _ADVICE)
    parameters, _ = checked_parameters(path, arrays)
    digest = str(np.atleast_1d(arrays["head_model"])[-1])
    if digest != head.file_hash:
        name = str(np.atleast_1d(arrays["head_model"])[0])
        raise InputError(f"{path}: is a pose of the head model {name}, and this fit's is {head.name}. {_ADVICE}")
    out = {}
    for key, own in like.items():
        value = parameters[key][0] if key in parameters else np.zeros_like(own)
        if value.shape != own.shape:
            raise InputError(f"{path}: {key} has {len(value)} numbers, {len(own)} are expected. {_ADVICE}")
        out[key] = value.astype(np.float64)
    return out


def next_file(folder: Path, stem: str, suffix: str) -> Path:
    """`<stem>_0001.<suffix>` in a folder, or the first number after those that are there."""
    taken = [re.fullmatch(rf"{re.escape(stem)}_(\d+)\.{suffix}", path.name) for path in folder.glob(f"{stem}_*")]
    number = 1 + max((int(found[1]) for found in taken if found is not None), default=0)
    return folder / f"{stem}_{number:04d}.{suffix}"


def saved_poses(folder: Path) -> list[str]:
    """Names of the pose files in a folder."""
    return sorted(path.name for path in folder.glob("*.npz")) if folder.is_dir() else []
