"""Stage `export`: a fit becomes what other programs read, by default the dataset of VHAP and GaussianAvatars."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.export.formats import FORMATS, options_without_meaning
from flame_fitting.export.options import FormatOptions
from flame_fitting.fit.places import find_fit_folder
from flame_fitting.folders import capture_folder, fit_folder, locked_folder
from flame_fitting.options import PLACE, own_first, refusals
from flame_fitting.shared_options import FitSources, OutputOptions

if TYPE_CHECKING:
    from flame_fitting.export.job import ExportSummary
    from flame_fitting.manifest import Manifest

WHITE = (1.0, 1.0, 1.0)
"""Behind the head where a picture still has the background it was taken with."""


@own_first
@dataclass
class ExportConfig(FormatOptions, FitSources, OutputOptions):
    """Writes a fit as a dataset, a mesh or another format."""

    src_folder: Path = field(metadata=PLACE)
    """Folder of a fit, or of a run of VHAP (or the folder above it: then its last child is taken)."""
    tgt_folder: Path = field(metadata=PLACE)
    """Folder to write to."""
    epoch: int = -1
    """Which saved state of the fit to export, -1 for the last; any other is added to the folder's name."""


def export(config: ExportConfig, manifest: "Manifest | None" = None) -> "ExportSummary":
    """Writes the export and says where it opens.

    `manifest` is the `plan` of this very moment, where the caller has it.
    """
    for refused in (*refusals(config), *options_without_meaning(config)):
        raise InputError(refused)
    config = replace(config, src_folder=fit_folder(config.src_folder))
    find_fit_folder(config.src_folder)
    if config.capture_folder is not None:
        config.capture_folder = capture_folder(config.capture_folder)

    from flame_fitting.export.frame_pictures import background
    from flame_fitting.export.job import ExportJob
    from flame_fitting.fit.sources import open_fit

    color = background(config.background_color)
    target, chosen = config.tgt_folder, FORMATS[config.format]
    if config.epoch >= 0:
        target = target.with_name(f"{target.name}_epoch{config.epoch}")
    chosen.check(config, target)
    with progress.stage("export") as line, locked_folder(target, config.force, "export", _read_of(config)):
        _check_format(target, config.format)
        manifest = manifest or plan(config)
        fit, head, capture = open_fit(
            config.src_folder,
            config.capture_folder,
            config.head,
            config.flame_dir,
            config.flame_masks,
            config.epoch,
            color or WHITE,
        )
        with progress.Bar(None, "export", chosen.unit) as bar:
            job = ExportJob(
                fit, head, capture, target, config, manifest, plan=lambda: plan(config), bar=bar, force=config.force
            )
            summary = chosen.write(job)
        line.result(f"{summary.written} in {summary.folder}")
    progress.say(summary.opens_in)
    for text in summary.warnings:
        progress.warn(text)
    return summary


def _check_format(target: Path, wanted: str) -> None:
    """Refuses a folder that holds an export in another format: readers tell formats by the files they find."""
    from flame_fitting.manifest import read_manifest

    made = read_manifest(target)
    if made is not None and made.stage == "export" and (found := made.config.get("format", "vhap")) != wanted:
        raise InputError(
            f"{target}: holds an export in format {found}, and {wanted} beside it would mislead programs that read "
            "either. Choose another folder."
        )


def _read_of(config: ExportConfig) -> tuple[Path, Path]:
    """The folders of the fit and of its capture."""
    from flame_fitting.fit.sources import find_capture

    folder = find_fit_folder(config.src_folder)
    return folder, config.capture_folder or find_capture(folder)


def plan(config: ExportConfig) -> "Manifest":
    """What decides the result."""
    from flame_fitting.fit.sources import capture_input_record, fit_input_record
    from flame_fitting.manifest import Manifest, config_as_dict, read_manifest

    fit_folder = find_fit_folder(config.src_folder)
    made = read_manifest(fit_folder)
    return Manifest(
        stage="export",
        config=config_as_dict(config),
        inputs={
            "fit": fit_input_record(fit_folder, config.tgt_folder),
            "capture": capture_input_record(fit_folder, config.capture_folder, config.tgt_folder),
        },
        head=made.head if made is not None else None,
    )


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("export")
