"""Refuses options that contradict each other or mean nothing. No heavy import here."""

import difflib
from collections.abc import Iterable, Iterator

from flame_fitting.errors import InputError
from flame_fitting.fit.config import GROUPS, FitConfig, StageConfig
from flame_fitting.fit.scale import contradiction

SOLVERS_OF = {
    "lmk_init_rigid": ("closed_form", "adam"),
    "lmk_init_all": ("gauss_newton", "adam"),
    "geo_init_all": ("gauss_newton",),
    "rgb_init_texture": ("bake", "adam"),
    "rgb_init_outline": ("adam",),
    "geo_init_offset": ("registration",),
}
"""Solvers of a stage; all others are Adam's."""


def check(config: FitConfig) -> None:
    """Raises InputError with the first problem."""
    problem = next(_problems(config), None)
    if problem is not None:
        raise InputError(problem)


def _problems(config: FitConfig) -> Iterator[str]:
    yield from _contradictions(config)
    yield from _refused(config)
    names = [name for name, _ in config.pipeline.items()]
    if config.begin_stage is not None and config.begin_stage.replace("-", "_") not in names:
        yield f"--begin-stage {config.begin_stage}: no such stage.{_close(config.begin_stage, names)}"
    yield from _numbers(config)
    for name, stage in config.pipeline.items():
        yield from _stage_problems(name, stage)


def _contradictions(config: FitConfig) -> Iterator[str]:
    if config.neutral and config.expressive:
        yield "--neutral and --expressive contradict each other. Give one of them."
    if text := contradiction(config.scale, config.unit):
        yield text
    folders = {config.output, config.exp.output_folder} - {None}
    if len(folders) > 1:
        yield "--output and --exp.output-folder name two folders. Give one of them."
    if config.data.sequence and config.data.root_folder is None:
        yield "--data.sequence needs --data.root-folder. Give both, or the capture's path alone."
    if not config.detect and not config.exp.reuse_landmarks:
        yield "--no-detect and --exp.no-reuse-landmarks leave no landmarks. Give one of them."


def _refused(config: FitConfig) -> Iterator[str]:
    from flame_fitting.fit.vhap_flags import REFUSED, flag, value_of

    for name, (allowed, text) in REFUSED.items():
        value = value_of(config, name)
        if value not in allowed:
            yield f"{flag(name)} {value}: {text}"


def _numbers(config: FitConfig) -> Iterator[str]:
    model, render, data = config.model, config.render, config.data
    at_least_one = {
        "--model.n-shape": model.n_shape,
        "--model.n-expr": model.n_expr,
        "--model.tex-resolution": model.tex_resolution,
    }
    if data.n_downsample_rgb is not None:
        at_least_one["--data.n-downsample-rgb"] = data.n_downsample_rgb
    for name, number in at_least_one.items():
        if number < 1:
            yield f"{name} {number}: must be 1 or more."
    for name, rate in (("fg", render.disturb_rate_fg), ("bg", render.disturb_rate_bg)):
        if not 0 <= rate <= 1:
            yield f"--render.disturb-rate-{name} {rate}: must be from 0 to 1."
    for group, prefix, lowest in (
        (config.w, "w", "0 or more"),
        (config.lr, "lr", "0 or more"),
        (config.prior, "prior", "above 0"),
    ):
        for key, value in vars(group).items():
            if isinstance(value, int | float) and not (value > 0 or (value == 0 and prefix != "prior")):
                yield f"--{prefix}.{key.replace('_', '-')} {value}: must be {lowest}."
    if data.max_yaw <= 0 or render.views_per_step < 0 or config.seed < 0:
        yield "--data.max-yaw must be above 0, --render.views-per-step and --seed 0 or more."


def _stage_problems(name: str, stage: StageConfig) -> Iterator[str]:
    prefix = f"--pipeline.{name.replace('_', '-')}"
    solvers = SOLVERS_OF.get(name, ("adam",))
    if stage.runs and stage.solver not in solvers:
        yield f"{prefix}.solver {stage.solver}: this stage's solver is {' or '.join(solvers)}."
    for group in stage.optimizable_params:
        if group not in GROUPS:
            yield f"{prefix}.optimizable-params {group}: no such group.{_close(group, GROUPS)}"
    if min(stage.num_steps, stage.num_epochs, stage.rebake) < 0 or stage.smooth < 0:
        yield f"{prefix}: num-steps, num-epochs, rebake and smooth must be 0 or more."
    if any(size < 1 for size in (*stage.sizes, *stage.texture_sizes)):
        yield f"{prefix}: sizes and texture-sizes must be 1 or more."
    if stage.lr_scale < 0 or not 0 <= stage.average_last <= 1:
        yield f"{prefix}: lr-scale must be 0 or more, average-last from 0 to 1."


def _close(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), list(names), n=1)
    return f" Did you mean {close[0]}?" if close else f" There are: {', '.join(names)}."
