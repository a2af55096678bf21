"""Biases of landmarks: how far off each point of a source always is, alike at all timesteps.

A detector means another place than the embedding says, and no identity of the model has the face's own at every point
(offsets come later). Such errors do not average out over time: without unknowns of their own they end in the identity,
in the focal length, and in standard deviations that are far too small. So each point of each source has a bias in
space that moves as the skin does there, with a prior; all are solved for with the rest, and what the solver tells of
the rest has them integrated out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.jacobians import Linearizer, joint_turns, joint_turns_of
from flame_fitting.fit.solvers.residuals import LANDMARK_CUT, projected_landmarks
from flame_fitting.fit.targets import FrameTarget, LandmarkTarget, PixelTarget
from flame_fitting.head.model import HeadModel
from flame_fitting.render.shading import triangle_axes

NECK = 1
"""The joint that carries a head."""

_MEDIAN = 2 * float(np.log(2))
"""Of a chi-squared variable of two degrees of freedom."""
_LEAST_NOISE = 1 / 3
"""Of what is assumed, of squared errors: what is found by a fit to the landmarks themselves is too small."""
_HELD = (1e-4, 1e-4)
"""m: standard deviations of biases that are known, in the skin and off it."""


@dataclass(frozen=True, eq=False)
class Biases:
    """Which landmarks have a bias, and how large it may be."""

    number: tuple[Int[Tensor, " _"], ...]
    """By source: number of the bias of each point of its scheme, -1 for points that are not seen."""
    precision: Float[Tensor, " B"]
    """1 / m^2 of its prior."""
    carried: Float[Tensor, "B J"]
    """By which joints, each with its share of the skin's weight."""
    axes: Float[Tensor, "B 3 3"]
    """Theirs at rest, as columns, each as many times longer than 1 as its prior is wider than `precision` says."""
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
        axes: list[Tensor] = []
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
            assert sigma is not None
            inside, off = next((one.bias for one in seen if one.bias is not None), (sigma, sigma))
            precision.append(like.new_full((len(used),), max(each, 1e-6) / off**2))
            weights, own_axes = like.new_zeros(len(used), like.shape[1]), like.new_zeros(len(used), 3, 3)
            marks: list[LandmarkTarget | PixelTarget] = [one.landmarks for one in seen]
            marks += [one.pixels for one in seen if one.pixels is not None]
            for points in marks:
                at = table[torch.as_tensor(points.index).cpu()] - start
                weights[at], own_axes[at] = _carried(points, head), triangle_axes(head.v_template[points.corners])
            carried.append(weights)
            axes.append(own_axes * like.new_tensor([inside / off, inside / off, 1.0]))
            start += len(used)
        all_carried = torch.cat([like.new_zeros(0, like.shape[1]), *carried])
        all_axes = torch.cat([like.new_zeros(0, 3, 3), *axes])
        return cls(tuple(number), torch.cat([like.new_zeros(0), *precision]), all_carried, all_axes, head.parents)

    @property
    def count(self) -> int:
        """B."""
        return len(self.precision)

    def turns(self, parameters: FitParameters, timestep: int) -> Float[Tensor, "B 3 3"]:
        """Their `axes` in the reference frame: turned as linear blend skinning turns, without the scale."""
        return self.turns_of(parameters, slice(timestep, timestep + 1))[0]

    def turns_of(self, parameters: FitParameters, rows: slice) -> Float[Tensor, "T B 3 3"]:
        """The same of several timesteps."""
        turns = joint_turns_of(parameters, self.parents, rows)
        return (self.carried @ turns.flatten(2)).unflatten(-1, (3, 3)) @ self.axes

    def levers(
        self, linearizer: Linearizer, parameters: FitParameters, rows: slice, biases: Float[Tensor, "B 3"]
    ) -> Float[Tensor, "T B 3 Q"]:
        """How their shifts move at some timesteps with the linearizer's unknowns, those that turn anything."""
        return linearizer.of_carried(parameters, rows, self.carried, self.shifts(self.axes, biases))

    @staticmethod
    def shifts(turns: Float[Tensor, "*T B 3 3"], biases: Float[Tensor, "B 3"]) -> Float[Tensor, "*T B 3"]:
        """Biases along the columns of their `turns`, in the reference frame."""
        return (turns @ biases[..., None])[..., 0]

    def rows(self, source: int, index: Int[Tensor, " n"]) -> Int[Tensor, " n"] | None:
        """Numbers of the biases of points of a source's scheme."""
        return self.number[source][index.to(self.precision.device)] if self.number else None


def turn_of(parameters: FitParameters, timestep: int, parents: list[int]) -> Float[Tensor, "3 3"]:
    """The axes of a head in the reference frame: those of the neck's joint."""
    return joint_turns(parameters, parents, timestep)[NECK]


@torch.no_grad()
def without_biases(
    head: HeadModel, parameters: FitParameters, targets: Sequence[FrameTarget], sigma: float
) -> list[FrameTarget]:
    """The targets, their landmarks in pictures moved by what each is always off by from the head as it is; what is left
    of that is no unknown any more.

    Whatever else is measured then tells how the head moves, and not where it is on average: biases that are free give
    way to anything that counts for more than they do. `sigma` (m) is their prior's standard deviation along each axis.
    """
    posed = [
        (joint_turns(parameters, head.parents, t), vertices) for t, vertices in enumerate(parameters.vertices(head))
    ]
    moved = [list(target.sources) for target in targets]
    for number in range(max((len(target.sources) for target in targets), default=0)):
        terms = []
        for t, (turns, vertices) in enumerate(posed):
            pixels = targets[t].sources[number].pixels if len(targets[t].sources) > number else None
            if pixels is not None and len(pixels.index):
                term = projected_landmarks(pixels, 1.0, LANDMARK_CUT, parameters.log_focal[0], None)
                turn = torch.einsum("nj,jac->nac", _carried(pixels, head), turns)
                terms.append((t, pixels, term.residuals(vertices), term.slopes(vertices) @ turn, term))
        if not terms:
            continue
        size = max(int(pixels.index.max()) for _, pixels, *_ in terms) + 1
        system = torch.eye(3).to(parameters.expr).repeat(size, 1, 1) / sigma**2
        right = parameters.expr.new_zeros(size, 3)
        for _, pixels, residual, slope, term in terms:
            weighted = slope * term.robust_weight(residual)[:, None, None]
            system.index_add_(0, pixels.index, weighted.mT @ slope)
            right.index_add_(0, pixels.index, torch.einsum("nkc,nk->nc", weighted, residual))
        bias = -torch.linalg.solve(system, right)
        for t, pixels, _, slope, term in terms:
            shift = torch.einsum("nkc,nc->nk", slope, bias[pixels.index])
            mended = replace(pixels, rays=pixels.rays - shift / term.depth[:, None])
            moved[t][number] = replace(moved[t][number], pixels=mended, bias=_HELD)
    return [replace(target, sources=tuple(sources)) for target, sources in zip(targets, moved, strict=True)]


@torch.no_grad()
def with_noise_found(
    head: HeadModel, parameters: FitParameters, targets: Sequence[FrameTarget], sigma: float
) -> list[FrameTarget]:
    """The targets, their landmarks in pictures weighed by the errors that a fit leaves of each source, where those are
    smaller than assumed; what each point is always off by is no error here (`without_biases`)."""
    about = without_biases(head, parameters, targets, sigma)
    vertices = parameters.vertices(head)
    out = [list(target.sources) for target in targets]
    for number in range(max((len(target.sources) for target in targets), default=0)):
        having = [t for t, target in enumerate(targets) if len(target.sources) > number]
        squares = []
        for t in having:
            if (pixels := about[t].sources[number].pixels) is not None and len(pixels.index):
                term = projected_landmarks(pixels, 1.0, LANDMARK_CUT, parameters.log_focal[0], None)
                squares.append(term.weight * term.residuals(vertices[t]).square().sum(-1))
        if not squares:
            continue
        found = float(torch.cat(squares).median()) / _MEDIAN
        share = min(max(found, _LEAST_NOISE), 1.0)
        for t in having:
            if (pixels := targets[t].sources[number].pixels) is not None:
                out[t][number] = replace(out[t][number], pixels=replace(pixels, weight=pixels.weight / share))
    return [replace(target, sources=tuple(sources)) for target, sources in zip(targets, out, strict=True)]


def _carried(points: LandmarkTarget | PixelTarget, head: HeadModel) -> Float[Tensor, "n J"]:
    return torch.einsum("nk,nkj->nj", points.barycentric.to(head.weights), head.weights[points.corners])
