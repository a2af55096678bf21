"""The one place that knows where files that ship, files that users bring, and caches are."""

import os
from dataclasses import dataclass
from pathlib import Path

from flame_fitting.errors import InputError

_PACKAGE = Path(__file__).resolve().parent

FLAME_SITE = "https://flame.is.tue.mpg.de"
HEAD_CHOICES = (
    "Give --head open, flame2020, flame2023, flame2023-open, or the path of a FLAME-format .pkl or .npz file."
)


@dataclass(frozen=True)
class FlameVersion:
    """A FLAME model that users download."""

    title: str
    files: tuple[str, ...]
    """What the model's file is called, without its ending; upper and lower case count as equal."""
    download: str
    """What its entry on the download page is called."""


FLAME_VERSIONS = {
    "flame2023": FlameVersion("FLAME 2023", ("flame2023",), "FLAME 2023 (versions w/ jaw rotation)"),
    "flame2023-open": FlameVersion("FLAME 2023 Open", ("flame2023_Open", "flame2023-open"), "FLAME 2023 Open"),
    "flame2020": FlameVersion("FLAME 2020", ("generic_model", "flame2020"), "FLAME 2020"),
}
"""By the name that --head takes, in the order of --head auto."""
MASKS_FILE, TEMPLATE_FILE, TEXTURE_FILE = "FLAME_masks.pkl", "head_template_mesh.obj", "FLAME_texture.npz"


@dataclass(frozen=True)
class HeadFiles:
    """A head model's file, what lies beside it, and why it was taken."""

    name: str
    path: Path
    why: str
    title: str = ""
    """FLAME's version, where the file is one of FLAME's downloads."""
    masks: Path | None = None
    template: Path | None = None
    texture: Path | None = None


def asset_dir() -> Path:
    """Folder of the shipped assets: `asset/` in a checkout, `flame_fitting/asset/` in an installed wheel."""
    inside = _PACKAGE / "asset"
    return inside if inside.is_dir() else _PACKAGE.parent / "asset"


def open_head_path() -> Path:
    """The open head's FLAME-format file."""
    return asset_dir() / "open_head" / "open_head.npz"


def shipped_actions_path() -> Path:
    """The open head's named facial actions."""
    return asset_dir() / "open_head" / "actions.npz"


def shipped_action_scores_path(detector: str) -> Path:
    """How a detector's expression scores tell facial actions."""
    return asset_dir() / "open_head" / f"action_scores_{detector}.npz"


def shipped_evidence_path(detector: str) -> Path:
    """The calibration of a detector's evidence on the open head that comes with the program."""
    return asset_dir() / "open_head" / f"evidence_{detector}.npz"


def shipped_embedding_path(detector_name: str, kind: str) -> Path:
    """Where the open head's landmark embedding for a detector and a kind of shading is, if it ships."""
    return asset_dir() / "open_head" / f"embedding_{detector_name}_{kind}.npz"


def cache_dir() -> Path:
    """Folder for what can be computed again; `FLAME_FITTING_CACHE` or `~/.cache/flame-fitting`."""
    named = os.environ.get("FLAME_FITTING_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flame-fitting"


def data_dir() -> Path:
    """The user's own data folder for this program."""
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "flame-fitting"


def flame_folders(flame_dir: Path | None = None) -> list[tuple[Path, str]]:
    """Where FLAME's files are looked for, first come first served, and who named the folder.

    `flame_dir`, then FLAME_MODEL_PATH and FLAME_FITTING_ASSETS, then `asset/flame` and the user's data folder. These
    last two give way to the folders in FLAME_FITTING_SEARCH_PATH, where that is set (empty: no folder).
    """
    folders = [(Path(flame_dir), "--flame-dir")] if flame_dir is not None else []
    for variable in ("FLAME_MODEL_PATH", "FLAME_FITTING_ASSETS"):
        if named := os.environ.get(variable):
            folders += [(Path(named), variable), (Path(named) / "flame", variable)]
    searched = os.environ.get("FLAME_FITTING_SEARCH_PATH")
    if searched is not None:
        return folders + [(Path(part), "FLAME_FITTING_SEARCH_PATH") for part in searched.split(os.pathsep) if part]
    own = data_dir()
    return [*folders, (asset_dir() / "flame", "asset/flame"), (own, str(own)), (own / "flame", str(own))]


def find_head(spec: str = "auto", flame_dir: Path | None = None, flame_masks: Path | None = None) -> HeadFiles:
    """The head model that `spec` asks for: auto, open, a name of `FLAME_VERSIONS`, or a path. Nothing is read.

    auto takes the model file that FLAME_MODEL_PATH names, else the first of `FLAME_VERSIONS` that is found, else the
    open head. `flame_masks` stands in for the masks file beside the model.
    """
    if flame_dir is not None and not Path(flame_dir).is_dir():
        raise InputError(f"{flame_dir}: no such folder. Give the folder of FLAME's files with --flame-dir.")
    if flame_masks is not None and not Path(flame_masks).is_file():
        raise InputError(f"{flame_masks}: no such file. Give the path of {MASKS_FILE} with --flame-masks.")
    if spec == "open":
        return HeadFiles("open", open_head_path(), "--head open")
    if spec != "auto" and spec not in FLAME_VERSIONS:
        path = Path(spec)
        if path.suffix.lower() not in (".npz", ".pkl"):
            raise InputError(f"{spec}: not a known head model. {HEAD_CHOICES}")
        if not path.is_file():
            raise InputError(f"{path}: no such head-model file. {HEAD_CHOICES}")
        return _with_companions(path, f"--head {spec}", flame_dir, flame_masks)
    named = os.environ.get("FLAME_MODEL_PATH")
    if named and flame_dir is None and Path(named).suffix.lower() in (".npz", ".pkl"):
        if not Path(named).is_file():
            raise InputError(f"{named}: no such file, but FLAME_MODEL_PATH names it. Mend or unset the variable.")
        if spec in ("auto", version_of(Path(named))):
            return _with_companions(Path(named), "named by FLAME_MODEL_PATH", flame_dir, flame_masks)
    for version in FLAME_VERSIONS if spec == "auto" else (spec,):
        for folder, origin in flame_folders(flame_dir):
            if found := _version_file(folder, version):
                why = f"--head {spec}" if spec != "auto" else "auto"
                why = f"{why}, {found.name} in {_where(folder, origin)}"
                return _with_companions(found, why, flame_dir, flame_masks)
    if spec == "auto" and flame_dir is None:
        return HeadFiles("open", open_head_path(), "auto, no FLAME file was found")
    wanted = [spec] if spec != "auto" else list(FLAME_VERSIONS)
    files = ", ".join(f"{FLAME_VERSIONS[name].files[0]}.pkl" for name in wanted)
    places = [str(flame_dir)] if flame_dir is not None else [str(folder) for folder, _ in flame_folders()]
    site = f"Download {FLAME_VERSIONS[wanted[0]].download} from {FLAME_SITE} into one of them"
    raise InputError(f"{files}: not in {', '.join(places) or 'any folder'}. {site}, or use --head open.")


def version_of(path: Path) -> str | None:
    """Which of `FLAME_VERSIONS` a file is, by its name."""
    stem = path.stem.lower()
    return next((name for name, version in FLAME_VERSIONS.items() if stem in map(str.lower, version.files)), None)


def companion(path: Path, name: str, flame_dir: Path | None = None) -> Path | None:
    """A file called `name` beside the model file `path`, or in `flame_dir`."""
    for folder in (path.parent, flame_dir):
        if folder is not None and (folder / name).is_file():
            return folder / name
    return None


def _with_companions(path: Path, why: str, flame_dir: Path | None, flame_masks: Path | None) -> HeadFiles:
    version = version_of(path)
    return HeadFiles(
        name=version or path.stem,
        path=path,
        why=why,
        title=FLAME_VERSIONS[version].title if version else "",
        masks=flame_masks or companion(path, MASKS_FILE, flame_dir),
        template=companion(path, TEMPLATE_FILE, flame_dir),
        texture=companion(path, TEXTURE_FILE, flame_dir),
    )


def _version_file(folder: Path, version: str) -> Path | None:
    if not folder.is_dir():
        return None
    found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".pkl", ".npz")}
    names = [f"{stem.lower()}{ending}" for stem in FLAME_VERSIONS[version].files for ending in (".pkl", ".npz")]
    return next((found[name] for name in names if name in found), None)


def _where(folder: Path, origin: str) -> str:
    return f"{folder} ({origin})" if origin.startswith(("--", "FLAME_")) else origin
