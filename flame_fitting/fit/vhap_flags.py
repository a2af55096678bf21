"""VHAP's options that a static capture has no use for: accepted, and said once. No heavy import here."""

from typing import Any

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import preset

_NERSEMBLE = "the capture describes its own pictures and cameras"
_ONE_TIMESTEP = "a static capture has one timestep"
_FIGURES = "the pictures of the report are chosen by the program"
_CAMERAS = "the cameras of a capture are known and stay as they are"

WITHOUT_EFFECT: dict[str, str] = {
    "begin_timestep": _ONE_TIMESTEP,
    "batch_size": f"{_ONE_TIMESTEP}; --render.views-per-step sets the pictures of one step",
    "async_func": "results are written when the fit is done",
    "data.landmark_source": "--data.detector chooses the landmark detector",
    "data.landmark_detector_njobs": "landmarks are detected in one process",
    "data.subject": "the folder of a capture says whose it is",
    "data.align_cameras_to_axes": "world coordinates stay the avatar's own",
    "data.camera_convention_conversion": "captures have one camera convention",
    "data.target_extrinsic_type": "captures have one camera convention",
    "data.use_alpha_map": "the outline is used as much as --w.silhouette says",
    "data.image_size_during_calibration": _NERSEMBLE,
    "data.use_color_correction": _NERSEMBLE,
    "model.n_tex": "there is no texture space; --model.tex-base chooses the base texture",
    "model.residual_tex": "what is optimised is always added to the base texture",
    "render.use_opengl": "the rasterizer on a GPU is CUDA's",
    "render.background_eval": _FIGURES,
    "lr.camera": _CAMERAS,
    "lr.dynamic_offset": _ONE_TIMESTEP,
    "w.reg_tex_pca": "there is no texture space; --model.tex-base chooses the base texture",
    "w.reg_offset_dynamic": _ONE_TIMESTEP,
    "w.smooth_trans": _ONE_TIMESTEP,
    "w.smooth_rot": _ONE_TIMESTEP,
    "w.smooth_neck": _ONE_TIMESTEP,
    "w.smooth_jaw": _ONE_TIMESTEP,
    "w.smooth_eyes": _ONE_TIMESTEP,
    "w.smooth_expr": _ONE_TIMESTEP,
    "log.interval_scalar": "every stage is logged",
    "log.interval_media": _FIGURES,
    "log.image_format": _FIGURES,
    "log.view_indices": _FIGURES,
    "log.max_num_views": _FIGURES,
    "log.stack_views_in_rows": _FIGURES,
    "exp.keyframes": _ONE_TIMESTEP,
}
"""Dotted name of an option -> why it does nothing, or what does it instead."""

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "data.calibrated": (
        (True,),
        "the cameras of a capture are its own and are not estimated. Leave the flag out.",
    ),
    "data.division": (
        (None,),
        "captures have no divisions. Leave it out; the roles of views are chosen when they are rendered.",
    ),
    "data.subset": (
        (None,),
        "a static capture has no timesteps to choose from. Leave it out; render with fewer --views instead.",
    ),
    "data.scale_factor": (
        (1.0,),
        "pictures are not scaled by it. Use --data.n-downsample-rgb, or render with another --resolution.",
    ),
    "model.use_dynamic_offset": (
        (False,),
        "a static capture has one timestep: static offsets are all there is. Leave it out.",
    ),
    "model.tex_painted": (
        (True,),
        "there is no texture space to fit. Leave it out, or start from a plain texture: --model.tex-base neutral.",
    ),
    "model.flame_params_path": (
        (None,),
        "a fit of a static capture starts from its landmarks. Leave it out.",
    ),
    "render.backend": (
        ("nvdiffrast",),
        "this rasterizer is not supported. Leave it out: a GPU draws with nvdiffrast, a CPU with a rasterizer of ours.",
    ),
}
"""Dotted name of an option -> values that can be honoured, and what to say about all others: to go on would mislead."""


def value_of(config: FitConfig, name: str) -> Any:
    """The value of an option by its dotted name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def without_effect(config: FitConfig) -> list[str]:
    """One line for each option that was changed from its preset's default and does nothing here."""
    default = preset(config.preset, config.capture)
    lines = [
        f"{flag(name)} has no effect here: {why}"
        for name, why in WITHOUT_EFFECT.items()
        if value_of(config, name) != value_of(default, name)
    ]
    data = config.data
    if data.root_folder is not None and config.capture != data.root_folder / data.sequence:
        lines.append(f"--data.root-folder has no effect here: the capture is {config.capture}")
    for name, stage in config.pipeline.items():
        if stage.solver in ("closed_form", "bake") and stage.num_steps > 1:
            lines.append(f"{flag(f'pipeline.{name}.num_steps')} has no effect above 1: its solver is {stage.solver}")
    return lines


def flag(name: str) -> str:
    """The option as it is typed."""
    return "--" + name.replace("_", "-")
