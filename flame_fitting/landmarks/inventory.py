"""Which files of landmark detectors are on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.landmarks import dlib_detector, face_alignment_detector, star_weights
from flame_fitting.landmarks.mediapipe_detector import find_model
from flame_fitting.landmarks.weights import find_weights, weight_folder

State = Literal["ok", "missing", "optional"]


def detector_files(install_again: str) -> Iterator[tuple[str, State, str, str]]:
    """For each file: what it is, whether it is there, where or what is missing, and what mends that.

    MediaPipe's comes with this program: it must be there, and `install_again` mends it.
    """
    try:
        path = find_model()
        yield "detector model", "ok", f"MediaPipe Face Landmarker, {path} ({_hash(path)})", ""
    except InputError as error:
        yield "detector model", "missing", str(error), install_again
    for name, file, find in (
        ("STAR weights", star_weights.WEIGHTS, lambda: find_weights(star_weights.WEIGHTS)),
        ("face-alignment weights", face_alignment_detector.WEIGHTS, face_alignment_detector.find_network),
        ("dlib weights", dlib_detector.WEIGHTS, dlib_detector.find_dlib_weights),
    ):
        try:
            found = find()
        except InputError as error:
            yield name, "optional", str(error), f"mend or unset {file.variable}"
            continue
        if found is not None:
            yield name, "ok", f"{found} ({_hash(found)})", ""
        else:
            text = f"not there: {file.names[0]}, about {file.megabytes} MB"
            yield name, "optional", text, f"put it into {weight_folder()}, or {file.option}"


def _hash(path: Path) -> str:
    try:
        return sha256_of_file(path)[:12]
    except OSError as error:
        return f"unreadable: {error.strerror}"
