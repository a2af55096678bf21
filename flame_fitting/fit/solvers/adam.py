"""First order: Adam on landmarks, surface and priors, and on pictures where the stage looks at them."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.bridging import bridged
from flame_fitting.fit.covered import covered_vertices
from flame_fitting.fit.keeping import Keeper
from flame_fitting.fit.lighting import turned_lights
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.priors import priors
from flame_fitting.fit.sanity import Watch, nothing_drawn_error
from flame_fitting.fit.solvers.adam_settings import photometric_config, photometric_weights
from flame_fitting.fit.solvers.batches import Batches
from flame_fitting.fit.solvers.changing import taken
from flame_fitting.fit.solvers.interface import Diverged, Stage
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig, PhotometricWeights
from flame_fitting.fit.solvers.photometric_step import PhotometricStep, Problem
from flame_fitting.fit.solvers.plateau import Plateau
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState, Underway
from flame_fitting.fit.texture import bake, complete
from flame_fitting.fit.views import ViewSet
from flame_fitting.fusion import reference_only
from flame_fitting.head.rotations import rotation_matrix

_COARSE = 512
"""Texels along an edge of a texture that only tells skin from hair."""


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """All that the stage's groups name, by the terms that its weights name, of what it looks at."""

    def report(number: int, loss: float | None) -> None:
        shown.advance()
        if loss is not None:
            stage.losses.add(number, loss)
            shown.note(loss=f"{loss:.3f}")

    config, settings, pictures = stage.config, stage.settings, "pictures" in stage.settings.looks_at
    rasterizer = seen.rasterizer
    if seen.pictures is None or rasterizer is None or seen.texels is None:
        raise InputError(
            f"stage {stage.name}: the head model {seen.head.name} has no texture coordinates. Use another preset."
        )
    gated = (*settings.align_texture_except, *settings.align_boundary_except)
    if missing := [region for region in dict.fromkeys(gated) if region not in seen.head.regions]:
        text = f"stage {stage.name}: the head model {seen.head.name} has no region {', '.join(missing)} to leave out"
        progress.warn(text)
    max_yaw, seeable = min(config.data.max_yaw, settings.max_yaw), seen.with_face
    views: ViewSet | Batches
    if pictures and len(seeable) > config.batch_size:
        generator = torch.Generator().manual_seed(config.seed)
        views = Batches(seen.pictures, seeable, config.batch_size, max_yaw, generator)
    else:
        # a picture without a head would draw it out of sight
        views = seen.pictures.batch(seen.pictures.rows(seeable or None, max_yaw))
    # a baked texture holds the light; one that was fitted together with a light shows it only under that light
    lit = state.lights is not None and config.model.tex_base != "baked"
    photometric = photometric_config(
        stage, views, rasterizer.device, is_sequence=seen.is_sequence, calibrated=seen.calibrated, lit=lit
    )
    lights = state.lights if photometric.lighting != "constant" else None
    if lights is not None and photometric.lighting_space == "world":
        lights = turned_lights(lights, rotation_matrix(state.parameters.placement[:3]).float())
    problem = Problem(
        rasterizer,
        seen.head,
        state.parameters,
        seen.targets,
        views,
        seen.surface,
        replace(priors(config), log_size=None) if seen.calibrated else priors(config),
        seen.texels,
        state.residual,
        lights,
        seen.name,
        stage.before,
        _covered(state, seen, settings) if pictures else None,
    )
    weights = photometric_weights(config, settings, ordered=not seen.moments)
    found = refine(problem, weights, photometric, config.seed, report, keeper=stage.keeper, left=state.underway)
    if found.trouble:
        raise Diverged(found.trouble)
    if found.skipped:
        at = "" if stage.place is None else f", timestep {stage.place}"
        done = photometric.steps - found.skipped
        progress.say(
            f"{stage.name}{at}: stopped after {done} of {photometric.steps} steps: the loss fell by less than "
            f"{100 * photometric.stop_below:g} % in {photometric.stop_window} steps"
        )
    parameters = bridged(state.parameters, found.parameters, np.array(seen.valid))
    if "static_offset" in settings.optimizable_params and seen.timesteps > 2:
        # how static and dynamic ones share what stays is told by nothing else
        parameters = parameters.at_rest()
    out = replace(state, parameters=parameters)
    if pictures and photometric.lighting != "constant" and found.lights is not None:
        lights = found.lights
        if photometric.lighting_space == "world":  # results have them in head space
            lights = turned_lights(lights, rotation_matrix(found.parameters.placement[:3]).float().T)
        out = replace(out, lights=lights)
    if found.texture is not None:
        final = not config.model.tex_bake
        out = replace(out, texture=found.texture, residual=found.residual, texture_is_final=final)
    return out


def _covered(state: FitState, seen: Observations, settings: StageConfig) -> Tensor | None:
    """(V,) where hair or clothes cover the head, for stages that leave that alone."""
    if not settings.except_covered:
        return None
    assert seen.rasterizer is not None and seen.texels is not None and seen.pictures is not None
    texture = state.texture
    if texture is None:  # a fit that begins here
        vertices = state.parameters.vertices(seen.head).detach()[:1]
        shown = seen.pictures.batch(seen.pictures.rows([0]))
        texels = seen.texels(_COARSE)
        texture = complete(bake(seen.rasterizer, seen.head, vertices, shown, texels), seen.head, texels)
    return covered_vertices(seen.head, texture, seen.texels(texture.shape[0]))


@dataclass(eq=False)
class Refined:
    """What a photometric stage has found."""

    parameters: FitParameters
    texture: Tensor | None = None
    """(R, R, 3) base and residual; None where no residual was optimised."""
    residual: Tensor | None = None
    """(R, R, 3)."""
    lights: Tensor | None = None
    """(9, 3)."""
    trouble: str = ""
    """Why it went astray, if it did."""
    skipped: int = 0
    """Steps that were left out, since the loss hardly fell any more."""


def refine(
    problem: Problem,
    weights: PhotometricWeights,
    config: PhotometricConfig,
    seed: int = 0,
    report: Callable[[int, float | None], None] | None = None,
    report_every: int = 10,
    keeper: Keeper | None = None,
    left: Underway | None = None,
) -> Refined:
    """Adam on pictures, silhouette, landmarks, geometry and priors; all on the rasterizer's device, float32 inside.

    `report` gets every step, and the loss every `report_every` steps: reading it waits for the device. `keeper` is
    shown from time to time how far it is; what was `left` of an earlier run it takes up.
    """
    step = PhotometricStep(problem, weights, config, seed)
    if not step.moves_something:
        return Refined(problem.parameters.clone())  # all step sizes are 0
    values = step.geometry.values.detach()
    averaged, averaged_from = torch.zeros_like(values), int(config.steps * (1 - config.average_last))
    # Adam's jump at the start is over after a tenth of the steps of one size
    of_one_size = config.steps // max(len(step.views.levels), len(config.texture_sizes))
    watch, trouble = Watch(settle=max(1, round(0.1 * of_one_size / report_every))), None
    if config.pictures and not step.drawn():
        raise nothing_drawn_error(problem.name)
    first, stopped, plateau = 0, 0, Plateau(config.stop_below, config.stop_window)
    if left is not None and left.step:
        first = left.step
        step.take_up(first, left.tensors)
        averaged.copy_(left.tensors["averaged"])
        watch.take_up(left.numbers["watch"])
        plateau.take_up(left.numbers["plateau"], values)
        stopped = left.numbers["stopped"]
        if report is not None:
            for number in range(first):
                report(number, None)
    with nullcontext() if config.is_long else reference_only():
        number = first
        while number < config.steps:
            if keeper is not None and number > first and keeper.due():
                tensors = taken(step.changing() | {"averaged": averaged})
                numbers = {"watch": watch.as_dict(), "plateau": plateau.as_dict(), "stopped": stopped}
                keeper.keep(number, tensors, numbers)
            loss = step(number)
            if number >= averaged_from:
                averaged += values
            seen = float(loss) if number % report_every == 0 else None
            if report is not None:
                report(number, seen)
            if step.size(number) != step.size(max(number - 1, 0)):
                watch.restart()
                plateau.restart()
            trouble = watch.report(number, None if seen is None else seen + step.below_zero(number))
            if trouble is not None:
                break
            going_on = number + 1
            if plateau.reached(loss) and number < averaged_from:
                going_on = min(step.next_size(number), max(averaged_from, number + 1))
                if report is not None:
                    for skipped in range(number + 1, going_on):
                        report(skipped, None)
                stopped += going_on - number - 1
                plateau.restart()
            number = going_on
    count = max(config.steps - averaged_from, 1)
    found = step.found(averaged / count if averaged_from < config.steps else values)
    texture, lights = step.texture, step.light.coefficients
    if texture is None or texture.residual is None:
        return Refined(found, lights=lights, trouble=trouble or "", skipped=stopped)
    return Refined(found, texture.now(0)[0].detach(), texture.residual[0], lights, trouble or "", stopped)
