"""Options of the fit: what is refused, and how a command line is read."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from flame_fitting import cli, options, shared_options
from flame_fitting.errors import InputError
from flame_fitting.fit import config, stage_config, weight_config
from flame_fitting.fit.check import check
from flame_fitting.fit.command_line import given_value
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import PRESETS, preset
from flame_fitting.options import hidden, options_of, value_of

FIT = next(stage for stage in cli.STAGES if stage.name == "fit")


def parsed(*arguments: str) -> FitConfig:
    config = cli._parse(FIT, FitConfig, list(arguments))
    assert isinstance(config, FitConfig), arguments
    return config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_allowed(name: str) -> None:
    check(preset(name, Path("capture")))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("begin_stage", "rgb_init_al", "Did you mean rgb_init_all?"),
        ("begin_stage", "nothing like it", "There are: lmk_init_rigid, "),
        ("exp.output_folder", Path("other"), "two folders"),
        ("data.sequence", "someone", "--data.root-folder"),
        ("data.n_downsample_rgb", 0, "--data.n-downsample-rgb 0"),
        ("data.max_yaw", 0.0, "--data.max-yaw 0.0: must be above 0"),
        ("seed", -1, "--seed -1: must be 0 or more"),
        ("model.tex_resolution", 0, "--model.tex-resolution 0"),
        ("model.n_shape", -1, "--model.n-shape -1"),
        ("render.disturb_rate_fg", 1.5, "--render.disturb-rate-fg 1.5"),
        ("render.views_per_step", -1, "--render.views-per-step"),
        ("w.photo", -1.0, "--w.photo -1.0"),
        ("w.reg_shape", float("nan"), "--w.reg-shape nan"),
        ("lr.base", -1.0, "--lr.base -1.0"),
        ("prior.jaw", 0.0, "--prior.jaw 0.0: must be above 0"),
        ("pipeline.rgb_init_all.optimizable_params", ("shpe",), "Did you mean shape?"),
        ("pipeline.rgb_init_all.sizes", (256, 0), "--pipeline.rgb-init-all.sizes 0: must be 1 or more"),
        ("pipeline.rgb_init_all.num_steps", -1, "--pipeline.rgb-init-all.num-steps -1: must be 0 or more"),
        ("pipeline.rgb_init_all.average_last", 1.5, "--pipeline.rgb-init-all.average-last 1.5: must be from 0 to 1"),
        ("pipeline.rgb_init_all.solver", "bake", "it cannot move pose. Use gauss_newton or adam"),
        ("pipeline.geo_init_offset.solver", "gauss_newton", "cannot move static_offset. Use registration or adam"),
    ],
)
def test_what_means_nothing_is_refused(name: str, value: object, said: str) -> None:
    config = FitConfig(Path("capture"), Path("fit"))
    check(config)
    group, _, field = name.rpartition(".")
    setattr(value_of(config, group) if group else config, field, value)
    with pytest.raises(InputError) as caught:
        check(config)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [("--neutral", "--expressive"), ("--no-detect", "--exp.no-reuse-landmarks")],
)
def test_flags_that_contradict_each_other(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="Give one of them"):
        check(parsed("capture", *arguments))


def test_everyday_flags_and_their_dotted_names() -> None:
    short = parsed("capture", "--no-photometric", "--no-use-static-offset", "--no-add-teeth")
    assert short == parsed("capture", "--exp.no_photometric", "--model.no_use_static_offset", "--model.no_add_teeth")
    assert not (short.exp.photometric or short.model.use_static_offset or short.model.add_teeth)


@pytest.mark.parametrize("form", [["--preset", "vhap"], ["--preset=vhap"], ["--preset", "fast", "--preset", "vhap"]])
@pytest.mark.parametrize("place", [0, 1])
def test_a_preset_gives_the_defaults_wherever_it_stands_and_flags_override_them(form: list[str], place: int) -> None:
    if len(form) == 4:
        assert given_value(form, "preset") == "vhap"
        return
    arguments = ["capture", "--w.landmark", "7"]
    config = parsed(*(form + arguments if place == 0 else arguments + form))
    expected = preset("vhap", Path("capture"))
    expected.w.landmark = 7.0
    assert config == expected
    assert config.preset == "vhap"


def test_without_a_preset_the_defaults_are_static() -> None:
    assert parsed("capture") == FitConfig(Path("capture")) == preset("static", Path("capture"))


def test_a_preset_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._parse(FIT, FitConfig, ["capture", "--preset=best"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "static, vhap, fast, high" in said


@pytest.mark.parametrize("form", ["--data.root_folder", "--data.root-folder"])
def test_root_folder_and_sequence_stand_for_the_capture(form: str) -> None:
    assert parsed(form, "data", "--data.sequence", "someone").capture == Path("data/someone")
    assert parsed(f"{form}=data", "--data.sequence=someone").capture == Path("data/someone")
    assert parsed(form, "data").capture == Path("data")
    assert parsed("capture", form, "data").capture == Path("capture")


def test_a_capture_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._parse(FIT, FitConfig, ["--preset", "vhap"]) == 2
    assert "PATH" in capsys.readouterr().err


def test_exp_output_folder_is_the_output() -> None:
    assert parsed("capture", "--exp.output_folder", "there").folder == Path("there")


def test_help_leaves_out_what_exists_and_help_all_leaves_out_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._parse(FIT, FitConfig, ["--help"]) == 0
    short = capsys.readouterr().out
    assert cli._parse(FIT, FitConfig, ["--help-all"]) == 0
    everything = capsys.readouterr().out
    for name in hidden(FitConfig):
        assert f"--{name.replace('_', '-')}" in everything
    for flag in ("--pipeline.rgb-init-all.num-steps", "--data.calibrated", "--w.smooth-trans", "--w.landmark-visible"):
        assert flag in everything
        assert flag not in short
    for flag in ("--preset", "--w.photo", "--photometric", "--model.occluded", "--begin-stage"):
        assert flag in everything
        assert flag in short


def test_help_shows_the_defaults_of_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._parse(FIT, FitConfig, ["--preset", "vhap", "--help"]) == 0
    assert "Photometric L1, sRGB. (default: 30.0)" in capsys.readouterr().out


def test_every_option_is_explained() -> None:
    sources = [inspect.getsource(module) for module in (config, stage_config, weight_config, shared_options)]
    trees = [ast.parse(source) for source in sources]
    for one in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        for before, after in zip(one.body, one.body[1:], strict=False):
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and one.name != "FitConfig":
                explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert explained, f"{one.name}.{before.target.id}"


def test_every_number_has_a_range_unless_it_does_nothing() -> None:
    """A new option without one would take -1 in silence."""
    for one in options_of(FitConfig):
        numbers = {int, float} & {one.type, *get_args(one.type)}
        if numbers and not (one.rule.without_effect or one.rule.refused):
            assert one.rule.bounded, one.name


def test_options_import_downwards_only() -> None:
    """Functions included: each module knows those before it and no other."""
    package, known = Path(options.__file__).parent, {"errors"}
    for name in ("options", "shared_options", "fit.scale", "fit.reasons", "fit.stage_config", "fit.weight_config") + (
        "fit.config",
        "fit.presets",
        "fit.schedule",
        "fit.check",
        "fit.command_line",
    ):
        tree = ast.parse((package / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
        own = {module.removeprefix("flame_fitting.") for module in imported if module.startswith("flame_fitting")}
        assert own <= known, name
        known.add(name)


def test_options_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from flame_fitting.fit import check, command_line, presets, schedule\n"
        "from pathlib import Path\n"
        "one = presets.preset('vhap', Path('capture'))\n"
        "check.check(one), command_line.without_effect(one), schedule.effective_pipeline(one, True)\n"
        "assert not [name for name in ('torch', 'numpy', 'cv2') if name in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
