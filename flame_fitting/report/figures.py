"""Pictures of a fit: overlays on the avatar, error maps, landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.report.drawing import DrawnFit, draw_fit, head_avatar
from flame_fitting.report.over_time import CURVES, OverTime
from flame_fitting.report.sampling import head_at

OVERLAY_YAWS = (0.0, -40.0, 40.0, -90.0, 90.0, 180.0)
_GEOMETRY_COLOR = np.array([0.2, 0.5, 1.0], dtype=np.float32)
_FOUND, _MODEL = (60, 200, 60), (230, 50, 50)
_PANEL = 400
_PANELS = ("avatar", "fit", "fitted mesh, landmarks", "colour difference")
_DIFFERENCE = 0.25  # sRGB difference that is drawn red
_BAR_MM = 3.0
_NO_FACE = 2
"""Timesteps without a face that are shown."""


@dataclass(frozen=True)
class Figure:
    """One picture of the report."""

    path: Path
    title: str


def write_figures(folder: Path, fit: FitResult, capture: Capture, head: HeadModel) -> list[Figure]:
    """Writes overlays/*.jpg into `folder`: the fit over the avatar, from all sides."""
    chosen = choose_views(capture, head_at(fit, 0))
    pictures = draw_fit(fit, head, capture, list(chosen.values()))
    figures = []
    for (yaw, view), picture in zip(chosen.items(), pictures, strict=True):
        name = side_name(yaw)
        path = folder / "overlays" / f"{list(chosen).index(yaw):02d}_{name.replace(' ', '_')}.jpg"
        write_jpeg(path, overlay_row(fit, capture, view, picture))
        figures.append(Figure(path, f"Seen from {name}: avatar, fit, fitted mesh over the avatar, colour difference"))
    return figures


def write_worst(
    folder: Path,
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    found: OverTime,
    cameras: Sequence[int],
    detected: Landmarks2D | None = None,
) -> list[Figure]:
    """Writes overlays/worst_*.jpg: the worst timesteps, the worst first, then some in which no face was found.

    Of several cameras the one of `cameras` that comes first and has a picture of the timestep.
    """
    figures = []
    rows = [*found.worst, *found.no_face[:_NO_FACE]]
    for place, row in enumerate(rows):
        of_row = {view.camera: view for view in capture.views_of("fit", "heldout", timestep=capture.timesteps[row])}
        view = next((of_row[camera] for camera in [*cameras, *of_row] if camera in of_row), None)
        if view is None:
            continue
        path = folder / "overlays" / f"worst_{place:02d}.jpg"
        write_jpeg(path, overlay_row(fit, capture, view, draw_fit(fit, head, capture, [view])[0], detected))
        values = [
            f"{title} {value:.3g} {unit}".strip()
            for name, (title, unit) in CURVES.items()
            if (value := found.curves[name][row]) is not None
        ]
        said = [found.mark(row)] if found.mark(row) else []
        title = f"Timestep {found.timestep_id[row]}, camera {view.camera_id}: {', '.join([*said, *values])}"
        figures.append(Figure(path, title))
    return figures


def write_error_map(
    folder: Path,
    head: HeadModel,
    vertices: Float[ndarray, "V 3"],
    error_mm: Float[ndarray, " V"],
    name: str,
    title: str,
) -> Figure:
    """Writes overlays/<name>.jpg: the head from the front and both sides, coloured by an error per vertex."""
    path = folder / "overlays" / f"{name}.jpg"
    write_jpeg(path, error_map(head, vertices, error_mm))
    return Figure(path, title)


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


def overlay_row(
    fit: FitResult, capture: Capture, view: View, picture: DrawnFit, detected: Landmarks2D | None = None
) -> UInt8[ndarray, "H W 3"]:
    """Four panels: the avatar, the fit, the fitted mesh over the avatar with its landmarks, the colour difference.

    Landmarks are those in space, or where they are given those `detected` in this picture.
    """
    image = capture.image(view)
    seen, fitted = capture.alpha(view), picture.alpha[0]
    mesh = blend_mesh(image, picture, view)
    error = colored(np.abs(picture.image[0] - image).mean(axis=0) / _DIFFERENCE)
    error[np.maximum(seen, fitted) < 0.02] = 255
    panels = [image.transpose(1, 2, 0), picture.image[0].transpose(1, 2, 0), mesh]
    row = [_resized(to_uint8(panel)) for panel in panels]
    row[2] = _with_landmarks(row[2], fit, capture, view, detected)
    row.append(_resized(error))
    return np.concatenate([labelled(p, text) for p, text in zip(row, _PANELS, strict=True)], axis=1)


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


def error_map(
    head: HeadModel, vertices: Float[ndarray, "V 3"], error_mm: Float[ndarray, " V"], size: int = 480
) -> UInt8[ndarray, "H W 3"]:
    """The head (V, 3; head space, metres) from its right, the front and its left, coloured by `error_mm`."""
    colors = colored(error_mm[None] / _BAR_MM)[0] / 255.0
    normals = vertex_normals(vertices, head.faces.cpu().numpy())
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, radius = 0.5 * (low + high), 0.5 * float(np.linalg.norm(high - low))
    fov = 20.0
    distance = radius / np.sin(np.radians(fov / 2))
    K = intrinsics_from_fov(fov, size, size)
    panels = []
    for yaw in (-75.0, 0.0, 75.0):
        toward = np.array([np.sin(np.radians(yaw)), 0.0, np.cos(np.radians(yaw))])
        camera = look_at(middle + distance * toward, middle, [0.0, 1.0, 0.0])
        light = 0.55 + 0.45 * np.clip(normals @ toward, 0, 1)
        avatar = head_avatar(head, vertices, vertex_colors=colors * light[:, None])
        drawn = avatar.draw(K[None], camera[None], size, size, "unlit", outputs=("image",))
        assert drawn.image is not None
        panels.append(to_uint8(drawn.image[0].transpose(1, 2, 0)))
    return np.concatenate([*panels, color_bar(size)], axis=1)


def color_bar(height: int, width: int = 90, top_value: float = _BAR_MM, unit: str = "mm") -> UInt8[ndarray, "H W 3"]:
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
    stops = np.array([[60, 75, 190], [70, 170, 215], [150, 215, 120], [250, 220, 80], [235, 120, 40], [165, 10, 30]])
    position = np.clip(np.nan_to_num(values, nan=1.0), 0, 1) * (len(stops) - 1)
    channels = [np.interp(position, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def write_jpeg(path: Path, picture: UInt8[ndarray, "H W 3"], quality: int = 90) -> None:
    """Writes an RGB picture."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f"{path}: the picture could not be encoded")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _with_landmarks(
    panel: ndarray, fit: FitResult, capture: Capture, view: View, detected: Landmarks2D | None = None
) -> ndarray:
    """Landmarks as they were detected or lifted from the avatar (green) and on the fitted head (red), where seen."""
    import cv2

    found = fit.landmarks3d
    if not {"points", "model", "used"} <= found.keys():
        return panel
    row = capture.timesteps.index(view.timestep)
    used = np.asarray(found["used"], dtype=bool)
    chosen = used[row] if used[row].any() else used.any(axis=0)
    places = [(project(found["model"][row][chosen], view.K, view.world_to_camera), _MODEL)]
    if detected is not None and detected.landmarks.shape[2] == used.shape[1]:
        pixels = detected.landmarks[row, capture.cameras.index(view.camera)][chosen]
        places.insert(0, (np.where(np.arange(3) < 2, pixels, np.nan), _FOUND))
    else:
        places.insert(0, (project(found["points"][row][chosen], view.K, view.world_to_camera), _FOUND))
    scale_x, scale_y = panel.shape[1] / view.width, panel.shape[0] / view.height
    depth = capture.geometry(view)[0] if view.geometry_path is not None else None
    shift = 4  # cv2 draws at 1/16 px
    panel = np.ascontiguousarray(panel)
    for points, color in places:
        for x, y, z in points:
            if not np.isfinite([x, y]).all() or not (0 <= x < view.width and 0 <= y < view.height):
                continue
            if depth is not None and np.isfinite(z) and not 0 < z <= depth[int(y), int(x)] * 1.01:
                continue
            center = (round((x * scale_x - 0.5) * 2**shift), round((y * scale_y - 0.5) * 2**shift))
            cv2.circle(panel, center, round(1.1 * 2**shift), color, -1, cv2.LINE_AA, shift)
    return panel


def labelled(panel: UInt8[ndarray, "H W 3"], text: str) -> UInt8[ndarray, "H W 3"]:
    """A copy of a picture with lines of text in its top left corner."""
    import cv2

    panel = np.ascontiguousarray(panel)
    for row, line in enumerate(text.splitlines()):
        for color, width in (((255, 255, 255), 3), ((40, 40, 40), 1)):
            cv2.putText(panel, line, (10, 22 + 20 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
    return panel


def _resized(picture: ndarray) -> ndarray:
    import cv2

    height, width = picture.shape[:2]
    size = (max(1, round(_PANEL * width / height)), _PANEL)
    method = cv2.INTER_AREA if height > _PANEL else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=method))
