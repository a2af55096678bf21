"""Makes a fit and the capture it belongs to agree: the same timesteps in the same order, the cameras of the fit."""

from dataclasses import replace

from flame_fitting.capture.camera import centred_intrinsics
from flame_fitting.capture.capture import Capture, View
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
        capture = replace(capture, views=[_refocused(view, fit.focal_length) for view in capture.views])
    return fit.of_rows(list(fitted.values())), capture


def _refocused(view: View, focal_length: float) -> View:
    """Through a lens of a focal length in units of the picture's longer side."""
    focal = focal_length * max(view.width, view.height)
    return replace(view, K=centred_intrinsics(focal, view.width, view.height))


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
