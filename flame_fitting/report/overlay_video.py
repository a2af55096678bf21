"""overlay.mp4: picture, fit, and fitted mesh over the picture, side by side, over time."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.files import atomic_write
from flame_fitting.report.drawing import DrawnFit
from flame_fitting.report.figures import blend_mesh, labelled
from flame_fitting.report.sampling import Chosen
from flame_fitting.video.encoding import VideoWriter

NAME = "overlay"
HEIGHT = 512
"""Most rows of a panel."""


class OverlayVideos:
    """A video of each camera that is followed, written as the views are drawn; each file whole or not at all."""

    def __init__(self, folder: Path, capture: Capture, chosen: Chosen, fps: float, mark: Callable[[int], str]) -> None:
        """`mark` says in words what is special about a timestep's row, for its picture."""
        names = [NAME, *(f"{NAME}_{capture.camera_ids[camera]}" for camera in chosen.cameras[1:])]
        self.paths = {camera: folder / f"{name}.mp4" for camera, name in zip(chosen.cameras, names, strict=True)}
        self._rows = {timestep: capture.timesteps.index(timestep) for timestep in chosen.timesteps}
        self._fps, self._mark = fps, mark
        self._writers: dict[int, VideoWriter] = {}
        self._size: dict[int, tuple[int, int]] = {}
        self._open = ExitStack()

    def __enter__(self) -> "OverlayVideos":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the videos in their places; after an error none."""
        self._open.__exit__(kind, error, trace)

    def add(self, view: View, image: Float[ndarray, "3 H W"], picture: DrawnFit) -> None:
        """One view, timestep by timestep; those that are not followed are passed over."""
        if view.camera not in self.paths or view.timestep not in self._rows:
            return
        if view.camera not in self._writers:
            self._size[view.camera] = panel_size(view)
            width, height = self._size[view.camera]
            temporary = self._open.enter_context(atomic_write(self.paths[view.camera]))
            writer = VideoWriter(temporary, 3 * width, height, self._fps)
            self._writers[view.camera] = self._open.enter_context(writer)
        mark = self._mark(self._rows[view.timestep])
        text = f"{view.camera_id}  {view.timestep_id}{f'  {mark}' if mark else ''}".strip()
        self._writers[view.camera].add(panels(view, image, picture, self._size[view.camera], text))


def panel_size(view: View) -> tuple[int, int]:
    """Width and height of a panel: even, since H.264 has half the colours in each direction."""
    scale = min(1.0, HEIGHT / view.height)
    return max(2, 2 * round(view.width * scale / 2)), max(2, 2 * round(view.height * scale / 2))


def panels(
    view: View, image: Float[ndarray, "3 H W"], picture: DrawnFit, size: tuple[int, int], text: str
) -> UInt8[ndarray, "h w 3"]:
    """The three panels, each of `size` (width, height)."""
    shown = [image.transpose(1, 2, 0), picture.image[0].transpose(1, 2, 0), blend_mesh(image, picture, view)]
    small = [cv2.resize(np.ascontiguousarray(to_uint8(one)), size, interpolation=cv2.INTER_AREA) for one in shown]
    return labelled(np.concatenate(small, axis=1), text)
