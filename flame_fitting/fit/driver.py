"""Runs a fit's stages, each by its solver. A stage may only improve: it is measured, and taken back if it does not."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.keeping import Clock, Keeper
from flame_fitting.fit.keyframes import check_keyframes, first_with_face, keyframes
from flame_fitting.fit.loss_curve import LossCurve
from flame_fitting.fit.not_at_rest import in_a_line
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import with_frames
from flame_fitting.fit.pictures import ZOOMED
from flame_fitting.fit.quality import Quality, in_words, measure, picture_error, worsened
from flame_fitting.fit.repair import Repair, repair, repair_dynamic, said
from flame_fitting.fit.result import StageRecord
from flame_fitting.fit.schedule import effective_pipeline
from flame_fitting.fit.solvers import adam, bake, closed_form, focal, points, registration, second_order
from flame_fitting.fit.solvers.interface import Diverged, Solver, Stage
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState, Underway

SOLVERS: dict[str, Solver] = {
    "closed_form": closed_form.solve,
    "gauss_newton": second_order.solve,
    "bake": bake.solve,
    "adam": adam.solve,
    "registration": registration.solve,
    "focal": focal.solve,
    "points": points.solve,
}
"""By their names in the options."""


def run_stages(
    state: FitState,
    seen: Observations,
    config: FitConfig,
    device: torch.device | None = None,
    keep: Callable[[FitState], None] | None = None,
) -> FitState:
    """Runs all stages that the state has not behind it, on a device (the CPU by default); the result is on the CPU.

    `keep` is shown the state, on the CPU, after every stage, and in the middle of long ones: whoever saves it can go on
    from there.
    """
    device, cpu = device or torch.device("cpu"), torch.device("cpu")
    state, seen = state.to(device), seen.to(device)
    done = {record.name for record in state.records}
    clock = Clock(config.exp.checkpoint_seconds)
    if config.over_time:
        check_keyframes(config.exp.keyframes, seen.timesteps, seen.valid)
    has_geometry = any(target.surface is not None for target in seen.targets)
    stages = effective_pipeline(config, has_geometry, state.scale.held, seen.timesteps)
    if not stages:
        begun = f"--begin_stage {config.begin_stage}" if config.begin_stage is not None else "The pipeline"
        raise InputError(
            f"{begun}: no stage is left to run with these options. Begin earlier, or leave some of them out."
        )
    if config.exp.keyframes and config.over_time and all(settings.frames != "keyframes" for _, settings in stages):
        progress.say("--exp.keyframes has no effect here: no stage of this fit looks at keyframes")
    _tell_of_idle_points(seen, config, stages)
    for number, (name, settings) in enumerate(stages):
        if "dynamic_offset" in settings.optimizable_params:
            state = replace(state, parameters=state.parameters.with_dynamic_offset())
        # before the stage `state` is what a checkpoint in its middle goes back to
        before = replace(state, underway=None)
        losses = LossCurve()
        keeper = Keeper(keep, clock, before, name, losses=losses) if keep is not None else None
        later = any(_finds_motion(after, seen, config) for _, after in stages[number + 1 :])
        stage = Stage(name, settings, config, losses, keeper, steadied=not later)
        if name in done or ("pictures" in settings.looks_at and seen.rasterizer is None):
            continue
        state = run_stage(state, seen, stage)
        if keep is not None:
            keep(state.to(cpu))
            clock.restart()
    if config.render.lighting_space == "camera" and not seen.lit:
        # light that turns with the cameras is no light of the head: the result has what the pictures show instead
        state = replace(state, lights=None, texture_is_final=False)
    if seen.rasterizer is not None and not state.texture_is_final:
        with progress.stage("texture", part=True), progress.Bar(1, "texture", "step") as shown:
            last = Stage("texture", StageConfig(solver="bake"), config)
            state = bake.solve(state, _through_cameras(seen, state, last), last, shown)
    return state.to(cpu)


def _finds_motion(stage: StageConfig, seen: Observations, config: FitConfig) -> bool:
    """Whether a stage finds by second order how all timesteps move."""
    if stage.frames != "global" or (stage.solver == "points" and points.hindrance(seen, config) is not None):
        return False
    return stage.solver in ("gauss_newton", "points") and bool({"pose", "expr"} & set(stage.optimizable_params))


def _tell_of_idle_points(seen: Observations, config: FitConfig, stages: list[tuple[str, StageConfig]]) -> None:
    """Says, once, which stages can follow no points of the skin, and why."""
    idle: dict[str, list[str]] = {}
    for name, settings in stages:
        if settings.solver != "points":
            continue
        why = points.hindrance(seen, config)
        if why is None and settings.frames in ("first", "sequential"):
            why = f"--pipeline.{name.replace('_', '-')}.frames {settings.frames} looks at single timesteps"
        if why is not None:
            idle.setdefault(why, []).append(name)
    for why, names in idle.items():
        progress.say(f"points of the skin are not followed, {' and '.join(names)} change nothing: {why}")


def run_stage(state: FitState, seen: Observations, stage: Stage) -> FitState:
    """One stage, by its solver: measured, its folds repaired, and taken back as a whole where it is worse."""
    with progress.stage(stage.name, part=True) as line:
        state = _run_stage(state, seen, stage)
        record = state.records[-1]
        line.result(("" if record.accepted else "taken back: ") + in_words(record.summary))
    return state


def _run_stage(state: FitState, seen: Observations, stage: Stage) -> FitState:
    looks = stage.settings.solver == "adam" and "pictures" in stage.settings.looks_at
    left, state = state.underway, replace(state, underway=None)
    before, started, trouble = _measured(state, seen, looks), time.perf_counter(), ""
    found, after, repaired = state, before, list[Repair]()
    batches = frames_of(stage, seen, state)
    with progress.Bar(stage.steps(len(batches[0])) * len(batches), stage.name, "step") as shown:
        try:
            mine = left if left is not None and left.stage == stage.name else None
            found = _solved(state, seen, stage, batches, shown, mine)
        except Diverged as error:
            trouble = str(error)
    if not trouble and not all(bool(torch.isfinite(value).all()) for value in found.parameters.items().values()):
        trouble = "the parameters are no longer finite"
    zoomed = float(found.parameters.log_focal[0].exp())
    if not trouble and max(zoomed, 1 / zoomed) > 0.8 * ZOOMED:  # pictures are not drawn from much farther away
        trouble = f"it went to a focal length of {zoomed:.2g} times the assumed one"
    if not trouble:
        for mend in (repair, repair_dynamic):
            repaired.append(mend(seen.head, found.parameters, seen.targets, seen.surface))
            found = replace(found, parameters=repaired[-1].parameters)
        after = _measured(found, seen, looks)
        trouble = worsened(before, after) or ""
    if found.active and found.active != state.active:
        found = _told_of_expression(found, seen, stage.config)
    if trouble:
        found, after, repaired = _warned(state, f"stage {stage.name} was rolled back: {trouble}"), before, []
    for done in repaired:
        found = _told_of_repair(found, seen, stage, done)
    smoothed = np.flatnonzero(np.any([done.smoothed for done in repaired], axis=0)).tolist() if repaired else []
    return recorded(found, stage.name, time.perf_counter() - started, after, not trouble, smoothed, stage.losses)


def frames_of(stage: Stage, seen: Observations, state: FitState) -> list[list[int]]:
    """The timesteps that a stage sees, one batch after the other."""
    rows, wanted = list(range(seen.timesteps)), stage.settings.frames
    if wanted == "first":
        return [[first_with_face(seen)]]
    if wanted == "keyframes":
        return [sorted(stage.config.exp.keyframes) or keyframes(seen, state.parameters, stage.config.batch_size)]
    return [[row] for row in rows] if wanted == "sequential" else [rows]


def _solved(
    state: FitState,
    seen: Observations,
    stage: Stage,
    batches: list[list[int]],
    shown: progress.Bar,
    left: Underway | None = None,
) -> FitState:
    """The state after a stage's solver, over `batches` of timesteps; what it does to its tensors stays its own.

    In sequence, each timestep starts from the one before where no stage has seen it yet. What was `left` of an earlier
    run is taken up.
    """
    solve, timesteps, keeper = SOLVERS[stage.settings.solver], state.parameters.timesteps, stage.keeper
    valid = seen.valid
    seen_before = any(_saw_all(record.name, stage) for record in state.records)
    if left is not None:
        stage.losses.points[:] = left.losses
        state = state if left.found is None else left.found
        shown.skip(left.batch * stage.steps(len(batches[0])))
    for number, rows in enumerate(batches):
        if left is not None and number < left.batch:
            continue
        underway = left if left is not None and number == left.batch and left.step else None
        stage.losses.begin = number * stage.steps(len(batches[0]))
        if keeper is not None and number > 0:
            keeper = replace(keeper, batch=number, found=state)
            if keeper.due():
                keeper.keep(0, {})
        stage = replace(stage, keeper=keeper)
        if len(rows) == timesteps:
            whole = replace(state, parameters=state.parameters.clone(), underway=underway)
            return replace(solve(whole, _through_cameras(seen, state, stage), stage, shown), underway=None)
        start = state.parameters.of_frames(rows)
        if stage.settings.frames == "sequential":
            before = state.parameters.of_frames([rows[0] - 1]) if number > 0 else None
            if before is not None and not seen_before:
                start = before
            stage = replace(stage, before=before, place=rows[0])
            if not valid[rows[0]]:
                state = replace(state, parameters=state.parameters.with_frames(rows, start))
                continue
            if number + 1 < len(batches) and seen.pictures is not None:
                seen.pictures.prefetch(seen.pictures.rows(batches[number + 1]))
        shows = _through_cameras(seen.of_frames(rows), state, stage)
        found = solve(replace(state, parameters=start, underway=underway), shows, stage, shown)
        uncertainty = state.uncertainty
        if found.uncertainty is not uncertainty:  # that solver has some of its own
            uncertainty = with_frames(uncertainty, rows, found.uncertainty, timesteps)
        # those before the first with a face begin where it is
        reached = range(rows[0] + 1) if stage.settings.frames == "first" else rows
        parameters = state.parameters.with_frames(reached, found.parameters)
        state = replace(found, parameters=parameters, uncertainty=uncertainty, underway=None)
    return state


def _through_cameras(seen: Observations, state: FitState, stage: Stage) -> Observations:
    """Observations through cameras with the focal length so far; solvers that look for it are given the assumed one."""
    if stage.settings.solver in ("gauss_newton", "focal", "points"):
        return seen
    return seen.zoomed(float(state.parameters.log_focal[0]))


def _saw_all(name: str, stage: Stage) -> bool:
    """Whether a stage that has run saw all timesteps."""
    settings = dict(stage.config.pipeline.items()).get(name)
    return settings is not None and settings.frames in ("sequential", "global")


def recorded(
    state: FitState,
    name: str,
    seconds: float,
    quality: Quality,
    accepted: bool = True,
    smoothed: list[int] | None = None,
    losses: LossCurve | None = None,
) -> FitState:
    """The state with a note of what a stage left behind."""
    parameters = state.parameters.to("cpu")
    record = StageRecord(
        name,
        parameters,
        state.reference_from_world,
        seconds,
        quality.as_dict(),
        accepted,
        smoothed or [],
        losses.thinned() if losses is not None else [],
    )
    return state.recorded(record)


def _told_of_repair(state: FitState, seen: Observations, stage: Stage, repaired: Repair) -> FitState:
    if not repaired.smoothed.any():
        return state
    text = f"{stage.name}: {said(seen.head, repaired)}"
    if repaired.faded.any():
        return _warned(state, text)
    progress.say(text)
    return state


def _told_of_expression(state: FitState, seen: Observations, config: FitConfig) -> FitState:
    """What of the face is not at rest, and who takes it up."""
    said = f"not at rest: {in_a_line(state.active or (), seen.timesteps > 1)}"
    if config.neutral:
        return _warned(state, f"{said}. With --neutral identity and offsets take it up; leave --neutral out.")
    progress.say(f"{said}. {'Eyelids and expression take' if seen.head.n_eyelids else 'The expression takes'} it up")
    return state


def _warned(state: FitState, text: str) -> FitState:
    progress.warn(text)
    return state.warned(text)


def _measured(state: FitState, seen: Observations, looks: bool) -> Quality:
    """How good the fit is, by its pictures too where a stage looks at them and there is no surface to measure to."""
    quality = measure(seen.head, state.parameters, seen.targets)
    if looks and np.isnan(quality.face_mm) and seen.pictures is not None and state.parameters.timesteps == 1:
        assert seen.rasterizer is not None and seen.texels is not None
        vertices = state.parameters.vertices(seen.head)[0].detach()
        error = picture_error(seen.rasterizer, seen.head, vertices, seen.pictures, seen.texels)
        quality = replace(quality, picture=error)
    return quality
