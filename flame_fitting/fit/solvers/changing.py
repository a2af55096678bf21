"""What steps of a solver write in place, taken out and put back: a stage that was stopped goes on bit by bit."""

from collections.abc import Mapping

import torch
from torch import Tensor

Changing = dict[str, Tensor | torch.Generator]
"""Tensors and random generators, live, by name."""


def within(prefix: str, changing: Changing) -> Changing:
    """The same under a prefix."""
    return {f"{prefix}/{name}": value for name, value in changing.items()}


def taken(changing: Changing) -> dict[str, Tensor]:
    """Copies on the CPU."""
    out = {}
    for name, value in changing.items():
        state = value.get_state() if isinstance(value, torch.Generator) else value.detach()
        out[name] = state.cpu().clone()
    return out


@torch.no_grad()
def put_back(changing: Changing, saved: Mapping[str, Tensor]) -> None:
    """Writes what was taken into what is live. Raises KeyError or RuntimeError where it is not of the same kind."""
    for name, value in changing.items():
        if isinstance(value, torch.Generator):
            value.set_state(saved[name])
        else:
            value.copy_(saved[name])
