"""Makes a fit and the capture it belongs to agree: the same timesteps in the same order, the cameras of the fit."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.fit.result import FitResult


def aligned(fit: FitResult, capture: Capture) -> tuple[FitResult, Capture]:
    """The timesteps that were fitted, as rows of the fit and in `capture.timesteps`, with the fit's focal length.

    Timesteps are matched by their names; by their order where both have equally many and the names differ. Raises
    InputError where the capture lacks a timestep of the fit.
    """
    names = {view.timestep: view.timestep_id for view in capture.views}
    rows = _by_name([names[t] for t in capture.timesteps], fit.timestep_id)
    if rows is None:
        if len(fit.timestep_id) != len(capture.timesteps):
            raise InputError(
                f"{fit.folder}: the fit has {len(fit.timestep_id)} timesteps, its capture {capture.root} has "
                f"{len(capture.timesteps)}, and their names differ. Fit the capture again."
            )
        rows = list(range(len(fit.timestep_id)))
    fitted = {t: row for t, row in zip(capture.timesteps, rows, strict=True) if row is not None}
    if len(fitted) < len(capture.timesteps):
        capture = replace(capture, views=[view for view in capture.views if view.timestep in fitted])
    if not capture.calibrated and fit.focal_length is not None:
        focal = fit.focal_length
        views = [replace(view, K=centred_intrinsics(focal, view.width, view.height)) for view in capture.views]
        capture = replace(capture, views=views)
    return fit.of_rows(list(fitted.values())), capture


def centred_intrinsics(focal_length: float, width: int, height: int) -> NDArray[np.float64]:
    """K (3, 3) px of a camera with square pixels; the focal length is in units of the picture's longer side."""
    focal = focal_length * max(width, height)
    return np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])


def _by_name(names: list[str], fitted: list[str]) -> list[int | None] | None:
    """The fit's row of each name, None for those it lacks; None for all where the fit has names that are not there.

    Numbers count as equal whatever zeros they begin with.
    """
    rows = {_number(name): row for row, name in enumerate(fitted)}
    known = {_number(name) for name in names}
    if len(rows) < len(fitted) or len(known) < len(names) or not rows.keys() <= known:
        return None
    return [rows.get(_number(name)) for name in names]


def _number(name: str) -> str:
    return name.lstrip("0") or "0" if name.isdecimal() else name
