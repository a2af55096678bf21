"""Landmarks as barycentric points on a head model's triangles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz, reason


@dataclass(eq=False)
class LandmarkEmbedding:
    """Where on a head model a detector's points lie."""

    face_index: np.ndarray
    """(N,) triangle of each point, -1 where the point has none."""
    barycentric: np.ndarray
    """(N, 3) weights of the triangle's vertices."""
    spread_mm: np.ndarray
    """(N,) median distance of single views' points from the robust mean, mm."""
    n_views: np.ndarray
    """(N,) views that saw the point."""
    scheme: str
    """Landmark order, e.g. mediapipe478."""
    detector: str
    shading: str
    """textured, lit or clay: the kind of pictures it was calibrated on."""
    head_hash: str
    detector_version: str = ""
    """Which weights and settings of the detector it was calibrated with; empty where it was not calibrated."""
    residual_mm: np.ndarray | None = None
    """(heads, 51, 3) how far the inner points that the detector showed on drawn heads, lifted, lie from these places on
    them; NaN where one was not found. None where that was not measured. The heads of all detectors are the same."""
    picture_mm: np.ndarray | None = None
    """(heads, views, 51, 2) how far they lie from the places in single pictures of the same heads, along the
    picture's x and y at the depth of the place; NaN where one was not found. None where that was not measured."""
    picture_yaw: np.ndarray | None = None
    """(views,) degrees of yaw from which these pictures look at the head."""

    @property
    def valid(self) -> np.ndarray:
        """Bool (N,)."""
        return self.face_index >= 0

    def points(self, vertices: Float[Tensor, "T V 3"], faces: Tensor) -> Float[Tensor, "T N 3"]:
        """3D points on posed vertices; NaN for invalid ones."""
        index = torch.as_tensor(np.maximum(self.face_index, 0), device=vertices.device)
        weights = np.where(self.valid[:, None], self.barycentric, np.nan)
        corners = vertices[:, faces[index]]
        return torch.einsum("tnkc,nk->tnc", corners, torch.as_tensor(weights, device=vertices.device).to(vertices))

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        with atomic_write(path) as temporary:
            np.savez_compressed(
                temporary, **{name: value for name, value in self.__dict__.items() if value is not None}
            )

    @classmethod
    def load(cls, path: Path) -> "LandmarkEmbedding":
        """Reads what `save` wrote."""
        advice = "Delete it to have it made again."
        arrays = read_npz(path, advice)
        try:
            return cls(**{name: value if value.ndim else str(value) for name, value in arrays.items()})  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: not a landmark embedding ({reason(error)}). {advice}") from error
