"""Texture and light in closed form from the pictures."""

from dataclasses import replace

from flame_fitting import progress
from flame_fitting.fit.lighting import estimate_lights
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.solvers.batches import sample_of
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState
from flame_fitting.fit.texture import bake, complete


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """The texture of the pictures where the head is now, and the light of a lit capture.

    Of a long capture some timesteps stand for all; those without a face show something else than the head.
    """
    assert seen.rasterizer is not None and seen.pictures is not None and seen.texels is not None
    texels = seen.texels(stage.config.model.tex_resolution)
    rows = sample_of(seen.with_face or range(seen.timesteps))
    vertices = state.parameters.of_frames(rows).vertices(seen.head).detach()
    pictures = seen.pictures.of_frames(rows)
    views = pictures.batch(pictures.rows())
    baked, lights = bake(seen.rasterizer, seen.head, vertices, views, texels), state.lights
    if seen.lit:
        in_head_space = state.parameters.head_vertices(seen.head)[0].detach()
        lights, shading = estimate_lights(seen.head, in_head_space, baked, texels)
        baked = replace(baked, color=(baked.color / shading.clamp_min(0.05)).clamp(0, 1))
    return replace(state, texture=complete(baked, seen.head, texels), lights=lights)
