"""Options that several commands have, each defined once. A command's configuration inherits the groups it takes.

Inherited fields have no prefix on the command line, in manifests and in Python. No heavy import here.
"""

from dataclasses import dataclass
from pathlib import Path

from flame_fitting.options import option, own_first

DETECTOR = "mediapipe"
"""The landmark detector where none is chosen."""


@dataclass(kw_only=True)
class FlameFolder:
    """Where FLAME's files are."""

    flame_dir: Path | None = option(None, decides=False)
    """Folder of FLAME's files, searched before all others."""


@own_first
@dataclass(kw_only=True)
class HeadOptions(FlameFolder):
    """Which head model; what identifies it stands in `Manifest.head`, wherever its files lie."""

    head: str = option("auto", decides=False)
    """Head model: auto, open, flame2020, flame2023, flame2023-open, or the path of a FLAME-format .pkl or .npz."""
    flame_masks: Path | None = option(None, decides=False)
    """FLAME_masks.pkl, if it is not beside the model."""
    landmark_embedding: Path | None = option(None, decides=False)
    """FLAME's own landmark_embedding*.npy or mediapipe_landmark_embedding.npz (default: a calibration to the head)."""


@own_first
@dataclass(kw_only=True)
class FitSources(FlameFolder):
    """Where capture and head of a finished fit are, if not where the fit found them."""

    capture_folder: Path | None = option(None, decides=False)
    """Where the capture lies, if it is not where the fit left it."""
    head: str | None = option(None, decides=False)
    """Head model, if its file is not where the fit found it."""
    flame_masks: Path | None = option(None, decides=False)
    """FLAME_masks.pkl, if it is not where the fit found it."""


@dataclass(kw_only=True)
class DetectorWeights:
    """What a landmark detector is read from; its version stands in `Manifest.detector`."""

    model_path: Path | None = option(None, decides=False)
    """The landmark detector's weights, if not those that come with its package."""


@own_first
@dataclass(kw_only=True)
class DetectorOptions(DetectorWeights):
    """Which landmark detector."""

    detector: str = DETECTOR
    """Landmark detector."""


@dataclass(kw_only=True)
class ComputeOptions:
    """How a command computes."""

    seed: int = option(0, at_least=0)
    """Seed of everything random."""
    device: str = option("auto", decides=False)
    """Where to fit (avatars are drawn on the CPU): auto (a GPU if torch and nvdiffrast work), cpu, cuda or cuda:N."""


@dataclass(kw_only=True)
class OutputOptions:
    """How a command treats what is in its way."""

    force: bool = option(False, decides=False)
    """Write into a folder that was not made by this program; `run` does every stage again, too."""
