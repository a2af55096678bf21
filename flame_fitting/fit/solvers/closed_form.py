"""Where the head is at every timestep, in closed form: what a second-order solver starts from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from flame_fitting import progress
from flame_fitting.capture.similarity import apply_similarity, invert_similarity, robust_umeyama
from flame_fitting.errors import NoFaceError
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import POSES, FitParameters, placement_matrix
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.resection import resect

_FEWEST = 6
"""3D landmarks that a timestep is placed by, at least."""


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """Places every timestep by its landmarks; one alone stands where the reference frame has it (`fit.parameters`)."""
    shown.advance()
    if not seen.is_sequence:
        return state
    return replace(state, parameters=align_timesteps(seen.head, state.parameters, seen.targets))


def align_timesteps(head: HeadModel, parameters: FitParameters, targets: Sequence[FrameTarget]) -> FitParameters:
    """Rotation and translation of each timestep by a robust rigid fit of its 3D landmarks, all else held.

    Where there are fewer than 6 it is placed by what one picture shows of it (resection); one without that stands
    where the nearest other one does. Raises NoFaceError where all lack both.
    """
    still = replace(
        parameters,
        rotation=torch.zeros_like(parameters.rotation),
        translation=torch.zeros_like(parameters.translation),
    )
    head_from_reference = invert_similarity(placement_matrix(parameters.placement))
    placement = placement_matrix(parameters.placement)
    placed: list[int] = []
    rotation, translation = (np.zeros((len(targets), 3)) for _ in range(2))
    for t, target in enumerate(targets):
        own = {name: getattr(still, name)[t : t + 1] for name in ("expr", "eyelids", *POSES)}
        posed = head(shape=still.shape, static_offset=still.of_frames([t]).offset, **own)
        if target.n_landmarks >= _FEWEST:
            rigid = _by_points(posed.vertices[0], target, head_from_reference)
        else:
            found = _by_one_picture(posed.vertices[0], target, placement)
            if found is None:
                continue
            rigid = found
        placed.append(t)
        joint = posed.joints[0, 0].cpu().numpy()  # R x + t = R (x - joint) + joint + translation
        rotation[t] = Rotation.from_matrix(rigid[:3, :3]).as_rotvec()
        translation[t] = rigid[:3, 3] + rigid[:3, :3] @ joint - joint
    if not placed:
        raise NoFaceError(f"no timestep has {_FEWEST} landmarks that agree. Give more views, or look at the pictures.")
    nearest = np.array(placed)[np.abs(np.arange(len(targets))[:, None] - np.array(placed)).argmin(axis=1)]
    found_poses = {"rotation": rotation[nearest], "translation": translation[nearest]}
    return replace(
        parameters, **{name: torch.as_tensor(value).to(still.rotation) for name, value in found_poses.items()}
    )


def _by_points(vertices: Tensor, target: FrameTarget, head_from_reference: np.ndarray) -> np.ndarray:
    """The rigid motion (4, 4) of head space that takes the head's points nearest to their landmarks in space."""
    marks = [source.landmarks for source in target.sources]
    source = torch.cat([one.model_points(vertices) for one in marks]).cpu().numpy()
    goal = apply_similarity(head_from_reference, torch.cat([one.points for one in marks]).cpu().numpy())
    weights = torch.cat([one.weight / one.sigma.square() for one in marks]).cpu().numpy()
    return robust_umeyama(source, goal, weights, with_scale=False).matrix


def _by_one_picture(vertices: Tensor, target: FrameTarget, placement: np.ndarray) -> np.ndarray | None:
    """The rigid motion (4, 4) of head space by the picture that shows most landmarks; None where none shows enough."""
    best: np.ndarray | None = None
    most = 0
    for source in target.sources:
        pixels = source.pixels
        if pixels is None:
            continue
        numbers, counts = torch.unique(pixels.view, return_counts=True)
        rows = torch.nonzero(pixels.view == numbers[counts.argmax()])[:, 0]
        if len(rows) <= most:
            continue
        points = torch.einsum("nkc,nk->nc", vertices[pixels.corners[rows]], pixels.barycentric[rows]).cpu().numpy()
        found = resect(apply_similarity(placement, points), pixels.rays[rows].cpu().numpy())
        if found is not None:
            camera = np.vstack([pixels.camera[rows[0]].cpu().numpy(), [0.0, 0.0, 0.0, 1.0]])
            in_reference = invert_similarity(camera) @ found
            best, most = invert_similarity(placement) @ in_reference @ placement, len(rows)
    return best
