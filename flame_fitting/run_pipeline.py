"""`run`: render, detect, fit, export and evaluate in one command, going on where an earlier run stopped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from flame_fitting import progress, stopping
from flame_fitting.errors import InputError
from flame_fitting.export_as_nerf_dataset import ExportConfig
from flame_fitting.files import read_json_object
from flame_fitting.fit.config import ExperimentConfig, FitConfig, ModelConfig, PresetName, ScaleOptions
from flame_fitting.fit.scale import contradiction
from flame_fitting.folders import locked_folder
from flame_fitting.manifest import MANIFEST_NAME, Manifest, check_output_folder, compare, config_as_dict, read_manifest
from flame_fitting.options import PLACE, not_deciding, option, own_first, place, refusals, values_of
from flame_fitting.render_avatar import PictureOptions
from flame_fitting.shared_options import (
    ComputeOptions,
    DetectorOptions,
    DetectorWeights,
    FaceFinderWeights,
    HeadOptions,
    OutputOptions,
)


@own_first
@dataclass
class RunConfig(PictureOptions, ScaleOptions, HeadOptions, DetectorOptions, ComputeOptions, OutputOptions):
    """All of it: an avatar in, a fitted head and a NeRF-style dataset out."""

    avatar: tyro.conf.Positional[Path] = field(metadata=place("file"))
    """Avatar file: .glb .vrm .gltf .obj .ply .stl .off, or splats: .ply .splat .spz"""
    output: Path = field(metadata=PLACE)
    """Folder for the results; gets render/, fit/ and export/."""
    preset: PresetName = FitConfig.preset
    """How the head is fitted: static, fast (a first look), high (slow, closer) or vhap (VHAP's own schedule)."""
    neutral: tyro.conf.FlagCreatePairsOff[bool] = FitConfig.neutral
    """The face is at rest: no expression, closed jaw."""
    expressive: tyro.conf.FlagCreatePairsOff[bool] = FitConfig.expressive
    """The face may be far from rest."""
    add_teeth: Annotated[bool, tyro.conf.arg(aliases=["--model.add-teeth"])] = ModelConfig.add_teeth
    """Give FLAME heads teeth; other heads stay as they are."""
    photometric: bool = ExperimentConfig.photometric
    """Fit colours too: slower, closer."""
    use_static_offset: bool = ModelConfig.use_static_offset
    """Move single vertices where the head model cannot follow."""
    background_color: Literal["white", "black"] = "white"
    """Background of the exported pictures."""
    mask_below_line: bool = ExportConfig.mask_below_line
    """Cut exported pictures below the neck line."""
    ground_truth: Path | None = option(None, reads="file or folder")
    """Folder of the true head, where it is known; found by itself beside a demo avatar."""
    others: tyro.conf.Positional[tuple[Path, ...]] = option((), decides=False, reads="file")
    """Further avatars of the same person, with other expressions: all are fitted together (fit --same-identity)."""


@dataclass
class RunResult:
    """Where everything is."""

    output: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    """Contents of fit/metrics.json."""
    ran: list[str] = field(default_factory=list)
    """Stages that ran."""
    reused: list[str] = field(default_factory=list)
    """Stages whose earlier result was taken."""
    warnings: list[str] = field(default_factory=list)
    """Warnings of the fit."""


@dataclass
class Step:
    """One stage of the chain with its configuration for this run."""

    name: str
    module: Any
    """The stage's module; has `plan(config)`, the manifest of what decides its result."""
    function: Callable[[Any, Manifest | None], Any]
    """The stage itself: takes its configuration and the plan of this very moment, or None."""
    config: Any
    folder: Path
    """Where its manifest lies."""


_WRITE_BESIDE_OTHERS = ("detect", "evaluate")
"""Stages whose folder may hold what a user put there."""


@progress.once()
def run(config: RunConfig, *, export: bool = True) -> RunResult:
    """Runs the chain. A stage is reused if all that decides its result is equal; after the first other one, all run.

    `export` False leaves the dataset out.
    """
    check_folder(config.output, config.force)
    _check_flags(config)
    own = Manifest(stage="run", config=config_as_dict(config), seeds={"seed": config.seed})
    result = RunResult(config.output)
    with locked_folder(config.output, force=True):  # checked above, by the rules of this stage
        steps = chain(config, export)
        for step in steps:
            beside = step.name in _WRITE_BESIDE_OTHERS
            check_output_folder(step.folder, config.force or beside, step.name)
        first = steps[0].module.plan(steps[0].config)  # refuses a bad avatar before anything is written
        with stopping.leaves(lambda: f"Finished: {', '.join(done)}." if (done := result.reused + result.ran) else None):
            _run_steps(steps, first, own, config, result)
        own.finished = True
        own.write(config.output)
    result.metrics = _read_metrics(config.output / "fit")
    result.warnings = [str(text) for text in result.metrics.get("warnings", [])]
    _show(result)
    return result


def chain(config: RunConfig, export: bool = True) -> list[Step]:
    """The stages with what this run asks of them."""
    from flame_fitting import detect_landmarks, evaluate, export_as_nerf_dataset, fit_avatar, render_avatar

    fit, dataset = config.output / "fit", config.output / "export"
    captures = capture_folders(config)
    steps = []
    for avatar, render in captures.items():
        render_config = render_avatar.RenderConfig(
            avatar=avatar,
            output=render,
            **values_of(config, PictureOptions, HeadOptions, FaceFinderWeights, ComputeOptions, OutputOptions),
        )
        detect_config = detect_landmarks.DetectConfig(render, **values_of(config, DetectorOptions))
        landmarks = render / detect_landmarks.LANDMARK_FOLDER
        steps.append(Step("render", render_avatar, render_avatar.render, render_config, render))
        steps.append(Step("detect", detect_landmarks, detect_landmarks.detect, detect_config, landmarks))
    export_config = export_as_nerf_dataset.ExportConfig(
        src_folder=fit,
        tgt_folder=dataset,
        background_color=config.background_color,
        mask_below_line=config.mask_below_line,
        **values_of(config, OutputOptions),
    )
    fit_config = _fit_config(config, list(captures.values()), fit)
    steps.append(Step("fit", fit_avatar, partial(fit_avatar.fit, evaluate=False), fit_config, fit))
    if export:
        steps.append(Step("export", export_as_nerf_dataset, export_as_nerf_dataset.export, export_config, dataset))
    return [
        *steps,
        Step("evaluate", evaluate, evaluate.evaluate, _evaluate_config(config, fit), fit / evaluate.REPORT_FOLDER),
    ]


def capture_folders(config: RunConfig) -> dict[Path, Path]:
    """Where each avatar is rendered to: render/ of one alone, else render_<name>/."""
    if not config.others:
        return {config.avatar: config.output / "render"}
    out: dict[Path, Path] = {}
    for avatar in (config.avatar, *config.others):
        count = sum(other.stem == avatar.stem for other in out)
        out[avatar] = config.output / (f"render_{avatar.stem}" + (f"_{count + 1}" if count else ""))
    return out


def _fit_config(config: RunConfig, captures: list[Path], folder: Path) -> Any:
    from flame_fitting.fit.presets import preset

    fit = replace(
        preset(config.preset, captures[0]),
        output=folder,
        others=tuple(captures[1:]),
        same_identity=len(captures) > 1,
        neutral=config.neutral,
        expressive=config.expressive,
        **values_of(config, ScaleOptions, HeadOptions, DetectorWeights, ComputeOptions, OutputOptions),
    )
    fit.data.landmark_source = (config.detector,)
    fit.model.add_teeth = config.add_teeth
    fit.model.use_static_offset &= config.use_static_offset
    fit.exp.photometric &= config.photometric
    return fit


def _evaluate_config(config: RunConfig, fit: Path) -> Any:
    from flame_fitting.evaluate import EvaluateConfig

    return EvaluateConfig(fit=fit, ground_truth=config.ground_truth or find_ground_truth(config.avatar))


def find_ground_truth(avatar: Path) -> Path | None:
    """The true head beside a demo avatar."""
    made = read_manifest(avatar.parent)
    path = avatar.parent / "ground_truth.npz"
    return path if made is not None and made.stage == "make-demo-avatar" and path.is_file() else None


def what_differs(step: Step, plan: Manifest) -> str | None:
    """One line that says why a stage's earlier result cannot be taken for what `plan` asks; None if it can."""
    return compare(read_manifest(step.folder), plan, not_deciding(type(step.config)))


def check_folder(folder: Path, force: bool = False) -> None:
    """Raises InputError unless `folder` is absent, empty, ours, or holds nothing but results of ours."""
    ours = folder.is_dir() and all((entry / MANIFEST_NAME).is_file() for entry in _visible(folder))
    held = read_manifest(folder) if folder.is_dir() and not force else None
    check_output_folder(folder, force or (ours and held is None), "run")


def _run_steps(steps: list[Step], first: Manifest, own: Manifest, config: RunConfig, result: RunResult) -> None:
    """Runs what is not reused, and says which is which. `first` is the plan of the first stage.

    A stage is planned once: what its inputs were compared by is what it runs with.
    """
    plan: Manifest | None = first
    for number, step in enumerate(steps, start=1):
        with progress.step_of(number, len(steps)):
            if not result.ran and not config.force:
                plan = plan or step.module.plan(step.config)
                difference = what_differs(step, plan)
                if difference is None:
                    progress.say(progress.labelled(f"{step.name}: reused, nothing differs ({step.folder})"))
                    result.reused.append(step.name)
                    plan = None
                    continue
                if read_manifest(step.folder) is not None:
                    progress.say(progress.labelled(f"{step.name}: running from here again: {difference}"))
            step.function(step.config, plan)
            plan = None
            result.ran.append(step.name)
            if number == 1 or not (config.output / MANIFEST_NAME).is_file():
                own.write(config.output)  # the folder is known as ours once it holds a finished stage


def _check_flags(config: RunConfig) -> None:
    for problem in refusals(config):
        raise InputError(problem)
    if config.neutral and config.expressive:
        raise InputError("--neutral and --expressive exclude each other. Give one of them.")
    if text := contradiction(config.scale, config.unit):
        raise InputError(text)
    every = (config.avatar, *config.others)
    for number, avatar in enumerate(every):
        if not avatar.is_file():
            raise InputError(f"{avatar}: no such file. Check the path of the avatar.")
        if avatar.resolve() in {other.resolve() for other in every[:number]}:
            raise InputError(f"{avatar}: is given twice. Give each avatar once.")
    if config.others:
        _check_distinct(every)
    if config.others and config.neutral:
        raise InputError(
            "--neutral and several avatars contradict each other: what differs between them is expression."
        )


def _check_distinct(avatars: Sequence[Path]) -> None:
    from flame_fitting.avatar.files_of import hash_avatar

    known: dict[str, Path] = {}
    for avatar in avatars:
        other = known.setdefault(hash_avatar(avatar), avatar)
        if other is not avatar:
            raise InputError(f"{other} and {avatar} are the same, byte for byte. Give each avatar once.")


def _show(result: RunResult) -> None:
    """The table, where it was not printed by this run, and where everything lies."""
    fit, dataset = result.output / "fit", result.output / "export"
    if "evaluate" in result.reused:
        from flame_fitting.report.tables import metrics_table

        progress.result(metrics_table(result.metrics))
        for text in result.warnings:
            progress.warn(text)
    places = [("pictures", fit / "overlays"), ("report", fit / "report.html"), ("mesh", fit / "fitted.obj")]
    if dataset.is_dir():
        places.append(("dataset", dataset))
    progress.result("\n" + "\n".join(f"{name:<9} {path}" for name, path in places))


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "log.txt"]


def _read_metrics(fit: Path) -> dict[str, Any]:
    return read_json_object(fit / "metrics.json", f"Run again: flame-fitting evaluate {fit}")


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("run")
