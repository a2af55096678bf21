"""Refuses options that contradict each other or mean nothing; ranges stand with the options. No heavy import here."""

import difflib
from collections.abc import Iterable, Iterator

from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.scale import contradiction
from flame_fitting.fit.stage_config import GROUPS, StageConfig
from flame_fitting.options import flag, refusals
from flame_fitting.shared_options import AUTO_DETECTOR, BOTH_DETECTORS

_CAN_MOVE: dict[str, tuple[str, ...]] = {
    "closed_form": ("cam", "pose", "scale"),
    "focal": ("cam", "pose"),
    "gauss_newton": ("cam", "pose", "scale", "joints", "shape", "expr"),
    "bake": ("texture", "lights"),
    "registration": ("static_offset",),
}
"""Groups that a solver can move; Adam can move all."""


def check(config: FitConfig) -> None:
    """Raises InputError with the first problem."""
    problem = next(_problems(config), None)
    if problem is not None:
        raise InputError(problem)


def _problems(config: FitConfig) -> Iterator[str]:
    yield from _contradictions(config)
    names = [name for name, _ in config.pipeline.items()]
    if config.begin_stage is not None and config.begin_stage.replace("-", "_") not in names:
        yield f"--begin-stage {config.begin_stage}: no such stage.{_close(config.begin_stage, names)}"
    yield from refusals(config)
    for name, stage in config.pipeline.items():
        yield from _stage_problems(name, stage)


def _contradictions(config: FitConfig) -> Iterator[str]:
    if config.neutral and config.expressive:
        yield "--neutral and --expressive contradict each other. Give one of them."
    yield from _several(config)
    if text := contradiction(config.scale, config.unit):
        yield text
    folders = {config.output, config.exp.output_folder} - {None}
    if len(folders) > 1:
        yield "--output and --exp.output-folder name two folders. Give one of them."
    for name in ("sequence", "subject"):
        if getattr(config.data, name) and config.data.root_folder is None:
            yield f"--data.{name} needs --data.root-folder. Give both, or the capture's path alone."
    data = config.data
    names = data.landmark_source
    if not names or len(set(names)) < len(names):
        yield f"--data.landmark-source {' '.join(names)}: give one or several sources, each once."
    if len(names) > 1 and {AUTO_DETECTOR, BOTH_DETECTORS} & set(names):
        yield f"--data.landmark-source {' '.join(names)}: auto and both stand alone. Name the detectors."
    if data.detector_weights and len(data.detector_weights) != len(names):
        count = f"{len(data.detector_weights)} weights for {len(names)} named sources"
        yield f"--data.detector-weights: {count}. Give one for each, or leave it out."
    if not config.detect and not config.exp.reuse_landmarks:
        yield "--no-detect and --exp.no-reuse-landmarks leave no landmarks. Give one of them."


def _several(config: FitConfig) -> Iterator[str]:
    if config.over_time:  # refused as a whole
        return
    every = (config.capture, *config.others)
    if config.others and not config.same_identity:
        yield (
            f"{len(every)} captures are given ({', '.join(map(str, every))}). If they show one person, add "
            "--same-identity; else fit each by itself."
        )
    if config.same_identity and not config.others:
        yield "--same-identity: one capture is given. Give two of one person: fit A B --same-identity --output O."
    if not config.others:
        return
    if config.output is None and config.exp.output_folder is None:
        yield "--same-identity: several captures have no common folder to name the fit for. Give it with --output."
    twice = [path for number, path in enumerate(every) if path.resolve() in {one.resolve() for one in every[:number]}]
    if twice:
        yield f"{twice[0]}: is given twice. Give each capture once."
    if config.neutral:
        yield "--neutral and --same-identity contradict each other: what differs between captures is expression."


def _stage_problems(name: str, stage: StageConfig) -> Iterator[str]:
    prefix = flag(f"pipeline.{name}")
    fixed = [group for group in stage.optimizable_params if group not in _CAN_MOVE.get(stage.solver, GROUPS)]
    if stage.runs and fixed and fixed[0] in GROUPS:
        others = [solver for solver, groups in _CAN_MOVE.items() if set(stage.optimizable_params) <= set(groups)]
        yield f"{prefix}.solver {stage.solver}: it cannot move {fixed[0]}. Use {' or '.join([*others, 'adam'])}."
    for group in stage.optimizable_params:
        if group not in GROUPS:
            yield f"{prefix}.optimizable-params {group}: no such group.{_close(group, GROUPS)}"


def _close(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), list(names), n=1)
    return f" Did you mean {close[0]}?" if close else f" There are: {', '.join(names)}."
