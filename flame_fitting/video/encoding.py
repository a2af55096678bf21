"""Videos as browsers play them: H.264 in .mp4, through PyAV."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting.errors import InputError

_BT709 = 1
"""FFmpeg's number of ITU-R BT.709, as matrix, primaries and transfer."""


class VideoWriter:
    """Writes pictures one after the other, never holding more than the encoder's few; a context, or `close` it."""

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float,
        crf: float = 20,
        threads: int = 0,
        preset: str = "veryfast",
    ) -> None:
        """`width` and `height` are even, since colour has half the resolution; `threads` 1: the same file anywhere.

        Raises InputError where this machine's FFmpeg has no H.264.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(path), "w", options={"movflags": "faststart"})  # plays while it loads
        try:
            self._stream: Any = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        except ValueError as error:  # PyAV's for a codec that it does not know
            self._container.close()
            raise InputError(f"{path}: this build of PyAV writes no H.264. Install the package av again.") from error
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.options = {"crf": f"{crf:g}", "preset": preset}
        self._stream.thread_count = threads
        context = self._stream.codec_context  # players guess the colours of what does not say them, each its own way
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = av.video.reformatter.ColorRange.MPEG

    def add(self, picture: UInt8[ndarray, "H W 3"]) -> None:
        """One sRGB picture."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=av.video.reformatter.Colorspace.ITU709)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Writes what is left."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes the file; after an error it is only closed."""
        if error is None:
            self.close()
        else:
            self._container.close()
