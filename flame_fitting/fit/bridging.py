"""What becomes of timesteps that no picture tells of, when a stage has moved their neighbours."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from flame_fitting.fit.parameters import PARAMETERS, FitParameters


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
