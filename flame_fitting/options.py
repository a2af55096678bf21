"""What an option says of itself where it is defined: its range, whether it decides a result, where help shows it.

The configuration of a command is a dataclass, a docstring under each field. `option` makes a field that knows more than
its default; what is refused, what help leaves out and what manifests compare follows from that. No heavy import here.
"""

import inspect
import math
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

_KEY = "option"
_Config = TypeVar("_Config", bound=type)


@dataclass(frozen=True)
class Rule:
    """What an option says of itself. Bounds hold for each number of a tuple; None has none to keep."""

    at_least: float | None = None
    """Smallest number that means something."""
    above: float | None = None
    """The same, without this number itself."""
    at_most: float | None = None
    """Largest number that means something."""
    decides: bool = True
    """Whether another value makes another result. Not of places: an input counts by its content."""
    seldom: bool = False
    """Only --help-all shows it."""
    without_effect: str = ""
    """Why it is accepted and does nothing, or what does it instead; what is said of it, once."""
    refused: str = ""
    """What is said of every value but the default, where to go on would mislead."""
    reads: str = ""
    """What must be where a path points to: file, folder, file or folder."""
    advice: str = "Check the path."
    """What is said where it is not there."""
    only_static: bool = False
    """Whether the last two are said of static captures alone: over time the option does what it says."""

    def of(self, config_type: type) -> "Rule":
        """The rule as it is for a command's configuration, which is over time where it has a true `over_time`."""
        if not (self.only_static and getattr(config_type, "over_time", False)):
            return self
        return replace(self, without_effect="", refused="")

    @property
    def hidden(self) -> bool:
        """Whether help leaves it out."""
        return self.seldom or bool(self.without_effect or self.refused)

    @property
    def bounded(self) -> bool:
        """Whether it has a range."""
        return (self.at_least, self.above, self.at_most) != (None, None, None)

    @property
    def range(self) -> str:
        """What a number must be."""
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None:
            return f"{self.at_least:g} or more"
        parts = [f"above {self.above:g}"] if self.above is not None else []
        return " and ".join([*parts, f"at most {self.at_most:g}"] if self.at_most is not None else parts)

    def admits(self, number: float) -> bool:
        """Whether a number lies in its range; infinite ones and what is not a number lie in none."""
        return (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
        )


PLACE = {_KEY: Rule(decides=False)}
"""Metadata of a required field that says where something lies: `field(metadata=PLACE)`."""


def place(reads: str, **rule: Any) -> dict[str, Rule]:
    """Metadata of a required field that says where something lies that is read."""
    return {_KEY: Rule(decides=False, reads=reads, **rule)}


def option(default: Any = MISSING, *, factory: Any = MISSING, **rule: Any) -> Any:
    """A field with a default (or what makes it) and the fields of its `Rule`."""
    metadata = {_KEY: Rule(**rule)}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """One option of a configuration."""

    name: str
    """Dotted."""
    field: Field
    rule: Rule
    type: Any
    """Its annotation, less what is for the command line alone."""

    @property
    def flag(self) -> str:
        """As it is typed."""
        return flag(self.name)


@cache
def options_of(config_type: type) -> tuple[Option, ...]:
    """All options of a configuration, each group before what it holds."""
    return tuple(replace(one, rule=one.rule.of(config_type)) for one in _options_below(config_type))


def _options_below(config_type: type, prefix: str = "") -> Iterator[Option]:
    hints = typing.get_type_hints(config_type)
    for one in fields(config_type):
        name, hint = prefix + one.name, hints[one.name]
        yield Option(name, one, one.metadata.get(_KEY, Rule()), hint)
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _options_below(hint, f"{name}.")


def value_of(config: Any, name: str) -> Any:
    """The value of an option by its dotted name."""
    value = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def values_of(config: Any, *groups: type) -> dict[str, Any]:
    """What a configuration has for the options that it shares with others."""
    return {one.name: getattr(config, one.name) for group in groups for one in fields(group)}


def flag(name: str) -> str:
    """The option of a dotted name as it is typed."""
    return "--" + name.replace("_", "-")


def hidden(config_type: type) -> tuple[str, ...]:
    """Names of the options that only --help-all shows."""
    return tuple(one.name for one in options_of(config_type) if one.rule.hidden)


def not_deciding(config_type: type) -> frozenset[str]:
    """Names of the options that do not decide a result: what manifests are compared without."""
    return frozenset(one.name for one in options_of(config_type) if not one.rule.decides)


def refusals(config: Any) -> Iterator[str]:
    """What is wrong with values that are outside their range, not finite, or refused, or name what is not there.

    A sentence each. Quick: commands ask before they import what they work with.
    """
    config_type: type = type(config)
    for one in options_of(config_type):
        value = value_of(config, one.name)
        if one.rule.refused and value != one.field.default:
            yield f"{one.flag} {value}: {one.rule.refused}"
        for number in value if isinstance(value, tuple) else (value,):
            if one.rule.reads and isinstance(number, Path) and not _is_there(number):
                yield f"{number}: no such {one.rule.reads}. {one.rule.advice}"
            if not isinstance(number, (int, float)) or one.rule.admits(number):
                continue
            allowed = [] if math.isfinite(number) else ["a finite number"]
            yield f"{one.flag} {number}: must be {', '.join([*allowed, *filter(None, [one.rule.range])])}."


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, a folder that nobody may look into: what reads it says so
        return True


def own_first(config_type: _Config) -> _Config:
    """Orders a dataclass's fields as they are read: its own, then those of the groups it shares, from left to right.

    A dataclass puts inherited fields first, and help would begin with what every command has.
    """
    names = list(inspect.get_annotations(config_type))
    for group in config_type.__bases__:
        names += [one.name for one in fields(group)] if is_dataclass(group) else []
    found = config_type.__dataclass_fields__  # type: ignore[attr-defined]
    config_type.__dataclass_fields__ = {name: found[name] for name in names if name in found}  # type: ignore[attr-defined]
    return config_type
