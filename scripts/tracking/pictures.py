"""A track looked at: true pictures, the fit, its mesh over the pictures, and where it is off."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.fit.result import FitResult

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

ROWS = 6
"""Timesteps, evenly spread from the first to the last."""
PANEL = 256
"""px."""
WORST_MM = 3.0
"""Distance of vertices that is shown in red."""


def write_sheet(
    path: Path, found: FitResult, truth: FitResult, head: "HeadModel", capture: Capture, monocular: bool
) -> None:
    """A PNG, a row for each of some timesteps of `capture`, whose timesteps are rows of both fits.

    Held-out views are shown where there are some. The last column colours the fitted head by the distance of its
    vertices from the true ones, with one camera after a similarity.
    """
    from PIL import Image

    from flame_fitting.report.drawing import draw_fit

    from .motion import by_similarity

    world, true = found.vertices_world(head), truth.vertices_world(head)
    # the monocular world has no scale: the face says it
    face = head.region_mask("face").numpy()
    compared = by_similarity(world[:, face], true[:, face], world) if monocular else world
    apart = 1000 * np.linalg.norm(compared - true, axis=-1)
    views = _chosen(capture)
    drawn = draw_fit(found, head, capture, views, world)
    rows = []
    for view, picture in zip(views, drawn, strict=True):
        row = capture.timesteps.index(view.timestep)
        rows.append(_row(capture, view, picture, head, world[row], apart[row]))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def _chosen(capture: Capture) -> list[View]:
    wanted = np.unique(np.linspace(0, len(capture.timesteps) - 1, ROWS).round().astype(int))
    roles = ("heldout",) if capture.views_of("heldout") else ("fit",)
    return [capture.views_of(*roles, timestep=capture.timesteps[row])[0] for row in wanted]


def _row(
    capture: Capture, view: View, picture: object, head: "HeadModel", world: Float[ndarray, "V 3"], apart: ndarray
) -> ndarray:
    import cv2

    from flame_fitting.report.drawing import DrawnFit, head_avatar
    from flame_fitting.report.figures import blend_mesh, colored

    assert isinstance(picture, DrawnFit)
    image = capture.image(view)
    colors = colored(apart[None] / WORST_MM)[0] / 255.0
    mapped = head_avatar(head, world, vertex_colors=colors).draw(
        *(view.K[None], view.world_to_camera[None], view.width, view.height), "unlit", outputs=("image",)
    )
    assert mapped.image is not None
    panels = [
        image.transpose(1, 2, 0),
        picture.image[0].transpose(1, 2, 0),
        blend_mesh(image, picture, view),
        mapped.image[0].transpose(1, 2, 0),
    ]
    small = [cv2.resize(to_uint8(panel), (PANEL, PANEL), interpolation=cv2.INTER_AREA) for panel in panels]
    return np.concatenate(small, axis=1)
