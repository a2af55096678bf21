"""Levenberg-Marquardt steps on a block-arrow system.

Marquardt's (1963) damping, in proportion to the diagonal, led by the gain ratio as Nielsen does (1999; Madsen, Nielsen
and Tingleff, Methods for non-linear least squares problems, 2004, algorithm 3.16).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector, Factors

LEAST = 1e-10
"""Smallest damping, and the first. What all unknowns together hardly determine (a focal length) has curvatures of a
millionth of theirs: damping of that size would halve every step along it."""
MOST = 1e6
"""Damping from which no step is looked for any more."""
_SHORTEST, _KEPT = 1 / 16, 0.2
"""Share of a step that is tried last, and of what a step promises that it has to keep."""
_SETTLED = 1e-14
"""A step that promises less than this share of the cost is no better than rounding."""


class Bounds(NamedTuple):
    """Of the unknowns of every frame; infinite where there is none."""

    least: Float[Tensor, " F"]
    most: Float[Tensor, " F"]

    def within(self, frames: Float[Tensor, "T F"]) -> Float[Tensor, "T F"]:
        """Unknowns brought back between them."""
        return torch.minimum(torch.maximum(frames, self.least), self.most)


@dataclass
class Damping:
    """Falls with steps that keep what they promise, rises with those that are refused."""

    value: float = LEAST
    growth: float = 2.0
    refused: int = 0
    """Steps so far that made the cost larger and were not taken."""

    def accept(self, gain: float) -> None:
        """After a step that brought `gain` times the decrease it promised."""
        self.value = max(self.value * max(1 / 3, 1 - (2 * gain - 1) ** 3), LEAST)
        self.growth = 2.0

    def refuse(self) -> None:
        """After a step that was not taken."""
        self.value *= self.growth
        self.growth *= 2
        self.refused += 1


def step(
    system: BlockArrow,
    gradient: BlockVector,
    cost: float,
    at: BlockVector,
    cost_at: Callable[[BlockVector], float],
    damping: Damping,
    bounds: Bounds | None = None,
) -> BlockVector:
    """Where one step leads from the unknowns `at`: the first that makes the cost smaller, or `at` where none does.

    `system` and `gradient` are those of the cost at `at`; within `bounds` the step is projected, and unknowns that lie
    on one and push outward are held.
    """
    held = torch.zeros_like(at.frames, dtype=torch.bool) if bounds is None else holds(gradient, at, bounds)
    free, right = system.holding(held), BlockVector(-gradient.shared, torch.where(held, 0.0, -gradient.frames))
    while damping.value < MOST:
        try:
            wanted = free.damped(damping.value).factorised().solve(right)
        except torch.linalg.LinAlgError:
            damping.refuse()
            continue
        if _promised(free, right, wanted) <= _SETTLED * abs(cost):
            return at
        there = BlockVector(at.shared + wanted.shared, at.frames + wanted.frames)
        if bounds is not None:
            there = there._replace(frames=bounds.within(there.frames))
        taken = BlockVector(there.shared - at.shared, there.frames - at.frames)
        promised, change = (
            _promised(system, BlockVector(-gradient.shared, -gradient.frames), taken),
            cost - cost_at(there),
        )
        if change > 0 and promised > 0:
            damping.accept(change / promised)
            return there
        damping.refuse()
    damping.value = LEAST
    damping.growth = 2.0
    return at


def newton_factors(free: BlockArrow) -> Factors | None:
    """Of a system for `shortened`; None where it is not positive definite."""
    try:
        return free.damped(LEAST).factorised()
    except torch.linalg.LinAlgError:
        return None


def shortened(
    free: BlockArrow,
    factors: Factors,
    right: BlockVector,
    cost: float,
    at: BlockVector,
    cost_at: Callable[[BlockVector], float],
    bounds: Bounds,
) -> BlockVector:
    """Where Newton's whole step leads from the unknowns `at`, or its half, its quarter ...: the first that keeps a part
    of what it promises (Armijo 1966), or `at` where none does.

    `free` is the system without what `holds`, with its `newton_factors`, and `right` minus the cost's slope, 0 there.

    Damping along the diagonal takes a step out of the directions that are hardly determined, and those are all that a
    small pull on the cost moves; a shorter step keeps its direction.
    """
    wanted = factors.solve(right)
    promised, share = _promised(free, right, wanted), 1.0
    while share >= _SHORTEST:
        frames = bounds.within(at.frames + share * wanted.frames)
        there = BlockVector(at.shared + share * wanted.shared, frames)
        if cost_at(there) < cost - _KEPT * share * promised:
            return there
        share /= 2
    return at


def holds(gradient: BlockVector, at: BlockVector, bounds: Bounds) -> Bool[Tensor, "T F"]:
    """Which unknowns of the frames lie on their bound and push outward."""
    below, above = at.frames <= bounds.least, at.frames >= bounds.most
    return (below & (gradient.frames > 0)) | (above & (gradient.frames < 0))


def _promised(system: BlockArrow, right: BlockVector, x: BlockVector) -> float:
    """By how much the quadratic model falls along x; `right` is minus its slope."""
    return right.dot(x) - 0.5 * system.times(x).dot(x)
