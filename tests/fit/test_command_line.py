"""VHAP's command lines are understood: every option is honoured, named as without effect, or refused."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from flame_fitting import cli
from flame_fitting.errors import InputError
from flame_fitting.fit.check import check
from flame_fitting.fit.command_line import without_effect
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import preset
from flame_fitting.fit.schedule import effective_pipeline
from flame_fitting.fit.track_config import TrackConfig, track_preset
from flame_fitting.options import options_of, value_of
from tests.conftest import REPOSITORY

FIT = next(stage for stage in cli.STAGES if stage.name == "fit")

WITHOUT_EFFECT = {one.name for one in options_of(FitConfig) if one.rule.without_effect}
WITHOUT_EFFECT -= {name for name in WITHOUT_EFFECT if name.startswith("prior.")}  # VHAP has no such group
REFUSED = {one.name for one in options_of(FitConfig) if one.rule.refused}
STAGES = [name for name, _ in FitConfig(Path("capture")).pipeline.items() if not name.startswith("geo_")]
OF_A_STAGE = """num_steps 10; num_epochs 2; optimizable_params cam pose; disable_jawline_landmarks;
align_texture_except hair boundary; align_boundary_except bottomline"""

# Every option of VHAP's track commands with a value, as its documentation writes them.
OPTIONS = """
data.root_folder data; data.sequence someone; data.division train; data.subset ti1; data.calibrated; data.no_calibrated
data.align_cameras_to_axes; data.no_align_cameras_to_axes; data.camera_convention_conversion opencv->opengl
data.camera_convention_conversion None; data.target_extrinsic_type c2w; data.n_downsample_rgb 4; data.scale_factor 0.5
data.background_color white; data.background_color black; data.background_color None; data.use_alpha_map
data.no_use_alpha_map; data.use_landmark; data.no_use_landmark; data.landmark_source star
data.landmark_source face-alignment; data.landmark_detector_njobs 4; data.image_size_during_calibration 3208 2200
data.subject 074; data.use_color_correction; data.no_use_color_correction
model.n_shape 100; model.n_expr 50; model.n_tex 50; model.use_static_offset; model.no_use_static_offset
model.use_dynamic_offset; model.no_use_dynamic_offset; model.add_teeth; model.no_add_teeth; model.remove_lip_inside
model.no_remove_lip_inside; model.tex_resolution 1024; model.tex_painted; model.no_tex_painted; model.tex_extra
model.no_tex_extra; model.tex_clusters skin hair; model.residual_tex; model.no_residual_tex
model.occluded neck_lower boundary; model.flame_params_path a.npz
render.backend nvdiffrast; render.backend pytorch3d; render.use_opengl; render.background_train white
render.disturb_rate_fg 0.6; render.disturb_rate_bg 0.3; render.background_eval black; render.lighting_type constant
render.lighting_type front; render.lighting_type front-range; render.lighting_type SH; render.lighting_space camera
lr.base 1e-3; lr.translation 1e-3; lr.expr 1e-2; lr.static_offset 1e-4; lr.dynamic_offset 1e-4; lr.camera 1e-3
lr.light 1e-3
w.landmark 5; w.always_enable_jawline_landmarks; w.no_always_enable_jawline_landmarks; w.photo 3; w.reg_shape 1
w.reg_neck 1; w.reg_jaw 1; w.reg_eyes 1; w.reg_expr 1; w.reg_tex_res_clusters 1; w.reg_tex_res_for teeth
w.reg_tex_tv 3e4; w.reg_tex_pca 1; w.reg_light 1; w.reg_light None; w.reg_diffuse 1; w.reg_offset 1
w.reg_offset_relax_coef 0.5; w.reg_offset_relax_for hair; w.reg_offset_lap 1e5; w.reg_offset_lap_relax_coef 0.5
w.reg_offset_lap_relax_for hair; w.reg_offset_rigid 1; w.reg_offset_rigid_for neck; w.reg_offset_dynamic 1
w.blur_iter 2; w.smooth_trans 1; w.smooth_rot 1; w.smooth_neck 1; w.smooth_jaw 1; w.smooth_eyes 1; w.smooth_expr 2
log.interval_scalar 10; log.interval_media 10; log.image_format jpg; log.view_indices 1 2; log.max_num_views 2
log.stack_views_in_rows; log.no_stack_views_in_rows; log.no_video
exp.output_folder out; exp.reuse_landmarks; exp.no_reuse_landmarks; exp.keyframes 1 2; exp.photometric
exp.no_photometric
begin_stage rgb_init_all; begin_timestep 3; batch_size 8; async_func; no_async_func; device cuda; device cpu
"""


def split(options: str) -> list[list[str]]:
    return [option.split() for option in options.replace("\n", ";").split(";") if option.strip()]


def parsed(*arguments: str) -> FitConfig:
    config = cli._parse(FIT, FitConfig, list(arguments))
    assert isinstance(config, FitConfig), arguments
    return config


def field_of(option: str) -> tuple[str, bool]:
    """Dotted name of an option, and whether it says no."""
    group, _, name = option.rpartition(".")
    yes = name.removeprefix("no_")
    return f"{group}.{yes}" if group else yes, yes != name


def check_value(config: FitConfig, option: list[str]) -> None:
    """An option is read."""
    name, *values = option
    field, no = field_of(name)
    value = value_of(config, field)
    if not values:
        assert value is not no
    elif isinstance(value, tuple):
        assert [str(one) for one in value] == values
    elif isinstance(value, float):
        assert value == float(values[0])
    else:
        assert [str(value)] == values


def without_effect_in(config: FitConfig, default: FitConfig, fields: set[str]) -> list[str]:
    """Beginnings of the lines that are to be said of `fields`, sorted."""
    rules = {one.name: one.rule for one in options_of(type(config))}
    still = [
        field
        for field in fields
        if field == "data.root_folder"
        or (rules[field].without_effect and value_of(config, field) != value_of(default, field))
    ]
    return sorted(f"--{field.replace('_', '-')} has no effect here: " for field in still)


def check_lines(lines: list[str], expected: list[str]) -> None:
    for line, begin in zip(sorted(lines), expected, strict=True):
        assert line.startswith(begin) and "\n" not in line


@pytest.mark.parametrize("option", split(OPTIONS), ids=" ".join)
def test_an_option_is_read_and_named_once_where_it_has_no_effect(option: list[str]) -> None:
    name, *values = option
    config = parsed("capture", f"--{name}", *values)
    check_value(config, option)
    expected = without_effect_in(config, preset("static", Path("capture")), {field_of(name)[0]})
    check_lines(without_effect(config), expected)


@pytest.mark.parametrize("monocular", [True, False])
def test_tracking_reads_every_option_and_names_it_where_it_has_no_effect(monocular: bool) -> None:
    stage = next(one for one in cli.STAGES if one.name == ("track" if monocular else "track-nersemble"))
    default, left = track_preset("track", Path("capture"), monocular), split(OPTIONS)
    while left:  # each field once on a command line
        together = {field_of(option[0])[0]: option for option in reversed(left)}
        left = [option for option in left if option not in together.values()]
        words = [word for name, *values in together.values() for word in (f"--{name}", *values)]
        config = cli._parse(stage, TrackConfig, ["capture", *words])
        assert isinstance(config, TrackConfig)
        for option in together.values():
            check_value(config, option)
        check_lines(without_effect(config), without_effect_in(config, default, set(together)))


def test_every_option_of_vhap_stands_in_the_document_for_its_users() -> None:
    """By a pattern where it is taken; by its own name where it is refused or does nothing over time."""
    text = (REPOSITORY / "docs" / "vhap-users.md").read_text()
    flags = {one.replace("-", "_") for one in re.findall(r"--([a-z][\w.*-]*)", text)}
    still = {one.name for one in options_of(TrackConfig) if one.rule.without_effect or one.rule.refused}
    for name in dict.fromkeys(field_of(name)[0] for name, *_ in split(OPTIONS)):
        group, _, last = name.rpartition(".")
        names = {name, f"{group}.no_{last}" if group else f"no_{last}"}
        found = names & flags if name in still else [one for one in flags if fnmatchcase(name, one)] or names & flags
        assert found, f"--{name}"


def test_steps_of_a_stage_that_moves_nothing_are_said() -> None:
    stage = next(one for one in cli.STAGES if one.name == "track")
    steps, moving = ["--pipeline.rgb_sequential_tracking.num_steps", "20"], "--pipeline.rgb-sequential-tracking."
    config = cli._parse(stage, TrackConfig, ["capture", *steps])
    (line,) = without_effect(config)
    assert line.startswith(f"{moving}num-steps has no effect here") and f"{moving}optimizable-params" in line
    names = [name for name, _ in effective_pipeline(config, has_geometry=False)]
    assert "rgb_sequential_tracking" not in names
    for more in (["--preset", "vhap"], [f"{moving}optimizable-params", "pose"]):
        config = cli._parse(stage, TrackConfig, ["capture", *steps, *more])
        assert without_effect(config) == []
        assert "rgb_sequential_tracking" in [name for name, _ in effective_pipeline(config, has_geometry=False)]


def test_dashes_and_underscores_are_the_same() -> None:
    once = {name: values for name, *values in split(OPTIONS) if "no_" not in name}
    underscores = [text for name, values in once.items() for text in (f"--{name}", *values)]
    dashes = [text for name, values in once.items() for text in (f"--{name.replace('_', '-')}", *values)]
    assert parsed("capture", *underscores) == parsed("capture", *dashes)


@pytest.mark.parametrize("stage", STAGES)
def test_options_of_a_stage(stage: str) -> None:
    options = split(OF_A_STAGE)
    config = parsed("capture", *(text for name, *rest in options for text in (f"--pipeline.{stage}.{name}", *rest)))
    for name, *values in options:
        value = value_of(config, f"pipeline.{stage}.{name}")
        assert value == (True if not values else int(values[0]) if isinstance(value, int) else tuple(values))


def test_every_option_of_vhap_is_in_the_list() -> None:
    """So that a table of options without effect never holds a name that is not read."""
    listed = {field_of(name)[0] for name, *_ in split(OPTIONS)}
    assert len(WITHOUT_EFFECT) > 25 and listed >= WITHOUT_EFFECT
    assert len(REFUSED) == 4 and listed >= REFUSED


@pytest.mark.parametrize("name", ["static", "vhap", "fast", "high"])
def test_presets_have_nothing_without_effect(name: str) -> None:
    assert without_effect(preset(name, Path("capture"))) == []


def test_what_is_without_effect_depends_on_the_preset_not_on_the_class() -> None:
    config = preset("vhap", Path("capture"))
    config.w.smooth_expr = 1.0
    assert len(without_effect(config)) == 1


def test_steps_of_a_stage_that_is_done_at_once() -> None:
    (line,) = without_effect(parsed("capture", "--pipeline.rgb_init_texture.num_steps", "500"))
    assert "--pipeline.rgb-init-texture.num-steps" in line
    assert without_effect(parsed("capture", "--preset=vhap", "--pipeline.rgb_init_texture.num_steps", "9")) == []


def test_a_capture_from_root_folder_and_sequence_is_no_flag_without_effect() -> None:
    assert without_effect(parsed("--data.root_folder", "data", "--data.sequence", "someone")) == []


@pytest.mark.parametrize(
    "option",
    [
        "data.no_calibrated",
        "model.use_dynamic_offset",
        "model.no_tex_painted",
        "render.backend pytorch3d",
    ],
)
def test_what_would_mislead_is_refused(option: str) -> None:
    name, *values = option.split()
    config = parsed("capture", f"--{name}", *values)
    field, _ = field_of(name)
    with pytest.raises(InputError) as caught:
        check(config)
    assert str(caught.value).startswith(f"--{field.replace('_', '-')} ")
    assert "eave it out" in str(caught.value) or "eave the flag out" in str(caught.value) or "Use " in str(caught.value)


def test_a_command_line_as_vhap_documents_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "074_EMO-1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    line = (
        "--data.root_folder data --data.sequence 074_EMO-1 --exp.output_folder out --data.n_downsample_rgb 4"
        " --model.occluded neck_lower boundary --model.no_use_static_offset --data.background_color black"
        " --begin_stage rgb_init_texture --pipeline.rgb_global_tracking.num_epochs 10 --w.reg_tex_tv 1e4"
        " --preset vhap"
    )
    config = parsed(*line.split())
    check(config)
    assert without_effect(config) == []
    assert config.capture == Path("data/074_EMO-1")
    assert config.folder == Path("out")
    assert config.model.occluded == ("neck_lower", "boundary")
    assert config.pipeline.rgb_global_tracking.num_epochs == 10
    assert config.pipeline.rgb_global_tracking.lr_scale == 0.1
