"""What all detectors found, drawn over one picture of each camera."""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import picture_as_uint8
from flame_fitting.files import atomic_write
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.outliers import Outliers

FOLDER = "overlays"
COLOURS = ((40, 220, 60), (255, 120, 30), (60, 150, 255), (240, 60, 220), (240, 220, 40))
"""sRGB, one detector after another."""
_OUT = (255, 0, 0)
_LEAST_SIDE = 512


def draw_overlays(
    capture: Capture, found: Sequence[Landmarks2D], folder: Path, outliers: Sequence[Outliers | None] = ()
) -> list[Path]:
    """Writes `<camera>.png` of the timestep at which the most detectors found a face there; returns the files.

    `found` are landmarks as they were read for the capture. Points that were left out are crossed in red.
    """
    out = []
    for camera in capture.cameras:
        views = [view for view in capture.views if view.camera == camera]
        scored = [sum(bool(one.found[_at(capture, view)]) for one in found) for view in views]
        if not views or not max(scored):
            continue
        view = views[int(np.argmax(scored))]
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', view.camera_id)}.png"
        with atomic_write(path) as temporary:
            picture = _drawn(capture, view, found, outliers)
            temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())
        out.append(path)
    return out


def _drawn(capture: Capture, view: View, found: Sequence[Landmarks2D], outliers: Sequence[Outliers | None]) -> ndarray:
    picture = picture_as_uint8(capture.image(view))
    scale = max(1.0, _LEAST_SIDE / min(picture.shape[:2]))
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    picture = np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    radius = max(1, round(min(size) / 400))
    for number, one in enumerate(found):
        colour, at = COLOURS[number % len(COLOURS)], _at(capture, view)
        cut = outliers[number] if number < len(outliers) else None
        for index, (x, y, confidence) in enumerate(one.landmarks[at]):
            if not np.isfinite(x + y):
                continue
            # pixel centres lie on halves here, on whole numbers in OpenCV
            place = round(float(x) * scale - 0.5), round(float(y) * scale - 0.5)
            if cut is not None and (cut.views[at] or cut.points[*at, index]):
                cv2.drawMarker(picture, place, _OUT, cv2.MARKER_TILTED_CROSS, 6 * radius, radius, cv2.LINE_AA)
            else:
                cv2.circle(picture, place, radius, colour, -1 if confidence >= 0.2 else 1, cv2.LINE_AA)
        failed = ", failed" if cut is not None and cut.views[at] else ""
        text = one.detector + (failed if one.found[at] else ", no face")
        place = (8, 20 * (number + 1))
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)
    return picture


def _at(capture: Capture, view: View) -> tuple[int, int]:
    return capture.timesteps.index(view.timestep), capture.cameras.index(view.camera)
