"""What an avatar's morph targets are in terms of the head model: its own expressions as coefficients."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flame_fitting.files import atomic_write
from flame_fitting.fit.result import FitResult

MORPHS_NAME = "morph_expressions.json"
KEYS = ("expr", "jaw_pose", "eyes_pose", "eyelids")
"""The last of head models that have them."""


def morph_expressions(result: FitResult, morphs: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """By the name of each morph target that was fitted: its parameters less those of the first timestep.

    Coefficients in the model's own standard deviations, joints as axis-angles, rad: what weight 1 adds.
    """
    own = result.parameters
    rows = {name: row for row, name in enumerate(result.timestep_id) if name in morphs and row > 0}
    return {
        name: {key: [round(float(x), 6) for x in own[key][row] - own[key][0]] for key in KEYS if key in own}
        for name, row in rows.items()
    }


def write_morphs(folder: Path, result: FitResult, morphs: Sequence[str]) -> Path:
    """Writes `morph_expressions.json`."""
    path = folder / MORPHS_NAME
    found: dict[str, Any] = morph_expressions(result, morphs)
    lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in found.items()]
    with atomic_write(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path
