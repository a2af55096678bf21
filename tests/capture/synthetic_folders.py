"""Small folders of other programs' kinds, with cameras and pictures that are known.

The picture of a pinhole camera is a smooth gradient of the direction of its rays in the world, so that it can be
computed for any camera, lens and size.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flame_fitting.capture.camera import look_at
from flame_fitting.capture.lens import Lens, distort

Array = np.ndarray


def rig(count: int = 3, place: float = 1.0) -> list[Array]:
    """world_to_camera of cameras around the origin, at several heights, looking near it."""
    angles = np.linspace(-0.6, 0.6, count)
    return [
        look_at(
            [place * np.sin(a), 0.15 * place * (-1) ** i, place * np.cos(a)],
            [0.02 * place * i, 0.01 * place, 0.0],
            [0.05, 1.0, 0.0],
        )
        for i, a in enumerate(angles)
    ]


def gradient(K: Array, world_to_camera: Array, width: int, height: int, moment: int = 0) -> Array:
    """(H, W, 3) sRGB 0..1: what a pinhole camera sees of an infinitely far wall of colours."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    local = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1)
    return colors_of(local, world_to_camera, moment)


def distorted_gradient(lens: Lens, world_to_camera: Array, width: int, height: int) -> Array:
    """What the distorted camera of a lens sees, found by inverting its distortion ray by ray."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    wanted = (np.stack([x, y], axis=-1).reshape(-1, 2) - lens.center) / np.array(lens.focal)
    found = wanted.copy()
    for _ in range(60):
        found = found + (wanted - distort(found, lens))
    local = np.concatenate([found, np.ones((len(found), 1))], axis=1).reshape(height, width, 3)
    return colors_of(local, world_to_camera)


def colors_of(local: Array, world_to_camera: Array, moment: int = 0) -> Array:
    """Colours of rays (..., 3) of a camera's own frame."""
    rays = local @ world_to_camera[:3, :3]
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    return 0.5 + 0.4 * np.sin(np.array([5.0, 4.0, 6.0]) * rays + np.array([0.0, 1.0, 2.0]) + 0.3 * moment)


def write_picture(path: Path, picture: Array) -> None:
    """Writes sRGB or grey 0..1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 98, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(path, **options)


def disc(width: int, height: int) -> Array:
    """(H, W) alpha: a disc with a soft edge."""
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    return np.clip(0.5 + 0.3 * min(width, height) - np.hypot(x, y), 0, 1)


def psnr(a: Array, b: Array) -> float:
    """dB between pictures 0..1."""
    return float(-10 * np.log10(np.mean((np.asarray(a, np.float64) - b) ** 2)))


def nersemble(
    top: Path,
    version: int,
    cameras: dict[str, tuple[Array, Array, tuple[int, int]]],
    steps: int = 2,
    calibration: dict[str, Any] | None = None,
    suffix: str = ".jpg",
) -> Path:
    """A recording of NeRSemble; `cameras` gives K (of its pictures), world_to_camera and (width, height) by name.

    `calibration` overrides entries of camera_params.json (None: leaves them out); by default K is given per camera, for
    the pictures' own sizes.
    """
    subject = top / "074"
    root = subject / "EMO-1" if version == 1 else subject / "sequences" / "EMO-1"
    for name, (K, world_to_camera, (width, height)) in cameras.items():
        for step in range(steps):
            picture = gradient(K, world_to_camera, width, height, step)
            write_picture(root / "images" / f"cam_{name}_{step:06d}{suffix}", picture)
            write_picture(root / "alpha_maps" / f"cam_{name}_{step:06d}.png", disc(width, height))
    content: dict[str, Any] = {
        "world_2_cam": {name: camera[1].tolist() for name, camera in cameras.items()},
        "intrinsics": {name: camera[0].tolist() for name, camera in cameras.items()},
        "width": {name: camera[2][0] for name, camera in cameras.items()},
        "height": {name: camera[2][1] for name, camera in cameras.items()},
    } | (calibration or {})
    folder = top / "camera_params" / "074" if version == 1 else subject / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / "camera_params.json").write_text(json.dumps(kept))
    return root


def monocular(root: Path, steps: int = 5, size: tuple[int, int] = (48, 32), suffix: str = ".jpg") -> Path:
    """A video's folder: frame t is grey 0.1 + 0.1 t, with an alpha map."""
    width, height = size
    for step in range(steps):
        write_picture(root / "images" / f"{step:06d}.jpg", np.full((height, width, 3), 0.1 + 0.1 * step))
        write_picture(root / "alpha_maps" / f"{step:06d}{suffix}", disc(width, height))
    return root
