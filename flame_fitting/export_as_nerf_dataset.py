"""Stage `export`: a fit becomes a NeRF-style dataset in the layout of VHAP and GaussianAvatars."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.folders import capture_folder, fit_folder, locked_folder
from flame_fitting.options import PLACE, option, own_first, refusals
from flame_fitting.shared_options import FitSources, OutputOptions

if TYPE_CHECKING:
    from flame_fitting.export.nerf_dataset import ExportSummary
    from flame_fitting.manifest import Manifest

WHITE = (1.0, 1.0, 1.0)
"""Behind the head where a picture still has the background it was taken with."""


@own_first
@dataclass
class ExportConfig(FitSources, OutputOptions):
    """Writes a fit as a NeRF-style dataset."""

    src_folder: Path = field(metadata=PLACE)
    """Folder of a fit, or of a run of VHAP (or the folder above it: then its last child is taken)."""
    tgt_folder: Path = field(metadata=PLACE)
    """Folder to write the dataset to."""
    background_color: str | None = None
    """Background: white, black or three numbers from 0 to 255 as r,g,b. Default: that of the capture, else white."""
    subset: str | None = None
    """Part of the capture: ti<a>[tj<b>], tn<k>, ts<k> for timesteps, ci<a>, cn<k>, cs<k> for cameras, as in VHAP."""
    scale_factor: float | None = option(None, above=0, at_most=1)
    """Scales the pictures down, above 0 and at most 1."""
    flame_mode: Literal["param", "mesh"] = "param"
    """What is written for every timestep: parameters (flame_param/) or a mesh (meshes/)."""
    mask_below_line: bool = True
    """Cut pictures and masks below the neck: one surface in space for all views of a timestep."""
    create_mask_from_mesh: bool = True
    """VHAP's name for the same; the cut is made where both are on."""
    epoch: int = -1
    """Which saved state of the fit to export, -1 for the last; any other is added to the folder's name."""
    landmark_views: bool = False
    """Also export the views that were made for landmark detection, for training."""
    train_ratio: float = option(0.7, above=0, at_most=1)
    """Several timesteps: part of them, from the first, that train and validate; the rest tests."""
    val_camera: str | None = None
    """Several timesteps: camera that validates, by its name or index, or none (default: VHAP's, 8, else the last)."""
    recenter: bool = True
    """Several timesteps: the mean of the head's translations becomes the origin, as in VHAP."""


def export(config: ExportConfig, manifest: "Manifest | None" = None) -> "ExportSummary":
    """Writes the dataset and says where it opens.

    `manifest` is the `plan` of this very moment, where the caller has it.
    """
    from flame_fitting.export.nerf_dataset import ExportOptions, export_nerf_dataset
    from flame_fitting.fit.sources import open_fit

    config = replace(config, src_folder=fit_folder(config.src_folder))
    if config.capture_folder is not None:
        config.capture_folder = capture_folder(config.capture_folder)
    for refused in refusals(config):
        raise InputError(refused)
    target = config.tgt_folder
    if config.epoch >= 0:
        target = target.with_name(f"{target.name}_epoch{config.epoch}")
    with progress.stage("export") as line, locked_folder(target, config.force, "export", _read_of(config)):
        color = _background(config.background_color)
        options = ExportOptions(
            background_color=color,
            subset=config.subset,
            scale_factor=config.scale_factor,
            flame_mode=config.flame_mode,
            mask_below_line=config.mask_below_line and config.create_mask_from_mesh,
            landmark_views=config.landmark_views,
            train_ratio=config.train_ratio,
            val_camera=config.val_camera,
            recenter=config.recenter,
        )
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
        with progress.Bar(len(capture.views_of("fit", "heldout")), "export", "view") as bar:
            summary = export_nerf_dataset(
                fit,
                capture,
                head,
                target,
                options,
                config.force,
                manifest,
                lambda done, total: bar.advance(),
                lambda: plan(config),
            )
        counts = ", ".join(f"{count} {split}" for split, count in summary.counts.items())
        line.result(f"{counts} views in {summary.folder}")
    progress.say(summary.opens_in)
    for text in summary.warnings:
        progress.warn(text)
    return summary


def _read_of(config: ExportConfig) -> tuple[Path, Path]:
    """The folders of the fit and of its capture."""
    from flame_fitting.fit.result import find_fit_folder
    from flame_fitting.fit.sources import find_capture

    folder = find_fit_folder(config.src_folder)
    return folder, config.capture_folder or find_capture(folder)


def plan(config: ExportConfig) -> "Manifest":
    """What decides the result."""
    from flame_fitting.fit.result import find_fit_folder
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


def _background(text: str | None) -> tuple[float, float, float] | None:
    """The colour behind the avatar; None, also by name, keeps the capture's."""
    from flame_fitting.capture.pictures import parse_color

    return None if text is None or text.lower() == "none" else parse_color(text, "--background-color")


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("export")
