"""metrical-tracker's output folder of a fit, as INSTA's scripts read it.

    checkpoint/<n>.frame   parameters and camera of a timestep (`dialects/metrical_tracker.py`)
    mesh/<n>.ply           the posed mesh, metres; it stands still, the camera moves around it
    depth/<n>.png          its depth as the camera sees it, 16-bit, millimetres
    input/<n>.png          the picture
    canonical.obj          the person at rest, with the jaw open by 12 degrees

The names are five digits from 00000 on, without gaps: INSTA counts by them. The mesh has all of the fit, also what a
.frame file has no place for (the neck's rotation, offsets). Layout and meanings as INSTA's `scripts/transforms.py`
reads and metrical-tracker's `tracker.py` writes them.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.capture.camera import move_camera
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.export.dialects import metrical_tracker
from flame_fitting.export.dialects.parameters import make_params
from flame_fitting.export.dialects.rotations import matrix_from_axis_angle
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.drawing import head_avatar

_CANONICAL_JAW = np.radians(12.0)
_FLAME_VERTICES = 5023
"""Of FLAME without teeth, which is what INSTA's own meshes are made for."""


def write_tracker_folder(
    folder: Path, fit: FitResult, head: HeadModel, capture: Capture, camera: int, advance: Callable[[], None]
) -> int:
    """Writes the timesteps of which `camera` (its number in the capture) has a picture; returns how many."""
    import cv2
    import trimesh

    views = [view for view in capture.views if view.camera == camera]
    still = _standing_still(fit)
    faces = _without_teeth(head)
    for name in ("checkpoint", "mesh", "depth", "input"):
        (folder / name).mkdir()
    for number, view in enumerate(views):
        row = capture.timesteps.index(view.timestep)
        vertices = still.vertices_head(head, [row])[0]
        seen = replace(view, world_to_camera=_moving_camera(fit, head, row, vertices, view))
        stem = f"{number:05d}"
        write_frame(fit, row, seen, folder / "checkpoint" / f"{stem}.frame")
        mesh = trimesh.Trimesh(vertices[: faces.max() + 1], faces, process=False)
        mesh.export(folder / "mesh" / f"{stem}.ply")
        image = cv2.cvtColor(to_uint8(capture.image(view).transpose(1, 2, 0)), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "input" / f"{stem}.png"), image)
        cv2.imwrite(str(folder / "depth" / f"{stem}.png"), _depth_mm(head, vertices, seen))
        advance()
    rest = _at_rest(fit).vertices_head(head, [0])[0]
    trimesh.Trimesh(rest[: faces.max() + 1], faces, process=False).export(folder / "canonical.obj")
    return len(views)


def write_frame(fit: FitResult, row: int, seen: View, path: Path) -> None:
    """One .frame file; `seen` is the view with its camera as it stands before the mesh at rest."""
    p = {name: np.asarray(value) for name, value in fit.parameters.items()}
    shape, expr = (
        _sized(p["shape"], metrical_tracker.DIALECT.n_shape),
        _sized(p["expr"][row], metrical_tracker.DIALECT.n_expr),
    )
    extras = {
        "world_to_camera": seen.world_to_camera[None],
        "K": seen.K[None],
        "img_size": np.array([seen.height, seen.width]),
    }
    poses: dict[str, ndarray | None] = {"jaw_pose": p["jaw_pose"][[row]], "eyes_pose": p["eyes_pose"][[row]]}
    params = make_params(
        str(path),
        shape=shape,
        expr=expr,
        poses=poses,
        eyelids=p["eyelids"][[row]] if "eyelids" in p else None,
        extras=extras,
        timestep_id=[path.stem],
    )
    metrical_tracker.write(params, path)


def _standing_still(fit: FitResult) -> FitResult:
    nowhere = {name: np.zeros_like(fit.parameters[name]) for name in ("rotation", "translation")}
    return replace(fit, parameters=fit.parameters | nowhere)


def _at_rest(fit: FitResult) -> FitResult:
    """The person's first timestep without pose and expression, the jaw open."""
    first = fit.of_rows([0])
    names = ("rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose", "expr")
    p = first.parameters | {name: np.zeros_like(first.parameters[name]) for name in names}
    p.pop("eyelids", None)
    p["jaw_pose"][:, 0] = _CANONICAL_JAW
    p.pop("dynamic_offset", None)
    return replace(first, parameters=p)


def _moving_camera(
    fit: FitResult, head: HeadModel, row: int, vertices: Float[ndarray, "V 3"], view: View
) -> Float[ndarray, "4 4"]:
    """The view's camera, metres, as it sees the head that stands still (`vertices`) where the fit moves it."""
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_axis_angle(fit.parameters["rotation"][[row]])[0]
    # the head turns about its root joint, which this spares us to know
    pose[:3, 3] = (fit.vertices_head(head, [row])[0] - vertices @ pose[:3, :3].T).mean(axis=0)
    return move_camera(view.world_to_camera, np.linalg.inv(pose) @ fit.head_from_world)


def _without_teeth(head: HeadModel) -> Int[ndarray, "F 3"]:
    faces = head.faces.cpu().numpy()
    return faces[(faces < _FLAME_VERTICES).all(axis=1)] if head.identity.get("teeth") == "yes" else faces


def _depth_mm(head: HeadModel, vertices: Float[ndarray, "V 3"], seen: View) -> ndarray:
    drawn = head_avatar(head, vertices).draw(
        seen.K[None], seen.world_to_camera[None], seen.width, seen.height, outputs=("depth",), supersample=1
    )
    assert drawn.depth is not None
    return np.clip(np.round(1000 * drawn.depth[0]), 0, 65535).astype(np.uint16)


def _sized(values: ndarray, count: int | None) -> ndarray:
    """Coefficients in the dialect's number."""
    count = len(values) if count is None else count
    return np.pad(values[:count], (0, max(0, count - len(values))))
