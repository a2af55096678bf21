"""Figures of a fit over time: curves by timestep, the map of what swims."""

from pathlib import Path

import numpy as np

from flame_fitting.report.figures import Figure, color_bar, colored, write_jpeg
from flame_fitting.report.over_time import CURVES, OverTime
from flame_fitting.report.swimming import Swimming

_LEVELS = 24.0
"""sRGB levels that are drawn red in the map of what swims."""
_MAP = 512
_COLORS = ("#1f77b4", "#2ca02c", "#9467bd", "#d62728")


def write_curves(folder: Path, found: OverTime) -> Figure:
    """Writes overlays/curves.jpg: all curves, one below the other; timesteps without a face or held out are shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    curves = {name: values for name, values in found.curves.items() if any(value is not None for value in values)}
    plot = Plot(figsize=(10, 0.6 + 1.7 * len(curves)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(plot)
    rows = np.arange(len(found.timestep_id))
    axes = np.atleast_1d(plot.subplots(max(len(curves), 1), 1, sharex=True))
    for axis, (name, values), color in zip(axes, curves.items(), _COLORS, strict=False):
        known = np.array([np.nan if value is None else value for value in values])
        drawn = np.isfinite(known)
        axis.plot(rows[drawn], known[drawn], color=color, lw=1.2, marker="." if len(rows) <= 100 else None, ms=4)
        for marked, shade in ((found.no_face, "#e0a000"), (found.heldout, "#7fa7d8")):
            for row in marked:
                axis.axvspan(row - 0.5, row + 0.5, color=shade, alpha=0.3, lw=0)
        axis.set_ylabel(", ".join(filter(None, CURVES[name])))
        axis.grid(alpha=0.3)
    axes[-1].set_xlim(-0.5, len(rows) - 0.5)
    axes[-1].set_xlabel("timestep (row of the fit); yellow: no face found, blue: held out")
    canvas.draw()
    path = folder / "overlays" / "curves.jpg"
    write_jpeg(path, np.asarray(canvas.buffer_rgba())[..., :3])
    return Figure(path, "Curves by timestep")


def write_swimming(folder: Path, found: Swimming) -> Figure:
    """Writes overlays/swimming.jpg: the deviation of fine detail over the texture map; grey: not seen often enough."""
    import cv2

    known = np.isfinite(found.detail)
    picture = colored(np.nan_to_num(found.detail) / _LEVELS)
    picture[~known] = 200
    picture = cv2.resize(picture, (_MAP, _MAP), interpolation=cv2.INTER_NEAREST)
    path = folder / "overlays" / "swimming.jpg"
    write_jpeg(path, np.concatenate([picture, color_bar(_MAP, top_value=_LEVELS, unit="levels")], axis=1))
    title = (
        f"Swimming: standard deviation over {found.timesteps} timesteps of each texel's fine detail, sRGB levels of 255"
    )
    return Figure(path, title)
