"""`convert`: FLAME parameters in the words of another program."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.export.dialects.vocabulary import DialectName
from flame_fitting.files import sha256_of_file
from flame_fitting.manifest import Manifest, config_as_dict, input_record
from flame_fitting.options import PLACE, option, own_first, place, refusals
from flame_fitting.shared_options import FlameFolder

if TYPE_CHECKING:
    from flame_fitting.export.dialects.conversion import HeadOf
    from flame_fitting.export.dialects.dialect import Dialect
    from flame_fitting.export.dialects.parameters import FlameParams
    from flame_fitting.head.model import HeadModel

_SUFFIXES = (".npz", ".frame")


@own_first
@dataclass
class ConvertConfig(FlameFolder):
    """Options of `flame-fitting convert`."""

    input: tyro.conf.Positional[Path] = field(metadata=place("file or folder"))
    """File of FLAME parameters (.npz, .frame, .json), or a folder: a file per timestep, a run, an exported data set."""
    output: Path = field(metadata=PLACE)
    """File to write (.npz or .frame), or a folder for one file per timestep."""
    to: DialectName
    """Whose parameters to write."""
    source: Annotated[Literal["auto"] | DialectName, tyro.conf.arg(name="from")] = "auto"
    """Whose they are; auto: by the names in the file."""
    head: str | None = None
    """Head model of the parameters: needed where the head turns about another point, and for offsets in smplx."""
    timestep: int | None = None
    """Only this timestep, counted from 0."""
    camera_space: tyro.conf.FlagCreatePairsOff[bool] = False
    """From metrical-tracker: take the camera as the world (x right, y up, z back). Its mesh stands still otherwise."""
    camera: str | None = None
    """To metrical-tracker, of a fit to several cameras: the one whose pictures are written (name or number). By default
    the one before the face."""
    capture_folder: Path | None = option(None, decides=False, reads="folder")
    """Where the capture of a fit lies, if it is not where the fit left it."""
    force: bool = option(False, decides=False)
    """Write over a file, or into a folder that was not made by this program."""


@dataclass
class Conversion:
    """What was written."""

    output: Path
    timesteps: int
    source: str
    """The dialect that was read."""
    warnings: list[str] = field(default_factory=list)


def convert(config: ConvertConfig) -> Conversion:
    """Writes the parameters; raises InputError where they cannot be read or the output cannot hold them."""
    for problem in refusals(config):
        raise InputError(problem)

    from flame_fitting import progress
    from flame_fitting.export.dialects.conversion import adapted
    from flame_fitting.export.dialects.registry import dialect_named, read_parameters

    with progress.stage("convert") as line:
        target = dialect_named(config.to)
        manifest = plan(config)
        if _is_for_insta(config):
            converted = _for_insta(config, manifest)
            line.result(f"{converted.timesteps} timestep(s), with pictures and meshes -> {config.output}")
            for text in converted.warnings:
                progress.warn(text)
            return converted
        if config.camera is not None:
            raise InputError("--camera: cameras are written of a fit alone, to metrical-tracker, into a folder.")
        params, source = read_parameters(
            config.input, None if config.source == "auto" else config.source, config.timestep
        )
        _check_output(config, params.count, target)
        if config.camera_space:
            params = _in_camera(config, params, source)
        params, warnings = adapted(params, source, target, _head_of(config, params, source))
        if source.name == "metrical-tracker" != target.name and not config.camera_space:
            warnings.append("the head stands still and its camera is left out; --camera-space keeps the head's motion")
        warnings += manifest.finish(lambda: plan(config))
        _write(config, params, target, manifest)
        line.result(f"{params.count} timestep(s), {source.name} to {target.name} -> {config.output}")
    for text in warnings:
        progress.warn(text)
    return Conversion(config.output, params.count, source.name, warnings)


def plan(config: ConvertConfig) -> Manifest:
    """What decides the result, for folders that `convert` writes."""
    from flame_fitting.export.dialects.places import parameter_files

    digest = hashlib.sha256()
    for file in parameter_files(config.input):
        digest.update(f"{file.name}\0{sha256_of_file(file)}\n".encode())
    return Manifest(
        stage="convert",
        config=config_as_dict(config),
        inputs={"parameters": input_record(config.input, config.output, digest.hexdigest())},
    )


def _is_for_insta(config: ConvertConfig) -> bool:
    """Whether a whole fit becomes metrical-tracker's folder, with all that INSTA reads of it."""
    from flame_fitting.fit.places import FLAT_NAME

    wanted = config.to == "metrical-tracker" and config.timestep is None and not config.output.suffix
    return wanted and config.source in ("auto", "vhap") and (config.input / FLAT_NAME).is_file()


def _for_insta(config: ConvertConfig, manifest: Manifest) -> Conversion:
    from flame_fitting import progress
    from flame_fitting.capture.camera_names import camera_called
    from flame_fitting.export.tracker_folder import write_tracker_folder
    from flame_fitting.fit.sources import open_fit
    from flame_fitting.folders import check_apart, staged_folder
    from flame_fitting.report.sampling import frontal_cameras, head_at

    fit, head, capture = open_fit(config.input, config.capture_folder, config.head, config.flame_dir)
    ids = {camera: capture.camera_ids[camera] for camera in capture.cameras}
    if config.camera is not None:
        camera = camera_called(config.camera, ids, "--camera")
    else:
        camera = frontal_cameras(capture, head_at(fit, 0), 1)[0]
    check_apart(config.output, [config.input, capture.root])
    stale = ("checkpoint", "mesh", "depth", "input", "canonical.obj")
    with staged_folder(config.output, config.force, stale, "convert") as folder:
        count = sum(view.camera == camera for view in capture.views)
        with progress.Bar(count, "convert", "timestep") as bar:
            write_tracker_folder(folder, fit, head, capture, camera, bar.advance)
        warnings = manifest.finish(lambda: plan(config))
        manifest.write(folder)
    if not head.name.startswith("flame"):
        warnings.append(
            f"the head model is {head.name}, not FLAME: INSTA's simplification.py cannot be run on these meshes, "
            "since it knows FLAME's triangles alone"
        )
    return Conversion(config.output, count, "vhap", warnings)


def _in_camera(config: ConvertConfig, params: "FlameParams", source: "Dialect") -> "FlameParams":
    from flame_fitting.export.dialects.metrical_tracker import head_in_camera

    if source.name != "metrical-tracker" or "world_to_camera" not in params.extras:
        raise InputError(f"--camera-space: {config.input} has no camera of metrical-tracker. Leave the flag out.")
    return head_in_camera(params)


def _head_of(config: ConvertConfig, params: "FlameParams", source: "Dialect") -> "HeadOf":
    """The head model of the parameters, loaded only when it is asked for."""
    recorded = params.head_model

    def head_of(why: str) -> "HeadModel":
        from flame_fitting.export.dialects.conversion import HeadNotFoundError
        from flame_fitting.head.flame_files import read_flame
        from flame_fitting.head.model import HeadModel

        spec = config.head or (recorded[0] if recorded is not None else source.flame)
        try:
            files = assets.find_head(spec or "", config.flame_dir)
        except InputError as error:
            if config.head is not None or config.flame_dir is not None:
                raise
            raise HeadNotFoundError(
                f"{config.input}: {why}. Give the FLAME file of the parameters: --head PATH."
            ) from error
        head = HeadModel(read_flame(files.path, files.name)).double()
        if recorded is not None and recorded[1] != head.file_hash:
            raise InputError(
                f"{config.input}: was made with another file of the head model {recorded[0]} than {files.path}. "
                "Give that one: --head PATH."
            )
        return head

    return head_of


def _check_output(config: ConvertConfig, timesteps: int, target: "Dialect") -> None:
    """Refuses an output that this dialect cannot be written to."""
    from flame_fitting.export.dialects.places import parameter_files
    from flame_fitting.folders import check_apart

    output, files = config.output, parameter_files(config.input)
    is_file = output.suffix in _SUFFIXES
    check_apart(output, files if is_file or config.input.is_file() else {file.parent for file in files})
    if is_file:
        if output.suffix != target.suffix:
            raise InputError(f"--output {output}: files of {target.name} end in {target.suffix}.")
        if target.frame_per_file and timesteps > 1:
            raise InputError(
                f"--output {output}: a file of {target.name} holds one timestep, these are {timesteps}. "
                "Give a folder, or choose one with --timestep."
            )
        if output.exists() and not config.force:
            raise InputError(f"{output}: is there already. Choose another name, or add --force.")
        if output.is_dir() or not _can_be_made(output):
            raise InputError(f"{output}: cannot be written. Choose another place.")
    elif not target.frame_per_file and target.name != "vhap":
        raise InputError(f"--output {output}: {target.name} has one file for a sequence. Give a name ending in .npz.")


def _write(config: ConvertConfig, params: "FlameParams", target: "Dialect", manifest: Manifest) -> None:
    from flame_fitting.export.dialects import vhap
    from flame_fitting.folders import staged_folder

    output = config.output
    if output.suffix in _SUFFIXES:
        target.write(params, output)
        return
    stale = ("flame_param", "canonical_flame_param.npz")
    with staged_folder(output, config.force, stale, "convert") as folder:
        if target is vhap.DIALECT:
            vhap.write_folder(params, folder)
        else:
            for timestep in range(params.count):
                target.write(params.at(timestep), folder / f"{timestep:05d}{target.suffix}")
        manifest.write(folder)


def _can_be_made(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return path.parent.is_dir()


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("convert")
