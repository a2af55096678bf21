"""What stands on the page of a fit, made ready for its template."""

import base64
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.fit.state import StageRecord
from flame_fitting.manifest import Manifest
from flame_fitting.report.animation_sheet import PosePicture
from flame_fitting.report.error_maps import ErrorMap
from flame_fitting.report.figures import Figure, as_jpeg
from flame_fitting.report.layers import LINE_COLOR, Layers
from flame_fitting.report.moments import Moments
from flame_fitting.report.usual_range import SKIN, Judged, judged

QUALITY = 82
MOST_MOMENTS = 12
"""Moments whose pictures are in the page; the others' lie in overlays/."""
_TEXTURE = 512
_SHADES = 16
_CHART = (280, 110)

FILES = {
    "metrics.json": "all numbers of this page",
    "fitted.obj": "the fitted head where the avatar is",
    "fitted_head_space.obj": "the fitted head in its own metres",
    "texture.png": "its texture",
    "tracked_flame_params.npz": "its parameters, with VHAP's keys",
    "landmarks3d.npz": "landmarks in space",
    "uncertainty.npz": "standard deviations of the parameters",
    "morph_expressions.json": "the avatar's morph targets as expressions",
    "config.yml": "all options",
    "checkpoint.safetensors": "the state, to go on from",
    "overlays": "the pictures of this page, as files",
    "../log.txt": "what was said on the way",
    "log.txt": "what was said on the way",
    "../render": "the capture that was fitted",
    "../export": "the exported dataset",
}
"""Beside the page, where they are there, with what they are."""


@dataclass
class Page:
    """All of it."""

    title: str
    name: str
    metrics: dict[str, Any]
    made: Manifest | None = None
    """Of the fit."""
    measured: Manifest | None = None
    """Of this evaluation, for its version and command."""
    stages: list[StageRecord] = field(default_factory=list)
    views: list[Layers] = field(default_factory=list)
    worst: list[Layers] = field(default_factory=list)
    moments: Moments | None = None
    errors: list[ErrorMap] = field(default_factory=list)
    poses: list[PosePicture] = field(default_factory=list)
    pose_timestep: str = ""
    figures: list[Figure] = field(default_factory=list)
    """Curves by timestep, the map of what swims."""
    videos: list[Path] = field(default_factory=list)
    texture: UInt8[ndarray, "R R 3"] | None = None


class Link(NamedTuple):
    """A file beside the page."""

    path: str
    about: str
    size: str


class Chart(NamedTuple):
    """A loss curve, in units of its own picture; the loss on a logarithmic scale where it can be."""

    stage: str
    line: str
    """Points of a polyline."""
    first: str
    last: str
    steps: int


def jpeg(picture: UInt8[ndarray, "H W 3"]) -> str:
    """As a link that holds the picture."""
    return f"data:image/jpeg;base64,{base64.b64encode(as_jpeg(picture, QUALITY)).decode()}"


def jpeg_file(path: Path) -> str:
    """The same of a file."""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def line_png(lines: Float[ndarray, "H W"]) -> str:
    """A wireframe as a link: one colour of 16 degrees of transparency."""
    from io import BytesIO

    from PIL import Image

    degrees, file = (np.clip(lines, 0, 1) * (_SHADES - 1)).round().astype(np.uint8), BytesIO()
    picture = Image.frombytes("P", degrees.shape[::-1], degrees.tobytes())
    picture.putpalette(list(LINE_COLOR) * _SHADES)
    picture.save(file, "PNG", bits=4, transparency=bytes(255 * k // (_SHADES - 1) for k in range(_SHADES)))
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def small_texture(texture: UInt8[ndarray, "R R 3"]) -> str:
    """A texture as a link, at most so large."""
    import cv2

    side = min(_TEXTURE, texture.shape[0])
    return jpeg(np.asarray(cv2.resize(texture, (side, side), interpolation=cv2.INTER_AREA)))


def dots(points: Float[ndarray, "n 2"]) -> str:
    """Points as the path of an SVG whose line has round ends."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def links(folder: Path, videos: list[Path]) -> list[Link]:
    """Files that are there, and metrics.json, which is written after the page."""
    about = {path.name: "the fit over the pictures, over time" for path in videos} | FILES
    out = []
    for name, text in about.items():
        path = folder / name
        if path.is_file():
            out.append(Link(name, text, _bytes(path.stat().st_size)))
        elif path.is_dir():
            out.append(Link(f"{name}/", text, ""))
        elif name == "metrics.json":
            out.append(Link(name, text, ""))
    return out


def when(stamp: str) -> str:
    """A date as it is read."""
    return datetime.fromisoformat(stamp).strftime("%d %B %Y, %H:%M %z").strip() if stamp else "not recorded"


def chart(stage: StageRecord) -> Chart | None:
    """The loss curve of a stage; None without one."""
    if len(stage.losses) < 2:
        return None
    steps, values = np.array(stage.losses, dtype=np.float64).T
    shown = np.log10(values) if values.min() > 0 else values
    width, height = _CHART
    x = width * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    y = height * (1 - (shown - shown.min()) / max(np.ptp(shown), 1e-12))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Chart(stage.name, line, f"{values[0]:.3g}", f"{values[-1]:.3g}", int(steps[-1]))


def region_verdicts(region: str, stats: dict[str, float] | None) -> dict[str, Judged]:
    """Of a region's distances to the avatar, where they have a range: by `median` and `p95`."""
    if region not in SKIN or not stats:
        return {}
    return {key: judged(f"face_{key}_mm", stats[key]) for key in ("median", "p95") if stats.get(key) is not None}


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
