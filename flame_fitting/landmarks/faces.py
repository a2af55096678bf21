"""Where a face is in a picture: MediaPipe's points serve detectors that have to be shown a box."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.landmarks.schemes import INNER_51, Scheme, scheme_named

if TYPE_CHECKING:
    from flame_fitting.landmarks.mediapipe_detector import MediaPipeDetector

_LEAST_CONFIDENCE = 0.05
"""Of points that are turned away, as MediaPipe's here."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture."""

    box: Float[ndarray, "4"]
    """Left, top, right, bottom of the 68 iBUG points (brows to chin, ear to ear), px, continuous."""
    visible: Float[ndarray, "68"] | None = None
    """How far each iBUG point's surface faces the camera, 0..1; None where only the box is known."""
    inner: Float[ndarray, "2"] | None = None
    """Middle of the box of the 51 inner points, px, which leaves the box's own in turned faces; None: not known."""

    @property
    def center(self) -> Float[ndarray, "2"]:
        """Middle of the box, px."""
        return 0.5 * (self.box[:2] + self.box[2:])

    @property
    def size(self) -> Float[ndarray, "2"]:
        """Width and height of the box, px."""
        return self.box[2:] - self.box[:2]


class FaceFinder:
    """The most prominent face of every picture, by MediaPipe's points."""

    def __init__(self) -> None:
        from flame_fitting.landmarks.mediapipe_detector import find_model

        self._detector = _mediapipe(find_model())

    @property
    def version(self) -> str:
        """Identifies what boxes depend on."""
        return self._detector.version.split("-")[0]

    def find(self, images: UInt8[ndarray, "B H W 3"]) -> list[Face | None]:
        """A face for each picture; None where none was found."""
        scheme = scheme_named(self._detector.scheme)
        found = self._detector.detect_quickly(images)[:, scheme.ibug68].astype(np.float64)
        return [face_of(points) if np.isfinite(points).all() else None for points in found]


@cache
def _mediapipe(model: Path) -> "MediaPipeDetector":
    """One for all detectors: each starts threads of its own."""
    from flame_fitting.landmarks.mediapipe_detector import MediaPipeDetector

    return MediaPipeDetector(model)


def face_of(points: Float[ndarray, "68 3"]) -> Face:
    """The face that iBUG points (x px, y px, confidence) belong to."""
    places = points[:, :2]
    inner = 0.5 * (places[INNER_51].min(0) + places[INNER_51].max(0))
    return Face(np.r_[places.min(0), places.max(0)], points[:, 2], inner)


def visibility(face: Face, points: Float[ndarray, "N 2"], scheme: Scheme) -> Float[ndarray, " N"]:
    """How far the surface at each point of a detector faces the camera, `_LEAST_CONFIDENCE`..1.

    As the face finder saw it where it did, else by the points themselves, by `side_visibility`.
    """
    if face.visible is None:
        return side_visibility(points, scheme)
    return np.clip(face.visible[nearest_ibug(scheme)], _LEAST_CONFIDENCE, 1.0)


def nearest_ibug(scheme: Scheme) -> ndarray:
    """(N,) number in iBUG-68 of the point that each point lies next to along the contours of its own part."""
    out = np.full(scheme.n_points, -1)
    out[scheme.ibug68] = np.arange(68)
    for group in scheme.groups.values():
        known = group[out[group] >= 0]
        if len(known):
            nearest = known[np.abs(group[:, None] - known).argmin(1)]
            out[group] = np.where(out[group] < 0, out[nearest], out[group])
    for side, eye in (("right_iris", "right_eye"), ("left_iris", "left_eye")):
        if side in scheme.groups:
            out[scheme.groups[side]] = out[scheme.groups[eye]][0]
    return out


def side_visibility(points: Float[ndarray, "N 2"], scheme: Scheme) -> Float[ndarray, " N"]:
    """How far each point's surface may face the camera, told by the foreshortening of one half of the face.

    A point and its mirror twin are equally far from the nose's line in a face that looks at the camera; the half that
    is turned away is narrow. 1 on the mid-line, and where a half is no narrower than half of the other one.
    """
    bridge = points[scheme.ibug68[[27, 28, 29, 30]]]
    across = points[scheme.ibug68[45]] - points[scheme.ibug68[36]]
    along = points[scheme.ibug68[8]] - points[scheme.ibug68[27]]
    # The eye line is short in profile, the face's long axis is not.
    axis = across + np.array([along[1], -along[0]])
    axis = axis / max(float(np.linalg.norm(axis)), 1e-9)
    offset = np.abs((points - bridge.mean(0)) @ axis)
    twin = offset[scheme.mirror]
    share = np.where(scheme.mirror == np.arange(len(points)), 1.0, offset / np.maximum(offset + twin, 1e-9))
    return np.clip(3.0 * share, _LEAST_CONFIDENCE, 1.0)


def agreement(spread: Float[ndarray, " N"], face_size: float) -> Float[ndarray, " N"]:
    """Confidence 0..1 by how far apart (px) several answers for a point are: a half at 2 percent of the face."""
    return 1.0 / (1.0 + (spread / (0.02 * max(face_size, 1e-6))) ** 2)
