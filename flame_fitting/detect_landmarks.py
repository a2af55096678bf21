"""`detect`: face landmarks in the pictures of a capture."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.folders import capture_folder, locked_folder
from flame_fitting.manifest import Manifest, config_as_dict, input_record, read_manifest
from flame_fitting.options import PLACE, own_first, refusals
from flame_fitting.shared_options import DetectorOptions, SubsetOptions

if TYPE_CHECKING:
    from flame_fitting.capture.capture import Capture, View
    from flame_fitting.capture.read_options import ReadOptions
    from flame_fitting.landmarks.detector import LandmarkDetector
    from flame_fitting.landmarks.files import Landmarks2D

LANDMARK_FOLDER = "landmarks2d"


@own_first
@dataclass
class DetectConfig(DetectorOptions, SubsetOptions):
    """Detects face landmarks in the pictures of a capture, a video's frames or a recording."""

    capture: tyro.conf.Positional[Path] = field(metadata=PLACE)
    """Folder of the capture; gets landmarks2d/<detector>.npz."""
    all_views: bool = False
    """Search every view, not only those that were rendered for landmarks."""


@dataclass
class DetectResult:
    """What was found."""

    paths: tuple[Path, ...]
    """The landmark files, one of each detector."""
    searched: int
    """Views searched."""
    found: int
    """Views in which some detector found a face."""
    warnings: list[str] = field(default_factory=list)


def detect(config: DetectConfig, manifest: Manifest | None = None) -> DetectResult:
    """Searches the pictures and writes `landmarks2d/<detector>.npz`; raises NoFaceError if none has a face.

    `landmarks2d/overlays/<camera>.png` shows what was found; views that others contradict are listed as warnings.

    What an earlier run found in other views stays; a run that was stopped goes on. `manifest` is the `plan` of this
    very moment, where the caller has it.
    """
    config = replace(config, capture=capture_folder(config.capture))
    for problem in refusals(config):
        raise InputError(problem)

    from flame_fitting import progress
    from flame_fitting.capture.opening import open_capture
    from flame_fitting.landmarks.files import read_landmarks
    from flame_fitting.landmarks.searching import position

    with progress.stage("detect") as line:
        manifest = manifest or plan(config)
        capture = open_capture(config.capture, _reading(config), notify=progress.say)
        views = views_to_search(capture, config.all_views)
        detectors = _detectors(config, capture, progress.say)
        with locked_folder(capture.root / LANDMARK_FOLDER, force=True) as folder:
            made = [_searched(detector, capture, views, manifest, folder) for detector in detectors]
            seen = [[bool(one.found[position(capture, view)]) for view in views] for one in made]
            found = sum(map(any, zip(*seen, strict=True)))
            if found == 0:
                raise NoFaceError(_no_face(config, capture, len(views)))
            warnings = manifest.finish(lambda: plan(config))
            paths = tuple(_written(capture, one) for one in made)
            warnings += _judged(capture, [one.detector for one in made], folder)
            manifest.write(folder)
        counts = [
            f"{one.detector} {one.detector_version}: a face in {sum(which)} of {len(views)} views -> {path}"
            for one, which, path in zip(made, seen, paths, strict=True)
        ]
        line.result("; ".join(counts))
    for one, which in zip(made, seen, strict=True):
        if not any(which):
            warnings.append(f"{one.detector} found no face in any of {len(views)} views")
        else:
            warnings += _of_cameras(capture, read_landmarks(capture, one.detector))
            warnings += _blind_cameras(one.detector, views, which)
    for text in warnings:
        progress.warn(text)
    return DetectResult(paths, len(views), found, warnings)


def plan(config: DetectConfig) -> Manifest:
    """What decides the result, for the manifest beside the landmark files."""
    from flame_fitting.capture.hashing import capture_hash
    from flame_fitting.capture.opening import open_capture

    folder = config.capture / LANDMARK_FOLDER
    detectors = _detectors(config, open_capture(config.capture, _reading(config)))
    return Manifest(
        stage="detect",
        config=config_as_dict(config),
        inputs={"capture": input_record(config.capture, folder, capture_hash(config.capture, _reading(config)))},
        detector=", ".join(f"{detector.name} {detector.version}" for detector in detectors),
    )


def _detectors(
    config: DetectConfig, capture: "Capture", notify: Callable[[str], None] | None = None
) -> "list[LandmarkDetector]":
    from flame_fitting.landmarks.registry import choose_detectors, make_detector, settings_of

    chosen = choose_detectors((config.detector,), config, tracking=len(capture.timestep_ids) > 1 and capture.ordered)
    if notify is not None and chosen.why:
        notify(chosen.why)
    return [make_detector(name, settings_of(name, config)) for name in chosen.names]


def _searched(
    detector: "LandmarkDetector", capture: "Capture", views: "list[View]", manifest: Manifest, folder: Path
) -> "Landmarks2D":
    """What a detector finds in the views, and what it found in others before."""
    from flame_fitting import progress, stopping
    from flame_fitting.landmarks.searching import nothing_found, search, take_earlier

    made, earlier = nothing_found(capture, detector), read_manifest(folder)
    left = take_earlier(capture, made, views, unfinished=earlier is not None and not earlier.finished)

    def keep() -> None:
        manifest.write(folder)
        _written(capture, made)

    def kept() -> str | None:
        left = read_manifest(folder)
        return "Landmarks that were found are kept." if left is not None and not left.finished else None

    with stopping.leaves(kept), progress.Bar(len(views), "detect", "view") as bar:
        bar.skip(len(views) - len(left))
        search(capture, left, detector, made, bar.advance, keep)
    if made.found.any():  # another detector may be next
        keep()
    return made


def _judged(capture: "Capture", names: list[str], folder: Path) -> list[str]:
    """Draws what all detectors found over one picture of each camera; says which views others contradict."""
    from flame_fitting.landmarks.capture_outliers import cameras_of, outliers_of, told
    from flame_fitting.landmarks.files import read_landmarks
    from flame_fitting.landmarks.overlays import FOLDER, draw_overlays

    found = [read_landmarks(capture, name) for name in names]
    cameras = cameras_of(capture)
    outliers = [outliers_of(capture, one, cameras) for one in found]
    draw_overlays(capture, found, folder / FOLDER, outliers)
    return [text for one, out in zip(found, outliers, strict=True) for text in told(capture, one.detector, out)]


def _written(capture: "Capture", made: "Landmarks2D") -> Path:
    from flame_fitting.landmarks.files import write_landmarks

    return write_landmarks(capture, made)


def views_to_search(capture: "Capture", all_views: bool = False) -> "list[View]":
    """The views rendered for landmarks; all but the held-out ones where a capture has none of those."""
    views = capture.views if all_views else capture.views_of("landmark") or capture.views_of("fit") or capture.views
    if not views:
        raise InputError(f"{capture.root}: the capture has no views. Render it again.")
    return list(views)


def _reading(config: DetectConfig) -> "ReadOptions":
    from flame_fitting.capture.read_options import ReadOptions

    return ReadOptions(
        subset=config.subset,
        division=config.division,
        n_downsample_rgb=config.n_downsample_rgb,
        use_alpha_map=False,
        prefix="--",
    )


def _no_face(config: DetectConfig, capture: "Capture", searched: int) -> str:
    rendered = capture.avatar.file is not None
    advice = "render the avatar again with another --shading" if rendered else "check that they show a face, upright"
    return f"{config.capture}: no face was found in any of {searched} views. Look at its pictures, and {advice}."


def _blind_cameras(detector: str, views: "list[View]", found: list[bool]) -> list[str]:
    """Says which cameras of a rig see no face at any time."""
    times: dict[str, list[bool]] = {}
    for view, one in zip(views, found, strict=True):
        times.setdefault(view.camera_id, []).append(one)
    blind = [camera for camera, seen in times.items() if len(seen) > 1 and not any(seen)]
    if not blind:
        return []
    return [
        f"{detector} found no face in any picture of camera {', '.join(blind)}: only landmarks of the others count. "
        "Check that its pictures show the face, upright"
    ]


def _of_cameras(capture: "Capture", found: "Landmarks2D") -> list[str]:
    """What is wrong with the cameras, as far as these landmarks tell."""
    from flame_fitting.landmarks.camera_check import check_capture, is_checked

    message = check_capture(capture, found).message(str(capture.root)) if is_checked(capture) else None
    return [] if message is None else [message]


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("detect")
