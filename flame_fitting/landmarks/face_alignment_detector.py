"""face-alignment's 68 points (its 2D network FAN), on faces that MediaPipe finds, else its own finder S3FD.

Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?", ICCV 2017. The networks are
those of the package `face-alignment`; what is cut out of pictures and how heat maps are read is not, as the package
rounds both to whole pixels.
"""

import pickle
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.landmarks.boxed_detector import BoxedDetector
from flame_fitting.landmarks.faces import Face, FaceFinder
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.landmarks.torch_device import detector_device, detector_precision
from flame_fitting.landmarks.weights import WeightFile, find_weights, in_folder, in_short, need_weights, weight_folder

INSTALL = "pip install 'flame-fitting[face-alignment]' && pip install --no-deps face-alignment"
_SITE = "https://www.adrianbulat.com/downloads/python-fan/"
WEIGHTS = WeightFile(
    title="face-alignment",
    names=("2DFAN4-11f355bf06.pth.tar",),
    megabytes=96,
    option="--face-alignment-weights",
    url=f"{_SITE}2DFAN4-11f355bf06.pth.tar",
    sha256="11f355bf06",
)
FINDER_WEIGHTS = WeightFile(
    title="S3FD, face-alignment's face finder,",
    names=("s3fd-619a316812.pth",),
    megabytes=90,
    option="--face-alignment-weights",
    url=f"{_SITE}s3fd-619a316812.pth",
    sha256="619a316812",
)
INPUT, MAP = 256, 64
"""Side of the network's picture and of its heat maps, px."""
_BOX = 200 / 195
"""Side of the crop over the sum of the box's width and height: the package's own numbers, as `_UP`."""
_UP = 0.12
"""How far above the middle of the box the crop's is, in heights of the box."""
_AT_ONCE = 8
"""Faces in one pass of the network."""


class FaceAlignmentDetector(BoxedDetector):
    """FAN, with the mean of a picture's and its mirror image's heat maps.

    Args:
        weights: folder of the package's weights, or the network's file; None: looked for in torch's cache, too, else
            downloaded.
        device: auto, cpu, cuda or cuda:N.
        half: half precision, on a GPU.

    Raises InputError where the package is not installed, or a file is missing or not the package's.
    """

    name = "face-alignment"
    scheme = "ibug68"

    def __init__(
        self,
        weights: Path | str | None = None,
        device: str = "auto",
        half: bool = False,
        faces: FaceFinder | None = None,
    ) -> None:
        super().__init__(faces)
        self.device = detector_device(device)
        self.dtype = detector_precision(self.device, half)
        _import_package()
        new = find_network(weights) is None
        self.path = need_weights(WEIGHTS, weights, [torch_cache()])
        if new and find_finder(self.path) is None:
            need_weights(FINDER_WEIGHTS)
        self._finder_path = find_finder(self.path)

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """Hash of the weights and of what finds the faces, and the precision."""
        half = "-half" if self.dtype == torch.float16 else ""
        finder = f"-{sha256_of_file(self._finder_path)[:8]}" if self._finder_path is not None else ""
        return f"{sha256_of_file(self.path)[:16]}-{self.faces.version[:8]}{finder}{half}"

    @cached_property
    def network(self) -> torch.nn.Module:
        """FAN with its weights, in eval mode."""
        _import_package()
        from face_alignment.models import FAN

        network = FAN(4)
        load_weights(network, self.path)
        return network.to(self.device, self.dtype).eval().requires_grad_(False)

    @cached_property
    def _finder(self) -> Any:
        """S3FD; None where its weights are not there."""
        if self._finder_path is None:
            return None
        _import_package()
        from face_alignment.detection.sfd import FaceDetector

        try:
            return FaceDetector(device=str(self.device), path_to_detector=str(self._finder_path))
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._finder_path}: not the weights of S3FD ({in_short(error)}). {_AGAIN}") from error

    def face_by_itself(self, image: UInt8[ndarray, "H W 3"]) -> Face | None:
        """The largest face that S3FD sees, profiles among them; None where its weights are not there."""
        found = [] if self._finder is None else self._finder.detect_from_image(np.ascontiguousarray(image))
        if len(found) == 0:
            return None
        boxes = np.array([box[:4] for box in found], dtype=np.float64)
        return Face(boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()])

    def points_in(
        self, images: Sequence[UInt8[ndarray, "H W 3"]], faces: Sequence[Face], quick: bool
    ) -> Float[ndarray, "B N 3"]:
        """See `BoxedDetector.points_in`. A heat map's peak says how sure its point is."""
        matrices = [crop_matrix(face.box) for face in faces]
        crops = np.stack([crop(image, matrix) for image, matrix in zip(images, matrices, strict=True)])
        places, peaks = (values.cpu().numpy() for values in peaks_of(self.heat(crops, mirrored=not quick)))
        out = np.empty((len(crops), self.n_points, 3), dtype=np.float32)
        for row, matrix in enumerate(matrices):
            inverse = np.linalg.inv(matrix)
            out[row, :, :2] = places[row] * (INPUT / MAP) @ inverse[:2, :2].T + inverse[:2, 2]
        out[..., 2] = np.clip(peaks, 0, 1)
        return out

    @torch.inference_mode()
    def heat(self, crops: UInt8[ndarray, "B 256 256 3"], mirrored: bool = True) -> Float[Tensor, "B 68 64 64"]:
        """Heat maps of sRGB crops; the mean with those of the mirrored crops where asked."""
        mirror, found = torch.from_numpy(scheme_named(self.scheme).mirror), []
        for chunk in np.split(crops, range(_AT_ONCE, len(crops), _AT_ONCE)):
            images = torch.from_numpy(chunk).permute(0, 3, 1, 2).to(self.device, self.dtype) / 255
            heat = self.network(images)[-1].float()
            if mirrored:
                heat = 0.5 * (heat + self.network(images.flip(-1))[-1].float()[:, mirror].flip(-1))
            found.append(heat)
        return torch.cat(found)


def peaks_of(heat: Float[Tensor, "B N H W"]) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N"]]:
    """Places x, y of the peaks, in cells from the map's top-left corner (centres at +0.5), and their heights.

    Between cells as of a Gaussian, which the network was trained to draw: through the logarithms beside the peak.
    """
    height, width = heat.shape[-2:]
    peak, index = heat.flatten(2).max(-1)
    x, y = index % width, torch.div(index, width, rounding_mode="floor")
    logs = heat.clamp_min(1e-6).log()

    def at(dx: int, dy: int) -> Tensor:
        place = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        return logs.flatten(2).gather(-1, place[..., None])[..., 0]

    def between(before: Tensor, after: Tensor, inside: Tensor) -> Tensor:
        bend = (2 * at(0, 0) - before - after).clamp_min(1e-6)
        return torch.where(inside, (0.5 * (after - before) / bend).clamp(-0.5, 0.5), torch.zeros_like(bend))

    across = between(at(-1, 0), at(1, 0), (x > 0) & (x < width - 1))
    down = between(at(0, -1), at(0, 1), (y > 0) & (y < height - 1))
    return torch.stack([x + 0.5 + across, y + 0.5 + down], dim=-1), peak


def crop_matrix(box: Float[ndarray, "4"]) -> Float[ndarray, "3 3"]:
    """Crop-from-picture for a box of a face, both with continuous coordinates."""
    width, height = box[2:] - box[:2]
    scale = INPUT / (_BOX * (width + height))
    center = np.array([0.5 * (box[0] + box[2]), 0.5 * (box[1] + box[3]) - _UP * height])
    out = np.diag([scale, scale, 1.0])
    out[:2, 2] = 0.5 * INPUT - scale * center
    return out


def crop(image: UInt8[ndarray, "H W 3"], matrix: Float[ndarray, "3 3"]) -> UInt8[ndarray, "256 256 3"]:
    """The part of a picture that the network sees; black outside of the picture."""
    shift = np.eye(3)
    shift[:2, 2] = 0.5  # OpenCV's pixel centres lie on whole numbers
    to_crop = np.linalg.inv(shift) @ matrix @ shift
    return cv2.warpAffine(image, to_crop[:2], (INPUT, INPUT), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Loads a file into a network of the package; only tensors are read. InputError where it does not fit."""
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the weights of face-alignment ({in_short(error)}). {_AGAIN}") from error


def torch_cache() -> Path:
    """Where the package itself puts its weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_network(given: Path | str | None = None) -> Path | None:
    """FAN's weights; None where they are nowhere."""
    return find_weights(WEIGHTS, given, [torch_cache()])


def find_finder(network: Path) -> Path | None:
    """S3FD's weights: beside the network's, or where such files are looked for; None where they are not."""
    places = (network.parent, weight_folder(), torch_cache())
    return next((found for folder in places if (found := in_folder(folder, FINDER_WEIGHTS)) is not None), None)


def _import_package() -> None:
    try:
        import face_alignment.models  # noqa: F401
    except (ImportError, OSError) as error:
        raise InputError(
            f"face-alignment cannot be loaded ({error}). Install it with: {INSTALL}. "
            "The detector that works now is mediapipe."
        ) from error


_AGAIN = f"Give the folder of the package's own files with {WEIGHTS.option}; if they were downloaded here, delete them."
