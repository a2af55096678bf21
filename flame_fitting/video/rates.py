"""How many pictures a second a capture's timesteps were taken at."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from flame_fitting.manifest import read_manifest

USUAL = 25.0
"""Where nothing says it."""


def pictures_per_second(root: Path, timesteps: Sequence[int]) -> float:
    """Of some timesteps (their numbers in the folder), by what `preprocess` wrote of the pictures in `root`.

    Where every k-th timestep was chosen, a k-th of the folder's rate.
    """
    step = float(np.median(np.diff(timesteps))) if len(timesteps) > 1 else 1.0
    return _of_folder(root) / max(step, 1.0)


def _of_folder(root: Path) -> float:
    manifest = read_manifest(root)
    if manifest is None or manifest.stage != "preprocess":
        return USUAL
    asked = manifest.config.get("target_fps")
    if isinstance(asked, (int, float)) and asked > 0:
        return float(asked)
    for name in manifest.inputs:  # every frame as it came
        path = manifest.input_path(name, root)
        if path is not None and path.is_file() and (rate := _of_video(path)) is not None:
            return rate
    return USUAL


def _of_video(path: Path) -> float | None:
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
    except (OSError, IndexError):
        return None
    return float(rate) if rate else None
