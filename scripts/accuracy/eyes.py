"""Eyeballs and lids of a posed head: where they are, where they look, what is seen of them, what dips into them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.head.regions import fit_sphere

if TYPE_CHECKING:
    from flame_fitting.head.model import HeadModel

SIDES = ("right", "left")
_PIXEL = 0.00008
"""Metres a pixel when visible parts of eyeballs are measured."""
_BOX = 0.016
"""Metres from an eye's middle up to which is looked."""


def eyeball(head: "HeadModel", vertices: Float[ndarray, "V 3"], side: str) -> tuple[Float[ndarray, " 3"], float]:
    """Centre and radius."""
    return fit_sphere(vertices[head.regions[f"{side}_eyeball"].numpy()])


def gaze(head: "HeadModel", vertices: Float[ndarray, "V 3"], side: str) -> Float[ndarray, " 3"]:
    """Direction from the eyeball's centre to the middle of its iris, unit length."""
    toward = vertices[head.regions[f"{side}_iris"].numpy()].mean(0) - eyeball(head, vertices, side)[0]
    return toward / np.linalg.norm(toward)


def lids_outside(head: "HeadModel", vertices: Float[ndarray, "V 3"], gap: float) -> Float[ndarray, "V 3"]:
    """Vertices with the skin around the eyes moved out of the eyeballs, to `gap` before them; unit as the vertices'."""
    out = vertices.copy()
    for side in SIDES:
        ids = np.setdiff1d(head.regions[f"{side}_eye_region"].numpy(), head.regions[f"{side}_eyeball"].numpy())
        center, radius = eyeball(head, vertices, side)
        away = out[ids] - center
        distance = np.linalg.norm(away, axis=1, keepdims=True)
        out[ids] = center + away * np.maximum(distance, radius + gap) / distance
    return out


def lid_depths(head: "HeadModel", vertices: Float[ndarray, "V 3"]) -> Float[ndarray, " N"]:
    """How deep the eyelids' vertices lie in the eyeballs, 0 outside."""
    out = []
    for side in SIDES:
        center, radius = eyeball(head, vertices, side)
        lids = vertices[head.regions[f"{side}_eyelid"].numpy()]
        out.append(np.maximum(radius - np.linalg.norm(lids - center, axis=1), 0))
    return np.concatenate(out)


def visible_area(head: "HeadModel", vertices: Float[ndarray, "V 3"], side: str) -> float:
    """Area of the eyeball that is seen straight from the front (along -z), mm^2; vertices in metres."""
    import torch

    from flame_fitting.render.backend import make_rasterizer

    middle = vertices[head.regions[f"{side}_eyeball"].numpy()].mean(0)
    count = round(2 * _BOX / _PIXEL)
    local = (vertices - middle) / [_BOX, _BOX, 0.1]
    clip = np.concatenate([local[:, :2], -local[:, 2:], np.ones((len(local), 1))], axis=1)
    faces = head.faces
    # what lies behind the eyes is cut away by the far plane
    rast, _ = make_rasterizer("cpu").rasterize(
        torch.as_tensor(clip, dtype=torch.float32)[None], faces.int(), (count, count)
    )
    seen = rast[0, ..., 3].long() - 1
    ball = head.face_mask(f"{side}_eyeball")
    return float((ball[seen.clamp(min=0)] & (seen >= 0)).sum()) * (1000 * _PIXEL) ** 2
