"""Few directions that tell many rows."""

import torch
from jaxtyping import Float
from torch import Tensor


def leading_components(
    rows: Float[Tensor, "T N"], tolerance: float, most: int, group: int = 1
) -> tuple[Float[Tensor, "K N"], Float[Tensor, "T K"], float]:
    """Components and amounts whose product is `rows`, as few as leave `tolerance` at most, but no more than `most`.

    Also gives what is left: the largest length of `group` entries in a row. Amounts are 1 at most in size.
    """
    left = _largest(rows, group)
    if left <= tolerance:
        return rows[:0], rows[:, :0], left
    if len(rows) == 1:
        return rows, torch.ones_like(rows[:, :1]), 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(rows, q=min(*rows.shape, most + 8), niter=4)
    for count in range(1, min(most, len(s)) + 1):
        amounts, components = u[:, :count] * s[:count], v[:, :count].T
        left = _largest(rows - amounts @ components, group)
        if left <= tolerance:
            break
    size = amounts.abs().amax(0).clamp_min(1e-12)
    return components * size[:, None], amounts / size, left


def _largest(rows: Tensor, group: int) -> float:
    return float(rows.unflatten(1, (-1, group)).norm(dim=-1).max())
