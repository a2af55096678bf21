"""The stages of a fit in their order. Each may only improve: it is measured, and rolled back where it does not."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from flame_fitting import progress
from flame_fitting.capture.camera import transform_points
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.geometry_step import GeometryWeights
from flame_fitting.fit.lighting import estimate_lights
from flame_fitting.fit.linearize import Columns
from flame_fitting.fit.offsets import OffsetConfig, fit_offsets
from flame_fitting.fit.parameters import FitParameters, placement_matrix
from flame_fitting.fit.parametric import GaussNewtonWeights, PriorWeights, fit_geometry, fit_landmarks
from flame_fitting.fit.photometric import PhotometricConfig, PhotometricWeights, refine
from flame_fitting.fit.quality import Quality, measure, worsened
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.result import StageRecord
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import bake, complete, texel_map
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.texturing import TexelMap


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
    front_views: ViewSet | None = None
    """Fit views that see the face."""
    lit: bool = False
    texels: TexelMap | None = None
    texture: Tensor | None = None
    """(R, R, 3)."""
    lights: Tensor | None = None
    """(9, 3), head space."""
    records: list[StageRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

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
        self.lights = None if self.lights is None else self.lights.to(device)

    @property
    def head_from_world(self) -> np.ndarray:
        """The similarity that the fit has arrived at."""
        return np.linalg.inv(placement_matrix(self.parameters.placement)) @ self.reference_from_world


def priors(config: FitConfig) -> PriorWeights:
    """Standard deviations of the priors; --expressive loosens expression and jaw."""
    return PriorWeights(
        shape=config.w.reg_shape,
        expr=1.0 if config.expressive else config.w.reg_expr,
        neck=config.w.reg_neck,
        jaw=0.3 if config.expressive else config.w.reg_jaw,
        eyes=config.w.reg_eyes,
        log_scale=1e-4 if config.scale == "fixed" else 0.03,
    )


def run_stages(state: FitState, config: FitConfig, device: torch.device | None = None) -> None:
    """Runs all stages on `state`, in place, on a device (the rasterizer's, where there is one); ends on the CPU."""
    state.move(device or torch.device("cpu"))
    steps = config.pipeline
    prior = priors(config)
    balance = GaussNewtonWeights(
        landmark_count=config.w.landmark_count if config.data.use_landmark else 0.0,
        surface_count=config.w.surface_count,
    )
    n_shape = min(config.model.n_shape, state.head.n_shape)
    n_expr = min(config.model.n_expr, state.head.n_expr)
    poses: tuple[str, ...] = ("neck_pose", "jaw_pose", "eyes_pose")
    if state.parameters.timesteps > 1:
        poses = ("rotation", "translation", *poses)
    columns = Columns(True, n_shape, n_expr, poses)
    has_surface = any(target.surface is not None for target in state.targets)

    def bar(name: str, total: int) -> progress.Bar:
        return progress.Bar(total, name, "step")

    if steps.lmk_init_all.num_steps:

        def landmarks(_: progress.Bar) -> None:
            few = Columns(True, min(50, n_shape), min(20, n_expr), poses)
            args = (state.targets, few, prior, balance)
            state.parameters = fit_landmarks(
                state.head, state.parameters, *args, iterations=steps.lmk_init_all.num_steps
            )

        _stage(state, "lmk_init_all", landmarks, bar("lmk_init_all", steps.lmk_init_all.num_steps))

    if steps.geo_init_all.num_steps and has_surface:

        def geometry(shown: progress.Bar) -> None:
            state.parameters = fit_geometry(
                state.head,
                state.parameters,
                state.targets,
                columns,
                prior,
                balance,
                state.surface,
                iterations=steps.geo_init_all.num_steps,
                seed=config.seed,
                report=lambda _: shown.advance(),
            )

        _stage(state, "geo_init_all", geometry, bar("geo_init_all", steps.geo_init_all.num_steps))

    if state.rasterizer is not None and steps.rgb_init_texture.num_steps:
        _stage(state, "rgb_init_texture", lambda _: _texture(state, config), bar("rgb_init_texture", 1))

        if config.exp.photometric and steps.rgb_init_all.num_steps:

            def photometric(shown: progress.Bar) -> None:
                def report(_: int, loss: float | None) -> None:
                    shown.advance()
                    if loss is not None:
                        shown.note(loss=f"{loss:.3f}")

                assert state.rasterizer is not None and state.front_views is not None
                on_gpu = state.rasterizer.device.type == "cuda"
                height = state.front_views.resolution[0]

                def reduce_to(size: int) -> int:
                    return max(1, height // size)

                state.parameters = refine(
                    state.rasterizer,
                    state.head,
                    state.parameters,
                    state.targets,
                    state.front_views,
                    state.surface,
                    prior,
                    PhotometricWeights(
                        photo=config.w.photo,
                        silhouette=config.w.silhouette,
                        geometry=GeometryWeights(landmark=config.w.landmark, surface=config.w.surface),
                    ),
                    PhotometricConfig(
                        steps=steps.rgb_init_all.num_steps,
                        views_per_step=config.render.views_per_step or (len(state.front_views.views) if on_gpu else 8),
                        downsample=(reduce_to(256), reduce_to(512)) if on_gpu else (reduce_to(256),),
                        disturb_rate_fg=config.render.disturb_rate_fg,
                        disturb_rate_bg=config.render.disturb_rate_bg,
                        lr=_learning_rates(config, state.parameters.timesteps),
                    ),
                    texel_map(state.rasterizer, state.head, 512),
                    seed=config.seed,
                    report=report,
                )

            _stage(state, "rgb_init_all", photometric, bar("rgb_init_all", steps.rgb_init_all.num_steps))

    if config.model.use_static_offset and steps.rgb_init_offset.num_steps and has_surface:

        def offsets(shown: progress.Bar) -> None:
            state.parameters = fit_offsets(
                state.head,
                state.parameters,
                state.targets,
                state.surface,
                OffsetConfig(iterations=steps.rgb_init_offset.num_steps),
                report=lambda _: shown.advance(),
            )

        _stage(state, "rgb_init_offset", offsets, bar("rgb_init_offset", steps.rgb_init_offset.num_steps))

    if state.rasterizer is not None and steps.rgb_init_texture.num_steps:
        with progress.Bar(1, "texture", "step"):
            _texture(state, config)
    state.move(torch.device("cpu"))


def add_record(state: FitState, name: str, seconds: float, quality: Quality, accepted: bool = True) -> None:
    """Notes what a stage left behind."""
    state.records.append(StageRecord(name, state.vertices_world(), seconds, quality.as_dict(), accepted))


def _stage(
    state: FitState,
    name: str,
    work: Callable[[progress.Bar], None],
    shown: progress.Bar,
) -> None:
    before, kept = measure(state.head, state.parameters, state.targets), state.parameters.clone()
    started = time.perf_counter()
    with shown:
        work(shown)
    finite = all(bool(torch.isfinite(value).all()) for value in state.parameters.items().values())
    after = measure(state.head, state.parameters, state.targets) if finite else before
    worse = worsened(before, after) if finite else "the parameters are no longer finite"
    if worse is not None:
        state.parameters, after = kept, before
        text = f"stage {name} was rolled back: {worse}"
        state.warnings.append(text)
        progress.warn(text)
    add_record(state, name, time.perf_counter() - started, after, worse is None)


def _learning_rates(config: FitConfig, timesteps: int) -> tuple[tuple[str, float], ...]:
    lr = config.lr
    rates = {
        "shape": lr.shape,
        "expr": lr.expr,
        "neck_pose": lr.pose,
        "jaw_pose": lr.pose,
        "eyes_pose": lr.eyes,
        "placement": lr.placement,
    }
    if timesteps > 1:
        rates |= {"rotation": lr.pose, "translation": lr.pose}
    return tuple(rates.items())


def _texture(state: FitState, config: FitConfig) -> None:
    assert state.rasterizer is not None and state.views is not None
    if state.texels is None:
        state.texels = texel_map(state.rasterizer, state.head, config.model.tex_resolution)
    vertices = state.parameters.vertices(state.head)[0].detach()
    baked = bake(state.rasterizer, state.head, vertices, state.views, state.texels)
    if state.lit:
        in_head_space = state.parameters.head_vertices(state.head)[0].detach()
        state.lights, shading = estimate_lights(state.head, in_head_space, baked, state.texels)
        baked = replace(baked, color=(baked.color / shading.clamp_min(0.05)).clamp(0, 1))
    state.texture = complete(baked, state.head, state.texels)
