"""What follows from the definition of an option: ranges, refusals, names that help and manifests leave out."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import tyro

from flame_fitting import cli
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.track_config import TrackConfig
from flame_fitting.options import (
    PLACE,
    Option,
    Rule,
    hidden,
    not_deciding,
    option,
    options_of,
    own_first,
    refusals,
    value_of,
    values_of,
)
from flame_fitting.render_avatar import RenderConfig
from flame_fitting.run_pipeline import RunConfig
from flame_fitting.shared_options import ComputeOptions, DetectorWeights, FaceFinderWeights, HeadOptions, OutputOptions


@dataclass
class Inner:
    """A group."""

    share: float = option(0.5, at_least=0, at_most=1)
    sizes: tuple[int, ...] = option((), above=0)
    most: float | None = option(None, at_most=3)


@dataclass(kw_only=True)
class Shared:
    """What several commands have."""

    place: str = option("here", decides=False)
    count: int = 1


@own_first
@dataclass
class Command(Shared):
    """A command."""

    source: tyro.conf.Positional[Path] = field(metadata=PLACE)
    mode: str = option("one", refused="there is one mode. Leave it out.")
    idle: int = option(3, without_effect="nothing is idle")
    rare: int = option(4, seldom=True)
    inner: Inner = option(factory=Inner, seldom=True)
    log: Inner = option(factory=Inner, decides=False)


def test_names_that_help_and_manifests_leave_out() -> None:
    assert hidden(Command) == ("mode", "idle", "rare", "inner")
    assert not_deciding(Command) == {"source", "place", "log"}


def test_a_commands_own_options_come_first_and_shared_ones_are_keywords() -> None:
    assert [one.name for one in fields(Command)] == ["source", "mode", "idle", "rare", "inner", "log", "place", "count"]
    command = Command(Path("a"), "one", 5, place="there")
    assert (command.idle, command.place, command.count) == (5, "there", 1)
    assert values_of(command, Shared) == {"place": "there", "count": 1}
    assert tyro.cli(Command, args=["a", "--place", "b", "--inner.share", "1"]) == Command(
        Path("a"), place="b", inner=Inner(1.0)
    )


def test_what_is_out_of_range_or_refused_is_named_with_its_flag() -> None:
    assert list(refusals(Command(Path("a"), idle=-7, count=-7))) == []
    command = Command(Path("a"), mode="two", inner=Inner(1.5, (3, 0), 4.0), log=Inner(float("nan"), (1,), 3.0))
    assert list(refusals(command)) == [
        "--mode two: there is one mode. Leave it out.",
        "--inner.share 1.5: must be from 0 to 1.",
        "--inner.sizes 0: must be above 0.",
        "--inner.most 4.0: must be at most 3.",
        "--log.share nan: must be a finite number, from 0 to 1.",
    ]


def numbers_of(config_type: type) -> list[Option]:
    """Options that take a number that may have a fraction, alone or several."""
    return [one for one in options_of(config_type) if "float" in (getattr(one.type, "__name__", "") + str(one.type))]


def by_default(config_type: type) -> Any:
    """A configuration with its defaults; MISSING where it has none."""
    config = config_type.__new__(config_type)
    for one in options_of(config_type):
        if "." not in one.name:
            make = one.field.default_factory
            setattr(config, one.name, one.field.default if make is MISSING else make())
    return config


def refused(config_type: type, numbers: list[Option], number: float | None) -> list[str]:
    """What is said of a configuration in which some options are a number."""
    config = by_default(config_type)
    for one in numbers:
        *groups, last = one.name.split(".")
        setattr(value_of(config, ".".join(groups)) if groups else config, last, number)
    return list(refusals(config))


@pytest.mark.parametrize("name", [stage.name for stage in cli.STAGES])
def test_numbers_of_every_command_are_finite_and_in_a_range(name: str) -> None:
    stage = next(stage for stage in cli.STAGES if stage.name == name)
    config_type = getattr(cli._module(stage), stage.config)
    numbers = numbers_of(config_type)
    assert all(one.rule.bounded for one in numbers)
    for number in (float("nan"), float("inf"), float("-inf"), -1.0):
        said = refused(config_type, numbers, number)
        assert [text.split(": must be ")[0] for text in said] == [f"{one.flag} {number}" for one in numbers]


def test_weights_may_be_0_and_deviations_may_not() -> None:
    groups = {
        name: [one for one in numbers_of(TrackConfig) if one.name.startswith(f"{name}.")]
        for name in ("w", "lr", "prior")
    }
    assert all(len(found) > 10 for found in groups.values())
    assert refused(TrackConfig, groups["w"] + groups["lr"], 0.0) == []
    said = refused(TrackConfig, groups["prior"], 0.0)
    assert said == [f"{one.flag} 0.0: must be above 0." for one in groups["prior"]]
    without = [one for found in groups.values() for one in found if "None" in str(one.type)]
    assert len(without) > 5 and refused(TrackConfig, without, None) == []


@pytest.mark.parametrize(
    "command",
    [
        "make-demo-avatar --output O --shape-sigma inf",
        "make-demo-avatar --output O --seed -1",
        "evaluate O --mm-per-unit 0",
        "evaluate O --fps nan",
        "preprocess --input O --target-fps inf",
        "export --src-folder O --tgt-folder O/out --train-ratio nan",
        "render O --output O --fov inf",
    ],
)
def test_every_command_with_numbers_looks_at_them(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, flag, number = command.split()
    assert cli.main([word.replace("O", str(tmp_path), 1) for word in command.split()]) == 2
    assert f"flame-fitting: {flag} {float(number) if number != '-1' else -1}: must be" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prior.log-size", "inf"], "--prior.log-size inf: must be a finite number, above 0."),
        (["--prior.expr-change", "nan"], "--prior.expr-change nan: must be a finite number, above 0."),
        (["--prior.landmark-bias", "0"], "--prior.landmark-bias 0.0: must be above 0."),
        (["--w.landmark-count", "-1"], "--w.landmark-count -1.0: must be 0 or more."),
        (["--w.reg-light", "inf"], "--w.reg-light inf: must be a finite number, 0 or more."),
        (["--pipeline.lmk-init-all.prior", "inf"], "--pipeline.lmk-init-all.prior inf: must be a finite number, 0 or"),
    ],
)
def test_track_refuses_numbers_that_mean_nothing(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert cli.main(["track", str(tmp_path), "--output", str(output), *flags]) == 2
    messages = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flame-fitting: ")]
    assert len(messages) == 1 and said in messages[0] and not output.exists()


@pytest.mark.parametrize(
    ("rule", "inside", "outside", "said"),
    [
        (Rule(at_least=1), (1, 9), (0, -1), "1 or more"),
        (Rule(above=0), (1e-9,), (0.0, -1), "above 0"),
        (Rule(at_most=2), (2, -5), (2.1,), "at most 2"),
        (Rule(at_least=5, at_most=90), (5, 90), (4.9, 91), "from 5 to 90"),
        (Rule(above=0, at_most=1), (0.5, 1), (0, 1.5), "above 0 and at most 1"),
    ],
)
def test_ranges(rule: Rule, inside: tuple, outside: tuple, said: str) -> None:
    assert all(map(rule.admits, inside)) and not any(map(rule.admits, outside))
    assert not any(rule.admits(float(number)) for number in ("nan", "inf", "-inf"))
    assert rule.range == said and rule.bounded and not Rule(seldom=True).bounded


@pytest.mark.parametrize("group", [HeadOptions, FaceFinderWeights, DetectorWeights, ComputeOptions, OutputOptions])
def test_commands_inherit_what_they_share(group: type) -> None:
    """One definition each: the field of a command is that of the group."""
    # render finds the face with MediaPipe, whatever detects the landmarks
    for config in (FitConfig, RunConfig) if group is DetectorWeights else (RenderConfig, FitConfig, RunConfig):
        for one in fields(group):
            assert config.__dataclass_fields__[one.name] is group.__dataclass_fields__[one.name]


@pytest.mark.parametrize(
    ("flags", "said"), [(["--views", "3"], "--views 3: must be 4 or more"), (["--fov", "91"], "5 to 90")]
)
def test_render_refuses_what_is_out_of_range(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.glb").touch()
    assert cli.main(["render", str(tmp_path / "a.glb"), "--output", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
