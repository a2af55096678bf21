"""Which landmark detectors there are. A new one is a file with a `LandmarkDetector` and one entry in `_ALL`."""

import importlib.util
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.shared_options import AUTO_DETECTOR, BOTH_DETECTORS, DetectorWeights


@dataclass(frozen=True)
class Settings:
    """What a detector is made with."""

    path: Path | None = None
    """Its weights; None: those that come with its package or are found."""
    device: str = "auto"
    """Where a torch network runs."""
    half: bool = False
    """Whether in half precision."""
    log_file: Path | str | None = None
    """What native libraries print into; None: as they like."""


@dataclass(frozen=True)
class _Entry:
    make: Callable[[Settings], LandmarkDetector]
    option: str
    """Field of `DetectorWeights` that names the weights."""
    is_ready: Callable[[Path | None], bool]
    """Whether package and weights are there, without a download; InputError where what was named is not."""


def _mediapipe(settings: Settings) -> LandmarkDetector:
    from flame_fitting.landmarks.mediapipe_detector import MediaPipeDetector

    return MediaPipeDetector(settings.path, log_file=settings.log_file)


def _star(settings: Settings) -> LandmarkDetector:
    from flame_fitting.landmarks.star_detector import StarDetector

    return StarDetector(settings.path, settings.device, settings.half)


def _face_alignment(settings: Settings) -> LandmarkDetector:
    from flame_fitting.landmarks.face_alignment_detector import FaceAlignmentDetector

    return FaceAlignmentDetector(settings.path, settings.device, settings.half)


def _dlib(settings: Settings) -> LandmarkDetector:
    from flame_fitting.landmarks.dlib_detector import DlibDetector

    return DlibDetector(settings.path)


def _star_is_ready(path: Path | None) -> bool:
    from flame_fitting.landmarks.star_weights import WEIGHTS
    from flame_fitting.landmarks.weights import find_weights

    return find_weights(WEIGHTS, path) is not None


def _face_alignment_is_ready(path: Path | None) -> bool:
    if importlib.util.find_spec("face_alignment") is None:
        return False
    from flame_fitting.landmarks.face_alignment_detector import find_network

    return find_network(path) is not None


def _dlib_is_ready(path: Path | None) -> bool:
    if importlib.util.find_spec("dlib") is None:
        return False
    from flame_fitting.landmarks.dlib_detector import find_dlib_weights

    return find_dlib_weights(path) is not None


_ALL = {
    "mediapipe": _Entry(_mediapipe, "model_path", lambda path: True),
    "star": _Entry(_star, "star_weights", _star_is_ready),
    "face-alignment": _Entry(_face_alignment, "face_alignment_weights", _face_alignment_is_ready),
    "dlib": _Entry(_dlib, "dlib_weights", _dlib_is_ready),
}
DETECTORS = tuple(_ALL)
"""Names of the detectors; the first one always works, and is the default."""


def make_detector(name: str = DETECTORS[0], settings: Settings | None = None) -> LandmarkDetector:
    """The detector called `name`; InputError for an unknown name, and for weights or packages that are missing."""
    if name not in _ALL:
        choices = ", ".join((AUTO_DETECTOR, BOTH_DETECTORS, *DETECTORS))
        raise InputError(f"{name}: no such landmark detector. Use one of: {choices}.")
    return _ALL[name].make(settings or Settings())


def settings_of(name: str, weights: DetectorWeights) -> Settings:
    """What options say of a detector; of a name that is none: nothing."""
    path = getattr(weights, _ALL[name].option) if name in _ALL else None
    return Settings(path, weights.detector_device, weights.detector_half)


def named_weights(name: str, weights: DetectorWeights) -> bool:
    """Whether options name the weights of a detector."""
    return settings_of(name, weights).path is not None


def is_ready(name: str, weights: DetectorWeights | None = None) -> bool:
    """Whether a detector can be made now, without a download."""
    return _ALL[name].is_ready(settings_of(name, weights).path if weights is not None else None)


@dataclass(frozen=True)
class Chosen:
    """Which detectors are used."""

    names: tuple[str, ...]
    why: str = ""
    """What the user is told of a choice that is not theirs; empty where it is."""


def choose_detectors(
    asked: Sequence[str],
    weights: DetectorWeights,
    tracking: bool = False,
    present: Collection[str] = (),
) -> Chosen:
    """The detectors that names stand for.

    auto: mediapipe, and for `tracking` star where its weights or its landmarks are, as VHAP. both: all that are ready,
    which have to be two at least. `present` names the landmarks that the capture has. Other names stay as they are.
    """
    names = tuple(asked)
    if (AUTO_DETECTOR in names or BOTH_DETECTORS in names) and len(names) > 1:
        raise InputError(f"{' '.join(names)}: {AUTO_DETECTOR} and {BOTH_DETECTORS} stand alone. Name the detectors.")
    if names == (AUTO_DETECTOR,):
        return _default(weights, tracking, {name.lower() for name in present})
    if names != (BOTH_DETECTORS,):
        return Chosen(names)
    there = {name.lower() for name in present}
    found = tuple(name for name in DETECTORS if name in there or is_ready(name, weights))
    if len(found) < 2:
        from flame_fitting.landmarks.dlib_detector import INSTALL

        raise InputError(
            f"{BOTH_DETECTORS}: merges two landmark detectors or more, and only {found[0]} is there. Add one: {INSTALL}"
        )
    return Chosen(found, f"landmarks of {' and '.join(found)}, which are there")


def _default(weights: DetectorWeights, tracking: bool, present: Collection[str]) -> Chosen:
    first = DETECTORS[0]
    if not tracking:
        return Chosen((first,))
    if "star" in present or is_ready("star", weights):
        return Chosen(("star",), "landmarks of star, as in VHAP")
    from flame_fitting.landmarks.star_weights import WEIGHTS
    from flame_fitting.landmarks.weights import weight_folder

    place = weight_folder() / WEIGHTS.names[0]
    return Chosen(
        (first,), f"landmarks of {first}: the weights of STAR are not there ({place}, {WEIGHTS.megabytes} MB)"
    )


def version_now(name: str, weights: DetectorWeights) -> str | None:
    """The version of a detector as it would be made now; None where it cannot be made without a download."""
    if not is_ready(name, weights):
        return None
    return make_detector(name, settings_of(name, weights)).version
