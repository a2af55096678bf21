"""transforms.json: captures of this program, and folders of nerfstudio, instant-ngp, NeRF's blender scenes and VHAP.

Matrices are camera to world with OpenGL axes. VHAP's own exports of calibrated recordings measure `cy` from the bottom;
they are known by their keys and by the lack of `camera_model`, which this program and nerfstudio write.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.avatar_record import read_avatar_record
from flame_fitting.capture.camera import world_to_camera_from_opengl
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.files import AVATAR_NAME, TRANSFORMS_NAME
from flame_fitting.capture.layouts.folder import SUFFIXES, picture_header
from flame_fitting.capture.layouts.lens_models import camera_of_keys
from flame_fitting.capture.making import Backdrop, PictureMaking
from flame_fitting.capture.roles import Role
from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object, reason

_MAKE_ONE = "Make a capture with: flame-fitting render AVATAR --output DIR"
_SPLITS: dict[str, Role] = {
    "transforms_train.json": "fit",
    "transforms_val.json": "heldout",
    "transforms_test.json": "heldout",
}
"""Files that hold the frames where there is no transforms.json, and what their views are for."""
_FOCAL_KEYS = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
_INTRINSIC_KEYS = (*_FOCAL_KEYS, "cx", "cy", "w", "h")
_VHAP_KEYS = ("flame_param_path", "mesh_path", "timestep_index_original")
_ALL_HEADERS = 512
"""Up to so many frames each picture's header is read; beyond, one of each camera."""


def transforms_files(root: Path) -> list[Path]:
    """The files in which a folder, or such a file itself, keeps its cameras; none where it has none."""
    if root.suffix == ".json":
        return [root]
    if (root / TRANSFORMS_NAME).is_file():
        return [root / TRANSFORMS_NAME]
    return [root / name for name in _SPLITS if (root / name).is_file()]


def read_transforms(path: Path) -> Capture:
    """Reads a folder or its transforms.json.

    Views without a role are fit views (those of transforms_val.json and transforms_test.json held out), without a
    timestep 0, without a camera numbered in order; intrinsics stand in each frame, at the top level or as
    camera_angle_x, and a frame's own count. Pictures with an alpha channel and no mask come on the background.
    """
    files = transforms_files(path)
    if not files or not files[0].is_file():
        wrong = "is not a capture, it has no transforms.json" if path.is_dir() else "no such file or folder"
        raise InputError(f"{path}: {wrong}. {_MAKE_ONE}")
    root = files[0].parent
    headers, seen = _Headers(root), dict[str, str]()
    views: list[View] = []
    notes: list[str] = []
    background: tuple[float, float, float] | None = None
    shading, mixed, ordered, unit = "unlit", False, True, None
    for file in files:
        source = _Source(file, headers)
        headers.thorough = len(source.frames) <= _ALL_HEADERS
        background = source.background or background
        shading = str(source.data.get("shading", shading))
        unit = source.data.get("unit", unit)
        ordered = ordered and source.data.get("time_order", True) is not False
        for index, frame in enumerate(source.frames):
            view = source.view(frame, index, len(views))
            where = f"frames {seen.get(view.key)} and {index}"
            if view.key in seen:
                raise InputError(
                    f"{file}: {where} are both timestep {view.timestep}, camera {view.camera}."
                    " Give each frame its own timestep_index and camera_index."
                )
            seen[view.key] = str(index)
            views.append(view)
        notes += source.notes()
        mixed = mixed or source.real_background
    views.sort(key=lambda view: (view.timestep, view.camera))
    return Capture(
        root=root,
        views=views,
        background_color=background or _WHITE,
        shading=shading,
        avatar=read_avatar_record(root / AVATAR_NAME, _MAKE_ONE),
        composited=not mixed,
        ordered=ordered,
        unit=None if unit is None else str(unit),
        notes=tuple(notes),
        sources=tuple(files),
    )


_WHITE = (1.0, 1.0, 1.0)


@dataclass
class _Headers:
    """Sizes of pictures, and whether they have an alpha channel; of a camera with a number it is read once."""

    root: Path
    thorough: bool = True
    _known: dict[tuple[int, tuple[int | None, ...]], tuple[tuple[int, int], bool]] = field(default_factory=dict)

    def of(self, picture: str, camera: int | None, said: tuple[int | None, int | None]) -> tuple[tuple[int, int], bool]:
        if camera is None or self.thorough:
            return picture_header(self.root / picture, _MAKE_ONE)
        key = (camera, said)
        if key not in self._known:
            self._known[key] = picture_header(self.root / picture, _MAKE_ONE)
        return self._known[key]


class _Source:
    """One file with frames."""

    def __init__(self, file: Path, headers: _Headers) -> None:
        self.file, self.root, self._headers = file, file.parent, headers
        self.data = read_json_object(file, _MAKE_ONE)
        frames = self.data.get("frames")
        if not isinstance(frames, list) or not frames:
            raise InputError(f"{file}: has no frames. {_MAKE_ONE}")
        self.frames: list[Any] = frames
        self._role = _SPLITS.get(file.name, "fit")
        self._of_vhap = "camera_model" not in self.data and all(
            isinstance(frame, dict) and any(key in frame for key in _VHAP_KEYS) for frame in frames
        )
        self.background = self._background()
        self.real_background = False
        """Whether a view has an alpha map and a picture that does not stand on the background."""
        self._differing: set[str] = set()
        self._poses: dict[tuple, NDArray[np.float64]] = {}
        """By the numbers of the matrix: cameras that stand still are checked and turned round once."""
        self._turned = self._channels = 0

    def view(self, frame: Any, index: int, number: int) -> View:
        """The view of a frame, the `index`-th of the file and `number`-th of all."""
        where = f"{self.file}: frame {index}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"{where} has no file_path. {_MAKE_ONE}")
        picture = self._existing(where, frame["file_path"])
        role = frame.get("role", self._role)
        if role not in get_args(Role):
            raise InputError(f"{where} has role {role!r}; roles are {', '.join(get_args(Role))}.")
        mask = frame.get("fg_mask_path") or frame.get("mask_path")
        geometry, dense = frame.get("geometry_path"), frame.get("dense_path")
        values = self._merged(frame)
        try:
            width, height, channel = self._size(picture, frame, values)
            K = _intrinsics(where, values, width, height)
            if self._of_vhap and abs(height - 2 * K[1, 2]) > 1e-3:
                K[1, 2] = height - K[1, 2]
                self._turned += 1
            K, lens = camera_of_keys(values, K, width, height, where)
            making = None if lens is None else PictureMaking((width, height), (width, height), lens)
            mask_path = None if mask is None else self._existing(where, mask)
            if mask_path is None and channel:
                mask_path, self._channels = picture, self._channels + 1
                backdrop = Backdrop(self.background or _WHITE, picture)
                making = PictureMaking((width, height), (width, height), lens, backdrop=backdrop)
            elif mask_path is not None and self.background is None:
                self.real_background = True
            if lens is not None and geometry is not None:
                raise InputError(f"{where} has geometry and lens distortion. Leave one of them out.")
            return View(
                timestep=int(frame.get("timestep_index", 0)),
                camera=int(frame.get("camera_index", number)),
                role=role,
                K=K,
                world_to_camera=self._pose(where, frame.get("transform_matrix")),
                width=width,
                height=height,
                file_path=picture,
                mask_path=mask_path,
                geometry_path=None if geometry is None else self._existing(where, geometry),
                dense_path=None if dense is None else self._existing(where, dense),
                timestep_id=str(frame.get("timestep_id", "")),
                camera_id=str(frame.get("camera_id", "" if "camera_index" in frame else Path(picture).stem)),
                making=making,
            )
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise InputError(f"{where} cannot be read ({reason(error)}). {_MAKE_ONE}") from error

    def notes(self) -> list[str]:
        """What is to be said of how the frames were taken."""
        found = []
        if self._differing:
            keys = ", ".join(sorted(self._differing))
            found.append(f"{self.file}: {keys} at the top level differ from the frames' own, which count")
        if self._turned:
            found.append(
                f"{self.file}: is VHAP's (its keys, no camera_model), which measures cy from the bottom: "
                "h - cy is taken instead"
            )
        if self._channels:
            color = tuple(round(255 * value) for value in self.background or _WHITE)
            found.append(f"{self.file}: pictures have an alpha channel; they are put on {color}")
        return found

    def _pose(self, where: str, matrix: Any) -> NDArray[np.float64]:
        try:
            key = tuple(tuple(row) for row in matrix)
            if key not in self._poses:
                self._poses[key] = _world_to_camera(where, matrix)
            return self._poses[key]
        except TypeError:  # no rows, or no numbers in them
            return _world_to_camera(where, matrix)

    def _merged(self, frame: dict[str, Any]) -> dict[str, Any]:
        """The top level's values under the frame's. A focal length of the frame's own stands alone."""
        for key in _INTRINSIC_KEYS:
            if key in self._differing or self.data.get(key) is None or frame.get(key) is None:
                continue
            try:
                if abs(float(self.data[key]) - float(frame[key])) > 1e-6 * abs(float(frame[key])):
                    self._differing.add(key)
            except (TypeError, ValueError):  # said where it is used
                continue
        own_focal = any(frame.get(key) is not None for key in _FOCAL_KEYS)
        top = {key: value for key, value in self.data.items() if not (own_focal and key in _FOCAL_KEYS)}
        return top | {key: value for key, value in frame.items() if value is not None}

    def _size(self, picture: str, frame: dict[str, Any], values: dict[str, Any]) -> tuple[int, int, bool]:
        """Width, height, and whether the picture has an alpha channel."""
        said = tuple(None if values.get(key) is None else int(values[key]) for key in ("w", "h"))
        camera = int(frame["camera_index"]) if frame.get("camera_index") is not None else None
        (width, height), channel = self._headers.of(picture, camera, (said[0], said[1]))
        for key, value, found in zip(("w", "h"), said, (width, height), strict=True):
            if value is not None and value != found:
                raise InputError(
                    f"{self.root / picture}: the picture is {width} x {height},"
                    f" but {self.file.name} says {key} = {value}. Correct one of them."
                )
        return width, height, channel

    def _existing(self, where: str, name: Any) -> str:
        if not isinstance(name, str) or "\0" in name:
            raise InputError(f"{where} names {name!r}, which is no file. {_MAKE_ONE}")
        for candidate in (name, *(name + suffix for suffix in SUFFIXES)):  # instant-ngp's files may lack the ending
            if os.path.isfile(self.root / candidate):  # False, too, for what no file system takes as a name
                return candidate
        said = where.removeprefix(str(self.root) + os.sep)
        raise InputError(f"{self.root / name[:200]}: missing, but {said} names it. {_MAKE_ONE}")

    def _background(self) -> tuple[float, float, float] | None:
        """What pictures were composited on; None where the file does not say."""
        color = self.data.get("background_color")
        if color is None:
            # VHAP composites on white
            return _WHITE if self._of_vhap else None
        try:
            red, green, blue = (float(value) for value in color)
            if all(0 <= value <= 1 for value in (red, green, blue)):
                return red, green, blue
        except (TypeError, ValueError):
            pass
        raise InputError(f"{self.file}: background_color is {color!r}; it must be three numbers from 0 to 1.")


def _intrinsics(where: str, values: dict[str, Any], width: int, height: int) -> NDArray[np.float64]:
    if values.get("fl_x") is not None:
        focal_x = float(values["fl_x"])
    elif values.get("camera_angle_x") is not None:
        focal_x = 0.5 * width / np.tan(0.5 * float(values["camera_angle_x"]))
    else:
        raise InputError(f"{where} has no focal length. Give fl_x, fl_y, cx and cy in pixels.")
    focal_y = float(values.get("fl_y") or focal_x)
    cx, cy = (values.get("cx"), values.get("cy"))
    K = np.eye(3)
    K[0, 0], K[1, 1] = focal_x, focal_y
    K[0, 2] = 0.5 * width if cx is None else float(cx)
    K[1, 2] = 0.5 * height if cy is None else float(cy)
    if not np.isfinite(K).all() or focal_x <= 0 or focal_y <= 0:
        raise InputError(f"{where} has a focal length or principal point that is not a usable number.")
    return K


def _world_to_camera(where: str, matrix: Any) -> NDArray[np.float64]:
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape != (4, 4) or not np.isfinite(array).all():
        raise InputError(f"{where} has no 4x4 transform_matrix of finite numbers.")
    rotation = array[:3, :3]
    if not np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(
            f"{where}: the transform_matrix must be a rotation and a translation. Remove scale and mirroring."
        )
    return world_to_camera_from_opengl(array)
