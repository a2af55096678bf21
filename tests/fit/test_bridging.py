"""Timesteps without a face follow those around them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.bridging import bridged, gaps, listed
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


def without(*hidden: int, count: int = 40) -> list[bool]:
    return [row not in hidden for row in range(count)]


NAMES = [f"{10 + row:06d}" for row in range(40)]


def test_a_short_gap_is_named_and_no_reason_to_warn() -> None:
    found = gaps(without(7, 8, 20), [], NAMES)
    assert found is not None and not found.serious
    assert found.text.startswith("no face in 3 of 40 timesteps: 000017 to 000018, 000030. ")
    assert gaps(without(), [], NAMES) is None and gaps([False] * 40, [], NAMES) is None


@pytest.mark.parametrize(
    ("hidden", "serious"),
    [
        (range(10, 14), False),
        (range(10, 15), True),  # more than a tenth
        (range(0, 40, 10), False),
    ],
)
def test_many_timesteps_without_a_face_are_warned_of(hidden: range, serious: bool) -> None:
    found = gaps(without(*hidden), [], NAMES)
    assert found is not None and found.serious is serious


@pytest.mark.parametrize(
    ("hidden", "serious"), [(range(100, 110), False), (range(100, 111), True), (range(5), False), (range(6), True)]
)
def test_a_long_gap_is_warned_of_sooner_at_an_end(hidden: range, serious: bool) -> None:
    found = gaps(without(*hidden, count=200), [], [str(row) for row in range(200)])
    assert found is not None and found.serious is serious and f"up to {5 + serious} timesteps away" in found.text


def test_timesteps_that_are_held_out_are_no_gaps() -> None:
    assert gaps(without(3, 11, 19), [3, 11, 19], NAMES) is None
    found = gaps(without(3, 11, 19), [3, 19], NAMES)
    assert found is not None and found.text.startswith("no face in 1 of 40 timesteps: 000021. ")


def test_ranges_in_words() -> None:
    assert listed([]) == "none" and listed([0, 1, 2, 3, 4, 7]) == "0 to 4, 7"
    assert listed([0, 2, 3, 9, 11, 12, 13], list("abcdefghijklmn"), 2) == "a, c to d and 4 more"


def test_moments_without_a_face_have_no_neighbours():
    found = gaps([True, False, True], (), ["rest", "smile", "frown"], ordered=False)
    assert found is not None and found.serious and "smile" in found.text and "away" not in found.text
