"""`detect`: face landmarks in the pictures of a capture."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.folders import capture_folder, locked_folder
from flame_fitting.manifest import Manifest, config_as_dict, input_record, read_manifest
from flame_fitting.options import PLACE, own_first
from flame_fitting.shared_options import DetectorOptions, SubsetOptions

if TYPE_CHECKING:
    from flame_fitting.capture.capture import Capture, View
    from flame_fitting.capture.read_options import ReadOptions
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

    path: Path
    """The landmark file."""
    searched: int
    """Views searched."""
    found: int
    """Views with a face."""
    warnings: list[str] = field(default_factory=list)


def detect(config: DetectConfig, manifest: Manifest | None = None) -> DetectResult:
    """Searches the pictures and writes `landmarks2d/<detector>.npz`; raises NoFaceError if none has a face.

    What an earlier run found in other views stays; a run that was stopped goes on. `manifest` is the `plan` of this
    very moment, where the caller has it.
    """
    from flame_fitting import progress
    from flame_fitting.capture.opening import open_capture
    from flame_fitting.landmarks.files import read_landmarks, write_landmarks
    from flame_fitting.landmarks.registry import make_detector
    from flame_fitting.landmarks.searching import nothing_found, search, take_earlier

    config = replace(config, capture=capture_folder(config.capture))
    with progress.stage("detect") as line:
        manifest = manifest or plan(config)
        capture = open_capture(config.capture, _reading(config), notify=progress.say)
        views = views_to_search(capture, config.all_views)
        with locked_folder(capture.root / LANDMARK_FOLDER, force=True) as folder:
            detector = make_detector(config.detector, config.model_path)
            made, earlier = nothing_found(capture, detector), read_manifest(folder)
            left = take_earlier(capture, made, views, unfinished=earlier is not None and not earlier.finished)

            def keep() -> None:
                manifest.write(folder)
                write_landmarks(capture, made)

            with progress.Bar(len(views), "detect", "view") as bar:
                bar.advance(len(views) - len(left))
                search(capture, left, detector, made, bar.advance, keep)
            found = sum(bool(made.found[capture.row_of[v.timestep], capture.column_of[v.camera]]) for v in views)
            if found == 0:
                raise NoFaceError(_no_face(config, capture, len(views)))
            warnings = manifest.finish(lambda: plan(config))
            path = write_landmarks(capture, made)
            manifest.write(folder)
        line.result(f"a face in {found} of {len(views)} views -> {path}")
    warnings += _of_cameras(capture, read_landmarks(capture, detector.name))
    for text in warnings:
        progress.warn(text)
    return DetectResult(path, len(views), found, warnings)


def plan(config: DetectConfig) -> Manifest:
    """What decides the result, for the manifest beside the landmark file."""
    from flame_fitting.capture.hashing import capture_hash
    from flame_fitting.landmarks.registry import make_detector

    folder = config.capture / LANDMARK_FOLDER
    detector = make_detector(config.detector, config.model_path)
    return Manifest(
        stage="detect",
        config=config_as_dict(config),
        inputs={"capture": input_record(config.capture, folder, capture_hash(config.capture, _reading(config)))},
        detector=f"{detector.name} {detector.version}",
    )


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


def _of_cameras(capture: "Capture", found: "Landmarks2D") -> list[str]:
    """What is wrong with the cameras, as far as these landmarks tell."""
    from flame_fitting.landmarks.camera_check import check_capture, is_checked

    message = check_capture(capture, found).message(str(capture.root)) if is_checked(capture) else None
    return [] if message is None else [message]


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("detect")
