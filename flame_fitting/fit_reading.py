"""What `fit` and `track` read: a capture's folder, how it is read, and its landmarks, detected where there are none."""

from dataclasses import replace
from typing import TYPE_CHECKING

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.folders import capture_folder
from flame_fitting.options import values_of
from flame_fitting.shared_options import AUTO_DETECTOR, BOTH_DETECTORS, DetectorWeights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flame_fitting.capture.capture import Capture
    from flame_fitting.capture.read_options import ReadOptions
    from flame_fitting.landmarks.files import Landmarks2D


def capture_of(config: FitConfig) -> "Path":
    """The folder of the capture: as given, or where VHAP's flags name it, below its root folder."""
    data = config.data
    if data.root_folder is None or config.capture != data.root_folder / data.subject / data.sequence:
        return capture_folder(config.capture)
    from flame_fitting.capture.opening import find_sequence

    if not data.sequence and not data.subject:
        return capture_folder(data.root_folder)
    return find_sequence(data.root_folder, data.subject, data.sequence)


def reading_options(config: FitConfig) -> "ReadOptions":
    """How the capture is read. Pictures that geometry belongs to keep their size, and Adam's stages reduce them."""
    from flame_fitting.capture.opening import kind_of
    from flame_fitting.capture.read_options import read_options

    options = read_options(config.data)
    return replace(options, n_downsample_rgb=None) if kind_of(config.capture) == "capture" else options


def chosen_sources(config: FitConfig, notify: "Callable[[str], None] | None" = None) -> FitConfig:
    """The configuration with the landmark sources that auto or both stand for."""
    from flame_fitting.capture.opening import open_capture
    from flame_fitting.landmarks.files import landmark_names
    from flame_fitting.landmarks.registry import choose_detectors

    asked = config.data.landmark_source
    present = []
    if asked == (BOTH_DETECTORS,) or (config.over_time and asked == (AUTO_DETECTOR,)):
        present = landmark_names(open_capture(config.capture, reading_options(config)))
    chosen = choose_detectors(asked, config, tracking=config.over_time, present=present)
    if notify is not None and chosen.why:
        notify(chosen.why)
    if chosen.names == asked:
        return config
    return replace(config, data=replace(config.data, landmark_source=chosen.names))


def with_landmarks(config: FitConfig) -> FitConfig:
    """The configuration, with landmarks in its capture: detected now where they are missing or wanted anew.

    They are wanted anew, too, where a detector has other weights or settings now than they were detected with.
    Refuses a capture over time or of unknown cameras where that is not what is fitted, flags about timesteps and
    cameras that the capture contradicts, and cameras that do not fit the landmarks.
    """
    from flame_fitting.capture.opening import open_capture
    from flame_fitting.fit.keyframes import check_keyframes

    capture = open_capture(config.capture, reading_options(config))
    if len(capture.timesteps) > 1 and not capture.moments and not config.over_time:
        raise InputError(
            f"{config.capture}: has {len(capture.timesteps)} timesteps; a fit takes captures of one moment. "
            "Give a capture with one timestep, choose one with --data.subset ti<number>, or use: flame-fitting track"
        )
    if capture.moments and config.over_time:
        raise InputError(
            f"{config.capture}: its timesteps are moments in no order, which nothing leads from one to the next. "
            f"Use: flame-fitting fit {config.capture}"
        )
    if not capture.calibrated and not config.over_time:
        raise InputError(
            f"{config.capture}: is a video, of whose camera nothing is known; a fit takes pictures with known cameras. "
            "Give a folder with transforms.json, of NeRSemble or of COLMAP, or use: flame-fitting track"
        )
    if config.over_time:
        if capture.calibrated and not config.data.calibrated:
            raise InputError(
                f"--data.no-calibrated: the cameras of {config.capture} are known and stay as they are. "
                "Leave the flag out."
            )
        check_keyframes(config.exp.keyframes, len(capture.timesteps))
    config = chosen_sources(config)
    detected = [_detected(config, capture, name) for name in config.data.landmark_source]
    return replace(config, exp=replace(config.exp, reuse_landmarks=True)) if any(detected) else config


def _detected(config: FitConfig, capture: "Capture", name: str) -> bool:
    """Detects what is missing of one detector, or wanted anew; says whether anything was. Checks the cameras by it."""
    from flame_fitting.detect_landmarks import DetectConfig, detect, views_to_search
    from flame_fitting.landmarks.files import find_landmarks, landmarks_path, read_landmarks
    from flame_fitting.landmarks.registry import DETECTORS, version_now

    path = find_landmarks(capture, name)
    if path is not None and (config.exp.reuse_landmarks or name not in DETECTORS):
        found = read_landmarks(capture, name)
        now = version_now(name, config) if found.made_here else None
        if now is not None and found.detector_version != now:
            progress.say(f"{path}: was detected with {found.detector_version}, {name} is {now} now")
        elif found.covers(capture, views_to_search(capture)):
            _check_cameras(capture, found)
            return False
    missing = landmarks_path(config.capture, name)
    if name not in DETECTORS and path is None:
        raise InputError(
            f"{missing}: no such file. Put landmarks of your own there, or leave --data.landmark-source out."
        )
    if not config.detect:
        raise InputError(f"{missing}: no landmarks there. Run: flame-fitting detect {config.capture}")
    options = reading_options(config)
    detect(
        DetectConfig(
            config.capture,
            detector=name,
            **values_of(config, DetectorWeights),
            subset=options.subset,
            division=options.division,
            n_downsample_rgb=options.n_downsample_rgb,
        )
    )
    _check_cameras(capture, read_landmarks(capture, name))
    return True


def _check_cameras(capture: "Capture", found: "Landmarks2D") -> None:
    """Refuses cameras that would fit the landmarks by another convention; warns of those that fit by none."""
    from flame_fitting.landmarks.camera_check import check_capture, is_checked

    if not is_checked(capture):
        return
    report = check_capture(capture, found)
    message = report.message(str(capture.root))
    if message is not None and report.fitting:
        raise InputError(message)
    if message is not None:
        progress.warn(message)
