"""What becomes of timesteps that no picture tells of, when a stage has moved their neighbours."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from flame_fitting.fit.parameters import PARAMETERS, FitParameters

FAR = 5
"""Timesteps to the nearest one with a face from which a gap is warned of: what the priors of `track` say of an
expression is half forgotten after seven."""
MANY = 0.1
"""The same of the share of timesteps without a face."""
_RANGES = 8
"""Ranges that are named at most."""


@dataclass(frozen=True)
class Gaps:
    """Timesteps in which no face was found; not those that were held out."""

    text: str
    """How many and which, in words."""
    serious: bool
    """Whether they are so many, or so far from what was seen, that a user should be warned."""


def gaps(seen: Sequence[bool], heldout: Collection[int], names: Sequence[str], ordered: bool = True) -> Gaps | None:
    """Those among timesteps of which something was `seen` or not; None where there are none."""
    found = np.flatnonzero(seen)
    missing = [row for row, valid in enumerate(seen) if not valid and row not in heldout]
    if not missing or not len(found):
        return None
    away = int(np.abs(found[:, None] - np.array(missing)).min(axis=0).max())
    text = f"no face in {len(missing)} of {len(seen)} timesteps: {listed(missing, names, _RANGES)}. "
    if not ordered:
        return Gaps(f"{text}Nothing is known of their expressions. Look at their pictures.", True)
    near = f"up to {away} timesteps away" if away > 1 else "next to them"
    if not (serious := away > FAR or len(missing) > MANY * len(seen)):
        return Gaps(f"{text}They are bridged by those {near}", serious)
    text += f"What the head does there is made up from those {near}. --data.subset ti<first>tj<last> tracks a part."
    return Gaps(text, serious)


def listed(rows: Sequence[int], names: Sequence[str] | None = None, most: int | None = None) -> str:
    """Rising numbers in words (0 to 4, 7), by their names where they have some; of at `most` so many ranges."""
    out: list[list[int]] = []
    for row in rows:
        if out and row == out[-1][1] + 1:
            out[-1][1] = row
        else:
            out.append([row, row])
    called = [[str(row) if names is None else names[row] for row in ends] for ends in out]
    text = ", ".join(first if first == last else f"{first} to {last}" for first, last in called[:most]) or "none"
    left = sum(last - first + 1 for first, last in out[most:]) if most is not None else 0
    return text + (f" and {left} more" if left else "")


def bridged(before: FitParameters, after: FitParameters, seen: Bool[ndarray, " T"]) -> FitParameters:
    """`after`, in which timesteps that are not `seen` have moved since `before` as those around them have.

    What moved is taken linearly from the nearest seen timestep before to the one after; at either end from the nearest.
    """
    if seen.all() or not seen.any():
        return after
    shown, hidden = np.flatnonzero(seen), np.flatnonzero(~seen)
    place = np.interp(hidden, shown, np.arange(len(shown)))
    last, following = shown[np.floor(place).astype(int)], shown[np.ceil(place).astype(int)]
    share = place - np.floor(place)
    moved = {}
    for parameter in PARAMETERS:
        if parameter.role != "frame":
            continue
        old, new = getattr(before, parameter.name), getattr(after, parameter.name).clone()
        if old.shape != new.shape:  # dynamic offsets that there were none of
            old = torch.zeros_like(new)
        change = new - old
        weight = torch.as_tensor(share).to(new).reshape(-1, *[1] * (new.ndim - 1))
        new[hidden] = old[hidden] + (1 - weight) * change[last] + weight * change[following]
        moved[parameter.name] = new
    return replace(after, **moved)
