"""Frames of any rate to frames of a steady one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import TypeVar

Frame = TypeVar("Frame")


@dataclass
class RateCounts:
    """How a video's frames became pictures."""

    decoded: int = 0
    """Frames of the video."""
    used: int = 0
    """Frames that became a picture at least once."""
    written: int = 0
    """Pictures."""
    longest_gap: float = 0.0
    """Longest time between two frames, in s."""

    @property
    def repeated(self) -> int:
        """Pictures that repeat the one before."""
        return self.written - self.used

    @property
    def dropped(self) -> int:
        """Frames that became no picture."""
        return self.decoded - self.used


def as_rate(frames_per_second: float) -> Fraction:
    """An exact rate: 29.97 and 23.976 are 30000/1001 and 24000/1001."""
    for numerator in (24, 30, 48, 60, 120):
        exact = Fraction(numerator * 1000, 1001)
        if abs(frames_per_second - exact) < 1e-2 and frames_per_second != numerator:
            return exact
    return Fraction(frames_per_second).limit_denominator(10000)


def nearest_slot(time: Fraction, rate: Fraction) -> int:
    """The picture nearest to a time (s, not negative); halves go up."""
    return floor(time * rate + Fraction(1, 2))


def resample(
    frames: Iterable[tuple[Fraction, Frame]], rate: Fraction | None, counts: RateCounts, end: Callable[[], Fraction]
) -> Iterator[tuple[range, Frame]]:
    """Which pictures each frame becomes, at `rate` pictures per second; with None each frame becomes one.

    As ffmpeg's `fps` filter with round=near: a frame takes the place nearest to its time, the last one of a place
    holds it, and places without one repeat the one before. `end` gives the end of the last frame's time, and is asked
    when all frames are there. There is at least one picture.
    """
    held: Frame | None = None
    place = 0
    before: Fraction | None = None
    for time, frame in frames:
        counts.decoded += 1
        if before is not None:
            counts.longest_gap = max(counts.longest_gap, float(time - before))
        before = time
        slot = counts.decoded - 1 if rate is None else nearest_slot(time, rate)
        if held is not None and slot > place:
            yield _counted(range(place, slot), counts), held
        held, place = frame, max(place, slot)
    if held is None:
        return
    last = counts.decoded if rate is None else nearest_slot(end(), rate)
    if last > place or counts.written == 0:
        yield _counted(range(place, max(last, place + 1)), counts), held


def _counted(slots: range, counts: RateCounts) -> range:
    counts.used += 1
    counts.written += len(slots)
    return slots
