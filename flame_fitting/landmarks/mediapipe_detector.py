"""MediaPipe Face Landmarker: 478 points, on the CPU, deterministic.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019, and Grishchenko et al.,
"Attention Mesh", 2020. The network sees a crop that it derives from six coarse key points of a first network, so its
points move with that crop by a few tenths of a percent of the face. Here every face is therefore detected again in
several crops of our own (turned upright, shifted, scaled, mirrored), and the median is kept.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.landmarks import eyes, mediapipe_tasks
from flame_fitting.landmarks import mediapipe_topology as topology
from flame_fitting.landmarks.detector import FacesSeen, LandmarkDetector
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.log import quiet_native_stderr

MODEL_VARIABLE = "FLAME_FITTING_MEDIAPIPE_MODEL"
MODEL_FILE = "face_landmarker_v2.task"


@dataclass(frozen=True)
class MediaPipeConfig:
    """How faces are searched and refined."""

    detection_confidence: float = 0.3
    """Least score of the coarse face detector."""
    presence_confidence: float = 0.3
    """Least score of the landmark network's own answer whether a face is there."""
    jitter: int = 6
    """Crops per face whose median is kept; 0 keeps the points of the whole picture."""
    crop_size: int = 384
    """Side of a crop in px."""
    crop_factor: float = 1.9
    """Side of a crop over the larger side of the face's bounding box."""


# Shift x, shift y (fractions of the crop), scale, turn (degrees), mirrored. In pairs with the mirrored twin, because
# the network's errors are not mirror-symmetric and half of each pair's error cancels.
_JITTER = (
    (0.0, 0.0, 1.0, 0.0, False),
    (0.0, 0.0, 1.0, 0.0, True),
    (0.03, -0.02, 1.08, 4.0, False),
    (-0.03, -0.02, 1.08, -4.0, True),
    (-0.03, 0.02, 0.93, -4.0, False),
    (0.03, 0.02, 0.93, 4.0, True),
    (0.015, 0.03, 1.03, -7.0, False),
    (-0.015, 0.03, 1.03, 7.0, True),
    (-0.015, -0.03, 0.97, 7.0, False),
    (0.015, -0.03, 0.97, -7.0, True),
    (0.04, 0.0, 1.12, 2.0, False),
    (-0.04, 0.0, 1.12, -2.0, True),
)


SCORE_NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""The 52 scores of the Face Landmarker's model file, in its order: ARKit's names, left and right the subject's."""


MEASURES = SCORE_NAMES + eyes.NAMES
"""The scores, and what the picture shows of the eyes."""


def mirrored_scores(names: tuple[str, ...] = MEASURES) -> ndarray:
    """Which score each one becomes in a mirrored picture."""
    swapped = {"Left": "Right", "Right": "Left"}
    ends = {name: next((end for end in swapped if name.endswith(end)), "") for name in names}
    return np.array([names.index(name.removesuffix(end) + swapped.get(end, "")) for name, end in ends.items()])


_MIRRORED_SCORES = mirrored_scores(SCORE_NAMES)


@dataclass(eq=False)
class _Face:
    """One face as the network sees it in one picture."""

    points: ndarray
    """(N, 3) px."""
    scores: ndarray
    """(52,)."""


class MediaPipeDetector(LandmarkDetector):
    """The Face Landmarker task in image mode."""

    name = "mediapipe"
    scheme = "mediapipe478"
    score_names = MEASURES

    def __init__(
        self,
        model_path: Path | str | None = None,
        config: MediaPipeConfig | None = None,
        log_file: Path | str | None = None,
    ) -> None:
        self.model_path = find_model(model_path)
        self.config = config or MediaPipeConfig()
        self._log_file = log_file
        self._landmarkers: dict[int, Any] = {}

    @cached_property
    def version(self) -> str:  # type: ignore[override]
        """Hashes of the weights, the eyes' network's too, and the settings that change results."""
        c = self.config
        settings = f"{c.jitter}-{c.crop_size}-{c.crop_factor:g}"
        return f"{sha256_of_file(self.model_path)[:16]}-{settings}-{sha256_of_file(eyes.network_path())[:8]}"

    def detect(self, images: UInt8[ndarray, "B H W 3"]) -> Float[ndarray, "B N 3"]:
        """See `LandmarkDetector.detect`."""
        return self._detect(images, self.config.jitter > 0)

    def detect_quickly(self, images: UInt8[ndarray, "B H W 3"]) -> Float[ndarray, "B N 3"]:
        """See `LandmarkDetector.detect_quickly`: one pass over each whole picture."""
        return self._detect(images, False)

    def look(self, images: UInt8[ndarray, "B H W 3"], most_faces: int = 1) -> list[FacesSeen]:
        """See `LandmarkDetector.look`; scores are means over the crops, too."""
        return [self._look(image, most_faces) for image in images]

    def _detect(self, images: ndarray, refine: bool) -> ndarray:
        out = np.full((len(images), self.n_points, 3), np.nan, dtype=np.float32)
        for i, image in enumerate(images):
            for face in self._faces(image):
                out[i] = self._landmarks(image, face, refine)[0]
        return out

    def _look(self, image: ndarray, most_faces: int) -> FacesSeen:
        from flame_fitting.landmarks.eye_network import find_eyes

        faces = self._faces(image, most_faces)
        landmarks = np.full((len(faces), self.n_points, 3), np.nan, dtype=np.float32)
        scores = np.zeros((len(faces), len(MEASURES)), dtype=np.float32)
        for i, face in enumerate(faces):
            landmarks[i], face = self._landmarks(image, face, self.config.jitter > 0)
            scores[i] = np.concatenate([face.scores, find_eyes(image, face.points[:, :2])])
        return FacesSeen(landmarks, scores)

    def _landmarks(self, image: ndarray, face: _Face, refine: bool) -> tuple[ndarray, _Face]:
        """x px, y px and confidence (N, 3) of a face, and that face, refined where asked."""
        spread = np.zeros(self.n_points)
        if refine:
            face, spread = self._refine(image, face)
        confidence = topology.visibility(face.points) * _agreement(face.points, spread)
        return np.column_stack([face.points[:, :2], confidence]), face

    def close(self) -> None:
        """Frees the network."""
        landmarkers, self._landmarkers = self._landmarkers, {}
        for landmarker in landmarkers.values():
            with quiet_native_stderr(self._log_file):
                landmarker.close()

    def _faces(self, image: ndarray, most_faces: int = 1) -> list[_Face]:
        """The faces in a whole picture, the most prominent one first."""
        import mediapipe

        if most_faces not in self._landmarkers:
            self._start(most_faces)
        image = np.ascontiguousarray(image)
        found = self._landmarkers[most_faces].detect(
            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        )
        height, width = image.shape[:2]
        out = []
        for points, scores in zip(found.face_landmarks, found.face_blendshapes, strict=True):
            places = np.array([(p.x, p.y, p.z) for p in points], dtype=np.float64) * (width, height, width)
            # the file's order, whatever order they are handed out in
            by_name = {one.category_name: one.score for one in scores}
            out.append(_Face(places, np.array([by_name.get(name, 0.0) for name in SCORE_NAMES])))
        return out

    def _refine(self, image: ndarray, face: _Face) -> tuple[_Face, ndarray]:
        """Median of points and mean of scores over jittered crops, and the points' median distance from it (N,), px."""
        found, scores = [], []
        points = face.points
        for jitter in _JITTER[: self.config.jitter]:
            crop_from_image = _crop_matrix(points, jitter, self.config)
            size = self.config.crop_size
            # INTER_AREA is ignored by warpAffine; blur first where the crop shrinks the picture.
            scale = float(np.hypot(*crop_from_image[0, :2]))
            source = image if scale >= 1 else cv2.GaussianBlur(image, (0, 0), 0.4 * (1 / scale - 1) + 0.3)
            crop = cv2.warpAffine(
                source, _to_cv(crop_from_image), (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            seen = self._faces(crop)
            if not seen:
                continue
            local = seen[0].points
            if jitter[4]:
                local = local[scheme_named(self.scheme).mirror]
            scores.append(seen[0].scores[_MIRRORED_SCORES] if jitter[4] else seen[0].scores)
            image_from_crop = np.linalg.inv(crop_from_image)
            mapped = np.empty_like(local)
            mapped[:, :2] = local[:, :2] @ image_from_crop[:2, :2].T + image_from_crop[:2, 2]
            mapped[:, 2] = local[:, 2] / scale
            found.append(mapped)
        if len(found) < max(1, self.config.jitter // 2):
            return face, np.full(len(points), 0.02 * _face_size(points))
        stack = np.stack(found)
        median = np.median(stack, axis=0)
        spread = np.median(np.linalg.norm(stack[..., :2] - median[:, :2], axis=-1), axis=0)
        return _Face(median, np.mean(scores, axis=0)), spread

    def _start(self, most_faces: int) -> None:
        os.environ.setdefault("GLOG_minloglevel", "2")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with quiet_native_stderr(self._log_file):
            try:
                import mediapipe
                from mediapipe.tasks.python import BaseOptions, vision
            except (ImportError, OSError) as error:
                raise InputError(
                    f"mediapipe cannot be loaded ({error}). Install it with: pip install mediapipe, and its system"
                    " libraries with: apt install libgl1 libegl1 libgles2 libglib2.0-0"
                ) from error
            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(self.model_path)),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=most_faces,
                output_face_blendshapes=True,
                min_face_detection_confidence=self.config.detection_confidence,
                min_face_presence_confidence=self.config.presence_confidence,
            )
            try:
                landmarker = vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError) as error:
                raise InputError(
                    f"{self.model_path}: not a Face Landmarker model ({error}). Give another file with --model-path."
                ) from error
            mediapipe_tasks.keep(self, landmarker)
            # The network's threads print when the first picture arrives: let that happen while nobody looks.
            blank = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.zeros((64, 64, 3), np.uint8))
            landmarker.detect(blank)
            self._landmarkers[most_faces] = landmarker


def find_model(model_path: Path | str | None = None) -> Path:
    """The Face Landmarker's weights: the given file, else that of `FLAME_FITTING_MEDIAPIPE_MODEL`, else the one that
    comes with this program."""
    if model_path is None:
        model_path = os.environ.get(MODEL_VARIABLE) or None
    if model_path is not None:
        path = Path(model_path)
        if not path.is_file():
            raise InputError(f"{path}: no such model file. Give the Face Landmarker's .task file with --model-path.")
        return path
    own = assets.asset_dir() / "mediapipe" / MODEL_FILE
    if own.is_file():
        return own
    raise InputError(
        f"{own}: no such file. The MediaPipe Face Landmarker's weights come with flame-fitting: install it again, or"
        " give the .task file with --model-path."
    )


def _face_size(points: ndarray) -> float:
    return float((points[:, :2].max(0) - points[:, :2].min(0)).max())


def _crop_matrix(points: ndarray, jitter: tuple[float, float, float, float, bool], config: MediaPipeConfig) -> ndarray:
    """Crop-from-picture (3, 3) of an upright square around the face."""
    shift_x, shift_y, zoom, turn, mirrored = jitter
    right_eye, left_eye = (points[list(group), :2].mean(0) for group in (topology.RIGHT_EYE, topology.LEFT_EYE))
    brow, chin = points[topology.FOREHEAD_TOP, :2], points[topology.CHIN, :2]
    # The eye line is short in profile and the face's long axis leans with pitch: together they give the roll.
    across, along = left_eye - right_eye, chin - brow
    axis = across + np.array([along[1], -along[0]])
    angle = np.arctan2(axis[1], axis[0]) + np.radians(turn)
    center = 0.5 * (points[:, :2].min(0) + points[:, :2].max(0))
    side = config.crop_factor * _face_size(points) / zoom
    scale = config.crop_size / side
    cos, sin = np.cos(-angle) * scale, np.sin(-angle) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    if mirrored:
        linear[0] *= -1
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = config.crop_size * (0.5 + np.array([shift_x, shift_y])) - linear @ center
    return out


def _to_cv(matrix: ndarray) -> ndarray:
    """The (2, 3) matrix that OpenCV wants: its pixel centres lie on whole numbers, ours on halves."""
    shift = np.eye(3)
    shift[:2, 2] = 0.5
    return (np.linalg.inv(shift) @ matrix @ shift)[:2]


def _agreement(points: ndarray, spread: ndarray) -> ndarray:
    """1 where the crops agree to better than half a percent of the face's size, falling with their disagreement."""
    relative = spread / (0.02 * max(_face_size(points), 1e-6))
    return 1.0 / (1.0 + relative**2)
