"""Sources of landmarks as a fit takes them: without what cannot be right, merged, with evidence beside the points."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy import ndarray

from flame_fitting.capture.capture import Capture
from flame_fitting.fit.landmark_sources import LandmarkSource, detections_of, placed, placed_on_surface
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.capture_outliers import cameras_of, outliers_of, told
from flame_fitting.landmarks.detector_spread import Cameras, Detected, Spread, spread_of
from flame_fitting.landmarks.evidence import Evidence, measures_of, read_evidence, toward_one_thing
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.lifting import Landmarks3D
from flame_fitting.landmarks.mediapipe_detector import MEASURES
from flame_fitting.landmarks.merging import MERGED, merge


@dataclass(eq=False)
class RefinedSources:
    """What a fit begins with."""

    sources: list[LandmarkSource]
    notes: list[str] = field(default_factory=list)
    """What was left out or merged, in plain words."""


def refined(
    head: HeadModel,
    capture: Capture,
    sources: Sequence[LandmarkSource],
    merge_them: bool = True,
    use_geometry: bool = True,
) -> RefinedSources:
    """The sources of a capture, cleaned, with evidence, and merged to one where there are several.

    Without `use_geometry` its depth and normals are not looked at.
    """
    cameras, notes, cleaned = cameras_of(capture), [], []
    for source in sources:
        found = outliers_of(capture, source.detected, cameras, use_geometry)
        notes += told(capture, source.detected.detector, found)
        landmarks = found.removed_from(source.detected.landmarks).astype(np.float32)
        one = replace(source, detected=replace(source.detected, landmarks=landmarks))
        cleaned.append(replace(one, evidence=evidence_of(head, one, cameras)))
    if len(cleaned) < 2 or not merge_them:
        return RefinedSources(cleaned, notes)
    merged, note = merged_source(head, capture, cleaned, cameras, use_geometry)
    return RefinedSources([merged], [*notes, note])


def evidence_of(head: HeadModel, source: LandmarkSource, cameras: Cameras) -> Evidence | None:
    """Evidence in every picture; None where the source lacks what it is read from, or a calibration."""
    detected, scores = source.detected, measures_of(source.detected)
    if scores is None or source.calibration is None:
        return None
    shape = detected.landmarks.shape[:2]
    found = read_evidence(
        source.calibration,
        EvidenceGeometry(head, source.embedding),
        detected.landmarks.reshape(-1, *detected.landmarks.shape[2:]),
        scores.reshape(-1, len(MEASURES)),
        cameras.K.reshape(-1, 3, 3),
    )

    def gridded(values: ndarray) -> ndarray:
        return values.reshape(*shape, values.shape[-1])

    every = Evidence(gridded(found.values), gridded(found.own_std), found.shared_std, gridded(found.odds))
    return toward_one_thing(every)


def merged_source(
    head: HeadModel, capture: Capture, sources: Sequence[LandmarkSource], cameras: Cameras, use_geometry: bool = True
) -> tuple[LandmarkSource, str]:
    """Several sources as one, and what is said of it."""
    given = [Detected(one.detected.detector, one.detected.landmarks, one.embedding, one.weight) for one in sources]
    in_space = [placed(capture, source, use_geometry).landmarks for source in sources] if capture.calibrated else []
    has_geometry = use_geometry and all(view.geometry_path is not None for view in capture.views)
    on_surface = in_space if has_geometry else [[]] * len(sources)
    spreads = [spread_of(one, cameras, own) for one, own in zip(given, on_surface or [[]] * len(given), strict=True)]
    found = merge(head, given, cameras, spreads, in_space)
    searched = [one.detected.searched for one in sources if one.detected.searched is not None]
    together = Landmarks2D(
        found.landmarks,
        found.embedding.scheme,
        MERGED,
        "+".join(one.detected.label for one in sources),
        np.any(searched, axis=0) if len(searched) == len(sources) else None,
    )
    evidence = next((one.evidence for one in sources if one.evidence is not None), None)
    points: list[Landmarks3D] = []
    if found.in_space:
        shown, rough = detections_of(capture, together), capture.avatar.head_from_world
        points = [placed_on_surface(capture, *own, rough) for own in zip(shown, found.in_space, strict=True)]
    merged = LandmarkSource(together, found.embedding, evidence=evidence, in_space=points)
    return merged, _of_merging(found.shares, found.spreads)


def _of_merging(shares: dict[str, ndarray], spreads: dict[str, Spread]) -> str:
    how = {"views": "over views", "time": "over time", "calibration": "as calibrated"}
    parts = [
        f"{name} {100 * float(np.median(share)):.0f} % (spread {how[spreads[name].how]}"
        f" {100 * float(np.median(spreads[name].values)):.1f} % of the face)"
        for name, share in shares.items()
    ]
    return f"landmarks merged: {', '.join(parts)}"
