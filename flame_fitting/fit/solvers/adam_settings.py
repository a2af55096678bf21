"""The options of a fit as the settings of its first-order stages. Pure."""

import torch

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.losses.offsets import OffsetWeights
from flame_fitting.fit.parameters import moving_parts
from flame_fitting.fit.schedule import moving_joints
from flame_fitting.fit.solvers.batches import Batches
from flame_fitting.fit.solvers.geometry_weights import GeometryWeights
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig, PhotometricWeights
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.views import ViewSet

_ALL = 2**31
"""More views than any batch has."""


def photometric_weights(config: FitConfig, stage: StageConfig, ordered: bool = True) -> PhotometricWeights:
    """The balance of an Adam stage; nothing is smooth over timesteps that are not `ordered`."""
    w, sees = config.w, stage.looks_at
    landmarks = stage.landmark if config.data.use_landmark and "landmarks" in sees else 0.0
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
        surface=w.surface if "surface" in sees else 0.0,
        prior=stage.prior * w.prior,
        shape=w.reg_shape,
        expr=w.reg_expr,
        neck=w.reg_neck,
        jaw=w.reg_jaw,
        eyes=w.reg_eyes,
        offset=offset,
        offset_change=w.reg_offset_dynamic,
        smooth=(
            ("translation", w.smooth_trans),
            ("rotation", w.smooth_rot),
            ("neck_pose", w.smooth_neck),
            ("jaw_pose", w.smooth_jaw),
            ("eyes_pose", w.smooth_eyes),
            ("expr", w.smooth_expr),
        )
        if ordered
        else (),
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
    told: Stage,
    views: ViewSet | Batches,
    device: torch.device,
    *,
    is_sequence: bool,
    calibrated: bool = True,
    lit: bool = False,
) -> PhotometricConfig:
    """The settings of an Adam stage for its pictures.

    Args:
        told: the stage.
        views: all its pictures, or batches of them.
        device: where they are drawn.
        is_sequence: whether these are timesteps of a capture over time.
        calibrated: whether the cameras are known.
        lit: whether the texture is to be drawn under the light found so far.
    """
    config, stage = told.config, told.settings
    all_at_once = isinstance(views, ViewSet)
    steps_per_epoch = 1 if isinstance(views, ViewSet) else told.steps_per_epoch(views.timesteps)
    height, render = views.resolution[0], config.render
    smallest = config.data.n_downsample_rgb or 1
    factors = tuple(max(height // size, smallest, 1) for size in stage.sizes) or (smallest,)
    rates = learning_rates(config, stage, is_sequence, calibrated)
    moves_light = "lights" in dict(rates)
    return PhotometricConfig(
        steps=stage.num_steps or stage.num_epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        pictures="pictures" in stage.looks_at,
        views_per_step=render.views_per_step or (8 if device.type == "cpu" else _ALL),
        downsample=factors,
        texture_sizes=stage.texture_sizes or (config.model.tex_resolution,),
        base=config.model.tex_base,
        rebake=stage.rebake,
        smooth=stage.smooth,
        # batches share one base, that of a sample
        across_views=stage.across_views and all_at_once,
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
        stop_below=stage.stop_below,
        stop_window=max(stage.stop_window, 2 * steps_per_epoch if not all_at_once else 1),
        components=(("shape", config.model.n_shape), ("expr", config.model.n_expr)),
        lr=rates,
    )


def learning_rates(
    config: FitConfig, stage: StageConfig, is_sequence: bool, calibrated: bool = True
) -> tuple[tuple[str, float], ...]:
    """Adam's step size of every parameter that a stage moves; VHAP's groups become the fit's parameters."""
    lr, groups = config.lr, stage.optimizable_params
    parts = moving_parts(groups, is_sequence, moving_joints(config), calibrated)
    rates = {part.name: lr.of(part.rate) for part in parts}
    rates |= {name: lr.of(field) for name, field in (("texture", "texture"), ("lights", "light")) if name in groups}
    return tuple((name, stage.lr_scale * rate) for name, rate in rates.items() if rate)
