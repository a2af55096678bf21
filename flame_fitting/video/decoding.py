"""Frames of a video file with the times at which they are to be shown, by FFmpeg's libraries (PyAV).

The presentation timestamps decide, not the number of frames that a file claims: rates vary, edit lists hide frames,
and many files claim nothing.
"""

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import reason

_ADVICE = "Play it to see whether it is whole, or convert it: ffmpeg -i IN -c:v libx264 -crf 14 OUT.mp4"
_HDR = (16, 18)
"""Transfer characteristics of PQ and HLG (ITU-T H.273)."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame; its pixels are made when they are asked for."""

    time: Fraction
    """When it is shown, in s since the first frame."""
    fraction_read: float | None
    """How much of the file was read when it was decoded, 0..1."""
    frame: Any
    """PyAV's frame."""
    orientation: tuple[int, bool]
    """Counter-clockwise quarter turns, and whether it is mirrored (left and right) before."""

    def picture(self) -> UInt8[ndarray, "H W 3"]:
        """sRGB pixels, upright."""
        pixels = self.frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
        turns, mirrored = self.orientation
        if mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, turns))


@dataclass
class VideoFile:
    """A video to be decoded once, from its beginning to its end."""

    path: Path
    damaged: int = 0
    """Packets that could not be decoded."""
    cut_short: bool = False
    """The file ended before it said that it would."""
    end: Fraction = Fraction(0)
    """When the last frame's time is over, in s since the first frame; known at the end."""
    remarks: list[str] = field(default_factory=list)
    """What is unusual and changes what pictures look like."""

    def frames(self) -> Generator[TimedFrame, None, None]:
        """All frames in the order of their times. Raises InputError where none can be decoded."""
        try:
            container = av.open(str(self.path))
        except Exception as error:  # PyAV raises a kind for every one of FFmpeg's errors
            raise InputError(f"{self.path}: not a readable video ({reason(error)}). {_ADVICE}") from error
        with container:
            stream = best_video_stream(container)
            if stream is None:
                raise InputError(f"{self.path}: there is no video in it, only {_kinds(container)}. Give another file.")
            stream.thread_type = "AUTO"
            yield from self._decode(container, stream)

    def _decode(self, container: Any, stream: Any) -> Iterator[TimedFrame]:
        start: Fraction | None = None
        time, step = Fraction(0), 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
        size = None
        for frame, position in self._raw_frames(container, stream):
            orientation = orientation_of(frame)
            shape = (frame.width, frame.height, orientation[0] % 2)
            if size is None:
                size = shape
                self._remark(frame, stream)
            elif shape != size:
                raise InputError(
                    f"{self.path}: the size of its pictures changes at {float(time):.2f} s from {size[0]}x{size[1]} to "
                    f"{shape[0]}x{shape[1]}. Convert it to one size: ffmpeg -i IN -vf scale={size[0]}:{size[1]} OUT.mp4"
                )
            if frame.pts is not None and frame.time_base:
                shown = frame.pts * Fraction(frame.time_base)
                start = shown if start is None else start
                since = shown - start
                step, time = (since - time if since > time else step), max(time, since)
            elif start is None:
                start = Fraction(0)
            else:
                time += step
            length = frame.duration * Fraction(frame.time_base) if frame.duration and frame.time_base else step
            self.end = max(self.end, time + length)
            yield TimedFrame(time, position, frame, orientation)
        if size is None:
            raise InputError(f"{self.path}: no frame of it can be decoded. {_ADVICE}")

    def _raw_frames(self, container: Any, stream: Any) -> Iterator[tuple[Any, float | None]]:
        packets = container.demux(stream)
        position = None
        total = container.size
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:
                self.cut_short = True
                return
            if packet.pos is not None and packet.pos >= 0 and total > 0:
                position = min(1.0, (packet.pos + packet.size) / total)
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            for frame in decoded:
                yield frame, position

    def seconds(self) -> float | None:
        """How long the file says that it is, in s; None where it does not say. An estimate: it may be wrong."""
        try:
            with av.open(str(self.path)) as container:
                stream = best_video_stream(container)
                if stream is None:
                    return None
                if stream.duration and stream.time_base:
                    return float(stream.duration * stream.time_base)
                return container.duration / av.time_base if container.duration else None
        except av.error.FFmpegError:
            return None

    def _remark(self, frame: Any, stream: Any) -> None:
        if frame.color_trc in _HDR:
            self.remarks.append("it is an HDR video, its colours will look pale; convert it to SDR first")
        if frame.interlaced_frame:
            self.remarks.append("it is interlaced, moving edges look like combs; deinterlace it first (ffmpeg yadif)")
        ratio = stream.sample_aspect_ratio
        if ratio and ratio != 1:
            self.remarks.append(f"its pixels are not square ({ratio}); scale it first (ffmpeg -vf scale=iw*sar:ih)")


def best_video_stream(container: Any) -> Any | None:
    """The video of a container, wherever its stream stands; no cover picture. None where there is none."""
    streams = [s for s in container.streams.video if not int(s.disposition) & int(av.stream.Disposition.attached_pic)]
    if not streams:
        return None
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def orientation_of(frame: Any) -> tuple[int, bool]:
    """How a frame is turned to stand upright: counter-clockwise quarter turns after mirroring left and right.

    From the display matrix that phones write (ISO/IEC 14496-12, `matrix` of a track), as ffmpeg does by itself.
    """
    data = frame.side_data.get("DISPLAYMATRIX")  # iterating gives entries in some versions of PyAV, kinds in others
    if data is None:
        return 0, False
    a, b, _, c, d = struct.unpack("=9i", bytes(data)[:36])[:5]
    return orientation_from_matrix(a, b, c, d)


def orientation_from_matrix(a: int, b: int, c: int, d: int) -> tuple[int, bool]:
    """Quarter turns and mirroring of a display matrix: a point (x, y), y down, goes to (a x + c y, b x + d y)."""
    mirrored = a * d - b * c < 0
    if mirrored:  # A = turn * mirror, so that A * mirror is the turn
        a, b = -a, -b
    # x goes to (a, b), y down: to the right 0, up a quarter turn counter-clockwise, left two, down three
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), mirrored
    return (3 if b > 0 else 1), mirrored


def _kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
