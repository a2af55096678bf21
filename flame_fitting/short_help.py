"""Leaves options out of a command's help: the same configuration with fields that the help does not show."""

import dataclasses
import typing
from collections.abc import Collection
from typing import Any


def without(config_type: type, default: Any, hidden: Collection[str], prefix: str = "") -> tuple[type, Any]:
    """A subclass of a configuration and its default for help alone, less the fields of these dotted names."""
    import tyro

    hints = typing.get_type_hints(config_type, include_extras=True)
    changed: dict[str, Any] = {}
    values = {field.name: getattr(default, field.name) for field in dataclasses.fields(config_type)}
    for field in dataclasses.fields(config_type):
        name, hint = prefix + field.name, hints[field.name]
        if name in hidden:
            changed[field.name] = typing.Annotated[hint, tyro.conf.Suppress]
        elif dataclasses.is_dataclass(hint) and any(other.startswith(f"{name}.") for other in hidden):
            changed[field.name], values[field.name] = without(
                typing.cast(type, hint), values[field.name], hidden, f"{name}."
            )

    class Shown(config_type):  # type: ignore[misc,valid-type]
        __doc__ = config_type.__doc__
        __annotations__ = changed

    Shown.__name__ = config_type.__name__
    shown = object.__new__(Shown)  # a default may hold a marker in place of a value
    for name, value in values.items():
        setattr(shown, name, value)
    return Shown, shown
