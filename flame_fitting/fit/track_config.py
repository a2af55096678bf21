"""Options of tracking: those of the fit, with defaults for captures over time. Values only; no heavy import here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

import tyro

from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import PRESETS
from flame_fitting.fit.stage_config import LANDMARKS, Group, PipelineConfig, StageConfig
from flame_fitting.fit.weight_config import LearningRates, WeightConfig
from flame_fitting.options import option, own_first

TrackPreset = Literal["track", "vhap"]
_ONE_RECORDING = "one recording is tracked at a time. Leave it out; captures without time are fitted: flame-fitting fit"


@own_first
@dataclass
class TrackConfig(FitConfig):
    """Options of `flame-fitting track`: VHAP's, and ours."""

    over_time: ClassVar[bool] = True

    preset: TrackPreset = "track"  # type: ignore[assignment]
    """Defaults of all other options: track (second order, then a few epochs of pictures) or vhap (VHAP's schedule)."""
    others: tyro.conf.Suppress[tuple[Path, ...]] = ()
    same_identity: bool = option(False, refused=_ONE_RECORDING)
    """Several captures show one person."""


def track_preset(name: str, capture: Path | None = None, monocular: bool = True) -> TrackConfig:
    """The options of a preset, for a video or for a rig (None: the capture is to be filled in)."""
    if name not in get_args(TrackPreset):
        raise InputError(f"--preset {name}: no such preset. The presets are: {', '.join(get_args(TrackPreset))}.")
    config = TrackConfig(Path())
    config.capture = cast(Path, capture)
    PRESETS["vhap"](config)
    config.preset = cast(Any, name)
    config.scale, config.unit = "fixed", "m"
    w = config.w
    if monocular:
        w.landmark, w.always_enable_jawline_landmarks, w.reg_expr, w.reg_tex_tv = 10.0, True, 0.03, 1e4
        w.smooth_expr = 1.0
    if name == "track":
        _track(config, monocular)
    return config


def _track(config: TrackConfig, monocular: bool) -> None:
    w, model = config.w, config.model
    config.w, config.lr = WeightConfig(), LearningRates(eyelids=5e-3)
    model.tex_base, model.tex_resolution, model.tex_bake, model.use_eyelids = "baked", 1024, True, "auto"
    # people speak and laugh: wider than a static avatar at rest
    config.prior.expr, config.prior.eyelids, config.prior.jaw, config.prior.neck = 0.7, 0.5, 0.2, 0.15
    # from a timestep to the next at 25 pictures a second; they carry what is hidden for a moment
    change = config.prior
    change.expr_change, change.jaw_change, change.neck_change, change.eyes_change = 0.3, 0.08, 0.05, 0.1
    change.eyelids_change = 0.3  # lids shut within three pictures
    tracked: tuple[Group, ...] = ("pose", "joints", "expr")
    everything: tuple[Group, ...] = ("cam", *tracked, "shape")
    landmarks: dict[str, Any] = {"looks_at": LANDMARKS}
    pictures: dict[str, Any] = {"lr_schedule": "cosine", "average_last": 0.3, "disturb": 0.0}
    none = StageConfig(looks_at=LANDMARKS)
    config.pipeline = PipelineConfig(
        lmk_init_rigid=StageConfig(1, solver="closed_form", optimizable_params=("pose",), **landmarks),
        lmk_init_focal=StageConfig(6, solver="focal", optimizable_params=("cam", "pose"), **landmarks),
        lmk_init_all=StageConfig(12, solver="gauss_newton", optimizable_params=everything, **landmarks),
        pts_init_all=none,
        geo_init_all=none,
        rgb_init_texture=none,
        rgb_init_outline=none,
        rgb_init_all=none,
        rgb_init_offset=StageConfig(
            400,
            frames="keyframes",
            optimizable_params=(*tracked, "shape", "static_offset", "dynamic_offset", "texture"),
            sizes=(256, 512),
            texture_sizes=(512, 1024),
            rebake=100,
            landmark=0.1,
            prior=0.1,
            outline=2.0,
            outline_inside=2.0,
            **pictures,
        ),
        geo_init_offset=none,
        rgb_sequential_tracking=none,
        rgb_global_tracking=StageConfig(
            num_epochs=20,
            when="beyond_keyframes",
            optimizable_params=(*tracked, "dynamic_offset", "texture"),
            rebake=50,
            landmark=0.1,
            prior=0.1,
            **pictures,
        ),
        pts_global_tracking=none,
        lmk_sequential_tracking=none,
        lmk_global_tracking=none,
    )
    if monocular:
        _monocular(config, w.landmark)


def _monocular(config: TrackConfig, landmark: float) -> None:
    """One picture a timestep: many of them at once, identity with all of them, landmarks and priors in balance."""
    w, pipeline = config.w, config.pipeline
    w.landmark = landmark  # there are no points in space
    # a distance that is read off perspective jumps by centimetres, the more the longer the focal length is
    config.prior.translation_change, w.smooth_trans = 0.1, 3.0
    # what the priors of change in second order are, as means, beside the pictures' weight
    w.smooth_expr, w.smooth_jaw = 3.0, 2.0
    config.batch_size = 64
    pipeline.rgb_init_offset = StageConfig(looks_at=LANDMARKS)
    epochs = pipeline.rgb_global_tracking
    epochs.when, epochs.num_epochs = "always", 80
    epochs.optimizable_params = ("pose", "joints", "expr", "dynamic_offset", "shape", "texture")
    epochs.sizes, epochs.texture_sizes = (256, 512), (512, 1024)
    # second order's balance of landmarks and priors; a head inside its matte, which hair and clothes are part of
    epochs.landmark, epochs.prior, epochs.outline, epochs.outline_inside = 2.0, 0.01, 2.0, 0.0
    # pictures are followed to a fraction of a pixel, which the mean of their colours is not
    points = StageConfig(16, solver="points", looks_at=("landmarks", "pictures"))
    tracked: tuple[Group, ...] = ("pose", "joints", "expr")
    pipeline.pts_init_all = replace(points, optimizable_params=("cam", *tracked, "shape"))
    pipeline.pts_global_tracking = replace(points, num_steps=6, optimizable_params=tracked)
