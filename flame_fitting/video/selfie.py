"""`selfie`: MediaPipe's person segmenter, its border refined by closed-form matting, steadied over time.

The segmenter sees 256x256 pixels. Where it is unsure, and some pixels around, alpha is solved for from the picture's
own colours (Levin et al., "A Closed-Form Solution to Natural Image Matting", 2008; pymatting's), at 640 px at most.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from flame_fitting import assets, progress
from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.log import get_logger, quiet_native_stderr
from flame_fitting.video.matting import Matting, Tagged
from flame_fitting.video.steadying import RADIUS, Moment, steadied

MODEL_FILE = "selfie_segmentation.tflite"
_NETWORK_SIDE = 256


@dataclass(frozen=True)
class RefineConfig:
    """How the segmenter's border becomes an alpha map."""

    longest_side: int = 640
    """Alpha is solved for in a picture of this size at most, px."""
    background_below: float = 0.1
    person_above: float = 0.9
    """The segmenter is sure below and above these."""
    margin: float = 0.01
    """Pixels this near to where it is unsure are solved for too; of the longest side."""
    least_part: float = 0.03
    """Parts smaller than this, of the largest one, are taken for something in the background."""
    most_unknown: float = 0.5
    """Where more of the picture is unsure, the segmenter has not understood it: its own answer stays."""
    epsilon: float = 1e-5
    """Regularisation of colour lines, of squared colours in 0..1."""
    iterations: int = 400
    tolerance: float = 1e-4
    """Of the conjugate gradients."""


class SelfieMatting(Matting):
    """Segments, refines, steadies; frames are refined in parallel."""

    lookback = RADIUS

    def __init__(self, workers: int = 2, config: RefineConfig | None = None) -> None:
        self.config = config or RefineConfig()
        path = assets.asset_dir() / "mediapipe" / MODEL_FILE
        self.identity = f"selfie {sha256_of_file(path)[:16]} {self.config}" if path.is_file() else "selfie"
        self._segment = Segmenter(path)
        _load_solver()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="matting")
        self._depth = workers + 1
        self._refining: deque[Future[Moment]] = deque()
        self._moments: deque[Moment] = deque()
        self._next = 0

    def begin(self, camera_id: str | None) -> None:
        """See `Matting.begin`."""
        self.finish()

    def push(self, tag: Any, picture: UInt8[ndarray, "H W 3"]) -> list[Tagged]:
        """See `Matting.push`."""
        self._refining.append(self._pool.submit(self._refined, tag, picture))
        done: list[Tagged] = []
        while len(self._refining) > self._depth:
            done += self._take(self._refining.popleft().result())
        return done

    def finish(self) -> list[Tagged]:
        """See `Matting.finish`."""
        done: list[Tagged] = []
        while self._refining:
            done += self._take(self._refining.popleft().result())
        while self._next < len(self._moments):
            done.append(self._finished(self._next))
            self._next += 1
        self._moments.clear()
        self._next = 0
        return done

    def close(self) -> None:
        """See `Matting.close`."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, moment: Moment) -> list[Tagged]:
        self._moments.append(moment)
        done = []
        while self._next + RADIUS < len(self._moments):
            done.append(self._finished(self._next))
            self._next += 1
        while self._next > RADIUS:
            self._moments.popleft()
            self._next -= 1
        return done

    def _finished(self, index: int) -> Tagged:
        moments = list(self._moments)
        moment = moments[index]
        near = moments[max(0, index - RADIUS) : index] + moments[index + 1 : index + 1 + RADIUS]
        tag, shape = moment.tag
        return tag, full_size(steadied(moment, near), shape)

    def _refined(self, tag: Any, picture: ndarray) -> Moment:
        small = reduced(picture, self.config.longest_side)
        probability = cv2.resize(self._segment(picture), small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return Moment((tag, picture.shape[:2]), small, refined_alpha(small, probability, self.config))


class Segmenter:
    """The network: how likely each pixel is a person's."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file. It comes with flame-fitting: install it again.")
        with quiet_native_stderr():
            try:
                from ai_edge_litert.interpreter import Interpreter
            except (ImportError, OSError) as error:
                raise InputError(
                    f"ai-edge-litert cannot be loaded ({error}). Install it: pip install ai-edge-litert"
                ) from error
            self._network = Interpreter(str(path), num_threads=1)
            self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]
        self._lock = Lock()

    def __call__(self, picture: UInt8[ndarray, "H W 3"]) -> Float32[ndarray, "256 256"]:
        """Probability of a person in the sRGB picture, squeezed into a square."""
        size = (_NETWORK_SIDE, _NETWORK_SIDE)
        pixels = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
        with self._lock:
            self._network.set_tensor(self._input, pixels[None])
            self._network.invoke()
            return self._network.get_tensor(self._output)[0, ..., 0].copy()


def reduced(picture: UInt8[ndarray, "H W 3"], longest_side: int) -> UInt8[ndarray, "h w 3"]:
    """The picture, no side longer than that, area-filtered."""
    height, width = picture.shape[:2]
    factor = min(1.0, longest_side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return picture if factor == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def trimap(probability: Float32[ndarray, "h w"], config: RefineConfig) -> Float32[ndarray, "h w"]:
    """0 background, 1 person, 0.5 unknown: where the segmenter is unsure, and a margin."""
    radius = max(1, round(config.margin * max(probability.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    person = cv2.erode((probability > config.person_above).astype(np.uint8), disc)
    person = _large_parts(person, config.least_part)
    background = cv2.erode((probability < config.background_below).astype(np.uint8), disc)
    # what is unsure, or was taken for too small a part, and touches no person is something else
    count, labels = cv2.connectedComponents((background == 0).astype(np.uint8), connectivity=8)
    touched = np.zeros(count, bool)
    touched[np.unique(labels[person > 0])] = True
    out = np.full(probability.shape, 0.5, np.float32)
    out[person > 0] = 1.0
    out[(background > 0) | ~touched[labels]] = 0.0
    return out


def refined_alpha(
    picture: UInt8[ndarray, "h w 3"], probability: Float32[ndarray, "h w"], config: RefineConfig
) -> Float32[ndarray, "h w"]:
    """Alpha in 0..1 from where the segmenter is sure and the picture's colours."""
    known = trimap(probability, config)
    unknown = known == 0.5
    if not (known == 1.0).any():
        return np.where(unknown, probability, 0.0).astype(np.float32)
    if not unknown.any() or unknown.mean() > config.most_unknown or not (known == 0.0).any():
        return np.where(unknown, probability, known).astype(np.float32)
    try:
        alpha = _load_solver()(
            picture.astype(np.float64) / 255.0,
            known.astype(np.float64),
            laplacian_kwargs={"epsilon": config.epsilon},
            cg_kwargs={"maxiter": config.iterations, "rtol": config.tolerance},
        )
    except ValueError as error:  # no convergence: a picture of nearly one colour
        get_logger(__name__).info("alpha stays the segmenter's: %s", error)
        return np.where(unknown, probability, known).astype(np.float32)
    return alpha.astype(np.float32)


def full_size(alpha: Float32[ndarray, "h w"], shape: tuple[int, int]) -> UInt8[ndarray, "H W"]:
    """8-bit alpha of that height and width.

    Bilinear: a guided filter in its place gave edges that agree a little better above one half, and haze around them
    (mean error a quarter larger, at a factor of 2 and 4).
    """
    if alpha.shape != shape:
        alpha = cv2.resize(alpha, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (np.clip(alpha, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _large_parts(mask: ndarray, least: float) -> ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    return (area[labels] >= least * area.max()).astype(np.uint8) * mask


@lru_cache(maxsize=1)
def _load_solver() -> Callable[..., ndarray]:
    progress.say("matting: loading pymatting (the first time on a machine it is compiled, one or two minutes)")
    from pymatting import estimate_alpha_cf

    return estimate_alpha_cf
