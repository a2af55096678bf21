"""Options of the fit. Everyday flags first; the dotted groups bear VHAP's names and mean what they mean there.

The defaults are the preset `static`; the other presets (fit/presets.py) change fields of it. Values only: what is made
of a command line, and what is checked, stands in fit/command_line.py and fit/check.py. No heavy import here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from flame_fitting.fit.reasons import CHOSEN_FIGURES, NO_TEXTURE_SPACE, ONE_CONVENTION, ONE_TIMESTEP
from flame_fitting.fit.scale import ScaleMode, Unit
from flame_fitting.fit.stage_config import PipelineConfig
from flame_fitting.fit.trust import GeometryKind
from flame_fitting.fit.weight_config import LearningRates, PriorConfig, WeightConfig
from flame_fitting.options import PLACE, option, own_first
from flame_fitting.shared_options import (
    AUTO_DETECTOR,
    CaptureOptions,
    ComputeOptions,
    DetectorWeights,
    HeadOptions,
    OutputOptions,
)

PresetName = Literal["static", "vhap", "fast", "high"]


@own_first
@dataclass
class DataConfig(CaptureOptions):
    """What is read of the capture."""

    landmark_source: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--data.detector"])] = (AUTO_DETECTOR,)
    """Landmarks: of mediapipe, star, face-alignment, dlib, several of them, both (all that are there), auto (mediapipe;
    star where its weights are for captures over time), or names of files of your own: landmarks2d/<name>.npz."""
    merge_landmarks: bool = True
    """Several sources are averaged point by point, weighted by how much each disagrees on this very capture; else each
    pulls on its own."""
    detector_weights: tuple[float, ...] = option((), above=0)
    """How much each of several landmark sources counts, in their order; without it all count the same."""
    use_landmark: bool = True
    """Whether landmarks take part after the first alignment."""
    use_geometry: bool = True
    """Whether depth and normals of the capture are looked at."""
    geometry_kind: GeometryKind | None = None
    """What depth and normals come from, which says how far they are trusted; None: what the capture says."""
    max_yaw: float = option(180.0, above=0)
    """Fit views farther than this from the front (degrees) are left out of the stages that use Adam."""
    picture_cache: float = option(4.0, at_least=0, decides=False)
    """Gigabytes of pictures that are kept on the device; others are read again when they are asked for."""
    landmark_detector_njobs: int = option(8, without_effect="landmarks are detected in one process")
    """Processes of VHAP's landmark detection."""
    calibrated: bool = option(
        True,
        refused="the cameras of a capture are its own and are not estimated. Leave the flag out.",
        only_static=True,
    )
    """Whether the cameras are known."""
    align_cameras_to_axes: bool = option(False, without_effect="world coordinates stay the capture's own")
    """Rotate the rig to its mean camera."""
    camera_convention_conversion: Literal["opencv->opengl", "opencv->pytorch3d", "opengl->pytorch3d"] | None = option(
        None, without_effect=ONE_CONVENTION
    )
    """Change of camera axes while reading."""
    target_extrinsic_type: Literal["w2c", "c2w"] = option("w2c", without_effect=ONE_CONVENTION)
    """Direction of the extrinsics in memory."""


@dataclass
class ModelConfig:
    """The head model and what of it may move."""

    n_shape: int = option(300, at_least=1)
    """Identity components used (at most what the model has)."""
    n_expr: int = option(100, at_least=1)
    """Expression components used (at most what the model has)."""
    n_tex: int = option(100, without_effect=NO_TEXTURE_SPACE)
    """Components of a texture space (VHAP's, where its texture is not painted)."""
    use_eyelids: Literal["auto", "yes", "no"] = "auto"
    """Two components that shut the lids (left, right), beside the expressions; auto: of head models whose expressions
    do it poorly. Other programs do not know them and show such eyes open."""
    add_teeth: Annotated[bool, tyro.conf.arg(aliases=["--add-teeth"])] = True
    """Give FLAME heads teeth; other heads stay as they are."""
    remove_lip_inside: bool = False
    """The inside of the lips follows no pictures."""
    use_static_offset: Annotated[bool, tyro.conf.arg(aliases=["--use-static-offset"])] = True
    """Offsets of single vertices on top of the model."""
    use_dynamic_offset: bool = option(
        False,
        refused="a static capture has one timestep: static offsets are all there is. Leave it out.",
        only_static=True,
    )
    """Offsets of single vertices for every timestep, on top of the static ones."""
    tex_base: Literal["baked", "painted", "neutral"] = "baked"
    """Texture that stages start from: baked from the pictures, the head model's own, or plain by region."""
    tex_resolution: int = option(1024, at_least=1)
    """Texels along an edge of the texture."""
    tex_bake: bool = True
    """The final texture is baked from the pictures, not the one that was optimised."""
    tex_painted: bool = option(
        True,
        refused="there is no texture space to fit. Leave it out, or start from a plain texture: --model.tex-base "
        "neutral.",
    )
    """The base texture is a picture, not a texture space."""
    tex_extra: bool = True
    """Adam stages change the texture; without it the base stays as it is."""
    residual_tex: bool = option(True, without_effect="what is optimised is always added to the base texture")
    """What they change is a map that is added to the base, instead of replacing it."""
    tex_clusters: tuple[str, ...] = ("skin", "hair", "boundary", "lips_tight", "teeth", "sclerae", "irises")
    """Regions inside which colours are drawn at random for one another."""
    occluded: tuple[str, ...] = ()
    """Regions of the head that something else covers: they follow neither surface nor pictures."""
    flame_params_path: Path | None = option(None, decides=False, reads="file or folder")
    """Fit to begin with: its folder (all of its state) or tracked_flame_params.npz, ours or VHAP's. With --begin-stage
    the stages that led there are left out."""


@dataclass
class RenderGroup:
    """Drawing in the photometric stages."""

    backend: Literal["nvdiffrast", "pytorch3d"] = option(
        "nvdiffrast",
        refused="this rasterizer is not supported. Leave it out: a GPU draws with nvdiffrast, a CPU with a rasterizer "
        "of ours.",
    )
    """Rasterizer on a GPU; the CPU has its own."""
    use_opengl: bool = option(False, without_effect="the rasterizer on a GPU is CUDA's")
    """Draw through OpenGL."""
    background_train: Literal["target", "white", "black", "far"] = "far"
    """What lies behind the avatar in the pictures that are compared; far: random colours unlike its outline's, where
    the capture has alpha, else as it is."""
    background_eval: Literal["target", "white", "black"] = option("target", without_effect=CHOSEN_FIGURES)
    """Background of the drawn pictures in figures."""
    disturb_rate_fg: float = option(0.5, at_least=0, at_most=1)
    """Share of the head's pixels whose colour is drawn at random from the same region."""
    disturb_rate_bg: float = option(0.5, at_least=0, at_most=1)
    """The same for the background."""
    cull: bool = False
    """Leave back faces out; where a neck is open the avatar shows its own."""
    lighting_type: Literal["constant", "front", "front-range", "SH"] = "SH"
    """Model of the light."""
    lighting_space: Literal["world", "camera"] = "world"
    """Frame in which the light stands still."""
    views_per_step: int = option(0, at_least=0)
    """Pictures drawn in one step; 0 takes 8 on a CPU and all on a GPU."""


@dataclass
class LogConfig:
    """What is written besides the result."""

    overlays: bool = True
    """Pictures of the fitted head over the avatar."""
    video: bool = option(True, without_effect="a static capture is no video", only_static=True)
    """overlay.mp4: picture, fit, and fitted mesh over the picture, side by side."""
    tensorboard: bool = True
    """TensorBoard events, where the package is installed."""
    interval_scalar: int = option(100, without_effect="every stage is logged")
    """Steps between two entries of the log."""
    interval_media: int = option(500, without_effect=CHOSEN_FIGURES)
    """Steps between two pictures of the log."""
    image_format: Literal["jpg", "png"] = option("png", without_effect=CHOSEN_FIGURES)
    """Format of the pictures."""
    view_indices: tuple[int, ...] = option((), without_effect=CHOSEN_FIGURES)
    """Views in the pictures."""
    max_num_views: int = option(3, without_effect=CHOSEN_FIGURES)
    """Most views in a picture."""
    stack_views_in_rows: bool = option(True, without_effect=CHOSEN_FIGURES)
    """Views one below the other."""


@dataclass
class ExperimentConfig:
    """How the experiment runs."""

    output_folder: Path | None = option(None, decides=False)
    """The same as --output."""
    reuse_landmarks: bool = option(True, decides=False)
    """Take landmarks that were detected before."""
    checkpoint_seconds: float = option(60.0, at_least=0, decides=False)
    """A stage that takes longer saves how far it is once in so many seconds; 0: only after stages."""
    keyframes: tuple[int, ...] = option((), without_effect=ONE_TIMESTEP, only_static=True)
    """Timesteps with a face that stages of keyframes look at, by places from 0; none: the most different ones."""
    photometric: Annotated[bool, tyro.conf.arg(aliases=["--photometric"])] = True
    """Refinement against the pictures."""


@dataclass(kw_only=True)
class ScaleOptions:
    """Which scale an avatar is fitted at."""

    scale: ScaleMode = "auto"
    """auto: the file's unit where the face tells it, else as estimate; estimate: by the face; fixed: --unit or m."""
    unit: Unit | None = None
    """Unit of the avatar's file; given alone it means --scale fixed."""


@own_first
@dataclass
class FitConfig(ScaleOptions, HeadOptions, DetectorWeights, ComputeOptions, OutputOptions):
    """Options of `flame-fitting fit`. In Python, `presets.preset(name, capture)` makes one from a preset."""

    over_time: ClassVar[bool] = False
    """Whether the capture has several timesteps (`fit.track_config`)."""

    capture: tyro.conf.Positional[Path] = field(metadata=PLACE)
    """Folder of a capture, as `render` writes it, or of a recording (NeRSemble, nerfstudio, COLMAP)."""
    output: Path | None = option(None, decides=False)
    """Folder of the fit (default: `<capture>_fit` beside the capture; `fit` beside one that is called `render`)."""
    preset: PresetName = "static"
    """Defaults of all other options: static, vhap (VHAP's own schedule), fast or high."""
    neutral: bool = False
    """Keep expression and jaw at rest in every stage."""
    expressive: bool = False
    """Allow strong expressions; shut eyes and an open mouth are found without it."""
    same_identity: bool = option(False, decides=False)
    """All captures show one person: one shape, one offset field and one scale, an expression for each."""
    detect: bool = option(True, decides=False)
    """Detect landmarks first where the capture has none."""
    begin_stage: str | None = None
    """Stage to begin with; all before it are left out."""
    begin_timestep: int = option(0, without_effect="--data.subset chooses the timesteps")
    """Timestep to begin with."""
    batch_size: int = option(
        16,
        at_least=1,
        without_effect=f"{ONE_TIMESTEP}; --render.views-per-step sets the pictures of one step",
        only_static=True,
    )
    """Timesteps in one batch."""
    async_func: bool = option(True, without_effect="results are written when the fit is done")
    """Write results in the background."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    render: RenderGroup = field(default_factory=RenderGroup)
    lr: LearningRates = field(default_factory=LearningRates)
    w: WeightConfig = field(default_factory=WeightConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    log: LogConfig = option(factory=LogConfig, decides=False)
    exp: ExperimentConfig = field(default_factory=ExperimentConfig)
    pipeline: PipelineConfig = option(factory=PipelineConfig, seldom=True)
    others: tyro.conf.Positional[tuple[Path, ...]] = option((), decides=False, reads="folder")
    """Further captures of the same person, with --same-identity."""

    @property
    def folder(self) -> Path:
        """Where the fit is written."""
        chosen = self.output if self.output is not None else self.exp.output_folder
        if chosen is not None:
            return chosen
        capture = self.capture.resolve()
        if capture.name == "transforms.json":
            capture = capture.parent
        return capture.with_name("fit" if capture.name == "render" else f"{capture.name}_fit")
