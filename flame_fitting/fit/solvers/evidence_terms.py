"""Lids, lips and gaze as a detector's evidence has them, as measurements of the second-order solver.

Gaps are linear in the vertices along the head's own axis, and do not change with the head's pose or size; gaze is the
eyes' own turn. All of an opening's gaps are told by the same few pixels, so they share what one opening counts for. The
error that all pictures of a person share is an unknown, as the biases of landmarks are (`biases`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.biases import NECK, Biases, turn_of
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.residuals import Measurements
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.apertures import GAP_NAMES, LID_COLUMNS, apertures_of, gaze_angles
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.evidence import Evidence

_LIP_COLUMNS = len(GAP_NAMES) - 2 * LID_COLUMNS
_OF_ONE = np.repeat([1 / LID_COLUMNS, 1 / _LIP_COLUMNS], [2 * LID_COLUMNS, _LIP_COLUMNS])
"""Share of each gap in its opening."""
_MM, _DEGREES = 0.001, np.pi / 180
_CUT = 10.0
"""Geman-McClure scale in standard deviations: lids that shut are far from where they were, and no outliers."""
_MAYBE_SHUT = 2.0
"""Gaps that are read below so many of their deviations cannot be told from shut, which most mouths are."""
_SHUT_MM, _SHUT_LIDS_MM = 0.5, 0.15
"""Standard deviation of the gap of lips and of lids that are shut."""
LIDS = (slice(0, LID_COLUMNS), slice(LID_COLUMNS, 2 * LID_COLUMNS))
"""Gaps of the subject's right eye, and of the left one."""
_TURNING = ("placement_rotation", "placement_translation", "rotation", "translation", "neck_pose")
"""Parts that move a head as a whole, which changes no gap."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gaps(Measurements):
    """Gaps of openings at one timestep: points are upper rims minus lower ones."""

    timestep: int
    parents: list[int]
    """Of the joints."""
    still: Bool[Tensor, " P"]
    """Columns that change no gap."""
    scale_column: int | None

    def _rows(self, residuals: Tensor, slopes: Tensor | None, vertices: Tensor, jacobian: Tensor) -> Tensor:
        out = super()._rows(residuals, slopes, vertices, jacobian)
        if self.scale_column is not None:  # in the head's own size
            bare = replace(self, shift=None)
            out[..., self.scale_column] -= bare.residuals(vertices) + self.offsets
        return out.masked_fill(self.still, 0.0)

    def at(self, parameters: FitParameters, biases: Float[Tensor, "B 3"] | None = None) -> "Measurements":
        """The same along the head's axis at these parameters."""
        up = turn_of(parameters, self.timestep, self.parents)[:, 1] / parameters.placement[6].exp()
        return replace(super().at(parameters, biases), directions=up.expand(len(self.corners), 1, 3))


@dataclass(frozen=True, eq=False, kw_only=True)
class Gaze(Measurements):
    """Where the eyes look at one timestep, rad; no vertex takes part."""

    timestep: int
    angles: Int[Tensor, " n"]
    """Which of `GAZE_NAMES`."""
    eyes: slice
    """Columns of `eyes_pose`."""
    pose: Float[Tensor, "1 6"]

    def residuals(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "n k"]:
        """rad."""
        return gaze_angles(self.pose)[0, self.angles, None] - self.offsets

    def _rows(self, residuals: Tensor, slopes: Tensor | None, vertices: Tensor, jacobian: Tensor) -> Tensor:
        slope = torch.autograd.functional.jacobian(lambda pose: gaze_angles(pose[None])[0], self.pose[0])
        out = jacobian.new_zeros(len(self.angles), 1, jacobian.shape[-1])
        out[:, 0, self.eyes] = slope[self.angles]
        return out

    def at(self, parameters: FitParameters, biases: Float[Tensor, "B 3"] | None = None) -> "Measurements":
        """The same at these parameters."""
        return replace(self, pose=parameters.eyes_pose[self.timestep : self.timestep + 1].detach())


class EvidenceTerms:
    """What all timesteps' evidence makes of a solver's columns."""

    def __init__(
        self,
        head: HeadModel,
        targets: Sequence[FrameTarget],
        columns: Columns,
        count: float,
        like: Tensor,
        moments: bool = False,
    ) -> None:
        """`count` is how many measurements each opening and each angle counts for; 0: nothing is measured.
        `moments` says that of several timesteps none follows another."""
        found = evidence_of(targets) if count else {}
        self._apertures = apertures_of(head) if found else None
        self._evidence = found if self._apertures is not None else {}
        self._columns, self._count, self._like, self._faces = columns, count, like, head.faces
        self._parents, self._over_time = head.parents, len(targets) > 1 and not moments
        slices = columns.slices()
        still = torch.zeros(columns.count, dtype=torch.bool, device=like.device)
        for name in _TURNING:
            if name in slices:
                still[slices[name]] = True
        scale = slices.get("placement_scale")
        self._still, self._scale = still, None if scale is None else scale.start
        self._eyes = slices.get("eyes_pose")
        self._first: int | None = None

    def with_unknowns(self, biases: Biases) -> Biases:
        """Biases, and after them one for what is shared of each gap."""
        if not self._evidence or not biases.count:
            return biases
        self._first = biases.count
        shared = next(iter(self._evidence.values())).shared_std[: len(GAP_NAMES)] * _MM
        precision = self._like.new_tensor(self._count * _OF_ONE / shared**2)
        carried = biases.carried.new_zeros(len(precision), biases.carried.shape[1])
        carried[:, NECK] = 1.0  # gaps are measured along the head's own axis
        return replace(
            biases,
            precision=torch.cat([biases.precision, precision]),
            carried=torch.cat([biases.carried, carried]),
            axes=torch.cat([biases.axes, torch.eye(3).to(carried).expand(len(carried), 3, 3)]),
        )

    def of(self, timestep: int, parameters: FitParameters) -> list[Measurements]:
        """What is measured at a timestep."""
        evidence = self._evidence.get(timestep)
        if evidence is None or self._apertures is None:
            return []
        out: list[Measurements] = []
        gaps, stated = evidence.values[: len(GAP_NAMES)], evidence.own_std if self._first is not None else evidence.std
        if not self._over_time:
            gaps, stated = with_shut(gaps, stated[: len(GAP_NAMES)])
        known = np.flatnonzero(np.isfinite(gaps))
        if len(known):
            std = stated[known] * _MM
            index = torch.as_tensor(self._apertures.face_index[:, known], device=self._faces.device)
            shares = self._like.new_tensor(self._apertures.barycentric[:, known])
            made = Gaps(
                corners=self._faces[index].transpose(0, 1).flatten(1),
                shares=torch.cat([shares[0], -shares[1]], dim=1),
                offsets=self._like.new_tensor(gaps[known, None] * _MM),
                weight=self._like.new_tensor(self._count * _OF_ONE[known] / std**2),
                scale=self._like.new_tensor(_CUT * std),
                bias=None if self._first is None else torch.as_tensor(self._first + known, device=self._like.device),
                timestep=timestep,
                parents=self._parents,
                still=self._still,
                scale_column=self._scale,
            )
            out.append(made.at(parameters))
        gaze = evidence.values[len(GAP_NAMES) :]
        known = np.flatnonzero(np.isfinite(gaze))
        if len(known) and self._eyes is not None:
            std = evidence.std[len(GAP_NAMES) :][known] * _DEGREES
            out.append(
                Gaze(
                    corners=self._faces.new_zeros(len(known), 1),
                    shares=self._like.new_zeros(len(known), 1),
                    offsets=self._like.new_tensor(gaze[known, None] * _DEGREES),
                    weight=self._like.new_tensor(self._count / std**2),
                    scale=self._like.new_tensor(_CUT * std),
                    timestep=timestep,
                    angles=torch.as_tensor(known, device=self._like.device),
                    eyes=self._eyes,
                    pose=parameters.eyes_pose[timestep : timestep + 1].detach(),
                )
            )
        return out

    @property
    def corners(self) -> Int[Tensor, " n"]:
        """Vertices that gaps are measured on."""
        if self._apertures is None:
            return self._faces.new_zeros(0)
        return self._faces[torch.as_tensor(self._apertures.face_index, device=self._faces.device)].reshape(-1)


def with_shut(
    gaps: Float[np.ndarray, " G"], std: Float[np.ndarray, " G"]
) -> tuple[Float[np.ndarray, " G"], Float[np.ndarray, " G"]]:
    """Gaps (mm) and their deviations, where lips and lids that may be shut are taken for shut."""
    for opening, surely in ((slice(2 * LID_COLUMNS, None), _SHUT_MM), *((eye, _SHUT_LIDS_MM) for eye in LIDS)):
        lips = opening.start == 2 * LID_COLUMNS
        seen, allowed = gaps[opening], _MAYBE_SHUT * std[opening]
        # lids are read column by column from one look; NaN is not known
        if bool((seen < allowed).all()) if lips else bool(seen.mean() < allowed.mean()):
            gaps, std = gaps.copy(), std.copy()
            gaps[opening], std[opening] = 0.0, surely
    return gaps, std


def shut_eyes(evidence: Evidence) -> list[int]:
    """Which eyes' lids are taken for shut: the subject's right (0), left (1)."""
    gaps = with_shut(evidence.values[: len(GAP_NAMES)], evidence.std[: len(GAP_NAMES)])[0]
    return [number for number, eye in enumerate(LIDS) if bool((gaps[eye] == 0).all())]


def points_alone(terms: Sequence[Measurements]) -> list[Measurements]:
    """Those of landmarks and surface."""
    return [term for term in terms if not isinstance(term, Gaps | Gaze)]


def evidence_of(targets: Sequence[FrameTarget]) -> Mapping[int, Evidence]:
    """By timestep, what the first source with evidence says."""
    out = {}
    for timestep, target in enumerate(targets):
        said = [one.evidence for one in target.sources if one.evidence is not None]
        if said and bool(said[0].known):
            out[timestep] = said[0]
    return out
