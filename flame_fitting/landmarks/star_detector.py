"""STAR: 68 points (its authors' 300W checkpoint) or 98 (WFLW), in torch, on faces that MediaPipe finds."""

import pickle
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import reason, sha256_of_file
from flame_fitting.landmarks.boxed_detector import BoxedDetector
from flame_fitting.landmarks.faces import Face, FaceFinder, agreement
from flame_fitting.landmarks.star_network import INPUT, StarNetwork, decode, points_of_state_dict
from flame_fitting.landmarks.star_weights import WEIGHTS
from flame_fitting.landmarks.torch_device import detector_device, detector_precision
from flame_fitting.landmarks.weights import in_short, need_weights

_BOX = 1.05
"""Side of the crop over the smaller side of the box of the 68 points."""
_NARROWEST = 0.9
"""Boxes narrower than this part of their longer side, of profiles, count as that: else brow and chin were cut off."""
_SCHEMES = {68: "ibug68", 98: "wflw98"}
_AGAIN = (
    f"Give the file {WEIGHTS.names[0]} of STAR's authors with {WEIGHTS.option}; if it was downloaded here, delete it."
)
_AT_ONCE = 8
"""Faces in one pass of the network."""


class StarDetector(BoxedDetector):
    """Points of STAR's network.

    Args:
        weights: the checkpoint, or a folder with it; None: looked for, else downloaded. Shapes say which it is.
        device: auto, cpu, cuda or cuda:N.
        half: half precision, on a GPU.

    Raises InputError where the file is missing, or is no checkpoint of STAR.
    """

    name = "star"

    def __init__(
        self,
        weights: Path | str | None = None,
        device: str = "auto",
        half: bool = False,
        faces: FaceFinder | None = None,
    ) -> None:
        super().__init__(faces)
        self.path = need_weights(WEIGHTS, weights)
        self.device = detector_device(device)
        self.dtype = detector_precision(self.device, half)

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """Hash of the weights and of what finds the faces, and the precision."""
        half = "-half" if self.dtype == torch.float16 else ""
        return f"{sha256_of_file(self.path)[:16]}-{self.faces.version[:8]}{half}"

    @property
    def scheme(self) -> str:  # type: ignore[override]
        """ibug68 or wflw98, as the checkpoint has it."""
        return _SCHEMES[self.network.n_points]

    @cached_property
    def network(self) -> StarNetwork:
        """The network with its weights."""
        return load_network(self.path).to(self.device, self.dtype)

    def points_in(
        self, images: Sequence[UInt8[ndarray, "H W 3"]], faces: Sequence[Face], quick: bool
    ) -> Float[ndarray, "B N 3"]:
        """See `BoxedDetector.points_in`. Where the last two stacks disagree, little is sure."""
        matrices = [crop_matrix(face.box) for face in faces]
        crops = np.stack([crop(image, matrix) for image, matrix in zip(images, matrices, strict=True)])
        stacks = self.run(crops)
        out = np.empty((len(crops), self.n_points, 3), dtype=np.float32)
        for row, matrix in enumerate(matrices):
            before, last = (to_picture(points[row], matrix) for points in stacks)
            out[row, :, :2] = last
            out[row, :, 2] = agreement(np.linalg.norm(last - before, axis=1), float(faces[row].size.max()))
        return out

    @torch.inference_mode()
    def run(self, crops: UInt8[ndarray, "B 256 256 3"]) -> Float[ndarray, "2 B N 2"]:
        """Points in -1..1 of sRGB crops, of the last stack but one and of the last one, which is the answer."""
        found = []
        for chunk in np.split(crops, range(_AT_ONCE, len(crops), _AT_ONCE)):
            images = network_input(chunk).to(self.device, self.dtype)
            maps = self.network.maps(images)[-2:]
            found.append(torch.stack([decode(one.float()) for one in maps]).cpu().numpy())
        return np.concatenate(found, axis=1)


def load_network(path: Path) -> StarNetwork:
    """The network of a checkpoint, in eval mode; only tensors are read, no code in the file runs.

    Takes files with the state dict under `net`, and bare state dicts.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as weights ({reason(error)}). {_AGAIN}") from error
    try:
        state = _state_dict(content)
        network = StarNetwork(points_of_state_dict(state))
        network.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is no checkpoint of STAR ({in_short(error)}). {_AGAIN}") from error
    return network.eval().requires_grad_(False)


def network_input(crops: UInt8[ndarray, "B H W 3"]) -> torch.Tensor:
    """sRGB crops as the network takes them: (B, 3, H, W) in -1..1, the channels blue, green, red."""
    return torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def crop_matrix(box: Float[ndarray, "4"]) -> Float[ndarray, "3 3"]:
    """Crop-from-picture for the box of a face's 68 points, both with pixel centres on whole numbers.

    The box is continuous, as everywhere here. float32, rounded where the reference rounds.
    """
    left, top, right, bottom = box - 0.5
    sides = right - left, bottom - top
    scale = INPUT / (_BOX * max(min(sides), _NARROWEST * max(sides)))
    center = 0.5 * np.array([left + right, top + bottom])
    out = np.diag([scale, scale, 1.0])
    out[:2, 2] = 0.5 * (INPUT - 1) - scale * center
    return out.astype(np.float32)


def crop(image: UInt8[ndarray, "H W 3"], matrix: Float[ndarray, "3 3"]) -> UInt8[ndarray, "256 256 3"]:
    """The part of a picture that the network sees; black outside of the picture."""
    return cv2.warpPerspective(image, matrix, (INPUT, INPUT), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))


def to_picture(points: Float[ndarray, "N 2"], matrix: Float[ndarray, "3 3"]) -> Float[ndarray, "N 2"]:
    """The network's points (-1..1) in the picture, px, continuous: pixel centres at +0.5."""
    pixels = ((points.astype(np.float64) + 1) * INPUT - 1) / 2
    inverse = np.linalg.inv(matrix.astype(np.float64))
    return pixels @ inverse[:2, :2].T + inverse[:2, 2] + 0.5


def _state_dict(content: Any) -> Mapping[str, torch.Tensor]:
    inside = content.get("net", content) if isinstance(content, Mapping) else content
    if not isinstance(inside, Mapping):
        raise ValueError("it holds no state dict")
    return {str(name).removeprefix("module."): value for name, value in inside.items()}
