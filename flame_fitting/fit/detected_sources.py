"""The landmark files of a capture as sources of a fit: where each detector means its points on the head model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flame_fitting.avatar.evidence_calibration import evidence_calibration
from flame_fitting.avatar.head_calibration import embedding_of_landmarks, shading_kind
from flame_fitting.capture.capture import Capture
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.landmark_sources import LandmarkSource
from flame_fitting.fit.refined_sources import refined
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.files import Landmarks2D, check_landmarks, read_landmarks, without_heldout
from flame_fitting.landmarks.registry import DETECTORS, settings_of


def detected_sources(
    config: FitConfig, capture: Capture, head: HeadModel, notify: Callable[[str], None]
) -> list[LandmarkSource]:
    """What each detector that the options name found in the capture, and where its points lie on the head model.

    Where captures of several shadings were joined, each kind of pictures is a source by itself.
    """
    sources, names = [], config.data.landmark_source
    kinds = _rows_by_kind(capture)
    for name, weight in zip(names, config.data.detector_weights or (1.0,) * len(names), strict=True):
        detected = without_heldout(capture, read_landmarks(capture, name))
        check_landmarks(capture, detected)
        settings = settings_of(name if detected.made_here else DETECTORS[0], config)
        notify(f"landmarks: {detected.label}")
        for kind, rows in kinds.items():
            own = detected if len(kinds) == 1 else _of_rows(detected, rows)
            embedding = embedding_of_landmarks(
                head, own, kind, settings, notify=notify, licensed=config.landmark_embedding
            )
            calibration = None
            if config.w.evidence:
                calibration = evidence_calibration(head, own, embedding, settings, notify=notify)
            sources.append(LandmarkSource(own, embedding, weight, calibration))
    merge = config.data.merge_landmarks and len(kinds) == 1
    found = refined(head, capture, sources, merge, config.data.use_geometry)
    for text in found.notes:
        notify(text)
    return found.sources


def _rows_by_kind(capture: Capture) -> dict[str, list[int]]:
    """Rows of the timesteps by the kind of shading that landmarks were found in."""
    out: dict[str, list[int]] = {}
    for row, timestep in enumerate(capture.timesteps):
        out.setdefault(shading_kind(capture.landmark_shading_of(timestep)), []).append(row)
    return out


def _of_rows(detected: Landmarks2D, rows: list[int]) -> Landmarks2D:
    """Without those of other timesteps."""
    out = np.full_like(detected.landmarks, np.nan)
    out[rows] = detected.landmarks[rows]
    scores = detected.scores
    if scores is not None:
        kept = np.full_like(scores, np.nan)
        kept[rows] = scores[rows]
        scores = kept
    return replace(detected, landmarks=out, scores=scores)
