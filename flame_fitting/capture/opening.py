"""Opens a folder of pictures as a `Capture`, whichever program made it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from flame_fitting.capture.capture import Capture
from flame_fitting.capture.choosing import with_options
from flame_fitting.capture.layouts.folder import IMAGES, SUFFIXES, pictures_in, videos_in
from flame_fitting.capture.layouts.monocular import read_monocular
from flame_fitting.capture.layouts.nersemble import is_picture_of_rig, read_nersemble, recording_files
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.files import shown
from flame_fitting.folders import capture_folder

KINDS = {
    "capture": "transforms.json, as this program, nerfstudio, instant-ngp or VHAP's export write it",
    "colmap": "a COLMAP model (sparse/0/cameras.bin or .txt) with its images/",
    "nersemble-v1": "<root>/<subject>/<sequence> with images/cam_<camera>_<timestep>.jpg",
    "nersemble-v2": "<root>/<subject>/sequences/<sequence> with images/cam_<camera>_<timestep>.jpg",
    "monocular": "a folder with the frames of one video in images/",
}
"""Kinds of folders, and how they are known."""


def open_capture(
    path: str | os.PathLike, options: ReadOptions | None = None, notify: Callable[[str], None] | None = None
) -> Capture:
    """The capture in a folder of any of `KINDS`, or given by its transforms.json.

    Pictures are read when they are asked for, and of each camera one header when it is opened. A choice of timesteps
    and cameras keeps their numbers in the whole folder. `notify` is told each of the capture's `notes`. Raises
    InputError for other folders, and for what is damaged or missing in one.
    """
    options = options or ReadOptions()
    capture = with_options(_read(Path(path), options), options)
    if notify is not None:
        for note in capture.notes:
            notify(note)
    return capture


def find_sequence(root_folder: str | os.PathLike, subject: str | None, sequence: str) -> Path:
    """The folder of a sequence below VHAP's root folder: `<root>/<sequence>`, with a subject as in NeRSemble v1 or v2.

    An exact name counts first, else the only one that begins so. InputError, with what there is, where there is none
    or more than one.
    """
    base = Path(root_folder)
    if subject:
        base = base / subject
        if not base.is_dir():
            raise InputError(f"{base}: no such folder. Subjects there: {_names(base.parent)}.")
        base = base / "sequences" if (base / "sequences").is_dir() else base
    if not base.is_dir():
        raise InputError(f"{base}: no such folder. Check --data.root-folder.")
    if not sequence:
        raise InputError(f"{base}: name a sequence with --data.sequence. There are: {_names(base)}.")
    if (base / sequence).is_dir():
        return base / sequence
    found = [entry for entry in _folders(base) if entry.startswith(sequence)]
    if len(found) == 1:
        return base / found[0]
    if found:
        raise InputError(f"{base}: several sequences begin with {sequence}: {', '.join(found)}. Name one of them.")
    raise InputError(f"{base / sequence}: no such folder. Sequences there: {_names(base)}.")


def kind_of(path: str | os.PathLike) -> str:
    """Which of `KINDS` a folder is; InputError for others."""
    from flame_fitting.capture.layouts.colmap import find_model
    from flame_fitting.capture.layouts.transforms import transforms_files

    root = Path(path)
    if root.suffix == ".json" or transforms_files(root):
        return "capture"
    if not root.is_dir():
        raise InputError(f"{capture_folder(root)}: no such folder. Check the path.")
    if find_model(root) is not None:
        return "colmap"
    return _kind_of_pictures(root)


def _kind_of_pictures(root: Path) -> str:
    folders = [root / IMAGES, *sorted(root.glob(f"{IMAGES}_*"))]
    stems = next((names for folder in folders if (names := pictures_in(folder))), None)
    if stems is None:
        if videos := [*videos_in(root), *videos_in(root / IMAGES)]:
            raise InputError(
                f"{root}: holds videos ({', '.join(videos[:3])}), no pictures yet. Make them: flame-fitting preprocess "
                f"--input {root}"
            )
        if pictures_in(root):
            raise InputError(
                f"{root}: its pictures lie in the folder itself. If they are the frames of one video, move them into "
                f"{root / IMAGES}, numbered in their order (000000.png ...)."
            )
        if there := [folder for folder in folders if folder.is_dir()]:
            raise InputError(_without_pictures(root, there[0]))
        kinds = "; ".join(KINDS.values())
        raise InputError(f"{root}: is not a capture, it has no transforms.json and no images/. Known are: {kinds}.")
    if all(re.fullmatch(r"\d{5}_\d{2}", stem) for stem in stems):
        raise InputError(
            f"{root}: has pictures of a capture, <timestep>_<camera>, and no transforms.json, which says what their "
            "cameras are. Copy it from where the capture was made."
        )
    if not any(is_picture_of_rig(stem) for stem in stems):
        return "monocular"
    return f"nersemble-v{recording_files(root).version}"


def _without_pictures(root: Path, folder: Path) -> str:
    """Of a folder for pictures that is there and has none."""
    others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    held = f"holds {shown(others, 3)}, no pictures" if others else "is empty"
    videos = [name for name in videos_in(root.parent) if os.path.splitext(name)[0] == root.name]
    video = root.parent / videos[0] if videos else "VIDEO"
    return (
        f"{folder}: {held}. Looked for were {', '.join(SUFFIXES)}. Put the frames of a video there, numbered in their "
        f"order (000000.jpg ...), or make them: flame-fitting preprocess --input {video}"
    )


def _read(path: Path, options: ReadOptions) -> Capture:
    kind = kind_of(path)
    if kind == "capture":
        from flame_fitting.capture.layouts.transforms import read_transforms

        return read_transforms(path)
    if kind == "colmap":
        from flame_fitting.capture.layouts.colmap import read_colmap

        return read_colmap(path)
    return read_monocular(path, options) if kind == "monocular" else read_nersemble(path, options)


def _folders(base: Path) -> list[str]:
    return sorted(entry.name for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _names(base: Path) -> str:
    return ", ".join(_folders(base)[:20]) or "none" if base.is_dir() else "none"
