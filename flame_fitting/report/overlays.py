"""The fit over the avatar: views in layers, for the page, and as rows of panels in files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.report.drawing import draw_fit
from flame_fitting.report.figures import choose_views, side_name, write_jpeg
from flame_fitting.report.layers import LINE_COLOR, Layers, over, overlay_row, view_layers
from flame_fitting.report.over_time import CURVES, OverTime
from flame_fitting.report.posed_head import PosedHead
from flame_fitting.report.sampling import head_at

THUMBNAIL = "thumbnail.jpg"
_THUMBNAIL_SIZE = 192
_NO_FACE = 2
"""Timesteps without a face that are shown."""


def write_views(
    folder: Path, fit: FitResult, capture: Capture, head: HeadModel, detected: Landmarks2D | None = None
) -> list[Layers]:
    """Writes overlays/<place>_<side>.jpg into `folder`: the fit over the avatar, from all sides; and the thumbnail."""
    chosen = choose_views(capture, head_at(fit, 0))
    titles = [f"Seen from {side_name(yaw)}, camera {view.camera_id}" for yaw, view in chosen.items()]
    out = layers_of(fit, capture, head, list(chosen.values()), titles, detected)
    for place, (yaw, layers) in enumerate(zip(chosen, out, strict=True)):
        write_jpeg(folder / "overlays" / f"{place:02d}_{side_name(yaw).replace(' ', '_')}.jpg", overlay_row(layers))
    if out:
        write_jpeg(folder / "overlays" / THUMBNAIL, thumbnail(out[0]))
    return out


def write_worst(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    found: OverTime,
    cameras: Sequence[int],
    detected: Landmarks2D | None = None,
) -> list[Layers]:
    """Writes overlays/worst_*.jpg: the worst timesteps, the worst first, then some in which no face was found.

    Of several cameras the one of `cameras` that comes first and has a picture of the timestep.
    """
    out = []
    rows = [*found.worst, *found.no_face[:_NO_FACE]]
    for place, row in enumerate(rows):
        of_row = {view.camera: view for view in capture.views_of("fit", "heldout", timestep=capture.timesteps[row])}
        view = next((of_row[camera] for camera in [*cameras, *of_row] if camera in of_row), None)
        if view is None:
            continue
        values = [
            f"{title} {value:.3g} {unit}".strip()
            for name, (title, unit) in CURVES.items()
            if (value := found.curves[name][row]) is not None
        ]
        said = [found.mark(row)] if found.mark(row) else []
        title = f"Timestep {found.timestep_id[row]}, camera {view.camera_id}: {', '.join([*said, *values])}"
        out += layers_of(fit, capture, head, [view], [title], detected)
        write_jpeg(folder / "overlays" / f"worst_{place:02d}.jpg", overlay_row(out[-1]))
    return out


def layers_of(
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    views: list[View],
    titles: list[str],
    detected: Landmarks2D | None = None,
) -> list[Layers]:
    """The layers of views of one timestep."""
    if not views:
        return []
    vertices: Float[ndarray, "V 3"] = fit.vertices_world(head, [capture.timesteps.index(views[0].timestep)])[0]
    posed = PosedHead(head, vertices)
    pictures = draw_fit(fit, head, capture, views, vertices[None], geometry=False)
    return [
        view_layers(fit, capture, view, drawn, vertices, posed, title, detected)
        for view, drawn, title in zip(views, pictures, titles, strict=True)
    ]


def thumbnail(layers: Layers) -> ndarray:
    """A small square (S, S, 3) for lists of fits: the picture on the left, the fit with its lines on the right."""
    import cv2

    fitted = over(layers.fit, 0.5 * layers.lines, LINE_COLOR)
    half = layers.picture.shape[1] // 2
    both = np.concatenate([layers.picture[:, :half], fitted[:, half:]], axis=1)
    return np.asarray(cv2.resize(both, (_THUMBNAIL_SIZE, _THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA))
