"""manifest.json: what made an output folder, so that a stage is reused only when it would come out the same."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, sha256_of_file
from flame_fitting.invocation import command_line
from flame_fitting.version import __version__

MANIFEST_NAME = "manifest.json"

# Files inside a capture that later stages add or that do not change what a fit sees.
CAPTURE_HASH_EXCLUDES = (MANIFEST_NAME, "landmarks2d", "landmark2d", "log.txt")


@dataclasses.dataclass
class InputRecord:
    """One input of a stage: where it was found and the SHA-256 of its content."""

    path: str
    """Path relative to the output folder where that is possible, else absolute (POSIX separators)."""
    sha256: str
    """SHA-256 of the file, or of a folder's file names and contents."""


@dataclasses.dataclass
class Manifest:
    """Everything about one run of one stage that decides its result, and what it cost."""

    stage: str
    """Name of the command: render, detect, fit, export, evaluate, run ..."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The full configuration as plain JSON values."""
    inputs: dict[str, InputRecord] = dataclasses.field(default_factory=dict)
    """Inputs by role ("avatar", "capture", "landmarks", "fit")."""
    head: dict[str, str] | None = None
    """Head model: {"name": ..., "sha256": ...}; None where no head model is used."""
    detector: str | None = None
    """Landmark detector; None where none is used."""
    seeds: dict[str, int] = dataclasses.field(default_factory=dict)
    """Random seeds by use."""
    device: str = "cpu"
    """Device the stage ran on."""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Wall-clock seconds by part; "total" for the stage."""
    transforms: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)
    """Every coordinate transform that was found or applied, 4x4, by name ("head_from_world")."""
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the stage has to say about its result (warnings, where the capture lies ...); not compared."""
    version: str = ""
    """Version of this package; filled in by default."""
    command: str = ""
    """The command line that was given, where there was one; filled in by default. Not compared."""
    date: str = ""
    """When the stage finished, ISO 8601 with the offset of the local time. Not compared."""
    changed_inputs: list[str] = dataclasses.field(default_factory=list)
    """Inputs that changed while the stage ran: such a result is never reused."""
    finished: bool = False
    """False while the stage is running: an interrupted run is never reused."""

    def __post_init__(self) -> None:
        if not self.version:
            self.version = __version__
        self.command = self.command or command_line()

    def write(self, folder: str | os.PathLike) -> Path:
        """Writes manifest.json into `folder`, atomically."""
        path = Path(folder) / MANIFEST_NAME
        text = json.dumps(dataclasses.asdict(self), indent=2, default=_json_default) + "\n"
        with atomic_write(path) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
        return path

    def finish(self, plan: "Callable[[], Manifest]") -> list[str]:
        """Marks the manifest, made by `plan` before the stage read anything, as finished.

        Inputs are looked at again: those that changed meanwhile are recorded and named, one sentence each.
        """
        try:
            again: Manifest | None = plan()
        except InputError:  # an input is gone
            again = None
        texts = []
        for role, record in self.inputs.items():
            after = again.inputs.get(role) if again is not None else None
            if after is None or after.sha256 != record.sha256:
                self.changed_inputs.append(role)
                where = after.path if after is not None else record.path
                texts.append(f"{where}: changed while the stage '{self.stage}' read it. Run it again to be sure.")
        self.finished, self.date = True, now()
        return texts

    def input_path(self, role: str, folder: str | os.PathLike) -> Path | None:
        """Where the input `role` lies now, seen from the output folder `folder`; None if it was not recorded."""
        record = self.inputs.get(role)
        if record is None:
            return None
        path = Path(record.path)
        return path if path.is_absolute() else Path(os.path.normpath(Path(folder).resolve() / path))


def now() -> str:
    """The time, ISO 8601 with the offset of the local time."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read_manifest(folder: str | os.PathLike) -> Manifest | None:
    """The manifest of an output folder; None if it has none. Raises InputError if it cannot be read."""
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in dataclasses.fields(Manifest)}
        inputs = {role: InputRecord(**record) for role, record in data.pop("inputs", {}).items()}
        return Manifest(inputs=inputs, **{key: value for key, value in data.items() if key in known})
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{path}: not a readable manifest ({error}). Delete it and run the stage again.") from error


def compare(old: Manifest | None, new: Manifest, ignore_config: Iterable[str] = ("output", "force")) -> str | None:
    """What keeps the result described by `old` from being reused for the run `new`, in one line; None if nothing does.

    Compared are stage, version, input hashes, configuration, seeds, head and detector; not paths, device or times.
    `ignore_config` names dotted configuration keys that do not change the result.
    """
    if old is None:
        return "there is no earlier result"
    if not old.finished:
        return "the earlier run did not finish"
    if old.stage != new.stage:
        return f"the folder holds the result of '{old.stage}', not of '{new.stage}'"
    found = [f"input {role} changed during the earlier run" for role in old.changed_inputs]
    if old.version != new.version:
        found.append(f"version {old.version} -> {new.version}")
    for role in sorted(old.inputs.keys() | new.inputs.keys()):
        before, after = old.inputs.get(role), new.inputs.get(role)
        if before is None or after is None:
            found.append(f"input {role} {'is new' if before is None else 'is no longer used'}")
        elif before.sha256 != after.sha256:
            found.append(f"input {role} has changed ({after.path})")
    found += _differences("", _plain(old.config), _plain(new.config), frozenset(ignore_config))
    found += _differences("seed ", old.seeds, new.seeds, frozenset())
    found += _differences("head ", old.head or {}, new.head or {}, frozenset())
    if old.detector != new.detector:
        found.append(f"detector {old.detector} -> {new.detector}")
    if not found:
        return None
    shown = ", ".join(found[:3])
    return shown + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def config_as_dict(config: Any) -> Any:
    """A configuration dataclass as plain JSON values: paths as text, tuples as lists, nested dataclasses as dicts."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: config_as_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {str(key): config_as_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [config_as_dict(value) for value in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    return _json_default(config)


def input_record(path: str | os.PathLike, output_folder: str | os.PathLike, sha256: str | None = None) -> InputRecord:
    """Record of an input for the manifest in `output_folder`; hashes the file or folder unless `sha256` is given."""
    absolute = Path(path).resolve()
    try:
        text = Path(os.path.relpath(absolute, Path(output_folder).resolve())).as_posix()
    except ValueError:  # another drive
        text = absolute.as_posix()
    return InputRecord(path=text, sha256=sha256 or hash_path(absolute))


def hash_folder(folder: str | os.PathLike, exclude: Iterable[str] = (MANIFEST_NAME,)) -> str:
    """SHA-256 over a folder's relative file names and contents, hex, without the top-level entries in `exclude`.

    Hidden files do not count: locks, what is being written, what desktops leave behind.
    """
    root, left_out = Path(folder), frozenset(exclude)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Check the path.")
    found = ((path, path.relative_to(root)) for path in root.rglob("*"))
    files = sorted(
        name.as_posix()
        for path, name in found
        if name.parts[0] not in left_out and not any(part.startswith(".") for part in name.parts) and path.is_file()
    )
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        hashes = list(pool.map(lambda name: sha256_of_file(root / name), files))
    digest = hashlib.sha256()
    for name, value in zip(files, hashes, strict=True):
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def hash_capture(root: str | os.PathLike) -> str:
    """SHA-256 of a capture without its manifest and without the landmarks that `detect` adds."""
    return hash_folder(root, CAPTURE_HASH_EXCLUDES)


def hash_path(path: str | os.PathLike) -> str:
    """SHA-256 of a file or of a folder; InputError if there is neither."""
    path = Path(path)
    if path.is_file():
        return sha256_of_file(path)
    if path.is_dir():
        return hash_capture(path) if (path / "transforms.json").is_file() else hash_folder(path)
    raise InputError(f"{path}: no such file or folder. Check the path.")


def resolved(folder: str | os.PathLike) -> Path:
    """The absolute path that an output folder's links lead to; InputError where they lead in a circle."""
    try:
        path = Path(folder).resolve()
        path.exists()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for a circle
        raise InputError(f"{folder}: cannot be used as a folder ({error}). Choose another output folder.") from error
    return path


def check_output_folder(folder: str | os.PathLike, force: bool = False, stage: str | None = None) -> None:
    """Raises InputError unless a stage may write into `folder`: absent, empty, ours (it has a manifest), or forced.

    With `stage` only what that stage made is ours.
    """
    path = resolved(folder)
    if path.exists() and not path.is_dir():
        raise InputError(f"{folder}: is a file, but a folder is to be written here. Choose another output folder.")
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written ({existing} is not writable). Choose another output folder.")
    if force or not path.exists():
        return
    if (path / MANIFEST_NAME).is_file():
        if stage is not None and (made := read_manifest(path)) is not None and made.stage != stage:
            raise InputError(
                f"{folder}: holds the result of '{made.stage}', and '{stage}' would write over it. Choose another "
                "output folder, or add --force."
            )
        return
    if not any(_counts(entry) for entry in path.iterdir()):
        return
    raise InputError(
        f"{folder}: the folder is not empty and was not made by flame-fitting. Choose another one, or add --force."
    )


def _counts(entry: Path) -> bool:
    """Whether an entry makes a folder somebody's: not what killed runs leave, nor what a new file system has."""
    hidden = entry.name.startswith(".")
    ours = hidden and entry.name.endswith((".lock", ".partial", ".old", ".resume"))
    return not ours and entry.name != "lost+found"


def _json_default(value: Any) -> Any:
    if isinstance(value, (os.PathLike, type)):
        return os.fspath(value) if isinstance(value, os.PathLike) else value.__name__
    if hasattr(value, "tolist"):  # numpy and torch values
        return value.tolist()
    if hasattr(value, "value"):  # enum
        return value.value
    return str(value)


def _plain(value: Any) -> Any:
    """What `value` looks like after a trip through JSON."""
    return json.loads(json.dumps(config_as_dict(value)))


def _differences(prefix: str, old: Any, new: Any, ignore: frozenset[str], key: str = "") -> list[str]:
    if key in ignore:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for name in sorted(old.keys() | new.keys()):
            dotted = f"{key}.{name}" if key else name
            lines += _differences(prefix, old.get(name), new.get(name), ignore, dotted)
        return lines
    return [] if old == new else [f"{prefix}{key} {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
