"""What all kinds of folders share: listing pictures, sizes from headers, a reduced folder beside a full one."""

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from flame_fitting.errors import InputError
from flame_fitting.files import reason
from flame_fitting.folders import VIDEO_SUFFIXES

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of pictures; where a folder has several of one name, the first of these is taken."""
IMAGES = "images"
ALPHA_MAPS = "alpha_maps"


def pictures_in(folder: Path) -> dict[str, str]:
    """File names of the pictures in a folder by their stems, in the order of these; empty where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({reason(error)}). Check the path.") from error
    found: dict[str, str] = {}
    rank = {suffix: place for place, suffix in enumerate(SUFFIXES)}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if name.startswith(".") or suffix.lower() not in rank:
            continue
        if stem not in found or rank[suffix.lower()] < rank[os.path.splitext(found[stem])[1].lower()]:
            found[stem] = name
    return dict(sorted(found.items()))


def videos_in(folder: Path) -> list[str]:
    """File names of the videos in a folder."""
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES)


def picture_size(path: Path, advice: str) -> tuple[int, int]:
    """Width and height of a picture, from its header alone."""
    return picture_header(path, advice)[0]


def picture_header(path: Path, advice: str) -> tuple[tuple[int, int], bool]:
    """Width and height of a picture, and whether it has an alpha channel."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.size, picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    except Exception as error:  # decoders raise many kinds over damaged bytes
        raise InputError(f"{path}: not a readable picture ({reason(error)}). {advice}") from error


def reduced_name(root: Path, name: str, n: int) -> str | None:
    """The picture of `images_<n>` that stands for a picture of `images`; None where there is no such folder.

    Raises InputError where the folder is there and lacks the picture.
    """
    path = PurePosixPath(name)
    parts = list(path.parent.parts)
    if IMAGES not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index(IMAGES)
    folder = PurePosixPath(*parts[:place], f"{IMAGES}_{n}", *parts[place + 1 :])
    found = _listed(root / folder)
    if not found:
        return None
    if path.stem not in found:
        raise InputError(
            f"{root / folder}: has no picture {path.stem}, {root / path.parent} has. Make it anew: flame-fitting "
            f"preprocess --downsample-scales {n}, or delete it, and the pictures are scaled."
        )
    return str(folder / found[path.stem])


@lru_cache(maxsize=8)
def _listed_at(folder: Path, changed: int) -> dict[str, str]:
    return pictures_in(folder)


def _listed(folder: Path) -> dict[str, str]:
    """`pictures_in`, listed once while the folder stays as it is."""
    try:
        return _listed_at(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}
