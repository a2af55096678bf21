"""What a detection says of lids, lips and gaze, in numbers that a head's place in the picture does not change.

The head's pose is found by the points that expressions hardly move; the others are put at the depth that the template
has there, and measured in the head's own axes, in mm. A picture of the left eye is looked at as the mirror image of a
right one, so that both share one regression.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks import iris
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
_SEEN_RIGHT, _SEEN_LEFT = 470, 475
"""Rim points that are mirror twins of each other."""
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
    geometry: EvidenceGeometry, landmarks: Float[ndarray, "478 3"], scores: Float[ndarray, " S"], K: ndarray
) -> Features | None:
    """None where the head's pose could not be found."""
    pose = geometry.pose(landmarks, K)
    if pose is None:
        return None
    # the irises of the picture take the place of the network's rims' upper points, which say little beside the centres
    landmarks = landmarks.copy()
    seen = iris.place_of(landmarks[:, :2], scores[[MEASURES.index(name) for name in iris.NAMES]])
    landmarks[[_SEEN_RIGHT, _SEEN_LEFT], :2] = seen
    local = geometry.in_head(landmarks, K, pose)
    flipped = local[geometry.scheme.mirror] * (-1, 1, 1)
    yaw, pitch = pose.angles / 30
    own = _of_eyes(local, scores, yaw, pitch)
    other = _of_eyes(flipped, scores[mirrored_scores()], -yaw, pitch)
    return Features(np.stack([own, other]), _of_mouth(local, scores, yaw, pitch), 30 * np.array([yaw, pitch]))


def _of_eyes(local: ndarray, scores: ndarray, yaw: float, pitch: float) -> ndarray:
    """Features of the right eye, with the left one beside: eyes blink and look together."""
    named = dict(zip(MEASURES, scores, strict=True))
    mirror = scheme_named("mediapipe478").mirror
    out: list[float] = []
    irises = []
    for side, twin in (("Right", np.arange(478)), ("Left", mirror)):
        sign = 1 if side == "Right" else -1
        gaps = [local[twin[a], 1] - local[twin[b], 1] for a, b in _RIGHT_LIDS]
        corners = local[twin[[33, 133]]]
        middle, width = corners.mean(0), float(np.linalg.norm(corners[0, :2] - corners[1, :2]))
        center = local[twin[468]] - middle
        upper = float(np.mean([local[twin[a], 1] for a, _ in _RIGHT_LIDS]) - middle[1])
        radius = float(np.linalg.norm(local[twin[[469, 471]], :2] - local[twin[468], :2], axis=1).mean())
        seen = local[twin[_SEEN_RIGHT]] - middle
        irises.append((sign * float(seen[0]), float(seen[1]), float(np.mean(gaps))))
        out += [
            *gaps,
            sign * center[0],
            center[1],
            sign * seen[0],
            seen[1],
            upper,
            width,
            radius,
            *(named[name + side] for name in _EYE_SCORES),
        ]
    (x, y, gap), (other_x, other_y, other_gap) = irises
    looks = named["eyeLookOutRight"] - named["eyeLookInRight"], named["eyeLookUpRight"] - named["eyeLookDownRight"]
    out += [yaw, pitch, yaw**2, pitch**2, yaw * pitch]
    out += [x * yaw, x * abs(yaw), x * pitch, y * yaw, y * pitch, other_x * yaw, other_y * pitch, x * x, y * y, x * y]
    out += [gap * yaw, gap * abs(yaw), gap * pitch, gap * gap, other_gap * yaw, gap * y, gap * named["eyeBlinkRight"]]
    out += [named["eyeBlinkRight"] ** 2, named["eyeLookDownRight"] ** 2, named["eyeWideRight"] ** 2]
    out += [looks[0] * yaw, looks[1] * pitch, looks[0] * abs(looks[0]), looks[1] * abs(looks[1])]
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
