"""A fit that begins with what another one has found (`--model.flame_params_path`)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from flame_fitting.capture.similarity import decompose_similarity, invert_similarity
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from flame_fitting.fit.dataset_parameters import dataset_parameters, is_dataset
from flame_fitting.fit.parameters import PARAMETERS, FitParameters, placement_matrix, root_joints
from flame_fitting.fit.state import FitState
from flame_fitting.head.model import HeadModel

_GIVE = "Give the folder of a fit to the same head model, its tracked_flame_params.npz, or a dataset with flame_param/."


def earlier_state(
    path: Path,
    head: HeadModel,
    timesteps: int,
    assumed_focal: float | None = None,
    notify: Callable[[str], None] | None = None,
) -> FitState:
    """What a fit has left: its whole state where `path` is its folder or checkpoint, else the parameters of a file.

    The file is `tracked_flame_params.npz`, ours or VHAP's (whose world is head space), or one of a dataset's
    flame_param/, whose folder stands for all of them; what it does not have stays at rest. `assumed_focal` is the focal
    length (in units of the picture's longer side) that a camera is opened with whose own is not known; the file's is
    counted from it. Of more timesteps than the capture has the first are taken, as VHAP does; of fewer, the last one
    stays. The history of the earlier fit is left behind. `notify` is told in a line what was taken. Raises InputError
    where it belongs to another head model.
    """
    folder_or_file = Path(path)
    checkpoint = folder_or_file / CHECKPOINT_NAME if folder_or_file.is_dir() else folder_or_file
    if checkpoint.suffix == ".npz":
        state = _from_parameters(checkpoint, read_npz(checkpoint, _GIVE), head, assumed_focal)
    elif is_dataset(folder_or_file):
        arrays = dataset_parameters(folder_or_file, head.file_hash)
        state = _from_parameters(folder_or_file, arrays, head, assumed_focal)
    elif checkpoint.is_file():
        found: Checkpoint = load_checkpoint(checkpoint)
        state = found.state
        replace(found, state=_with_eyelids_of(head, state)).check_head(checkpoint, head)
    else:
        raise InputError(f"{path}: no fit is there. {_GIVE}")
    if notify is not None:
        left_out = "; its eyelids are left out" if not head.n_eyelids and bool(state.parameters.eyelids.any()) else ""
        notify(_taken(path, state, timesteps, assumed_focal) + left_out)
    state = _with_eyelids_of(head, state)
    rows = [min(row, state.parameters.timesteps - 1) for row in range(timesteps)]
    parameters = state.parameters.of_frames(rows)
    if timesteps == 1:
        parameters = replace(parameters, static_offset=parameters.offset).without_dynamic_offset()
        parameters = _standing(parameters, head)
    return replace(state, parameters=parameters, records=(), warnings=(), active=None, uncertainty={}, underway=None)


def in_reference(state: FitState, reference_from_world: np.ndarray) -> FitState:
    """The same head in the world, seen from another reference frame; the placement takes up the difference."""
    before = placement_matrix(state.parameters.placement)
    matrix = reference_from_world @ invert_similarity(state.reference_from_world) @ before
    placement = torch.as_tensor(_placement_of(matrix)).to(state.parameters.placement)
    parameters = replace(state.parameters, placement=placement)
    return replace(state, parameters=parameters, reference_from_world=reference_from_world)


def _taken(path: Path, state: FitState, timesteps: int, assumed_focal: float | None) -> str:
    """What the fit begins with, in a line for the user."""
    count = state.parameters.timesteps
    what = f"{count} timestep{'s' if count > 1 else ''}"
    if count > timesteps:
        what += f", of which the first {timesteps} are taken" if timesteps > 1 else ", of which the first is taken"
    elif count < timesteps:
        what += f", {'the last of which' if count > 1 else 'which'} stands for the {timesteps - count} after it"
    if assumed_focal is not None:
        focal = assumed_focal * float(state.parameters.log_focal[0].exp())
        what += f"; focal length {focal:.3f} of the picture's longer side"
    parts = [name for name, value in (("texture", state.texture), ("light", state.lights)) if value is not None]
    what += f"; {' and '.join(parts)}" if parts else ""
    return f"begins with {path}: {what}"


def _from_parameters(
    path: Path, arrays: dict[str, np.ndarray], head: HeadModel, assumed_focal: float | None
) -> FitState:
    """Of a file's arrays; head space is its world where it has no `head_from_world`."""
    steps = len(arrays["expr"]) if "expr" in arrays and arrays["expr"].ndim == 2 else 0
    if not steps or not {"shape", "rotation", "translation"} <= arrays.keys():
        raise InputError(f"{path}: has the keys {', '.join(sorted(arrays))}: no parameters of a fit. {_GIVE}")
    neutral = FitParameters.neutral(head, steps, torch.float64)
    if "dynamic_offset" in arrays and arrays["dynamic_offset"].size:
        neutral = neutral.with_dynamic_offset()
    neutral = neutral.with_eyelids(2 if "eyelids" in arrays and arrays["eyelids"].size else 0)
    values = {}
    for parameter in PARAMETERS:
        if parameter.name not in arrays:
            continue
        like, found = getattr(neutral, parameter.name), arrays[parameter.name]
        width = like.shape[-1]
        fits = found.ndim == like.ndim and found.shape[:-1] == like.shape[:-1] and found.dtype.kind == "f"
        fits = fits and (found.shape[-1] == width or (parameter.name in ("shape", "expr") and found.shape[-1] > 0))
        if fits and not np.isfinite(found).all():
            raise InputError(f"{path}: {parameter.name} has values that are no finite numbers. {_GIVE}")
        if not fits or np.any(found[..., width:]):
            shapes = f"{parameter.name} has shape {found.shape}, the head model {head.name} takes {tuple(like.shape)}"
            raise InputError(f"{path}: {shapes}. {_GIVE}")
        like[..., : min(found.shape[-1], width)] = torch.as_tensor(found[..., :width]).to(like)
        values[parameter.name] = like
    if assumed_focal is not None and "focal_length" in arrays:
        focal = arrays["focal_length"].reshape(-1)[:1]
        if not len(focal) or not np.isfinite(focal[0]) or focal[0] <= 0:
            raise InputError(f"{path}: focal_length is {arrays['focal_length']}, a positive number is meant. {_GIVE}")
        neutral.log_focal[0] = float(np.log(focal[0] / assumed_focal))
    matrix = np.asarray(arrays.get("head_from_world", np.eye(4)), dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) <= 0:
        raise InputError(f"{path}: head_from_world is no similarity. {_GIVE}")
    return FitState(replace(neutral, **values), matrix)


def _with_eyelids_of(head: HeadModel, state: FitState) -> FitState:
    return replace(state, parameters=state.parameters.with_eyelids(head.n_eyelids))


def _standing(parameters: FitParameters, head: HeadModel) -> FitParameters:
    """One timestep in a static head's gauge: the placement takes over rotation and translation."""
    if not (parameters.rotation.any() or parameters.translation.any()):
        return parameters
    joint = root_joints(head, parameters)[0].numpy()
    turn = Rotation.from_rotvec(parameters.rotation[0].numpy()).as_matrix()
    moved = np.eye(4)  # R x + t = R (x - joint) + joint + translation
    moved[:3, :3], moved[:3, 3] = turn, joint - turn @ joint + parameters.translation[0].numpy()
    matrix = placement_matrix(parameters.placement) @ moved
    still = {name: torch.zeros_like(getattr(parameters, name)) for name in ("rotation", "translation")}
    return replace(parameters, placement=torch.as_tensor(_placement_of(matrix)).to(parameters.placement), **still)


def _placement_of(matrix: np.ndarray) -> np.ndarray:
    """(7,) axis-angle, translation and log scale of a similarity (4, 4)."""
    scale, rotation, translation = decompose_similarity(matrix)
    return np.concatenate([Rotation.from_matrix(rotation).as_rotvec(), translation, [np.log(scale)]])
