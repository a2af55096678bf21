"""Which stages a fit runs, and with what: the pipeline's options after all switches. Pure; no heavy import here."""

from collections.abc import Sequence
from dataclasses import replace

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.stage_config import StageConfig

UNTRUSTED_WITHOUT_OFFSETS = "hair"
"""A head model has no hair: what it shows there can only be followed by offsets."""


def effective_pipeline(
    config: FitConfig, has_geometry: bool, holds_scale: bool = False, timesteps: int = 1
) -> list[tuple[str, StageConfig]]:
    """Names and settings of the stages that run, in order; `config` stays as it is.

    `has_geometry` says whether the capture has depth and normals, `holds_scale` that no stage may move the scale,
    `timesteps` how many there are.
    Applied are begin_stage, `when`, exp.photometric (off: no stage that moves the head by pictures; the bake stays, and
    stages `without_pictures` come in), use_static_offset and use_dynamic_offset (off: no stage and no parameter of
    them), model.tex_extra (off: Adam leaves the texture alone), neutral (no stage moves the expression; of the joints
    the jaw stays too, see `moving_joints`), and model.occluded, which joins both align_*_except of every stage that
    looks at pictures, as do `hair` without offsets and `lip_inside` with remove_lip_inside. Stages of Adam that then
    move nothing are left out.
    """
    stages = config.pipeline.items()
    if config.begin_stage is not None:
        names = [name for name, _ in stages]
        stages = stages[names.index(config.begin_stage.replace("-", "_")) :]
    geometry = has_geometry and config.data.use_geometry
    beyond = timesteps > config.batch_size
    stages = [(name, stage) for name, stage in stages if _runs(stage, config, geometry, beyond)]
    stages = [(name, _switched(stage, config, holds_scale)) for name, stage in stages]
    return [(name, stage) for name, stage in stages if stage.solver != "adam" or stage.optimizable_params]


def _runs(stage: StageConfig, config: FitConfig, geometry: bool, beyond: bool) -> bool:
    if not stage.runs or stage.when == ("without_geometry" if geometry else "with_geometry"):
        return False
    if stage.when == "beyond_keyframes" and not beyond:
        return False
    if stage.for_offsets and not config.model.use_static_offset:
        return False
    if config.exp.photometric:
        return stage.when != "without_pictures"
    return "pictures" not in stage.looks_at or stage.solver == "bake"


def _switched(stage: StageConfig, config: FitConfig, holds_scale: bool) -> StageConfig:
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
    if "pictures" not in stage.looks_at:
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
