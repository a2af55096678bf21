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
from flame_fitting.landmarks.other_faces import OtherFaces, choose_over_time, choose_over_views
from flame_fitting.landmarks.outliers import face_sizes

_BATCH = 8
_KEEP_SECONDS = 60.0
"""What was found is kept this often."""
MOST_FACES = 4
"""Faces that are looked at in one picture."""


def nothing_found(capture: Capture, detector: LandmarkDetector) -> Landmarks2D:
    """Landmarks of all timesteps and cameras of the folder, none of which was searched."""
    shape = (len(capture.timestep_ids), len(capture.camera_ids))
    landmarks = np.full((*shape, detector.n_points, 3), np.nan, dtype=np.float32)
    names = detector.score_names
    scores = np.full((*shape, len(names)), np.nan, dtype=np.float32) if names else None
    searched = np.zeros(shape, dtype=bool)
    return Landmarks2D(landmarks, detector.scheme, detector.name, detector.version, searched, scores, names)


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
    if old.landmarks.shape != into.landmarks.shape or into.searched is None or old.score_names != into.score_names:
        return list(views)
    searched, left, written = old.searched.copy(), [], path.stat().st_mtime_ns
    for view in views:
        at = position(capture, view)
        if unfinished and searched[at] and _modified(capture.root / view.file_path) <= written:
            continue
        searched[at] = False
        left.append(view)
    into.landmarks[searched], into.searched[searched] = old.landmarks[searched], True
    if into.scores is not None and old.scores is not None:
        into.scores[searched] = old.scores[searched]
    into.others = old.others
    for view in left:
        into.others = into.others.without(*position(capture, view))
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

    Where pictures show several faces, the one is taken that agrees over views or over time, the others are kept beside.
    `advance` is told how many views were done; `keep` is called now and then.
    """
    assert into.searched is not None
    kept = time.monotonic()
    # an avatar is one head; else a second person may be in the picture
    most_faces = 1 if capture.avatar.file is not None else MOST_FACES
    for batch, images in _read_ahead(capture, batches(views)):
        for view, seen in zip(batch, detector.look(images, most_faces), strict=True):
            at = position(capture, view)
            width, height = view.full_size
            scale = np.array([width / view.width, height / view.height, 1.0], dtype=np.float32)
            into.searched[at] = True
            if len(seen.landmarks):
                into.landmarks[at] = seen.landmarks[0] * scale
                if into.scores is not None:
                    into.scores[at] = seen.scores[0]
                into.others = into.others.with_more(seen.landmarks[1:] * scale, seen.scores[1:], *at)
        advance(len(batch))
        if keep is not None and time.monotonic() - kept > _KEEP_SECONDS:
            keep()
            kept = time.monotonic()
    choose_faces(capture, into)


def choose_faces(capture: Capture, into: Landmarks2D) -> int:
    """Puts the face that agrees over views, or over time, where pictures show several; returns in how many pictures
    that was not the most prominent one."""
    if not len(into.others):
        return 0
    shape = into.landmarks.shape[:2]
    scores = into.scores if into.scores is not None else np.zeros((*shape, 0), dtype=np.float32)
    found = into.found.astype(int)  # of a picture without a face there is a row of neither
    faces = [[into.landmarks[at][None][: found[at]] for at in row] for row in _grid(shape)]
    told = [[scores[at][None][: found[at]] for at in row] for row in _grid(shape)]
    for points, own, (row, column) in zip(into.others.landmarks, into.others.scores, into.others.at, strict=True):
        faces[row][column] = np.concatenate([faces[row][column], points[None]])
        told[row][column] = np.concatenate([told[row][column], own[None]])
    # the most prominent one first, whichever was chosen by an earlier run
    order = [[np.argsort(-face_sizes(one), kind="stable") for one in row] for row in faces]
    faces, told = (
        [[one[by] for one, by in zip(*rows, strict=True)] for rows in zip(of_all, order, strict=True)]
        for of_all in (faces, told)
    )
    chosen = _chosen(capture, faces)
    others, changed = OtherFaces(), 0
    for row, column in np.ndindex(*shape):
        candidates, which = faces[row][column], int(chosen[row, column])
        if not len(candidates):
            continue
        changed += which > 0
        into.landmarks[row, column] = candidates[which]
        if into.scores is not None:
            into.scores[row, column] = told[row][column][which]
        rest = np.arange(len(candidates)) != which
        others = others.with_more(candidates[rest], told[row][column][rest], row, column)
    into.others = others
    return changed


def _chosen(capture: Capture, faces: list[list[ndarray]]) -> ndarray:
    """(T, C) which face: over views where three cameras are calibrated, else over each camera's frames."""
    steps, columns = len(faces), len(faces[0])
    out = np.full((steps, columns), -1)
    cameras = {position(capture, view): view for view in capture.views}
    if capture.calibrated and columns >= 3:
        for row in range(steps):
            there = [column for column in range(columns) if (row, column) in cameras]
            # landmarks of the whole folder count pixels of the full size
            K = [cameras[row, column].at_full_size().K for column in there]
            poses = [cameras[row, column].world_to_camera for column in there]
            if there:
                found = choose_over_views([faces[row][column] for column in there], np.array(K), np.array(poses))
                out[row, there] = found
        return np.where(out < 0, 0, out)
    for column in range(columns):
        out[:, column] = choose_over_time([faces[row][column] for row in range(steps)])
    return np.where(out < 0, 0, out)


def _grid(shape: tuple[int, ...]) -> list[list[tuple[int, int]]]:
    return [[(row, column) for column in range(shape[1])] for row in range(shape[0])]


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
