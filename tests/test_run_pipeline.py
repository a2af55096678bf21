"""`run`: which stages run again, which folders are refused, what an interruption leaves. Stages are stand-ins here."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flame_fitting import cli, run_pipeline
from flame_fitting.errors import InputError
from flame_fitting.fit.presets import preset
from flame_fitting.manifest import Manifest, compare, config_as_dict, input_record
from flame_fitting.options import PLACE, not_deciding
from flame_fitting.run_pipeline import RunConfig, Step, run

RUN = next(stage for stage in cli.STAGES if stage.name == "run")


@dataclass
class StageConfig:
    """Flags of a stand-in stage."""

    source: Path = field(metadata=PLACE)
    output: Path = field(metadata=PLACE)
    setting: Any = None


class Chain:
    """Three stages that copy a file on and count their runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.planned: list[str] = []
        self.version = "1"
        self.head = "open"
        self.interrupt_at: str | None = None

    def steps(self, config: RunConfig, export: bool = True) -> list[Step]:
        places = {name: config.output / name for name in ("render", "fit", "export")}
        sources = {"render": config.avatar, "fit": places["render"] / "data", "export": places["fit"] / "data"}
        settings = {"render": config.views, "fit": config.photometric, "export": config.background_color}
        return [self.step(name, StageConfig(sources[name], places[name], settings[name])) for name in places]

    def step(self, name: str, config: StageConfig) -> Step:
        def plan(config: StageConfig) -> Manifest:
            self.planned.append(name)
            manifest = Manifest(
                stage=name,
                config=config_as_dict(config),
                inputs={"source": input_record(config.source, config.output)},
                head={"name": self.head, "sha256": self.head},
                version=self.version,
            )
            return manifest

        def function(config: StageConfig, manifest: Manifest | None = None) -> None:
            manifest = manifest or plan(config)
            if self.interrupt_at == name:
                raise KeyboardInterrupt
            config.output.mkdir(parents=True, exist_ok=True)
            (config.output / "data").write_text(config.source.read_text() + f" {name}:{config.setting}")
            if name == "fit":
                (config.output / "metrics.json").write_text('{"warnings": []}')
            manifest.finished = True
            manifest.write(config.output)
            self.ran.append(name)

        return Step(name, SimpleNamespace(plan=plan), function, config, config.output)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Chain:
    chain = Chain()
    monkeypatch.setattr(run_pipeline, "chain", chain.steps)
    return chain


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    avatar = tmp_path / "a.glb"
    avatar.write_text("avatar")
    return RunConfig(avatar=avatar, output=tmp_path / "out")


def ran_again(chain: Chain, config: RunConfig) -> list[str]:
    chain.ran.clear()
    result = run(config)
    assert result.ran == chain.ran
    assert [*result.reused, *result.ran] == ["render", "fit", "export"]
    return chain.ran


def test_nothing_runs_twice(stand_ins: Chain, config: RunConfig) -> None:
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]
    assert ran_again(stand_ins, config) == []


@pytest.mark.parametrize("force", [False, True])
def test_every_stage_is_planned_once(force: bool, stand_ins: Chain, config: RunConfig) -> None:
    config.force = force
    for changed in (None, None, "black", "white"):
        config.background_color = changed or config.background_color  # type: ignore[assignment]
        stand_ins.planned.clear()
        run(config)
        assert stand_ins.planned == ["render", "fit", "export"]
        made = json.loads((config.output / "export" / "manifest.json").read_text())
        assert made["config"]["setting"] == config.background_color


def test_a_changed_flag_runs_its_stage_and_all_after(stand_ins: Chain, config: RunConfig) -> None:
    run(config)
    config.background_color = "black"
    assert ran_again(stand_ins, config) == ["export"]
    config.photometric = False
    assert ran_again(stand_ins, config) == ["fit", "export"]
    config.views = 8
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]


def test_one_line_says_what_differs(stand_ins: Chain, config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    run(config)
    capsys.readouterr()
    config.photometric = False
    run(config)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "again" in line] == ["[2/3] fit: running from here again: setting true -> false"]


@pytest.mark.parametrize("name", ["version", "head"])
def test_another_version_or_head_runs_all_again(name: str, stand_ins: Chain, config: RunConfig) -> None:
    run(config)
    setattr(stand_ins, name, "other")
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]


def test_another_avatar_runs_all_again_but_another_place_does_not(
    stand_ins: Chain, config: RunConfig, tmp_path: Path
) -> None:
    run(config)
    config.avatar = config.avatar.rename(tmp_path / "b.glb")
    assert ran_again(stand_ins, config) == []
    config.avatar.write_text("another")
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]


def test_a_result_changed_by_hand_runs_what_depends_on_it(stand_ins: Chain, config: RunConfig) -> None:
    run(config)
    (config.output / "render" / "data").write_text("touched")
    assert ran_again(stand_ins, config) == ["fit", "export"]


def test_an_unfinished_stage_runs_again(stand_ins: Chain, config: RunConfig) -> None:
    run(config)
    path = config.output / "fit" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": False}))
    assert ran_again(stand_ins, config) == ["fit", "export"]


def test_force_runs_all_again(stand_ins: Chain, config: RunConfig) -> None:
    run(config)
    config.force = True
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]


def test_ctrl_c_keeps_finished_stages_and_the_next_run_goes_on(
    stand_ins: Chain, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_ins.interrupt_at = "fit"
    assert cli.execute(RUN, run_pipeline.run, config) == 130
    assert "stopped. Finished: render. Run the same command again to go on" in capsys.readouterr().err
    stand_ins.interrupt_at = None
    assert ran_again(stand_ins, config) == ["fit", "export"]


def test_ctrl_c_in_the_first_stage_does_not_lock_the_folder(
    stand_ins: Chain, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_ins.interrupt_at = "render"
    assert cli.execute(RUN, run_pipeline.run, config) == 130
    assert "stopped. Nothing has finished" in capsys.readouterr().err
    stand_ins.interrupt_at = None
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]


def test_a_folder_that_is_not_ours_is_refused_without_force(stand_ins: Chain, config: RunConfig) -> None:
    config.output.mkdir()
    (config.output / "holiday.jpg").touch()
    with pytest.raises(InputError, match="--force"):
        run(config)
    assert stand_ins.ran == []
    config.force = True
    run(config)
    assert (config.output / "holiday.jpg").is_file()


def test_a_folder_with_nothing_but_results_of_ours_is_taken(stand_ins: Chain, config: RunConfig) -> None:
    avatar = config.output / "avatar"
    avatar.mkdir(parents=True)
    Manifest(stage="make-demo-avatar", finished=True).write(avatar)
    assert ran_again(stand_ins, config) == ["render", "fit", "export"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"neutral": True, "expressive": True}, "--expressive"),
        ({"scale": "estimate", "unit": "cm"}, "--scale estimate"),
    ],
)
def test_flags_that_contradict(flags: dict[str, Any], said: str, stand_ins: Chain, config: RunConfig) -> None:
    for name, value in flags.items():
        setattr(config, name, value)
    with pytest.raises(InputError, match=said):
        run(config)
    assert not config.output.exists()


def test_a_preset_reaches_the_fit_and_flags_lie_over_it(config: RunConfig) -> None:
    config.preset, config.photometric, config.seed = "vhap", False, 5
    (fit,) = [step.config for step in run_pipeline.chain(config) if step.name == "fit"]
    expected = preset("vhap", config.output / "render")
    assert fit.preset == "vhap"
    assert (fit.w, fit.lr, fit.pipeline) == (expected.w, expected.lr, expected.pipeline)
    assert (fit.exp.photometric, fit.model.use_static_offset, fit.seed) == (False, True, 5)
    assert "preset" in config_as_dict(fit)


def test_several_avatars_are_rendered_each_and_fitted_together(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    config.others = (tmp_path / "b.glb", tmp_path / "x" / "a.glb")
    steps = run_pipeline.chain(config)
    out = config.output
    captures = [out / "render_a", out / "render_b", out / "render_a_2"]
    assert [step.config.output for step in steps if step.name == "render"] == captures
    assert [step.config.avatar for step in steps if step.name == "render"] == [config.avatar, *config.others]
    assert [step.config.capture for step in steps if step.name == "detect"] == captures
    (fit,) = [step.config for step in steps if step.name == "fit"]
    assert (fit.capture, *fit.others) == tuple(captures) and fit.same_identity and fit.folder == out / "fit"
    assert [step.name for step in steps[-3:]] == ["fit", "export", "evaluate"]


def test_an_avatar_that_is_given_twice_is_refused(stand_ins: Chain, config: RunConfig) -> None:
    copied = config.avatar.with_name(f"copy{config.avatar.suffix}")
    copied.write_bytes(config.avatar.read_bytes())
    for other, said in ((config.avatar.parent / "." / config.avatar.name, "given twice"), (copied, "are the same")):
        config.others = (other,)
        with pytest.raises(InputError, match=said) as error:
            run(config)
        assert str(other) in str(error.value)
    assert not config.output.exists()


def test_another_preset_fits_again_and_renders_no_more(config: RunConfig) -> None:
    plans = []
    for name in ("static", "fast"):
        config.preset = name
        steps = {step.name: step for step in run_pipeline.chain(config)}
        plans.append([Manifest(stage, config=config_as_dict(steps[stage].config)) for stage in ("render", "fit")])
    for made in plans[0]:
        made.finished = True
    assert compare(plans[0][0], plans[1][0]) is None
    assert "model.tex_resolution 1024 -> 512" in str(compare(plans[0][1], plans[1][1]))


def test_where_things_lie_and_what_only_names_an_input_does_not_decide(config: RunConfig) -> None:
    """The head stands in the manifest by its hash, the detector by its version, inputs by their content."""
    head = {"head", "flame_dir", "flame_masks"}
    machine = {"device", "force"}
    detectors = {"model_path", "star_weights", "face_alignment_weights", "dlib_weights"}
    detectors |= {"detector_device", "detector_half"}
    expected = {
        "render": {"avatar", "output", "model_path", "landmark_embedding"} | head | machine,
        "detect": {"capture"} | detectors,
        "fit": {"capture", "others", "same_identity", "output", "landmark_embedding", "detect", "log"}
        | {"data.root_folder"}
        | detectors
        | {
            "data.picture_cache",
            "data.subject",
            "model.flame_params_path",
            "exp.checkpoint_seconds",
            "data.sequence",
            "exp.output_folder",
            "exp.reuse_landmarks",
        }
        | head
        | machine,
        "export": {"src_folder", "tgt_folder", "capture_folder", "force"} | head,
        "evaluate": {"fit", "avatar", "capture_folder", "same_identity"} | head,
    }
    assert {step.name: set(not_deciding(type(step.config))) for step in run_pipeline.chain(config)} == expected


def test_what_commands_share_is_handed_on(config: RunConfig) -> None:
    shared = {"head": "open", "flame_dir": Path("a"), "flame_masks": Path("b"), "landmark_embedding": Path("c")}
    shared |= {"model_path": Path("d"), "device": "cpu", "seed": 3, "force": True}
    for name, value in (shared | {"views": 7, "resolution": 99, "detector": "mine", "scale": "fixed"}).items():
        setattr(config, name, value)
    steps = {step.name: step.config for step in run_pipeline.chain(config)}
    for stage in ("render", "fit"):
        assert {name: getattr(steps[stage], name) for name in shared} == shared
    assert (steps["render"].views, steps["render"].resolution) == (7, 99)
    assert (steps["detect"].detector, steps["detect"].model_path) == ("mine", Path("d"))
    assert (steps["fit"].data.landmark_source, steps["fit"].scale, steps["export"].force) == (("mine",), "fixed", True)
