"""One video to its pictures and alpha maps, decoded once; goes on where a killed run stopped."""

import contextlib
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting import progress
from flame_fitting.video.decoding import TimedFrame, VideoFile
from flame_fitting.video.matting import Matting, Tagged
from flame_fitting.video.resampling import RateCounts, resample
from flame_fitting.video.sources import Clip
from flame_fitting.video.watching import Watcher, warnings_about
from flame_fitting.video.writing import PictureWriter, check_scales


@dataclass
class ClipResult:
    """What became of a clip."""

    pictures: int
    """How many were written."""
    decoded: int
    """Frames of the video."""
    warnings: list[str] = field(default_factory=list)
    """Sentences without the clip's name and the full stop."""


def check_clip(clip: Clip, scales: tuple[int, ...]) -> None:
    """Raises InputError for what can be told before anything is written: the first frame, the scales."""
    with contextlib.closing(VideoFile(clip.path).frames()) as frames:
        height, width = next(frames).picture().shape[:2]
    check_scales(scales, width, height)


def write_clip(
    clip: Clip,
    root: Path,
    rate: Fraction | None,
    scales: tuple[int, ...],
    matting: Matting | None,
    workers: int,
    label: str,
) -> ClipResult:
    """Decodes a clip and writes what is not there yet; memory does not depend on the clip's length."""
    video = VideoFile(clip.path)
    counts, watcher = RateCounts(), Watcher()
    writer = PictureWriter(root, clip.prefix, scales, workers)
    seconds = video.seconds()
    frames = ((frame.time, frame) for frame in video.frames())
    done = False
    try:
        with progress.Bar(_expected(seconds, rate), label, "picture") as bar:
            follower = _Follower(matting, writer, clip.camera_id)
            for numbers, frame in resample(frames, rate, counts, lambda: video.end):
                picture = frame.picture()
                watcher.look(numbers, picture)
                writer.picture(numbers, picture)
                follower.follow(numbers, picture)
                bar.advance(len(numbers))
                if seconds is None and (guess := _from_position(counts.written, frame)):
                    bar.expect(guess)
            follower.end()
            bar.expect(counts.written)
        done = True
    finally:
        writer.close(wait=done)
    usual = float(video.end) / counts.decoded if counts.decoded else 0.0
    found = warnings_about(watcher, counts, float(rate) if rate is not None else None, usual)
    if video.damaged:
        found.append(f"{video.damaged} damaged part(s) of the file were left out")
    if video.cut_short:
        found.append("the file ends before it should: the rest is missing")
    return ClipResult(counts.written, counts.decoded, found + video.remarks)


class _Follower:
    """Passes pictures to the matting, from so far before the first missing alpha map as it asks for."""

    def __init__(self, matting: Matting | None, writer: PictureWriter, camera_id: str | None) -> None:
        self._matting, self._writer = matting, writer
        self._begun = False
        self._skipped: deque[tuple[range, UInt8[ndarray, "H W 3"]]] | None = None
        if matting is not None:
            matting.begin(camera_id)
            self._begun = matting.lookback is None
            self._skipped = deque(maxlen=matting.lookback)

    def follow(self, numbers: range, picture: UInt8[ndarray, "H W 3"]) -> None:
        if self._matting is None or self._skipped is None:
            return
        if not self._begun:
            if all(self._writer.has_alpha(number) for number in numbers):
                self._skipped.append((numbers, picture))
                return
            self._begun = True
            for earlier in self._skipped:
                self._write(self._matting.push(*earlier))
            self._skipped.clear()
        self._write(self._matting.push(numbers, picture))

    def end(self) -> None:
        if self._matting is not None:
            self._write(self._matting.finish())

    def _write(self, finished: list[Tagged]) -> None:
        for numbers, alpha in finished:
            self._writer.alpha(numbers, alpha)


def _expected(seconds: float | None, rate: Fraction | None) -> int | None:
    return max(1, round(seconds * float(rate))) if seconds and rate is not None else None


def _from_position(written: int, frame: TimedFrame) -> int | None:
    part = frame.fraction_read
    return max(written, round(written / part)) if part and part > 0.01 else None
