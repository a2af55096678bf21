"""Landmarks of several captures as those of the one that they were joined to."""

from collections.abc import Sequence

import numpy as np

from flame_fitting.capture.capture import Capture, View
from flame_fitting.errors import InputError
from flame_fitting.landmarks.files import Landmarks2D, landmark_names, read_whole_landmarks, write_landmarks
from flame_fitting.landmarks.searching import position


def shared_detectors(captures: Sequence[Capture]) -> list[str]:
    """Names of the detectors that all captures have landmarks of; InputError where there is none."""
    found = [landmark_names(capture) for capture in captures]
    shared = [name for name in found[0] if all(name in names for names in found)]
    if shared:
        return shared
    for capture, names in zip(captures, found, strict=True):
        if not names:
            raise InputError(f"{capture.root}: no landmarks there. Run: flame-fitting detect {capture.root}")
    listed = "; ".join(f"{c.root} has {', '.join(names)}" for c, names in zip(captures, found, strict=True))
    raise InputError(f"no landmark detector is common to all captures: {listed}. Run detect with one of them on all.")


def join_landmarks(joined: Capture, captures: Sequence[Capture], views: Sequence[Sequence[View]], name: str) -> None:
    """Writes a detector's landmarks of all captures for the joined one; `views` are theirs in it, in their order.

    Raises InputError where captures have them of different weights or settings: their points are not the same.
    """
    parts = [read_whole_landmarks(capture, name) for capture in captures]
    first = parts[0]
    for capture, part in zip(captures, parts, strict=True):
        if (part.scheme, part.detector_version, part.score_names) != (
            first.scheme,
            first.detector_version,
            first.score_names,
        ):
            raise InputError(
                f"{capture.root}: its landmarks are of {part.label}, those of {captures[0].root} of {first.label}. "
                f"Detect both with the same: flame-fitting detect {capture.root} --detector {name}"
            )
    shape = (len(joined.timestep_ids), len(joined.camera_ids))
    landmarks = np.full((*shape, *first.landmarks.shape[2:]), np.nan, dtype=np.float32)
    has_scores = all(part.scores is not None for part in parts)
    scores = np.full((*shape, len(first.score_names)), np.nan, dtype=np.float32) if has_scores else None
    searched = np.zeros(shape, dtype=bool) if all(part.searched is not None for part in parts) else None
    for capture, part, moved in zip(captures, parts, views, strict=True):
        for view, out in zip(capture.views, moved, strict=True):
            here, there = position(capture, view), position(joined, out)
            landmarks[there] = part.landmarks[here]
            if scores is not None and part.scores is not None:
                scores[there] = part.scores[here]
            if searched is not None and part.searched is not None:
                searched[there] = part.searched[here]
    made = Landmarks2D(landmarks, first.scheme, name, first.detector_version, searched, scores, first.score_names)
    write_landmarks(joined, made)
