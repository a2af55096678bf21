"""Files that landmark detectors are read from: where they are looked for, and how they get there."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flame_fitting import assets, downloads, progress
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, sha256_of_file


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that users bring, or that is downloaded once."""

    title: str
    """Which network, for messages."""
    names: tuple[str, ...]
    """What the file is called; the first one is the name it is downloaded under."""
    megabytes: int
    """Roughly."""
    option: str
    """The option that names it, e.g. `--star-weights`."""
    url: str = ""
    """Where it is downloaded; empty: nowhere."""
    sha256: str = ""
    """Its hash, or how the hash begins. Empty: none was published, and the one of the first download is held to."""

    @property
    def variable(self) -> str:
        """The environment variable that names the file or its folder."""
        return "FLAME_FITTING_" + self.option.strip("-").replace("-", "_").upper()


def weight_folder() -> Path:
    """Where weights are put: by users, and by this program when it downloads them."""
    return assets.data_dir() / "weights"


def find_weights(file: WeightFile, given: Path | str | None = None, also: Iterable[Path] = ()) -> Path | None:
    """The file where it is: as `given` (itself or a folder with it), by its environment variable, in `weight_folder`
    or in the folders `also`. None where it is nowhere; InputError where what was named is not there."""
    named, why = (given, file.option) if given is not None else (os.environ.get(file.variable) or None, file.variable)
    if named is not None:
        path = Path(named)
        found = path if path.is_file() else in_folder(path, file)
        if found is None:
            what = f"no {' or '.join(file.names)} there" if path.is_dir() else "no such file"
            raise InputError(
                f"{path}: {what}. Name the file of {file.title} with {file.option}, or its folder ({why})."
            )
        return found
    return next((found for folder in (weight_folder(), *also) if (found := in_folder(folder, file)) is not None), None)


def in_folder(folder: Path, file: WeightFile) -> Path | None:
    """The file in a folder, under any of its names."""
    return next((folder / name for name in file.names if (folder / name).is_file()), None)


def need_weights(file: WeightFile, given: Path | str | None = None, also: Iterable[Path] = ()) -> Path:
    """As `find_weights`; downloads the file where it is nowhere. InputError says what to do where that fails."""
    found = find_weights(file, given, also)
    if found is not None:
        return found
    if not file.url or os.environ.get(downloads.OFFLINE_VARIABLE):
        raise InputError(missing(file))
    target = weight_folder() / file.names[0]
    try:
        download(file, target)
    except (OSError, ValueError) as error:
        raise InputError(missing(file, f"could not be downloaded from {file.url} ({error})")) from error
    return target


def missing(file: WeightFile, why: str = "") -> str:
    """What is said where a file of weights is not there."""
    why = f" and {why}" if why else ""
    return (
        f"{weight_folder() / file.names[0]}: the weights of {file.title}, about {file.megabytes} MB, are not there{why}"
        f". Put the file there, or name it with {file.option}. The detector that works now is mediapipe."
    )


def in_short(error: Exception) -> str:
    """What torch says of weights that do not fit, several lines of it, in one."""
    return " ".join(str(error).split())[:160]


def download(file: WeightFile, target: Path) -> None:
    """Downloads a file; whole or not at all. ValueError where it is not the one that is expected, OSError where the
    network or the disk fails."""
    progress.say(f"downloading the weights of {file.title}, about {file.megabytes} MB, from {file.url}")
    downloads.download(file.url, target, lambda path: check_hash(file, path, target), file.megabytes << 20)


def check_hash(file: WeightFile, path: Path, target: Path | None = None) -> None:
    """ValueError where a file's hash is not the published one, nor that of the first download to `target`.

    Where none was published, the first download's is written beside it.
    """
    found = sha256_of_file(path)
    note = target.with_name(f"{target.name}.sha256") if target is not None else None
    noted = note.read_text().split()[0] if note is not None and note.is_file() and note.read_text().strip() else ""
    expected = file.sha256 or noted
    if not re.fullmatch("[0-9a-f]*", expected) or not found.startswith(expected):
        raise ValueError(f"its SHA-256 is {found[:16]}..., {expected[:16]}... is expected")
    if note is not None and not expected:
        with atomic_write(note) as temporary:
            temporary.write_text(f"{found}  {file.names[0]}\n")
