"""Which stages a fit runs, and with what: the pipeline's options after all switches. Pure; no heavy import here."""

from collections.abc import Sequence
from dataclasses import replace

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.stage_config import StageConfig

OFFSET_STAGES = ("rgb_init_offset", "geo_init_offset")
UNTRUSTED_WITHOUT_OFFSETS = "hair"
"""A head model has no hair: what it shows there can only be followed by offsets."""


def effective_pipeline(
    config: FitConfig, has_geometry: bool, holds_scale: bool = False
) -> list[tuple[str, StageConfig]]:
    """Names and settings of the stages that run, in order; `config` stays as it is.

    `has_geometry` says whether the capture has depth and normals, `holds_scale` that no stage may move the scale.
    Applied are begin_stage, `when`, exp.photometric
    (off: no stage that moves the head by pictures; the bake stays, lmk_*_tracking comes in), use_static_offset and
    use_dynamic_offset (off: no stage and no parameter of them), model.tex_extra (off: Adam leaves the texture alone),
    neutral (no stage moves the expression; of the joints the jaw stays too, see `moving_joints`), and model.occluded,
    which joins both align_*_except of every photometric stage, as do `hair` without offsets and `lip_inside` with
    remove_lip_inside.
    """
    stages = config.pipeline.items()
    if config.begin_stage is not None:
        names = [name for name, _ in stages]
        stages = stages[names.index(config.begin_stage.replace("-", "_")) :]
    geometry = has_geometry and config.data.use_geometry
    return [
        (name, _switched(stage, name, config, holds_scale))
        for name, stage in stages
        if _runs(name, stage, config, geometry)
    ]


def start_is_a_stage(config: FitConfig) -> bool:
    """Whether the start, which the landmarks give in closed form, is recorded as `lmk_init_rigid`.

    Not where a stage of that name runs by itself.
    """
    stages = dict(effective_pipeline(config, has_geometry=True))
    return "lmk_init_rigid" not in stages or stages["lmk_init_rigid"].solver == "closed_form"


def is_photometric(name: str) -> bool:
    """Whether a stage looks at the pictures' colours."""
    return name.startswith("rgb_")


def _runs(name: str, stage: StageConfig, config: FitConfig, geometry: bool) -> bool:
    if not stage.runs or stage.when == ("without_geometry" if geometry else "with_geometry"):
        return False
    if name in OFFSET_STAGES and not config.model.use_static_offset:
        return False
    if config.exp.photometric:
        return name not in ("lmk_sequential_tracking", "lmk_global_tracking")
    return not is_photometric(name) or stage.solver == "bake"


def _switched(stage: StageConfig, name: str, config: FitConfig, holds_scale: bool) -> StageConfig:
    """A stage without the parameters that are switched off, and with the regions that are occluded."""
    model = config.model
    off = {name for name, still in (("expr", config.neutral), ("scale", holds_scale)) if still}
    if not model.use_static_offset:
        off.add("static_offset")
    if not model.use_dynamic_offset:
        off.add("dynamic_offset")
    hidden = list(model.occluded)
    if {"static_offset", "dynamic_offset"} <= off:
        hidden.append(UNTRUSTED_WITHOUT_OFFSETS)
    if model.remove_lip_inside:
        hidden.append("lip_inside")
    if not model.tex_extra and stage.solver == "adam":
        off.add("texture")
    stage = replace(stage, optimizable_params=tuple(group for group in stage.optimizable_params if group not in off))
    if not is_photometric(name):
        return stage
    return replace(
        stage,
        align_texture_except=_joined(stage.align_texture_except, hidden),
        align_boundary_except=_joined(stage.align_boundary_except, hidden),
    )


def moving_joints(config: FitConfig) -> tuple[str, ...]:
    """The parameters that the group `joints` stands for."""
    return ("neck_pose", "eyes_pose") if config.neutral else ("neck_pose", "jaw_pose", "eyes_pose")


def _joined(regions: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*regions, *more)))
