"""COLMAP's sparse models, binary, as https://colmap.github.io/format.html has them.

Pixel coordinates are continuous with the centre of the top-left pixel at (0.5, 0.5), as in the rest of this program.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.capture.capture import View
from flame_fitting.export.surface_points import SurfacePoints

_PINHOLE = 1
"""COLMAP's number for the model with fx, fy, cx, cy."""


@dataclass(eq=False)
class ModelImage:
    """A picture of a model: the points that it sees, and where."""

    name: str
    view: View
    """Its camera in the model's world."""
    seen: Int[ndarray, " S"]
    """Which of the model's points."""
    at: Float[ndarray, "S 2"]
    """px."""


def write_model(folder: Path, images: Sequence[ModelImage], points: SurfacePoints) -> None:
    """Writes cameras.bin, images.bin and points3D.bin; views of the same intrinsics share a camera.

    Pictures and points are numbered from 1 in their order.
    """
    numbers: dict[tuple[float, ...], int] = {}
    of_image = []
    for image in images:
        K, view = image.view.K, image.view
        key = (view.width, view.height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        of_image.append(numbers.setdefault(key, len(numbers) + 1))
    cameras = [struct.pack("<Q", len(numbers))]
    for (width, height, *parameters), number in numbers.items():
        cameras.append(struct.pack("<iiQQ4d", number, _PINHOLE, int(width), int(height), *parameters))
    (folder / "cameras.bin").write_bytes(b"".join(cameras))
    (folder / "images.bin").write_bytes(_images(images, of_image))
    (folder / "points3D.bin").write_bytes(_points(images, points))


def _images(images: Sequence[ModelImage], cameras: Sequence[int]) -> bytes:
    from scipy.spatial.transform import Rotation

    parts = [struct.pack("<Q", len(images))]
    for number, (image, camera) in enumerate(zip(images, cameras, strict=True), start=1):
        matrix = image.view.world_to_camera
        x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat(canonical=True)
        parts.append(struct.pack("<i7di", number, w, x, y, z, *matrix[:3, 3], camera))
        parts.append(image.name.encode("utf-8") + b"\0")
        marks = np.zeros(len(image.seen), dtype=[("at", "<f8", 2), ("point", "<i8")])
        marks["at"], marks["point"] = image.at, image.seen + 1
        parts += [struct.pack("<Q", len(marks)), marks.tobytes()]
    return b"".join(parts)


def _points(images: Sequence[ModelImage], points: SurfacePoints) -> bytes:
    seen = np.concatenate([image.seen for image in images])
    track = np.zeros(len(seen), dtype=[("image", "<i4"), ("mark", "<i4")])
    track["image"] = np.repeat(np.arange(len(images)) + 1, [len(image.seen) for image in images])
    track["mark"] = np.concatenate([np.arange(len(image.seen)) for image in images])
    track = track[np.argsort(seen, kind="stable")]
    ends = np.cumsum(np.bincount(seen, minlength=len(points.xyz)))
    parts, start = [struct.pack("<Q", len(points.xyz))], 0
    for number, (xyz, rgb, end) in enumerate(zip(points.xyz, points.rgb, ends, strict=True), start=1):
        # the error is that of reprojection: points lie where they are seen
        parts.append(struct.pack("<Q3d3BdQ", number, *xyz, *rgb, 0.0, end - start))
        parts.append(track[start:end].tobytes())
        start = end
    return b"".join(parts)
