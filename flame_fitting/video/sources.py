"""What `--input` of `preprocess` names: which videos, of which cameras, and where their pictures go."""

import re
from dataclasses import dataclass
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.files import shown
from flame_fitting.folders import VIDEO_SUFFIXES

CAMERA_PREFIX = "cam_"
_ADVICE = "Give a video file, a folder with cam_*.mp4, or a pattern that one folder matches."


@dataclass(frozen=True)
class Clip:
    """One video of a sequence."""

    path: Path
    camera_id: str | None
    """What stands behind `cam_` in its name; None where it is not called so."""
    prefix: str
    """What its pictures' names begin with: `cam_<camera_id>_`, or nothing for the only video."""


@dataclass(frozen=True)
class Sequence:
    """Videos that belong together."""

    folder: Path
    """Gets images/, images_<n>/, alpha_maps/ and manifest.json."""
    clips: tuple[Clip, ...]


def find_sequence(given: str | Path) -> Sequence:
    """The videos that `given` names, as VHAP takes it.

    A video file `<name>.mp4` goes into the folder `<name>` beside it; so does `<name>` alone, where there is no such
    folder with videos. A folder has `cam_*.mp4` in it or in its `images`. The last part of a path may be a pattern
    that matches exactly one folder. Raises InputError.
    """
    if not str(given):
        raise InputError(f"--input: is empty. {_ADVICE}")
    path = Path(given)
    if path.is_file():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise InputError(f"{path}: not the name of a video ({', '.join(VIDEO_SUFFIXES)}). {_ADVICE}")
        return _single(path, path.with_suffix(""))
    if not path.exists() and re.search(r"[*?\[]", path.name):
        return find_sequence(_only_match(path))
    if path.is_dir() and (clips := _cameras(path)):
        return Sequence(path, clips)
    beside = [other for other in _videos(path.parent) if other.stem == path.name]
    inside = _videos(path)
    candidates = beside or inside
    if len(candidates) == 1:
        return _single(candidates[0], path)
    if not candidates:
        what = "no videos in it" if path.is_dir() else "no such file or folder"
        raise InputError(f"{path}: {what}. {_ADVICE}")
    names = shown(video.name for video in candidates)
    raise InputError(f"{path}: several videos ({names}), and no cam_ in their names says of which camera. {_ADVICE}")


def _single(video: Path, folder: Path) -> Sequence:
    return Sequence(folder, (Clip(video, _camera_id(video), ""),))


def _only_match(pattern: Path) -> Path:
    parent = pattern.parent
    matches = sorted(parent.glob(pattern.name)) if parent.is_dir() else []
    folders = [match for match in matches if match.is_dir()]
    chosen = folders or [match for match in matches if match.suffix.lower() in VIDEO_SUFFIXES]
    if len(chosen) != 1:
        found = f"{len(chosen)}: {shown(match.name for match in chosen)}" if chosen else "nothing"
        raise InputError(f"{pattern}: the pattern must match one folder, and matches {found}. {_ADVICE}")
    return chosen[0]


def _cameras(folder: Path) -> tuple[Clip, ...]:
    for place in (folder, folder / "images"):
        videos = [video for video in _videos(place) if _camera_id(video) is not None]
        stems = [video.stem for video in videos]
        if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
            raise InputError(f"{place}: several videos are called {', '.join(twice)}. Keep one of each.")
        if videos:
            many = len(videos) > 1
            return tuple(Clip(video, _camera_id(video), f"{video.stem}_" if many else "") for video in videos)
    return ()


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [e for e in entries if e.suffix.lower() in VIDEO_SUFFIXES and e.is_file() and not e.name.startswith(".")]


def _camera_id(video: Path) -> str | None:
    return video.stem.removeprefix(CAMERA_PREFIX) if video.stem.startswith(CAMERA_PREFIX) else None
