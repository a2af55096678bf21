"""Evidence beyond points: lid gaps, lip gaps and gaze of every picture, each with its standard deviation.

Made of a detector's points and expression scores by regressions that were calibrated on pictures of a head model with
known expression (`evidence_fit`). Beside them the scores themselves, which tell facial actions (`action_scores`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz, reason
from flame_fitting.head.apertures import LID_COLUMNS
from flame_fitting.landmarks.action_scores import log_odds
from flame_fitting.landmarks.evidence_features import EvidenceGeometry, features_of
from flame_fitting.landmarks.evidence_fit import (
    OPEN_MM,
    QUANTITIES,
    Regression,
    Samples,
    fit_own_eyes,
    fit_regressions,
    join_quantities,
)
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.mediapipe_detector import MEASURES, SCORE_NAMES

REVISION = 3
"""Counts up whenever features or the method change, so that older calibrations are not used."""
_MOMENTS = 8
"""Timesteps from which on it is looked at whether a person's eyes look at one thing."""
_SQUINT, _SQUINT_OF_MOMENT, _READ_OUTWARD = 2.0, 2.0, 4.0
"""Standard deviations, degrees: of how far apart a person's eyes look on the mean, and more in a single moment; and of
how far outward eyes of persons and head models other than the calibrated one are read."""
_FRONT = (30.0, 15.0)
"""Degrees of yaw and pitch up to which expression scores are looked at."""
_STEEPEST = 60.0
"""Degrees of yaw beyond which the far eye is hidden and nothing is said."""


@dataclass(eq=False)
class EvidenceCalibration:
    """How a detector's points and scores are read, by a head model's pictures."""

    eye: Regression
    mouth: Regression
    detector: str
    detector_version: str
    head_hash: str
    """Of the model that was shown."""
    ball: Float[ndarray, "3"]
    """`EvidenceGeometry.ball` of that model."""
    revision: int = REVISION

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        arrays = {f"eye_{f.name}": getattr(self.eye, f.name) for f in fields(Regression)}
        arrays |= {f"mouth_{f.name}": getattr(self.mouth, f.name) for f in fields(Regression)}
        text = {name: getattr(self, name) for name in ("detector", "detector_version", "head_hash", "revision")}
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, ball=self.ball, **arrays, **text)

    @classmethod
    def load(cls, path: Path) -> "EvidenceCalibration":
        """Reads what `save` wrote."""
        advice = "Make it again with: python scripts/calibrate_evidence.py"
        arrays = read_npz(path, advice)
        try:
            eye, mouth = (
                Regression(**{f.name: arrays[f"{part}_{f.name}"] for f in fields(Regression)})
                for part in ("eye", "mouth")
            )
            name, version, head_hash = (str(arrays[key]) for key in ("detector", "detector_version", "head_hash"))
            return cls(eye, mouth, name, version, head_hash, arrays["ball"], int(arrays["revision"]))
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a calibration of evidence ({reason(error)}). {advice}") from error


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the pictures of a capture, or the views of a timestep, say of lids, lips and gaze.

    Quantities are those of `evidence_fit.QUANTITIES`: gaps of `head.apertures.Apertures` in mm of the template's size,
    gaze against the head in degrees (`gaze_angles`).
    """

    values: Float[ndarray, "... Q"]
    """NaN where nothing is known."""
    own_std: Float[ndarray, "... Q"]
    """Standard deviation of each picture's own error."""
    shared_std: Float[ndarray, " Q"]
    """Of the error that all pictures of one person share: an unknown of the person, to a fit over time."""
    odds: Float[ndarray, "... S"]
    """Logarithms of the odds of the detector's expression scores (`SCORE_NAMES`) in views from nearly in front; NaN in
    others. `action_scores` says what they mean."""

    def odds_of(self, names: Sequence[str]) -> Float[ndarray, "... N"]:
        """Those of some scores."""
        return self.odds[..., [SCORE_NAMES.index(name) for name in names]]

    @property
    def std(self) -> Float[ndarray, "... Q"]:
        """Of a single value, all errors together."""
        return np.hypot(self.own_std, self.shared_std)

    @property
    def known(self) -> Bool[ndarray, "..."]:
        """Where anything is said."""
        return np.asarray(np.isfinite(self.values).any(-1))

    def combined(self, same: Float[ndarray, " Q"] | float = 0.5) -> "Evidence":
        """Of the views (the axis before the last) of one moment together: (..., Q) and (..., S).

        `same` is how much of a picture's own variance belongs to the moment and is the same in all of its views, so
        that it does not average out.
        """
        known = np.isfinite(self.values)
        weight = np.where(known, 1 / np.where(known, self.own_std, 1.0) ** 2, 0.0)
        total = weight.sum(-2)
        some = total > 0
        mean = np.where(some, (np.where(known, self.values, 0.0) * weight).sum(-2) / np.where(some, total, 1.0), np.nan)
        count = np.maximum(known.sum(-2), 1)
        # as if each view had the harmonic mean of their variances
        variance = count / np.where(some, total, np.nan)
        seen = np.isfinite(self.odds).all(-1)
        sums = np.where(seen[..., None], self.odds, 0.0).sum(-2)
        odds = np.where(seen.any(-1)[..., None], sums / np.maximum(seen.sum(-1), 1)[..., None], np.nan)
        return Evidence(mean, np.sqrt(variance * (same + (1 - same) / count)), self.shared_std, odds)


def measures_of(landmarks: Landmarks2D) -> Float[ndarray, "T C S"] | None:
    """What evidence is read from beside the points, in the order of `MEASURES`; None where it is not all there.

    Files of earlier versions have fewer scores.
    """
    names = landmarks.score_names
    if landmarks.scores is None or not set(MEASURES) <= set(names):
        return None
    return landmarks.scores[..., [names.index(name) for name in MEASURES]]


def read_evidence(
    calibration: EvidenceCalibration,
    geometry: EvidenceGeometry,
    landmarks: Float[ndarray, "B N 3"],
    scores: Float[ndarray, "B S"],
    K: Float[ndarray, "B 3 3"],
) -> Evidence:
    """Evidence of B pictures; NaN where no face was found or it is seen from too far aside."""
    count = len(landmarks)
    values, own = np.full((count, len(QUANTITIES)), np.nan), np.full((count, len(QUANTITIES)), np.nan)
    odds = np.full((count, len(SCORE_NAMES)), np.nan)
    for row in range(count):
        if not np.isfinite(landmarks[row]).all(-1).any():
            continue
        found = features_of(geometry, landmarks[row].astype(float), scores[row].astype(float), K[row], calibration.ball)
        if found is None or abs(found.angles[0]) > _STEEPEST:
            continue
        eyes, mouth = calibration.eye.predict(found.eyes), calibration.mouth.predict(found.mouth[None])[0]
        values[row] = join_quantities(_without_shut(eyes[0]), _without_shut(eyes[1]), mouth)
        yaw = found.angles[:1]
        eye_std, mouth_std = calibration.eye.spread(yaw)[0], calibration.mouth.spread(yaw)[0]
        own[row] = join_quantities(eye_std, eye_std, mouth_std, signed=False)
        if (np.abs(found.angles) <= _FRONT).all():
            odds[row] = log_odds(scores[row, : len(SCORE_NAMES)])
    eye, mouth = calibration.eye.shared_std, calibration.mouth.shared_std
    # gaps are no lengths below zero
    values[:, :13] = np.maximum(values[:, :13], 0.0)
    return Evidence(values, own, join_quantities(eye, eye, mouth, signed=False), odds)


def toward_one_thing(evidence: Evidence) -> Evidence:
    """Evidence over time, (T, C, Q), with both eyes turned by what they are read too far outward.

    Where a person's corners and eyeballs lie is not known, and moves the gaze of both eyes outward or inward in all
    pictures. As eyes look at one thing, what their mean over time is apart is that error, but for what people squint.
    """
    right, left = (QUANTITIES.index(name) for name in ("right_gaze_yaw", "left_gaze_yaw"))
    apart = 0.5 * (evidence.values[..., left] - evidence.values[..., right])
    moments = [np.median(row[np.isfinite(row)]) for row in apart if np.isfinite(row).any()]
    if len(moments) < _MOMENTS:
        return evidence
    known = _READ_OUTWARD**2 / (_READ_OUTWARD**2 + _SQUINT**2 + _SQUINT_OF_MOMENT**2 / len(moments))
    values = evidence.values.copy()
    values[..., left] -= known * np.median(moments)
    values[..., right] += known * np.median(moments)
    return replace(evidence, values=values)


def _without_shut(eye: Float[ndarray, " D"]) -> Float[ndarray, " D"]:
    """An eye's quantities without the gaze where its iris is hidden."""
    hidden = eye[LID_COLUMNS // 2] < OPEN_MM
    return np.where(hidden & (np.arange(len(eye)) >= LID_COLUMNS), np.nan, eye)


def calibrate_evidence(
    samples: Samples, geometry: EvidenceGeometry, detector: str, detector_version: str, head_hash: str
) -> EvidenceCalibration:
    """The calibration that samples of a head model make."""
    eye, mouth = fit_regressions(samples, geometry)
    return EvidenceCalibration(eye, mouth, detector, detector_version, head_hash, geometry.ball)


def with_own_eyes(
    calibration: EvidenceCalibration, samples: Samples, geometry: EvidenceGeometry
) -> EvidenceCalibration:
    """The calibration for another head model, by some pictures of it: lid gaps and gaze are corrected.

    Where a model's lids, corners and eyeballs lie is its own, and moves gaze by some degrees. The head hash stays that
    of the model whose coefficients the scores belong to.
    """
    return replace(calibration, eye=fit_own_eyes(calibration.eye, samples, geometry, calibration.ball))


def shipped_evidence(detector: str, detector_version: str) -> EvidenceCalibration | None:
    """The calibration that comes with the program; None where none does for these weights, or it is an older one.

    Gaps and angles are those of any head; only its model of scores belongs to the open head.
    """
    path = assets.shipped_evidence_path(detector)
    found = EvidenceCalibration.load(path) if path.is_file() else None
    if found is None or found.detector_version != detector_version or found.revision != REVISION:
        return None
    return found
