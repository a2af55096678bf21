"""RobustVideoMatting and BackgroundMattingV2, from the TorchScript files that their authors publish.

Lin et al., "Robust High-Resolution Video Matting with Temporal Guidance", 2021; Lin et al., "Real-Time High-Resolution
Background Matting", 2020. Arguments and results are those of their documentation. On a GPU they run in half precision
where the file can.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.files import read_picture, reason, sha256_of_file
from flame_fitting.log import get_logger
from flame_fitting.video.matting import Matting, Tagged
from flame_fitting.video.weights import BACKGROUND_WEIGHTS, ROBUST_WEIGHTS, PublishedWeights, find_weights

WARM_UP = 10
"""How often the first frame is seen before it counts, as VHAP does."""
_INNER_SIDE = 512
"""Longest side at which RobustVideoMatting looks at the whole picture: its authors advise 256 to 512 px."""
_LARGE = 2048
"""BackgroundMattingV2: pictures with a longer side count as 4K."""
_MULTIPLE = 4
"""BackgroundMattingV2 takes only sizes that are multiples of this."""
_PROBE = (64, 96)


class _TorchScript(Matting):
    """What the two have in common: the network, its device and precision."""

    def __init__(self, given: Path | None, published: PublishedWeights, device: str) -> None:
        path = find_weights(given, published)
        self.device = _device(device)
        self._path, self._title, self._url = path, published.title, published.url
        self.model: Any = None
        self.dtype = torch.float32

    def _load(self, try_out: Callable[[], Tensor]) -> None:
        """Loads the network, in half precision on a GPU where a picture comes through it that way."""
        for dtype in (torch.float16, torch.float32) if self.device.type == "cuda" else (torch.float32,):
            try:
                model = torch.jit.load(str(self._path), map_location=self.device).eval()
            except Exception as error:  # PyTorch raises RuntimeError, ValueError and others over foreign files
                raise InputError(
                    f"{self._path}: not a TorchScript file ({reason(error)}). Give that of {self._title}: {self._url}"
                ) from error
            self.model, self.dtype = model.to(dtype), dtype
            try:
                with torch.inference_mode():
                    if bool(torch.isfinite(try_out()).all()):
                        break
                    failure = "its alpha is not finite"
            except Exception as error:
                failure = reason(error)
            if dtype == torch.float32:
                raise InputError(f"{self._path}: not the network of {self._title} ({failure}). It is at {self._url}")
            get_logger(__name__).info("%s: single precision, half failed: %s", self._path, failure)
        self.identity = f"{type(self).__name__} {sha256_of_file(self._path)[:16]} {self.dtype}"

    def _tensor(self, picture: UInt8[ndarray, "H W 3"]) -> Float[Tensor, "1 3 H W"]:
        pixels = torch.from_numpy(picture).to(self.device)
        return pixels.permute(2, 0, 1)[None].to(self.dtype) / 255.0

    def _random(self) -> Float[Tensor, "1 3 h w"]:
        generator = torch.Generator().manual_seed(0)
        return torch.rand((1, 3, *_PROBE), generator=generator).to(self.device, self.dtype)

    def close(self) -> None:
        """See `Matting.close`."""
        self.model = None


class RobustVideoMatting(_TorchScript):
    """A recurrent network: it remembers the frames before. Nothing of one clip goes into the next."""

    lookback = None

    def __init__(self, weights: Path | None = None, device: str = "auto") -> None:
        """`weights`: TorchScript file; None: the published one. Raises InputError."""
        super().__init__(weights, ROBUST_WEIGHTS, device)
        self._state: list[Tensor | None] = [None] * 4
        self._load(lambda: self._alpha(self._random(), 1.0))
        self.begin(None)

    def begin(self, camera_id: str | None) -> None:
        """See `Matting.begin`."""
        self._state = [None] * 4

    def push(self, tag: Any, picture: UInt8[ndarray, "H W 3"]) -> list[Tagged]:
        """See `Matting.push`."""
        ratio = downsample_ratio(*picture.shape[:2])
        with torch.inference_mode():
            pixels = self._tensor(picture)
            if self._state[0] is None:
                for _ in range(WARM_UP):
                    self._alpha(pixels, ratio)
            return [(tag, _as_bytes(self._alpha(pixels, ratio)))]

    def _alpha(self, pixels: Float[Tensor, "1 3 H W"], ratio: float) -> Float[Tensor, "1 1 H W"]:
        _, alpha, *self._state = self.model(pixels, *self._state, ratio)
        return alpha


class BackgroundMatting(_TorchScript):
    """Compares every frame with a picture of the empty background."""

    def __init__(self, plates: dict[str | None, Path], weights: Path | None = None, device: str = "auto") -> None:
        """`plates`: the background of every camera; `weights`: TorchScript file; None: the published one."""
        super().__init__(weights, BACKGROUND_WEIGHTS, device)
        self.plates = plates
        self._plate: UInt8[ndarray, "H W 3"] | None = None
        self._background: Tensor | None = None
        self._load(lambda: self._alpha(self._random(), self._random()))
        marks = [sha256_of_file(path)[:8] for _, path in sorted(plates.items(), key=lambda item: str(item[0]))]
        self.identity += " " + " ".join(marks)

    def begin(self, camera_id: str | None) -> None:
        """See `Matting.begin`."""
        path = self.plates[camera_id]
        self._plate = read_picture(path, "RGB", "It must be a picture of the empty background.")
        self._background = None

    def push(self, tag: Any, picture: UInt8[ndarray, "H W 3"]) -> list[Tagged]:
        """See `Matting.push`."""
        with torch.inference_mode():
            if self._background is None:
                assert self._plate is not None, "begin comes first"
                self._background = self._tensor(resized(self._plate, *picture.shape[:2]))
            return [(tag, _as_bytes(self._alpha(self._tensor(picture), self._background)))]

    def _alpha(
        self, pixels: Float[Tensor, "1 3 H W"], background: Float[Tensor, "1 3 H W"]
    ) -> Float[Tensor, "1 1 H W"]:
        height, width = pixels.shape[-2:]
        # VHAP's settings; for 4K the scale that the authors advise
        self.model.backbone_scale = 0.25 if max(height, width) <= _LARGE else 0.125
        self.model.refine_mode = "thresholding"
        self.model.refine_threshold = 0.01
        padding = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        inputs = [torch.nn.functional.pad(p, padding, mode="replicate") for p in (pixels, background)]
        alpha: Tensor = self.model(*inputs)[0]
        return alpha[..., :height, :width]


def downsample_ratio(height: int, width: int) -> float:
    """RobustVideoMatting's `downsample_ratio`: the longer side becomes 512 px at most, as its own converter does."""
    return min(1.0, _INNER_SIDE / max(height, width))


def resized(picture: UInt8[ndarray, "h w 3"], height: int, width: int) -> UInt8[ndarray, "H W 3"]:
    """The picture at that size; a smaller one is filtered over areas."""
    if picture.shape[:2] == (height, width):
        return picture
    smaller = height * width < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _as_bytes(alpha: Float[Tensor, "1 1 H W"]) -> UInt8[ndarray, "H W"]:
    return (alpha[0, 0].float().clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).cpu().numpy()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: must be auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise InputError(f"--device {name}: PyTorch finds no such GPU. Use --device cpu.")
    return device
