"""Biases of landmarks: how far off each point of a source always is, alike at all timesteps.

A detector means another place than the embedding says, and no identity of the model has the face's own at every point
(offsets come later). Such errors do not average out over time: without unknowns of their own they end in the identity,
in the focal length, and in standard deviations that are far too small. So each point of each source has a bias in
space that moves as the skin does there, with a prior; all are solved for with the rest, and what the solver tells of
the rest has them integrated out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.jacobians import joint_turns
from flame_fitting.fit.targets import FrameTarget, LandmarkTarget, PixelTarget
from flame_fitting.head.model import HeadModel

NECK = 1
"""The joint that carries a head."""


@dataclass(frozen=True, eq=False)
class Biases:
    """Which landmarks have a bias, and how large it may be."""

    number: tuple[Int[Tensor, " _"], ...]
    """By source: number of the bias of each point of its scheme, -1 for points that are not seen."""
    precision: Float[Tensor, " B"]
    """1 / m^2 of its prior."""
    carried: Float[Tensor, "B J"]
    """By which joints, each with its share of the skin's weight."""
    parents: list[int]
    """Of the joints."""

    @classmethod
    def of(cls, targets: Sequence[FrameTarget], sigma: float | None, count: float, head: HeadModel) -> "Biases":
        """`sigma` (m) is the prior's standard deviation along each axis; None: no point has one.

        All landmarks of a timestep together count for `count` measurements, and their biases for as many unknowns.
        """
        like = head.weights
        number: list[Tensor] = []
        precision: list[Tensor] = []
        carried: list[Tensor] = []
        start = 0
        for source in range(max((len(target.sources) for target in targets), default=0) if sigma is not None else 0):
            seen = [target.sources[source] for target in targets if len(target.sources) > source]
            rows = [torch.as_tensor(one.landmarks.index) for one in seen]
            rows += [one.pixels.index.cpu() for one in seen if one.pixels is not None]
            used = np.unique(torch.cat(rows).numpy())
            table = torch.full((int(used.max(initial=-1)) + 1,), -1)
            table[used] = start + torch.arange(len(used))
            number.append(table.to(like.device))
            share = max((one.share for one in seen), default=0.0)
            each = count * share / max(len(used), 1)
            own = next((one.bias for one in seen if one.bias is not None), sigma)
            assert own is not None
            precision.append(like.new_full((len(used),), max(each, 1e-6) / own**2))
            weights = like.new_zeros(len(used), like.shape[1])
            for points in (*(one.landmarks for one in seen), *(one.pixels for one in seen if one.pixels is not None)):
                weights[table[torch.as_tensor(points.index).cpu()] - start] = _carried(points, head)
            carried.append(weights)
            start += len(used)
        rows = torch.cat([like.new_zeros(0, like.shape[1]), *carried])
        return cls(tuple(number), torch.cat([like.new_zeros(0), *precision]), rows, head.parents)

    @property
    def count(self) -> int:
        """B."""
        return len(self.precision)

    def turns(self, parameters: FitParameters, timestep: int) -> Float[Tensor, "B 3 3"]:
        """Their axes in the reference frame: linear blend skinning's, without the scale."""
        return torch.einsum("bj,jac->bac", self.carried, joint_turns(parameters, self.parents, timestep))

    def rows(self, source: int, index: Int[Tensor, " n"]) -> Int[Tensor, " n"] | None:
        """Numbers of the biases of points of a source's scheme."""
        return self.number[source][index.to(self.precision.device)] if self.number else None


def turn_of(parameters: FitParameters, timestep: int, parents: list[int]) -> Float[Tensor, "3 3"]:
    """The axes of a head in the reference frame: those of the neck's joint."""
    return joint_turns(parameters, parents, timestep)[NECK]


def _carried(points: LandmarkTarget | PixelTarget, head: HeadModel) -> Float[Tensor, "n J"]:
    return torch.einsum("nk,nkj->nj", points.barycentric.to(head.weights), head.weights[points.corners])
