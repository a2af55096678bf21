"""What the command line needs of the fit's options: a preset's defaults under its flags, and what does nothing.

Stands above options and presets. No heavy import here.
"""

from collections.abc import Sequence
from pathlib import Path

import tyro

from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.presets import preset
from flame_fitting.fit.track_config import TrackConfig, track_preset
from flame_fitting.options import flag, options_of, value_of


def defaults(arguments: Sequence[str]) -> FitConfig:
    """What the flags of a command line are laid over: its preset's options, the capture where VHAP's flags name it.

    `capture` is tyro.MISSING where nothing names it.
    """
    config = preset(given_value(arguments, "preset") or FitConfig.preset)
    config.capture = named_capture(arguments) or tyro.MISSING
    return config


def named_capture(arguments: Sequence[str]) -> Path | None:
    """The capture that VHAP's flags name."""
    root = given_value(arguments, "data.root_folder")
    if root is None:
        return None
    subject, sequence = (given_value(arguments, f"data.{name}") or "" for name in ("subject", "sequence"))
    return Path(root) / subject / sequence


def given_value(arguments: Sequence[str], name: str) -> str | None:
    """The last value of the flag `name` on a command line, read before the flags are; None where it has none."""
    value = None
    for number, argument in enumerate(arguments):
        typed, equals, rest = argument.partition("=")
        if typed.startswith("--") and typed[2:].replace("-", "_") == name:
            if equals:
                value = rest
            elif number + 1 < len(arguments) and not arguments[number + 1].startswith("--"):
                value = arguments[number + 1]
    return value


def without_effect(config: FitConfig) -> list[str]:
    """One line for each option that was changed from its preset's default and does nothing here."""
    if isinstance(config, TrackConfig):
        default: FitConfig = track_preset(config.preset, config.capture)
    else:
        default = preset(config.preset, config.capture)
    lines = [
        f"{one.flag} has no effect here: {one.rule.without_effect}"
        for one in options_of(type(config))  # type: ignore[arg-type]  # a class can be hashed
        if one.rule.without_effect and value_of(config, one.name) != value_of(default, one.name)
    ]
    data = config.data
    if data.root_folder is not None and not config.capture.is_relative_to(data.root_folder):
        lines.append(f"--data.root-folder has no effect here: the capture is {config.capture}")
    for name, stage in config.pipeline.items():
        if stage.solver in ("closed_form", "bake") and stage.num_steps > 1:
            lines.append(f"{flag(f'pipeline.{name}.num_steps')} has no effect above 1: its solver is {stage.solver}")
        if stage.runs and stage.solver == "adam" and not stage.optimizable_params:
            one = flag(f"pipeline.{name}.num_steps" if stage.num_steps else f"pipeline.{name}.num_epochs")
            more = flag(f"pipeline.{name}.optimizable_params")
            lines.append(
                f"{one} has no effect here: --preset {config.preset} moves nothing in this stage. Give {more}, too, or "
                "--preset vhap"
            )
    return lines
