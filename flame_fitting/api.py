"""The Python API: one call from an avatar file to a fitted head."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_fitting import progress

if TYPE_CHECKING:
    from flame_fitting.fit.result import FitResult


def fit_head(path: str | Path, output: str | Path | None = None, *, show: bool = False, **options: Any) -> "FitResult":
    """Fits a head model to a static avatar: render, detect, fit, evaluate, and export where `output` is given.

    Args:
        path: avatar file (.glb .vrm .gltf .obj .ply .stl .off .splat .spz), any unit, any axes.
        output: folder for everything that the command `run` writes; stages in it that are still valid are reused. None:
            a new temporary folder, `result.folder` says where.
        show: prints progress and the table of errors.
        **options: fields of `flame_fitting.run_pipeline.RunConfig`, e.g. `head`, `views`, `resolution`, `photometric`.

    Returns:
        The fit: `parameters` (radians, metres), `head_from_world` (4, 4), `texture`, `metrics`, `warnings`, `folder`.

    Raises:
        InputError: the avatar cannot be read or has no face; the message says what to do.
    """
    from flame_fitting.fit.result import load_fit
    from flame_fitting.run_pipeline import RunConfig, run

    known = {field.name for field in dataclasses.fields(RunConfig)} - {"avatar", "output"}
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"fit_head has no option {', '.join(unknown)}. Its options are: {', '.join(sorted(known))}.")
    export = output is not None
    folder = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="flame-fitting-"))
    with progress.silent(not show):
        finished = run(RunConfig(avatar=Path(path), output=folder, **options), export=export)
    result = load_fit(folder / "fit")
    result.metrics = finished.metrics
    result.warnings = finished.warnings
    return result
