"""The fit's landmarks, detected and on the fitted head, as they are shown."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from flame_fitting.capture.camera import transform_points
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.viewer.opening import Viewed


class Marks:
    """Those that the fit used at some timestep."""

    def __init__(self, viewed: Viewed, fitted: Float[ndarray, "V 3"]) -> None:
        """`fitted`: the head as it was fitted at the first timestep, in the shown frame."""
        found, self._viewed = viewed.fit.landmarks3d, viewed
        self._index: Int[ndarray, " n"] = np.zeros(0, dtype=np.int64)
        if not {"points", "model", "used"} <= found.keys():
            return
        on_head = transform_points(viewed.shown_from_world, found["model"][0])
        there = np.asarray(found["used"], dtype=bool).any(axis=0) & np.isfinite(on_head).all(axis=1)
        self._index = np.flatnonzero(there)
        if not len(self._index):
            return
        self._faces = viewed.head.faces.cpu().numpy()
        closest = TriangleTree(fitted, self._faces).closest(on_head[self._index])
        self._face, self._barycentric = closest.face, closest.barycentric

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._index)

    def on_head(self, vertices: Float[ndarray, "V 3"]) -> Float[ndarray, "n 3"]:
        """Where they are on a posed head."""
        if not self.count:
            return np.zeros((0, 3))
        return np.einsum("nk,nkc->nc", self._barycentric, vertices[self._faces[self._face]])

    def detected(self, row: int) -> Float[ndarray, "m 3"]:
        """Where they were detected at a timestep, lifted into space; none where a single camera saw them."""
        if not self.count:
            return np.zeros((0, 3))
        points = self._viewed.fit.landmarks3d["points"][row][self._index]
        return transform_points(self._viewed.shown_from_world, points[np.isfinite(points).all(axis=1)])
