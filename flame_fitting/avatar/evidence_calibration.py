"""The calibration of evidence of any head model: the one that ships, for others than the open head corrected by
pictures of their own, which are made once."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from flame_fitting import assets, progress
from flame_fitting.avatar.evidence_pictures import EvidencePictures, sample
from flame_fitting.avatar.head_calibration import regions_hash
from flame_fitting.errors import InputError
from flame_fitting.head.apertures import find_apertures
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.evidence import EvidenceCalibration, measures_of, shipped_evidence, with_own_eyes
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.registry import Settings, make_detector

OWN_PICTURES = EvidencePictures(identities=36, paints=12, seed=461)
"""Of a head model that is not the open head: 144 pictures."""


def evidence_calibration(
    head: HeadModel,
    landmarks: Landmarks2D,
    embedding: LandmarkEmbedding,
    settings: Settings | None = None,
    notify: Callable[[str], None] | None = None,
) -> EvidenceCalibration | None:
    """How the evidence of a capture's landmarks is read on a head model; None where they lack what it is read from, or
    no calibration belongs to their weights.

    `embedding` is the one of these landmarks.
    """
    if measures_of(landmarks) is None:
        return None
    shipped = shipped_evidence(landmarks.detector, landmarks.detector_version)
    if shipped is None or shipped.head_hash == head.file_hash:
        return shipped
    detector = make_detector(landmarks.detector, settings)
    # a licensed embedding asks for no detector, so that other settings may have been given for it
    if detector.version != landmarks.detector_version:
        return shipped
    return own_evidence(head, detector, embedding, shipped, notify=notify)


def own_evidence(
    head: HeadModel,
    detector: LandmarkDetector,
    embedding: LandmarkEmbedding,
    shipped: EvidenceCalibration,
    config: EvidencePictures = OWN_PICTURES,
    notify: Callable[[str], None] | None = None,
) -> EvidenceCalibration:
    """The shipped calibration, corrected for the eyes of a head model: from the cache, or made now.

    The shipped one stays where the model has no eyeballs or lips.
    """
    cached = _cache_path(head, embedding, shipped, config)
    if cached.is_file():
        try:
            return EvidenceCalibration.load(cached)
        except InputError:
            cached.unlink(missing_ok=True)
    try:
        find_apertures(head)
    except InputError:
        return shipped
    if notify is not None:
        notify(f"calibrating how {detector.name} sees lids and gaze of the head model {head.name}, once")
    shown = partial(progress.each, description="calibration of lids and gaze", unit="head")
    samples = sample(head, detector, embedding, config, shown)
    if len(np.unique(samples.group[:, 0])) < config.identities / 2:
        # faces of this model are hardly found
        return shipped
    own = with_own_eyes(shipped, samples, EvidenceGeometry(head, embedding))
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        own.save(cached)
    except OSError as error:
        if notify is not None:
            notify(f"{cached}: not written ({error}); the calibration will be made again next time")
    return own


def _cache_path(
    head: HeadModel, embedding: LandmarkEmbedding, shipped: EvidenceCalibration, config: EvidencePictures
) -> Path:
    parts: list[object] = [shipped.revision, head.file_hash, regions_hash(head), shipped.detector]
    parts += [shipped.detector_version, config]
    parts += [hashlib.sha256(x.tobytes()).hexdigest() for x in (embedding.face_index, embedding.barycentric)]
    if head.n_eyelids:
        parts.append(hashlib.sha256(head.eyelids.float().cpu().numpy().tobytes()).hexdigest())
    parts += [hashlib.sha256(x.tobytes()).hexdigest() for x in (shipped.eye.slope, shipped.eye.intercept)]
    key = hashlib.sha256(" ".join(str(part) for part in parts).encode()).hexdigest()[:24]
    return assets.cache_dir() / "evidence" / f"{key}.npz"
