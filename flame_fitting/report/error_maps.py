"""A fitted head coloured by an error of each vertex, seen from five sides."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.drawing import head_avatar
from flame_fitting.report.figures import color_bar, colored, labelled

TOP_MM = 3.0
"""Drawn as the last colour of the scale, as is all that is larger."""
HIDDEN = 150
"""Grey of a surface that no view shows: nothing was measured there."""
SIDES = {
    "right": (-90.0, 0.0),
    "front": (0.0, 0.0),
    "left": (90.0, 0.0),
    "top": (0.0, 90.0),
    "back": (180.0, 0.0),
}
"""Degrees toward the subject's left and upward."""
SIZE = 360
_FOV = 15.0


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """Of one error."""

    name: str
    title: str
    panels: dict[str, UInt8[ndarray, "H W 3"]]
    """By `SIDES`."""


def error_colors(error_mm: Float[ndarray, " V"], seen: Bool[ndarray, " V"] | None = None) -> Float[ndarray, "V 3"]:
    """sRGB 0..1 of errors at vertices; those that are not `seen` (None: all are) are grey."""
    colors = colored(error_mm[None] / TOP_MM)[0] / 255.0
    if seen is not None:
        colors[~seen] = HIDDEN / 255.0
    return colors


def error_panels(
    head: HeadModel,
    vertices: Float[ndarray, "V 3"],
    error_mm: Float[ndarray, " V"],
    seen: Bool[ndarray, " V"] | None = None,
    size: int = SIZE,
    sides: tuple[str, ...] = tuple(SIDES),
) -> dict[str, UInt8[ndarray, "H W 3"]]:
    """The head (head space, metres) from `sides`; vertices that are not `seen` (None: all are) are grey."""
    colors = error_colors(error_mm, seen)
    normals = vertex_normals(vertices, head.faces.cpu().numpy())
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, extent = 0.5 * (low + high), high - low
    K, out = intrinsics_from_fov(_FOV, size, size), {}
    for side in sides:
        yaw, pitch = np.radians(SIDES[side])
        toward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        up = np.array([0.0, 0.0, -1.0]) if side == "top" else np.array([0.0, 1.0, 0.0])
        across = np.abs(np.stack([np.cross(up, toward), up])) @ extent
        distance = 0.54 * across.max() / np.tan(np.radians(_FOV / 2)) + 0.5 * float(np.abs(toward) @ extent)
        camera = look_at(middle + distance * toward, middle, up)
        light = 0.6 + 0.4 * np.clip(normals @ toward, 0, 1)
        avatar = head_avatar(head, vertices, vertex_colors=colors * light[:, None])
        drawn = avatar.draw(K[None], camera[None], size, size, "unlit", outputs=("image",))
        assert drawn.image is not None
        out[side] = to_uint8(drawn.image[0].transpose(1, 2, 0))
    return out


def error_sheet(panels: dict[str, UInt8[ndarray, "h w 3"]]) -> UInt8[ndarray, "H W 3"]:
    """Three sides beside each other in a row, and the scale in the last place."""
    shown = [
        labelled(picture, f"{side} (subject's)" if side in ("left", "right") else side)
        for side, picture in panels.items()
    ]
    size = shown[0].shape[0]
    bar = np.full_like(shown[0], 255)
    scale = color_bar(size, top_value=TOP_MM)
    bar[:, : scale.shape[1]] = scale
    shown.append(labelled(bar, "\n".join([""] * 7 + [" " * 24 + "grey: no view", " " * 24 + "shows it"])))
    shown += [np.full_like(bar, 255)] * (-len(shown) % 3)
    return np.concatenate([np.concatenate(shown[k : k + 3], axis=1) for k in range(0, len(shown), 3)])
