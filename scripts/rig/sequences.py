"""A clip's pictures as files: videos, extracted pictures and alpha maps of every camera, in VHAP's layouts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.pictures import to_uint8
from flame_fitting.video.encoding import VideoWriter

from .cameras import RigCamera
from .colours import Picture

CALIBRATION_SCALE = 2
"""Size of the calibration's pictures to that of the largest pictures."""


@dataclass(frozen=True)
class Kinds:
    """What is written of a clip."""

    videos: bool = True
    images: bool = True
    alpha_maps: bool = True


class SequenceWriter:
    """The pictures of one sequence."""

    def __init__(
        self,
        folder: Path,
        videos: dict[str, Path],
        cameras: list[RigCamera],
        recorded: list[Callable[[Picture], Picture]],
        fps: float,
        kinds: Kinds,
    ) -> None:
        self.folder, self.cameras, self.recorded, self.kinds = folder, cameras, recorded, kinds
        self._videos = {
            camera.name: VideoWriter(videos[camera.name], camera.width, camera.height, fps, crf=8, threads=1)
            for camera in cameras
            if kinds.videos
        }
        for name, wanted in (("images", kinds.images), ("alpha_maps", kinds.alpha_maps)):
            if wanted:
                (folder / name).mkdir(parents=True, exist_ok=True)

    def add(self, timestep: int, index: int, picture: Picture, alpha: Float[ndarray, "H W"]) -> None:
        """One camera's picture in true colours, and its alpha map; timesteps come in order."""
        from PIL import Image

        camera = self.cameras[index]
        seen = to_uint8(np.clip(self.recorded[index](picture), 0, 1))
        stem = picture_name(camera.name, timestep)
        if self.kinds.images:
            save_jpeg(self.folder / "images" / f"{stem}.jpg", seen)
        if self.kinds.alpha_maps:
            Image.fromarray(to_uint8(alpha)).save(self.folder / "alpha_maps" / f"{stem}.png")
        if camera.name in self._videos:
            self._videos[camera.name].add(seen)

    def close(self) -> None:
        """Finishes the videos."""
        for video in self._videos.values():
            video.close()


def picture_name(camera: str, timestep: int) -> str:
    """Stem of a picture's file; one camera has no name."""
    return f"cam_{camera}_{timestep:06d}" if camera else f"{timestep:06d}"


def save_jpeg(path: Path, picture: ndarray) -> None:
    """(H, W, 3) uint8, with little loss."""
    from PIL import Image

    Image.fromarray(picture).save(path, quality=98, subsampling=0)


def write_plates(folder: Path, cameras: list[RigCamera], plates: list[Picture]) -> None:
    """Pictures without the person, as the cameras record them."""
    folder.mkdir(parents=True, exist_ok=True)
    for camera, plate in zip(cameras, plates, strict=True):
        save_jpeg(folder / f"image_{camera.name}.jpg", to_uint8(np.clip(plate, 0, 1)))


def write_camera_params(path: Path, cameras: list[RigCamera]) -> None:
    """NeRSemble's camera_params.json: one K for all cameras, at the size of the calibration's pictures."""
    largest = max(cameras, key=lambda camera: camera.height)
    calibrated = largest.scaled(CALIBRATION_SCALE)
    content = {
        "world_2_cam": {camera.name: camera.world_to_camera.tolist() for camera in cameras},
        "intrinsics": calibrated.K.tolist(),
        "height": calibrated.height,
        "width": calibrated.width,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_landmarks(path: Path, points: Float[ndarray, "T 68 2"], found: ndarray, width: int, height: int) -> None:
    """VHAP's landmark file: 0..1 and a confidence of 1, -1 where no face was found."""
    size = np.array([width, height])
    landmarks = np.full((*points.shape[:2], 3), -1.0)
    landmarks[found, :, :2] = points[found] / size
    landmarks[found, :, 2] = 1.0
    boxes = np.full((len(points), 5), -1.0)
    low, high = points.min(1) / size, points.max(1) / size
    boxes[found] = np.concatenate([low, high, np.ones((len(points), 1))], axis=1)[found]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, bounding_box=boxes.astype(np.float32), face_landmark_2d=landmarks.astype(np.float32))
