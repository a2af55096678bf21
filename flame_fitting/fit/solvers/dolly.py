"""Heads that go away from their camera as its focal length grows, so that they are seen as large (a dolly zoom)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.targets import FrameTarget

NEAREST = 0.05
"""m from the camera."""


def cameras(targets: Sequence[FrameTarget], like: Tensor) -> Float[Tensor, "T 3 4"]:
    """From the reference frame, those that alone show a timestep; 0 where nothing does."""
    out = like.new_zeros(len(targets), 3, 4)
    for timestep, target in enumerate(targets):
        for source in target.sources:
            if source.pixels is not None and len(source.pixels.camera):
                out[timestep] = source.pixels.camera[0].to(like)
                break
    return out


def depth_rows(targets: Sequence[FrameTarget], like: Tensor) -> Float[Tensor, "T 4"]:
    """What makes a depth (m) of a point (x, y, z, 1) of the reference frame, by what pictures alone show of each
    timestep; 0 where nothing does."""
    return cameras(targets, like)[:, 2]


def depths(rows: Float[Tensor, "T 4"], translation: Float[Tensor, "T 3"]) -> Float[Tensor, " T"]:
    """m, of the head's root; 0 where nothing is seen."""
    found = (rows[:, :3] * translation).sum(1) + rows[:, 3]
    return torch.where(rows.any(1), found.clamp_min(NEAREST), 0.0)


def along(rows: Float[Tensor, "T 4"], distance: Float[Tensor, " T"]) -> Float[Tensor, "T 3"]:
    """So far from the camera, in the reference frame, m."""
    return distance[:, None] * rows[:, :3]
