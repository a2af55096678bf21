"""What is read of a capture's folder, and how."""

from dataclasses import dataclass, field, fields

from flame_fitting.capture.pictures import parse_color
from flame_fitting.errors import InputError
from flame_fitting.shared_options import CaptureOptions


@dataclass(frozen=True)
class ReadOptions:
    """Options of `opening.open_capture`; by default a folder is read as it is."""

    subset: str | None = None
    """Timesteps and cameras, in VHAP's grammar (`capture/subset.py`); None: all."""
    division: str | None = None
    """Cameras of NeRSemble's rig: train, val, front-view, side-view or six-view; None: all."""
    n_downsample_rgb: int | None = None
    """Pictures so many times smaller: those in `images_<n>` where that folder is there, else `images` are scaled."""
    scale_factor: float = 1.0
    """Pictures are scaled by this, at most 1, after `n_downsample_rgb`."""
    background_color: str | tuple[float, float, float] | None = None
    """Background put behind pictures by their alpha: white, black, r,g,b (0..255) or sRGB 0..1; None: left as it is."""
    use_alpha_map: bool = True
    """Whether the views have alpha; a background is put behind them either way."""
    use_color_correction: bool = True
    """Whether the colours of cameras are corrected where the folder says how."""
    heldout_every: int | None = None
    """Views of every so many-th of the chosen timesteps become held-out ones; None: roles stay as they are."""
    heldout_cameras: tuple[str, ...] = ()
    """Views of these cameras, by name or number, too."""
    image_size_during_calibration: tuple[int, int] | None = None
    """Height and width (px) of the pictures that NeRSemble's intrinsics are for, where its file does not say."""

    prefix: str = field(default="--data.", compare=False)
    """What messages put before the name of an option."""

    def __post_init__(self) -> None:
        """Refuses values that mean nothing."""
        if self.n_downsample_rgb is not None and self.n_downsample_rgb < 1:
            raise InputError(f"{self.prefix}n-downsample-rgb {self.n_downsample_rgb}: must be 1 or more.")
        if not 0 < self.scale_factor <= 1:
            raise InputError(f"{self.prefix}scale-factor {self.scale_factor}: must be above 0 and at most 1.")

    @property
    def background(self) -> tuple[float, float, float] | None:
        """`background_color` as sRGB 0..1."""
        if isinstance(self.background_color, str):
            return parse_color(self.background_color, f"{self.prefix}background-color")
        return self.background_color


def read_options(options: CaptureOptions) -> ReadOptions:
    """How a command's options want a capture to be read."""
    return ReadOptions(**{one.name: getattr(options, one.name) for one in fields(ReadOptions) if one.compare})
