"""Which weights of landmark detectors are on this machine, for those that do not come with this program."""

from collections.abc import Iterator

from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.landmarks import dlib_detector, face_alignment_detector, star_detector
from flame_fitting.landmarks.weights import find_weights, weight_folder


def weights_here() -> Iterator[tuple[str, str, str]]:
    """For each file: what it is, where it lies or what is missing, and what mends that; nothing where it is there."""
    for name, file, find in (
        ("STAR weights", star_detector.WEIGHTS, lambda: find_weights(star_detector.WEIGHTS)),
        ("face-alignment weights", face_alignment_detector.WEIGHTS, face_alignment_detector.find_network),
        ("dlib weights", dlib_detector.WEIGHTS, dlib_detector.find_dlib_weights),
    ):
        try:
            path = find()
        except InputError as error:
            yield name, str(error), f"mend or unset {file.variable}"
            continue
        if path is not None:
            yield name, f"{path} ({sha256_of_file(path)[:16]})", ""
        else:
            text = f"not there: {file.names[0]}, about {file.megabytes} MB"
            yield name, text, f"put it into {weight_folder()}, or {file.option}"
