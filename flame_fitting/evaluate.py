"""Stage `evaluate`: the numbers of a fit, as metrics.json, a table, pictures and report.html in the fit's folder."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.places import find_fit_folder
from flame_fitting.folders import capture_folder, fit_folder, locked_folder
from flame_fitting.manifest import Manifest, config_as_dict, input_record, read_manifest
from flame_fitting.options import PLACE, option, own_first, refusals
from flame_fitting.shared_options import FitSources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flame_fitting.avatar.interface import Avatar
    from flame_fitting.capture.capture import Capture
    from flame_fitting.fit.result import FitResult
    from flame_fitting.head.model import HeadModel
    from flame_fitting.report.truth import Truth

REPORT_FOLDER = "overlays"
"""Folder in a fit that holds the pictures and the manifest of `evaluate`."""


@own_first
@dataclass
class EvaluateConfig(FitSources):
    """Measures a fit."""

    fit: tyro.conf.Positional[Path] = field(metadata=PLACE)
    """Folder of a fit (or the folder above it: then its last child is taken)."""
    ground_truth: Path | None = option(None, reads="file or folder")
    """True head: an .npz file, or a folder that holds one, such as a demo avatar's."""
    avatar: Path | None = option(None, decides=False, reads="file")
    """Avatar file: distances are then measured to its own triangles, not to the capture's depth maps."""
    mm_per_unit: float | None = option(None, above=0)
    """True millimetres in one unit of the avatar, where they are known."""
    same_identity: Path | None = option(None, decides=False, reads="folder")
    """Folder of another fit of the same person. Then only how far the two neutral heads lie apart is told, weighted by
    area, after a rigid alignment without scale; no measure is written."""
    figures: bool = True
    """Draw overlays, error maps and report.html."""
    video: bool = True
    """Write overlay.mp4 of captures over time: picture, fit, and fitted mesh over the picture, side by side."""
    video_cameras: tuple[str, ...] = ()
    """Cameras that are followed, by name or number: overlay.mp4 is of the first one, overlay_<camera>.mp4 of the
    others. By default the one before the face and up to two beside it."""
    fps: float | None = option(None, above=0)
    """Pictures per second of the videos; None: as they were recorded."""


@dataclass
class Evaluation:
    """What `evaluate` found."""

    folder: Path
    metrics: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def evaluate(config: EvaluateConfig, manifest: Manifest | None = None) -> Evaluation:
    """Measures the fit, writes its report and prints the table.

    `manifest` is the `plan` of this very moment, where the caller has it.
    """
    for problem in refusals(config):
        raise InputError(problem)
    config = replace(config, fit=fit_folder(config.fit))
    find_fit_folder(config.fit)
    if config.same_identity is not None:
        return _compared(config, fit_folder(config.same_identity))
    if config.capture_folder is not None:
        config.capture_folder = capture_folder(config.capture_folder)

    from flame_fitting.avatar.loading import load_avatar
    from flame_fitting.fit.sources import open_fit
    from flame_fitting.report.tables import metrics_table
    from flame_fitting.report.truth import load_truth

    with progress.stage("evaluate") as line:
        manifest = manifest or plan(config)
        fit, head, capture = open_fit(
            config.fit, config.capture_folder, config.head, config.flame_dir, config.flame_masks
        )
        folder = fit.folder or config.fit
        truth = load_truth(config.ground_truth, head) if config.ground_truth is not None else None
        if config.ground_truth is not None and truth is None:
            progress.warn(
                f"{config.ground_truth}: another topology than the fitted head, not compared vertex by vertex."
            )
        avatar = load_avatar(config.avatar, head=lambda: head) if config.avatar is not None else None
        with locked_folder(folder, force=True):
            video = VideoOptions(config.video_cameras, config.fps) if config.video else None
            metrics = evaluate_in_place(fit, head, capture, config.figures, avatar, truth, config.mm_per_unit, video)
            changed = manifest.finish(lambda: plan(config))
            (folder / REPORT_FOLDER).mkdir(exist_ok=True)
            manifest.write(folder / REPORT_FOLDER)
        line.result(str(folder / ("report.html" if config.figures else "metrics.json")))
    progress.result(metrics_table(metrics))
    warnings = [*metrics["warnings"], *changed]
    for text in warnings:
        progress.warn(text)
    return Evaluation(folder, metrics, warnings)


def _compared(config: EvaluateConfig, other: Path) -> Evaluation:
    """The neutral heads of two fits side by side."""
    from flame_fitting.fit.sources import open_fit_and_head
    from flame_fitting.report.same_identity import agreement, agreement_table, neutral_vertices

    where = (config.head, config.flame_dir, config.flame_masks)
    (one, head), (two, of_two) = (open_fit_and_head(folder, *where) for folder in (other, config.fit))
    if head.identity != of_two.identity:
        raise InputError(
            f"{config.fit}: was fitted with another head model than {other} ({of_two.name}, {head.name}); their "
            "vertices cannot be compared. Fit both with the same --head."
        )
    found = agreement(head, *(neutral_vertices(fit, head) for fit in (one, two)))
    progress.result(agreement_table(found))
    return Evaluation(config.fit, {"same_identity": found})


@dataclass(frozen=True)
class VideoOptions:
    """How overlay.mp4 is made."""

    cameras: tuple[str, ...] = ()
    fps: float | None = None


def evaluate_in_place(
    fit: "FitResult",
    head: "HeadModel",
    capture: "Capture",
    figures: bool = True,
    avatar: "Avatar | None" = None,
    truth: "Truth | None" = None,
    mm_per_unit: float | None = None,
    video: VideoOptions | None = None,
) -> dict[str, Any]:
    """Measures a fit and writes metrics.json, overlays/ and report.html into its folder; returns the metrics.

    With `video`, of a capture over time overlay.mp4, too.
    """
    from contextlib import contextmanager

    from flame_fitting.report.metrics import Workings, evaluate_fit
    from flame_fitting.report.overlay_video import OverlayVideos
    from flame_fitting.report.pictures import Watch
    from flame_fitting.report.writing import write_metrics, write_report
    from flame_fitting.video.rates import pictures_per_second

    assert fit.folder is not None
    folder, started = fit.folder, time.perf_counter()
    workings, videos = Workings(), list[Path]()

    @contextmanager
    def filming(workings: Workings) -> "Iterator[Watch]":
        chosen, over_time = workings.chosen, workings.over_time
        assert video is not None and over_time is not None
        fps = video.fps or pictures_per_second(capture.root, chosen.timesteps)
        with OverlayVideos(folder, capture, chosen, fps, over_time.mark) as written:
            yield written.add
        videos.extend(written.paths.values())

    metrics = evaluate_fit(
        fit,
        capture,
        head,
        avatar,
        truth,
        mm_per_unit,
        workings=workings,
        cameras=video.cameras if video is not None else (),
        watching=filming if video is not None and len(capture.timesteps) > 1 and capture.ordered else None,
    )
    if figures:
        write_report(folder, fit, capture, head, metrics, workings, truth, videos)
    metrics["seconds"]["evaluate"] = time.perf_counter() - started
    write_metrics(folder, metrics)
    return metrics


def plan(config: EvaluateConfig) -> Manifest:
    """What decides the result, for the manifest in the fit's folder `overlays`."""
    from flame_fitting.avatar.files_of import hash_avatar
    from flame_fitting.fit.sources import capture_input_record, fit_input_record

    folder = find_fit_folder(config.fit)
    output = folder / REPORT_FOLDER
    made = read_manifest(folder)
    inputs = {
        "fit": fit_input_record(folder, output),
        "capture": capture_input_record(folder, config.capture_folder, output),
    }
    if config.ground_truth is not None:
        inputs["ground_truth"] = input_record(config.ground_truth, output)
    if config.avatar is not None:
        inputs["avatar"] = input_record(config.avatar, output, hash_avatar(config.avatar))
    return Manifest(
        stage="evaluate",
        config=config_as_dict(config),
        inputs=inputs,
        head=made.head if made is not None else None,
        detector=made.detector if made is not None else None,
    )


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("evaluate")
