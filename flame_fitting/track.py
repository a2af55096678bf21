"""`track`: fits the head model to a video or a recording of a rig, over time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tyro

from flame_fitting.fit.command_line import given_value, named_capture
from flame_fitting.fit.track_config import TrackConfig, track_preset

if TYPE_CHECKING:
    from flame_fitting.fit.result import FitResult

__all__ = ["TrackConfig", "defaults", "defaults_of_rig", "track"]


def defaults(arguments: Sequence[str]) -> TrackConfig:
    """What the flags of a command line are laid over; of videos."""
    return _defaults(arguments, monocular=True)


def defaults_of_rig(arguments: Sequence[str]) -> TrackConfig:
    """The same of recordings with several cameras."""
    return _defaults(arguments, monocular=False)


def track(config: TrackConfig) -> "FitResult":
    """Tracks, evaluates and writes the folder of the fit."""
    from flame_fitting.fit_avatar import fit

    return fit(config)


def _defaults(arguments: Sequence[str], monocular: bool) -> TrackConfig:
    config = track_preset(given_value(arguments, "preset") or TrackConfig.preset, monocular=monocular)
    config.capture = named_capture(arguments) or tyro.MISSING
    return config


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("track")
