"""Pictures and alpha maps of a clip, written in parallel, each file whole or not at all."""

import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.files import PARTIAL_MARK, SMALLEST_PICTURE, atomic_write

IMAGES, ALPHA_MAPS = "images", "alpha_maps"
PICTURE_NAME = re.compile(r"(cam_.+_)?\d{6}\.(jpg|png)")
"""Names of pictures and alpha maps in VHAP's layout."""
_FOLDER_NAME = re.compile(rf"{IMAGES}(_\d+)?|{ALPHA_MAPS}")
# As good as ffmpeg's qscale 1, which VHAP asks for: next to no quantisation, and colour at full resolution.
_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    98,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 4]


def image_folder(root: Path, scale: int = 1) -> Path:
    """Where pictures reduced by `scale` lie."""
    return root / (IMAGES if scale == 1 else f"{IMAGES}_{scale}")


def picture_name(prefix: str, number: int) -> str:
    """The name of a picture: `<prefix>000000.jpg`."""
    return f"{prefix}{number:06d}.jpg"


def alpha_name(prefix: str, number: int) -> str:
    """The name of an alpha map: `<prefix>000000.png`."""
    return f"{prefix}{number:06d}.png"


def check_scales(scales: tuple[int, ...], width: int, height: int) -> None:
    """Raises InputError for scales that leave next to nothing of pictures of that size (px)."""
    for scale in scales:
        if min(width, height) // scale < SMALLEST_PICTURE:
            raise InputError(
                f"--downsample-scales {scale}: next to nothing is left of {width}x{height} px (less than "
                f"{SMALLEST_PICTURE}). Leave it out."
            )


class PictureWriter:
    """Writes what it is given in the background; files that are there already stay as they are.

    Never more than a few pictures wait, so that memory does not grow with a clip. An error of a background write is
    raised by the next call.
    """

    def __init__(self, root: Path, prefix: str, scales: tuple[int, ...], workers: int) -> None:
        """`scales` beside the full size; `workers` threads."""
        self._root, self._prefix, self._scales = root, prefix, (1, *scales)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        self._limit = 2 * workers

    def has_picture(self, number: int) -> bool:
        """Whether a picture is there in all sizes."""
        return all((image_folder(self._root, s) / picture_name(self._prefix, number)).is_file() for s in self._scales)

    def has_alpha(self, number: int) -> bool:
        """Whether an alpha map is there."""
        return (self._root / ALPHA_MAPS / alpha_name(self._prefix, number)).is_file()

    def picture(self, numbers: range, picture: UInt8[ndarray, "H W 3"]) -> None:
        """Writes one sRGB picture under all of `numbers`."""
        missing = [number for number in numbers if not self.has_picture(number)]
        if missing:
            self._submit(lambda: self._write_picture(missing, picture))

    def alpha(self, numbers: range, alpha: UInt8[ndarray, "H W"]) -> None:
        """Writes one alpha map under all of `numbers`."""
        missing = [number for number in numbers if not self.has_alpha(number)]
        if missing:
            self._submit(lambda: self._write_alpha(missing, alpha))

    def close(self, wait: bool = True) -> None:
        """Ends the threads; with `wait`, when all is written."""
        try:
            while wait and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, job: Callable[[], None]) -> None:
        while len(self._waiting) >= self._limit:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(job))

    def _write_picture(self, numbers: list[int], picture: ndarray) -> None:
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        height, width = bgr.shape[:2]
        for scale in self._scales:
            size = (width // scale, height // scale)
            sized = bgr if scale == 1 else cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
            folder = image_folder(self._root, scale)
            _write([folder / picture_name(self._prefix, n) for n in numbers], ".jpg", sized, _JPEG)

    def _write_alpha(self, numbers: list[int], alpha: ndarray) -> None:
        folder = self._root / ALPHA_MAPS
        _write([folder / alpha_name(self._prefix, n) for n in numbers], ".png", alpha, _PNG)


def _write(paths: list[Path], suffix: str, pixels: ndarray, options: list[int]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise RuntimeError(f"{paths[0]}: OpenCV could not encode a picture of shape {pixels.shape}")
    for path in missing:
        with atomic_write(path) as temporary:
            temporary.write_bytes(data.tobytes())


def folders_of(root: Path) -> list[Path]:
    """Folders of pictures and alpha maps that there are."""
    if not root.is_dir():
        return []
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and _FOLDER_NAME.fullmatch(entry.name))


def count_pictures(folder: Path, prefix: str = "") -> int:
    """How many pictures of a clip a folder holds."""
    if not folder.is_dir():
        return 0
    pattern = re.compile(re.escape(prefix) + r"\d{6}\.(jpg|png)")
    return sum(1 for entry in folder.iterdir() if pattern.fullmatch(entry.name))


def remove_pictures(root: Path) -> None:
    """Removes all pictures and alpha maps of a sequence, and folders that are empty then; other files stay."""
    for folder in folders_of(root):
        for entry in folder.iterdir():
            if PICTURE_NAME.fullmatch(entry.name):
                entry.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def remove_partial(root: Path) -> None:
    """Removes what a killed run was writing."""
    for folder in folders_of(root):
        for entry in folder.iterdir():
            if entry.name.startswith(".") and PARTIAL_MARK in entry.name:
                entry.unlink(missing_ok=True)
