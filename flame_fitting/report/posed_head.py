"""A posed head for whoever asks pixel by pixel which of its triangles are seen, and how far away."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.head.model import HeadModel
from flame_fitting.report.drawing import head_avatar


class PosedHead:
    """Made once for all views of it."""

    def __init__(self, head: HeadModel, vertices: Float[ndarray, "V 3"]) -> None:
        self._scene = head_avatar(head, np.asarray(vertices, dtype=np.float64)).scene

    @property
    def faces(self) -> Int[ndarray, "F 3"]:
        """The head's triangles."""
        faces: ndarray = self._scene.faces
        return faces

    def places(
        self, K: Float[ndarray, "3 3"], world_to_camera: Float[ndarray, "4 4"], scale: float = 1.0
    ) -> Float[ndarray, "V 3"]:
        """Homogeneous pixel coordinates (x w, y w, w), w the depth, in a picture `scale` times as large as K says."""
        places: ndarray = self._scene.project(K[None], world_to_camera[None], scale)[0]
        return places

    def seen(
        self, places: Float[ndarray, "V 3"], width: int, height: int
    ) -> tuple[Float[ndarray, "H W"], Int[ndarray, "H W"]]:
        """Of each pixel of a picture: 1 / depth of the foremost triangle (0 without one), and its number (-1)."""
        inverse, winner = self._scene.rasterize(places[None], width, height)
        return inverse[0], winner[0]
