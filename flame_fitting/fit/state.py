"""Where a fit has arrived: everything that its stages change."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_fitting.capture.camera import transform_points
from flame_fitting.fit.parameters import FitParameters, placement_matrix
from flame_fitting.fit.scale import Scale
from flame_fitting.head.model import HeadModel

APPEARANCE = ("texture", "residual", "lights")
"""Tensors of a state beside its parameters."""


@dataclass(eq=False)
class StageRecord:
    """What one stage of the fit left behind."""

    name: str
    parameters: FitParameters | None
    """None of fits of before stages kept theirs."""
    reference_from_world: np.ndarray
    """(4, 4) as the state's."""
    seconds: float
    summary: dict[str, float] = field(default_factory=dict)
    """landmark_mm, face_mm and what else the stage measured."""
    accepted: bool = True
    smoothed: list[int] = field(default_factory=list)
    """Triangles that static offsets had turned over, and around which they were smoothed (`fit.repair`)."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Steps and what was minimised there, where the solver reads it; empty of older fits."""

    def vertices_world(self, head: HeadModel, rows: Sequence[int] | None = None) -> np.ndarray:
        """(T, V, 3) in the avatar's coordinates; of some rows where they are given. Where there are `parameters`."""
        assert self.parameters is not None
        chosen = self.parameters if rows is None else self.parameters.of_frames(rows)
        return _vertices_world(head, chosen, self.reference_from_world)


@dataclass(frozen=True, eq=False)
class Underway:
    """How far a stage is that has not finished, with all that its solver needs to go on bit by bit."""

    stage: str
    batch: int
    """Batches of timesteps behind it (`driver.frames_of`)."""
    found: "FitState | None"
    """What these have made of the state; None where there are none."""
    step: int
    """Steps of the solver behind it in the batch that it is at."""
    tensors: dict[str, Tensor]
    """The solver's own: optimiser moments, buffers, states of random generators. Empty before its first step."""
    numbers: dict[str, Any]
    """The solver's own, plain values for JSON."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Steps of the stage, of all batches, and their losses so far."""


@dataclass(frozen=True, eq=False)
class FitState:
    """Parameters, appearance and history of a fit. A stage makes a new one; the tensors of an old one stay as they are.

    `fit.checkpoint` saves and loads it whole. Stages draw random numbers from generators that they seed themselves;
    those of a stage that has not finished are in `underway`.
    """

    parameters: FitParameters
    reference_from_world: np.ndarray
    """(4, 4) similarity to the reference frame, fixed from the start on (see `fit.parameters`)."""
    scale: Scale = field(default_factory=Scale)
    texture: Tensor | None = None
    """(R, R, 3) sRGB 0..1."""
    residual: Tensor | None = None
    """(R, R, 3) what an optimised texture adds to its base."""
    texture_is_final: bool = False
    """Whether the texture was optimised with the rest, so that it is not baked in the end."""
    lights: Tensor | None = None
    """(9, 3) spherical-harmonic coefficients, head space."""
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    """Standard deviations of parameters, by the last second-order stage (`fit.solvers.posterior`)."""
    records: tuple[StageRecord, ...] = ()
    """What every stage so far has left behind, in order."""
    warnings: tuple[str, ...] = ()
    active: tuple[str, ...] | None = None
    """What of a face is not at rest by its evidence, in words (`solvers.active_expression`); None: not looked for."""
    underway: Underway | None = None
    """The stage that comes next, where it was stopped in the middle; all else is as it was before that stage."""

    @property
    def head_from_world(self) -> np.ndarray:
        """(4, 4) similarity that the fit has arrived at."""
        return np.linalg.inv(placement_matrix(self.parameters.placement)) @ self.reference_from_world

    def vertices_world(self, head: HeadModel) -> np.ndarray:
        """(T, V, 3) in the avatar's coordinates."""
        return _vertices_world(head, self.parameters, self.reference_from_world)

    def to(self, device: torch.device) -> "FitState":
        """With all tensors on a device."""
        moved = {name: value.to(device) for name in APPEARANCE if (value := getattr(self, name)) is not None}
        underway = self.underway
        if underway is not None and underway.found is not None:
            underway = replace(underway, found=underway.found.to(device))
        return replace(self, parameters=self.parameters.to(device), underway=underway, **moved)

    def warned(self, text: str) -> "FitState":
        """With one more warning."""
        return replace(self, warnings=(*self.warnings, text))

    def recorded(self, record: StageRecord) -> "FitState":
        """With one more stage behind it."""
        return replace(self, records=(*self.records, record))


def _vertices_world(head: HeadModel, parameters: FitParameters, reference_from_world: np.ndarray) -> np.ndarray:
    """(T, V, 3) in the avatar's coordinates."""
    world_from_reference = np.linalg.inv(reference_from_world)
    posed = (some.vertices(head).detach().cpu().numpy() for some in parameters.to(head.v_template).batches())
    return np.concatenate([transform_points(world_from_reference, vertices) for vertices in posed])
