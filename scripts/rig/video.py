"""Videos as cameras and phones write them: H.264 in .mp4, through PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from numpy import ndarray


class VideoWriter:
    """Writes pictures one after the other; `close` finishes the file."""

    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(path), "w")
        self._stream: Any = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.options = {"crf": "8", "preset": "veryfast"}
        self._stream.thread_count = 1  # the same file on every machine

    def add(self, picture: ndarray) -> None:
        """(H, W, 3) uint8."""
        import av

        for packet in self._stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
            self._container.mux(packet)

    def close(self) -> None:
        """Writes what is left."""
        for packet in self._stream.encode():
            self._container.mux(packet)
        self._container.close()
