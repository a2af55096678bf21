"""Runs a fit's stages, each by its solver. A stage may only improve: it is measured, and rolled back if it does not."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_fitting import progress
from flame_fitting.capture.camera import transform_points
from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig, PriorConfig, StageConfig
from flame_fitting.fit.geometry_step import GeometryWeights
from flame_fitting.fit.lighting import estimate_lights, turned_lights
from flame_fitting.fit.losses.offsets import OffsetWeights
from flame_fitting.fit.offsets import OffsetConfig, fit_offsets
from flame_fitting.fit.parameters import FitParameters, moving_parts, placement_matrix
from flame_fitting.fit.photometric import PhotometricConfig, PhotometricWeights, Problem, refine
from flame_fitting.fit.quality import Quality, measure, picture_error, worsened
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.repair import repair, said
from flame_fitting.fit.result import StageRecord
from flame_fitting.fit.scale import Scale
from flame_fitting.fit.schedule import effective_pipeline, is_photometric, moving_joints
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import GaussNewtonSettings, gauss_newton
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import TexelMaps, bake, complete
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.interface import Rasterizer


class Diverged(RuntimeError):
    """A stage went astray; it is rolled back."""


@dataclass(eq=False)
class FitState:
    """Everything that the stages share."""

    head: HeadModel
    """Double precision."""
    parameters: FitParameters
    targets: list[FrameTarget]
    surface: SurfaceWeights
    reference_from_world: np.ndarray
    rasterizer: Rasterizer | None = None
    """None without photometric stages and texture."""
    views: ViewSet | None = None
    """Fit views, all around."""
    lit: bool = False
    texels: TexelMaps | None = None
    texture: Tensor | None = None
    """(R, R, 3)."""
    residual: Tensor | None = None
    """(R, R, 3) what an optimised texture adds to its base."""
    texture_is_final: bool = False
    """Whether the texture was optimised with the rest, so that it is not baked in the end."""
    lights: Tensor | None = None
    """(9, 3), head space."""
    name: str = "the capture"
    """What messages call it."""
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    """Standard deviations of the last second-order stage (`fit.solvers.posterior`)."""
    records: list[StageRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scale: Scale = field(default_factory=Scale)

    def vertices_world(self) -> np.ndarray:
        """(T, V, 3) in the avatar's coordinates."""
        vertices = self.parameters.vertices(self.head).detach().cpu().numpy()
        return transform_points(np.linalg.inv(self.reference_from_world), vertices)

    def move(self, device: torch.device) -> None:
        """Brings everything that the stages compute with to a device, in place."""
        self.head = self.head.to(device)
        self.parameters = self.parameters.to(device)
        self.targets = [target.to(device) for target in self.targets]
        self.surface = self.surface.to(device)
        self.texture = None if self.texture is None else self.texture.to(device)
        self.residual = None if self.residual is None else self.residual.to(device)
        self.lights = None if self.lights is None else self.lights.to(device)

    def snapshot(self) -> dict[str, Any]:
        """What a stage changes, to be restored where it fails."""
        kept = {
            name: getattr(self, name) for name in ("texture", "residual", "lights", "texture_is_final", "uncertainty")
        }
        return kept | {"parameters": self.parameters.clone()}

    def restore(self, kept: dict[str, Any]) -> None:
        """Back to a `snapshot`."""
        for name, value in kept.items():
            setattr(self, name, value)

    @property
    def head_from_world(self) -> np.ndarray:
        """The similarity that the fit has arrived at."""
        return np.linalg.inv(placement_matrix(self.parameters.placement)) @ self.reference_from_world


def priors(config: FitConfig) -> PriorConfig:
    """Standard deviations of the priors; --expressive loosens expression and jaw."""
    return replace(config.prior, expr=1.0, jaw=0.3) if config.expressive else config.prior


def run_stages(state: FitState, config: FitConfig, device: torch.device | None = None) -> None:
    """Runs all stages on `state`, in place, on a device (the rasterizer's, where there is one); ends on the CPU."""
    state.move(device or torch.device("cpu"))
    has_geometry = any(target.surface is not None for target in state.targets)
    for name, stage in effective_pipeline(config, has_geometry, state.scale.held):
        _run(state, config, name, stage)
    if config.render.lighting_space == "camera" and not state.lit:
        # light that turns with the cameras is no light of the head: the result has what the pictures show instead
        state.lights, state.texture_is_final = None, False
    if state.rasterizer is not None and not state.texture_is_final:
        with progress.Bar(1, "texture", "step"):
            _bake(state, config)
    state.move(torch.device("cpu"))


def _run(state: FitState, config: FitConfig, name: str, stage: StageConfig) -> None:
    """Runs one stage by its solver, measured; leaves out what the capture or the head model has nothing for."""
    steps = stage.num_steps or stage.num_epochs
    if stage.solver == "closed_form" or (is_photometric(name) and state.rasterizer is None):
        return  # the closed form is what the state starts from
    solve = {"gauss_newton": second_order, "bake": _bake_stage, "adam": _adam, "registration": _registration}

    def work(shown: progress.Bar) -> None:
        solve[stage.solver](state, config, name, stage, shown)

    _stage(state, name, work, progress.Bar(steps, name, "step"), looks=stage.solver == "adam" and is_photometric(name))


def second_order(state: FitState, config: FitConfig, name: str, stage: StageConfig, shown: progress.Bar) -> None:
    """Second order: landmarks, and the avatar's surface in stages whose name says geometry."""
    parts = moving_parts(stage.optimizable_params, state.parameters.timesteps, moving_joints(config))
    geometry, model = name.startswith("geo"), config.model
    most = {"shape": model.n_shape, "expr": model.n_expr}
    if not geometry:
        most = {"shape": min(50, model.n_shape), "expr": min(20, model.n_expr)}
    settings = GaussNewtonSettings(
        iterations=stage.num_steps,
        landmark_count=config.w.landmark_count if config.data.use_landmark else 0.0,
        surface_count=config.w.surface_count,
        seed=config.seed,
    )
    columns = Columns.of(state.head, [part.name for part in parts], most)
    surface = state.surface if geometry else None
    args = (state.targets, columns, priors(config), settings, surface)
    found = gauss_newton(state.head, state.parameters, *args, report=lambda _: shown.advance())
    state.parameters = found.parameters
    state.uncertainty = found.posterior.standard_deviations(found.parameters)


def _adam(state: FitState, config: FitConfig, name: str, stage: StageConfig, shown: progress.Bar) -> None:
    """First order, with pictures in stages whose name says colour."""

    def report(_: int, loss: float | None) -> None:
        shown.advance()
        if loss is not None:
            shown.note(loss=f"{loss:.3f}")

    views, pictures = state.views, is_photometric(name)
    if views is None:
        raise InputError(
            f"stage {name}: the head model {state.head.name} has no texture coordinates. Use another preset."
        )
    gated = (*stage.align_texture_except, *stage.align_boundary_except)
    if missing := [region for region in dict.fromkeys(gated) if region not in state.head.regions]:
        progress.warn(f"stage {name}: the head model {state.head.name} has no region {', '.join(missing)} to leave out")
    views, rasterizer = views.facing(min(config.data.max_yaw, stage.max_yaw)), state.rasterizer
    assert rasterizer is not None and state.texels is not None
    timesteps = state.parameters.timesteps
    # a baked texture holds the light; one that was fitted together with a light shows it only under that light
    lit = state.lights is not None and config.model.tex_base != "baked"
    settings = photometric_config(config, stage, pictures, views, rasterizer.device, timesteps, lit)
    lights = state.lights if settings.lighting != "constant" else None
    if lights is not None and settings.lighting_space == "world":
        lights = turned_lights(lights, rotation_matrix(state.parameters.placement[:3]).float())
    problem = Problem(
        rasterizer,
        state.head,
        state.parameters,
        state.targets,
        views,
        state.surface,
        priors(config),
        state.texels,
        state.residual,
        lights,
        state.name,
    )
    found = refine(problem, photometric_weights(config, stage), settings, seed=config.seed, report=report)
    state.parameters = found.parameters
    if found.trouble:
        raise Diverged(found.trouble)
    if pictures and settings.lighting != "constant" and found.lights is not None:
        state.lights = found.lights
        if settings.lighting_space == "world":  # results have them in head space
            back = rotation_matrix(state.parameters.placement[:3]).float().T
            state.lights = turned_lights(found.lights, back)
    if found.texture is not None:
        state.texture, state.residual = found.texture, found.residual
        state.texture_is_final = not config.model.tex_bake


def _registration(state: FitState, config: FitConfig, name: str, stage: StageConfig, shown: progress.Bar) -> None:
    """Sparse non-rigid registration to the surface."""
    settings = OffsetConfig(iterations=stage.num_steps)
    args = (state.targets, state.surface, settings)
    state.parameters = fit_offsets(state.head, state.parameters, *args, report=lambda _: shown.advance())


def _bake_stage(state: FitState, config: FitConfig, name: str, stage: StageConfig, shown: progress.Bar) -> None:
    _bake(state, config)


def photometric_weights(config: FitConfig, stage: StageConfig) -> PhotometricWeights:
    """The balance of an Adam stage."""
    w, landmarks = config.w, stage.landmark if config.data.use_landmark else 0.0
    offset = OffsetWeights(
        l1=w.reg_offset,
        laplacian=w.reg_offset_lap,
        rigid=w.reg_offset_rigid,
        l1_relaxed=w.reg_offset_relax_coef,
        l1_relaxed_for=w.reg_offset_relax_for,
        laplacian_relaxed=w.reg_offset_lap_relax_coef,
        laplacian_relaxed_for=w.reg_offset_lap_relax_for,
        rigid_for=w.reg_offset_rigid_for,
        by_edge_length=w.reg_offset_lap_per_area,
        blur_iter=w.blur_iter,
    )
    geometry = GeometryWeights(
        landmark_3d=landmarks * w.landmark_3d,
        landmark=landmarks * w.landmark,
        jawline=w.always_enable_jawline_landmarks or not stage.disable_jawline_landmarks,
        visible=w.landmark_visible,
        contour=landmarks * w.contour,
        closure=landmarks * w.closure,
        surface=w.surface,
        prior=stage.prior * w.prior,
        shape=w.reg_shape,
        expr=w.reg_expr,
        neck=w.reg_neck,
        jaw=w.reg_jaw,
        eyes=w.reg_eyes,
        offset=offset,
    )
    return PhotometricWeights(
        photo=w.photo,
        silhouette=stage.outline * w.silhouette,
        silhouette_inside=stage.outline_inside * w.silhouette_inside,
        texture_variation=w.reg_tex_tv,
        variation_covered=w.reg_tex_tv_covered,
        residual=w.reg_tex_res_clusters,
        diffuse=w.reg_diffuse,
        light=w.reg_light or 0.0,
        geometry=geometry,
    )


def photometric_config(
    config: FitConfig,
    stage: StageConfig,
    pictures: bool,
    views: ViewSet,
    device: torch.device,
    timesteps: int,
    lit: bool = False,
) -> PhotometricConfig:
    """The settings of an Adam stage; `lit` says that the texture is to be drawn under the light found so far."""
    height, render = views.resolution[0], config.render
    smallest = config.data.n_downsample_rgb or 1
    factors = tuple(max(height // size, smallest, 1) for size in stage.sizes) or (smallest,)
    rates = learning_rates(config, stage, timesteps)
    moves_light = "lights" in dict(rates)
    return PhotometricConfig(
        steps=stage.num_steps or stage.num_epochs,
        pictures=pictures,
        views_per_step=render.views_per_step or (8 if device.type == "cpu" else len(views.views)),
        downsample=factors,
        texture_sizes=stage.texture_sizes or (config.model.tex_resolution,),
        base=config.model.tex_base,
        rebake=stage.rebake,
        smooth=stage.smooth,
        across_views=stage.across_views,
        disturb_rate_fg=stage.disturb * (render.disturb_rate_fg or 0.0),
        disturb_rate_bg=stage.disturb * (render.disturb_rate_bg or 0.0),
        clusters=config.model.tex_clusters,
        background=render.background_train,
        texture_except=stage.align_texture_except,
        boundary_except=stage.align_boundary_except,
        residual_for=config.w.reg_tex_res_for,
        cull=render.cull,
        # light that nothing fits is part of the baked texture: a static head under fixed light
        lighting=render.lighting_type if moves_light or lit or render.lighting_type.startswith("front") else "constant",
        lighting_space=render.lighting_space,
        schedule=stage.lr_schedule,
        average_last=stage.average_last,
        components=(("shape", config.model.n_shape), ("expr", config.model.n_expr)),
        lr=rates,
    )


def learning_rates(config: FitConfig, stage: StageConfig, timesteps: int) -> tuple[tuple[str, float], ...]:
    """Adam's step size of every parameter that a stage moves; VHAP's groups become the fit's parameters."""
    lr, groups = config.lr, stage.optimizable_params
    rates = {part.name: lr.of(part.rate) for part in moving_parts(groups, timesteps, moving_joints(config))}
    rates |= {name: lr.of(field) for name, field in (("texture", "texture"), ("lights", "light")) if name in groups}
    return tuple((name, stage.lr_scale * rate) for name, rate in rates.items() if rate)


def add_record(
    state: FitState,
    name: str,
    seconds: float,
    quality: Quality,
    accepted: bool = True,
    smoothed: Sequence[int] = (),
) -> None:
    """Notes what a stage left behind."""
    record = StageRecord(name, state.vertices_world(), seconds, quality.as_dict(), accepted, list(smoothed))
    state.records.append(record)


def _stage(
    state: FitState,
    name: str,
    work: Callable[[progress.Bar], None],
    shown: progress.Bar,
    looks: bool = False,
) -> None:
    """Does the work of a stage and keeps what it did unless that is worse; `looks` says that it looks at pictures."""
    before, kept = _measured(state, looks), state.snapshot()
    started, diverged = time.perf_counter(), ""
    with shown:
        try:
            work(shown)
        except Diverged as error:
            diverged = str(error)
    finite = all(bool(torch.isfinite(value).all()) for value in state.parameters.items().values())
    sound, repaired = finite and not diverged, None
    if sound:
        repaired = repair(state.head, state.parameters, state.targets, state.surface)
        state.parameters = repaired.parameters
    after = _measured(state, looks) if sound else before
    worse = diverged or (worsened(before, after) if finite else "the parameters are no longer finite") or None
    smoothed: list[int] = []
    if worse is not None:
        state.restore(kept)
        after = before
        _warn(state, f"stage {name} was rolled back: {worse}")
    elif repaired is not None and repaired.smoothed.any():
        smoothed, text = np.flatnonzero(repaired.smoothed).tolist(), f"{name}: {said(state.head, repaired)}"
        if repaired.faded.any():
            _warn(state, text)
        else:
            progress.say(text)
    add_record(state, name, time.perf_counter() - started, after, worse is None, smoothed)


def _warn(state: FitState, text: str) -> None:
    state.warnings.append(text)
    progress.warn(text)


def _measured(state: FitState, looks: bool) -> Quality:
    """How good the fit is, by its pictures too where a stage looks at them and there is no surface to measure to."""
    quality = measure(state.head, state.parameters, state.targets)
    if looks and np.isnan(quality.face_mm) and state.views is not None and state.parameters.timesteps == 1:
        assert state.rasterizer is not None and state.texels is not None
        vertices = state.parameters.vertices(state.head)[0].detach()
        error = picture_error(state.rasterizer, state.head, vertices, state.views, state.texels)
        quality = replace(quality, picture=error)
    return quality


def _bake(state: FitState, config: FitConfig) -> None:
    """The texture of the pictures where the head is now, and the light of a lit capture."""
    assert state.rasterizer is not None and state.views is not None and state.texels is not None
    texels = state.texels(config.model.tex_resolution)
    vertices = state.parameters.vertices(state.head)[0].detach()
    baked = bake(state.rasterizer, state.head, vertices, state.views, texels)
    if state.lit:
        in_head_space = state.parameters.head_vertices(state.head)[0].detach()
        state.lights, shading = estimate_lights(state.head, in_head_space, baked, texels)
        baked = replace(baked, color=(baked.color / shading.clamp_min(0.05)).clamp(0, 1))
    state.texture = complete(baked, state.head, texels)
