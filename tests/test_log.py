"""Logs and the progress display."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flame_fitting import cli, log, progress
from flame_fitting.commands import STAGES
from flame_fitting.errors import InputError
from flame_fitting.evaluate import EvaluateConfig
from flame_fitting.fit.config import FitConfig
from flame_fitting.manifest import Manifest
from tests.test_cli import STAGE, FakeConfig


def test_native_stderr_goes_to_the_file_and_python_stderr_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.txt"
    with log.quiet_native_stderr(file):
        os.write(2, b"from C\n")
        print("from Python", file=sys.stderr)
        with log.quiet_native_stderr(file):
            os.write(2, b"nested\n")
            print("nested Python", file=sys.stderr)
        os.write(2, b"still C\n")
    os.write(2, b"after\n")
    assert file.read_text() == "from C\nnested\nstill C\n"
    assert capfd.readouterr().err == "from Python\nnested Python\nafter\n"


def test_descriptor_is_given_back_after_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), log.quiet_native_stderr():
        raise ValueError("inside")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with log.command_log(tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_second_command_adds_to_the_log(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    for text in ("first", "second"):
        with log.command_log(tmp_path):
            log.get_logger("flame_fitting.test").info(text)
    lines = (tmp_path / log.LOG_NAME).read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["first", "second"]


def test_warnings_are_shown_and_quiet_lines_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.quiet():
        progress.say("a line")
        with progress.Bar(1, "loop") as bar:
            bar.advance()
        progress.warn("ears are off")
        progress.result("a table")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("a table\n", "warning: ears are off\n")


def test_silence_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.silent():
        progress.say("a line")
        progress.warn("ears are off")
        progress.result("a table")
    assert capsys.readouterr() == ("", "")


def test_stage_line_carries_step_name_seconds_and_result(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step_of(2, 5), progress.stage("detect") as line:
        line.result("found 21")
    said = capsys.readouterr().err.splitlines()[-1].split()
    assert said[:2] == ["[2/5]", "detect"]
    assert said[3:] == ["s", "found", "21"]


def test_two_fits_that_are_compared_get_no_log_of_it(tmp_path: Path) -> None:
    assert cli.output_folder(EvaluateConfig(tmp_path)) == tmp_path
    assert cli.output_folder(EvaluateConfig(tmp_path, same_identity=tmp_path / "other")) is None
    together = FitConfig(tmp_path / "a", tmp_path / "fit", others=(tmp_path / "b",), same_identity=True)
    assert cli.output_folder(together) == tmp_path / "fit"
    over_its_input = replace(together, output=together.capture)
    assert cli.output_folder(over_its_input) is None, "it is refused, and leaves no log there"


@pytest.mark.parametrize("error", [InputError("no such option"), ZeroDivisionError("deep inside")])
def test_a_command_that_fails_leaves_no_log_in_a_folder_that_it_has_not_written(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("{}")

    def stage(config: FakeConfig) -> None:
        raise error

    code = cli.execute(STAGE, stage, FakeConfig(tmp_path))
    said = capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"] and "Traceback" not in said
    if code == 1:
        log = Path(said.strip().rsplit(" ", 1)[1])
        assert "ZeroDivisionError: deep inside" in log.read_text()
        log.unlink()

    def begun(config: FakeConfig) -> None:
        Manifest("fake").write(tmp_path)
        raise error

    assert cli.execute(STAGE, begun, FakeConfig(tmp_path)) == code
    assert str(error) in (tmp_path / "log.txt").read_text()


def test_a_command_that_makes_no_result_leaves_no_log(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert cli.execute(replace(STAGE, only_shows=True), lambda config: None, FakeConfig(tmp_path)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert [stage.name for stage in STAGES if stage.only_shows] == ["view"]
