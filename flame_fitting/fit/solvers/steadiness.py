"""How much a sequence moves, estimated from itself: the standard deviation of each group's changes over time.

The options' deviations are for heads that move. Where one is still they let the noise of every picture through. So the
deviations are those that the measurements make most likely with all motion integrated out (empirical Bayes), no wider
than the options'. The measurements of a group's changes decide, by how much they are expected to err: each change d has
its expectation |d|^2 and the trace v of its posterior covariance, and of its n coefficients 1 / s^2 of the prior tells
v / s^2, the measurements n - v / s^2 (MacKay 1992; Wood and Fasiolo 2017).

A head that is still blinks. So changes are not Gaussian but about Student's t: a group has one scale for the whole
sequence, and each change one of its own about it.

Identity and cameras are found by the stated deviations: a distance, and how it changes, are in proportion to the focal
length, a turn and the depth of a face depend on each other. Narrow deviations, taken as known, would draw a focal
length to where the head moves less.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.priors import Priors, change_precision
from flame_fitting.fit.weight_config import PriorConfig

LEAST = 0.01
"""Share of the options' deviations that none falls below: systems of stiffer changes lose digits."""
FEWEST = 4
"""Changes that tell a deviation."""
_ROUNDS, _SETTLED = 60, 0.02
"""Rounds at most, and the relative change of all deviations that ends them."""
_MOST = 4.0
"""Factor that the scale of a sequence moves by in one round at most."""
_FREEDOM = 2.0
"""Degrees of freedom of Student's t, which the sequence's scale counts for beside a change's own measurements."""
_DIRECTIONS = 4.0
"""Of a group's coefficients that one change lies in, at most: a blink is one, and has all its size in it."""
_DOUBT = 3.0
"""How many standard deviations above the expected one a scale is: measurements that tell nothing of it leave it be."""
_HELD = 1e12
"""Precision of what is held."""

Shares = Mapping[str, Float[Tensor, " T_1"]]
"""By group, the deviation of each change from a timestep to the next over the options'."""


@dataclass(frozen=True)
class Group:
    """Coefficients that change together."""

    name: str
    rows: slice
    """In the unknowns of a timestep."""
    precision: Float[Tensor, "n n"]
    """Of their changes, as the options have it."""


def groups_of(columns: Columns, prior: PriorConfig, smoothness: Mapping[str, float], like: Tensor) -> list[Group]:
    """All that changes over time in steps of a stated deviation (`priors.make_priors`)."""
    out = []
    for block in columns.frame:
        if (step := smoothness.get(block.part.name)) is not None:
            rows = slice(block.columns.start - columns.n_shared, block.columns.stop - columns.n_shared)
            out.append(Group(block.part.name, rows, change_precision(block, prior, step, like)))
    return out


def found_shares(
    groups: Sequence[Group],
    system: BlockArrow,
    slope: Float[Tensor, "T F"],
    at: Float[Tensor, "T F"],
    priors: Priors,
    priors_with: Callable[[Shares], Priors],
    held: Bool[Tensor, "T F"],
) -> dict[str, Float[Tensor, " T_1"]]:
    """From the system and the slope of everything at the unknowns `at`, with the `priors` that are in them.

    What timesteps share is taken as known: it changes nothing over time.
    """
    nothing = at.new_zeros(0)
    evidence = system.diagonal - priors.diagonal + torch.diag_embed(_HELD * held.to(at))
    away = slope - priors.slope(at)
    scale = {group.name: 1.0 for group in groups}
    shares = {group.name: at.new_ones(len(at) - 1) for group in groups}
    alike = True  # a change that stands out does so from what the sequence has
    for _ in range(_ROUNDS):
        now = priors_with(shares)
        chain = BlockArrow(system.corner[:0, :0], system.arrow[..., :0], evidence + now.diagonal, now.below)
        try:
            factors = chain.damped(0.0).factorised()
        except torch.linalg.LinAlgError:
            return shares
        pull = (away + now.slope(at)).masked_fill(held, 0.0)
        changes = (at + factors.solve(BlockVector(nothing, -pull)).frames).diff(dim=0)
        covariances, before = factors.change_covariances(), shares
        shares = {}
        for group in groups:
            found = _one(group, changes, covariances, scale[group.name], before[group.name], alike)
            scale[group.name], shares[group.name] = found
        if all(bool(((shares[name] / old).log().abs() < _SETTLED).all()) for name, old in before.items()):
            if not alike:
                break
            alike = False
    return shares


def _one(
    group: Group,
    changes: Float[Tensor, "L F"],
    covariances: Float[Tensor, "L F F"],
    scale: float,
    share: Tensor,
    alike: bool,
) -> tuple[float, Float[Tensor, " L"]]:
    """A group's scale and shares after one round."""
    count, own = len(group.precision), changes[:, group.rows]
    squares = torch.einsum("tf,fg,tg->t", own, group.precision, own)
    unknown = torch.einsum("tfg,fg->t", covariances[:, group.rows, group.rows], group.precision)
    told = (count - unknown / share.square()).clamp(1e-9, count)
    moved, known = float((squares / share.square()).sum()), float(told.sum())
    factor = ((moved + _DOUBT * (2 * known) ** 0.5) / known) ** 0.5
    scale = min(max(scale * min(max(factor, 1 / _MOST), _MOST), LEAST), 1.0)
    if alike:
        return scale, torch.full_like(share, scale)
    wanted = (_FREEDOM * scale**2 + squares) / (_FREEDOM + told.clamp_max(_DIRECTIONS))
    return scale, wanted.sqrt().clamp(LEAST, 1.0)
