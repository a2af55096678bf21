"""Boxes of all faces in a picture, by the coarse detector in MediaPipe's Face Landmarker file.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019: the short-range model, for
faces that fill a fair part of the picture.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.landmarks import mediapipe_tasks
from flame_fitting.landmarks.mediapipe_detector import find_model
from flame_fitting.log import quiet_native_stderr

_NETWORK = "face_detector.tflite"

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in 0..1 of the picture's width and height."""


class FaceBoxes:
    """Finds where faces are, and how many."""

    def __init__(self, model_path: Path | str | None = None, least_score: float = 0.5) -> None:
        """Reads the network from the Face Landmarker's .task file; InputError where that fails."""
        path = find_model(model_path)
        try:
            with zipfile.ZipFile(path) as archive:
                network = archive.read(_NETWORK)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: there is no {_NETWORK} in it ({error}). Give the .task file.") from error
        os.environ.setdefault("GLOG_minloglevel", "2")
        with quiet_native_stderr():
            from mediapipe.tasks.python import BaseOptions, vision

            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_buffer=network),
                running_mode=vision.RunningMode.IMAGE,
                min_detection_confidence=least_score,
            )
            self._detector = vision.FaceDetector.create_from_options(options)
            mediapipe_tasks.keep(self, self._detector)
            self.find(np.zeros((64, 64, 3), np.uint8))

    def find(self, picture: UInt8[ndarray, "H W 3"]) -> list[Box]:
        """Boxes of the faces in an sRGB picture, the largest first."""
        import mediapipe

        height, width = picture.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        boxes = [found.bounding_box for found in self._detector.detect(image).detections]
        boxes.sort(key=lambda box: box.width * box.height, reverse=True)
        return [
            (b.origin_x / width, b.origin_y / height, (b.origin_x + b.width) / width, (b.origin_y + b.height) / height)
            for b in boxes
        ]
