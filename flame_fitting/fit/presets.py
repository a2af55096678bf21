"""Presets: named defaults of the fit's options. A preset only sets fields; nothing in the code asks for its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig, PresetName
from flame_fitting.fit.stage_config import GEOMETRY, LANDMARKS, Group, PipelineConfig, StageConfig


def preset(name: str, capture: Path | None = None) -> FitConfig:
    """The options of a preset, for a capture (None: to be filled in)."""
    if name not in PRESETS:
        raise InputError(f"--preset {name}: no such preset. The presets are: {', '.join(PRESETS)}.")
    config = FitConfig(Path())
    config.capture = cast(Path, capture)
    PRESETS[name](config)
    return config


def _static(config: FitConfig) -> None:
    """The class defaults."""


def _fast(config: FitConfig) -> None:
    """No photometric stage beyond the baked texture, and fewer iterations."""
    config.preset = "fast"
    config.model.tex_resolution = 512
    steps = config.pipeline
    steps.lmk_init_all.num_steps = 15
    steps.geo_init_all.num_steps = 15
    steps.rgb_init_outline.num_steps = steps.rgb_init_all.num_steps = 0
    steps.rgb_init_offset.num_steps = 0
    steps.geo_init_offset.num_steps = 5


def _high(config: FitConfig) -> None:
    """More photometric steps on larger pictures, and a larger texture."""
    config.preset = "high"
    config.model.tex_resolution = 2048
    steps = config.pipeline
    steps.lmk_init_all.num_steps = 40
    steps.geo_init_all.num_steps = 40
    steps.rgb_init_all.num_steps = 300
    steps.rgb_init_all.sizes = (256, 512)
    steps.rgb_init_all.texture_sizes = (512, 1024)
    steps.rgb_init_offset.num_steps = 1200
    steps.rgb_init_offset.sizes = (256, 512, 1024)
    steps.rgb_init_offset.texture_sizes = (512, 1024, 2048)
    steps.geo_init_offset.num_steps = 12


def _vhap(config: FitConfig) -> None:
    """VHAP's schedule, weights and step sizes in its multi-view flavour: neither geometry nor closed forms."""
    config.preset = "vhap"
    config.data.use_geometry = False
    config.data.max_yaw = 180.0  # all cameras
    model = config.model
    model.tex_base, model.tex_resolution, model.residual_tex = "painted", 2048, True
    model.tex_bake = False
    model.use_eyelids = "no"
    config.render.background_train = "target"
    config.render.cull = True

    lr = config.lr
    lr.base, lr.translation, lr.expr, lr.eyelids = 5e-3, 1e-3, 5e-2, 5e-3
    lr.shape = lr.rotation = lr.neck = lr.jaw = lr.eyes = lr.texture = None
    lr.static_offset, lr.dynamic_offset, lr.camera, lr.light = 5e-4, 5e-4, 5e-3, 5e-3
    lr.scale = 1e-3  # VHAP's rigs are metric, avatars are not; its fork AnimPortrait3D moves the scale so

    w = config.w
    w.photo, w.landmark, w.always_enable_jawline_landmarks, w.landmark_visible = 30.0, 3.0, False, False
    w.landmark_3d = w.contour = w.closure = w.surface = w.silhouette = w.silhouette_inside = w.prior = 0.0
    w.evidence = 0.0
    w.reg_shape, w.reg_expr, w.reg_neck, w.reg_jaw, w.reg_eyes = 0.3, 0.01, 0.3, 0.3, 0.03
    w.reg_tex_res_clusters, w.reg_tex_tv, w.reg_tex_tv_covered = 10.0, 1e5, False
    w.reg_offset, w.reg_offset_lap, w.reg_offset_rigid = 300.0, 1e6, 300.0
    w.reg_offset_lap_per_area = False
    config.pipeline = _vhap_pipeline()


def _vhap_pipeline() -> PipelineConfig:
    geometry: tuple[Group, ...] = ("cam", "pose", "scale", "shape", "joints", "expr")
    all_of_it: tuple[Group, ...] = (*geometry, "texture", "lights")
    offsets: tuple[Group, ...] = (*all_of_it, "static_offset")
    tracked: tuple[Group, ...] = ("pose", "joints", "expr")
    no_texture_on = ("hair", "boundary", "neck")
    epochs: dict[str, Any] = {"num_epochs": 30, "lr_scale": 0.1, "lr_schedule": "exponential"}
    landmarks: dict[str, Any] = {"looks_at": LANDMARKS, "when": "without_pictures"}
    edge: dict[str, Any] = {
        "align_texture_except": ("boundary",),
        "align_boundary_except": ("boundary",),
        "disable_jawline_landmarks": True,
    }
    return PipelineConfig(
        lmk_init_rigid=StageConfig(
            500, frames="first", optimizable_params=("cam", "pose", "scale"), looks_at=LANDMARKS
        ),
        lmk_init_all=StageConfig(500, frames="first", optimizable_params=geometry, looks_at=LANDMARKS),
        geo_init_all=StageConfig(solver="gauss_newton", looks_at=GEOMETRY, when="with_geometry"),
        rgb_init_outline=StageConfig(when="without_geometry"),
        rgb_init_texture=StageConfig(
            500,
            frames="first",
            optimizable_params=("cam", "shape", "texture", "lights"),
            align_texture_except=no_texture_on,
            align_boundary_except=("hair", "boundary"),
        ),
        rgb_init_all=StageConfig(
            500,
            frames="first",
            optimizable_params=all_of_it,
            align_texture_except=no_texture_on,
            align_boundary_except=("hair", "bottomline"),
            disable_jawline_landmarks=True,
        ),
        rgb_init_offset=StageConfig(
            500,
            frames="first",
            optimizable_params=offsets,
            for_offsets=True,
            align_texture_except=no_texture_on,
            align_boundary_except=("bottomline",),
            disable_jawline_landmarks=True,
        ),
        geo_init_offset=StageConfig(solver="registration", looks_at=GEOMETRY, for_offsets=True, when="with_geometry"),
        rgb_sequential_tracking=StageConfig(
            50, frames="sequential", optimizable_params=(*tracked, "dynamic_offset"), **edge
        ),
        rgb_global_tracking=StageConfig(optimizable_params=(*offsets, "dynamic_offset"), **edge, **epochs),
        lmk_sequential_tracking=StageConfig(50, frames="sequential", optimizable_params=tracked, **landmarks),
        lmk_global_tracking=StageConfig(optimizable_params=geometry, **landmarks, **epochs),
    )


PRESETS: dict[str, Callable[[FitConfig], None]] = {"static": _static, "vhap": _vhap, "fast": _fast, "high": _high}

assert set(PRESETS) == set(get_args(PresetName))
