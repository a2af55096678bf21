"""How far a face is from rest, as a detector's evidence has it: the prior of the expression of a single moment.

At rest coefficients are N(0, s^2). An eye that evidence says is shut, or a mouth that it says is open, is none of the
many small ways in which faces at rest differ: along the expression b_k that does so by the amount a_k the prior is as
wide as that,
    C = s^2 I + sum_k a_k^2 b_k b_k^T,
and as narrow as before in all other directions (a mixture whose part is chosen by what was measured). So one shut eye
costs little, and what else the surface shows goes to identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.fit.solvers.evidence_terms import evidence_of
from flame_fitting.fit.solvers.shown_actions import Shown
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.apertures import LID_COLUMNS, apertures_of, closing_expression
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.action_scores import SPREAD

SHUT = 0.3
"""Share of its opening on the template by which an eye at rest is shut at most: beyond that it is an action."""
MOUTH_OPEN = 3.5
"""Lip gap, mm, beyond which a mouth is open: closed ones are read as 1 to 3 mm."""


@dataclass(frozen=True, eq=False)
class ActiveExpression:
    """What is not at rest."""

    directions: Float[ndarray, "K E"]
    """Coefficients that show each action at the amount that was measured."""
    open_mouth: bool
    said: tuple[str, ...]
    """In words, for the log and the report; none: the face is at rest."""
    eyelids: tuple[float, float] = (0.0, 0.0)
    """How far the left and the right eye are shut, of a head that has eyelids for it: no expression shuts them then."""

    def with_shown(self, shown: Shown) -> "ActiveExpression":
        """With actions that the face shows beside."""
        wide = SPREAD * shown.directions
        said = tuple(str(action) for action in shown.actions)
        return replace(self, directions=np.concatenate([self.directions, wide]), said=(*self.said, *said))

    def covariance(self, sigmas: Float[ndarray, " E"]) -> Float[ndarray, "E E"]:
        """Of the coefficients, with the standard deviations of a face at rest."""
        some = self.directions[:, : len(sigmas)]
        return np.asarray(np.diag(sigmas**2) + some.T @ some)

    @classmethod
    def at_rest(cls, head: HeadModel) -> "ActiveExpression":
        """Nothing."""
        return cls(np.zeros((0, head.n_expr)), False, ())


def active_expression(head: HeadModel, targets: Sequence[FrameTarget]) -> ActiveExpression | None:
    """What the evidence of a single moment says; None where there is none, or of several moments."""
    evidence = evidence_of(targets).get(0) if len(targets) == 1 else None
    apertures = apertures_of(head) if evidence is not None else None
    if evidence is None or apertures is None:
        return None
    template = head.v_template.double()[None].cpu()
    open_by = 1000 * apertures.gaps(template, head.faces.cpu())[0].numpy()
    directions, said, eyelids = [], [], [0.0, 0.0]
    for number, side in enumerate(("right", "left")):
        columns = slice(number * LID_COLUMNS, (number + 1) * LID_COLUMNS)
        seen = evidence.values[columns]
        if not np.isfinite(seen).all():
            continue
        shut = 1 - float(seen.sum() / open_by[columns].sum())
        if shut > SHUT:
            if head.n_eyelids:
                eyelids[1 - number] = min(shut, 1.0)
            else:
                directions.append(min(shut, 1.0) * closing_expression(head, apertures, template[0].numpy(), (number,)))
            said.append(f"{side} eye shut by {100 * min(shut, 1.0):.0f} %")
    lips = evidence.values[2 * LID_COLUMNS : len(open_by)]
    mouth = bool(np.isfinite(lips).all()) and float(np.median(lips)) > MOUTH_OPEN
    if mouth:
        said.append(f"mouth open by {np.median(lips):.0f} mm")
    rows = np.array(directions).reshape(len(directions), head.n_expr)
    return ActiveExpression(rows, mouth, tuple(said), (eyelids[0], eyelids[1]))


def precision_of(active: ActiveExpression | None, sigmas: Float[torch.Tensor, " E"]) -> Float[torch.Tensor, "E E"]:
    """Of as many expression coefficients as there are `sigmas`, the standard deviations at rest."""
    if active is None or not len(active.directions):
        return torch.diag(sigmas.square().reciprocal())
    return torch.as_tensor(np.linalg.inv(active.covariance(sigmas.cpu().numpy()))).to(sigmas)
