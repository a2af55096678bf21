"""Options of the fit. Everyday flags first; the dotted groups bear VHAP's names. No heavy import here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flame_fitting.errors import InputError


@dataclass
class DataConfig:
    """What is read of the capture."""

    detector: str = "mediapipe"
    """Landmark detector whose points are used."""
    use_landmark: bool = True
    """Whether landmarks take part after the first alignment."""
    max_yaw: float = 75.0
    """Fit views farther than this from the front (degrees) are left out of the photometric stages."""


@dataclass
class ModelConfig:
    """The head model and what of it may move."""

    n_shape: int = 300
    """Identity components used (at most what the model has)."""
    n_expr: int = 100
    """Expression components used (at most what the model has)."""
    add_teeth: Annotated[bool, tyro.conf.arg(aliases=["--add-teeth"])] = True
    """Give FLAME heads teeth; other heads stay as they are."""
    use_static_offset: Annotated[bool, tyro.conf.arg(aliases=["--use-static-offset"])] = True
    """Offsets of single vertices on top of the model."""
    tex_resolution: int = 1024
    """Texels along an edge of the texture."""
    occluded: tuple[str, ...] = ()
    """Regions of the head that something else covers: they follow neither surface nor pictures."""


@dataclass
class RenderGroup:
    """Drawing in the photometric stages."""

    disturb_rate_fg: float = 0.5
    """Share of the head's pixels whose colour is drawn at random from the same region."""
    disturb_rate_bg: float = 0.5
    """The same for the background."""
    views_per_step: int = 0
    """Pictures drawn in one step; 0 takes 8 on a CPU and all on a GPU."""


@dataclass
class LearningRates:
    """Step sizes of the photometric stages (Adam)."""

    shape: float = 4e-3
    """Identity coefficients."""
    expr: float = 4e-3
    """Expression coefficients."""
    pose: float = 5e-4
    """Neck and jaw, rad."""
    eyes: float = 2e-3
    """Eyes, rad."""
    placement: float = 1e-4
    """Similarity: rad, m, log scale."""


@dataclass
class WeightConfig:
    """Balance of the terms."""

    photo: float = 100.0
    """Photometric L1, sRGB."""
    silhouette: float = 10.0
    """Head outside the avatar's outline."""
    landmark: float = 1.0
    """Landmarks in the photometric stages."""
    surface: float = 30.0
    """Avatar's surface in the photometric stages."""
    landmark_count: float = 60.0
    """Independent measurements that all landmarks count for in the second-order stages."""
    surface_count: float = 600.0
    """The same for the avatar's surface."""
    reg_shape: float = 1.0
    """Standard deviation of identity coefficients."""
    reg_expr: float = 0.3
    """Standard deviation of expression coefficients (1.0 with --expressive)."""
    reg_neck: float = 0.1
    """Standard deviation of the neck's rotation, rad."""
    reg_jaw: float = 0.1
    """Standard deviation of the jaw's opening, rad (0.3 with --expressive)."""
    reg_eyes: float = 0.15
    """Standard deviation of the eyes' rotation, rad."""


@dataclass
class LogConfig:
    """What is written besides the result."""

    overlays: bool = True
    """Pictures of the fitted head over the avatar."""
    tensorboard: bool = True
    """TensorBoard events, where the package is installed."""


@dataclass
class ExperimentConfig:
    """How the experiment runs."""

    photometric: Annotated[bool, tyro.conf.arg(aliases=["--photometric"])] = True
    """Refinement against the pictures."""


@dataclass
class StepsConfig:
    """Length of one stage."""

    num_steps: int
    """Iterations; 0 leaves the stage out."""


@dataclass
class PipelineConfig:
    """The stages in their order; those that VHAP has too bear its names."""

    lmk_init_rigid: StepsConfig = field(default_factory=lambda: StepsConfig(1))
    """Similarity from 3D landmarks, closed form."""
    lmk_init_all: StepsConfig = field(default_factory=lambda: StepsConfig(25))
    """Gauss-Newton on landmarks: placement, shape, expression, joints."""
    geo_init_all: StepsConfig = field(default_factory=lambda: StepsConfig(25))
    """Gauss-Newton on landmarks and the avatar's surface."""
    rgb_init_texture: StepsConfig = field(default_factory=lambda: StepsConfig(1))
    """Texture baked from the pictures; light where the capture is lit."""
    rgb_init_all: StepsConfig = field(default_factory=lambda: StepsConfig(40))
    """Adam on pictures, outline, landmarks and surface."""
    rgb_init_offset: StepsConfig = field(default_factory=lambda: StepsConfig(8))
    """Static offsets by sparse non-rigid registration, then the final texture."""


@dataclass
class FitConfig:
    """Options of `flame-fitting fit`."""

    capture: tyro.conf.Positional[Path]
    """Folder of a capture, as `render` writes it."""
    output: Path | None = None
    """Folder of the fit (default: `fit` beside the capture)."""
    head: str = "auto"
    """Head model: auto, open, flame2020, flame2023, flame2023-open, or the path of a FLAME-format .pkl or .npz."""
    flame_dir: Path | None = None
    """Folder of FLAME's files, searched before all others."""
    flame_masks: Path | None = None
    """FLAME_masks.pkl, if it is not beside the model."""
    landmark_embedding: Path | None = None
    """FLAME's own landmark_embedding*.npy or mediapipe_landmark_embedding.npz (default: a calibration to the head)."""
    neutral: bool = False
    """Take the face to be near neutral (the default)."""
    expressive: bool = False
    """Allow strong expressions and an open mouth."""
    scale: Literal["estimate", "fixed"] = "estimate"
    """Estimate the avatar's scale, or take its file's unit."""
    unit: Literal["m", "cm", "mm"] = "m"
    """Unit of the avatar's file, for --scale fixed."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """Where to run: auto (a GPU where torch and nvdiffrast work, else the CPU), cpu, cuda or cuda:N."""
    detect: bool = True
    """Detect landmarks first where the capture has none."""
    model_path: Path | None = None
    """File of the landmark detector's weights."""
    force: bool = False
    """Write into a folder that was not made by this program."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    render: RenderGroup = field(default_factory=RenderGroup)
    lr: LearningRates = field(default_factory=LearningRates)
    w: WeightConfig = field(default_factory=WeightConfig)
    log: LogConfig = field(default_factory=LogConfig)
    exp: ExperimentConfig = field(default_factory=ExperimentConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)

    def check(self) -> None:
        """Refuses flags that contradict each other."""
        if self.neutral and self.expressive:
            raise InputError("--neutral and --expressive contradict each other. Give one of them.")

    @property
    def folder(self) -> Path:
        """Where the fit is written."""
        return self.output if self.output is not None else self.capture.resolve().parent / "fit"


METRES_PER_UNIT = {"m": 1.0, "cm": 0.01, "mm": 0.001}
