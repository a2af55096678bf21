"""Exports as the stage makes them, without its command line."""

from pathlib import Path
from typing import Any

from flame_fitting import progress
from flame_fitting.capture.capture import Capture
from flame_fitting.export.formats import FORMATS
from flame_fitting.export.job import ExportJob, ExportSummary
from flame_fitting.export.options import FormatOptions
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import Manifest


def exported(
    fit: FitResult,
    capture: Capture,
    head: HeadModel,
    target: Path,
    force: bool = False,
    plans: tuple[Manifest, Manifest] | None = None,
    **options: Any,
) -> ExportSummary:
    """Writes a fit with the `options` of its format; `plans` are the manifests before and after."""
    given = FormatOptions(**options)
    before, after = plans or (Manifest(stage="export"), Manifest(stage="export"))
    with progress.Bar(None, "export", "view") as bar:
        job = ExportJob(fit, head, capture, target, given, before, plan=lambda: after, bar=bar, force=force)
        return FORMATS[given.format].write(job)
