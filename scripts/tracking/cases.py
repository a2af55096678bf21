"""What is tracked: kinds of sequences, and the heads that move in them."""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

if TYPE_CHECKING:
    from flame_fitting.head.embedding import LandmarkEmbedding
    from flame_fitting.head.model import HeadModel

LEFT_OUT_EVERY, LEFT_OUT_FIRST = 8, 5
"""Frames that are left out: those of these numbers."""
HEADS = ("open", "standin")
_BROW_MM = 2.5
"""Half the width of a painted brow."""
_BROW = (0.30, 0.22, 0.17)


@dataclass(frozen=True)
class Case:
    """One kind of sequence."""

    name: str
    title: str
    number: int
    """For its seeds."""
    frames: int
    cameras: int = 1
    """That track it; one: nothing of it is known."""
    heldout: int = 0
    """Further cameras, whose pictures are only measured with."""
    leaves_out: bool = False
    """Whether some pictures show no head."""
    turn_degrees: float = 12.0
    """Farthest from looking forward."""
    depth_share: float = 0.0
    """Largest change of the distance to the camera, of the distance."""
    still: bool = False
    """Nothing moves."""

    @property
    def monocular(self) -> bool:
        """Whether the one camera is not known."""
        return self.cameras == 1

    def left_out(self, frames: int) -> ndarray:
        """Bool (T,): timesteps whose picture shows no head."""
        out = np.zeros(frames, dtype=bool)
        if self.leaves_out:
            out[LEFT_OUT_FIRST::LEFT_OUT_EVERY] = True
        return out


CASES = (
    Case("rig", "8 cameras", 0, 12, cameras=8, heldout=2),
    Case("video", "1 camera, frames left out", 1, 40, leaves_out=True),
    Case("turn", "1 camera, turn and depth", 2, 40, turn_degrees=30.0, depth_share=0.2),
    Case("still", "8 cameras, nothing moves", 3, 12, cameras=8, heldout=2, still=True),
    Case("still_video", "1 camera, nothing moves", 4, 40, still=True),
)
BY_NAME = {case.name: case for case in CASES}
DEFAULT_CASES = ("rig", "video", "turn", "still")


@dataclass(frozen=True)
class Head:
    """A head model of the bench."""

    name: str
    spec: str
    """What --head takes."""
    embedding: Path | None = None
    """What --landmark-embedding takes."""

    @property
    def missing(self) -> str:
        """Why it cannot be used here; empty if it can."""
        files = [path for path in (self.embedding, Path(self.spec) if self.spec != "open" else None) if path]
        gone = [str(path) for path in files if not path.is_file()]
        return f"{', '.join(gone)}: not there (FLAME_FITTING_TEST_DATA says where test data is)" if gone else ""


def head_named(name: str) -> Head:
    """One of `HEADS`."""
    from ..accuracy.cases import EMBEDDING, STANDIN, default_data

    if name == "open":
        return Head("open", "open")
    data = Path(os.path.abspath(default_data()))
    return Head("standin", str(data / STANDIN), data / EMBEDDING)


def open_head(head: Head) -> "tuple[HeadModel, LandmarkEmbedding]":
    """The model with a texture of its own, or a painted one, and iBUG-68 points on it: those that a fit takes."""
    from flame_fitting.avatar.head_calibration import shipped_embedding
    from flame_fitting.errors import InputError
    from flame_fitting.head.loading import load_head
    from flame_fitting.landmarks.embedding_schemes import for_scheme
    from flame_fitting.landmarks.licensed_embeddings import load_licensed_embedding

    model = load_head(head.spec)
    if head.embedding is not None:
        embedding = load_licensed_embedding(head.embedding, model)
    else:
        shipped = shipped_embedding(model, "mediapipe", "textured")
        if shipped is None:
            raise InputError(f"--heads {head.name}: has no landmarks of its own.")
        embedding = shipped
    embedding = for_scheme(embedding, "ibug68", model)
    if model.texture is None:
        from ..accuracy.cases import painted_texture

        model.texture = painted_texture(model, painted_skin(model, embedding))
    return model, embedding


def painted_skin(head: "HeadModel", embedding: "LandmarkEmbedding") -> Float[ndarray, "V 3"]:
    """Colours 0..1 for a model without a texture: by region, and brows along their landmarks."""
    from flame_fitting.avatar.head_calibration import painted_colors
    from flame_fitting.landmarks.schemes import scheme_named

    colors = painted_colors(head, embedding)
    template = head.v_template.double().cpu().numpy()
    points = embedding.points(head.v_template[None], head.faces)[0].double().cpu().numpy()
    for side in ("right_brow", "left_brow"):
        line = points[scheme_named(embedding.scheme).groups[side]]
        along = np.concatenate([np.linspace(a, b, 16) for a, b in pairwise(line)])
        away = 1e3 * np.linalg.norm(template[:, None] - along, axis=-1).min(1)
        share = np.clip(2 - away / _BROW_MM, 0, 1)[:, None]
        colors = (1 - share) * colors + share * np.array(_BROW)
    return colors
