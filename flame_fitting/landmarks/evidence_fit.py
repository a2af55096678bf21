"""From what a detector says of lids, lips and gaze to millimetres and degrees, by pictures with known truth.

One linear model for each quantity, with an effect of its own for every identity (generalised least
squares with variance components, as of mixed models; Searle et al., "Variance Components", 1992). What is left in
identities that took no part splits into an error that all pictures of a person share, and one of each picture: a fit
over time can take the first for an unknown of the person, and only the second averages out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.head.apertures import GAP_NAMES, GAZE_NAMES, LID_COLUMNS
from flame_fitting.landmarks.evidence_features import LID_FEATURES, EvidenceGeometry, Features, features_of

QUANTITIES = (*GAP_NAMES, *GAZE_NAMES)
"""What evidence is about: gaps in mm, then gaze in degrees."""
UNITS = ("mm",) * len(GAP_NAMES) + ("deg",) * len(GAZE_NAMES)
YAW_BINS = (0.0, 20.0, 35.0, 50.0)
"""Degrees of yaw at which the spread is given; between them it is interpolated, beyond the last it grows on."""
_RIDGES = (1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
_RIDGES_ABOUT = (10.0, 30.0, 100.0)
"""Of what few pictures of another head model add to a regression."""
_FOLDS = 6
_GAZE = slice(LID_COLUMNS, LID_COLUMNS + 2)
_EYE_FEATURES = (LID_FEATURES,) * LID_COLUMNS + (None, None)
_MIDDLE = LID_COLUMNS // 2
OPEN_MM = 4.0
"""Lid gap from which on the iris is seen."""


@dataclass(eq=False)
class Samples:
    """M pictures with a face, as the detector saw them."""

    landmarks: Float[ndarray, "M N 3"]
    """px."""
    scores: Float[ndarray, "M S"]
    K: Float[ndarray, "M 3 3"]
    truth: Float[ndarray, "M Q"]
    """In the order of `QUANTITIES`."""
    group: Int[ndarray, "M 2"]
    """Identity, and expression of that identity, which several views may show."""


def together(parts: Sequence[Samples]) -> Samples:
    """Several groups of samples as one; their identities are not the same ones."""
    groups, start = [], 0
    for part in parts:
        groups.append(part.group + start)
        start = int(groups[-1].max()) + 1 if len(part.group) else start
    every = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Samples)}
    return Samples(**every | {"group": np.concatenate(groups)})


@dataclass(eq=False)
class Regression:
    """Linear models of D quantities by F features."""

    mean: Float[ndarray, " F"]
    scale: Float[ndarray, " F"]
    slope: Float[ndarray, "F D"]
    """Of features from which `mean` is taken and that are divided by `scale`."""
    intercept: Float[ndarray, " D"]
    shared_std: Float[ndarray, " D"]
    """Standard deviation of the error that all pictures of one person share."""
    own_std: Float[ndarray, "B D"]
    """Of the error of each picture, at `YAW_BINS`."""

    def predict(self, features: Float[ndarray, "M F"]) -> Float[ndarray, "M D"]:
        """Values of M pictures. Features far from those seen are taken for the farthest seen."""
        normal = np.clip((features - self.mean) / self.scale, -4, 4)
        return np.asarray(normal @ self.slope + self.intercept)

    def spread(self, yaw: Float[ndarray, " M"]) -> Float[ndarray, "M D"]:
        """`own_std` at yaw angles (degrees)."""
        yaw, last = np.abs(yaw), YAW_BINS[-1]
        columns = [np.interp(yaw, YAW_BINS, column) for column in self.own_std.T]
        return np.stack(columns, axis=1) * np.maximum(yaw / last, 1.0)[:, None] ** 2


def fit_regressions(samples: Samples, geometry: EvidenceGeometry) -> tuple[Regression, Regression]:
    """The model of an eye (five lid gaps, gaze yaw toward its outer side, gaze pitch) and of the mouth (three gaps)."""
    found = _features(samples, geometry)
    mouths = np.array([one.mouth for _, one in found])
    rows, yaw = np.array([row for row, _ in found]), np.array([one.angles[0] for _, one in found])
    mouth_truth = split_quantities(samples.truth[rows])[2]
    return (
        regress(*_eyes(samples, found), _EYE_FEATURES),
        regress(mouths, mouth_truth, samples.group[rows], yaw),
    )


def fit_own_eyes(
    eye: Regression, samples: Samples, geometry: EvidenceGeometry, ball: Float[ndarray, "3"]
) -> Regression:
    """`eye`, made with a head model with this `EvidenceGeometry.ball`, corrected for the model that samples show."""
    features, truth, group, yaw = _eyes(samples, _features(samples, geometry, ball))
    return regress(features, truth, group, yaw, about=eye)


def _features(
    samples: Samples, geometry: EvidenceGeometry, ball: Float[ndarray, "3"] | None = None
) -> list[tuple[int, Features]]:
    """Rows in which the head's pose was found, with their features; `ball` as of `features_of`."""
    out = []
    for row, landmarks in enumerate(samples.landmarks):
        found = features_of(geometry, landmarks, samples.scores[row], samples.K[row], ball)
        if found is not None:
            out.append((row, found))
    return out


def _eyes(samples: Samples, found: Sequence[tuple[int, Features]]) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Features (2M, F), truth (2M, 7), groups (2M, 2) and the view's yaw (2M,) of both eyes of M pictures."""
    features, truths, groups, yaws = [], [], [], []
    for row, one in found:
        for side, truth in enumerate(split_quantities(samples.truth[row])[:2]):
            # where an eye looks is not seen of one that is shut
            truth[_GAZE] = np.where(truth[_MIDDLE] >= OPEN_MM, truth[_GAZE], np.nan)
            features.append(one.eyes[side])
            truths.append(truth)
            groups.append(samples.group[row])
            yaws.append(one.angles[0])
    return np.array(features), np.array(truths), np.array(groups), np.array(yaws)


def split_quantities(values: Float[ndarray, "... Q"]) -> tuple[ndarray, ndarray, ndarray]:
    """Right eye, left eye (both: five gaps, yaw toward the outer side, pitch) and mouth of quantities."""
    gaps, lips, gaze = values[..., :10], values[..., 10:13], values[..., 13:17]
    # the subject's right is -x: its outer side lies at negative yaw
    right = np.concatenate([gaps[..., :5], -gaze[..., :1], gaze[..., 1:2]], axis=-1)
    left = np.concatenate([gaps[..., 5:], gaze[..., 2:]], axis=-1)
    return right, left, lips


def join_quantities(right: ndarray, left: ndarray, mouth: ndarray, signed: bool = True) -> Float[ndarray, "... Q"]:
    """The reverse; `signed` is false for standard deviations."""
    yaw = -right[..., 5:6] if signed else right[..., 5:6]
    return np.concatenate([right[..., :5], left[..., :5], mouth, yaw, right[..., 6:], left[..., 5:]], axis=-1)


def regress(
    features: Float[ndarray, "M F"],
    truth: Float[ndarray, "M D"],
    group: Int[ndarray, "M 2"],
    yaw: Float[ndarray, " M"],
    first: Sequence[int | None] | None = None,
    about: Regression | None = None,
) -> Regression:
    """Fits each quantity to the pictures that have it (NaN: none); the ridge and all standard deviations are those of
    identities that took no part. `first`: how many of the features each quantity is read from (None: all). `about`:
    a regression of which only the difference is fitted; pictures that are few say little against it."""
    mean = features.mean(0) if about is None else about.mean
    scale = np.maximum(features.std(0), 1e-9) if about is None else about.scale
    expected = np.zeros_like(truth) if about is None else about.predict(features)
    ridges = _RIDGES if about is None else _RIDGES_ABOUT
    every = np.clip((features - mean) / scale, -4, 4)
    slope, intercept, shared, own = [], [], [], []
    for column, used in zip((truth - expected).T, first or [None] * truth.shape[1], strict=True):
        rows = np.isfinite(column)
        normal, wanted, groups = every[rows, :used], column[rows], group[rows]
        fold = np.unique(groups[:, 0], return_inverse=True)[1] % _FOLDS
        parts = (0.2, 0.4, 0.4)
        for _ in range(3):
            whitened = _whitened(normal, wanted, groups, parts)
            errors = [_left_out(normal, wanted, whitened, fold, ridge) for ridge in ridges]
            best = int(np.argmin([np.mean(error**2) for error in errors]))
            parts = variance_parts(errors[best], groups)
        weights, offset = _solve(_whitened(normal, wanted, groups, parts), ridges[best])
        slope.append(np.pad(weights, (0, features.shape[1] - len(weights))))
        intercept.append(offset)
        shared.append(np.sqrt(parts[0]))
        own.append(_by_yaw(errors[best], yaw[rows], parts))
    slopes, offsets = np.stack(slope, axis=1), np.array(intercept)
    if about is not None:
        slopes, offsets = slopes + about.slope, offsets + about.intercept
    return Regression(mean, scale, slopes, offsets, np.array(shared), np.stack(own, axis=1))


def variance_parts(residual: Float[ndarray, " M"], group: Int[ndarray, "M 2"]) -> tuple[float, float, float]:
    """Variance shared by an identity, by an expression of it, and of each picture, by the method of moments."""
    _, identity = np.unique(group[:, 0], return_inverse=True)
    _, expression = np.unique(group, axis=0, return_inverse=True)
    expression = expression.reshape(-1)
    of_identity = _means(residual, identity)
    of_expression = _means(residual, expression)
    counts = np.bincount(expression)
    inside = ((residual - of_expression[expression]) ** 2).sum() / max(len(residual) - len(counts), 1)
    owner = np.zeros(len(counts), dtype=int)
    owner[expression] = identity
    per_identity = np.bincount(owner)
    spread = ((of_expression - _means(of_expression, owner)[owner]) ** 2).sum()
    middle = spread / max(len(counts) - len(per_identity), 1) - inside / counts.mean()
    outer = (of_identity**2).mean() - max(middle, 0) / per_identity.mean() - inside / np.bincount(identity).mean()
    least = 1e-4 * max(float(np.mean(residual**2)), 1e-12)
    return max(float(outer), least), max(float(middle), least), max(float(inside), least)


def _means(values: ndarray, index: ndarray) -> ndarray:
    return np.bincount(index, values) / np.bincount(index)


def _whitened(normal: ndarray, truth: ndarray, group: ndarray, parts: tuple[float, float, float]) -> ndarray:
    """(M, F + 2): features, a one and the quantity without what identities share; identities stay apart.

    Errors that views of one expression share are left in: features are noisy, the quantity is the same in all of these
    views, and where only their differences counted, slopes would come out near zero.
    """
    same_identity = group[:, None, 0] == group[None, :, 0]
    covariance = parts[0] * same_identity + (parts[1] + parts[2]) * np.eye(len(group))
    lower = np.linalg.cholesky(covariance / sum(parts))
    return np.linalg.solve(lower, np.concatenate([normal, np.ones((len(normal), 1)), truth[:, None]], axis=1))


def _left_out(normal: ndarray, truth: ndarray, whitened: ndarray, fold: ndarray, ridge: float) -> ndarray:
    """Errors in identities that took no part."""
    out = np.empty_like(truth)
    for number in np.unique(fold):
        test = fold == number
        weights, offset = _solve(whitened[~test], ridge)
        out[test] = truth[test] - normal[test] @ weights - offset
    return out


def _solve(whitened: ndarray, ridge: float) -> tuple[ndarray, float]:
    """Slopes and intercept."""
    left = whitened[:, :-1].T @ whitened[:, :-1]
    penalty = np.full(len(left), ridge * len(whitened) ** 0.5)
    penalty[-1] = 0.0
    found = np.linalg.solve(left + np.diag(penalty), whitened[:, :-1].T @ whitened[:, -1])
    return found[:-1], float(found[-1])


def _by_yaw(residual: ndarray, yaw: ndarray, parts: tuple[float, float, float]) -> ndarray:
    """Standard deviation at `YAW_BINS` of what an identity does not share."""
    centers, yaw = np.array(YAW_BINS), np.abs(yaw)
    # a picture counts for the two bins around it, as interpolation takes it back
    place = np.interp(yaw, centers, np.arange(len(centers)))
    weight = np.maximum(1 - np.abs(place[:, None] - np.arange(len(centers))), 0)
    usual = parts[1] + parts[2]
    pull = 10.0  # pictures' worth of the mean over all bins
    square = ((residual**2)[:, None] * weight).sum(0) - parts[0] * weight.sum(0)
    return np.sqrt(np.maximum((square + pull * usual) / (weight.sum(0) + pull), 0.25 * usual))


def _ridge(normal: ndarray, target: ndarray, ridge: float) -> ndarray:
    return np.asarray(np.linalg.solve(normal.T @ normal + ridge * np.eye(normal.shape[1]), normal.T @ target))
