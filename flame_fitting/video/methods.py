"""Which matting methods there are. A new one is a file with a `Matting` and a line in `make_matting`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flame_fitting.errors import InputError
from flame_fitting.video.matting import Matting
from flame_fitting.video.sources import Sequence

ROBUST, BACKGROUND, SELFIE, NONE = "robust_video_matting", "background_matting_v2", "selfie", "none"
METHODS = (ROBUST, BACKGROUND, SELFIE, NONE)


@dataclass(frozen=True)
class MattingOptions:
    """What the methods are made with."""

    weights: Path | None = None
    """TorchScript file in place of the one that is downloaded."""
    background_folder: Path = Path("../../BACKGROUND")
    """Folder of the empty backgrounds; relative paths count from the folder of the pictures."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: int = 2
    """Threads."""


def make_matting(method: str, sequence: Sequence, options: MattingOptions) -> Matting | None:
    """The method called `method` for a sequence; None for `none`. Raises InputError where it cannot work."""
    makers: dict[str, Callable[[], Matting]] = {
        ROBUST: lambda: _robust(options),
        BACKGROUND: lambda: _background(sequence, options),
        SELFIE: lambda: _selfie(options),
    }
    if method == NONE:
        return None
    if method not in makers:
        raise InputError(f"--matting-method {method}: no such method. Use one of: {', '.join(METHODS)}.")
    if method == SELFIE and options.weights is not None:
        raise InputError("--matting-weights: selfie comes with its own. Leave it out, or choose another method.")
    return makers[method]()


def _robust(options: MattingOptions) -> Matting:
    from flame_fitting.video.torch_matting import RobustVideoMatting

    return RobustVideoMatting(options.weights, options.device)


def _background(sequence: Sequence, options: MattingOptions) -> Matting:
    from flame_fitting.video.plates import find_plates
    from flame_fitting.video.torch_matting import BackgroundMatting

    return BackgroundMatting(find_plates(sequence, options.background_folder), options.weights, options.device)


def _selfie(options: MattingOptions) -> Matting:
    from flame_fitting.video.selfie import SelfieMatting

    return SelfieMatting(options.workers)
