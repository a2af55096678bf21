"""What pictures of a fit are made of: which views, colours of numbers, labels, files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.files import atomic_write
from flame_fitting.report.drawing import DrawnFit

OVERLAY_YAWS = (0.0, -40.0, 40.0, -90.0, 90.0, 180.0)
SCALE = ((60, 75, 190), (70, 170, 215), (150, 215, 120), (250, 220, 80), (235, 120, 40), (165, 10, 30))
"""Colours of small to large numbers."""
_GEOMETRY_COLOR = np.array([0.2, 0.5, 1.0], dtype=np.float32)


@dataclass(frozen=True)
class Figure:
    """One picture of the report."""

    path: Path
    title: str


def choose_views(
    capture: Capture, head_from_world: Float[ndarray, "4 4"], timestep: int | None = None
) -> dict[float, View]:
    """For each of the overlay's yaws the closest level view of a timestep, by default the first one, none twice."""
    timestep = capture.timesteps[0] if timestep is None else timestep
    centers = np.stack([np.linalg.inv(view.world_to_camera)[:3, 3] for view in capture.views])
    seen = centers @ head_from_world[:3, :3].T + head_from_world[:3, 3]
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    # landmark views may be lit where the fit's pictures are not: colours could not be compared there
    alike = capture.landmark_shading == capture.shading
    preference = {"fit": 0.0, "heldout": 0.0, "landmark": 0.05 if alike else np.pi}
    chosen: dict[float, View] = {}
    for yaw in OVERLAY_YAWS:
        wanted = np.array([np.sin(np.radians(yaw)), 0.0, np.cos(np.radians(yaw))])
        cost = np.arccos(np.clip(seen @ wanted, -1, 1)) + [preference[view.role] for view in capture.views]
        for index in np.argsort(cost, kind="stable"):
            view = capture.views[index]
            if view.timestep == timestep:
                nearest = len(capture.cameras) == 1 or cost[index] < np.radians(25)
                if nearest and all(view.key != other.key for other in chosen.values()):
                    chosen[yaw] = view
                break
    return chosen


def side_name(yaw: float) -> str:
    """Words for a direction; left and right are the subject's."""
    names = {0.0: "front", -40.0: "front right", 40.0: "front left", -90.0: "right", 90.0: "left", 180.0: "back"}
    return names[min(names, key=lambda known: abs((yaw - known + 180) % 360 - 180))]


def blend_mesh(image: Float[ndarray, "3 H W"], picture: DrawnFit, view: View) -> Float[ndarray, "H W 3"]:
    """The fitted mesh, blue and half transparent, with its outline, over a picture."""
    assert picture.normal is not None
    eye = np.linalg.inv(view.world_to_camera)[:3, :3]
    facing = np.clip(-(picture.normal[0] @ eye[:, 2]), 0, 1)
    shade = _GEOMETRY_COLOR * (0.35 + 0.85 * facing[..., None])
    weight = 0.5 * picture.alpha[0][..., None]
    out = image.transpose(1, 2, 0) * (1 - weight) + np.clip(shade, 0, 1) * weight
    inside = picture.alpha[0] > 0.5
    edge = np.zeros_like(inside)
    edge[1:] |= inside[1:] != inside[:-1]
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    out[edge] = (1.0, 0.3, 0.0)
    return out


def color_bar(height: int, width: int = 90, top_value: float = 3.0, unit: str = "mm") -> UInt8[ndarray, "H W 3"]:
    """A colour bar from 0 to the largest value, by default that of error maps in millimetres."""
    import cv2

    bar = np.full((height, width, 3), 255, dtype=np.uint8)
    top, bottom = height // 10, height - height // 10
    values = np.linspace(1, 0, bottom - top)[:, None].repeat(20, axis=1)
    bar[top:bottom, 10:30] = colored(values)
    for value in np.linspace(0, top_value, 7):
        y = int(bottom - (bottom - top) * value / top_value)
        cv2.line(bar, (30, y), (34, y), (0, 0, 0), 1)
        cv2.putText(bar, f"{value:g}", (37, y + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(bar, unit, (12, top - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


def colored(values: Float[ndarray, "H W"]) -> UInt8[ndarray, "H W 3"]:
    """Values 0..1 as colours from blue over green and yellow to red; higher ones stay red."""
    stops = np.array(SCALE)
    position = np.clip(np.nan_to_num(values, nan=1.0), 0, 1) * (len(stops) - 1)
    channels = [np.interp(position, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def write_jpeg(path: Path, picture: UInt8[ndarray, "H W 3"], quality: int = 90) -> None:
    """Writes an RGB picture."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_jpeg(picture, quality))


def as_jpeg(picture: UInt8[ndarray, "H W 3"], quality: int = 90) -> bytes:
    """An RGB picture as a JPEG file."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError("a picture could not be encoded")
    return bytes(encoded.tobytes())


def labelled(panel: UInt8[ndarray, "H W 3"], text: str) -> UInt8[ndarray, "H W 3"]:
    """A copy of a picture with lines of text in its top left corner."""
    import cv2

    panel = np.ascontiguousarray(panel)
    for row, line in enumerate(text.splitlines()):
        for color, width in (((255, 255, 255), 3), ((40, 40, 40), 1)):
            cv2.putText(panel, line, (10, 22 + 20 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
    return panel
