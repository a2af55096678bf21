"""The bench's table: medians over seeds, presets side by side."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .cases import BY_NAME


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    title: str
    keys: tuple[str, ...]
    """Numbers in its cell, separated by semicolons where there are several."""
    digits: int = 2
    factor: float = 1.0
    only: Callable[[str], bool] = lambda case: True
    """Cases that have it."""


def _one_camera(case: str) -> bool:
    return BY_NAME[case].monocular


LINES = (
    Line("start (of `vhap` the first timestep); each later; each epoch; all, s",
         ("seconds.start", "seconds.later", "seconds.epoch", "seconds.all"), 1),
    Line("peak memory: host; device, GiB", ("memory.host", "memory.device"), 1),
    Line("face, point to surface: median; mean; p95, mm", ("surface_median", "surface_mean", "surface_p95")),
    Line("face, vertex to vertex: median, mm", ("vertex_median",)),
    Line("medians by area instead: surface; vertex, mm", ("surface_by_area", "vertex_by_area")),
    Line("worst timestep; the last over the others", ("vertex_worst", "last_over_others")),
    Line("frames left out, vertex to vertex, mm", ("vertex_left_out",), only=lambda case: BY_NAME[case].leaves_out),
    Line("head; neck; jaw rotation, mean degrees", ("head_degrees", "neck_degrees", "jaw_degrees")),
    Line("the same about a constant one",
         ("head_degrees_moving", "neck_degrees_moving", "jaw_degrees_moving")),
    Line("jitter: all; without frames left out, mm", ("jitter", "jitter_shown"), 3),
    Line("gain: jaw; lids; lips; brows", ("gain_jaw", "gain_lids", "gain_lips", "gain_brows"),
         only=lambda case: not BY_NAME[case].still),
    Line("true motion: jaw; lids; lips; brows, mm", ("moved_jaw", "moved_lids", "moved_lips", "moved_brows"), 1,
         only=lambda case: not BY_NAME[case].still),
    Line("PSNR, whole pictures: held out; training views, dB", ("psnr_heldout", "psnr_training"), 1),
    Line("PSNR, the head's pixels: held out; training views, dB", ("psnr_heldout_head", "psnr_training_head"), 1),
    Line("focal length over the true one", ("focal_ratio",), only=_one_camera),
    Line("its error, median of the sizes; stated deviation, %", ("focal_error", "focal_stated"), 0, 100.0, _one_camera),
)  # fmt: skip


@dataclass
class Row:
    """One track."""

    head: str
    case: str
    preset: str
    landmarks: str
    seed: int
    numbers: dict[str, float] = field(default_factory=dict)
    error: str = ""
    warnings: list[str] = field(default_factory=list)


def flattened(measured: dict[str, Any], record: dict[str, Any]) -> dict[str, float]:
    """Numbers of a track by the keys of the lines."""
    out = {f"{part}.{name}": float(value) for part in ("seconds", "memory") for name, value in record[part].items()}
    out |= {name: float(value) for name, value in measured.items()}
    if "focal_ratio" in out:
        out["focal_error"] = abs(out["focal_ratio"] - 1)
    return out


def table(rows: list[Row]) -> str:
    """Markdown, a table for each case: a column for each head, preset and kind of landmarks, medians over seeds."""
    parts = []
    for case in dict.fromkeys(row.case for row in rows):
        columns: dict[tuple[str, str, str], list[dict[str, float]]] = {}
        for row in rows:
            if row.case == case:
                columns.setdefault((row.head, row.preset, row.landmarks), []).extend([row.numbers] * bool(row.numbers))
        seeds = sorted({row.seed for row in rows if row.case == case and row.numbers})
        heading = [f"{BY_NAME[case].title} (seeds {' '.join(map(str, seeds))})", *map(", ".join, columns)]
        lines = [heading, ["---"] * len(heading)]
        for line in LINES:
            cells = [_cell(line, numbers) for numbers in columns.values()]
            if line.only(case) and any(cells):
                lines.append([line.title, *cells])
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(parts)


def _cell(line: Line, numbers: list[dict[str, float]]) -> str:
    values = [[one[key] for one in numbers if np.isfinite(one.get(key, np.nan))] for key in line.keys]
    texts = [f"{line.factor * float(np.median(several)):.{line.digits}f}" if several else "–" for several in values]
    return "; ".join(texts) if any(values) else ""


def machine() -> str:
    """What it was measured on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    threads = f"{os.cpu_count()} cores ({name}), {torch.get_num_threads()} threads"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{threads}{gpu}, Python {platform.python_version()}, torch {torch.__version__}"
