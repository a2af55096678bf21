"""Where a step takes the middle of a head.

A step along a valley of the cost is long: a longer focal length with a larger distance, another shape with other turns.
What such a step leaves in second order is, most of all, that the whole head is seen a little beside and larger, and
that alone makes it cost more than it gains. So the middle of a head goes where the linear step means it to go, in space
or, of a camera whose focal length moves, in its picture; the translation makes up for the rest. The first order of a
step stays as it is: a retraction (Absil, Mahony and Sepulchre 2008, Optimization Algorithms on Matrix Manifolds, 4.1).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.solvers.dolly import NEAREST

_LEAST = 0.1
"""Of its distance, that one step leaves a head at least."""


def in_pictures(
    cameras: Float[Tensor, "T 3 4"],
    middle: Float[Tensor, "T 3"],
    change: Float[Tensor, "T 3"],
    longer: Float[Tensor, ""],
) -> Float[Tensor, "T 3"]:
    """Where the middles go (reference frame, m), so that they are seen where a step means it.

    `change` is what the step is in space in first order, `longer` the change of the logarithm of the focal length. Of
    what changes a head's distance in first order, all but the focal length's part changes how large the head itself
    is, as it is seen: both grow as one product.
    """
    turn = cameras[..., :3]
    at = torch.einsum("tac,tc->ta", turn, middle) + cameras[..., 3]
    step = torch.einsum("tac,tc->ta", turn, change)
    depth = at[:, 2:].clamp_min(NEAREST)
    nearer, across = step[:, 2:] / depth, at[:, :2] / depth
    there = depth * (longer.exp() * (1 + nearer - longer)).clamp_min(_LEAST)
    ray = (across * (1 + longer - nearer) + step[:, :2] / depth) * (-longer).exp()
    seen = torch.cat([ray * there, there], dim=1)
    return torch.einsum("tac,ta->tc", turn, seen - cameras[..., 3])
