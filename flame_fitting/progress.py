"""What a user sees while a command runs: one bar with rate and remaining time, one line a stage when it is done.

In a pipe or a file there is no bar: a stage has a line when it begins, too, and long work one from time to time.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from flame_fitting.log import get_logger

if TYPE_CHECKING:
    from tqdm import tqdm

_logger = get_logger(__name__)
_quiet: ContextVar[bool] = ContextVar("flame_fitting_quiet", default=False)
_silent: ContextVar[bool] = ContextVar("flame_fitting_silent", default=False)
_step: ContextVar[str] = ContextVar("flame_fitting_step", default="")
_told: ContextVar[set[str] | None] = ContextVar("flame_fitting_told", default=None)
_Item = TypeVar("_Item")
EVERY = 20.0
"""Seconds between two lines of a bar where no terminal shows it."""
_LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"
_ENDLESS = "{desc}: {n_fmt}, {rate_fmt}{postfix}"
_SOON = 1.0
"""Seconds of work before which no rate is told: it would be that of the first moment."""


class Bar:
    """A progress bar for loops that count themselves: `advance` it, `note` what it is at.

    Its rate is what was done on average since the work began: since there is something to count (`expect`), and without
    what was done before (`skip`).
    """

    def __init__(self, total: int | None, description: str, unit: str = "it") -> None:
        self._pace = _Pace()
        self._bar = _tqdm(self._pace)(
            total=total,
            desc=labelled(description),
            unit=unit,
            unit_scale=unit == "B",
            leave=False,
            smoothing=0,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=_quiet.get() or not _is_terminal(),
        )
        shown = labelled(description)
        self._lines = None if _quiet.get() or _is_terminal() else _Lines(total, shown, unit, self._pace)

    def advance(self, count: int = 1) -> None:
        """Adds `count` to what is done."""
        self._pace.done += count
        self._bar.update(count)
        if self._lines is not None:
            self._lines.advance(count)

    def skip(self, count: int) -> None:
        """Adds what an earlier run has done."""
        self._pace.before += count
        self.advance(count)

    def expect(self, total: int | None) -> None:
        """Sets how much there is in all, where that was not known or was an estimate."""
        if not self._pace.done:
            self._pace.begun = time.monotonic()
        self._bar.total = total
        if self._lines is not None:
            self._lines.total = total

    def note(self, **values: float | str) -> None:
        """Shows values behind the bar, such as a loss."""
        self._bar.set_postfix(values, refresh=False)
        if self._lines is not None:
            self._lines.values = values

    def close(self) -> None:
        """Takes the bar off the terminal."""
        self._bar.close()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def each(items: Sequence[_Item], description: str, unit: str = "it") -> Iterator[_Item]:
    """The items of a loop, with a bar that advances behind each."""
    with Bar(len(items), description, unit) as bar:
        for item in items:
            yield item
            bar.advance()


class _Pace:
    """How fast a bar goes."""

    def __init__(self) -> None:
        self.begun, self.done, self.before = time.monotonic(), 0, 0

    @property
    def rate(self) -> float:
        """Done in a second, on average; 0, which is shown as not known, as long as that says nothing."""
        seconds = time.monotonic() - self.begun
        return (self.done - self.before) / seconds if seconds >= _SOON else 0.0


def _tqdm(pace: _Pace) -> "type[tqdm]":
    from tqdm import tqdm

    class Meter(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            return {**super().format_dict, "rate": pace.rate}

    return Meter


class _Lines:
    """A bar where no terminal shows it: a plain line every `EVERY` seconds, as far as it advances."""

    def __init__(self, total: int | None, description: str, unit: str, pace: _Pace) -> None:
        self.total, self.values = total, dict[str, float | str]()
        self._description, self._unit, self._pace = description, unit, pace
        self._begun = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        from tqdm import tqdm

        self._last = now
        text = tqdm.format_meter(
            self._pace.done,
            self.total,  # type: ignore[arg-type]  # None is what it takes for not known
            now - self._begun,
            rate=self._pace.rate,
            prefix=self._description,
            unit=self._unit,
            unit_scale=self._unit == "B",
            bar_format=_LINE if self.total else _ENDLESS,
            postfix=", ".join(f"{name}={value}" for name, value in self.values.items()),
        )
        _write(text.replace(",  ", ", "))  # rates have a width


def say(text: str) -> None:
    """One line for the user, on standard error, without disturbing a bar; also in the log."""
    _logger.info(text)
    if not _quiet.get():
        _write(text)


def warn(text: str) -> None:
    """A warning for the user; also in the log. Within `once` it is told once."""
    told = _told.get()
    if told is not None:
        if text in told:
            return
        told.add(text)
    _logger.warning(text)
    if not _silent.get():
        _write(f"warning: {text}")


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Within the block each warning is told once, when it first comes up; inside of such a block this is nothing."""
    token = _told.set(set() if (told := _told.get()) is None else told)
    try:
        yield
    finally:
        _told.reset(token)


def result(text: str) -> None:
    """A command's result, such as a table, on standard output; also in the log."""
    _logger.info("result\n%s", text)
    if not _silent.get():
        print(text, flush=True)


@contextlib.contextmanager
def stage(name: str, part: bool = False) -> Iterator["StageLine"]:
    """Times a stage; its one line is printed when the block ends well: name, seconds, what `result` was told.

    Where no terminal shows bars it has one when it begins, too. A `part` is one of a stage's own, such as a fit's.
    """
    shown = f"  {labelled(name):<24}" if part else f"{labelled(name):<16}"
    line = StageLine(name)
    _logger.info("%s begins", labelled(name))
    if not (_quiet.get() or _is_terminal()):
        _write(f"{shown.rstrip()} ...")
    started = time.perf_counter()
    yield line
    line.seconds = time.perf_counter() - started
    text = f"{shown} {line.seconds:6.1f} s  {line.text}".rstrip()
    _logger.info(text)
    if not _quiet.get():
        _write(text)


class StageLine:
    """The one line that a stage leaves on the terminal."""

    def __init__(self, name: str) -> None:
        self.name, self.text, self.seconds = name, "", 0.0

    def result(self, text: str) -> None:
        """Sets what stands behind the stage's name and time."""
        self.text = text


@contextlib.contextmanager
def step_of(number: int, total: int) -> Iterator[None]:
    """Puts `[number/total]` before the names of the stages and bars in the block."""
    token = _step.set(f"[{number}/{total}] ")
    try:
        yield
    finally:
        _step.reset(token)


@contextlib.contextmanager
def quiet(value: bool = True) -> Iterator[None]:
    """No bars and no lines while the block runs, only warnings and results; the log still gets the lines."""
    token = _quiet.set(value or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(token)


@contextlib.contextmanager
def silent(value: bool = True) -> Iterator[None]:
    """Nothing at all on the terminal while the block runs; the log still gets everything."""
    token = _silent.set(value or _silent.get())
    try:
        with quiet(value):
            yield
    finally:
        _silent.reset(token)


def labelled(name: str) -> str:
    """The name behind the running step's `[number/total]`."""
    return _step.get() + name


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def _write(text: str) -> None:
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
    sys.stderr.flush()
