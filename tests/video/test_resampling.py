"""Resampling against FFmpeg's own `fps` filter, which VHAP's preprocessing calls."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flame_fitting.video.resampling import RateCounts, as_rate, resample

TICK = Fraction(1, 90000)


def ours(times: list[Fraction], rate: Fraction | None, end: Fraction) -> tuple[list[int], RateCounts]:
    """Which frame every picture shows."""
    counts = RateCounts()
    shown: list[int] = []
    for numbers, frame in resample(((time, n) for n, time in enumerate(times)), rate, counts, lambda: end):
        assert numbers.start == len(shown)
        shown += [frame] * len(numbers)
    return shown, counts


def ffmpegs(ticks: list[int], rate: Fraction, last: int) -> list[int]:
    """The same by FFmpeg's filter; frames are told apart by their grey."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=16, height=16, format=av.VideoFormat("gray"), time_base=TICK)
    chain = [source, graph.add("fps", f"fps={rate.numerator}/{rate.denominator}"), graph.add("buffersink")]
    graph.link_nodes(*chain).configure()
    for number, tick in enumerate(ticks):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray")
        frame.pts, frame.time_base = tick, TICK
        frame.duration = last if number == len(ticks) - 1 else 0
        graph.push(frame)
    graph.push(None)
    shown = []
    while True:
        try:
            shown.append(int(graph.pull().to_ndarray()[0, 0]))
        except (av.error.EOFError, av.error.BlockingIOError):
            return shown


@pytest.mark.parametrize("target", [10, 25, 29.97, 60])
@pytest.mark.parametrize("source", [15, 23.976, 25, 29.97, 59.94, 60])
def test_steady_rates_as_ffmpeg(source: float, target: float) -> None:
    step = round(90000 / as_rate(source))
    ticks = [n * step for n in range(40)]
    shown, counts = ours([t * TICK for t in ticks], as_rate(target), (ticks[-1] + step) * TICK)
    theirs = ffmpegs(ticks, as_rate(target), step)
    # FFmpeg tells the filter no end of the last frame where none is pushed with the end: the last place may differ
    assert shown[: len(theirs)] == theirs[: len(shown)]
    assert abs(len(shown) - len(theirs)) <= max(1, round(target / source))
    assert len(shown) == pytest.approx(40 * target / source, abs=1)
    assert counts.used + counts.dropped == 40
    assert counts.used + counts.repeated == counts.written == len(shown)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60000), min_size=1, max_size=40), st.sampled_from([10, 25, 29.97, 60]))
def test_any_times_as_ffmpeg(steps: list[int], target: float) -> None:
    ticks = [0, *np.cumsum(steps).tolist()]
    rate = as_rate(target)
    shown, counts = ours([t * TICK for t in ticks], rate, (ticks[-1] + 3600) * TICK)
    theirs = ffmpegs(ticks, rate, 3600)
    shared = min(len(shown), len(theirs))
    assert shown[:shared] == theirs[:shared]
    assert abs(len(shown) - len(theirs)) <= 3
    assert counts.longest_gap == pytest.approx(max(steps) / 90000)
    for place, frame in enumerate(shown):  # the frame shown is the last one nearer to this place than to a later one
        assert ticks[frame] * TICK * rate < place + Fraction(1, 2)
        assert frame + 1 == len(ticks) or ticks[frame + 1] * TICK * rate >= place + Fraction(1, 2)


def test_without_a_rate_every_frame_is_a_picture() -> None:
    shown, counts = ours([Fraction(0), Fraction(1, 3), Fraction(7)], None, Fraction(8))
    assert shown == [0, 1, 2]
    assert counts.repeated == counts.dropped == 0


def test_a_single_frame_is_a_picture() -> None:
    assert ours([Fraction(0)], Fraction(25), Fraction(0))[0] == [0]


@pytest.mark.parametrize(
    ("given_rate", "exact"),
    [(25.0, Fraction(25)), (29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001)), (12.5, Fraction(25, 2))],
)
def test_rates_are_exact(given_rate: float, exact: Fraction) -> None:
    assert as_rate(given_rate) == exact
