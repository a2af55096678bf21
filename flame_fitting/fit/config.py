"""Options of the fit. Everyday flags first; the dotted groups bear VHAP's names and mean what they mean there.

The defaults are the preset `static`; the other presets (fit/presets.py) change fields of it. No heavy import here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import tyro

from flame_fitting.fit.scale import ScaleMode, Unit

PresetName = Literal["static", "vhap", "fast", "high"]
Group = Literal[
    "cam",
    "pose",
    "scale",
    "joints",
    "shape",
    "expr",
    "texture",
    "lights",
    "static_offset",
    "dynamic_offset",
]
Solver = Literal["closed_form", "gauss_newton", "bake", "adam", "registration"]

GROUPS: tuple[str, ...] = get_args(Group)


@dataclass
class DataConfig:
    """What is read of the capture."""

    root_folder: Path | None = None
    """Folder of captures; with --data.sequence it stands for the capture's path."""
    sequence: str = ""
    """Name of a capture below --data.root-folder."""
    detector: str = "mediapipe"
    """Landmark detector whose points are used, or the name of a file of your own: landmarks2d/<name>.npz."""
    use_landmark: bool = True
    """Whether landmarks take part after the first alignment."""
    use_geometry: bool = True
    """Whether depth and normals of the capture are looked at."""
    max_yaw: float = 180.0
    """Fit views farther than this from the front (degrees) are left out of the stages that use Adam."""
    n_downsample_rgb: int | None = None
    """Pictures of the photometric stages are this many times smaller than the capture's; None: as they are."""
    background_color: Literal["white", "black"] | None = None
    """Background put behind the pictures by their alpha; None: the capture's."""
    use_alpha_map: bool = True
    """Take the avatar's outline from the capture's alpha."""
    landmark_source: Literal["star", "face-alignment", "mediapipe"] | None = None
    """VHAP's landmark detectors; here --data.detector chooses."""
    landmark_detector_njobs: int = 8
    """Processes of VHAP's landmark detection."""
    subject: str = ""
    """Subject of a NeRSemble recording."""
    division: str | None = None
    """Split of the recording."""
    subset: str | None = None
    """Part of the recording."""
    calibrated: bool = True
    """Whether the cameras are known."""
    align_cameras_to_axes: bool = False
    """Rotate the rig to its mean camera."""
    camera_convention_conversion: Literal["opencv->opengl", "opencv->pytorch3d", "opengl->pytorch3d"] | None = None
    """Change of camera axes while reading."""
    target_extrinsic_type: Literal["w2c", "c2w"] = "w2c"
    """Direction of the extrinsics in memory."""
    scale_factor: float = 1.0
    """Pictures are scaled by this."""
    image_size_during_calibration: tuple[int, int] = (3208, 2200)
    """Picture size of NeRSemble's calibration."""
    use_color_correction: bool = True
    """NeRSemble's colour correction."""


@dataclass
class ModelConfig:
    """The head model and what of it may move."""

    n_shape: int = 300
    """Identity components used (at most what the model has)."""
    n_expr: int = 100
    """Expression components used (at most what the model has)."""
    n_tex: int = 100
    """Components of a texture space (VHAP's, where its texture is not painted)."""
    add_teeth: Annotated[bool, tyro.conf.arg(aliases=["--add-teeth"])] = True
    """Give FLAME heads teeth; other heads stay as they are."""
    remove_lip_inside: bool = False
    """The inside of the lips follows no pictures."""
    use_static_offset: Annotated[bool, tyro.conf.arg(aliases=["--use-static-offset"])] = True
    """Offsets of single vertices on top of the model."""
    use_dynamic_offset: bool = False
    """Offsets of single vertices for every timestep."""
    tex_base: Literal["baked", "painted", "neutral"] = "baked"
    """Texture that stages start from: baked from the pictures, the head model's own, or plain by region."""
    tex_resolution: int = 1024
    """Texels along an edge of the texture."""
    tex_bake: bool = True
    """The final texture is baked from the pictures, not the one that was optimised."""
    tex_painted: bool = True
    """The base texture is a picture, not a texture space."""
    tex_extra: bool = True
    """Adam stages change the texture; without it the base stays as it is."""
    residual_tex: bool = True
    """What they change is a map that is added to the base, instead of replacing it."""
    tex_clusters: tuple[str, ...] = ("skin", "hair", "boundary", "lips_tight", "teeth", "sclerae", "irises")
    """Regions inside which colours are drawn at random for one another."""
    occluded: tuple[str, ...] = ()
    """Regions of the head that something else covers: they follow neither surface nor pictures."""
    flame_params_path: Path | None = None
    """tracked_flame_params.npz to start from."""


@dataclass
class RenderGroup:
    """Drawing in the photometric stages."""

    backend: Literal["nvdiffrast", "pytorch3d"] = "nvdiffrast"
    """Rasterizer on a GPU; the CPU has its own."""
    use_opengl: bool = False
    """Draw through OpenGL."""
    background_train: Literal["target", "white", "black", "far"] = "far"
    """What lies behind the avatar in the pictures that are compared; far: random colours unlike its outline's, where
    the capture has alpha, else as it is."""
    background_eval: Literal["target", "white", "black"] = "target"
    """Background of the drawn pictures in figures."""
    disturb_rate_fg: float = 0.5
    """Share of the head's pixels whose colour is drawn at random from the same region."""
    disturb_rate_bg: float = 0.5
    """The same for the background."""
    cull: bool = False
    """Leave back faces out; where a neck is open the avatar shows its own."""
    lighting_type: Literal["constant", "front", "front-range", "SH"] = "SH"
    """Model of the light."""
    lighting_space: Literal["world", "camera"] = "world"
    """Frame in which the light stands still."""
    views_per_step: int = 0
    """Pictures drawn in one step; 0 takes 8 on a CPU and all on a GPU."""


@dataclass
class LearningRates:
    """Step sizes of the stages that use Adam; None takes `base`."""

    base: float = 5e-3
    """Everything without a rate of its own."""
    shape: float | None = 4e-3
    """Identity coefficients."""
    expr: float = 4e-3
    """Expression coefficients."""
    rotation: float | None = 1e-4
    """Rotation of the head, rad."""
    translation: float = 1e-4
    """Translation of the head, m."""
    scale: float = 1e-4
    """Logarithm of the avatar's scale."""
    neck: float | None = 5e-4
    """Neck, rad."""
    jaw: float | None = 5e-4
    """Jaw, rad."""
    eyes: float | None = 2e-3
    """Eyes, rad."""
    texture: float | None = 5e-3
    """Texture, sRGB."""
    static_offset: float = 3e-4
    """Static offsets, m."""
    dynamic_offset: float = 5e-4
    """Dynamic offsets, m."""
    camera: float = 5e-3
    """Cameras."""
    light: float = 5e-3
    """Light."""

    def of(self, name: str) -> float:
        """The rate of a parameter: the field `name`, or `base` where it is None."""
        value = getattr(self, name)
        return self.base if value is None else value


@dataclass
class WeightConfig:
    """Balance of the terms. The regularisers act in the Adam stages that move what they hold."""

    photo: float = 100.0
    """Photometric L1, sRGB."""
    silhouette: float = 30.0
    """Head outside the avatar's outline."""
    silhouette_inside: float = 30.0
    """Avatar near its outline that the head does not cover; nothing where w.silhouette is 0."""
    landmark: float = 0.0
    """2D landmarks in the Adam stages."""
    landmark_visible: bool = True
    """Of the 2D landmarks only those count that face the camera."""
    landmark_3d: float = 1.0
    """3D landmarks in the Adam stages."""
    always_enable_jawline_landmarks: bool = False
    """Use the jaw line's landmarks in every stage, whatever the stage says."""
    contour: float = 0.0
    """Jaw line's landmarks as contour points."""
    closure: float = 0.0
    """Opening of eyes and lips as the landmarks have it."""
    surface: float = 30.0
    """Avatar's surface in the Adam stages."""
    prior: float = 0.02
    """Priors of the group `prior` in the Adam stages."""
    landmark_count: float = 60.0
    """Independent measurements that all landmarks count for in the second-order stages."""
    surface_count: float = 600.0
    """The same for the avatar's surface."""
    reg_shape: float = 0.0
    """Squared identity coefficients, mean."""
    reg_expr: float = 0.0
    """Squared expression coefficients, mean."""
    reg_neck: float = 0.0
    """Rotation of the neck."""
    reg_jaw: float = 0.0
    """Rotation of the jaw, more so closing and sideways."""
    reg_eyes: float = 0.0
    """Rotation of the eyes and the difference of the two."""
    reg_tex_res_clusters: float = 10.0
    """Residual texture of the regions below."""
    reg_tex_res_for: tuple[str, ...] = ("sclerae", "teeth")
    """Regions whose texture stays near its base."""
    reg_tex_tv: float = 1e4
    """Total variation of the texture."""
    reg_tex_tv_covered: bool = True
    """Scale the total variation by the texels that the views cover: one weight for few and many views."""
    reg_tex_pca: float = 1e-4
    """Squared coefficients of a texture space."""
    reg_light: float | None = None
    """Light away from a constant one."""
    reg_diffuse: float = 100.0
    """Shading brighter than 1 or coloured."""
    reg_offset: float = 30.0
    """Length of the offsets, L1."""
    reg_offset_relax_coef: float = 1.0
    """Factor of it for the regions below."""
    reg_offset_relax_for: tuple[str, ...] = ("hair", "ears")
    """Regions with more freedom."""
    reg_offset_lap: float = 1e6
    """Laplacian of the offsets."""
    reg_offset_lap_per_area: bool = True
    """Scale it by the mesh's edges: one weight for any mesh."""
    reg_offset_lap_relax_coef: float = 0.1
    """Factor of it for the regions below."""
    reg_offset_lap_relax_for: tuple[str, ...] = ("hair", "ears")
    """Regions with more freedom."""
    reg_offset_rigid: float = 0.0
    """Variance of the offsets inside each of the regions below."""
    reg_offset_rigid_for: tuple[str, ...] = ("left_ear", "right_ear", "neck", "left_eye", "right_eye", "lips_tight")
    """Regions that may only be translated."""
    reg_offset_dynamic: float = 3e5
    """Change of the offsets from a timestep to the next."""
    blur_iter: int = 0
    """Rounds of smoothing of the regions' factors over the mesh."""
    smooth_trans: float = 300.0
    """Change of the translation from a timestep to the next."""
    smooth_rot: float = 30.0
    """The same for the rotation."""
    smooth_neck: float = 30.0
    """The same for the neck."""
    smooth_jaw: float = 0.1
    """The same for the jaw."""
    smooth_eyes: float = 0.0
    """The same for the eyes."""
    smooth_expr: float = 0.0
    """The same for the expression."""


@dataclass
class PriorConfig:
    """Standard deviations of the Gaussian priors."""

    shape: float = 1.0
    """Identity coefficients."""
    expr: float = 0.3
    """Expression coefficients (1.0 with --expressive)."""
    neck: float = 0.1
    """Rotation of the neck, rad."""
    jaw: float = 0.1
    """Opening of the jaw, rad (0.3 with --expressive)."""
    eyes: float = 0.15
    """Rotation of the eyes, rad."""
    log_scale: float = 0.03
    """Logarithm of the scale, where it is estimated."""


@dataclass
class LogConfig:
    """What is written besides the result."""

    overlays: bool = True
    """Pictures of the fitted head over the avatar."""
    tensorboard: bool = True
    """TensorBoard events, where the package is installed."""
    interval_scalar: int = 100
    """Steps between two entries of the log."""
    interval_media: int = 500
    """Steps between two pictures of the log."""
    image_format: Literal["jpg", "png"] = "png"
    """Format of the pictures."""
    view_indices: tuple[int, ...] = ()
    """Views in the pictures."""
    max_num_views: int = 3
    """Most views in a picture."""
    stack_views_in_rows: bool = True
    """Views one below the other."""


@dataclass
class ExperimentConfig:
    """How the experiment runs."""

    output_folder: Path | None = None
    """The same as --output."""
    reuse_landmarks: bool = True
    """Take landmarks that were detected before."""
    keyframes: tuple[int, ...] = ()
    """Timesteps that are fitted first."""
    photometric: Annotated[bool, tyro.conf.arg(aliases=["--photometric"])] = True
    """Refinement against the pictures."""


@dataclass
class StageConfig:
    """One stage."""

    num_steps: int = 0
    """Iterations; 0 leaves the stage out."""
    num_epochs: int = 0
    """Passes over all timesteps, one step each (global stages)."""
    solver: Solver = "adam"
    """How it is solved."""
    optimizable_params: tuple[Group, ...] = ()
    """Groups of parameters that move."""
    align_texture_except: tuple[str, ...] = ()
    """Regions whose texture does not move the surface."""
    align_boundary_except: tuple[str, ...] = ()
    """Regions whose outline does not move the surface."""
    disable_jawline_landmarks: bool = False
    """Leave the jaw line's landmarks out."""
    when: Literal["always", "with_geometry", "without_geometry"] = "always"
    """Whether it needs, or stands in for, the capture's geometry."""
    lr_scale: float = 1.0
    """Factor of all step sizes."""
    lr_schedule: Literal["constant", "cosine", "exponential"] = "constant"
    """Step sizes over the stage; exponential: times 0.9 after each epoch."""
    average_last: float = 0.0
    """Share of the last iterates whose mean is the result."""
    sizes: tuple[int, ...] = ()
    """Heights of the pictures (px), coarse to fine, equal shares of the steps; none: as they are."""
    texture_sizes: tuple[int, ...] = ()
    """Sizes of the optimised or baked texture, coarse to fine; none: --model.tex-resolution."""
    rebake: int = 0
    """Steps between bakes of the base texture and correspondences; 0: never."""
    smooth: float = 0.0
    """Blur of a baked base inside regions, share of the texture's edge; 0: full detail."""
    across_views: bool = False
    """Compare each view with the texture baked from the other half of the views."""
    disturb: float = 1.0
    """Factor of the rates at which colours are drawn at random."""
    landmark: float = 1.0
    """Factor of the weights of landmarks."""
    prior: float = 1.0
    """Factor of w.prior."""
    outline: float = 1.0
    """Factor of w.silhouette."""
    outline_inside: float = 1.0
    """Factor of w.silhouette_inside."""
    max_yaw: float = 180.0
    """Views farther than this from the front (degrees) are left out."""

    @property
    def runs(self) -> bool:
        """Whether it has anything to do."""
        return self.num_steps > 0 or self.num_epochs > 0


_EVERYTHING: tuple[Group, ...] = ("pose", "scale", "joints", "shape", "expr")


def _closed_form() -> StageConfig:
    return StageConfig(1, solver="closed_form", optimizable_params=("pose", "scale"))


def _gauss_newton() -> StageConfig:
    return StageConfig(25, solver="gauss_newton", optimizable_params=_EVERYTHING)


def _gauss_newton_on_geometry() -> StageConfig:
    return StageConfig(25, solver="gauss_newton", optimizable_params=_EVERYTHING, when="with_geometry")


def _bake() -> StageConfig:
    return StageConfig(1, solver="bake", optimizable_params=("texture", "lights"))


def _outline() -> StageConfig:
    return StageConfig(
        150,
        optimizable_params=_EVERYTHING,
        when="without_geometry",
        lr_scale=5.0,
        landmark=0.1,
        prior=0.1,
        lr_schedule="cosine",
        average_last=0.3,
        sizes=(256,),
        texture_sizes=(512,),
        rebake=25,
        smooth=0.03,
    )


def _pictures() -> StageConfig:
    return StageConfig(
        40,
        optimizable_params=_EVERYTHING,
        when="with_geometry",
        lr_schedule="cosine",
        average_last=0.3,
        sizes=(256,),
        texture_sizes=(512,),
        rebake=25,
        smooth=0.03,
        max_yaw=75.0,
        outline=1 / 3,
        outline_inside=0.0,
    )


def _offsets_by_pictures() -> StageConfig:
    return StageConfig(
        600,
        optimizable_params=(*_EVERYTHING, "static_offset", "texture"),
        when="without_geometry",
        lr_schedule="cosine",
        average_last=0.3,
        sizes=(256, 512),
        texture_sizes=(512, 1024),
        rebake=200,
        disturb=0.0,
        landmark=0.1,
        prior=0.1,
        outline=2.0,
        outline_inside=2.0,
    )


def _registration() -> StageConfig:
    return StageConfig(8, solver="registration", optimizable_params=("static_offset",), when="with_geometry")


def _tracking() -> StageConfig:
    return StageConfig(optimizable_params=("pose", "joints", "expr"))


def _global_tracking() -> StageConfig:
    return StageConfig(optimizable_params=(*_EVERYTHING, "static_offset"), lr_scale=0.1)


def _global_landmarks() -> StageConfig:
    return StageConfig(optimizable_params=_EVERYTHING, lr_scale=0.1)


@dataclass
class PipelineConfig:
    """The stages in their order; those that VHAP has too bear its names."""

    lmk_init_rigid: StageConfig = field(default_factory=_closed_form)
    """Placement from landmarks."""
    lmk_init_all: StageConfig = field(default_factory=_gauss_newton)
    """Landmarks: placement, shape, expression, joints."""
    geo_init_all: StageConfig = field(default_factory=_gauss_newton_on_geometry)
    """Landmarks and the avatar's surface."""
    rgb_init_texture: StageConfig = field(default_factory=_bake)
    """Texture from the pictures; light where the capture is lit."""
    rgb_init_outline: StageConfig = field(default_factory=_outline)
    """Pictures and outline from all around, where there is no geometry: landmarks know the face alone."""
    rgb_init_all: StageConfig = field(default_factory=_pictures)
    """Pictures, outline, landmarks and surface."""
    rgb_init_offset: StageConfig = field(default_factory=_offsets_by_pictures)
    """Static offsets against the pictures."""
    geo_init_offset: StageConfig = field(default_factory=_registration)
    """Static offsets by sparse non-rigid registration."""
    rgb_sequential_tracking: StageConfig = field(default_factory=_tracking)
    """Pictures, one timestep after the other."""
    rgb_global_tracking: StageConfig = field(default_factory=_global_tracking)
    """Pictures, all timesteps together."""
    lmk_sequential_tracking: StageConfig = field(default_factory=_tracking)
    """Landmarks, one timestep after the other; instead of the photometric stages."""
    lmk_global_tracking: StageConfig = field(default_factory=_global_landmarks)
    """Landmarks, all timesteps together; instead of the photometric stages."""

    def items(self) -> list[tuple[str, StageConfig]]:
        """Names and stages in their order."""
        return [(one.name, getattr(self, one.name)) for one in fields(self)]


SELDOM = (
    "pipeline",
    "begin_timestep",
    "batch_size",
    "async_func",
    "data.landmark_source",
    "data.landmark_detector_njobs",
    "data.subject",
    "data.division",
    "data.subset",
    "data.calibrated",
    "data.align_cameras_to_axes",
    "data.camera_convention_conversion",
    "data.target_extrinsic_type",
    "data.scale_factor",
    "data.use_alpha_map",
    "data.image_size_during_calibration",
    "data.use_color_correction",
    "model.n_tex",
    "model.use_dynamic_offset",
    "model.tex_painted",
    "model.residual_tex",
    "model.flame_params_path",
    "render.backend",
    "render.use_opengl",
    "render.background_eval",
    "lr.camera",
    "lr.dynamic_offset",
    "w.landmark_visible",
    "w.reg_tex_pca",
    "w.reg_offset_dynamic",
    "w.smooth_trans",
    "w.smooth_rot",
    "w.smooth_neck",
    "w.smooth_jaw",
    "w.smooth_eyes",
    "w.smooth_expr",
    "log.interval_scalar",
    "log.interval_media",
    "log.image_format",
    "log.view_indices",
    "log.max_num_views",
    "log.stack_views_in_rows",
    "exp.keyframes",
)
"""Options that only --help-all shows: single stages, and VHAP's without a use for static captures."""


@dataclass
class FitConfig:
    """Options of `flame-fitting fit`. In Python, `presets.preset(name, capture)` makes one from a preset."""

    SELDOM: ClassVar[tuple[str, ...]] = SELDOM

    capture: tyro.conf.Positional[Path]
    """Folder of a capture, as `render` writes it."""
    output: Path | None = None
    """Folder of the fit (default: `<capture>_fit` beside the capture; `fit` beside one that is called `render`)."""
    preset: PresetName = "static"
    """Defaults of all other options: static, vhap (VHAP's own schedule), fast or high."""
    head: str = "auto"
    """Head model: auto, open, flame2020, flame2023, flame2023-open, or the path of a FLAME-format .pkl or .npz."""
    flame_dir: Path | None = None
    """Folder of FLAME's files, searched before all others."""
    flame_masks: Path | None = None
    """FLAME_masks.pkl, if it is not beside the model."""
    landmark_embedding: Path | None = None
    """FLAME's own landmark_embedding*.npy or mediapipe_landmark_embedding.npz (default: a calibration to the head)."""
    neutral: bool = False
    """Keep expression and jaw at rest in every stage."""
    expressive: bool = False
    """Allow strong expressions and an open mouth."""
    scale: ScaleMode = "auto"
    """auto: the file's unit where the face tells it, else as estimate; estimate: by the face; fixed: --unit or m."""
    unit: Unit | None = None
    """Unit of the avatar's file; given alone it means --scale fixed."""
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
    begin_stage: str | None = None
    """Stage to begin with; all before it are left out."""
    begin_timestep: int = 0
    """Timestep to begin with."""
    batch_size: int = 16
    """Timesteps in one batch."""
    async_func: bool = True
    """Write results in the background."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    render: RenderGroup = field(default_factory=RenderGroup)
    lr: LearningRates = field(default_factory=LearningRates)
    w: WeightConfig = field(default_factory=WeightConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    log: LogConfig = field(default_factory=LogConfig)
    exp: ExperimentConfig = field(default_factory=ExperimentConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)

    def check(self) -> None:
        """Refuses flags that contradict each other or cannot be honoured."""
        from flame_fitting.fit.check import check

        check(self)

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "FitConfig":
        """What the flags of a command line are laid over: its preset's options, the capture where VHAP's flags name it.

        `capture` is tyro.MISSING where nothing names it.
        """
        from flame_fitting.fit.presets import preset

        config = preset(given_value(arguments, "preset") or "static")
        config.capture = tyro.MISSING
        root = given_value(arguments, "data.root_folder")
        if root is not None:
            config.capture = Path(root) / (given_value(arguments, "data.sequence") or "")
        return config

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


def given_value(arguments: Sequence[str], name: str) -> str | None:
    """The last value of the flag `name` on a command line, read before the flags are; None where it has none."""
    value = None
    for number, argument in enumerate(arguments):
        flag, equals, rest = argument.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            if equals:
                value = rest
            elif number + 1 < len(arguments) and not arguments[number + 1].startswith("--"):
                value = arguments[number + 1]
    return value
