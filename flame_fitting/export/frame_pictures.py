"""The pictures of a dataset: cut at the neck, put over the background, scaled; read and written side by side."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.color_correction import srgb_to_linear
from flame_fitting.capture.making import resized
from flame_fitting.capture.pictures import parse_color, replace_background, to_uint8, write_png
from flame_fitting.export.bust_views import BustViews
from flame_fitting.export.frames import Frame, entry_of, in_dataset, scaled_size
from flame_fitting.export.neck_surface import NeckPlane, NeckSurface, keep_above, posed_neck
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel

Color = tuple[float, float, float]


def sidecar_of(name: str) -> str:
    """The file in which instant-ngp looks for the alpha of a picture: beside it, by its full name."""
    return f"{name}.alpha{os.path.splitext(name)[1]}"


def _ngp_alpha() -> NDArray[np.uint8]:
    """What instant-ngp takes for each 8-bit alpha: it decodes the picture as sRGB and cuts off what is left of 255."""
    decoded = np.floor(255 * srgb_to_linear(np.arange(256) / 255.0) + 1e-6)
    return np.abs(decoded[None, :] - np.arange(256)[:, None]).argmin(axis=1).astype(np.uint8)


_NGP_ALPHA = _ngp_alpha()


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
    is_mesh: bool = False
    masks: str = "fg_masks"
    """Folder of the masks."""
    sidecars: bool = True
    """Whether instant-ngp's alpha lies beside every picture."""


@dataclass(eq=False)
class _PosedNeck:
    """The head and the cut through its neck at one timestep, in the dataset's world."""

    plane: NeckPlane
    vertices: NDArray[np.float64]
    faces: NDArray[np.integer]


def write_pictures(
    folder: Path,
    capture: Capture,
    views: BustViews,
    work: PictureWork,
    fit: FitResult,
    head: HeadModel,
    surface: NeckSurface | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Writes pictures and masks and returns what transforms.json says of each frame, in their order.

    `views` are sorted by timestep, `fit` is in the dataset's world; `surface` cuts its neck. Memory holds a few
    pictures and one posed head at a time, however many there are.
    """
    frames = views.frames
    for name in ("images", work.masks):
        (folder / name).mkdir()

    def write(frame: Frame, neck: _PosedNeck | None) -> dict[str, Any]:
        view = in_dataset(frame.view, work.dataset_from_world)
        image, alpha = capture.image_and_alpha(frame.view)
        keep = None if neck is None else _keep(capture, frame, view, work, neck, views.outside(frame))
        image, mask = replace_background(image, alpha, capture.background_color, work.background_color, keep)
        view = scaled_size(view, work.scale_factor)
        picture, levels = (to_uint8(resized(one, view.width, view.height)) for one in (image.transpose(1, 2, 0), mask))
        write_png(folder / "images" / frame.name, picture)
        write_png(folder / work.masks / frame.name, levels)
        if work.sidecars:
            write_png(folder / "images" / sidecar_of(frame.name), _NGP_ALPHA[levels])
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
    frames: Sequence[Frame],
    fit: FitResult,
    head: HeadModel,
    surface: NeckSurface | None,
) -> Iterator[tuple[Frame, _PosedNeck | None]]:
    """Every frame with the neck of its timestep, which is posed once for all its cameras in a row."""
    faces, row, neck = head.faces.cpu().numpy(), -1, None
    for frame in frames:
        if surface is not None and frame.row != row:
            row = frame.row
            neck = _PosedNeck(posed_neck(surface, fit, row), fit.vertices_head(head, [row])[0], faces)
        yield frame, neck


def _keep(
    capture: Capture,
    frame: Frame,
    view: View,
    work: PictureWork,
    neck: _PosedNeck,
    outside: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    depth, stored = None, frame.view
    if stored.geometry_path is not None:
        scale = np.cbrt(np.linalg.det(work.dataset_from_world[:3, :3]))
        depth = capture.geometry(stored)[0] * scale
    return keep_above(neck.plane, view, depth, neck.vertices, neck.faces, outside)
