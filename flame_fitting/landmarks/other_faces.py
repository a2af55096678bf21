"""Pictures with several faces: all are kept, and the one that agrees over views, or over time, is the head's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.errors import InputError
from flame_fitting.landmarks.lifting import triangulate
from flame_fitting.landmarks.outliers import face_sizes

_CAP = 0.5
"""Share of a face's size beyond which a view disagrees, however much."""
_PROMINENT = 0.15
"""What a face less prominent than the largest of its picture costs, in jumps of a face's size."""


def _no(*shape: int) -> ndarray:
    return np.zeros(shape, dtype=np.float32)


@dataclass(eq=False)
class OtherFaces:
    """K faces beside those that were chosen."""

    NAMES: ClassVar[tuple[str, ...]] = ("others", "others_scores", "others_at")
    """Of the arrays in a file."""

    landmarks: Float[ndarray, "K N 3"] = field(default_factory=lambda: _no(0, 0, 3))
    """px; by picture from the most prominent one on."""
    scores: Float[ndarray, "K S"] = field(default_factory=lambda: _no(0, 0))
    at: Int[ndarray, "K 2"] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    """Row (timestep) and column (camera) of each one's picture."""

    def __len__(self) -> int:
        return len(self.at)

    def arrays(self) -> dict[str, ndarray]:
        """As they are written."""
        return dict(zip(self.NAMES, (self.landmarks, self.scores, self.at), strict=True))

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, ndarray], shape: tuple[int, ...], n_scores: int, name: str, again: str
    ) -> "OtherFaces":
        """Those of a file with landmarks of a shape (T, C, N, 3); none where it has none. Raises InputError."""
        if cls.NAMES[0] not in arrays:
            return cls()
        landmarks, scores, at = (arrays.get(key, np.zeros(0)) for key in cls.NAMES)
        count = len(landmarks)
        right = landmarks.shape == (count, *shape[2:]) and scores.shape == (count, n_scores) and at.shape == (count, 2)
        if not right or at.dtype.kind not in "iu" or (at < 0).any() or (at >= shape[:2]).any():
            raise InputError(f"{name}: further faces do not fit its landmarks. {again}")
        return cls(landmarks.astype(np.float32), scores.astype(np.float32), at.astype(np.int64))

    def without(self, row: int, column: int) -> "OtherFaces":
        """Without those of one picture."""
        keep = (self.at != (row, column)).any(1)
        return OtherFaces(self.landmarks[keep], self.scores[keep], self.at[keep])

    def with_more(self, landmarks: ndarray, scores: ndarray, row: int, column: int) -> "OtherFaces":
        """With further ones of one picture."""
        if not len(landmarks):
            return self
        at = np.tile([row, column], (len(landmarks), 1))
        if not len(self):
            return OtherFaces(landmarks.astype(np.float32), scores.astype(np.float32), at)
        return OtherFaces(
            np.concatenate([self.landmarks, landmarks.astype(np.float32)]),
            np.concatenate([self.scores, scores.astype(np.float32)]),
            np.concatenate([self.at, at]),
        )


def choose_over_views(
    faces: list[Float[ndarray, "_ N 3"]], K: Float[ndarray, "C 3 3"], world_to_camera: Float[ndarray, "C 4 4"]
) -> list[int]:
    """Which face of each of C calibrated views belongs to one head; -1 where there is none.

    Every pair of faces of two views is triangulated; the pair wins whose points lie where most other views have a face.
    With fewer than three views that have one, the most prominent ones win.
    """
    views = [k for k, candidates in enumerate(faces) if len(candidates)]
    first = [0 if len(candidates) else -1 for candidates in faces]
    if len(views) < 3 or all(len(faces[k]) == 1 for k in views):
        return first
    # some points of the whole face are enough
    few = [candidates[:, :: max(1, candidates.shape[1] // 24)].astype(np.float64) for candidates in faces]
    size = [face_sizes(candidates) for candidates in faces]
    best: tuple[float, list[int]] | None = None
    for number, a in enumerate(views):
        for b in views[number + 1 :]:
            for i in range(len(few[a])):
                for j in range(len(few[b])):
                    cost, chosen = _agreement(few, size, views, (a, i), (b, j), K, world_to_camera)
                    # prominence decides between faces that agree as well
                    cost += 1e-3 * sum(chosen[k] for k in views)
                    if best is None or cost < best[0]:
                        best = cost, chosen
    return best[1] if best is not None and np.isfinite(best[0]) else first


def _agreement(
    few: list[ndarray],
    size: list[ndarray],
    views: list[int],
    first: tuple[int, int],
    second: tuple[int, int],
    K: ndarray,
    world_to_camera: ndarray,
) -> tuple[float, list[int]]:
    """Mean error of all views under the points of one pair of faces, and the face of each view that is nearest."""
    chosen = [-1] * len(few)
    pair = [first[0], second[0]]
    pixels = np.stack([few[first[0]][first[1], :, :2], few[second[0]][second[1], :, :2]])
    seen = np.isfinite(pixels).all(-1)
    found = triangulate(np.nan_to_num(pixels), seen.astype(float), K[pair], world_to_camera[pair])
    known = np.isfinite(found.points).all(1)
    if known.sum() < 5:
        return np.inf, chosen
    again = project(found.points[known], K[views], world_to_camera[views])
    total = 0.0
    for row, view in enumerate(views):
        distance = np.linalg.norm(few[view][:, known, :2] - again[row, :, :2], axis=-1)
        error = np.nanmedian(distance, axis=1) / np.maximum(size[view], 1e-6)
        error = np.where(again[row, :, 2].min() > 0, error, np.inf)
        chosen[view] = int(np.argmin(error))
        total += min(float(error.min()), _CAP)
    return total / len(views), chosen


def choose_over_time(faces: list[Float[ndarray, "_ N 3"]]) -> list[int]:
    """Which face of each frame is the one that moves on steadily; -1 where there is none.

    The cheapest path through all frames (Viterbi, 1967): a step costs how far the face jumps, in sizes of a face, and a
    face that is not its picture's most prominent one a little.
    """
    rows = [k for k, candidates in enumerate(faces) if len(candidates)]
    out = [-1] * len(faces)
    if not rows:
        return out
    places = [np.nanmedian(faces[k][..., :2], axis=1) for k in rows]
    sizes = [np.maximum(face_sizes(faces[k]), 1e-6) for k in rows]
    cost = _PROMINENT * (np.arange(len(places[0])) > 0)
    back: list[ndarray] = []
    for step in range(1, len(rows)):
        between = np.linalg.norm(places[step][None] - places[step - 1][:, None], axis=-1)
        jump = between / np.sqrt(sizes[step][None] * sizes[step - 1][:, None])
        jump += np.abs(np.log(sizes[step][None] / sizes[step - 1][:, None]))
        # a long gap says less of where the face went
        jump = np.minimum(jump, 3.0) / np.sqrt(rows[step] - rows[step - 1])
        every = cost[:, None] + jump
        back.append(every.argmin(0))
        cost = every.min(0) + _PROMINENT * (np.arange(len(places[step])) > 0)
    at = int(cost.argmin())
    for step in range(len(rows) - 1, -1, -1):
        out[rows[step]] = at
        at = int(back[step - 1][at]) if step else at
    return out
