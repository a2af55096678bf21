"""What follows from the definition of an option: ranges, refusals, names that help and manifests leave out."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
import tyro

from flame_fitting import cli
from flame_fitting.fit.config import FitConfig
from flame_fitting.options import PLACE, Rule, hidden, not_deciding, option, own_first, refusals, values_of
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
        "--log.share nan: must be from 0 to 1.",
    ]


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
    assert all(map(rule.admits, inside)) and not any(map(rule.admits, outside)) and not rule.admits(float("nan"))
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
