"""Methods by name: a preset and what is changed in it."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import preset
from flame_fitting.fit.stage_config import LANDMARKS

Change = Callable[[FitConfig], None]


@dataclass(frozen=True)
class Method:
    """A row of options."""

    name: str
    preset: str
    changes: tuple[Change, ...] = ()
    base: str = ""
    """The method that an ablation takes something from; empty for the others."""
    cases: tuple[str, ...] = ()
    """Beginnings of the names of cases that it runs on; empty: all."""

    def config(self) -> FitConfig:
        """Its options; the capture is to be filled in."""
        config = preset(self.preset)
        for change in self.changes:
            change(config)
        return config

    def runs_on(self, case: str) -> bool:
        """Whether the bench has it on a case."""
        return not self.cases or case.startswith(self.cases)


def no_geometry(config: FitConfig) -> None:
    """Depth and normals of the capture are not looked at."""
    config.data.use_geometry = False


def no_offsets(config: FitConfig) -> None:
    """No static offsets."""
    config.model.use_static_offset = False


def only_landmarks(config: FitConfig) -> None:
    """Stages that look at nothing but landmarks, and the texture for the pictures."""
    config.data.use_geometry = False
    for _, stage in config.pipeline.items():
        if stage.looks_at != LANDMARKS and stage.solver != "bake":
            stage.num_steps = stage.num_epochs = 0


OFFSETS_ON = ("bare", "standin", "hair", "glasses", "body")
MAIN = (
    Method("landmarks", "static", (only_landmarks,)),
    Method("vhap", "vhap"),
    Method("static no geometry", "static", (no_geometry,)),
    Method("static", "static"),
    Method("vhap no offsets", "vhap", (no_offsets,), cases=OFFSETS_ON),
    Method("static no geometry no offsets", "static", (no_geometry, no_offsets), cases=OFFSETS_ON),
    Method("static no offsets", "static", (no_offsets,), cases=OFFSETS_ON),
)


def _no_perturbation(config: FitConfig) -> None:
    config.render.disturb_rate_fg = config.render.disturb_rate_bg = 0.0


def _no_silhouette(config: FitConfig) -> None:
    config.w.silhouette = config.w.silhouette_inside = 0.0


def _no_inside(config: FitConfig) -> None:
    config.w.silhouette_inside = 0.0


def _no_later_landmarks(config: FitConfig) -> None:
    config.w.landmark = config.w.landmark_3d = config.w.contour = config.w.closure = 0.0


def _no_detail(config: FitConfig) -> None:
    config.pipeline.rgb_init_offset.num_steps = 0


def _no_outline(config: FitConfig) -> None:
    config.pipeline.rgb_init_outline.num_steps = 0


def _across_views(config: FitConfig) -> None:
    config.pipeline.rgb_init_offset.across_views = True
    config.model.tex_extra = False


def _painted(config: FitConfig) -> None:
    config.model.tex_base = "painted"


def _with_closure(config: FitConfig) -> None:
    config.w.closure = 1.0


def _with_contour(config: FitConfig) -> None:
    config.w.contour = 1.0


def _with_rigid(config: FitConfig) -> None:
    config.w.reg_offset_rigid = 1e5


def _lap_per_vertex(config: FitConfig) -> None:
    config.w.reg_offset_lap_per_area = False


def _no_regions(config: FitConfig) -> None:
    config.pipeline.rgb_init_all.num_steps = 0


def _no_far_background(config: FitConfig) -> None:
    config.render.background_train = "target"


def _no_prior(config: FitConfig) -> None:
    config.w.prior = 0.0


def _no_surface(config: FitConfig) -> None:
    config.w.surface = 0.0


def _no_registration(config: FitConfig) -> None:
    config.pipeline.geo_init_offset.num_steps = 0


def _no_average(config: FitConfig) -> None:
    for _, stage in config.pipeline.items():
        stage.average_last = 0.0


def _no_optimised_texture(config: FitConfig) -> None:
    config.model.tex_extra = False


ABLATIONS: dict[str, Change] = {
    "no perturbation": _no_perturbation,
    "no silhouette": _no_silhouette,
    "no silhouette from inside": _no_inside,
    "no landmarks after the start": _no_later_landmarks,
    "no stage of the outline (rgb_init_outline)": _no_outline,
    "no stage of regions (rgb_init_all)": _no_regions,
    "no stage of offsets by pictures (rgb_init_offset)": _no_detail,
    "no optimised texture": _no_optimised_texture,
    "texture from the other half of the views": _across_views,
    "painted base": _painted,
    "no far background": _no_far_background,
    "Laplacian as VHAP's": _lap_per_vertex,
    "no prior": _no_prior,
    "no surface in photometric stages": _no_surface,
    "no registration": _no_registration,
    "no mean of last iterates": _no_average,
    "with closure": _with_closure,
    "with contour": _with_contour,
    "with rigid regions": _with_rigid,
}
"""What is taken from `static` and from `static no geometry`; where it changes nothing, it is left out."""
ABLATED = ("static no geometry", "static")
ABLATION_CASES = ("bare_0", "bare_1", "standin_0", "detected_0")


def all_methods() -> list[Method]:
    """Main methods, then ablations."""
    out = list(MAIN)
    by_name = {method.name: method for method in MAIN}
    for name in ABLATED:
        base = by_name[name]
        without = base.config()
        for what, change in ABLATIONS.items():
            changed = copy.deepcopy(without)
            change(changed)
            if effective(changed, base) != effective(without, base):
                out.append(
                    Method(f"{name}: {what}", base.preset, (*base.changes, change), base.name, cases=ABLATION_CASES)
                )
    return out


def effective(config: FitConfig, base: Method) -> object:
    """What of a configuration can matter for a static avatar in a method."""
    from flame_fitting.fit.schedule import effective_pipeline

    values = dataclasses.asdict(config)
    del values["pipeline"]
    stages = effective_pipeline(config, has_geometry=no_geometry not in base.changes)
    if no_geometry in base.changes:
        values["w"]["surface"] = 0.0
    # pictures are unlit, and a texture that nothing moves is baked
    if not any("lights" in stage.optimizable_params for _, stage in stages):
        del values["render"]["lighting_type"]
    del values["model"]["tex_extra"]
    return values, [(name, dataclasses.asdict(stage)) for name, stage in stages]


def shortened(config: FitConfig, steps: int = 12) -> FitConfig:
    """The same with few steps a stage, to warm up with."""
    config = copy.deepcopy(config)
    for _, stage in config.pipeline.items():
        stage.num_steps, stage.num_epochs = min(stage.num_steps, steps), min(stage.num_epochs, 2)
    return config
