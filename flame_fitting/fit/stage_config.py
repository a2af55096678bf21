"""Options of the fit's stages: what each does, and the stages of the preset `static` in their order."""

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from flame_fitting.options import option

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
Solver = Literal["closed_form", "focal", "gauss_newton", "points", "bake", "adam", "registration"]
Observed = Literal["landmarks", "surface", "pictures"]
Frames = Literal["first", "keyframes", "sequential", "global"]

GROUPS: tuple[str, ...] = get_args(Group)


@dataclass
class StageConfig:
    """One stage."""

    num_steps: int = option(0, at_least=0)
    """Iterations; 0 leaves the stage out."""
    num_epochs: int = option(0, at_least=0)
    """Passes over all timesteps, one step each (global stages)."""
    solver: Solver = "adam"
    """How it is solved."""
    optimizable_params: tuple[Group, ...] = ()
    """Groups of parameters that move."""
    looks_at: tuple[Observed, ...] = ("landmarks", "surface", "pictures")
    """What counts, of what the capture has."""
    frames: Frames = "global"
    """Timesteps: the first with a face, those of --exp.keyframes together (none: the most different ones, as many as
    --batch-size), each by itself after the one before, or all together."""
    for_offsets: bool = False
    """Left out where static offsets are switched off."""
    align_texture_except: tuple[str, ...] = ()
    """Regions whose texture does not move the surface."""
    align_boundary_except: tuple[str, ...] = ()
    """Regions whose outline does not move the surface."""
    except_covered: bool = False
    """Where pictures show another colour than the skin's on scalp, forehead, ears or neck (hair, clothes), they move
    static offsets alone: neither identity nor pose."""
    disable_jawline_landmarks: bool = False
    """Leave the jaw line's landmarks out."""
    when: Literal["always", "with_geometry", "without_geometry", "without_pictures", "beyond_keyframes"] = "always"
    """Whether it needs, or stands in for, the capture's geometry, stands in where --exp.no-photometric, or is for
    captures of more timesteps than one batch holds."""
    lr_scale: float = option(1.0, at_least=0)
    """Factor of all step sizes."""
    lr_schedule: Literal["constant", "cosine", "exponential"] = "constant"
    """Step sizes over the stage; exponential: times 0.9 after each epoch."""
    average_last: float = option(0.0, at_least=0, at_most=1)
    """Share of the last iterates whose mean is the result."""
    stop_below: float = option(0.0, at_least=0, at_most=1)
    """Adam: end early where the loss, averaged over --stop-window steps, falls by less than this share from one window
    to the next; what is left of a size of pictures is skipped, the last share that is averaged is not. 0: never."""
    stop_window: int = option(20, at_least=1)
    """Steps in a window, at least those of two epochs."""
    sizes: tuple[int, ...] = option((), at_least=1)
    """Heights of the pictures (px), coarse to fine, equal shares of the steps; none: as they are."""
    texture_sizes: tuple[int, ...] = option((), at_least=1)
    """Sizes of the optimised or baked texture, coarse to fine; none: --model.tex-resolution."""
    rebake: int = option(0, at_least=0)
    """Steps between bakes of the base texture and correspondences; 0: never."""
    smooth: float = option(0.0, at_least=0)
    """Blur of a baked base inside regions, share of the texture's edge; 0: full detail."""
    across_views: bool = False
    """Compare each view with the texture baked from the other half of the views."""
    disturb: float = option(1.0, at_least=0)
    """Factor of the rates at which colours are drawn at random."""
    landmark: float = option(1.0, at_least=0)
    """Factor of the weights of landmarks."""
    prior: float = option(1.0, at_least=0)
    """Factor of w.prior."""
    outline: float = option(1.0, at_least=0)
    """Factor of w.silhouette."""
    outline_inside: float = option(1.0, at_least=0)
    """Factor of w.silhouette_inside."""
    max_yaw: float = option(180.0, above=0)
    """Views farther than this from the front (degrees) are left out."""

    @property
    def runs(self) -> bool:
        """Whether it has anything to do."""
        return self.num_steps > 0 or self.num_epochs > 0


_EVERYTHING: tuple[Group, ...] = ("pose", "scale", "joints", "shape", "expr")
LANDMARKS: tuple[Observed, ...] = ("landmarks",)
GEOMETRY: tuple[Observed, ...] = ("landmarks", "surface")


def _closed_form() -> StageConfig:
    return StageConfig(1, solver="closed_form", optimizable_params=("pose", "scale"), looks_at=LANDMARKS)


def _focal() -> StageConfig:
    return StageConfig(solver="focal", optimizable_params=("cam", "pose"), looks_at=LANDMARKS)


def _gauss_newton() -> StageConfig:
    return StageConfig(25, solver="gauss_newton", optimizable_params=_EVERYTHING, looks_at=LANDMARKS)


def _points() -> StageConfig:
    tracked: tuple[Group, ...] = ("pose", "joints", "expr")
    return StageConfig(solver="points", optimizable_params=tracked, looks_at=("landmarks", "pictures"))


def _gauss_newton_on_geometry() -> StageConfig:
    return StageConfig(
        25, solver="gauss_newton", optimizable_params=_EVERYTHING, looks_at=GEOMETRY, when="with_geometry"
    )


def _bake() -> StageConfig:
    return StageConfig(1, solver="bake", optimizable_params=("texture", "lights"), looks_at=("pictures",))


def _outline() -> StageConfig:
    return StageConfig(
        150,
        optimizable_params=_EVERYTHING,
        except_covered=True,
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
        for_offsets=True,
        except_covered=True,
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
    return StageConfig(
        8,
        solver="registration",
        optimizable_params=("static_offset",),
        looks_at=GEOMETRY,
        for_offsets=True,
        when="with_geometry",
    )


def _tracking() -> StageConfig:
    return StageConfig(optimizable_params=("pose", "joints", "expr"), frames="sequential")


def _global_tracking() -> StageConfig:
    return StageConfig(optimizable_params=(*_EVERYTHING, "static_offset"), lr_scale=0.1)


def _tracking_by_landmarks() -> StageConfig:
    tracked: tuple[Group, ...] = ("pose", "joints", "expr")
    return StageConfig(optimizable_params=tracked, looks_at=LANDMARKS, frames="sequential", when="without_pictures")


def _global_landmarks() -> StageConfig:
    return StageConfig(optimizable_params=_EVERYTHING, looks_at=LANDMARKS, when="without_pictures", lr_scale=0.1)


@dataclass
class PipelineConfig:
    """The stages in their order; those that VHAP has too bear its names."""

    lmk_init_rigid: StageConfig = field(default_factory=_closed_form)
    """Placement from landmarks."""
    lmk_init_focal: StageConfig = field(default_factory=_focal)
    """Focal length of a camera that is not known, by landmarks."""
    lmk_init_all: StageConfig = field(default_factory=_gauss_newton)
    """Landmarks: placement, shape, expression, joints."""
    pts_init_all: StageConfig = field(default_factory=_points)
    """Landmarks and points of the skin that are followed through a video: identity and focal length, too."""
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
    pts_global_tracking: StageConfig = field(default_factory=_points)
    """Landmarks and points of the skin that are followed through a video, all timesteps together."""
    lmk_sequential_tracking: StageConfig = field(default_factory=_tracking_by_landmarks)
    """Landmarks, one timestep after the other; instead of the photometric stages."""
    lmk_global_tracking: StageConfig = field(default_factory=_global_landmarks)
    """Landmarks, all timesteps together; instead of the photometric stages."""

    def items(self) -> list[tuple[str, StageConfig]]:
        """Names and stages in their order."""
        return [(one.name, getattr(self, one.name)) for one in fields(self)]
