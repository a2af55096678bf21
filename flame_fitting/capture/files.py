"""The folder layout of a capture: `transforms.json`, `images/`, `alpha_maps/`, `geometry/`, `avatar.json`.

`transforms.json` is nerfstudio's: camera-to-world matrices with OpenGL axes, `cy` from the top. nerfstudio ignores a
frame's intrinsics where the top level has the same key, so the top level has them only when all views share them.
"""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flame_fitting.capture.avatar_record import AvatarRecord, read_avatar_record
from flame_fitting.capture.camera import opengl_camera_to_world, world_to_camera_from_opengl
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import picture_as_uint8, to_uint8, write_png
from flame_fitting.capture.roles import Role
from flame_fitting.errors import InputError
from flame_fitting.files import read_json_object, reason
from flame_fitting.folders import staged_folder
from flame_fitting.manifest import Manifest

TRANSFORMS_NAME = "transforms.json"
AVATAR_NAME = "avatar.json"
INTRINSIC_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
_DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
_MAKE_ONE = "Make a capture with: flame-fitting render AVATAR --output DIR"


class CaptureWriter:
    """Writes a capture view after view; the folder appears when the `with` block ends, whole or not at all.

    with CaptureWriter(root, background_color=(1, 1, 1), shading="unlit") as writer:
        writer.add(timestep=0, camera=0, role="fit", K=K, world_to_camera=w2c, image=image, alpha=alpha)
        writer.manifest = manifest
    capture = writer.capture
    """

    def __init__(
        self,
        root: str | os.PathLike,
        background_color: Iterable[float] = (1.0, 1.0, 1.0),
        shading: str = "unlit",
        avatar: AvatarRecord | None = None,
        force: bool = False,
    ) -> None:
        red, green, blue = (float(value) for value in background_color)
        self.root = Path(root)
        self.background_color = (red, green, blue)
        self.shading = shading
        self.avatar = avatar
        """Becomes avatar.json; None: there is none."""
        self.manifest: Manifest | None = None
        """Written into the folder, marked finished, when it is set before the block ends."""
        self.views: list[View] = []
        self._force = force
        self._stack = ExitStack()
        self._pending: list[Future[None]] = []

    def __enter__(self) -> "CaptureWriter":
        with ExitStack() as stack:
            staged = staged_folder(self.root, self._force, stale=("landmarks2d", "geometry", AVATAR_NAME))
            self._folder = stack.enter_context(staged)
            self._pool = stack.enter_context(ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1))))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._stack.callback(self._finish)  # runs before the pool and the folder close, and may fail
        else:
            self._pool.shutdown(cancel_futures=True)
        self._stack.__exit__(kind, error, traceback)

    def _finish(self) -> None:
        for job in self._pending:
            job.result()
        self.views.sort(key=lambda view: (view.timestep, view.camera))
        transforms = transforms_of(self.views, self.background_color, self.shading)
        (self._folder / TRANSFORMS_NAME).write_text(json.dumps(transforms, indent=2) + "\n", encoding="utf-8")
        if self.avatar is not None:
            text = json.dumps(self.avatar.as_json(), indent=2) + "\n"
            (self._folder / AVATAR_NAME).write_text(text, encoding="utf-8")
        if self.manifest is not None:
            self.manifest.finished = True
            self.manifest.write(self._folder)

    def add(
        self,
        *,
        timestep: int,
        camera: int,
        role: Role,
        K: ArrayLike,
        world_to_camera: ArrayLike,
        image: ArrayLike,
        alpha: ArrayLike | None = None,
        depth: ArrayLike | None = None,
        normal: ArrayLike | None = None,
    ) -> View:
        """Queues one view for writing.

        `image` is (3, H, W) float sRGB 0..1 or (H, W, 3) uint8, `alpha` (H, W) float 0..1 or uint8, `depth` (H, W)
        along the camera's z in world units with 0 outside, `normal` (H, W, 3) in the world.
        """
        picture = picture_as_uint8(image)
        height, width = picture.shape[:2]
        key = f"{timestep:05d}_{camera:02d}"
        view = View(
            timestep=timestep,
            camera=camera,
            role=role,
            K=np.array(K, dtype=np.float64),
            world_to_camera=np.array(world_to_camera, dtype=np.float64),
            width=width,
            height=height,
            file_path=f"images/{key}.png",
            mask_path=None if alpha is None else f"alpha_maps/{key}.png",
            geometry_path=None if depth is None else f"geometry/{key}.npz",
        )
        if (depth is None) != (normal is None):
            raise ValueError("depth and normal come together")
        if any(other.key == key for other in self.views):
            raise ValueError(f"view {key} was added twice")
        self.views.append(view)
        self._queue(write_png, view.file_path, picture)
        if view.mask_path is not None:
            self._queue(write_png, view.mask_path, to_uint8(np.asarray(alpha)))
        if view.geometry_path is not None:
            arrays = {"depth": np.array(depth, dtype=np.float32), "normal": np.array(normal, dtype=np.float16)}
            self._queue(write_npz, view.geometry_path, arrays)
        return view

    @property
    def capture(self) -> Capture:
        """The written capture; valid after the `with` block."""
        return Capture(self.root, self.views, self.background_color, self.shading, self.avatar or AvatarRecord())

    def _queue(self, write: Any, name: str, content: Any) -> None:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        self._pending.append(self._pool.submit(write, path, content))
        if len(self._pending) > 24:  # bounds the memory held by waiting pictures, and shows a full disk early
            self._pending.pop(0).result()


def read_capture(path: str | os.PathLike) -> Capture:
    """Reads the folder of a capture (or its transforms.json). Pictures are only checked here, and read when asked for.

    Also reads transforms.json files that other tools wrote: views without a role are fit views, without a timestep 0,
    without a camera numbered in order; intrinsics per frame, at the top level or as camera_angle_x.
    """
    path = Path(path)
    file = path if path.suffix == ".json" else path / TRANSFORMS_NAME
    root = file.parent
    if not file.is_file():
        wrong = "is not a capture, it has no transforms.json" if root.is_dir() else "no such folder"
        raise InputError(f"{path}: {wrong}. {_MAKE_ONE}")
    data = read_json_object(file, _MAKE_ONE)
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file}: has no frames. {_MAKE_ONE}")
    views = [_read_frame(file, data, frame, index) for index, frame in enumerate(frames)]
    seen: dict[str, int] = {}
    for index, view in enumerate(views):
        if view.key in seen:
            raise InputError(
                f"{file}: frames {seen[view.key]} and {index} are both timestep {view.timestep}, camera {view.camera}."
                " Give each frame its own timestep_index and camera_index."
            )
        seen[view.key] = index
    views.sort(key=lambda view: (view.timestep, view.camera))
    return Capture(
        root=root,
        views=views,
        background_color=_background(file, data.get("background_color", (1.0, 1.0, 1.0))),
        shading=str(data.get("shading", "unlit")),
        avatar=read_avatar_record(root / AVATAR_NAME, _MAKE_ONE),
    )


def transforms_of(views: list[View], background_color: Iterable[float], shading: str) -> dict[str, Any]:
    """The content of transforms.json."""
    frames = [_frame_of(view) for view in views]
    data: dict[str, Any] = {"camera_model": "PINHOLE"}
    for key in INTRINSIC_KEYS:
        if frames and all(frame[key] == frames[0][key] for frame in frames):
            data[key] = frames[0][key]
    if not all(key in data for key in INTRINSIC_KEYS):
        data = {key: value for key, value in data.items() if key not in INTRINSIC_KEYS}
    data["background_color"] = list(background_color)
    data["shading"] = shading
    data["frames"] = frames
    return data


def intrinsics_as_dict(K: NDArray[np.float64], width: int, height: int) -> dict[str, float]:
    """fl_x, fl_y, cx, cy (from the top), w, h of a camera as transforms.json has them."""
    return {
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
        "w": int(width),
        "h": int(height),
    }


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """np.savez with light compression: depth and normals are mostly empty, and full compression is slow."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def _frame_of(view: View) -> dict[str, Any]:
    frame: dict[str, Any] = {
        "file_path": view.file_path,
        "timestep_index": view.timestep,
        "camera_index": view.camera,
        "role": view.role,
        "transform_matrix": opengl_camera_to_world(view.world_to_camera).tolist(),
        **intrinsics_as_dict(view.K, view.width, view.height),
    }
    if view.mask_path is not None:
        # not nerfstudio's mask_path: what that leaves out is never trained, and floaters grow there
        frame["fg_mask_path"] = view.mask_path
    if view.geometry_path is not None:
        frame["geometry_path"] = view.geometry_path
    return frame


def _read_frame(file: Path, data: dict[str, Any], frame: Any, index: int) -> View:
    where = f"{file}: frame {index}"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise InputError(f"{where} has no file_path. {_MAKE_ONE}")
    picture = _existing(file, where, frame["file_path"])
    role = frame.get("role", "fit")
    if role not in get_args(Role):
        raise InputError(f"{where} has role {role!r}; roles are {', '.join(get_args(Role))}.")
    mask = frame.get("fg_mask_path") or frame.get("mask_path")
    geometry = frame.get("geometry_path")
    width, height = _picture_size(file.parent / picture)
    merged = {**data, **frame}
    try:
        for key, found in (("w", width), ("h", height)):
            if merged.get(key) is not None and int(merged[key]) != found:
                raise InputError(
                    f"{file.parent / picture}: the picture is {width} x {height},"
                    f" but {file.name} says {key} = {merged[key]}. Correct one of them."
                )
        if any(abs(float(merged.get(key) or 0.0)) > 1e-9 for key in _DISTORTION_KEYS):
            raise InputError(f"{where} has lens distortion, which is not supported. Undistort the pictures first.")
        view = View(
            timestep=int(frame.get("timestep_index", 0)),
            camera=int(frame.get("camera_index", index)),
            role=role,
            K=_intrinsics(where, merged, width, height),
            world_to_camera=_world_to_camera(where, frame.get("transform_matrix")),
            width=width,
            height=height,
            file_path=picture,
            mask_path=None if mask is None else _existing(file, where, mask),
            geometry_path=None if geometry is None else _existing(file, where, geometry),
        )
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InputError(f"{where} cannot be read ({reason(error)}). {_MAKE_ONE}") from error
    return view


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


def _background(file: Path, color: Any) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in color)
        if all(0 <= value <= 1 for value in (red, green, blue)):
            return red, green, blue
    except (TypeError, ValueError):
        pass
    raise InputError(f"{file}: background_color is {color!r}; it must be three numbers from 0 to 1.")


def _existing(file: Path, where: str, name: Any) -> str:
    root = file.parent
    if not isinstance(name, str) or "\0" in name:
        raise InputError(f"{where} names {name!r}, which is no file. {_MAKE_ONE}")
    for candidate in (name, f"{name}.png"):  # instant-ngp's files may lack the ending
        if os.path.isfile(root / candidate):  # False, too, for what no file system takes as a name
            return candidate
    raise InputError(
        f"{root / name[:200]}: missing, but {where.removeprefix(str(root) + os.sep)} names it. {_MAKE_ONE}"
    )


def _picture_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.size
    except Exception as error:  # decoders raise many kinds over damaged bytes
        raise InputError(f"{path}: not a readable picture ({reason(error)}). {_MAKE_ONE}") from error
