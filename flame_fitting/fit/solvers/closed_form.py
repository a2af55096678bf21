"""Where the head is at every timestep, in closed form: what a second-order solver starts from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from flame_fitting import progress
from flame_fitting.capture.similarity import apply_similarity, invert_similarity, robust_umeyama
from flame_fitting.errors import NoFaceError
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import POSES, FitParameters, placement_matrix
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.model import HeadModel

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

    A timestep with fewer than 6 of them stands where the nearest one with more does. Raises NoFaceError where all lack
    them.
    """
    still = replace(
        parameters,
        rotation=torch.zeros_like(parameters.rotation),
        translation=torch.zeros_like(parameters.translation),
    )
    head_from_reference = invert_similarity(placement_matrix(parameters.placement))
    placed = np.array([t for t, target in enumerate(targets) if target.n_landmarks >= _FEWEST])
    if not len(placed):
        raise NoFaceError(f"no timestep has {_FEWEST} landmarks in space. Give more views.")
    rotation, translation = (np.zeros((len(targets), 3)) for _ in range(2))
    for t in placed:
        marks = [source.landmarks for source in targets[t].sources]
        own = {name: getattr(still, name)[t : t + 1] for name in ("expr", *POSES)}
        posed = head(shape=still.shape, static_offset=still.static_offset, **own)
        source = torch.cat([one.model_points(posed.vertices[0]) for one in marks]).cpu().numpy()
        target = apply_similarity(head_from_reference, torch.cat([one.points for one in marks]).cpu().numpy())
        weights = torch.cat([one.weight / one.sigma.square() for one in marks]).cpu().numpy()
        rigid = robust_umeyama(source, target, weights, with_scale=False).matrix
        joint = posed.joints[0, 0].cpu().numpy()  # R x + t = R (x - joint) + joint + translation
        rotation[t] = Rotation.from_matrix(rigid[:3, :3]).as_rotvec()
        translation[t] = rigid[:3, 3] + rigid[:3, :3] @ joint - joint
    nearest = placed[np.abs(np.arange(len(targets))[:, None] - placed).argmin(axis=1)]
    found = {"rotation": rotation[nearest], "translation": translation[nearest]}
    return replace(parameters, **{name: torch.as_tensor(value).to(still.rotation) for name, value in found.items()})
