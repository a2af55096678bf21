"""Opens a fit folder with the head model and the capture that it was made from."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from flame_fitting.assets import FLAME_VERSIONS
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import TRANSFORMS_NAME
from flame_fitting.capture.hashing import capture_hash
from flame_fitting.capture.opening import find_sequence, open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, sha256_of_file
from flame_fitting.fit.alignment import aligned
from flame_fitting.fit.places import epochs_of
from flame_fitting.fit.result import FIT_AGAIN, FitResult, check_head, checked_parameters, load_fit, load_run
from flame_fitting.fit.vhap_runs import RunData, aligned_world, read_run_data
from flame_fitting.head.eyelids import with_eyelids
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import InputRecord, input_record, read_manifest
from flame_fitting.progress import say


def open_fit(
    folder: Path | str,
    capture_folder: Path | None = None,
    head_spec: str | None = None,
    flame_dir: Path | None = None,
    flame_masks: Path | None = None,
    epoch: int = -1,
    background_color: tuple[float, float, float] | None = None,
) -> tuple[FitResult, HeadModel, Capture]:
    """The fit in `folder` (or in its last time-stamped child), its head model and its capture.

    The capture holds the timesteps of the fit, in the order of its rows, and the fit's own focal length where that was
    estimated. `folder` may be a run folder of VHAP. `capture_folder`, `head_spec`, `flame_dir` and `flame_masks` stand
    in for what the fit's manifest says, where files have moved. `epoch` is the saved state, -1 the last.
    `background_color` (sRGB 0..1) is put behind pictures that still have the background they were taken with.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder. Give the output folder of: flame-fitting fit")
    fit = load_fit(folder)
    root = fit.folder or Path(folder)
    if epoch >= 0:
        fit = open_epoch(fit, epoch)
    data = read_run_data(root)
    place = capture_folder or find_capture(root, fit.capture)
    capture = _open_capture(place, data, background_color, bool(fit.head_hash))
    if fit.head_hash:
        head = _head_of(fit, root, head_spec, flame_dir, flame_masks)
    else:
        fit, head = _with_unnamed_head(fit, head_spec, flame_dir, flame_masks)
        if capture.calibrated and data.align_cameras_to_axes:
            fit = replace(fit, head_from_world=aligned_world(capture.views))
    check_head(fit, head)
    fit, capture = aligned(fit, capture)
    return fit, _with_eyelids_of(fit, head), capture


def open_fit_and_head(
    folder: Path | str, head_spec: str | None = None, flame_dir: Path | None = None, flame_masks: Path | None = None
) -> tuple[FitResult, HeadModel]:
    """The fit in `folder` and its head model, as `open_fit`, for what needs no capture."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder. Give the output folder of: flame-fitting fit")
    fit = load_fit(folder)
    if fit.head_hash:
        head = _head_of(fit, fit.folder or Path(folder), head_spec, flame_dir, flame_masks)
    else:
        fit, head = _with_unnamed_head(fit, head_spec, flame_dir, flame_masks)
    check_head(fit, head)
    return fit, _with_eyelids_of(fit, head)


def _with_eyelids_of(fit: FitResult, head: HeadModel) -> HeadModel:
    """The head model with eyelids where the fit has some: no file of a model holds them."""
    return with_eyelids(head) if "eyelids" in fit.parameters else head


def find_capture(fit_folder: Path, recorded: Path | None = None) -> Path:
    """Where a fit's capture lies: as recorded, as its manifest or its config.yml says, or `render` beside it."""
    manifest = read_manifest(fit_folder)
    from_manifest = manifest.input_path("capture", fit_folder) if manifest is not None else None
    if from_manifest is None and manifest is not None and isinstance(manifest.result.get("capture"), str):
        from_manifest = (fit_folder / manifest.result["capture"]).resolve()
    for candidate in (recorded, from_manifest):
        if candidate is not None and candidate.is_dir():
            return candidate
    beside = fit_folder.parent / "render"
    if (beside / TRANSFORMS_NAME).is_file():
        return beside
    data = read_run_data(fit_folder)
    if data.root_folder is not None and data.sequence is not None:
        # VHAP is run from the root of its clone: a relative path may start there, or at any folder above the run
        for start in (Path(), *fit_folder.resolve().parents):
            if (start / data.root_folder).is_dir():
                return find_sequence(start / data.root_folder, data.subject, data.sequence)
        wanted = data.root_folder / (data.subject or "") / data.sequence
    else:
        wanted = recorded or from_manifest or beside
    raise InputError(
        f"{wanted}: the capture of the fit {fit_folder} is not there. Give its place with --capture-folder."
    )


def _open_capture(
    place: Path, data: RunData, background_color: tuple[float, float, float] | None, is_own: bool
) -> Capture:
    """The capture, its pictures as the fit read them; those of a capture of this program as they are."""
    capture = open_capture(place)
    if is_own and capture.kind == "capture":
        if data.heldout_every is not None or data.heldout_cameras:
            apart = ReadOptions(
                subset=data.subset, heldout_every=data.heldout_every, heldout_cameras=data.heldout_cameras
            )
            capture = open_capture(place, apart)
    else:
        options = _read_options(data)
        # a background can only be put behind what an alpha map tells from it
        if any(view.mask_path is not None for view in capture.views):
            options = replace(options, background_color=background_color or data.background_color)
        capture = open_capture(place, options, say)
    return capture


def _read_options(data: RunData) -> ReadOptions:
    return ReadOptions(
        subset=data.subset,
        division=data.division,
        n_downsample_rgb=data.n_downsample_rgb,
        scale_factor=data.scale_factor or 1.0,
        heldout_every=data.heldout_every,
        heldout_cameras=data.heldout_cameras,
        use_color_correction=data.use_color_correction is not False,
        image_size_during_calibration=data.image_size_during_calibration,
    )


def capture_input_record(fit_folder: Path, capture_folder: Path | None, output_folder: Path) -> InputRecord:
    """A fit's capture as the input of another stage: what of it is read."""
    place = capture_folder or find_capture(fit_folder)
    return input_record(place, output_folder, capture_hash(place, _read_options(read_run_data(fit_folder))))


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


def _with_unnamed_head(
    fit: FitResult, spec: str | None, flame_dir: Path | None, flame_masks: Path | None
) -> tuple[FitResult, HeadModel]:
    """The head model of a run that does not name one: what --head says, else the first that fits its numbers."""
    p = fit.parameters
    vertices = next((p[k].shape[1] for k in ("static_offset", "dynamic_offset") if k in p and p[k].shape[1] > 1), None)
    found = []
    for candidate in (spec,) if spec is not None else ("auto", "open"):
        # FLAME has 5023 vertices, with VHAP's teeth 120 more
        head = load_head(candidate, flame_dir, flame_masks, add_teeth=vertices != 5023)
        found.append(f"{head.name} with {head.n_vertices}")
        sizes = p["shape"].shape[0] <= head.n_shape and p["expr"].shape[1] <= head.n_expr
        if sizes and vertices in (None, head.n_vertices):
            break
    else:
        raise InputError(
            f"{fit.folder}: the run does not name its head model; it has {vertices} vertices, {p['shape'].shape[0]} "
            f"components of shape and {p['expr'].shape[1]} of expression. Found: {', '.join(dict.fromkeys(found))} "
            "vertices. Give the model with --head, or the folder of FLAME's files with --flame-dir."
        )
    say(f"{fit.folder}: the run does not name its head model, taken for {head.name}")
    offset = p["static_offset"] if p["static_offset"].shape[1] > 1 else np.zeros((1, head.n_vertices, 3), np.float32)
    named = {"head_name": head.name, "head_hash": head.file_hash, "head_identity": dict(head.identity)}
    return replace(fit, parameters=p | {"static_offset": offset}, **named), head  # type: ignore[arg-type]


def open_epoch(fit: FitResult, epoch: int) -> FitResult:
    """The fit with the parameters that were saved after `epoch`."""
    root = fit.folder or Path()
    path = root / f"tracked_flame_params_{epoch}.npz"
    if not path.is_file():
        found = ", ".join(map(str, epochs_of(root)))
        raise InputError(f"{path}: no such file. Epochs that were saved: {found or 'none'}.")
    if not fit.head_hash:
        return load_run(root, epoch)
    arrays = read_npz(path, FIT_AGAIN)
    parameters, head_from_world = checked_parameters(path, arrays)
    focal = float(arrays["focal_length"].reshape(-1)[0]) if "focal_length" in arrays else fit.focal_length
    return replace(fit, parameters=parameters, head_from_world=head_from_world, focal_length=focal)


def fit_input_record(fit_folder: Path, output_folder: Path) -> InputRecord:
    """A fit as the input of another stage: only its parameters and texture count, not its pictures and reports."""
    files = sorted(fit_folder.glob("tracked_flame_params*.npz")) + [fit_folder / "texture.png"]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            digest.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
    return input_record(fit_folder, output_folder, digest.hexdigest())
