"""How the fitted head is coloured."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.head.model import HeadModel
from flame_fitting.report.error_maps import TOP_MM, error_colors
from flame_fitting.report.figures import color_bar
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


def distance_colors(viewed: Viewed, row: int) -> Float[ndarray, "V 3"] | None:
    """sRGB 0..1 by how far the fitted head is from the avatar's visible surface; None where that is not known.

    As in the report: blue is 0, red is `TOP_MM` and more, grey is what no view shows.
    """
    surface = viewed.surface(row)
    if surface is None or viewed.capture is None:
        return None
    timestep = viewed.capture.timesteps[row]
    error = surface.surface.distance(viewed.fit.vertices_head(viewed.head, [row])[0]) * 1000
    views = viewed.capture.views_of("fit", "landmark", timestep=timestep)
    return error_colors(error, seen_vertices(viewed.head, viewed.fit.vertices_world(viewed.head, [row])[0], views))


def distance_legend(height: int = 200) -> UInt8[ndarray, "H W 3"]:
    """The report's scale."""
    return color_bar(height, top_value=TOP_MM)


def _as_text(color: Sequence[float] | ndarray) -> str:
    return "#" + "".join(f"{round(float(value)):02x}" for value in color)
