"""The in-memory contract between stages: timesteps x cameras, images loaded lazily."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import scaled_intrinsics
from flame_fitting.capture.dense import DENSE, checked_map
from flame_fitting.capture.making import PictureMaking, made_mask, made_picture, over_backdrop
from flame_fitting.capture.roles import Role
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, read_picture


@dataclass(frozen=True, eq=False)
class View:
    """One image of a capture: camera `camera` at timestep `timestep`."""

    timestep: int
    """Its number among all timesteps of the folder, whichever of them were chosen."""
    camera: int
    """The same of the camera."""
    role: Role
    K: NDArray[np.float64]
    """(3, 3) intrinsics, px."""
    world_to_camera: NDArray[np.float64]
    """(4, 4), OpenCV axes."""
    width: int
    height: int
    file_path: str
    """Image, relative to the capture's folder."""
    mask_path: str | None = None
    """Alpha map, 8-bit."""
    geometry_path: str | None = None
    """npz with depth (H, W) and normal (H, W, 3), where rendered."""
    dense_path: str | None = None
    """npz with dense observations (`capture.dense`), where another program made some."""
    timestep_id: str = ""
    """Name of the timestep in the folder's files; where they have none, its number with five digits."""
    camera_id: str = ""
    """Name of the camera in the folder's files; where they have none, its number with two digits."""
    making: PictureMaking | None = None
    """How its picture is made from the file; None: the file holds it."""

    def __post_init__(self) -> None:
        """Names what has no name."""
        if not self.timestep_id:
            object.__setattr__(self, "timestep_id", f"{self.timestep:05d}")
        if not self.camera_id:
            object.__setattr__(self, "camera_id", f"{self.camera:02d}")

    @property
    def full_size(self) -> tuple[int, int]:
        """Width and height of the picture in the folder as it is opened without options; landmark files count these."""
        return (self.width, self.height) if self.making is None else self.making.full

    def at_full_size(self) -> "View":
        """The same with the picture in its full size."""
        width, height = self.full_size
        K = scaled_intrinsics(self.K, (self.height, self.width), (height, width))
        return replace(self, K=K, width=width, height=height)

    @property
    def key(self) -> str:
        """File stem: `<timestep:05d>_<camera:02d>`."""
        return f"{self.timestep:05d}_{self.camera:02d}"


@dataclass(eq=False)
class Capture:
    """Views of one subject with their cameras and files."""

    root: Path
    views: list[View]
    background_color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """sRGB, 0..1."""
    shading: str = "unlit"
    """unlit, lit or clay."""
    avatar: AvatarRecord = field(default_factory=AvatarRecord)
    """What is known of the avatar that it was rendered from."""
    kind: str = "capture"
    """Kind of folder, as `opening.KINDS` calls it."""
    composited: bool = True
    """Whether pictures with alpha stand on `background_color`; False: their real background is in them."""
    ordered: bool = True
    """Whether its timesteps follow each other in time; False: moments of one person, in no order."""
    unit: str | None = None
    """Unit of the world, where the files say: m, dm, cm, mm, inch or foot."""
    calibrated: bool = True
    """Whether the cameras are known; False: one camera at rest, whose intrinsics are a guess."""
    notes: tuple[str, ...] = ()
    """What a user should know of how the folder was read."""
    sources: tuple[Path, ...] = ()
    """Files besides pictures that were read: calibrations, lists of cameras."""
    timestep_ids: dict[int, str] = field(default_factory=dict)
    """Names of all timesteps of the folder by number, ascending, also of those without a view here."""
    camera_ids: dict[int, str] = field(default_factory=dict)
    """The same of the cameras."""

    def __post_init__(self) -> None:
        """Takes the timesteps and cameras of its views for all, where none are given."""
        if not self.timestep_ids:
            self.timestep_ids = dict(sorted({view.timestep: view.timestep_id for view in self.views}.items()))
        if not self.camera_ids:
            self.camera_ids = dict(sorted({view.camera: view.camera_id for view in self.views}.items()))

    @cached_property
    def timesteps(self) -> list[int]:
        """The timesteps that have a view, ascending."""
        return sorted({view.timestep for view in self.views})

    @cached_property
    def cameras(self) -> list[int]:
        """The cameras that have a view, ascending."""
        return sorted({view.camera for view in self.views})

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Position of each timestep among all of the folder: its row in a file of landmarks."""
        return {timestep: row for row, timestep in enumerate(self.timestep_ids)}

    @cached_property
    def column_of(self) -> dict[int, int]:
        """The same of each camera."""
        return {camera: column for column, camera in enumerate(self.camera_ids)}

    @property
    def heldout_rows(self) -> list[int]:
        """Rows among `timesteps` of those of which every view is held out, where others are not."""
        looked_at = {view.timestep for view in self.views if view.role != "heldout"}
        return [row for row, timestep in enumerate(self.timesteps) if looked_at and timestep not in looked_at]

    @property
    def warnings(self) -> list[str]:
        """What the avatar's file lacked when the capture was made; a fit to it takes them over."""
        return list(self.avatar.warnings or ())

    @property
    def landmark_shading(self) -> str:
        """How the landmark views are shaded, where that differs from the rest."""
        return self.avatar.landmark_shading or self.shading

    def landmark_shading_of(self, timestep: int) -> str:
        """The same of one timestep, where captures were joined."""
        name = self.timestep_ids[timestep]
        own = (part.landmark_shading for part in self.avatar.parts or () if name in part.timesteps)
        return next(own, None) or self.landmark_shading

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of the timesteps where these are several in no order; none else."""
        if self.ordered or len(self.timesteps) < 2:
            return ()
        return tuple(self.timestep_ids[timestep] for timestep in self.timesteps)

    def views_of(self, *roles: Role, timestep: int | None = None) -> list[View]:
        """Views with one of the roles (all if none is named), of one timestep if it is named."""
        return [
            view
            for view in self.views
            if (not roles or view.role in roles) and (timestep is None or view.timestep == timestep)
        ]

    def image(self, view: View) -> NDArray[np.float32]:
        """(3, H, W) sRGB, 0..1."""
        return self._image(view, None)

    def alpha(self, view: View) -> NDArray[np.float32]:
        """(H, W), 0..1; ones where the view has no alpha map."""
        if view.mask_path is None:
            return np.ones((view.height, view.width), dtype=np.float32)
        return self._mask(view, view.mask_path)

    def image_and_alpha(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What `image` and `alpha` give; an alpha map that both need is read once."""
        alpha = self.alpha(view)
        return self._image(view, None if view.mask_path is None else alpha), alpha

    def _image(self, view: View, alpha: NDArray[np.float32] | None) -> NDArray[np.float32]:
        picture = read_picture(self.root / view.file_path, "RGB", _AGAIN)
        making = view.making
        if making is None:
            self._check_size(view, view.file_path, picture.shape[:2])
            made = np.asarray(picture, dtype=np.float32) / 255.0
        else:
            self._check_stored(view, making, picture.shape[:2])
            made = made_picture(picture, making, view.width, view.height)
            if making.backdrop is not None:
                mask = making.backdrop.mask_path
                alpha = self._mask(view, mask) if alpha is None or view.mask_path != mask else alpha
                made = over_backdrop(made, alpha, making.backdrop)
        return np.ascontiguousarray(made.transpose(2, 0, 1))

    def geometry(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth (H, W) along the camera's z in world units (0 outside) and world normals (H, W, 3).

        Of a picture that is read smaller than it is, they are those of the nearest pixels.
        """
        if view.geometry_path is None:
            raise InputError(f"{self.root}: view {view.key} has no geometry. Render the avatar again.")
        path = self.root / view.geometry_path
        arrays = read_npz(path, _AGAIN, ("depth", "normal"))
        depth, normal = arrays["depth"], arrays["normal"]
        if normal.shape[-1:] != (3,) or depth.dtype.kind not in "fiu" or normal.dtype.kind not in "fiu":
            raise InputError(f"{path}: depth and normal are not numbers (H, W) and (H, W, 3). {_AGAIN}")
        depth, normal = (self._nearest(view, view.geometry_path, array) for array in (depth, normal))
        return depth.astype(np.float32), normal.astype(np.float32)

    def noise(self, view: View) -> NDArray[np.float32] | None:
        """Standard deviation (H, W) of a view's surface in world units, where it was measured."""
        if view.geometry_path is None:
            return None
        path = self.root / view.geometry_path
        noise = read_npz(path, _AGAIN).get("noise")
        if noise is None:
            return None
        if noise.ndim != 2 or noise.dtype.kind != "f" or not np.isfinite(noise).all() or (noise < 0).any():
            raise InputError(f"{path}: noise is not (H, W) numbers of at least 0. {_AGAIN}")
        return self._nearest(view, view.geometry_path, noise).astype(np.float32)

    def dense(self, view: View) -> dict[str, NDArray[Any]]:
        """Dense observations by kind (`capture.dense.DENSE`): (H, W, C) float32, labels (H, W) int32.

        Empty where there are none. Of a picture that is read smaller than it is, they are those of the nearest pixels.
        """
        if view.dense_path is None:
            return {}
        path = self.root / view.dense_path
        try:
            maps = {name: checked_map(name, array) for name, array in read_npz(path, _AGAIN).items() if name in DENSE}
        except ValueError as error:
            raise InputError(f"{path}: {error}. Make the maps again.") from error
        return {name: self._nearest(view, view.dense_path, array) for name, array in maps.items()}

    def _nearest(self, view: View, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """An array (H, W, ...) of the full picture at the size that the view is read at."""
        width, height = view.full_size
        self._check_size(view, name, array.shape[:2], (height, width))
        if (width, height) == (view.width, view.height):
            return array
        rows = (np.arange(view.height) + 0.5) * height / view.height
        columns = (np.arange(view.width) + 0.5) * width / view.width
        return array[np.ix_(rows.astype(int), columns.astype(int))]

    def _mask(self, view: View, name: str) -> NDArray[np.float32]:
        mask = read_picture(self.root / name, "A" if name == view.file_path else "L", _AGAIN)
        making, shape = view.making, mask.shape[:2]
        if making is None:
            self._check_size(view, name, shape)
            return np.asarray(mask, dtype=np.float32) / 255.0
        width, height = making.full
        if abs(shape[1] * height - shape[0] * width) > max(0.01 * shape[1] * height, width, height):
            raise InputError(  # any size will do, but for rounding of one shape
                f"{self.root / name}: is {shape[1]} x {shape[0]}, which has not the shape of its picture"
                f" {view.file_path}, {width} x {height}. Make the two anew."
            )
        return made_mask(mask, making, view.width, view.height)

    def _check_stored(self, view: View, making: PictureMaking, shape: tuple[int, ...]) -> None:
        if shape != making.stored[::-1]:
            raise InputError(
                f"{self.root / view.file_path}: is {shape[1]} x {shape[0]}, other pictures of the camera"
                f" {view.camera_id} are {making.stored[0]} x {making.stored[1]}. Make them the same size."
            )

    def _check_size(
        self, view: View, name: str, shape: tuple[int, ...], expected: tuple[int, int] | None = None
    ) -> None:
        height, width = expected or (view.height, view.width)
        if shape != (height, width):
            size = " x ".join(str(length) for length in shape[::-1])
            raise InputError(
                f"{self.root / name}: is {size}, its picture {view.file_path} {width} x {height}. "
                "Make them the same size."
            )


_AGAIN = "Make the capture again."
