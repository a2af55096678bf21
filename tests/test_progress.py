"""What is printed while a command runs, on a terminal and without one."""

import sys

import pytest

from flame_fitting import progress

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)


def test_without_a_terminal_a_stage_is_named_when_it_begins_and_when_it_ends(capsys: Captured) -> None:
    with progress.stage("fit") as line:
        assert capsys.readouterr().err == "fit ...\n"
        with progress.stage("lmk_init_all", part=True) as part:
            assert capsys.readouterr().err == "  lmk_init_all ...\n"
            part.result("landmarks 1.20 mm")
        said = capsys.readouterr().err
        assert said.startswith("  lmk_init_all ") and said.endswith(" s  landmarks 1.20 mm\n")
        line.result("-> out")
    said = capsys.readouterr().err
    assert said.startswith("fit ") and said.endswith(" s  -> out\n") and said.count("\n") == 1


def test_on_a_terminal_a_stage_has_one_line(terminal: None, capsys: Captured) -> None:
    with progress.stage("fit"):
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stage_that_fails_has_not_ended(capsys: Captured) -> None:
    with pytest.raises(ValueError, match="inside"), progress.stage("fit"):
        raise ValueError("inside")
    assert capsys.readouterr().err == "fit ...\n"


def test_without_a_terminal_a_bar_is_lines_with_count_rate_and_what_is_left(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.step_of(2, 3), progress.Bar(50, "search", "step") as bar:
        for _ in range(30):  # 15 s
            now[0] += 0.5
            bar.advance()
            bar.note(loss="0.250")
        assert capsys.readouterr().err == ""
        now[0] += 10
        bar.advance(10)
        assert capsys.readouterr().err == "[2/3] search: 40 of 50, 1.60step/s, 00:06 left, loss=0.250\n"
        now[0] += 19
        bar.advance(5)
        assert capsys.readouterr().err == ""  # at most one in so many seconds
        bar.expect(None)
        now[0] += 1
        bar.advance(0)
        assert capsys.readouterr().err == "[2/3] search: 45, 1.00step/s, loss=0.250\n"
    assert capsys.readouterr().err == ""


def test_the_rate_is_that_of_the_work_alone(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Bar(None, "export", "picture") as bar:
        now[0] += 60  # things are read
        bar.expect(40)
        now[0] += 20
        bar.advance(10)
        assert capsys.readouterr().err == "export: 10 of 40, 2.00s/picture, 01:00 left\n"
    with progress.Bar(100, "detect", "view") as bar:
        bar.skip(80)  # by an earlier run
        now[0] += 20
        bar.advance(10)
        assert capsys.readouterr().err == "detect: 90 of 100, 2.00s/view, 00:20 left\n"


def test_a_terminal_s_bar_tells_no_rate_of_the_first_moment(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Bar(None, "export", "picture") as bar:
        now[0] += 60
        bar.expect(1000)
        bar.skip(500)
        now[0] += 0.5
        bar.advance(100)
        assert progress._SOON > 0.5 and "?picture/s" in str(bar._bar)
        now[0] += 9.5
        assert "10.00picture/s" in str(bar._bar) and "600/1000" in str(bar._bar)


def test_a_loop_has_a_bar_and_gives_every_item(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert list(progress.each("abc", "letters")) == ["a", "b", "c"]
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == [f"letters: {count} of 3" for count in (1, 2, 3)]


def test_on_a_terminal_a_bar_writes_no_lines(terminal: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.Bar(3, "search", "step") as bar:
        bar.advance()
    assert "\n" not in capsys.readouterr().err.replace("\r", "")


@pytest.mark.parametrize(("way", "warned"), [(progress.quiet, "warning: w\n"), (progress.silent, "")])
def test_quiet_has_no_line_of_any_kind_but_warnings_and_silent_not_even_those(
    way, warned: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with way(), progress.stage("fit"), progress.Bar(3, "search", "step") as bar:
        bar.advance()
        progress.say("a line")
        progress.warn("w")
    assert capsys.readouterr().err == warned


def test_a_warning_is_told_once_in_a_block_however_deep_and_again_in_the_next(capsys: Captured) -> None:
    for _ in range(2):
        with progress.once():
            progress.warn("a")
            with progress.once():
                progress.warn("a")
                progress.warn("b")
            progress.warn("b")
        assert capsys.readouterr().err == "warning: a\nwarning: b\n"
    progress.warn("a")
    progress.warn("a")
    assert capsys.readouterr().err == 2 * "warning: a\n"


def test_a_stream_that_is_closed_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert not progress._is_terminal()
