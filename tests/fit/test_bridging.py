"""Timesteps without a face follow those around them."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.fit.bridging import bridged
from flame_fitting.fit.parameters import FitParameters
from tests.toy import toy_head

SEEN = np.array([False, True, True, False, False, False, True, False])


def of_timesteps(seed: int) -> FitParameters:
    """Every timestep's own values at random."""
    head, rng = toy_head(), torch.Generator().manual_seed(seed)
    start = FitParameters.neutral(head, len(SEEN))
    names = ("rotation", "translation", "expr", "jaw_pose")
    return replace(
        start, **{name: torch.randn(getattr(start, name).shape, generator=rng, dtype=torch.float64) for name in names}
    )


def test_hidden_timesteps_move_as_those_around_them() -> None:
    before, after = of_timesteps(0), of_timesteps(1)
    out = bridged(before, after, SEEN)
    for name in ("rotation", "translation", "expr", "jaw_pose"):
        old, new, got = (getattr(one, name) for one in (before, after, out))
        change, found = new - old, got - old
        assert torch.equal(got[SEEN], new[SEEN])
        torch.testing.assert_close(found[0], change[1])
        torch.testing.assert_close(found[7], change[6])
        for row, share in ((3, 0.25), (4, 0.5), (5, 0.75)):
            torch.testing.assert_close(found[row], (1 - share) * change[2] + share * change[6])


def test_what_all_share_and_whole_sequences_stay() -> None:
    before, after = of_timesteps(0), of_timesteps(1)
    assert bridged(before, after, np.ones(8, dtype=bool)) is after
    assert bridged(before, after, np.zeros(8, dtype=bool)) is after
    assert torch.equal(bridged(before, after, SEEN).shape, after.shape)


def test_dynamic_offsets_that_begin_here_are_bridged_from_none() -> None:
    before = of_timesteps(0)
    after = before.with_dynamic_offset()
    after.dynamic_offset[SEEN] = 0.001
    out = bridged(before, after, SEEN)
    torch.testing.assert_close(out.dynamic_offset, torch.full_like(out.dynamic_offset, 0.001))
