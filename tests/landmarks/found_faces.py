"""Stands in for the face finder."""

from typing import Any

import numpy as np

from flame_fitting.landmarks.faces import Face, FaceFinder


class Faces(FaceFinder):
    """Finds the faces it was given, one for each picture."""

    version = "given"  # type: ignore[assignment]

    def __init__(self, *faces: Face | None) -> None:
        self.faces = list(faces)

    def find(self, images: np.ndarray) -> list[Face | None]:
        """As `FaceFinder.find`."""
        return (self.faces * len(images))[: len(images)]


def faces(*boxes: Any) -> Any:
    """A finder of faces in these boxes, all points in sight."""
    return Faces(*(None if box is None else Face(np.array(box, dtype=float), np.ones(68)) for box in boxes))
