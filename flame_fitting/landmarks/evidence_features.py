"""What a detection says of lids, lips and gaze, in numbers that a head's place in the picture does not change.

The head's pose is found by the points that expressions hardly move; the others are put at the depth that the template
has there, and measured in the head's own axes, in mm. A picture of the left eye is looked at as the mirror image of a
right one, so that both share one regression.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks import eyes
from flame_fitting.landmarks.mediapipe_detector import MEASURES, mirrored_scores
from flame_fitting.landmarks.schemes import scheme_named

# Pairs of points on the upper and the lower lid of the subject's right eye, outer to inner.
_RIGHT_LIDS = ((161, 163), (160, 144), (159, 145), (158, 153), (157, 154))
# The same on the lips, from the subject's right to the left: inner contour, then outer one.
_INNER_LIPS = ((81, 178), (13, 14), (311, 402))
_OUTER_LIPS = ((40, 91), (0, 17), (270, 321))
_EYE_SCORES = ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide")
_MOUTH_SCORES = (
    "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugUpper", "mouthUpperUpLeft", "mouthUpperUpRight",
    "mouthPressLeft", "mouthPressRight",
)  # fmt: skip
_BEHIND_LIDS = 0.009
"""Metres from the lids to the middle of an eyeball, of a model that has none."""
_BALL_RADIUS = 0.012
_IRIS_DEPTH = 0.89
"""Distance of an iris's plane from the middle of the eyeball, over the radius of the ball."""
LID_FEATURES = 43
"""So many of an eye's features, the first ones, say how far its lids are apart; gaze is read from all of them."""
_MOVED_BY_JAW = 0.3
"""Points of triangles with more weight of the jaw do not say where the head is."""


@dataclass(frozen=True, eq=False)
class FacePose:
    """Where the template stands before a camera."""

    rotation: Float[ndarray, "3 3"]
    """Camera from head, OpenCV axes."""
    translation: Float[ndarray, " 3"]
    """m, of the template; a larger head is nearer."""

    @property
    def angles(self) -> Float[ndarray, " 2"]:
        """Yaw and pitch (degrees) from which the camera looks at the head, as of planned views."""
        x, y, z = -self.rotation.T @ self.translation
        return np.degrees(np.array([np.arctan2(x, z), np.arcsin(y / max(np.linalg.norm([x, y, z]), 1e-12))]))


class EvidenceGeometry:
    """The template's points of a detector on one head model."""

    def __init__(self, head: HeadModel, embedding: LandmarkEmbedding) -> None:
        self.scheme = scheme_named(embedding.scheme)
        points = embedding.points(head.v_template[None], head.faces)[0]
        self.points: ndarray = points.detach().cpu().numpy().astype(np.float64)
        jaw = head.weights.cpu().numpy()[head.faces.cpu().numpy()][..., 2].mean(1)
        self.rigid: Bool[ndarray, " N"] = embedding.valid & (jaw[np.maximum(embedding.face_index, 0)] < _MOVED_BY_JAW)
        groups = self.scheme.groups
        for name in ("lips", "brows", "irises", self.scheme.contour):
            self.rigid[groups.get(name, np.zeros(0, dtype=int))] = False
        lids = np.setdiff1d(groups["eyes"], self.scheme.ibug68[[36, 39, 42, 45]])
        self.rigid[lids] = False
        self.balls: Float[ndarray, "2 3"] = np.zeros((2, 3))
        """Middles of the right and of the left eyeball, m."""
        self.radius = _BALL_RADIUS
        """Of an eyeball, m."""
        weights, template = head.weights.cpu().numpy(), head.v_template.detach().cpu().numpy().astype(np.float64)
        for side, joint in enumerate((4, 3)):
            ball = template[weights[:, joint] > 0.5]
            corners = self.points[self.corners[side]]
            self.balls[side] = corners.mean(0) - (0, 0, _BEHIND_LIDS)
            if len(ball):
                self.balls[side] = 0.5 * (ball.min(0) + ball.max(0))
                self.radius = 0.25 * float(np.ptp(ball, axis=0)[:2].sum())

    @property
    def ball(self) -> Float[ndarray, "3"]:
        """Middle of an eyeball from the middle between its eye's corners, m, of a right eye."""
        away = self.balls - self.points[self.corners].mean(1)
        return np.asarray((away * ((1, 1, 1), (-1, 1, 1))).mean(0))

    @property
    def corners(self) -> Int[ndarray, "2 2"]:
        """Which points are the outer and inner corner of the right and of the left eye."""
        return self.scheme.ibug68[[[36, 39], [45, 42]]]

    def pose(self, landmarks: Float[ndarray, "N 3"], K: Float[ndarray, "3 3"]) -> FacePose | None:
        """Pose by the points that expressions hardly move; None where too few of them were seen."""
        use = self.rigid & np.isfinite(landmarks).all(-1) & np.isfinite(self.points).all(-1)
        if use.sum() < 8:
            return None
        pixels = np.ascontiguousarray(landmarks[use, :2], dtype=np.float64)
        # OpenCV refines what it begins with: a wrong start on the far side of the head would stay there
        found, turn, place = cv2.solvePnP(self.points[use], pixels, K, None, flags=cv2.SOLVEPNP_SQPNP)
        if found:
            turn, place = cv2.solvePnPRefineLM(self.points[use], pixels, K, None, turn, place)
        if not found or not np.isfinite(turn).all() or place[2, 0] <= 0:
            return None
        return FacePose(cv2.Rodrigues(turn)[0], place[:, 0])

    def in_head(
        self, landmarks: Float[ndarray, "N 3"], K: Float[ndarray, "3 3"], pose: FacePose
    ) -> Float[ndarray, "N 3"]:
        """Detected points (mm, the head's axes) at the depths that the template's have."""
        depth = (self.points @ pose.rotation.T + pose.translation)[:, 2]
        rays = np.concatenate([landmarks[:, :2], np.ones((len(landmarks), 1))], axis=1) @ np.linalg.inv(K).T
        return np.asarray(1000 * ((rays * depth[:, None] - pose.translation) @ pose.rotation))


@dataclass(frozen=True, eq=False)
class Features:
    """Of one picture."""

    eyes: Float[ndarray, "2 E"]
    """Subject's right eye, and the left one as if mirrored."""
    mouth: Float[ndarray, " M"]
    angles: Float[ndarray, " 2"]
    """Yaw and pitch of the view, degrees."""


def features_of(
    geometry: EvidenceGeometry,
    landmarks: Float[ndarray, "478 3"],
    scores: Float[ndarray, " S"],
    K: ndarray,
    ball: Float[ndarray, "3"] | None = None,
) -> Features | None:
    """None where the head's pose could not be found, or its eyes are too small to be looked at.

    `ball` is `EvidenceGeometry.ball` of the model that a calibration was made with: the eyeballs of another model lie
    elsewhere behind its lids. None: the same model.
    """
    pose = geometry.pose(landmarks, K)
    measures = scores[[MEASURES.index(name) for name in eyes.NAMES]]
    if pose is None or not np.isfinite(measures).all():
        return None
    local = geometry.in_head(landmarks, K, pose)
    flipped = local[geometry.scheme.mirror] * (-1, 1, 1)
    yaw, pitch = pose.angles / 30
    seen, told = eyes.places_of(landmarks[:, :2], measures), np.degrees(eyes.split_measures(measures)[1])
    shift = np.zeros(3) if ball is None else geometry.ball - ball
    own, other = (_seen_in_head(geometry, seen[side], told[side], K, pose, side, shift) for side in range(2))
    right = _of_eye(local, own, other, scores, yaw, pitch)
    left = _of_eye(flipped, other, own, scores[mirrored_scores()], -yaw, pitch)
    return Features(np.stack([right, left]), _of_mouth(local, scores, yaw, pitch), 30 * np.array([yaw, pitch]))


@dataclass(frozen=True, eq=False)
class _SeenEye:
    """What the picture shows of an eye, in the axes of a head whose eye it would be if it were the right one."""

    places: Float[ndarray, "14 2"]
    """mm from the middle between the corners."""
    gaze: Float[ndarray, "2 2"]
    """Yaw toward the outer side and pitch (degrees) about the eyeball that is seen, and about the one that the corners
    let expect."""
    told: Float[ndarray, "2"]
    """The same, as the network reads it from both eyes at once."""


def _seen_in_head(
    geometry: EvidenceGeometry,
    seen: Float[ndarray, "14 2"],
    told: Float[ndarray, "2"],
    K: ndarray,
    pose: FacePose,
    side: int,
    shift: Float[ndarray, "3"],
) -> _SeenEye:
    rays = np.concatenate([seen, np.ones((len(seen), 1))], axis=1) @ np.linalg.inv(K).T
    corners = geometry.points[geometry.corners[side]].mean(0)
    # lids and corners at the depth of the template's corners, the ball behind
    depth = float((pose.rotation @ corners + pose.translation)[2])
    behind = float((pose.rotation @ geometry.balls[side] + pose.translation)[2])
    local = (rays * depth - pose.translation) @ pose.rotation
    middle = local[[eyes.OUTER, eyes.INNER]].mean(0)
    flip = np.array([1.0, 1.0, 1.0]) if side == 0 else np.array([-1.0, 1.0, 1.0])
    ball = rays[eyes.BALL] * behind + pose.rotation @ (flip * shift)
    expected = pose.rotation @ (middle + geometry.balls[side] - corners) + pose.translation
    gaze = []
    for center in (ball, expected):
        toward = pose.rotation.T @ (_on_sphere(rays[eyes.IRIS], center, _IRIS_DEPTH * geometry.radius) - center)
        x, y, z = flip * toward / np.linalg.norm(toward)
        gaze.append(np.degrees([np.arctan2(-x, z), np.arcsin(np.clip(y, -1, 1))]))
    # the network knows the eyeballs of the model that it learned from: on others irises stand elsewhere before them
    about_own = told + np.degrees(shift[:2] * (1, -1) / (_IRIS_DEPTH * geometry.radius))
    return _SeenEye(1000 * ((local - middle) * flip)[:, :2], np.stack(gaze), about_own)


def _on_sphere(ray: Float[ndarray, "3"], center: Float[ndarray, "3"], radius: float) -> Float[ndarray, "3"]:
    """Where a ray from the camera meets a sphere first, or comes nearest to it."""
    ray = ray / np.linalg.norm(ray)
    along = float(ray @ center)
    inside = radius**2 - float(center @ center) + along**2
    return np.asarray(ray * (along - np.sqrt(max(inside, 0.0))))


def _of_eye(
    local: Float[ndarray, "478 3"], own: _SeenEye, other: _SeenEye, scores: ndarray, yaw: float, pitch: float
) -> Float[ndarray, " E"]:
    """Features of the right eye, with the left one beside: eyes blink and look together."""
    named = dict(zip(MEASURES, scores, strict=True))
    gaps = [
        own.places[eyes.UPPER, 1] - own.places[eyes.LOWER, 1],
        other.places[eyes.UPPER, 1] - other.places[eyes.LOWER, 1],
    ]
    points = [local[a, 1] - local[b, 1] for a, b in _RIGHT_LIDS]
    middle = local[[33, 133]].mean(0)
    width = float(np.linalg.norm(own.places[eyes.OUTER] - own.places[eyes.INNER]))
    (x, y), (x2, y2) = own.gaze / 10
    other_x, other_y = -other.gaze[0, 0] / 10, other.gaze[0, 1] / 10
    gap, other_gap = float(gaps[0].mean()), float(gaps[1].mean())
    out: list[float] = [*gaps[0], *gaps[1], *points, width]
    out += [named[name + side] for side in ("Right", "Left") for name in _EYE_SCORES]
    out += [yaw, pitch, yaw**2, pitch**2, yaw * pitch]
    out += [gap * yaw, gap * abs(yaw), gap * pitch, gap * gap, other_gap * yaw, gap * y, gap * named["eyeBlinkRight"]]
    out += [y * named["eyeBlinkRight"]]
    assert len(out) == LID_FEATURES
    out += [*own.places[eyes.UPPER, 1], *own.places[eyes.LOWER, 1]]
    out += [*own.places[eyes.IRIS], *own.places[eyes.BALL], *(local[468] - middle)[:2]]
    out += [x, y, x2, y2, other_x, other_y, *(other.gaze[1] * (-0.1, 0.1))]
    out += [x * yaw, x * abs(yaw), x * pitch, y * yaw, y * abs(yaw), y * pitch, x * x, y * y, x * y, y**3, x**3]
    out += [other_x * yaw, other_y * pitch, other_x * abs(yaw)]
    u, v = own.told / 10
    out += [u, v, *(other.told * (-0.1, 0.1)), u * yaw, u * abs(yaw), u * pitch, v * yaw, v * abs(yaw), v * pitch]
    out += [u * u, v * v, u * v]
    return np.array(out)


def _of_mouth(local: ndarray, scores: ndarray, yaw: float, pitch: float) -> ndarray:
    named = dict(zip(MEASURES, scores, strict=True))
    inner = [local[a, 1] - local[b, 1] for a, b in _INNER_LIPS]
    outer = [local[a, 1] - local[b, 1] for a, b in _OUTER_LIPS]
    width = np.linalg.norm(local[61, :2] - local[291, :2])
    drop = local[2, 1] - local[152, 1]  # from the nose to the chin
    out: list[float] = [*inner, *outer, float(width), float(drop), *(named[name] for name in _MOUTH_SCORES)]
    gap = float(np.mean(inner))
    out += [yaw, pitch, yaw**2, pitch**2, gap * abs(yaw), gap * pitch, gap * gap, gap * named["jawOpen"]]
    out += [named["jawOpen"] ** 2, named["mouthClose"] ** 2, named["mouthClose"] * named["jawOpen"]]
    return np.array(out)
