"""What every kind of avatar offers: all that finding the face, calibrating, planning views and rendering ask of it.

A textured mesh (`mesh_avatar`) is one kind. A new one is a class with these members and a line in `loading`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

SHADINGS = ("unlit", "lit", "clay")
OUTPUTS = ("image", "alpha", "depth", "normal")
VIEWS_AT_ONCE = 4
"""Views that are drawn together; more in one call cost memory and gain nothing."""


@dataclass
class RenderedViews:
    """Pictures of B views. What was not asked for is None."""

    image: Float[np.ndarray, "B 3 H W"] | None = None
    """sRGB in 0..1, composited on the background."""
    alpha: Float[np.ndarray, "B H W"] | None = None
    """Share of the pixel that is covered."""
    depth: Float[np.ndarray, "B H W"] | None = None
    """Depth along the camera's z at the pixel's centre, world units; 0 outside."""
    normal: Float[np.ndarray, "B H W 3"] | None = None
    """Unit normal in the world at the pixel's centre, toward the camera; 0 outside."""
    noise: Float[np.ndarray, "B H W"] | None = None
    """Standard deviation of the surface along its normal, world units; None where depth is exact."""


@runtime_checkable
class Surface(Protocol):
    """Something that distances can be measured to."""

    def distance(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, " N"]:
        """Distance of each point, in the units of the points."""
        ...


@runtime_checkable
class Avatar(Protocol):
    """A static avatar in its own coordinates and unit (its world)."""

    path: Path
    """Its file, or a name where it was made in memory."""
    file_hash: str
    """SHA-256 of the file, and of the files it refers to where there are any; empty in memory."""
    format: str
    """Suffix of the file, e.g. glb; or memory."""
    notes: list[str]
    """What was done to the file's content, in plain words."""
    warnings: list[str]
    """What the file lacks that makes a fit worse, such as pictures that are not there."""

    @property
    def geometry(self) -> Literal["mesh", "splats"]:
        """What its surface is made of, which says how far it may be trusted."""
        ...

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Smallest and largest coordinates."""
        ...

    @property
    def points(self) -> Float[np.ndarray, "N 3"]:
        """Points of it that tell where its bulk lies, within `bounds`; neither even nor complete."""
        ...

    @property
    def has_color(self) -> bool:
        """Whether its colours show a face; where they are plain, clay shows it better."""
        ...

    def normalized(self, center: Float[np.ndarray, " 3"], scale: float) -> "Avatar":
        """The avatar in the frame of (x - center) / scale."""
        ...

    def settled(
        self, K: Float[np.ndarray, "V 3 3"], world_to_camera: Float[np.ndarray, "V 4 4"], size: int
    ) -> "Avatar":
        """The avatar with the surface that views of this size (px) have together, and with its noise.

        Itself where its surface is exact.
        """
        ...

    @property
    def unseen(self) -> Bool[np.ndarray, " V"]:
        """Which of the views that it was settled by look at a side that nobody has ever seen; empty where unknown."""
        ...

    def draw(
        self,
        K: Float[np.ndarray, "B 3 3"],
        world_to_camera: Float[np.ndarray, "B 4 4"],
        width: int,
        height: int,
        shading: str = "unlit",
        background: Iterable[float | int] = (1.0, 1.0, 1.0),
        supersample: int = 2,
        light_rotation: Float[np.ndarray, "3 3"] | None = None,
        outputs: Iterable[str] = OUTPUTS,
    ) -> RenderedViews:
        """Pictures from B cameras.

        Args:
            K: px.
            world_to_camera: rigid, OpenCV axes, world units.
            shading: `unlit` is the base colour; `lit` the base colour under soft lights; `clay` grey under the same
                lights, darker in concave places. ValueError for another one.
            background: sRGB 0..1.
            supersample: samples along each side of a pixel, for image and alpha; depth and normal belong to centres.
            light_rotation: from the world to a frame in which the lights stand still; without it they move with the
                camera.
            outputs: those of `OUTPUTS` that are wanted.
        """
        ...

    def seen_surface(
        self, points: Float[np.ndarray, "M 3"], head_from_world: Float[np.ndarray, "4 4"]
    ) -> Surface | None:
        """The part of its surface that `points` (head space) were seen on, in head space, to measure to exactly.

        None where it has no surface but what pictures show.
        """
        ...
