"""Pictures of the empty background, one a camera."""

from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.video.sources import Sequence
from flame_fitting.video.writing import IMAGES

_SUFFIXES = (".jpg", ".jpeg", ".png")
_PICTURES = frozenset(_SUFFIXES)


def find_plates(sequence: Sequence, background_folder: Path) -> dict[str | None, Path]:
    """The background of every camera by its id: `image_<camera_id>.jpg`, as NeRSemble has them.

    A relative folder counts from the sequence's `images`. A video whose name says no camera takes the only picture in
    the folder. Raises InputError that names what is missing.
    """
    folder = Path(background_folder)
    if not folder.is_absolute():
        # by its parts: images/ may not be there yet, and `..` of a link is not where the user reads the path to lead
        folder = _joined(sequence.folder / IMAGES, folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. background_matting_v2 needs a picture of the empty background for each camera: "
            "give their folder with --background-folder, or use --matting-method selfie, which needs none."
        )
    return {clip.camera_id: _plate(folder, clip.camera_id) for clip in sequence.clips}


def _plate(folder: Path, camera_id: str | None) -> Path:
    if camera_id is None:
        pictures = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _PICTURES and not p.name.startswith(".")]
        if len(pictures) == 1:
            return pictures[0]
        raise InputError(f"{folder}: holds {len(pictures)} pictures, and the video's name says no camera. Leave one.")
    for suffix in _SUFFIXES:
        path = folder / f"image_{camera_id}{suffix}"
        if path.is_file():
            return path
    raise InputError(f"{folder / f'image_{camera_id}.jpg'}: no such file, the background of camera {camera_id}.")


def _joined(base: Path, relative: Path) -> Path:
    import os

    return Path(os.path.normpath(os.path.abspath(base) / relative))
