"""The command line: help, error texts, exit codes, and what it does not import."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flame_fitting import cli, options, progress, stopping
from flame_fitting.errors import InputError, NoFaceError
from flame_fitting.folders import staged_folder
from flame_fitting.log import get_logger
from tests.conftest import REPOSITORY

SNAPSHOTS = Path(__file__).parent / "snapshots"
HEAVY = ("torch", "numba", "cv2", "mediapipe", "trimesh", "scipy")


def check_snapshot(name: str, text: str, config: pytest.Config) -> None:
    """Compares with tests/snapshots/<name>.txt; --update-snapshots writes it."""
    path = SNAPSHOTS / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if config.getoption("--update-snapshots"):
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing; run pytest with --update-snapshots and look at it"
    assert text == path.read_text(encoding="utf-8"), "changed on purpose? run pytest with --update-snapshots"


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "flame_fitting", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("name", [None, *[stage.name for stage in cli.STAGES]])
def test_help(name: str | None, request: pytest.FixtureRequest) -> None:
    done = run_command(*([name] if name else []), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    examples = done.stdout.split("\nexamples\n")[1].splitlines()
    assert len(examples) == 2
    assert all(example.startswith("  flame-fitting ") for example in examples)
    check_snapshot(f"help_{name or 'top'}", done.stdout, request.config)


def test_help_names_every_group_that_has_more_options(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("track", "fit", "render"):
        stage = next(stage for stage in cli.STAGES if stage.name == name)
        hidden = {one.partition(".")[0] for one in options.hidden(getattr(cli._module(stage), stage.config))}
        assert cli.main([name, "--help"]) == 0
        _, told, after = capsys.readouterr().out.partition("--help-all\n  ")
        assert bool(told) == bool(hidden) == (name != "render")
        found = {word.removeprefix("--").removesuffix(".*") for word in after.split("\n\n")[0].split() if told}
        assert {word.replace("-", "_") for word in found} == hidden
    assert cli.main(["track", "--help-all"]) == 0
    assert "more options" not in capsys.readouterr().out


def test_help_and_flags_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from flame_fitting import cli\n"
        "for stage in cli.STAGES:\n"
        "    cli.main([stage.name, '--help'])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_import_of_the_package_is_light() -> None:
    code = f"import sys, flame_fitting; assert not [n for n in {HEAVY + ('numpy', 'tyro')!r} if n in sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unknown_command", ["rendr"]),
        ("unknown_flag", ["fit", "O/render", "--output", "O/fit", "--no-photometrik"]),
        ("missing_argument", ["render", "A.glb"]),
        ("wrong_choice", ["render", "A.glb", "--output", "O/render", "--shading", "shiny"]),
    ],
)
def test_wrong_flags_exit_with_2(name: str, arguments: list[str], request: pytest.FixtureRequest) -> None:
    done = run_command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    check_snapshot(f"error_{name}", done.stderr, request.config)


def test_no_command_prints_help_and_exits_with_2() -> None:
    done = run_command()
    assert done.returncode == 2
    assert "usage: flame-fitting COMMAND" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("flame-fitting ")


def test_dashes_and_underscores_are_the_same() -> None:
    from flame_fitting.export_as_nerf_dataset import ExportConfig

    stage = next(stage for stage in cli.STAGES if stage.name == "export")
    dashes = cli._parse(stage, ExportConfig, ["--src-folder", "a", "--tgt-folder", "b", "--no-mask-below-line"])
    underscores = cli._parse(stage, ExportConfig, ["--src_folder", "a", "--tgt_folder", "b", "--no_mask_below_line"])
    assert dashes == underscores
    assert dashes.mask_below_line is False


@dataclass
class FakeConfig:
    """A stage's configuration."""

    output: Path
    head: str = "open"
    force: bool = False


@dataclass
class FakeResult:
    """A stage's result."""

    warnings: list[str] = field(default_factory=list)


STAGE = cli.STAGES[0]


def test_result_without_warnings_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(STAGE, lambda config: FakeResult(), FakeConfig(tmp_path), strict=True) == 0
    assert capsys.readouterr().err == "head: open (default)\n"


def test_warnings_exit_with_3_only_under_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(config: FakeConfig) -> FakeResult:
        return FakeResult(["the ears are off"])

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path)) == 0
    assert cli.execute(STAGE, stage, FakeConfig(tmp_path), strict=True) == 3
    assert "the ears are off" in capsys.readouterr().err


@pytest.mark.parametrize("error", [InputError, NoFaceError])
def test_input_errors_exit_with_2_and_one_message(
    error: type[InputError], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(config: FakeConfig) -> None:
        raise error("a.glb: is empty. Export it again.")

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path / "out")) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["flame-fitting: a.glb: is empty. Export it again."]
    assert not (tmp_path / "out").exists()


def test_bug_exits_with_1_and_names_a_log_with_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(config: FakeConfig) -> None:
        raise ZeroDivisionError("deep inside")

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    log = Path(said.strip().rsplit(" ", 1)[1])
    assert "ZeroDivisionError: deep inside" in log.read_text()
    assert "Traceback" in log.read_text()
    log.unlink()


def test_log_of_a_bug_lies_beside_the_results_where_the_folder_is_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(config: FakeConfig) -> None:
        (tmp_path / "manifest.json").write_text("{}")
        raise ZeroDivisionError

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path)) == 1
    assert str(tmp_path / "log.txt") in capsys.readouterr().err
    assert "ZeroDivisionError" in (tmp_path / "log.txt").read_text()


def test_a_folder_that_is_not_ours_gets_no_log(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    assert cli.execute(STAGE, lambda config: None, FakeConfig(tmp_path)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("kind", "code"), [(KeyboardInterrupt(), 130), *((stopping.Terminated(n), 128 + n) for n in stopping.SIGNALS)]
)
@pytest.mark.parametrize("force", [False, True])
def test_a_command_that_is_stopped_says_what_is_kept_and_how_to_go_on(
    kind: KeyboardInterrupt, code: int, force: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(config: FakeConfig) -> None:
        with stopping.leaves(lambda: "Finished: render."), stopping.leaves(kept):
            raise copy.copy(kind)

    def kept() -> str | None:
        return inner

    config, inner = FakeConfig(tmp_path, force=force), "Landmarks are kept."
    again = "Run the same command again without --force" if force else "Run the same command again"
    assert cli.execute(STAGE, stage, config) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"flame-fitting: stopped. Landmarks are kept. Finished: render. {again} to go on from there."
    inner = None
    assert cli.execute(STAGE, stage, config) == code
    assert f"stopped. Finished: render. {again}" in capsys.readouterr().err


def test_a_command_that_is_stopped_early_promises_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(config: FakeConfig) -> None:
        with stopping.leaves(lambda: None):
            raise KeyboardInterrupt

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path)) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "flame-fitting: stopped. Nothing has finished that could be kept. Run the same command again to start over."
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cleans_up(
    number: signal.Signals, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it comes more than once, and with the other one."""

    def stage(config: FakeConfig) -> None:
        with staged_folder(config.output) as temporary:
            (temporary / "a").touch()
            assert (tmp_path / ".out.lock").is_file() and len(list(tmp_path.iterdir())) == 2
            try:
                os.kill(os.getpid(), number)
                time.sleep(60)
            finally:
                for one in stopping.SIGNALS:
                    os.kill(os.getpid(), one)

    before = [signal.getsignal(one) for one in stopping.SIGNALS]
    assert cli.execute(STAGE, stage, FakeConfig(tmp_path / "out")) == code
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(one) for one in stopping.SIGNALS] == before == 2 * [signal.SIG_DFL]
    assert "stopped. Nothing has finished" in capsys.readouterr().err


HANGS_UP = """
import fcntl, sys, termios, time
from pathlib import Path
from flame_fitting import cli, progress
from flame_fitting.folders import staged_folder
from tests.test_cli import STAGE, FakeConfig

fcntl.ioctl(0, termios.TIOCSCTTY, 0)

def stage(config):
    with staged_folder(config.output) as temporary, progress.Bar(9, "long") as bar:
        (temporary / "a").touch()
        bar.advance()
        progress.say("underway")
        for _ in range(600):  # a signal just before a call that sleeps is seen only behind it
            time.sleep(0.1)

sys.exit(cli.execute(STAGE, stage, FakeConfig(Path(sys.argv[1]))))
"""


def test_a_terminal_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    """Nothing can be written to it any more, and neither its bar nor the last message stands in the way."""
    mine, its = os.openpty()
    command = [sys.executable, "-c", HANGS_UP, str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True, env=environment) as run:
        os.close(its)
        said = b""
        while b"underway" not in said:
            said += os.read(mine, 4096)
        assert (tmp_path / ".out.lock").is_file()
        os.close(mine)
        assert run.wait(60) == 129
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stops_nothing(tmp_path: Path) -> None:
    """As below nohup."""

    def stage(config: FakeConfig) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.execute(STAGE, stage, FakeConfig(tmp_path)) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_sigterm_is_left_to_whoever_takes_care_of_it() -> None:
    """Another handler, or a thread that is not the main one, which may set none."""
    found = []

    def mine(number: int, frame: object) -> None:
        raise AssertionError

    def look() -> None:
        with stopping.terminates_in_order():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    signal.signal(signal.SIGTERM, mine)
    try:
        look()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert found == [signal.SIG_DFL, mine]


def test_missing_rights_and_full_disks_are_no_bugs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(config: FakeConfig) -> None:
        raise PermissionError(13, "Permission denied", "/locked/render")

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path)) == 2
    assert "/locked/render" in capsys.readouterr().err


def test_chatter_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def stage(config: FakeConfig) -> None:
        (tmp_path / "manifest.json").write_text("{}")
        os.write(2, b"chatter from C\n")
        get_logger("flame_fitting.test").info("chatter from Python")
        progress.say("for the user")

    assert cli.execute(STAGE, stage, FakeConfig(tmp_path)) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "chatter from C" in log
    assert "chatter from Python" in log
    said = capfd.readouterr().err
    assert "chatter" not in said
    assert "for the user" in said


def test_head_line_names_the_head_and_why(tmp_path: Path) -> None:
    @dataclass
    class OfAFit:
        src_folder: Path

    config = FakeConfig(tmp_path)
    assert cli.head_line(config) == "head: open (default)"
    assert cli.head_line(config, ["--head", "open"]) == "head: open (--head open)"
    assert cli.head_line(FakeConfig(tmp_path, head="auto")) == "head: open (auto, no FLAME file was found)"
    path = tmp_path / "mine.npz"
    path.touch()
    other = FakeConfig(tmp_path, head=str(path))
    assert cli.head_line(other, [f"--head={path}"]) == f"head: mine (--head {path})"
    (tmp_path / "manifest.json").write_text('{"head": {"name": "flame2023", "sha256": "0"}}')
    assert cli.head_line(OfAFit(tmp_path)) == f"head: flame2023 (recorded in {tmp_path})"
