"""Runs a detector over views of a capture, keeping what earlier runs found and what is found so far."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy import ndarray

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import picture_as_uint8
from flame_fitting.errors import InputError
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.files import Landmarks2D, landmarks_path, read_whole_landmarks

_BATCH = 8
_KEEP_SECONDS = 60.0
"""What was found is kept this often."""


def nothing_found(capture: Capture, detector: LandmarkDetector) -> Landmarks2D:
    """Landmarks of all timesteps and cameras of the folder, none of which was searched."""
    shape = (len(capture.timestep_ids), len(capture.camera_ids))
    landmarks = np.full((*shape, detector.n_points, 3), np.nan, dtype=np.float32)
    return Landmarks2D(landmarks, detector.scheme, detector.name, detector.version, np.zeros(shape, dtype=bool))


def take_earlier(capture: Capture, into: Landmarks2D, views: Sequence[View], unfinished: bool) -> list[View]:
    """Takes over what the capture's file of these landmarks has; returns which of `views` are still to be searched.

    That is all of them, unless the run that wrote the file was left `unfinished`. Nothing is taken of another detector,
    of another number of timesteps or cameras, and of pictures that are newer than the file.
    """
    path = landmarks_path(capture.root, into.detector)
    try:
        old = read_whole_landmarks(capture, into.detector) if path.is_file() else None
    except InputError:  # it is replaced
        old = None
    if old is None or old.searched is None or old.detector_version != into.detector_version:
        return list(views)
    if old.landmarks.shape != into.landmarks.shape or into.searched is None:
        return list(views)
    searched, left, written = old.searched.copy(), [], path.stat().st_mtime_ns
    for view in views:
        at = position(capture, view)
        if unfinished and searched[at] and _modified(capture.root / view.file_path) <= written:
            continue
        searched[at] = False
        left.append(view)
    into.landmarks[searched], into.searched[searched] = old.landmarks[searched], True
    return left


def search(
    capture: Capture,
    views: Sequence[View],
    detector: LandmarkDetector,
    into: Landmarks2D,
    advance: Callable[[int], None],
    keep: Callable[[], None] | None = None,
) -> None:
    """Looks for faces in the views and writes them, in px of the full pictures, into landmarks of the whole folder.

    `advance` is told how many views were done; `keep` is called now and then.
    """
    assert into.searched is not None
    kept = time.monotonic()
    for batch, images in _read_ahead(capture, batches(views)):
        for view, points in zip(batch, detector.detect(images), strict=True):
            at = position(capture, view)
            width, height = view.full_size
            into.landmarks[at] = points * np.array([width / view.width, height / view.height, 1.0], dtype=np.float32)
            into.searched[at] = True
        advance(len(batch))
        if keep is not None and time.monotonic() - kept > _KEEP_SECONDS:
            keep()
            kept = time.monotonic()


def position(capture: Capture, view: View) -> tuple[int, int]:
    """Row and column of a view in landmarks of the whole folder."""
    return capture.row_of[view.timestep], capture.column_of[view.camera]


def batches(views: Sequence[View]) -> list[list[View]]:
    """Views of one size, a few at a time."""
    found: list[list[View]] = []
    for view in views:
        last = found[-1] if found else None
        if last and len(last) < _BATCH and (last[0].width, last[0].height) == (view.width, view.height):
            last.append(view)
        else:
            found.append([view])
    return found


def _read_ahead(capture: Capture, groups: list[list[View]]) -> Iterator[tuple[list[View], ndarray]]:
    """Each batch with its pictures (B, H, W, 3) uint8; the next one is read meanwhile."""

    def read(batch: list[View]) -> ndarray:
        return np.stack([picture_as_uint8(capture.image(view)) for view in batch])

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(read, groups[0]) if groups else None
        for number, batch in enumerate(groups):
            assert waiting is not None
            images = waiting.result()
            if number + 1 < len(groups):
                waiting = pool.submit(read, groups[number + 1])
            yield batch, images


def _modified(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
