"""The pictures of a dataset: cut at the neck, put over the background, scaled; read and written side by side."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.making import resized
from flame_fitting.capture.pictures import parse_color, replace_background, to_uint8, write_png
from flame_fitting.export.frames import Frame, entry_of, in_dataset, scaled_size
from flame_fitting.export.neck_surface import NeckPlane, NeckSurface, keep_above
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel

Color = tuple[float, float, float]


def background(text: str | None) -> Color | None:
    """The colour behind the avatar that --background-color names; None, also by name, keeps the capture's."""
    return None if text is None or text.lower() == "none" else parse_color(text, "--background-color")


@dataclass(frozen=True)
class PictureWork:
    """What is done to every picture."""

    dataset_from_world: NDArray[np.float64]
    """(4, 4) similarity."""
    background_color: Color
    """sRGB 0..1."""
    scale_factor: float | None
    is_mesh: bool


@dataclass(eq=False)
class _PosedNeck:
    """The head and the cut through its neck at one timestep, in the dataset's world."""

    plane: NeckPlane
    vertices: NDArray[np.float64]
    faces: NDArray[np.integer]


def write_pictures(
    folder: Path,
    capture: Capture,
    frames: list[Frame],
    work: PictureWork,
    fit: FitResult,
    head: HeadModel,
    surface: NeckSurface | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Writes images/ and fg_masks/ and returns what transforms.json says of each frame, in their order.

    `frames` are sorted by timestep, `fit` is in the dataset's world; `surface` cuts its neck. Memory holds a few
    pictures and one posed head at a time, however many there are.
    """
    for name in ("images", "fg_masks"):
        (folder / name).mkdir()

    def write(frame: Frame, neck: _PosedNeck | None) -> dict[str, Any]:
        view = in_dataset(frame.view, work.dataset_from_world)
        image, alpha = capture.image_and_alpha(frame.view)
        keep = None if neck is None else _keep(capture, frame.view, view, work, neck)
        image, mask = replace_background(image, alpha, capture.background_color, work.background_color, keep)
        view = scaled_size(view, work.scale_factor)
        for name, picture in (("images", image.transpose(1, 2, 0)), ("fg_masks", mask)):
            write_png(folder / name / frame.name, to_uint8(resized(picture, view.width, view.height)))
        return entry_of(frame, view, work.is_mesh)

    entries: list[dict[str, Any]] = []
    workers = max(1, min(4, os.cpu_count() or 1))
    waiting: deque[Future[dict[str, Any]]] = deque()

    def take() -> None:
        entries.append(waiting.popleft().result())
        if progress is not None:
            progress(len(entries), len(frames))

    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for frame, neck in _with_necks(frames, fit, head, surface):
                waiting.append(pool.submit(write, frame, neck))
                if len(waiting) > 2 * workers:
                    take()
            while waiting:
                take()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return entries


def _with_necks(
    frames: Iterable[Frame], fit: FitResult, head: HeadModel, surface: NeckSurface | None
) -> Iterator[tuple[Frame, _PosedNeck | None]]:
    """Every frame with the neck of its timestep, which is posed once for all its cameras in a row."""
    faces, row, neck = head.faces.cpu().numpy(), -1, None
    for frame in frames:
        if surface is not None and frame.row != row:
            row, posed = frame.row, fit.of_rows([frame.row])
            poses = {key: posed.parameters[key] for key in ("rotation", "neck_pose", "translation")}
            neck = _PosedNeck(surface.at(poses), posed.vertices_head(head)[0], faces)
        yield frame, neck


def _keep(capture: Capture, stored: View, view: View, work: PictureWork, neck: _PosedNeck) -> NDArray[np.float32]:
    depth = None
    if stored.geometry_path is not None:
        scale = np.cbrt(np.linalg.det(work.dataset_from_world[:3, :3]))
        depth = capture.geometry(stored)[0] * scale
    return keep_above(neck.plane, view, depth, neck.vertices, neck.faces)
