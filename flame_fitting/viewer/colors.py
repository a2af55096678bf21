"""How the fitted head is coloured."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image

from flame_fitting.avatar.tone_mapping import shown_picture
from flame_fitting.head.model import HeadModel
from flame_fitting.report.error_maps import HIDDEN, TOP_MM
from flame_fitting.report.figures import colored
from flame_fitting.report.statistics import REGIONS
from flame_fitting.report.visibility import seen_vertices
from flame_fitting.viewer.opening import Viewed

TEXTURE, PLAIN, DISTANCE, REGION = "texture", "plain", "distance to the avatar", "regions"
ALL_REGIONS = "measured regions"
GREY = (0.72, 0.70, 0.68)
_CHOSEN = (0.93, 0.42, 0.15)
_PALETTE = np.array(
    [
        (166, 206, 227), (31, 120, 180), (227, 26, 28), (106, 61, 154), (178, 223, 138), (255, 127, 0),
        (202, 178, 214), (177, 89, 40), (51, 160, 44), (253, 191, 111), (251, 154, 153),
    ]
)  # fmt: skip
"""Colours that are told apart side by side (ColorBrewer, Paired), by `REGIONS`."""
_FEWEST = 4
"""Vertices of a region that can be shown as a surface."""
_LIGHTS = np.array([(0.3, 0.5, 0.81), (-0.3, 0.5, -0.81)])
"""Directions of light on what is coloured, from before and from behind: the sides are darker."""
_DARKEST = 0.75
_SCALE_SIZE = 256
"""Pixels of the scale's picture: its lower half is the scale, from left to right, its upper half is grey."""


@dataclass(frozen=True, eq=False)
class Paint:
    """Colours of a head's vertices: their own, or places in a picture, so that what lies between two is on a scale."""

    colors: Float[ndarray, "V 3"] | None = None
    """sRGB 0..1."""
    uv: Float[ndarray, "V 2"] | None = None
    """(0, 0) at the picture's bottom left."""
    picture: bytes | None = None
    """A PNG file, as `avatar/tone_mapping.shown_picture` makes one."""


def modes_of(viewed: Viewed) -> tuple[str, ...]:
    """Those that this fit has, the first one first."""
    has = {
        TEXTURE: viewed.fit.texture is not None and viewed.head.has_uv,
        PLAIN: True,
        DISTANCE: viewed.has_geometry,
        REGION: bool(regions_of(viewed.head)),
    }
    return tuple(name for name, there in has.items() if there)


def regions_of(head: HeadModel) -> list[str]:
    """Names of regions that can be highlighted, those that are measured first."""
    there = [name for name, ids in head.regions.items() if len(ids) >= _FEWEST]
    return [*(name for name in REGIONS if name in there), *sorted(set(there) - set(REGIONS))]


def region_colors(head: HeadModel, name: str = ALL_REGIONS) -> Float[ndarray, "V 3"]:
    """sRGB 0..1: one region before grey, or all that are measured, small ones over those that they lie in."""
    colors = np.tile(np.array(GREY), (head.n_vertices, 1))
    if name != ALL_REGIONS:
        colors[head.region_mask(name).cpu().numpy()] = _CHOSEN
        return colors
    for region in REGIONS:
        colors[head.region_mask(region).cpu().numpy()] = _PALETTE[REGIONS.index(region) % len(_PALETTE)] / 255
    return colors


def region_legend(head: HeadModel, name: str = ALL_REGIONS) -> list[tuple[str, str]]:
    """Colour (as #rrggbb) and name of what `region_colors` shows."""
    if name != ALL_REGIONS:
        return [(_as_text(np.array(_CHOSEN) * 255), name)]
    return [(_as_text(_PALETTE[k % len(_PALETTE)]), one) for k, one in enumerate(REGIONS) if one in head.regions]


def distances(viewed: Viewed, row: int) -> tuple[Float[ndarray, " V"], Bool[ndarray, " V"]] | None:
    """How far the fitted head is from the avatar's visible surface, mm, and which vertices some view shows.

    As in the report. None where that is not known.
    """
    surface = viewed.surface(row)
    if surface is None or viewed.capture is None:
        return None
    timestep = viewed.capture.timesteps[row]
    error = surface.surface.distance(viewed.fit.vertices_head(viewed.head, [row])[0]) * 1000
    views = viewed.capture.views_of("fit", "landmark", timestep=timestep)
    return error, seen_vertices(viewed.head, viewed.fit.vertices_world(viewed.head, [row])[0], views)


def distance_paint(error_mm: Float[ndarray, " V"], seen: Bool[ndarray, " V"]) -> Paint:
    """Blue is 0, red is `TOP_MM` and more, grey is what no view shows."""
    half = 0.5 / _SCALE_SIZE
    u = np.clip(error_mm / TOP_MM, half, 1 - half)
    return Paint(uv=np.stack([u, np.where(seen, 0.25, 0.75)], axis=1), picture=_scale_picture())


def distance_legend() -> str:
    """The report's scale in HTML."""
    stops = ", ".join(_as_text(color) for color in colored(np.linspace(0, 1, 11)[None])[0])
    ticks = "".join(f"<span>{value:g}</span>" for value in np.linspace(0, TOP_MM, int(TOP_MM) + 1)[:-1])
    bar = f'<div style="height:0.9em;border-radius:2px;background:linear-gradient(to right, {stops})"></div>'
    numbers = f'<div style="display:flex;justify-content:space-between">{ticks}<span>{TOP_MM:g} or more</span></div>'
    return f"<div>mm from the avatar&#39;s surface</div>{bar}{numbers}"


def hidden_legend() -> tuple[str, str]:
    """Colour and meaning of what nothing was measured of."""
    return _as_text(np.full(3, HIDDEN)), "shown by no view"


def shading(normals: Float[ndarray, "V 3"]) -> Float[ndarray, "V 1"]:
    """What colours are multiplied by so that shape is seen and a scale still read; the same whatever one looks from."""
    lit = np.clip((normals @ _LIGHTS.T).max(axis=1, keepdims=True), 0, 1)
    return _DARKEST + (1 - _DARKEST) * lit


def _scale_picture() -> bytes:
    scale = colored(np.linspace(0, 1, _SCALE_SIZE)[None].repeat(_SCALE_SIZE // 2, axis=0))
    picture = np.concatenate([np.full_like(scale, HIDDEN), scale])
    stream = io.BytesIO()
    Image.fromarray(shown_picture(picture)).save(stream, format="PNG")
    return stream.getvalue()


def _as_text(color: Sequence[float] | ndarray) -> str:
    return "#" + "".join(f"{round(float(value)):02x}" for value in color)
