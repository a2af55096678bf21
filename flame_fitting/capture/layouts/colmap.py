"""COLMAP's sparse models, text and binary: https://colmap.github.io/format.html.

Poses are world to camera with OpenCV axes, pixel centres at +0.5, as here; the world has no unit. Of a model only
cameras and poses are read.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flame_fitting.capture.camera import scaled_intrinsics
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.layouts.folder import ALPHA_MAPS, IMAGES, picture_size, pictures_in
from flame_fitting.capture.layouts.lens_models import camera_of_model
from flame_fitting.capture.making import PictureMaking
from flame_fitting.errors import InputError
from flame_fitting.files import reason

_AGAIN = "Export the model again from COLMAP."
_MODELS: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
"""Names and numbers of parameters of the models in binary files."""


@dataclass(frozen=True)
class _Camera:
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    name: str
    camera: int
    quaternion: tuple[float, ...]
    """w, x, y, z."""
    translation: tuple[float, ...]


def find_model(root: Path) -> Path | None:
    """The folder of the model that belongs to a folder of pictures; None where there is none."""
    for place in (root, root / "sparse" / "0", root / "sparse", root / "colmap" / "sparse" / "0"):
        for suffix in (".bin", ".txt"):
            if (place / f"cameras{suffix}").is_file() and (place / f"images{suffix}").is_file():
                return place
    return None


def read_colmap(root: Path) -> Capture:
    """All registered pictures of a model, as cameras of one moment in the order of their names."""
    model = find_model(root)
    if model is None:
        raise InputError(f"{root}: has no cameras.bin or cameras.txt of COLMAP. {_AGAIN}")
    suffix = ".bin" if (model / "cameras.bin").is_file() and (model / "images.bin").is_file() else ".txt"
    files = (model / f"cameras{suffix}", model / f"images{suffix}")
    read = (_binary_cameras, _binary_images) if suffix == ".bin" else (_text_cameras, _text_images)
    cameras: dict[int, _Camera] = dict(_read(files[0], read[0]))
    images: list[_Image] = sorted(_read(files[1], read[1]), key=lambda image: image.name)
    if not images:
        raise InputError(f"{files[1]}: has no pictures. {_AGAIN}")
    pictures = _picture_folder(root, model, images)
    masks = pictures_in(root / ALPHA_MAPS)
    known: dict[int, tuple[NDArray[np.float64], PictureMaking]] = {}
    views = []
    for number, image in enumerate(images):
        if not os.path.isfile(root / pictures / image.name):
            raise InputError(f"{root / pictures / image.name}: missing, but {files[1]} names it. {_AGAIN}")
        if image.camera not in cameras:
            raise InputError(f"{files[0]}: lacks the camera {image.camera}, which {files[1]} names. {_AGAIN}")
        if image.camera not in known:
            camera, where = cameras[image.camera], f"{files[0]}: camera {image.camera}"
            known[image.camera] = _made(camera, where, picture_size(root / pictures / image.name, _AGAIN))
        K, making = known[image.camera]
        stem = os.path.splitext(os.path.basename(image.name))[0]
        views.append(
            View(
                timestep=0,
                camera=number,
                role="fit",
                K=K,
                world_to_camera=_pose(image, files[1]),
                width=making.full[0],
                height=making.full[1],
                file_path=os.path.join(pictures, image.name),
                mask_path=f"{ALPHA_MAPS}/{masks[stem]}" if stem in masks else None,
                camera_id=os.path.splitext(image.name)[0],
                making=making,
            )
        )
    notes = (f"{model}: a world of COLMAP has no unit; its scale is that of no metre",)
    return Capture(root=root, views=views, kind="colmap", composited=False, notes=notes, sources=files)


def _made(camera: _Camera, where: str, size: tuple[int, int]) -> tuple[NDArray[np.float64], PictureMaking]:
    """K for pictures of this size (width, height), and how they are made."""
    if camera.width <= 0 or camera.height <= 0:
        raise InputError(f"{where} has no size. {_AGAIN}")
    if abs(camera.width * size[1] - camera.height * size[0]) > 0.01 * camera.width * size[1]:
        raise InputError(
            f"{where} is for pictures of {camera.width} x {camera.height}, they are {size[0]} x {size[1]}, which is "
            "another shape. Give the pictures that the model was made of."
        )
    K, lens = camera_of_model(camera.model, camera.parameters, camera.width, camera.height, where)
    K = scaled_intrinsics(K, (camera.height, camera.width), size[::-1])
    return K, PictureMaking(stored=size, full=size, lens=lens)


def _pose(image: _Image, path: Path) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    w, x, y, z = image.quaternion
    values = np.array([w, x, y, z, *image.translation])
    if not np.isfinite(values).all() or np.linalg.norm(values[:4]) < 1e-9:
        raise InputError(f"{path}: the pose of {image.name} is no rotation and translation. {_AGAIN}")
    out = np.eye(4)
    out[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    out[:3, 3] = image.translation
    return out


def _picture_folder(root: Path, model: Path, images: list[_Image]) -> str:
    """Where the model's pictures lie, relative to `root`."""
    for place in (root / IMAGES, model / IMAGES, model.parent / IMAGES, model.parent.parent / IMAGES, root):
        if (place / images[0].name).is_file():
            return os.path.relpath(place, root)
    raise InputError(
        f"{root / IMAGES / images[0].name}: missing, but the model {model} names it. Put the pictures into {IMAGES}/."
    )


def _read(path: Path, read: Callable[[Path], Iterator]) -> list:
    try:
        return list(read(path))
    except InputError:
        raise
    except (OSError, ValueError, struct.error, IndexError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: not a readable file of COLMAP ({reason(error)}). {_AGAIN}") from error


def _text_lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        yield from (line.strip() for line in file if not line.startswith("#"))


def _text_cameras(path: Path) -> Iterator[tuple[int, _Camera]]:
    for line in _text_lines(path):
        if line:
            number, model, width, height, *parameters = line.split()
            yield int(number), _Camera(model, int(width), int(height), tuple(float(value) for value in parameters))


def _text_images(path: Path) -> Iterator[_Image]:
    lines = _text_lines(path)
    for line in lines:
        if line:
            _, *pose, camera, name = line.split(maxsplit=9)
            values = [float(value) for value in pose]
            yield _Image(name, int(camera), tuple(values[:4]), tuple(values[4:7]))
            next(lines, None)  # its points, maybe none


class _Bytes:
    """Little-endian numbers of a file one after the other."""

    def __init__(self, path: Path) -> None:
        self._data, self._place = path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        found = struct.unpack_from("<" + layout, self._data, self._place)
        self._place += struct.calcsize("<" + layout)
        return found

    def text(self) -> str:
        end = self._data.index(b"\0", self._place)
        found = self._data[self._place : end].decode("utf-8")
        self._place = end + 1
        return found

    def skip(self, count: int) -> None:
        self._place += count
        if self._place > len(self._data):
            raise ValueError("it is cut short")


def _binary_cameras(path: Path) -> Iterator[tuple[int, _Camera]]:
    data = _Bytes(path)
    (count,) = data.take("Q")
    for _ in range(count):
        number, model, width, height = data.take("iiQQ")
        if model not in _MODELS:
            raise InputError(f"{path}: camera {number} has the model number {model}, which is not known here.")
        name, parameters = _MODELS[model]
        yield number, _Camera(name, width, height, data.take(f"{parameters}d"))


def _binary_images(path: Path) -> Iterator[_Image]:
    data = _Bytes(path)
    (count,) = data.take("Q")
    for _ in range(count):
        _, *pose, camera = data.take("i7di")
        name = data.text()
        (points,) = data.take("Q")
        data.skip(24 * points)
        yield _Image(name, camera, tuple(pose[:4]), tuple(pose[4:]))
