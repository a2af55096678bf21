"""Writes the folder of a capture: `transforms.json`, `images/`, `alpha_maps/`, `geometry/`, `avatar.json`.

`layouts/transforms.py` reads it.

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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import opengl_camera_to_world
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.dense import checked_map
from flame_fitting.capture.pictures import picture_as_uint8, to_uint8, write_png
from flame_fitting.capture.roles import Role
from flame_fitting.folders import staged_folder
from flame_fitting.manifest import Manifest

TRANSFORMS_NAME = "transforms.json"
AVATAR_NAME = "avatar.json"
INTRINSIC_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


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
        self.ordered = True
        """Whether timesteps follow each other in time."""
        self.manifest: Manifest | None = None
        """Written into the folder, marked finished, when it is set before the block ends."""
        self.views: list[View] = []
        self._force = force
        self._stack = ExitStack()
        self._pending: list[Future[None]] = []

    def __enter__(self) -> "CaptureWriter":
        with ExitStack() as stack:
            staged = staged_folder(self.root, self._force, stale=("landmarks2d", "geometry", "dense", AVATAR_NAME))
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
        transforms = transforms_of(self.views, self.background_color, self.shading, self.ordered)
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
        noise: ArrayLike | None = None,
        dense: Mapping[str, ArrayLike] | None = None,
        timestep_id: str = "",
    ) -> View:
        """Queues one view for writing.

        `image` is (3, H, W) float sRGB 0..1 or (H, W, 3) uint8, `alpha` (H, W) float 0..1 or uint8, `depth` (H, W)
        along the camera's z in world units with 0 outside, `normal` (H, W, 3) in the world, `noise` (H, W) the
        surface's standard deviation in world units (None: exact); `dense`: `capture.dense`. `timestep_id`
        names the timestep.
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
            dense_path=None if dense is None else f"dense/{key}.npz",
            timestep_id=timestep_id,
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
            if noise is not None:
                arrays["noise"] = np.array(noise, dtype=np.float32)
            self._queue(write_npz, view.geometry_path, arrays)
        if dense is not None and view.dense_path is not None:
            maps = {name: checked_map(name, np.array(array)) for name, array in dense.items()}
            self._queue(write_npz, view.dense_path, maps)
        return view

    @property
    def capture(self) -> Capture:
        """The written capture; valid after the `with` block."""
        avatar = self.avatar or AvatarRecord()
        return Capture(self.root, self.views, self.background_color, self.shading, avatar, ordered=self.ordered)

    def _queue(self, write: Any, name: str, content: Any) -> None:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        self._pending.append(self._pool.submit(write, path, content))
        if len(self._pending) > 24:  # bounds the memory held by waiting pictures, and shows a full disk early
            self._pending.pop(0).result()


def transforms_of(
    views: list[View], background_color: Iterable[float], shading: str, ordered: bool = True
) -> dict[str, Any]:
    """The content of transforms.json; timesteps are `ordered` in time, or moments of one person."""
    frames = [_frame_of(view) for view in views]
    data: dict[str, Any] = {"camera_model": "PINHOLE"}
    for key in INTRINSIC_KEYS:
        if frames and all(frame[key] == frames[0][key] for frame in frames):
            data[key] = frames[0][key]
    if not all(key in data for key in INTRINSIC_KEYS):
        data = {key: value for key, value in data.items() if key not in INTRINSIC_KEYS}
    data["background_color"] = list(background_color)
    data["shading"] = shading
    if not ordered:
        data["time_order"] = False
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
    if view.timestep_id != f"{view.timestep:05d}":
        frame["timestep_id"] = view.timestep_id
    if view.camera_id != f"{view.camera:02d}":
        frame["camera_id"] = view.camera_id
    if view.mask_path is not None:
        # not nerfstudio's mask_path: what that leaves out is never trained, and floaters grow there
        frame["fg_mask_path"] = view.mask_path
    if view.geometry_path is not None:
        frame["geometry_path"] = view.geometry_path
    if view.dense_path is not None:
        frame["dense_path"] = view.dense_path
    return frame
