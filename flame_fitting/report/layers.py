"""One view of a fit in layers that lie over each other: picture, fit, wireframe, colour difference, landmarks.

All are cropped to the head and of one size, so that heads fill their panels whatever the capture is.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.fit.result import FitResult
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.report.drawing import DrawnFit
from flame_fitting.report.figures import colored, labelled
from flame_fitting.report.posed_head import PosedHead
from flame_fitting.report.wireframe import wireframe

PANEL = 512
"""Pixels of a layer, each way."""
LINE_COLOR = (0, 90, 255)
FITTED_COLOR = (230, 40, 40)
SOURCE_COLORS = ((30, 170, 60), (240, 150, 0), (150, 80, 210), (0, 170, 190))
"""Of detectors, in their order; a further one begins again."""
DIFFERENCE = 0.25
"""sRGB difference that is drawn red."""
_MARGIN = 0.12
"""Of the panel, around the fitted head."""
_SHEET = 400
_PANELS = ("avatar", "fit", "fitted mesh, landmarks", "colour difference")


@dataclass(frozen=True, eq=False)
class Marks:
    """Landmarks of one kind in a panel."""

    name: str
    """For a legend."""
    color: tuple[int, int, int]
    points: Float[ndarray, "n 2"]
    """Pixels of the panel; those that are seen."""


@dataclass(eq=False)
class Layers:
    """A view, ready to be laid over each other."""

    title: str
    picture: UInt8[ndarray, "H W 3"]
    fit: UInt8[ndarray, "H W 3"]
    difference: UInt8[ndarray, "H W 3"]
    lines: Float[ndarray, "H W"]
    """The wireframe, 0..1."""
    marks: list[Marks] = field(default_factory=list)


@dataclass(frozen=True)
class Crop:
    """A square of a picture, which may reach beyond it, and how it becomes a panel."""

    left: int
    top: int
    side: int
    size: int = PANEL

    @property
    def factor(self) -> float:
        """Pixels of the panel for one of the picture."""
        return self.size / self.side

    def K(self, K: Float[ndarray, "3 3"]) -> Float[ndarray, "3 3"]:
        """Intrinsics of the panel."""
        shift = np.array([[1.0, 0.0, -self.left], [0.0, 1.0, -self.top], [0.0, 0.0, 1.0]])
        return np.diag([self.factor, self.factor, 1.0]) @ shift @ K

    def of(self, picture: ndarray, background: ndarray | float = 0) -> ndarray:
        """The panel of a picture (h, w, ...), `background` beyond its border."""
        import cv2

        out = np.empty((self.side, self.side, *picture.shape[2:]), dtype=picture.dtype)
        out[:] = background
        x, y = max(self.left, 0), max(self.top, 0)
        inside = picture[y : max(self.top + self.side, 0), x : max(self.left + self.side, 0)]
        if inside.size:
            below, beside = y - self.top, x - self.left
            out[below : below + inside.shape[0], beside : beside + inside.shape[1]] = inside
        method = cv2.INTER_AREA if self.factor < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(out, (self.size, self.size), interpolation=method))


def head_crop(view: View, vertices: Float[ndarray, "V 3"]) -> Crop:
    """The square around a head (world) in a view, inside of its picture if it fits; all of it if none is seen."""
    points = project(vertices, view.K, view.world_to_camera)
    seen = points[points[:, 2] > 0, :2]
    whole = max(view.width, view.height)
    if not len(seen):
        return Crop((view.width - whole) // 2, (view.height - whole) // 2, whole)
    low = np.clip(seen.min(axis=0), -whole, 2 * whole)
    high = np.clip(seen.max(axis=0), -whole, 2 * whole)
    side = int(np.clip(np.ceil((high - low).max() * (1 + 2 * _MARGIN)), 16, 2 * whole))
    places = []
    for middle, length in zip(0.5 * (low + high), (view.width, view.height), strict=True):
        place = round(float(middle) - 0.5 * side)
        places.append(int(np.clip(place, 0, length - side)) if side <= length else place)
    return Crop(places[0], places[1], side)


def view_layers(
    fit: FitResult,
    capture: Capture,
    view: View,
    drawn: DrawnFit,
    vertices: Float[ndarray, "V 3"],
    posed: PosedHead,
    title: str,
    detected: Landmarks2D | None = None,
) -> Layers:
    """The layers of a view in which a fit was `drawn`.

    Args:
        vertices: the fitted head (world) at the view's timestep.
        posed: the same for lines.
        detected: landmarks of pictures; shown where this one has some, else those that were lifted to space.
    """
    crop = head_crop(view, vertices)
    background = np.asarray(capture.background_color, dtype=np.float32)
    image, alpha = capture.image_and_alpha(view)
    shown = [crop.of(to_uint8(each.transpose(1, 2, 0)), 255 * background) for each in (image, drawn.image[0])]
    error = colored(np.abs(drawn.image[0] - image).mean(axis=0) / DIFFERENCE)
    error[np.maximum(alpha, drawn.alpha[0]) < 0.02] = 255
    lines = wireframe(posed, crop.K(view.K), view.world_to_camera, (crop.size, crop.size))
    marks = _marks(fit, capture, view, crop, detected)
    return Layers(title, shown[0], shown[1], crop.of(error, 255), lines, marks)


def _marks(fit: FitResult, capture: Capture, view: View, crop: Crop, detected: Landmarks2D | None) -> list[Marks]:
    """Of each source what was detected and where the fitted head has it; points that the fit uses and that are seen."""
    found, out = fit.landmarks3d, list[Marks]()
    row = capture.timesteps.index(view.timestep)
    depth = capture.geometry(view)[0] if view.geometry_path is not None else None

    def seen(points: ndarray) -> ndarray:
        inside = np.isfinite(points[:, :2]).all(axis=1)
        inside &= ((points[:, :2] >= 0) & (points[:, :2] < [view.width, view.height])).all(axis=1)
        points = points[inside]
        if depth is not None:
            near = depth[points[:, 1].astype(int), points[:, 0].astype(int)] * 1.01
            points = points[~np.isfinite(points[:, 2]) | ((points[:, 2] > 0) & (points[:, 2] <= near))]
        return (points[:, :2] - [crop.left, crop.top]) * crop.factor

    prefixes = [key.removesuffix("detector") for key in found if key == "detector" or key.endswith("/detector")]
    fitted = []
    for number, prefix in enumerate(prefixes or [""]):
        if not {f"{prefix}{key}" for key in ("points", "model", "used")} <= found.keys():
            continue
        used = np.asarray(found[f"{prefix}used"], dtype=bool)
        chosen = used[row] if used[row].any() else used.any(axis=0)
        name, scheme = (str(found.get(f"{prefix}{key}", "")) for key in ("detector", "scheme"))
        of = f"{name} ({scheme})" if scheme else name
        places = project(found[f"{prefix}points"][row][chosen], view.K, view.world_to_camera)
        if not number and detected is not None and detected.landmarks.shape[2] == used.shape[1]:
            pixels = detected.landmarks[row, capture.cameras.index(view.camera)][chosen]
            if np.isfinite(pixels[:, :2]).any() or not np.isfinite(places).any():
                places = np.where(np.arange(3) < 2, pixels, np.nan)
        color = SOURCE_COLORS[number % len(SOURCE_COLORS)]
        out.append(Marks(f"detected by {of or 'a detector'}", color, seen(places)))
        fitted.append(project(found[f"{prefix}model"][row][chosen], view.K, view.world_to_camera))
    if fitted:
        out.append(Marks("the same points on the fitted head", FITTED_COLOR, seen(np.concatenate(fitted))))
    return out


def overlay_row(layers: Layers) -> UInt8[ndarray, "H W 3"]:
    """Four panels: the avatar, the fit, the wireframe over the avatar with its landmarks, the colour difference."""
    import cv2

    mesh = over(layers.picture, layers.lines, LINE_COLOR)
    shown = (layers.picture, layers.fit, mesh, layers.difference)
    panels = [cv2.resize(each, (_SHEET, _SHEET), interpolation=cv2.INTER_AREA) for each in shown]
    shift, scale = 4, _SHEET / layers.picture.shape[0]  # cv2 draws at 1/16 px
    for marks in layers.marks:
        for x, y in marks.points:
            center = (round((x * scale - 0.5) * 2**shift), round((y * scale - 0.5) * 2**shift))
            cv2.circle(panels[2], center, round(1.3 * 2**shift), marks.color, -1, cv2.LINE_AA, shift)
    return np.concatenate([labelled(p, text) for p, text in zip(panels, _PANELS, strict=True)], axis=1)


def over(
    picture: UInt8[ndarray, "H W 3"], weight: Float[ndarray, "H W"], color: tuple[int, int, int]
) -> UInt8[ndarray, "H W 3"]:
    """A colour laid over a picture."""
    mixed = picture + (np.asarray(color, dtype=np.float32) - picture) * weight[..., None]
    return np.ascontiguousarray(mixed.round().astype(np.uint8))
