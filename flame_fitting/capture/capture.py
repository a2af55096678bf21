"""The in-memory contract between stages: timesteps x cameras, images loaded lazily."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.roles import Role
from flame_fitting.errors import InputError
from flame_fitting.files import read_npz, read_picture


@dataclass(frozen=True, eq=False)
class View:
    """One image of a capture: camera `camera` at timestep `timestep`."""

    timestep: int
    camera: int
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

    @cached_property
    def timesteps(self) -> list[int]:
        """The timesteps that have a view, ascending."""
        return sorted({view.timestep for view in self.views})

    @cached_property
    def cameras(self) -> list[int]:
        """The cameras that have a view, ascending."""
        return sorted({view.camera for view in self.views})

    @property
    def warnings(self) -> list[str]:
        """What the avatar's file lacked when the capture was made; a fit to it takes them over."""
        return list(self.avatar.warnings or ())

    @property
    def landmark_shading(self) -> str:
        """How the landmark views are shaded, where that differs from the rest."""
        return self.avatar.landmark_shading or self.shading

    def views_of(self, *roles: Role, timestep: int | None = None) -> list[View]:
        """Views with one of the roles (all if none is named), of one timestep if it is named."""
        return [
            view
            for view in self.views
            if (not roles or view.role in roles) and (timestep is None or view.timestep == timestep)
        ]

    def image(self, view: View) -> NDArray[np.float32]:
        """(3, H, W) sRGB, 0..1."""
        return np.ascontiguousarray(self._picture(view, view.file_path, "RGB").transpose(2, 0, 1))

    def alpha(self, view: View) -> NDArray[np.float32]:
        """(H, W), 0..1; ones where the capture has no alpha maps."""
        if view.mask_path is None:
            return np.ones((view.height, view.width), dtype=np.float32)
        return self._picture(view, view.mask_path, "L")

    def geometry(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth (H, W) along the camera's z in world units (0 outside) and world normals (H, W, 3)."""
        if view.geometry_path is None:
            raise InputError(f"{self.root}: view {view.key} has no geometry. Render the avatar again.")
        path = self.root / view.geometry_path
        arrays = read_npz(path, _AGAIN, ("depth", "normal"))
        depth, normal = arrays["depth"], arrays["normal"]
        if normal.shape[-1:] != (3,) or depth.dtype.kind not in "fiu" or normal.dtype.kind not in "fiu":
            raise InputError(f"{path}: depth and normal are not numbers (H, W) and (H, W, 3). {_AGAIN}")
        self._check_size(view, view.geometry_path, depth.shape)
        self._check_size(view, view.geometry_path, normal.shape[:-1])
        return depth.astype(np.float32), normal.astype(np.float32)

    def _picture(self, view: View, name: str, mode: Literal["RGB", "L"]) -> NDArray[np.float32]:
        picture = read_picture(self.root / name, mode, _AGAIN)
        self._check_size(view, name, picture.shape[:2])
        return np.asarray(picture, dtype=np.float32) / 255.0

    def _check_size(self, view: View, name: str, shape: tuple[int, ...]) -> None:
        if shape != (view.height, view.width):
            size = " x ".join(str(length) for length in shape[::-1])
            raise InputError(
                f"{self.root / name}: is {size}, its picture {view.file_path} {view.width} x {view.height}. "
                "Make them the same size."
            )


_AGAIN = "Make the capture again."
