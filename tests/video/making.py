"""Small videos of every kind, made with PyAV. Every frame carries its number, so that a test sees which one it got."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)
_BITS = 8
_SIDE = 12
"""Side of the square that holds a bit, px."""
WIDTH, HEIGHT = _BITS * _SIDE, 64


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture whose top-left corner holds `number` in black and white squares; the rest is a coloured slope."""
    slope = np.linspace(40, 200, width)[None, :, None] * np.array([1.0, 0.7, 0.4]) + np.zeros((height, 1, 1))
    picture = slope.astype(np.uint8)
    for bit in range(_BITS):
        picture[:_SIDE, bit * _SIDE : (bit + 1) * _SIDE] = 235 if number >> bit & 1 else 20
    return picture


def number_in(picture: np.ndarray) -> int:
    """The number that a picture holds."""
    squares = [picture[3 : _SIDE - 3, b * _SIDE + 3 : (b + 1) * _SIDE - 3].mean() for b in range(_BITS)]
    return sum(1 << bit for bit, value in enumerate(squares) if value > 128)


def times_at(rate: Fraction | int, count: int, start: int = 0) -> list[int]:
    """Times in ms of so many frames at a rate."""
    return [start + round(1000 * n / Fraction(rate)) for n in range(count)]


def write_video(
    path: Path | Any,
    times: Sequence[int],
    pictures: Sequence[np.ndarray] | None = None,
    codec: str = "libx264",
    container: str | None = None,
    audio: bool = False,
    rotation: int = 0,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    rate: Fraction | int = 25,
    codec_options: dict[str, str] | None = None,
) -> Any:
    """Writes frames shown at `times` (ms); `audio` puts a silent stream before the video. Returns `path`."""
    pictures = [numbered(n) for n in range(len(times))] if pictures is None else pictures
    target = str(path) if isinstance(path, Path) else path
    with av.open(target, "w", format=container, options=options or {}) as out:
        sound = _audio_stream(out, codec) if audio else None
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        stream.time_base = MILLISECOND
        stream.codec_context.time_base = MILLISECOND
        fast = {"preset": "ultrafast", "crf": "12"} if codec == "libx264" else {}
        fast = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"} if codec.startswith("libvpx") else fast
        stream.options = fast | (codec_options or {})
        if rotation:
            stream.set_display_rotation(rotation)
        if sound is not None:
            write_silence(out, sound, times[-1])
        for time, picture in zip(times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


class Pipe(io.RawIOBase):
    """Where a writer cannot go back: the file's head says neither how long it is nor how many frames it has."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


def _audio_stream(out: Any, codec: str) -> Any:
    sound = out.add_stream("libopus" if codec.startswith("libvpx") else "aac", rate=48000)
    sound.layout = "mono"
    return sound


def write_silence(out: Any, sound: Any, milliseconds: int) -> None:
    size = sound.codec_context.frame_size or 1024
    for start in range(0, 48 * milliseconds + size, size):
        format_name = sound.codec_context.format.name
        frame = av.AudioFrame(format=format_name, layout="mono", samples=size)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        for packet in sound.encode(frame):
            out.mux(packet)
    for packet in sound.encode(None):
        out.mux(packet)


def hide_beginning(source: Path, path: Path, hidden: int) -> Path:
    """Copies a video without encoding it again, its first frames before time 0: an edit list hides them, as ffmpeg's
    `-ss` with `-c copy` leaves it. The file counts frames that no player shows."""
    with (
        av.open(str(source)) as given,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.dts is not None]
        shift = sorted(packet.pts for packet in packets)[hidden]
        for packet in packets:
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            out.mux(packet)
    return path
