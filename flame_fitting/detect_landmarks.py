"""`detect`: face landmarks in the pictures of a capture."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.folders import capture_folder, locked_folder
from flame_fitting.manifest import Manifest, config_as_dict, hash_capture, input_record
from flame_fitting.options import PLACE, own_first
from flame_fitting.shared_options import DetectorOptions

if TYPE_CHECKING:
    import numpy as np

    from flame_fitting.capture.capture import Capture, View
    from flame_fitting.landmarks.detector import LandmarkDetector

LANDMARK_FOLDER = "landmarks2d"
_BATCH = 8


@own_first
@dataclass
class DetectConfig(DetectorOptions):
    """Detects face landmarks in the pictures of a capture."""

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

    `manifest` is the `plan` of this very moment, where the caller has it.
    """
    from flame_fitting import progress
    from flame_fitting.capture.files import read_capture
    from flame_fitting.landmarks.files import Landmarks2D, write_landmarks
    from flame_fitting.landmarks.registry import make_detector

    config = replace(config, capture=capture_folder(config.capture))
    with progress.stage("detect") as line:
        manifest = manifest or plan(config)
        capture = read_capture(config.capture)
        views = views_to_search(capture, config.all_views)
        with locked_folder(capture.root / LANDMARK_FOLDER, force=True) as folder:
            detector = make_detector(config.detector, config.model_path)
            landmarks = detect_views(capture, views, detector)
            found = _count_found(landmarks)
            if found == 0:
                raise NoFaceError(
                    f"{config.capture}: no face was found in any of {len(views)} views. Look at images/, and render "
                    "the avatar again with another --shading."
                )
            warnings = manifest.finish(lambda: plan(config))
            made = Landmarks2D(landmarks, detector.scheme, detector.name, detector.version)
            path = write_landmarks(capture.root, made)
            manifest.write(folder)
        line.result(f"a face in {found} of {len(views)} views -> {path}")
    for text in warnings:
        progress.warn(text)
    return DetectResult(path, len(views), found, warnings)


def plan(config: DetectConfig) -> Manifest:
    """What decides the result, for the manifest beside the landmark file."""
    from flame_fitting.landmarks.registry import make_detector

    folder = config.capture / LANDMARK_FOLDER
    detector = make_detector(config.detector, config.model_path)
    return Manifest(
        stage="detect",
        config=config_as_dict(config),
        inputs={"capture": input_record(config.capture, folder, hash_capture(config.capture))},
        detector=f"{detector.name} {detector.version}",
    )


def views_to_search(capture: "Capture", all_views: bool = False) -> "list[View]":
    """The views rendered for landmarks; all but the held-out ones where a capture has none of those."""
    views = capture.views if all_views else capture.views_of("landmark") or capture.views_of("fit") or capture.views
    if not views:
        raise InputError(f"{capture.root}: the capture has no views. Render it again.")
    return list(views)


def detect_views(capture: "Capture", views: "list[View]", detector: "LandmarkDetector") -> "np.ndarray":
    """Landmarks (T, C, N, 3) of the views; NaN where a view was not searched or has no face.

    T and C follow `capture.timesteps` and `capture.cameras`.
    """
    import numpy as np

    from flame_fitting import progress
    from flame_fitting.capture.pictures import picture_as_uint8

    timesteps = {timestep: i for i, timestep in enumerate(capture.timesteps)}
    cameras = {camera: i for i, camera in enumerate(capture.cameras)}
    landmarks = np.full((len(timesteps), len(cameras), detector.n_points, 3), np.nan, dtype=np.float32)
    with progress.Bar(len(views), "detect", "view") as bar:
        for batch in _batches(views):
            images = np.stack([picture_as_uint8(capture.image(view)) for view in batch])
            for view, points in zip(batch, detector.detect(images), strict=True):
                landmarks[timesteps[view.timestep], cameras[view.camera]] = points
            bar.advance(len(batch))
    return landmarks


def _batches(views: "list[View]") -> "list[list[View]]":
    """Views of one size, a few at a time."""
    batches: list[list[Any]] = []
    for view in views:
        last = batches[-1] if batches else None
        if last and len(last) < _BATCH and (last[0].width, last[0].height) == (view.width, view.height):
            last.append(view)
        else:
            batches.append([view])
    return batches


def _count_found(landmarks: "np.ndarray") -> int:
    import numpy as np

    return int(np.isfinite(landmarks[..., 0]).any(axis=-1).sum())


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("detect")
