"""Opens a fit folder with the head model and the capture that it was made from."""

import hashlib
from dataclasses import replace
from pathlib import Path

from flame_fitting.assets import FLAME_VERSIONS
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import TRANSFORMS_NAME
from flame_fitting.capture.opening import open_capture
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, sha256_of_file
from flame_fitting.fit.result import FIT_AGAIN, FitResult, check_head, checked_parameters, load_fit
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import InputRecord, input_record, read_manifest


def open_fit(
    folder: Path | str,
    capture_folder: Path | None = None,
    head_spec: str | None = None,
    flame_dir: Path | None = None,
    flame_masks: Path | None = None,
) -> tuple[FitResult, HeadModel, Capture]:
    """The fit in `folder` (or in its last time-stamped child), its head model and its capture.

    `capture_folder`, `head_spec`, `flame_dir` and `flame_masks` stand in for what the fit's manifest says, where files
    have moved.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder. Give the output folder of: flame-fitting fit")
    fit = load_fit(folder)
    root = fit.folder or Path(folder)
    capture = open_capture(capture_folder or find_capture(root, fit.capture))
    head = _head_of(fit, root, head_spec, flame_dir, flame_masks)
    check_head(fit, head)
    return fit, head, capture


def find_capture(fit_folder: Path, recorded: Path | None = None) -> Path:
    """Where a fit's capture lies: as recorded, as its manifest's input says, or `render` beside the fit."""
    manifest = read_manifest(fit_folder)
    from_manifest = manifest.input_path("capture", fit_folder) if manifest is not None else None
    if from_manifest is None and manifest is not None and isinstance(manifest.result.get("capture"), str):
        from_manifest = (fit_folder / manifest.result["capture"]).resolve()
    beside = fit_folder.parent / "render"
    for candidate in (recorded, from_manifest, beside):
        if candidate is not None and (candidate / TRANSFORMS_NAME).is_file():
            return candidate
    wanted = recorded or from_manifest or beside
    raise InputError(
        f"{wanted}: the capture of the fit {fit_folder} is not there. Give its place with --capture-folder."
    )


def recorded_head_spec(fit_folder: Path, name: str) -> str:
    """The --head that loads the model of a fit again: the file that its manifest names, else the model's name."""
    manifest = read_manifest(fit_folder)
    path = manifest.input_path("head", fit_folder) if manifest is not None else None
    if path is not None and path.is_file():
        return str(path)
    if name == "open" or name in FLAME_VERSIONS:
        return name
    return str(path or f"{name}.npz")


def _head_of(
    fit: FitResult, root: Path, spec: str | None, flame_dir: Path | None, flame_masks: Path | None
) -> HeadModel:
    spec = spec or recorded_head_spec(root, fit.head_name)
    if spec == "open":
        return load_head(spec)
    add_teeth, manifest = fit.head_identity.get("teeth") == "yes", read_manifest(root)
    if manifest is None or "head" not in manifest.inputs or flame_dir is not None:
        return load_head(spec, flame_dir, flame_masks, add_teeth)
    # What lies beside the model now may have come since: the fit opens with what it was made with.
    beside = {role: manifest.input_path(f"flame_{role}", root) for role in ("masks", "template", "texture")}
    beside |= {"masks": flame_masks} if flame_masks is not None else {}
    for path in beside.values():
        if path is not None and not path.is_file():
            raise InputError(
                f"{path}: the fit {root} was made with it, and it is not there. Put it back, or give the folder that "
                "it is in with --flame-dir."
            )
    return load_head(spec, None, flame_masks, add_teeth, beside)


def open_epoch(fit: FitResult, epoch: int) -> FitResult:
    """The fit with the parameters that were saved after `epoch`."""
    root = fit.folder or Path()
    path = root / f"tracked_flame_params_{epoch}.npz"
    if not path.is_file():
        found = sorted((p.stem.rsplit("_", 1)[1] for p in root.glob("tracked_flame_params_*.npz")), key=len)
        raise InputError(f"{path}: no such file. Epochs that were saved: {', '.join(found) or 'none'}.")
    parameters, head_from_world = checked_parameters(path, read_npz(path, FIT_AGAIN))
    return replace(fit, parameters=parameters, head_from_world=head_from_world)


def fit_input_record(fit_folder: Path, output_folder: Path) -> InputRecord:
    """A fit as the input of another stage: only its parameters and texture count, not its pictures and reports."""
    files = sorted(fit_folder.glob("tracked_flame_params*.npz")) + [fit_folder / "texture.png"]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            digest.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
    return input_record(fit_folder, output_folder, digest.hexdigest())
